"""Restore: a backup is looked through from end to end, then loaded, then held against what stands there.

Nothing is written before all of the file is known to be good. Every record gets a further revision in a new epoch,
so that documents and rows that are newer than the backup are overtaken by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from jetway.core.backup import (
    FILES,
    REGISTRY,
    SECTIONS,
    TRAIL,
    BadBackupError,
    Line,
    Manifest,
    Tally,
    check_line,
    restored_line,
)
from jetway.core.commands import Context
from jetway.core.errors import PortError
from jetway.ports import BackupPart, BackupReader, Identifiers, LedgerImage, LedgerLoader

ACTOR = "restore"
Told = Callable[[str, int], None]
"""Is told how far the loading of a section is."""


@dataclass(slots=True)
class Contents:
    """What a backup holds: all but the values, which are too many to keep."""

    manifest: Manifest
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    counts: dict[str, int] = field(default_factory=dict)
    """Keys of each section that will be there once it is restored."""
    newest: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)
    """Of keys that were written while the backup was taken: which of their lines counts."""


def inspect(reader: BackupReader) -> Contents:
    """Look through all of it. Blocks. Raises BadBackupError."""
    contents = Contents(reader.manifest)
    ordinal = 0
    for part in reader.parts():
        if part.section == FILES:
            contents.files[part.name] = part.data
            continue
        if part.section not in (*SECTIONS, TRAIL):
            raise BadBackupError(f"it has a section {part.section!r}, which this program does not know")
        for line in part.lines:
            ordinal += 1
            if part.section != TRAIL:
                check_line(part.section, line)
            if line.again:
                contents.newest[part.section, line.key] = ordinal
    contents.counts = dict.fromkeys((*SECTIONS, TRAIL), 0)
    for part, lines in _valid(reader, contents):
        contents.counts[part.section] += len(lines)
    _require_keys(contents)
    return contents


def _require_keys(contents: Contents) -> None:
    if not any(name.startswith("keys/") for name in contents.files):
        raise BadBackupError("it has no keys: without them no token that is out can be redeemed")


def _valid(reader: BackupReader, contents: Contents) -> Iterator[tuple[BackupPart, list[Line]]]:
    """Parts with those of their lines that count."""
    ordinal = 0
    for part in reader.parts():
        if part.section == FILES:
            continue
        lines = []
        for line in part.lines:
            ordinal += 1
            counts = contents.newest.get((part.section, line.key), ordinal) == ordinal
            if part.section == TRAIL or (counts and line.data is not None):
                lines.append(line)
        yield part, lines


class Restore:
    """Loads a backup that was looked through into an empty ledger."""

    def __init__(
        self, reader: BackupReader, contents: Contents, context: Context, identifiers: Identifiers
    ) -> None:
        self._reader = reader
        self._contents = contents
        self._context = context
        self._identifiers = identifiers
        self.tallies: Mapping[str, Tally] = {section: Tally() for section in (*SECTIONS, TRAIL)}
        """What was written."""

    async def load(self, loader: LedgerLoader, told: Told) -> None:
        """Write all of it. Raises PortError; then it has to begin anew."""
        parts = _valid(self._reader, self._contents)
        while (step := await asyncio.to_thread(self._next, parts)) is not None:
            section, lines = step
            write = loader.load_trail(lines) if section == TRAIL else loader.load(section, lines)
            await write
            told(section, len(lines))

    async def check_trail(self, image: LedgerImage) -> None:
        """Hold the trail against what was written, while nothing else goes into it. Raises PortError."""
        count = self.tallies[TRAIL].count
        if count:
            await self._compare(TRAIL, image.walk_trail(count))

    async def check(self, image: LedgerImage) -> None:
        """Hold everything else against it. Raises PortError naming what differs."""
        for section in SECTIONS:
            await self._compare(section, image.walk(section))

    def _next(self, parts: Iterator[tuple[BackupPart, list[Line]]]) -> tuple[str, Sequence[Line]] | None:
        """The next lines as they are to be written. Blocks."""
        found = next(parts, None)
        if found is None:
            return None
        section = found[0].section
        lines = [self._as_restored(line) for line in found[1]] if section == REGISTRY else found[1]
        for line in lines:
            self.tallies[section].add(line.key, line.data)
        return section, lines

    def _as_restored(self, line: Line) -> Line:
        context = self._context
        anew = Context(
            now=context.now,
            actor=ACTOR,
            transition_id=self._identifiers.new_id(),
            epoch=context.epoch,
        )
        return restored_line(line, anew, self._contents.manifest)

    async def _compare(self, section: str, walk: AsyncGenerator[Sequence[Line], None]) -> None:
        found = Tally()
        async with aclosing(walk) as batches:
            async for lines in batches:
                for line in lines:
                    found.add(line.key, line.data)
        written = self.tallies[section]
        if found.count != written.count:
            raise PortError(f"{section}: {written.count} were restored, but {found.count} stand there")
        if found.digest != written.digest:
            raise PortError(f"{section}: what stands there is not what was restored")
