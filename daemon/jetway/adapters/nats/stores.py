"""The small stores: audit log, idempotency keys, API tokens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog
from pydantic import TypeAdapter

from jetway.adapters.nats.bucket import Bucket
from jetway.adapters.nats.feeds import encode_event
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import Names, subject_of
from jetway.adapters.nats.tail import Tail
from jetway.core.errors import ConflictError, OutcomeUnknownError, PortError
from jetway.core.rows import Event
from jetway.ports import ApiToken, Claim

log = structlog.get_logger()

_CLAIM: TypeAdapter[Claim] = TypeAdapter(Claim)
_TOKEN: TypeAdapter[ApiToken] = TypeAdapter(ApiToken)
_ATTEMPTS = 10


class NatsAuditLog:
    """Implements `ports.AuditLog`: into REGISTRY_AUDIT, from where the server carries it into the trail."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._prefix = names.audit_prefix

    async def append(self, event: Event) -> None:
        """Durable when this returns. The same event_id again within two minutes is stored once."""
        publish = partial(
            self._js.publish,
            f"{self._prefix}{event.event_type}",
            encode_event(event),
            headers={"Nats-Msg-Id": event.event_id},
        )
        try:
            await publish()
        except OutcomeUnknownError as error:
            # The server knows the id, so asking again is safe and makes the outcome known.
            await self._js.read_back(publish, error)


class NatsIdempotencyStore:
    """Implements `ports.IdempotencyStore`. The bucket forgets after 24 h."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._bucket = Bucket(jetstream, names.idempotency_bucket)

    async def claim(self, key_sha256: str, claim: Claim) -> Claim:
        """Claim the key; the claim that stands: the caller's own, or the one that was there first."""
        for _ in range(_ATTEMPTS):
            try:
                await self._bucket.write(key_sha256, _CLAIM.dump_json(claim), 0)
                return claim
            except ConflictError:
                standing = await self._read(key_sha256)
            except OutcomeUnknownError as error:
                standing = await self._js.read_back(partial(self._read, key_sha256), error)
                if standing is None:
                    raise
            if standing is not None:
                return standing
            # It was there and is forgotten by now: try again.
        raise PortError("the idempotency key keeps changing")

    async def _read(self, key: str) -> Claim | None:
        stored = await self._bucket.read(key)
        if stored.data is None:
            return None
        try:
            return _CLAIM.validate_json(stored.data)
        except ValueError as error:
            raise PortError("a stored idempotency claim cannot be read") from error


class NatsApiTokenStore:
    """Implements `ports.ApiTokenStore`."""

    def __init__(self, jetstream: JetStream, names: Names) -> None:
        self._js = jetstream
        self._bucket = Bucket(jetstream, names.api_tokens_bucket)

    async def put(self, token: ApiToken) -> None:
        """Create. Raises ConflictError when the name is taken."""
        stored = await self._bucket.read(token.name)
        if stored.data is not None:
            raise ConflictError(f"there is a token {token.name}")
        data = _TOKEN.dump_json(token)
        try:
            await self._bucket.write(token.name, data, stored.sequence)
        except OutcomeUnknownError as error:
            found = await self._js.read_back(partial(self._bucket.read, token.name), error)
            if found.data != data:
                raise

    async def remove(self, name: str) -> bool:
        """Forget the token at once; whether there was one."""
        for _ in range(_ATTEMPTS):
            stored = await self._bucket.read(name)
            if stored.data is None:
                return False
            try:
                await self._bucket.delete(name, stored.sequence)
            except ConflictError:
                continue
            except OutcomeUnknownError as error:
                found = await self._js.read_back(partial(self._bucket.read, name), error)
                if found.data is not None:
                    raise
            return True
        raise ConflictError(f"the token {name} keeps changing")

    async def note_use(self, token: ApiToken, at: datetime) -> None:
        """Remember that it was used then, unless a later use is known, or it is gone: it never comes back so.

        Whatever comes between costs nothing but this note: the next use is noted in its turn.
        """
        stored = await self._bucket.read(token.name)
        known = _decode(token.name, stored.data)
        if known is None or known.sha256 != token.sha256 or (known.last_used_at or at) > at:
            return
        with contextlib.suppress(ConflictError):
            await self._bucket.write(
                token.name, _TOKEN.dump_json(replace(known, last_used_at=at)), stored.sequence
            )

    async def load(self) -> Sequence[ApiToken]:
        """All of them, as they stand now, by name."""
        tokens = []
        for key in await self._bucket.keys():
            stored = await self._bucket.read(key)
            token = _decode(key, stored.data)
            if token is not None:
                tokens.append(token)
        return tokens

    async def follow(self) -> AsyncIterator[Sequence[ApiToken]]:
        """All of them, again after every change, for ever, over reconnects."""
        subjects = subject_of(self._bucket.name, ">")
        start = len(subject_of(self._bucket.name, ""))
        tail = Tail(self._js, self._bucket.stream, subjects, name="api-tokens")
        tokens: dict[str, ApiToken] = {}
        try:
            while True:
                stretch = await tail.next()
                for message in stretch.messages:
                    key = message.subject[start:]
                    token = None if message.is_marker else _decode(key, message.data)
                    if token is None:
                        tokens.pop(key, None)
                    else:
                        tokens[key] = token
                if stretch.caught_up:
                    yield [tokens[key] for key in sorted(tokens)]
        finally:
            await tail.close()


def _decode(key: str, data: bytes | None) -> ApiToken | None:
    if data is None:
        return None
    try:
        return _TOKEN.validate_json(data)
    except ValueError:
        log.error("an API token cannot be read", action="api_token_undecodable", key=key)
        return None
