"""The HTTP API's client: where the daemon is, who we are, and one call after the other.

JETWAY_URL and JETWAY_TOKEN say it. On the daemon's own host both are found in its state directory, by whoever
may read it. The token found there goes to the address found there and to no other.
"""

from __future__ import annotations

import json
import os
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jetway.cli.errors import CommandError
from jetway.cli.places import usual_state_dirs
from jetway.edge.exchange import (
    Answer,
    BadAddressError,
    Endpoint,
    ExchangeError,
    RefusedConnectionError,
    explain,
    parse_url,
    send,
    trust_certificate,
)

DAEMON_FILE = "daemon.json"
TOKEN_FILE = "admin.token"  # noqa: S105 - a file's name
PAGE = 500
_TIMEOUT = 120.0
_BULK_TIMEOUT = 660.0
"""A little longer than the daemon gives itself for it."""
_BULK_REPEATS = 2
_ANSWER_LIMIT = 256 * 1024 * 1024
_RETRY_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Client:
    """One daemon, seen as one caller."""

    endpoint: Endpoint
    token: str = field(default="", repr=False)
    certificate_pem: str = ""
    """The certificate by which a daemon on this host is known; empty: the system's trust decides."""

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Read. Raises CommandError."""
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, long: bool = False) -> Any:
        """Change something; `long` where it may take ten minutes. Raises CommandError."""
        timeout = _BULK_TIMEOUT if long else _TIMEOUT
        return self._call("POST", path, body=body or {}, timeout=timeout)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create, once: a call whose answer was lost is repeated under the same Idempotency-Key."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        try:
            return self._call("POST", path, body=body, headers=key)
        except _LostAnswer:
            time.sleep(_RETRY_PAUSE)
            return self._call("POST", path, body=body, headers=key)

    def repeat(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change something that is the same when it is done twice: once more where the answer was lost."""
        try:
            return self._call("POST", path, body=body)
        except _LostAnswer:
            time.sleep(_RETRY_PAUSE)
            return self._call("POST", path, body=body)

    def send_rows(self, path: str, data: bytes, media_type: str, key: str, query: Mapping[str, Any]) -> Any:
        """Create many from a file, once: lost answers are asked for again under the same Idempotency-Key."""
        sent = {"Idempotency-Key": key, "Content-Type": media_type}
        for _ in range(_BULK_REPEATS):
            try:
                return self._call("POST", path, query=query, data=data, headers=sent, timeout=_BULK_TIMEOUT)
            except _LostAnswer:
                time.sleep(_RETRY_PAUSE)
        return self._call("POST", path, query=query, data=data, headers=sent, timeout=_BULK_TIMEOUT)

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Delete; the answer, if there is one. Raises CommandError."""
        return self._call("DELETE", path, query=query)

    def stream(
        self,
        path: str,
        query: Mapping[str, Any],
        sink: Callable[[bytes], object],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        """Read something of any size, piece by piece, with at most `timeout` seconds between two of them.

        Raises CommandError, also where it broke off. What `sink` raises comes through, unless it is an OSError.
        """
        self._call("GET", path, query=query, sink=sink, headers=headers, timeout=timeout)

    def all(self, path: str, query: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
        """A whole list, page after page, as one answer; `limit` ends it early."""
        items: list[Any] = []
        cursor: str | None = None
        total = 0
        for page in self._pages(path, query, limit):
            items += page["items"]
            cursor, total = page.get("next_cursor"), page.get("total", 0)
        return {"items": items, "next_cursor": cursor, "total": total}

    def _pages(self, path: str, query: Mapping[str, Any], limit: int | None) -> Iterator[Any]:
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self.get(path, {**query, "limit": size, "cursor": cursor})
            yield page
            cursor = page.get("next_cursor")
            left = None if left is None else left - len(page["items"])
            if not cursor or not page["items"]:
                return

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
        sink: Callable[[bytes], object] | None = None,
    ) -> Any:
        sent = {"Accept": "application/json", "User-Agent": "jetway-cli", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            answer = send(
                self.endpoint,
                method,
                path + _query(query),
                body=data,
                headers=sent,
                timeout=timeout,
                limit=_ANSWER_LIMIT,
                context=self._trust(),
                sink=sink,
            )
        except RefusedConnectionError:
            raise CommandError(
                f"nobody listens at {self.endpoint.url}: the daemon does not run there (`jetway serve`),"
                " or JETWAY_URL should name another address"
            ) from None
        except ExchangeError as error:
            raise _LostAnswer(str(error)) from error
        return self._read(answer)

    def _trust(self) -> ssl.SSLContext | None:
        if not self.certificate_pem or self.endpoint.scheme != "https":
            return None
        try:
            return trust_certificate(self.certificate_pem)
        except ValueError:
            raise CommandError(f"{DAEMON_FILE} is damaged: restart the daemon") from None

    def _read(self, answer: Answer) -> Any:
        if answer.status == 401:
            hint = "JETWAY_TOKEN is not valid there" if self.token else "set JETWAY_TOKEN to an API token"
            raise RefusedCallError(answer.status, f"{explain(answer)} ({hint})")
        if not 200 <= answer.status < 300:
            raise RefusedCallError(answer.status, explain(answer))
        if not answer.body:
            return None
        try:
            return json.loads(answer.body)
        except ValueError:
            raise CommandError(f"{self.endpoint.url} answers, but it is no Jetway daemon") from None


class RefusedCallError(CommandError):
    """The daemon answered, and refused. `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _LostAnswer(CommandError):
    """The request may or may not have arrived."""


def connect() -> Client:
    """The client for the daemon that the environment or this host's state directory names."""
    url, token = os.environ.get("JETWAY_URL", "").strip(), os.environ.get("JETWAY_TOKEN", "").strip()
    found: _Found | None = None
    if not url or not token or url.startswith("https:"):
        found = _find_daemon()
    if not url:
        if found is None:
            places = ", ".join(map(str, state_dirs()))
            raise CommandError(
                f"no running daemon was found (looked in {places}): start one with `jetway serve`,"
                " or set JETWAY_URL and JETWAY_TOKEN"
            )
        url = found.url
    try:
        endpoint = parse_url(url)
    except BadAddressError as error:
        raise CommandError(f"JETWAY_URL: {error}") from None
    certificate = ""
    if found is not None and _endpoint(found.url) == endpoint:
        token, certificate = token or _admin_token(found.place), found.certificate_pem
    if any(character <= " " or character > "~" for character in token):
        raise CommandError("JETWAY_TOKEN: a token holds no spaces or line breaks")
    return Client(endpoint, token, certificate)


def state_dirs() -> list[Path]:
    """Where a daemon of this host may keep its state, the likeliest first."""
    named = [os.environ.get("JETWAY_STATE_DIR"), _configured_state_dir()]
    places = [Path(place) for place in named if place]
    return list(dict.fromkeys([*places, *usual_state_dirs()]))


def segment(text: str) -> str:
    """A piece of a path, whatever somebody typed."""
    return quote(text, safe="")


def _configured_state_dir() -> str | None:
    file = os.environ.get("JETWAY_CONFIG")
    if not file:
        return None
    import tomllib

    try:
        place = tomllib.loads(Path(file).read_text()).get("state_dir")
    except (OSError, ValueError):
        # The daemon itself will say what is wrong with it; here it only helps to find the daemon.
        return None
    return place if isinstance(place, str) else None


@dataclass(frozen=True, slots=True)
class _Found:
    """A daemon of this host: where it is, where its state is, and the certificate that it shows."""

    url: str
    place: Path
    certificate_pem: str


def _find_daemon() -> _Found | None:
    for place in state_dirs():
        try:
            told = json.loads((place / DAEMON_FILE).read_bytes())
            url, certificate = told.get("url"), told.get("certificate_pem", "")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(url, str) and url:
            return _Found(url, place, certificate if isinstance(certificate, str) else "")
    return None


def _endpoint(url: str) -> Endpoint | None:
    try:
        return parse_url(url)
    except BadAddressError:
        return None


def _admin_token(place: Path) -> str:
    try:
        return (place / TOKEN_FILE).read_text().strip()
    except (OSError, ValueError):
        return ""


def _query(query: Mapping[str, Any] | None) -> str:
    """A query string: nothing for what is not set, once for each item of a list."""
    wanted = {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in (query or {}).items()
        if value not in (None, "", [])
    }
    return f"?{urlencode(wanted, doseq=True)}" if wanted else ""
