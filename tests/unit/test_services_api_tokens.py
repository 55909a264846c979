"""API tokens: shown once, stored as a hash, revoked at once; and the trail that tells of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

import jetway
from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.services import refusals, restore
from jetway.services.api_tokens import ROLES, ApiTokens, allows
from jetway.services.caller import OWN_NAMES
from support.builders import NOW
from support.house import ALICE, House, running_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_house() as running:
        yield running


async def refused(work: object) -> tuple[Code, str]:
    with pytest.raises(RefusedError) as caught:
        await work  # type: ignore[misc]
    return caught.value.refused.code, caught.value.refused.field


@pytest.mark.parametrize("needed", ROLES)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_those_before_it_may(role: str, needed: str) -> None:
    order = {"viewer": 1, "operator": 2, "admin": 3}
    assert allows(role, needed) is (order[role] >= order[needed])


async def test_a_token_lets_its_owner_in_and_is_stored_as_a_hash(house: House) -> None:
    text, token = await house.api_tokens.create(ALICE, "ci", "operator")
    assert house.api_tokens.authenticate(text) == token
    assert (token.name, token.role, token.created_by, token.created_at) == ("ci", "operator", "alice", NOW)
    assert text not in repr(house.api_token_store.tokens)


@pytest.mark.parametrize("text", ["", "jwa_", "jwa_x", "\ud800", "ci", "é" * 1000])
async def test_nothing_is_open_because_something_is_unset(house: House, text: str) -> None:
    """An empty or missing token is no way in, whether or not there are any tokens."""
    assert house.api_tokens.authenticate(text) is None
    await house.api_tokens.create(ALICE, "ci", "admin")
    assert house.api_tokens.authenticate(text) is None


async def test_a_token_ends_with_its_time(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer", timedelta(hours=1))
    house.clock.advance(timedelta(hours=1) - timedelta(milliseconds=1))
    assert house.api_tokens.authenticate(text) is not None
    house.clock.advance(timedelta(milliseconds=1))
    assert house.api_tokens.authenticate(text) is None


async def test_a_revoked_token_ends_at_once_and_its_name_is_free(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    await house.api_tokens.revoke(ALICE, "ci")
    assert house.api_tokens.authenticate(text) is None
    assert (await refused(house.api_tokens.revoke(ALICE, "ci")))[0] is Code.NOT_FOUND
    other, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    assert other != text
    assert house.api_tokens.authenticate(text) is None


@pytest.mark.parametrize("name", ["", ".x", "x.", "x..y", "a b", "a/b", "x" * 64, "é", "a\n"])
async def test_a_name_is_plain(house: House, name: str) -> None:
    assert await refused(house.api_tokens.create(ALICE, name, "viewer")) == (Code.INVALID, "name")


@pytest.mark.parametrize("name", ["system", "jetway", "Settings", "local", "restore", "stranger"])
async def test_nobody_is_called_what_the_gateway_calls_itself(house: House, name: str) -> None:
    assert await refused(house.api_tokens.create(ALICE, name, "viewer")) == (Code.INVALID, "name")


def test_every_name_under_which_the_gateway_acts_is_its_own() -> None:
    """Those that no token can have anyway, like `installer:…`, need not be kept."""
    named = {restore.ACTOR, refusals.STRANGER}
    for source in Path(jetway.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r'\bCaller\("([A-Za-z0-9_.-]+)"', source.read_text()))
    assert "system" in named
    assert named <= OWN_NAMES


async def test_a_role_is_one_of_three_and_a_name_is_used_once(house: House) -> None:
    assert await refused(house.api_tokens.create(ALICE, "ci", "root")) == (Code.INVALID, "role")
    await house.api_tokens.create(ALICE, "ci", "viewer")
    assert await refused(house.api_tokens.create(ALICE, "ci", "viewer")) == (Code.TAKEN, "name")


async def test_tokens_survive_a_restart(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "b", "viewer")
    await house.api_tokens.create(ALICE, "a", "viewer")
    await house.crash()
    await house.start()
    assert house.api_tokens.authenticate(text) is None
    await house.api_tokens.load()
    assert house.api_tokens.authenticate(text) is not None
    assert [token.name for token in house.api_tokens.list()] == ["a", "b"]


async def test_a_token_revoked_elsewhere_ends_here_as_well(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    elsewhere = ApiTokens(house.api_token_store, None, house.clock)
    following = asyncio.ensure_future(elsewhere.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert elsewhere.authenticate(text) is not None
    await house.api_tokens.revoke(ALICE, "ci")
    for _ in range(5):
        await asyncio.sleep(0)
    assert elsewhere.authenticate(text) is None
    following.cancel()


async def test_creating_and_revoking_are_in_the_trail_without_the_secret(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    await house.api_tokens.revoke(ALICE, "ci")
    await house.settle()
    (created,), (revoked,) = house.events("api_token_created"), house.events("api_token_revoked")
    assert (created.actor, created.metadata) == ("alice", {"name": "ci", "role": "viewer"})
    assert (revoked.actor, revoked.metadata) == ("alice", {"name": "ci"})
    assert text not in str(house.database.events)


async def test_a_trail_that_is_away_does_not_keep_a_token_alive(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    house.audit.fail_next("append", UnavailableError("away"))
    await house.api_tokens.revoke(ALICE, "ci")
    assert house.api_tokens.authenticate(text) is None


async def test_a_store_that_is_away_leaves_the_token_and_says_so(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    house.api_token_store.fail_next("remove", UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await house.api_tokens.revoke(ALICE, "ci")
    assert house.api_tokens.authenticate(text) is not None


async def test_the_last_use_is_known_at_once_and_stored_later(house: House) -> None:
    text, made = await house.api_tokens.create(ALICE, "ci", "viewer")
    assert [token.last_used_at for token in house.api_tokens.list()] == [None]
    later = house.clock.advance(timedelta(hours=1))
    house.api_tokens.authenticate(text)
    assert [token.last_used_at for token in house.api_tokens.list()] == [later]
    assert house.api_token_store.tokens["ci"] == made, "a call writes nothing"
    await house.api_tokens.store_uses()
    assert house.api_token_store.tokens["ci"].last_used_at == later
    assert [token.last_used_at for token in house.api_tokens.list()] == [later]


async def test_an_expired_token_is_named_and_not_used(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer", timedelta(hours=1))
    assert house.api_tokens.expired(text) is None
    house.clock.advance(timedelta(hours=2))
    expired = house.api_tokens.expired(text)
    assert expired is not None
    assert expired.name == "ci"
    assert house.api_tokens.authenticate(text) is None
    assert house.api_tokens.list()[0].last_used_at is None
    assert house.api_tokens.expired("jwa_x") is None


async def test_uses_are_written_once_for_many_calls(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    for _ in range(100):
        house.api_tokens.authenticate(text)
    await house.api_tokens.store_uses()
    await house.api_tokens.store_uses()
    assert house.api_token_store.calls.count("note_use") == 1


async def test_storing_a_use_brings_no_revoked_token_back(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    house.api_tokens.authenticate(text)
    await house.api_token_store.remove("ci")  # at another daemon, which this one has not heard of yet
    await house.api_tokens.store_uses()
    assert house.api_token_store.tokens == {}
    other, _ = await house.api_tokens.create(ALICE, "ci", "admin")  # another one of that name
    house.api_tokens.authenticate(text)
    await house.api_tokens.store_uses()
    assert house.api_token_store.tokens["ci"].last_used_at is None
    assert house.api_tokens.authenticate(other) is not None


async def test_a_use_that_cannot_be_stored_waits(house: House) -> None:
    text, _ = await house.api_tokens.create(ALICE, "ci", "viewer")
    house.api_tokens.authenticate(text)
    house.api_token_store.fail_next("note_use", UnavailableError("away"))
    await house.api_tokens.store_uses()
    assert house.api_token_store.tokens["ci"].last_used_at is None
    await house.api_tokens.store_uses()
    assert house.api_token_store.tokens["ci"].last_used_at == NOW
