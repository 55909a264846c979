"""Sessions: who signed in with an API token, kept in memory, bounded, gone with the daemon.

A session is worth as much as its token at any moment: one that is revoked or has expired ends it at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from jetway.ports import ApiToken, Clock
from jetway.services.api_tokens import ApiTokens

IDLE_SECONDS = 12 * 3600.0
LONGEST_SECONDS = 7 * 86_400.0
MOST_SESSIONS = 1000
"""With more, the one that was not used for the longest time ends."""
_SECRETS_KEPT = 20
_SAID_KEPT = 5


@dataclass(slots=True)
class Session:
    """One browser that signed in."""

    text: str = field(repr=False)
    """The API token's text: it is asked for again at every call."""
    opened_at: float
    used_at: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_SAID_KEPT))
    """What the next page says, once."""
    _once: OrderedDict[str, str] = field(default_factory=OrderedDict, repr=False)

    def keep_once(self, name: str, secret: str) -> None:
        """Keep a secret for the one page that shows it."""
        self._once[name] = secret
        while len(self._once) > _SECRETS_KEPT:
            self._once.popitem(last=False)

    def take_once(self, name: str) -> str:
        """That secret, the first time; empty from then on."""
        return self._once.pop(name, "")

    def has_csrf(self, given: str) -> bool:
        """Whether a form came from one of this session's pages."""
        return hmac.compare_digest(self.csrf.encode(), given.encode("utf-8", "surrogatepass"))


class Sessions:
    """All sessions, by the hash of their id: who reads the memory of the table gets no cookie from it."""

    def __init__(self, api_tokens: ApiTokens, clock: Clock) -> None:
        self._api_tokens = api_tokens
        self._clock = clock
        self._by_hash: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_hash)

    def open(self, text: str) -> str:
        """A new session's id, for a token's text that is in force."""
        session_id = secrets.token_urlsafe(32)
        now = self._clock.monotonic()
        self._by_hash[_hash(session_id)] = Session(text, now, now)
        while len(self._by_hash) > MOST_SESSIONS:
            self._by_hash.popitem(last=False)
        return session_id

    def find(self, session_id: str, *, used: bool = True) -> tuple[Session, ApiToken] | None:
        """The session of a cookie with its token, while both are good. `used`: a person asks, not a page."""
        key = _hash(session_id)
        session = self._by_hash.get(key)
        if session is None:
            return None
        token = self._api_tokens.authenticate(session.text)
        if token is None or self._is_over(session):
            del self._by_hash[key]
            return None
        if used:
            session.used_at = self._clock.monotonic()
            self._by_hash.move_to_end(key)
        return session, token

    def end(self, session_id: str) -> None:
        """Sign out. An unknown session is none."""
        self._by_hash.pop(_hash(session_id), None)

    def _is_over(self, session: Session) -> bool:
        now = self._clock.monotonic()
        return now - session.used_at > IDLE_SECONDS or now - session.opened_at > LONGEST_SECONDS


def _hash(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
