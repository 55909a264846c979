"""Rotating the key that encrypts secrets in the ledger, while no daemon runs.

In an order in which a crash at any place leaves keys that open everything, and a repetition goes on:

1. the new key is added to the file, as the last one;
2. the ledger remembers that it is the one that writes;
3. every secret that another key sealed is sealed with it;
4. the other keys leave the file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from jetway.adapters.authority.vault import AesVault, VaultFile, VaultKeys, new_key
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.ledger import NatsLedger
from jetway.adapters.statedir import StateDir
from jetway.authorities import VAULT_KEY, open_vault, vault_file
from jetway.core.errors import PortError, StartupError
from jetway.logs import set_up_logs
from jetway.nats_link import NatsLink, external_nats, open_nats, start_private_nats
from jetway.services.caller import Caller
from jetway.services.index import Index
from jetway.services.recorder import Recorder
from jetway.services.reseal import Resealer
from jetway.settings import Settings
from jetway.tasks import Releases
from jetway.upkeep import require_ledger


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done."""

    file: str
    key_id: str
    """Names the key that writes from now on."""
    resealed: int
    retired: tuple[str, ...]
    """Names the keys that were taken out of the file, or are to be taken out of it by hand."""
    by_hand: bool
    """The file is not the gateway's own: who gave it takes the retired keys out."""


def rotate(settings: Settings) -> Rotation:
    """Rotate, or finish a rotation that was interrupted. Raises StartupError."""
    set_up_logs("warning", "auto")
    return asyncio.run(_rotate(settings))


async def _rotate(settings: Settings) -> Rotation:
    require_ledger(settings)
    releases = Releases()
    state = StateDir(settings.state_dir)
    state.prepare()
    releases.add("state lock", state.lock().release)
    embedded = settings.nats.mode == "embedded"
    try:
        way = await start_private_nats(settings, releases) if embedded else external_nats(settings)
        link = await open_nats(settings, way, releases)
        return await rotate_keys(vault_file(settings), link)
    except PortError as error:
        raise StartupError(f"the rotation is not complete, and may be repeated: {error}") from error
    finally:
        await releases.all()


async def rotate_keys(file: VaultFile, link: NatsLink) -> Rotation:
    """The four steps, those left out that were taken before. Raises StartupError and PortErrors."""
    vault = await open_vault(file, link.store)
    keys = _with_new_key(file, vault.current)
    newest = keys.ids[-1]
    if vault.current != newest:
        await link.store.agree_anew(VAULT_KEY, vault.current, newest)
    resealed = await _reseal(AesVault(keys, newest), link)
    if file.own and len(keys.ids) > 1:
        file.write([keys.by_id[newest]])
    return Rotation(str(file.path), newest, resealed, keys.ids[:-1], by_hand=not file.own)


def _with_new_key(file: VaultFile, current: str) -> VaultKeys:
    """The file's keys, the newest last: an interrupted rotation's, the operator's, or one made now."""
    keys = file.read()
    if len(keys.ids) > 1:
        return keys
    if not file.own:
        raise StartupError(
            f"{file.path} has no key but the current one, {current}: add a line with a new one at its end"
            " (`jetway keys generate` prints one), give it to every daemon, and rotate then"
        )
    file.write([*keys.by_id.values(), new_key()])
    return file.read()


async def _reseal(vault: AesVault, link: NatsLink) -> int:
    index, ledger = Index(), NatsLedger(link.jetstream, link.names, link.meta)
    async for batch in ledger.follow():
        for change in batch.changes:
            index.take(change)
        if batch.caught_up:
            break
    recorder = Recorder(ledger, index, SystemClock(), RandomIdentifiers())
    return await Resealer(recorder, vault).run(Caller("key rotation"))
