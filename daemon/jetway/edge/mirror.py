"""Copies of config documents on this host, in the order (epoch, revision), never backwards.

Two streams of news arrive, live messages and answers to direct gets, and either may be late. What decides:

- a newer epoch wins; in one epoch a higher revision wins, or a later `created_at`: a service that was
  deleted, purged and created anew begins again at revision 1;
- at the same revision the text may still differ (a parent's list of children, a checker_config edited by
  hand): the later sequence number of the watch bucket wins;
- after a delete marker, what the bucket stored after it wins, or a newer version.

Sequence numbers are compared within one connection only: between two the bucket may have been made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from jetway.core.documents import Document, decode_document, version_of
from jetway.core.ids import is_id
from jetway.edge.files import ensure_folder, write_file

KEYS_LIMIT = 20_000
"""Documents and delete marks that are remembered; what comes beyond is left out and said so."""
DOCUMENT_LIMIT = 4 * 1024 * 1024
"""Bytes: the largest message that the embedded server takes."""
_SUFFIX = ".json"


class Applied(Enum):
    """What became of a piece of news."""

    WRITTEN = "written"
    REMOVED = "removed"
    UNCHANGED = "unchanged"
    STALE = "stale"
    FOREIGN = "foreign"
    MALFORMED = "malformed"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of one key. `present` is False after a delete marker."""

    version: tuple[int, int]
    created_at: str
    sequence: int
    """In the watch bucket; 0 where it was read from this host's own disk."""
    present: bool


class Mirror:
    """The folder of copies. Its own document is kept in memory too, the others' on the disk alone."""

    def __init__(self, folder: Path, own_key: str, children_filter: str) -> None:
        self._folder = folder
        self._own_key = own_key
        self._children_prefix = children_filter.removesuffix("*")
        self._held: dict[str, Held] = {}
        self.own: Document | None = None
        """The service's own document, None where there is none."""
        self.own_deleted = False
        """Whether the own document was taken away by the gateway, rather than never seen."""

    def load(self) -> None:
        """Begin with the copies of an earlier run."""
        ensure_folder(self._folder)
        for leftover in self._folder.glob(".tmp-*"):
            leftover.unlink(missing_ok=True)
        for path in self._folder.glob(f"*{_SUFFIX}"):
            key = path.name.removesuffix(_SUFFIX)
            document = decode_document(path.read_bytes()) if path.stat().st_size <= DOCUMENT_LIMIT else None
            if document is None or not self.covers(key) or len(self._held) >= KEYS_LIMIT:
                path.unlink(missing_ok=True)
                continue
            self._held[key] = _held(document, 0)
            if key == self._own_key:
                self.own = document

    def begin(self) -> None:
        """A new connection: what it reads is the truth, sequence numbers and delete marks begin anew."""
        self._held = {key: replace(held, sequence=0) for key, held in self._held.items() if held.present}

    def covers(self, key: str) -> bool:
        """Whether the key is the service's own or one of its children's."""
        if key == self._own_key:
            return True
        prefix = self._children_prefix
        return bool(prefix) and key.startswith(prefix) and is_id(key.removeprefix(prefix))

    def path(self, key: str) -> Path:
        """Where the copy of a covered key stands."""
        return self._folder / f"{key}{_SUFFIX}"

    def present_children(self) -> set[str]:
        """The children's keys of which there are copies."""
        return {key for key, held in self._held.items() if held.present and key != self._own_key}

    def listed_children(self) -> set[str]:
        """The children's keys that the own document names."""
        listed = self.own.get("children") if self.own else None
        if not isinstance(listed, list):
            return set()
        ids = (child.get("id") for child in listed[:KEYS_LIMIT] if isinstance(child, dict))
        keys = {f"{self._children_prefix}{child}" for child in ids if isinstance(child, str)}
        return {key for key in keys if self.covers(key)}

    def put(self, key: str, data: bytes, sequence: int) -> Applied:
        """A document arrived."""
        if not self.covers(key):
            return Applied.FOREIGN
        document = decode_document(data) if len(data) <= DOCUMENT_LIMIT else None
        if document is None:
            return Applied.MALFORMED
        new, held = _held(document, sequence), self._held.get(key)
        if held is None and len(self._held) >= KEYS_LIMIT:
            return Applied.FULL
        if held is not None and not _newer(new, held):
            return Applied.STALE
        if key == self._own_key:
            # Before it is written: a host whose disk is full must stop all the same once it is revoked.
            self.own, self.own_deleted = document, False
        changed = self._write(key, data)
        self._held[key] = new
        return Applied.WRITTEN if changed else Applied.UNCHANGED

    def remove(self, key: str, sequence: int) -> Applied:
        """A delete marker arrived."""
        if not self.covers(key):
            return Applied.FOREIGN
        held = self._held.get(key)
        if held is not None and sequence and held.sequence > sequence:
            return Applied.STALE
        if held is None and len(self._held) >= KEYS_LIMIT:
            return Applied.FULL
        version, created = (held.version, held.created_at) if held else ((0, 0), "")
        self._held[key] = Held(version, created, sequence, present=False)
        if key == self._own_key:
            self.own, self.own_deleted = None, True
        self.path(key).unlink(missing_ok=True)
        return Applied.REMOVED if held is not None and held.present else Applied.UNCHANGED

    def forget(self, key: str) -> Applied:
        """A child is neither in the bucket nor in its parent's list: no marker is left of it."""
        self.path(key).unlink(missing_ok=True)
        return Applied.REMOVED if self._held.pop(key, None) else Applied.UNCHANGED

    def _write(self, key: str, data: bytes) -> bool:
        path = self.path(key)
        try:
            if path.read_bytes() == data:
                return False
        except OSError:
            pass
        ensure_folder(self._folder)
        # A copy that a power cut takes is read again at the next connection: no need to wait for the disk.
        write_file(path, data, durable=False)
        return True


def _held(document: Document, sequence: int) -> Held:
    created = document.get("created_at")
    return Held(version_of(document), created if isinstance(created, str) else "", sequence, present=True)


def _newer(new: Held, held: Held) -> bool:
    """Whether a document may replace what is held: see the top of this file."""
    if not held.present and new.sequence > held.sequence > 0:
        return True
    (epoch, revision), (held_epoch, held_revision) = new.version, held.version
    if epoch != held_epoch:
        return epoch > held_epoch
    # RFC 3339 in UTC with milliseconds: text order is time order.
    if revision != held_revision:
        return revision > held_revision or new.created_at > held.created_at > ""
    return held.present and new.sequence >= held.sequence
