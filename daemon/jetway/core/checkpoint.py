"""Checkpoints: signed statements of what the audit trail and the ledger held at some moment.

A checkpoint names the entries that it covers by what they are, not by their sequence: a restored trail has other
sequences and fits all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from jetway.core.times import Timestamp

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed. Digests are SHA-256 in hex."""

    version: int = VERSION
    number: int
    """1, 2, 3 … of this ledger."""
    ledger_id: str
    epoch: int
    made_at: Timestamp
    previous_sha256: str
    """Of the signed text of the checkpoint before it; empty for the first."""
    starts_after: str
    """The place of the last entry that is not covered: where the checkpoint before ended. Empty: it starts
    with the first entry that the trail has."""
    ends_at: str
    """The place of the last entry that is covered."""
    entries: int
    entries_sha256: str
    """Over the digests of all entries that are covered, in order."""
    sequence: int
    """Where the last of them stood: to find it quickly."""
    ledger_sequence: int
    """The newest write of the ledger among them, or before them."""
    records: int
    records_sha256: str
    """Over the newest revision of every record as of that write."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it is kept: the very text that was signed."""

    text: str
    signature: str
    """Ed25519 over the text's bytes, base64."""
    key_id: str


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """An entry of the audit trail as it is stored. `data` is None for a marker: a record was purged."""

    sequence: int
    subject: str
    """Without the prefix that all have: `agent.a1`, `gateway.purged`."""
    data: bytes | None
    origin: int = 0
    """Its sequence in the stream that the trail took it from; 0 where that is not known."""

    @property
    def of_gateway(self) -> bool:
        """Whether it happened outside a record."""
        return self.subject.startswith("gateway.")

    @property
    def digest(self) -> bytes:
        """Of subject and contents."""
        name = self.subject.encode()
        body = b"\0" if self.data is None else b"\1" + self.data
        return hashlib.sha256(len(name).to_bytes(4) + name + body).digest()


def place_of(entry: TrailEntry, before: bytes) -> bytes:
    """What names the place of an entry, `before` being the place of the one before it.

    An entry is like no other and names its place itself. Markers of one key are all alike: they go by what is
    before them.
    """
    return entry.digest if entry.data is not None else hashlib.sha256(before + entry.digest).digest()


class Run:
    """The entries of one checkpoint, one after the other."""

    def __init__(self) -> None:
        self.entries = 0
        self._sha256 = hashlib.sha256()

    def add(self, digest: bytes) -> None:
        """One more."""
        self.entries += 1
        self._sha256.update(digest)

    @property
    def digest(self) -> str:
        """Over all so far."""
        return self._sha256.hexdigest()


def records_digest(heads: Mapping[str, bytes]) -> str:
    """Over every record's key and the digest of its newest revision, in the order of the keys."""
    sha256 = hashlib.sha256()
    for key in sorted(heads):
        sha256.update(key.encode() + b"\0" + heads[key])
    return sha256.hexdigest()


_CHECKPOINT: TypeAdapter[Checkpoint] = TypeAdapter(Checkpoint)
_SIGNED: TypeAdapter[Signed] = TypeAdapter(Signed)


def text_of(checkpoint: Checkpoint) -> str:
    """What is to be signed."""
    return _CHECKPOINT.dump_json(checkpoint).decode()


def text_digest(signed: Signed) -> str:
    """What the next checkpoint calls this one."""
    return hashlib.sha256(signed.text.encode()).hexdigest()


def read_checkpoint(signed: Signed) -> Checkpoint:
    """What was signed. Raises ValueError, also for a version that this program does not know."""
    checkpoint = _CHECKPOINT.validate_json(signed.text)
    if checkpoint.version != VERSION:
        raise ValueError(f"its version is {checkpoint.version}; this program reads version {VERSION}")
    return checkpoint


def encode_signed(signed: Signed) -> bytes:
    """As a file."""
    return _SIGNED.dump_json(signed, indent=1) + b"\n"


def decode_signed(data: object) -> Signed:
    """From a file's bytes, or from an event's metadata. Raises ValueError."""
    if isinstance(data, bytes):
        return _SIGNED.validate_json(data)
    return _SIGNED.validate_python(data)
