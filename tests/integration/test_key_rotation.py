"""Rotating the vault's key over a real ledger: whatever interrupts it, everything opens, and it can go on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.adapters.authority.vault import VaultFile, key_id, new_key
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.ledger import NatsLedger
from jetway.adapters.nats.meta import MetaStore
from jetway.adapters.statedir import LedgerIdentity, StateDir
from jetway.authorities import VAULT_KEY, open_vault
from jetway.core.errors import ConflictError, PortError, StartupError
from jetway.core.ids import ServiceType
from jetway.core.record import PackageStatus
from jetway.nats_link import NatsLink, open_nats, start_embedded_nats
from jetway.rotation import rotate, rotate_keys
from jetway.services.identities import seed_context
from jetway.services.reseal import Resealer
from jetway.settings import Settings, load_settings
from jetway.tasks import Releases
from support.builders import PACKAGE_ID, identity, package, record

SECRET = b"SUASECRET"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides={"state_dir": tmp_path / "state", "nats": {"listen": "127.0.0.1:0"}})


@pytest.fixture
async def link(settings: Settings) -> AsyncIterator[NatsLink]:
    settings.state_dir.mkdir()
    releases = Releases()
    try:
        yield await open_nats(settings, await start_embedded_nats(settings, releases), releases)
    finally:
        await releases.all()


@pytest.fixture
def file(settings: Settings) -> VaultFile:
    return VaultFile(settings.state_dir / "keys" / "vault.keys", own=True)


async def store_a_secret(link: NatsLink, file: VaultFile) -> None:
    vault = await open_vault(file, link.store)
    sealed = vault.seal(SECRET, context=seed_context(PACKAGE_ID))
    made = record(
        ServiceType.AGENT,
        epoch=link.meta.epoch,
        package=package(PackageStatus.DELIVERED),
        identity=identity(sealed_seed=sealed),
    )
    await ledger(link).write(made, 0)


def ledger(link: NatsLink) -> NatsLedger:
    return NatsLedger(link.jetstream, link.names, link.meta)


async def secret(link: NatsLink, file: VaultFile) -> bytes:
    """As a daemon that starts now would read it."""
    vault = await open_vault(file, link.store)
    stored = (await ledger(link).read(record(ServiceType.AGENT).key)).record
    assert stored is not None
    assert stored.identity is not None
    return vault.open(stored.identity.sealed_seed, context=seed_context(PACKAGE_ID))


async def test_a_new_key_takes_over_and_the_old_one_leaves(link: NatsLink, file: VaultFile) -> None:
    await store_a_secret(link, file)
    (before,) = file.read().ids
    done = await rotate_keys(file, link)
    assert (done.resealed, done.retired, done.by_hand) == (1, (before,), False)
    assert file.read().ids == (done.key_id,)
    assert await secret(link, file) == SECRET
    assert done.key_id != before


@pytest.mark.parametrize("step", ["file", "meta", "reseal", "retire"])
async def test_a_rotation_that_is_cut_short_loses_nothing_and_goes_on(
    link: NatsLink, file: VaultFile, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_a_secret(link, file)
    (before,) = file.read().ids

    def cut(*_: object, **__: object) -> None:
        raise PortError("the power fails")

    writes = VaultFile.write

    def cut_the_second(self: VaultFile, keys: list[bytes]) -> None:
        if len(keys) == 1:
            cut()
        writes(self, keys)

    with monkeypatch.context() as dark:
        if step == "file":
            dark.setattr(VaultFile, "write", cut)
        elif step == "meta":
            dark.setattr(MetaStore, "agree_anew", cut)
        elif step == "reseal":
            dark.setattr(Resealer, "run", cut)
        else:
            dark.setattr(VaultFile, "write", cut_the_second)
        with pytest.raises(PortError):
            await rotate_keys(file, link)
    assert await secret(link, file) == SECRET, "the daemon may start as it is"
    seen = file.read().ids
    done = await rotate_keys(file, link)
    assert done.retired == (before,)
    assert len(seen) == 1 or done.key_id == seen[-1], "the key that was made is the one that is used"
    assert file.read().ids == (done.key_id,)
    assert await secret(link, file) == SECRET


async def test_a_given_file_is_the_operators_to_change(link: NatsLink, tmp_path: Path) -> None:
    given = tmp_path / "given.keys"
    old, new = new_key(), new_key()
    given.write_bytes(base64.b64encode(old) + b"\n")
    file = VaultFile(given, own=False)
    await store_a_secret(link, file)
    with pytest.raises(StartupError, match="jetway keys generate"):
        await rotate_keys(file, link)
    given.write_bytes(base64.b64encode(old) + b"\n" + base64.b64encode(new) + b"\n")
    text = given.read_bytes()
    done = await rotate_keys(file, link)
    assert (done.key_id, done.retired, done.by_hand) == (key_id(new), (key_id(old),), True)
    assert given.read_bytes() == text
    given.write_bytes(base64.b64encode(new) + b"\n")
    assert await secret(link, file) == SECRET


async def test_a_daemon_with_another_key_is_refused(link: NatsLink, file: VaultFile, tmp_path: Path) -> None:
    await store_a_secret(link, file)
    other = VaultFile(tmp_path / "other" / "vault.keys", own=True)
    with pytest.raises(StartupError, match="is missing"):
        await open_vault(other, link.store)
    other.write([new_key()])
    with pytest.raises(
        StartupError, match=r"other/vault\.keys: the ledger's secrets are sealed with the key"
    ):
        await open_vault(other, link.store)


async def test_what_was_agreed_on_is_exchanged_by_one_alone(link: NatsLink) -> None:
    store = MetaStore(link.jetstream, link.names, SystemClock(), RandomIdentifiers())
    assert await store.agreed(VAULT_KEY) is None
    await store.agree(VAULT_KEY, "one")
    await store.agree_anew(VAULT_KEY, "one", "two")
    assert await store.agreed(VAULT_KEY) == "two"
    with pytest.raises(ConflictError):
        await store.agree_anew(VAULT_KEY, "one", "three")


async def test_while_a_daemon_runs_nothing_is_rotated(settings: Settings) -> None:
    """It would go on sealing with a key that leaves."""
    state = StateDir(settings.state_dir)
    state.prepare()
    state.write_ledger(LedgerIdentity("a-ledger", 1))
    lock = state.lock()
    try:
        with pytest.raises(StartupError, match="in use by another daemon"):
            await asyncio.to_thread(rotate, settings)
    finally:
        lock.release()


async def test_the_whole_command_where_a_ledger_is(settings: Settings, file: VaultFile) -> None:
    before = await a_ledger_with_a_secret(settings, file)
    first = await asyncio.to_thread(rotate, settings)
    assert (first.retired, first.resealed) == (before, 1)
    second = await asyncio.to_thread(rotate, settings)
    assert (second.retired, second.resealed) == ((first.key_id,), 1)
    assert file.read().ids == (second.key_id,)


async def a_ledger_with_a_secret(settings: Settings, file: VaultFile) -> tuple[str, ...]:
    """As a daemon that was stopped leaves it; the keys of its vault."""
    state, releases = StateDir(settings.state_dir), Releases()
    state.prepare()
    try:
        link = await open_nats(settings, await start_embedded_nats(settings, releases), releases)
        await store_a_secret(link, file)
        state.write_ledger(LedgerIdentity(link.meta.ledger_id, link.meta.epoch))
    finally:
        await releases.all()
    return file.read().ids


async def test_without_a_ledger_nothing_is_rotated(settings: Settings) -> None:
    """A new one would be made, and its fresh key rotated, with success."""
    with pytest.raises(StartupError, match=f"no ledger belongs to {settings.state_dir}"):
        await asyncio.to_thread(rotate, settings)
    assert not settings.state_dir.exists()
