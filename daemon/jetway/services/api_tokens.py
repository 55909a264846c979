"""API tokens: random, shown once, stored as a hash, revoked at once.

When a token was last used is known in memory and stored seldom, so that a call writes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from jetway.core.errors import Code, ConflictError, PortError, refuse
from jetway.core.record import EventType
from jetway.core.times import to_milliseconds
from jetway.ports import ApiToken, ApiTokenStore, Clock
from jetway.services.caller import OWN_NAMES, Caller
from jetway.services.trail import Trail

log = structlog.get_logger()

ROLES = ("viewer", "operator", "admin")
"""From the least to the most that a token may do; each may what those before it may."""

_NAME = re.compile(r"(?!.{64})[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\Z")
_PREFIX = "jwa_"
_STORE_SECONDS = 600.0
"""Between two writings of when tokens were used: what a crash loses is no more than that."""


def allows(role: str, needed: str) -> bool:
    """Whether a token of `role` may do what needs `needed`."""
    return ROLES.index(role) >= ROLES.index(needed)


class ApiTokens:
    """The tokens in force, in memory, kept up to date from the store."""

    def __init__(self, store: ApiTokenStore, trail: Trail | None, clock: Clock) -> None:
        self._store = store
        self._trail = trail
        self._clock = clock
        self._by_hash: dict[str, ApiToken] = {}
        self._used: dict[str, datetime] = {}
        """Hash → last use, of those whose last use is not stored."""

    async def load(self) -> None:
        """Read the store. Raises PortError."""
        self._take(await self._store.load())

    async def run(self) -> None:
        """Follow the store for ever: a token revoked elsewhere ends here as well."""
        async for tokens in self._store.follow():
            self._take(tokens)

    async def keep_uses(self) -> None:
        """Store when tokens were used, now and then, for ever."""
        while True:
            await asyncio.sleep(_STORE_SECONDS)
            await self.store_uses()

    async def store_uses(self) -> None:
        """Store when tokens were used. What cannot be stored now is stored the next time."""
        for sha256, at in list(self._used.items()):
            token = self._by_hash.get(sha256)
            if token is None:
                continue
            try:
                await self._store.note_use(token, at)
            except PortError as error:
                log.warning(
                    "the last use of API tokens is stored later", action="api_token_use", error=str(error)
                )
                return
            self._stored(sha256, at)

    def authenticate(self, text: str) -> ApiToken | None:
        """The token that this text is, if it is one in force. Looks up a hash, so timing tells nothing."""
        token = self._by_hash.get(_hash(text))
        if token is None or self._is_over(token):
            return None
        self._used[token.sha256] = to_milliseconds(self._clock.now())
        return token

    def expired(self, text: str) -> ApiToken | None:
        """The token that this text was, if its time is over."""
        token = self._by_hash.get(_hash(text))
        return token if token is not None and self._is_over(token) else None

    def list(self) -> list[ApiToken]:
        """All tokens by name, without their secrets."""
        return sorted(map(self._with_last_use, self._by_hash.values()), key=lambda token: token.name)

    async def create(
        self, caller: Caller, name: str, role: str, expires_in: timedelta | None = None
    ) -> tuple[str, ApiToken]:
        """A new token's text, shown here and never again, and its description.

        Raises RefusedError (invalid, taken).
        """
        if not _NAME.match(name):
            raise refuse(
                Code.INVALID, "a token's name is letters, digits, '_', '-' and inner '.', at most 63", "name"
            )
        if name.lower() in OWN_NAMES:
            raise refuse(
                Code.INVALID, f"the gateway itself acts as {name.lower()!r}: choose another name", "name"
            )
        if role not in ROLES:
            raise refuse(Code.INVALID, f"a role is one of {', '.join(ROLES)}", "role")
        text = _PREFIX + secrets.token_urlsafe(32)
        now = to_milliseconds(self._clock.now())
        token = ApiToken(
            name=name,
            role=role,
            sha256=_hash(text),
            created_at=now,
            created_by=caller.actor,
            expires_at=now + expires_in if expires_in else None,
        )
        try:
            await self._store.put(token)
        except ConflictError:
            raise refuse(Code.TAKEN, f"there is already an API token {name!r}", "name") from None
        self._by_hash[token.sha256] = token
        if self._trail:
            await self._trail.try_note(
                EventType.API_TOKEN_CREATED, caller, metadata={"name": name, "role": role}
            )
        return text, token

    async def revoke(self, caller: Caller, name: str) -> None:
        """End a token at once. Raises RefusedError (not_found).

        Its name is free then, so that a token can be exchanged for another one of its owner's: the trail says from
        when to when each was in force.
        """
        if not await self._store.remove(name):
            raise refuse(Code.NOT_FOUND, f"there is no API token {name!r}")
        self._take([token for token in self._by_hash.values() if token.name != name])
        if self._trail:
            await self._trail.try_note(EventType.API_TOKEN_REVOKED, caller, metadata={"name": name})

    def _take(self, tokens: Sequence[ApiToken]) -> None:
        self._by_hash = {token.sha256: token for token in tokens}
        self._used = {sha256: at for sha256, at in self._used.items() if sha256 in self._by_hash}

    def _stored(self, sha256: str, at: datetime) -> None:
        if self._used.get(sha256) == at:
            del self._used[sha256]
        token = self._by_hash.get(sha256)
        if token is not None:
            self._by_hash[sha256] = replace(token, last_used_at=at)

    def _is_over(self, token: ApiToken) -> bool:
        return token.expires_at is not None and token.expires_at <= self._clock.now()

    def _with_last_use(self, token: ApiToken) -> ApiToken:
        return replace(token, last_used_at=self._used.get(token.sha256, token.last_used_at))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
