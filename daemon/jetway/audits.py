"""Verification of the audit trail, composed: what an operator does on the daemon's own host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from jetway.adapters.authority.checkpoints import CheckpointVerifier, open_verifier
from jetway.adapters.checkpoint_files import CheckpointFiles
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.trail import NatsTrail
from jetway.authorities import open_checkpoint_signer
from jetway.core.errors import PortError, StartupError
from jetway.logs import set_up_logs
from jetway.nats_link import open_nats
from jetway.services.audit import AuditVerifier, Verified
from jetway.settings import Settings
from jetway.tasks import Releases
from jetway.upkeep import way_to_nats

_SLACK = timedelta(days=1)
"""What is about as old as the trail is kept may be gone or not."""


def verify(
    settings: Settings,
    *,
    public_key: Path | None = None,
    checkpoints: Path | None = None,
    told: Callable[[int], None] = lambda _entries: None,
) -> Verified:
    """Verify, the daemon running or not. Raises StartupError.

    `public_key`, `checkpoints`: kept elsewhere, instead of those in the state directory.
    """
    set_up_logs("error", "auto")
    return asyncio.run(_verify(settings, public_key, checkpoints, told))


async def _verify(
    settings: Settings, public_key: Path | None, checkpoints: Path | None, told: Callable[[int], None]
) -> Verified:
    releases = Releases()
    try:
        link = await open_nats(settings, await way_to_nats(settings, releases), releases)
        key: CheckpointVerifier = (
            open_verifier(public_key) if public_key else await open_checkpoint_signer(settings, link.store)
        )
        kept = await CheckpointFiles(checkpoints or settings.state_dir / "checkpoints").load()
        oldest = SystemClock().now() - settings.lifecycle.audit_kept + _SLACK
        reader = NatsTrail(link.jetstream, link.names, link.meta)
        return await AuditVerifier(reader, key, kept, oldest, told).run()
    except PortError as error:
        raise StartupError(f"the audit trail cannot be verified now: {error}") from error
    finally:
        await releases.all()
