"""The backup's file: a .tar.gz of a manifest, files, sections in parts of JSON lines, and at the end their sums.

Written beside its place and moved there once it is whole and on disk; mode 0600, for it holds keys. Parts are
small, so neither writing nor reading needs the memory of a whole section. The sums come last: a file that was cut
off has none. Nothing is ever unpacked by the name that it has in the archive.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO

from jetway.adapters.statedir import sync_directory
from jetway.core.backup import (
    FILES,
    BadBackupError,
    Line,
    Manifest,
    check_file,
    decode_line,
    decode_manifest,
    encode_line,
    encode_manifest,
)
from jetway.ports import BackupPart

MANIFEST, SUMS = "manifest.json", "sums.json"
_LEVEL = 5
"""Of gzip: records shrink to a tenth, and a higher level costs more time than it saves room."""
_PART_BYTES = 4 * 1024 * 1024
_MEMBER_LIMIT = 64 * 1024 * 1024
"""No part is nearly as large: a file that says so is damaged, or was made to fill the memory."""


class ArchiveWriter:
    """Writes one backup. Raises OSError. Without `commit` nothing is left of it."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        self._temporary = Path(name)
        os.fchmod(descriptor, 0o600)
        self._file: IO[bytes] = os.fdopen(descriptor, "wb")
        self._tar = tarfile.open(  # noqa: SIM115 - closed by commit or abandon
            mode="w:gz", fileobj=self._file, compresslevel=_LEVEL, format=tarfile.PAX_FORMAT
        )
        self._sums: dict[str, str] = {}
        self._parts: dict[str, int] = {}
        self._section = ""
        self._part = bytearray()
        self._seconds = int(manifest.created_at.timestamp())
        self._member(MANIFEST, encode_manifest(manifest))

    def add_file(self, name: str, data: bytes) -> None:
        """A file of the state directory, `keys/token-secret.key`."""
        check_file(name)
        self._member(f"{FILES}/{name}", data)

    def add_lines(self, section: str, lines: Sequence[Line]) -> None:
        """Further lines of a section."""
        if section != self._section:
            self._end_part()
            self._section = section
        for line in lines:
            self._part += encode_line(line)
            if len(self._part) >= _PART_BYTES:
                self._end_part()

    def finish(self) -> Path:
        """Make all of it durable under the name that is returned: to be looked at, then committed."""
        self._end_part()
        self._member(SUMS, json.dumps({"sha256": self._sums}, indent=1).encode())
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._temporary

    def commit(self, *, replace: bool = False) -> int:
        """Give it its name; its size in bytes.

        Raises FileExistsError where there is such a file, unless it is to be replaced.
        """
        size = self._temporary.stat().st_size
        if replace:
            self._temporary.replace(self._path)
        else:
            self._take_name()
            self._temporary.unlink(missing_ok=True)
        sync_directory(self._path.parent)
        return size

    def _take_name(self) -> None:
        try:
            os.link(self._temporary, self._path)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links: an empty file takes the name, where nobody else has it.
            self._path.touch(mode=0o600, exist_ok=False)
            os.replace(self._temporary, self._path)  # noqa: PTH105 - as with the link above

    def abandon(self) -> None:
        """Leave nothing behind. Safe to call again, and after `commit`."""
        with contextlib.suppress(OSError, ValueError):
            self._tar.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _end_part(self) -> None:
        if self._part:
            number = self._parts[self._section] = self._parts.get(self._section, 0) + 1
            self._member(f"{self._section}/{number:06d}.jsonl", bytes(self._part))
            self._part.clear()

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o600, self._seconds
        self._tar.addfile(info, io.BytesIO(data))
        self._sums[name] = hashlib.sha256(data).hexdigest()


class Archive:
    """Reads a backup, from its beginning as often as one likes. Raises BadBackupError for all that is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        members = self._members()
        name, data = next(members, ("", b""))
        members.close()
        if name != MANIFEST:
            raise BadBackupError(f"{path} is no backup: it does not begin with {MANIFEST}")
        try:
            self.manifest = decode_manifest(data)
        except BadBackupError as error:
            raise BadBackupError(f"{path}: {error}") from None

    def parts(self) -> Iterator[BackupPart]:
        """All parts in order. That all was there and undamaged is known only once the iteration has ended."""
        found: dict[str, str] = {}
        told: dict[str, str] | None = None
        for name, data in self._members():
            if told is not None:
                raise BadBackupError(f"{self._path} is damaged: it goes on after its end")
            if name == SUMS:
                told = self._sums(data)
                continue
            if name in found:
                raise BadBackupError(f"{self._path} is damaged: {name} is there twice")
            found[name] = hashlib.sha256(data).hexdigest()
            if name != MANIFEST:
                yield self._part(name, data)
        if told is None:
            raise BadBackupError(f"{self._path} is incomplete: its end is missing")
        for name in sorted(told.keys() | found.keys()):
            if told.get(name) != found.get(name):
                raise BadBackupError(f"{self._path} is damaged: {name} is not what was written")

    def _part(self, name: str, data: bytes) -> BackupPart:
        section, _, rest = name.partition("/")
        try:
            if section == FILES:
                check_file(rest)
                return BackupPart(FILES, name=rest, data=data)
            return BackupPart(section, tuple(decode_line(line) for line in data.split(b"\n")[:-1]), name=rest)
        except BadBackupError as error:
            raise BadBackupError(f"{self._path}: {name}: {error}") from None

    def _sums(self, data: bytes) -> dict[str, str]:
        try:
            sums: dict[str, str] = json.loads(data)["sha256"]
            return dict(sums)
        except (ValueError, KeyError, TypeError):
            raise BadBackupError(f"{self._path} is damaged: its sums cannot be read") from None

    def _members(self) -> Generator[tuple[str, bytes], None, None]:
        try:
            with tarfile.open(self._path, mode="r|gz") as tar:
                for info in tar:
                    yield info.name, self._read(tar, info)
        except FileNotFoundError:
            raise BadBackupError(f"there is no file {self._path}") from None
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BadBackupError(f"{self._path} is damaged, cut off, or no backup: {error}") from None
        except OSError as error:
            raise BadBackupError(f"{self._path} cannot be read: {error.strerror or error}") from None

    def _read(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
        if not info.isreg() or info.size > _MEMBER_LIMIT:
            raise BadBackupError(f"{self._path} is damaged: {info.name} is no file of a backup")
        stream = tar.extractfile(info)
        data = stream.read() if stream else b""
        if len(data) != info.size:
            raise BadBackupError(f"{self._path} is incomplete: it ends within {info.name}")
        return data
