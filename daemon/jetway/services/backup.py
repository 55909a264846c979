"""Back up: everything that cannot be derived, while the daemon goes on.

What consistency it has: every key is whole, as it was at some moment between the beginning and the end; a key that
changes meanwhile is either old or new. Documents come before the ledger and the trail after it, so that each
document has its record in the backup, and each record its history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from jetway.core.backup import SECTIONS, TRAIL
from jetway.ports import BackupWriter, LedgerImage

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Walked:
    """What was read. `lacking`: changes whose events the trail did not have yet."""

    lines: Mapping[str, int]
    lacking: int


async def back_up(image: LedgerImage, writer: BackupWriter, files: Mapping[str, bytes]) -> Walked:
    """Write all of it. Raises PortError where NATS is away, OSError where the file cannot be written."""
    for name, data in files.items():
        await asyncio.to_thread(writer.add_file, name, data)
    lines = {section: await _section(image, writer, section) for section in SECTIONS}
    lacking = await image.settle_trail()
    if lacking:
        log.warning("the audit trail is behind the ledger", action="backup_trail_behind", changes=lacking)
    return Walked({**lines, TRAIL: await _section(image, writer, TRAIL)}, lacking)


async def _section(image: LedgerImage, writer: BackupWriter, section: str) -> int:
    count = 0
    async with aclosing(image.walk_trail() if section == TRAIL else image.walk(section)) as batches:
        async for lines in batches:
            await asyncio.to_thread(writer.add_lines, section, lines)
            count += len(lines)
    return count
