"""The chain through a record's revisions: each names the SHA-256 of the one before it.

What is hashed are the bytes as the ledger stores them, not a form made from them: a newer version of the program,
which writes other fields, neither has to know nor to repeat how an older one wrote.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from jetway.core.ids import ServiceId, ServiceKey, ServiceType

DIGEST_BYTES = 32
REMEMBERED = 64
"""Revisions of a record whose digests are kept while walking: as many as the ledger keeps."""


def digest_of(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


@dataclass(frozen=True, slots=True)
class _Made:
    at: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """What of a stored revision matters for the chain."""

    service_type: ServiceType
    service_id: ServiceId
    epoch: int
    revision: int
    transition: _Made
    previous_sha256: str = ""

    @property
    def key(self) -> ServiceKey:
        """Whose revision it is."""
        return ServiceKey(self.service_type, self.service_id)


_LINK: TypeAdapter[Link] = TypeAdapter(Link)


def read_link(data: bytes) -> Link:
    """The link in a stored revision. Raises ValueError for what is none."""
    return _LINK.validate_json(data)


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a record's chain was followed."""

    epoch: int
    revision: int
    chained: bool
    """Whether any revision so far named the one before it, or was the first."""
    digests: bytes
    """Of the last revisions, the newest last; at most `REMEMBERED`."""

    @property
    def head(self) -> bytes:
        """The digest of the newest revision."""
        return self.digests[-DIGEST_BYTES:]

    def digest(self, revision: int) -> bytes:
        """The digest of a revision; empty where it is not remembered."""
        back = self.revision - revision
        count = len(self.digests) // DIGEST_BYTES
        if not 0 <= back < count:
            return b""
        end = (count - back) * DIGEST_BYTES
        return self.digests[end - DIGEST_BYTES : end]


def begin(link: Link, digest: bytes) -> Seen:
    """A chain from its first revision that is there."""
    return Seen(link.epoch, link.revision, _is_chained(link), digest)


def follow(seen: Seen, link: Link, digest: bytes) -> tuple[Seen, str]:
    """The chain with one more revision, and what does not fit, empty if all does.

    In a new epoch a record may go on from an earlier revision: what came after it was undone by a restore.
    """
    return _joined(seen, link, digest), _why_not(seen, link)


def _why_not(seen: Seen, link: Link) -> str:
    if link.epoch < seen.epoch:
        return f"it is of epoch {link.epoch} and comes after epoch {seen.epoch}"
    if link.epoch == seen.epoch and link.revision <= seen.revision:
        return f"it comes after revision {seen.revision}: out of order, or twice"
    if link.revision > seen.revision + 1:
        return f"it comes after revision {seen.revision}: what was in between is missing"
    if not link.previous_sha256:
        return "it does not name the revision before it" if seen.chained else ""
    before = seen.digest(link.revision - 1)
    if not before:
        return "the revision before it is not known any more"
    if link.previous_sha256 != before.hex():
        return (
            f"revision {link.revision - 1} is not the one that it was made from: one of the two was changed"
        )
    return ""


def _joined(seen: Seen, link: Link, digest: bytes) -> Seen:
    back = seen.revision + 1 - link.revision
    # What is missing in between has no digests; what was undone by a restore is forgotten.
    kept = seen.digests[: max(0, len(seen.digests) - back * DIGEST_BYTES)] if back >= 0 else b""
    return Seen(
        link.epoch,
        link.revision,
        seen.chained or _is_chained(link),
        (kept + digest)[-REMEMBERED * DIGEST_BYTES :],
    )


def _is_chained(link: Link) -> bool:
    return link.revision == 1 or bool(link.previous_sha256)
