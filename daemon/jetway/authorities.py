"""Who signs and seals: every key of the gateway that is not a token's, found or made at the start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from jetway.adapters.authority.ca import OwnAuthority, open_authority, own_if_given
from jetway.adapters.authority.checkpoints import CheckpointSigner, open_signer
from jetway.adapters.authority.vault import AesVault, VaultFile, find_vault
from jetway.adapters.nats.meta import MetaStore
from jetway.core.errors import PortError, StartupError
from jetway.ports import Clock, Vault
from jetway.settings import Settings

GIVEN_AUTHORITY = "given_authority"
"""Under this name the ledger remembers the pin of the authority that the operator gave."""
CHECKPOINT_KEY = "checkpoint_key"
"""Under this name the ledger remembers which key signs checkpoints of the audit trail."""
VAULT_KEY = "vault_key"
"""Under this name the ledger remembers which of the vault's keys writes."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """What `services.house.Outside` asks for."""

    certificates: OwnAuthority
    vault: Vault
    checkpoints: CheckpointSigner


async def open_authorities(settings: Settings, store: MetaStore, clock: Clock) -> Authorities:
    """All of them. Raises StartupError, naming the file, for a key that is missing or another one."""
    await _require_given(settings, store, clock.now())
    authority = open_authority(settings, clock.now())
    await _agree_on_authority(settings, store, authority)
    return Authorities(
        certificates=authority,
        vault=await open_vault(vault_file(settings), store),
        checkpoints=await open_checkpoint_signer(settings, store),
    )


async def open_checkpoint_signer(settings: Settings, store: MetaStore) -> CheckpointSigner:
    """The key that signs checkpoints, the one that the ledger remembers. Raises StartupError."""
    directory = settings.state_dir / "keys"
    signer = open_signer(directory, await store.agreed(CHECKPOINT_KEY))
    standing = await store.agree(CHECKPOINT_KEY, signer.key_id)
    # Another daemon came first with a key of its own: then this says so.
    return signer if standing == signer.key_id else open_signer(directory, standing)


async def _require_given(settings: Settings, store: MetaStore, now: datetime) -> None:
    """Refuse to do without an authority that was given, before anything is made in its place."""
    pin = await store.agreed(GIVEN_AUTHORITY)
    if pin is not None and settings.identity.ca_cert is None:
        own_if_given(settings.state_dir / "keys", pin, now)


async def _remember_given(store: MetaStore, pin: str) -> None:
    standing = await store.agree(GIVEN_AUTHORITY, pin)
    if standing != pin:
        try:
            await store.agree_anew(GIVEN_AUTHORITY, standing, pin)
        except PortError as error:
            raise StartupError(f"nats: {GIVEN_AUTHORITY} cannot be written: {error}") from error


async def _agree_on_authority(settings: Settings, store: MetaStore, authority: OwnAuthority) -> None:
    """Refuse an authority that is not the ledger's: hosts and tokens that are out trust that one.

    An operator who gives one in the settings has said so, and may give another.
    """
    if settings.identity.ca_cert is not None:
        await _remember_given(store, authority.pin)
        return
    standing = await store.agree("authority", authority.pin)
    if standing != authority.pin:
        raise StartupError(
            f"keys: the authority is {authority.pin}, this ledger's certificates are by {standing}: restore"
            " ca.pem and ca-key.pem from a backup, or copy keys/ from the daemon that made the ledger"
        )


def vault_file(settings: Settings) -> VaultFile:
    """Where the vault's keys stand."""
    return find_vault(settings.state_dir, settings.vault.key_file, os.environ)


async def open_vault(file: VaultFile, store: MetaStore) -> AesVault:
    """The vault, writing with the key that the ledger remembers. Raises StartupError."""
    vault = file.open(await store.agreed(VAULT_KEY))
    standing = await store.agree(VAULT_KEY, vault.current)
    if standing != vault.current:  # another daemon came first, with keys of its own
        raise StartupError(
            f"{file.path}: its key is {vault.current}, this ledger's secrets are sealed with {standing}: "
            "copy the file from the daemon that made the ledger"
        )
    return vault
