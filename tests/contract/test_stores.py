"""What every store of idempotency keys and of API tokens must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from jetway.adapters.nats.stores import NatsApiTokenStore, NatsIdempotencyStore
from jetway.core.errors import ConflictError
from jetway.ports import ApiToken, ApiTokenStore, Claim, IdempotencyStore
from support.builders import NOW
from support.memory import MemoryApiTokenStore, MemoryIdempotencyStore
from support.nats_server import NatsServer, gateway_on

KEY = "ab" * 32
CLAIM = Claim(body_sha256="cd" * 32, service_key="agent.a1", package_id="p-1")
ALICE = ApiToken(name="alice", role="admin", sha256="ef" * 32, created_at=NOW, created_by="jetway")
BOB = replace(ALICE, name="bob", role="viewer", expires_at=NOW + timedelta(days=1))


@dataclass
class Stores:
    idempotency: IdempotencyStore
    api_tokens: ApiTokenStore


@pytest.fixture(params=["memory", "nats"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "memory":
        yield Stores(MemoryIdempotencyStore(), MemoryApiTokenStore())
        return
    server = NatsServer(tmp_path / "nats-server")
    await server.start()
    try:
        async with gateway_on(server) as gateway:
            yield Stores(
                NatsIdempotencyStore(gateway.jetstream, gateway.names),
                NatsApiTokenStore(gateway.jetstream, gateway.names),
            )
    finally:
        await server.stop()


async def test_the_first_claim_stands(stores: Stores) -> None:
    other = replace(CLAIM, package_id="p-2")

    assert await stores.idempotency.claim(KEY, CLAIM) == CLAIM
    assert await stores.idempotency.claim(KEY, other) == CLAIM
    assert await stores.idempotency.claim("00" * 32, other) == other


async def test_claims_at_the_same_moment_agree(stores: Stores) -> None:
    claims = [replace(CLAIM, package_id=f"p-{n}") for n in range(10)]

    standing = await asyncio.gather(*(stores.idempotency.claim(KEY, claim) for claim in claims))

    assert len(set(standing)) == 1


async def test_tokens_are_kept_by_name(stores: Stores) -> None:
    await stores.api_tokens.put(BOB)
    await stores.api_tokens.put(ALICE)

    assert await stores.api_tokens.load() == [ALICE, BOB]


async def test_a_taken_name_is_refused(stores: Stores) -> None:
    await stores.api_tokens.put(ALICE)

    with pytest.raises(ConflictError):
        await stores.api_tokens.put(replace(ALICE, role="viewer"))
    assert await stores.api_tokens.load() == [ALICE]


async def test_a_removed_token_is_gone_and_its_name_is_free(stores: Stores) -> None:
    assert not await stores.api_tokens.remove("alice")
    await stores.api_tokens.put(ALICE)

    assert await stores.api_tokens.remove("alice")
    assert await stores.api_tokens.load() == []
    assert not await stores.api_tokens.remove("alice")

    await stores.api_tokens.put(replace(ALICE, role="viewer"))
    assert await stores.api_tokens.load() == [replace(ALICE, role="viewer")]


async def test_the_last_use_is_kept_and_brings_nothing_back(stores: Stores) -> None:
    later = NOW + timedelta(hours=1)
    await stores.api_tokens.note_use(ALICE, NOW)
    assert await stores.api_tokens.load() == []
    await stores.api_tokens.put(ALICE)
    await stores.api_tokens.note_use(replace(ALICE, sha256="00" * 32), NOW)
    assert await stores.api_tokens.load() == [ALICE]
    await stores.api_tokens.note_use(ALICE, later)
    await stores.api_tokens.note_use(ALICE, NOW)
    assert await stores.api_tokens.load() == [replace(ALICE, last_used_at=later)]
    await stores.api_tokens.remove("alice")
    await stores.api_tokens.note_use(ALICE, later)
    assert await stores.api_tokens.load() == []


async def test_following_tells_all_tokens_after_every_change(stores: Stores) -> None:
    await stores.api_tokens.put(ALICE)
    async with asyncio.timeout(30), aclosing(_follow(stores.api_tokens)) as seen:
        assert await anext(seen) == [ALICE]
        await stores.api_tokens.put(BOB)
        assert await anext(seen) == [ALICE, BOB]
        await stores.api_tokens.remove("alice")
        assert await anext(seen) == [BOB]


async def _follow(store: ApiTokenStore) -> AsyncIterator[list[ApiToken]]:
    async for tokens in store.follow():
        yield list(tokens)
