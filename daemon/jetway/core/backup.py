"""What a backup is made of: sections of lines, counted and summed up so that a copy can be held against it.

A backup holds the buckets of the ledger key by key (`SECTIONS`), then the audit trail (`TRAIL`). Its form as a
file is told in docs/backup.md. What is restored goes on in a new epoch: every record gets a further revision
there, so that it is newer than whatever was derived from the ledger after the backup was taken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field, replace

from pydantic import JsonValue, TypeAdapter, ValidationError

from jetway.core.chain import digest_of
from jetway.core.commands import Context
from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey
from jetway.core.record import EventType, ServiceRecord, decode_record, encode_record
from jetway.core.times import Timestamp, rfc3339
from jetway.core.transitions.revision import next_revision

FORMAT = "jetway-backup"
VERSION = 1
"""Grows when an older program could not restore the file."""
REGISTRY, TRAIL = "registry", "trail"
SECTIONS = ("config", "api_tokens", "idempotency", REGISTRY, "meta")
"""Documents before the ledger: then each document in the backup has its record there as well."""
FILES = "files"
"""Where the keys and the administrator's token stand in the archive."""
_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
_FILE = re.compile(r"admin\.token|keys(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
_MODULUS = 1 << 256


class BadBackupError(PortError):
    """The file is not a backup that can be restored; the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the file says of itself, first of all."""

    format: str = FORMAT
    version: int = VERSION
    product: str
    """The version of the program that wrote it."""
    created_at: Timestamp
    ledger_id: str
    epoch: int
    ledger_created_at: str


@dataclass(frozen=True, slots=True)
class Line:
    """A key and its value: None where it was deleted. Of the trail, the key is the subject."""

    key: str
    data: bytes | None
    again: bool = False
    """It was written while the backup was taken: the last line of a key counts."""


@dataclass(slots=True)
class Tally:
    """How many keys, and a sum over their SHA-256 that does not depend on their order."""

    count: int = 0
    total: int = field(default=0, repr=False)

    def add(self, key: str, data: bytes | None) -> None:
        """Take in one key with its value."""
        said = hashlib.sha256(key.encode() + b"\0" + (b"" if data is None else b"=" + data)).digest()
        self.total = (self.total + int.from_bytes(said)) % _MODULUS
        self.count += 1

    @property
    def digest(self) -> str:
        """The sum, as hex digits."""
        return f"{self.total:064x}"


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return _MANIFEST.dump_json(manifest, indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """The inverse. Raises BadBackupError, also for a format that this program does not know."""
    try:
        fields = json.loads(data)
        told = (fields["format"], fields["version"])
    except (ValueError, KeyError, TypeError):
        raise BadBackupError("it does not say that it is a backup") from None
    if told[0] != FORMAT:
        raise BadBackupError(f"it is a {told[0]!r}, not a {FORMAT!r}")
    if told[1] != VERSION:
        raise BadBackupError(f"its version is {told[1]!r}; this program reads version {VERSION}")
    try:
        return _MANIFEST.validate_python(fields)
    except ValidationError as error:
        raise BadBackupError(f"manifest: {error.errors()[0]['msg']}") from None


def encode_line(line: Line) -> bytes:
    """A line of JSON. Values are text where they can be, so that a person can read them."""
    fields: dict[str, object] = {"key": line.key}
    if line.data is None:
        fields["deleted"] = True
    else:
        try:
            fields["text"] = line.data.decode()
        except UnicodeDecodeError:
            fields["base64"] = base64.b64encode(line.data).decode()
    if line.again:
        fields["again"] = True
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def decode_line(text: bytes) -> Line:
    """The inverse. Raises BadBackupError."""
    try:
        fields = json.loads(text)
        key, again = fields["key"], fields.get("again", False)
        if not isinstance(key, str) or not isinstance(again, bool):
            raise TypeError
        if fields.get("deleted") is True:
            return Line(key, None, again)
        if "base64" in fields:
            return Line(key, base64.b64decode(fields["base64"], validate=True), again)
        return Line(key, fields["text"].encode(), again)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadBackupError("a line is damaged") from None


def check_line(section: str, line: Line) -> None:
    """Raise BadBackupError for what could not be restored into this section."""
    if not _KEY.fullmatch(line.key):
        raise BadBackupError(f"{section}: {line.key!r} is no key")
    if section != REGISTRY or line.data is None:
        return
    try:
        key, record = ServiceKey.parse(line.key), decode_record(line.data)
    except ValueError:
        raise BadBackupError(f"{section}: {line.key} holds no record") from None
    if record.key != key:
        raise BadBackupError(f"{section}: {line.key} holds the record of {record.key}")


def check_file(name: str) -> None:
    """Raise BadBackupError for a file that does not belong into a state directory."""
    if not _FILE.fullmatch(name):
        raise BadBackupError(f"{FILES}/{name} is no file of a backup")


def next_epoch(backup: int, seen: int, now: int) -> int:
    """The epoch of a restored ledger. `seen`: the newest that the place has known; `now`: the Unix second."""
    return max(backup + 1, seen + 1, now)


def restored(record: ServiceRecord, context: Context, manifest: Manifest) -> ServiceRecord:
    """The record as it stood, as the first of its revisions in the new epoch."""
    reason = f"restored from the backup of {rfc3339(manifest.created_at)}"
    facts: dict[str, JsonValue] = {"backup_epoch": record.epoch, "backup_revision": record.revision}
    return next_revision(record, context, EventType.RESTORED, reason=reason, metadata=facts)


def restored_line(line: Line, context: Context, manifest: Manifest) -> Line:
    """A line of the registry as it is written when it is restored. Raises BadBackupError."""
    if line.data is None:
        return line
    try:
        record = restored(decode_record(line.data), context, manifest)
    except ValueError:
        raise BadBackupError(f"{line.key} holds no record") from None
    chained = replace(record, previous_sha256=digest_of(line.data).hex())
    return replace(line, data=encode_record(chained))
