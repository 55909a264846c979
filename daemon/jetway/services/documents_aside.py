"""Config documents that cannot be written for what they are: set aside by name, so that the others go on.

One that is too large for the server is refused as often as it is tried. It is tried again with every change that
touches it, and by reconcile; nothing is lost, as documents are made anew from the ledger. The table is bounded: a
bucket that refuses more than that has a fault of its own, and the projection holds its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from jetway.core.errors import PortError, RejectedError
from jetway.core.ids import ServiceKey
from jetway.services.metrics import Metrics

log = structlog.get_logger()

LIMIT = 100
PATIENCE = 6
"""Failures in a row, of which nothing says that they are the document's own, before it is set aside for them."""
_REASON_LENGTH = 300

Again = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Refused:
    """A document, by its service or its path, why it was not written, and how to try again."""

    name: str
    reason: str
    again: Again

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class DocumentsAside:
    """The documents that are set aside: counted, named, and never more than `limit`."""

    def __init__(self, metrics: Metrics, *, limit: int = LIMIT) -> None:
        self._metrics = metrics
        self._limit = limit
        self._refused: dict[str, Refused] = {}
        self._failures: Counter[str] = Counter()
        metrics.documents_set_aside.set(0)

    def __len__(self) -> int:
        return len(self._refused)

    def all(self) -> list[Refused]:
        """Every one, in the order in which they failed first."""
        return list(self._refused.values())

    def any_of(self, keys: Sequence[ServiceKey]) -> bool:
        """Whether the document of one of these services is set aside."""
        return bool(self._refused) and any(str(key) in self._refused for key in keys)

    def put(self, name: str, error: PortError, again: Again, *, patience: int = PATIENCE) -> bool:
        """Set it aside; False where it is to be tried again first, or where there is no more room."""
        before = self._refused.get(name)
        if before is None and not self._may_be_put(name, error, patience):
            return False
        refused = Refused(name, str(error)[:_REASON_LENGTH], again)
        self._refused[name] = refused
        self._failures.pop(name, None)
        if before is None or before.reason != refused.reason:
            log.error(
                "a config document cannot be written: it is set aside, the others go on",
                action="document_set_aside",
                document=name,
                reason=refused.reason,
            )
        self._metrics.documents_set_aside.set(len(self._refused))
        return True

    def _may_be_put(self, name: str, error: PortError, patience: int) -> bool:
        if len(self._refused) >= self._limit:
            return False
        if isinstance(error, RejectedError):
            return True
        # Of those in one batch only: a batch is bounded, and each of its documents is put or taken in the end.
        self._failures[name] += 1
        return self._failures[name] >= patience

    def take(self, name: str) -> None:
        """It is as it should be: set aside no more."""
        self._failures.pop(name, None)
        if self._refused.pop(name, None) is not None:
            log.info("a config document is no longer set aside", action="document_taken_back", document=name)
            self._metrics.documents_set_aside.set(len(self._refused))

    def clear(self) -> None:
        """Forget all: another daemon may have written them since."""
        self._refused.clear()
        self._failures.clear()
        self._metrics.documents_set_aside.set(0)
