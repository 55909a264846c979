"""Raw JetStream requests: one round trip each, errors in the product's words.

Reads that must see the newest write: with one replica a direct get is answered by the only server that has
the stream, so it is the newest. With more, any replica may answer, also one that is behind; then the leader
is asked (`STREAM.MSG.GET`), at the price of a little more work there.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from nats.aio.msg import Msg

from jetway.adapters.nats.connection import Connection
from jetway.core.errors import (
    ConflictError,
    ExhaustedError,
    OutcomeUnknownError,
    PortError,
    RejectedError,
    UnavailableError,
)

T = TypeVar("T")

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"
_STORED_AT = "Nats-Time-Stamp"
_CONFLICTS = frozenset({10071, 10164})
"""JetStream's error codes for a wrong last sequence."""
_TOO_LARGE = 10054
"""JetStream's error code for a message that is larger than the stream takes."""
_NO_ROOM = frozenset({10002, 10023, 10028, 10047, 10077})
"""JetStream's error codes for limits of the account or the server that are reached, and a store that fails."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
_READ_BACK_SECONDS = 2.0


class ApiError(PortError):
    """JetStream understood and refused."""

    def __init__(self, description: str, code: int, err_code: int) -> None:
        super().__init__(f"JetStream: {description} ({err_code})")
        self.code = code
        self.err_code = err_code


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream keeps it."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_marker(self) -> bool:
        """Whether it says that a key was deleted or purged."""
        return OPERATION in self.headers

    @property
    def written_at(self) -> datetime:
        """When the server stored it, by the server's clock."""
        return datetime.fromisoformat(self.headers[_STORED_AT])


class JetStream:
    """JetStream over a connection, in a domain if one is given."""

    def __init__(self, connection: Connection, domain: str = "") -> None:
        self.connection = connection
        self.replicas = 1
        """Of the streams; set by `Schema.ensure`."""
        self.api = f"$JS.{domain}.API." if domain else "$JS.API."

    async def call(
        self, endpoint: str, body: Mapping[str, Any] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ask the API. Raises ApiError when it refuses, UnavailableError when it cannot now."""
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.connection.request(self.api + endpoint, data, timeout=timeout)
        return _checked(answer.data)

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        expected: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Store a message; its sequence.

        `expected`: only if the subject's newest message has this sequence (0: there is none). Raises
        ConflictError when it has not, UnavailableError when nothing was stored, OutcomeUnknownError when the
        message was sent and no answer came.
        """
        sent = dict(headers or {})
        if expected is not None:
            sent[EXPECTED] = str(expected)
        answer = await self.connection.request(subject, data, headers=sent or None, timeout=timeout)
        return int(_checked(answer.data)["seq"])

    async def read_last(self, stream: str, subject: str) -> Stored | None:
        """The newest message on the subject."""
        if self.replicas > 1:
            return await self._read_from_leader(stream, {"last_by_subj": subject})
        return await self._read_direct(f"{stream}.{subject}", b"")

    async def read_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """The first message on the subject whose sequence is at least `sequence`."""
        body = {"seq": sequence, "next_by_subj": subject}
        if self.replicas > 1:
            return await self._read_from_leader(stream, body)
        return await self._read_direct(stream, json.dumps(body).encode())

    async def read_back(self, read: Callable[[], Awaitable[T]], error: OutcomeUnknownError) -> T:
        """Read after a write of unknown outcome, waiting a little for the link.

        Raises `error` if that fails too.
        """
        await self.connection.wait_connected(_READ_BACK_SECONDS)
        try:
            return await read()
        except PortError:
            raise error from None

    async def _read_direct(self, target: str, body: bytes) -> Stored | None:
        with _nothing_done():
            answer = await self.connection.request(f"{self.api}DIRECT.GET.{target}", body)
        headers = plain_headers(answer)
        status = headers.get("Status", "")
        if status == "404":
            return None
        if status or "Nats-Sequence" not in headers:
            raise UnavailableError(f"JetStream: {status} {headers.get('Description', 'no direct get')}")
        return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), answer.data, headers)

    async def _read_from_leader(self, stream: str, body: Mapping[str, Any]) -> Stored | None:
        try:
            with _nothing_done():
                message = (await self.call(f"STREAM.MSG.GET.{stream}", body))["message"]
        except ApiError as error:
            if error.code == 404 and error.err_code != STREAM_NOT_FOUND:
                return None
            raise
        data = base64.b64decode(message.get("data") or "")
        headers = _parse_headers(message.get("hdrs")) | {_STORED_AT: message["time"]}
        return Stored(message["subject"], message["seq"], data, headers)


@contextlib.contextmanager
def _nothing_done() -> Iterator[None]:
    """Of a read that got no answer the outcome is known: it changed nothing."""
    try:
        yield
    except OutcomeUnknownError as error:
        raise UnavailableError(str(error)) from error


def plain_headers(message: Msg) -> dict[str, str]:
    """A message's headers with plain strings as keys: nats-py mixes in members of an enum."""
    return {getattr(key, "value", key): value for key, value in (message.headers or {}).items()}


def _checked(data: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise PortError("NATS gave an answer that is not JSON") from error
    problem = answer.get("error")
    if not problem:
        return answer
    code, err_code = int(problem.get("code", 0)), int(problem.get("err_code", 0))
    description = str(problem.get("description", ""))
    if err_code in _CONFLICTS:
        raise ConflictError(description)
    if err_code == _TOO_LARGE:
        raise RejectedError(f"JetStream: {description} ({err_code})")
    if err_code in _NO_ROOM:
        raise ExhaustedError(f"JetStream: {description} ({err_code})")
    if code == 503:
        raise UnavailableError(f"JetStream: {description} ({err_code})")
    raise ApiError(description, code, err_code)


def _parse_headers(encoded: str | None) -> dict[str, str]:
    if not encoded:
        return {}
    lines = base64.b64decode(encoded).decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
