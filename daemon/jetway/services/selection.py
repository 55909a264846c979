"""Label selectors, and what labels and sites there are to select by.

`key=value` and `key` ask for the label, `key!=value` and `!key` for its absence; as elsewhere, `key!=value` is
also true of what has no such label. Several selectors must all be true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.services.pace import in_slices

VALUES_SHOWN = 50
"""Of one label key: the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often something is used."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class LabelUse:
    """A label key with its most frequent values. `values_total` counts all that there are."""

    name: str
    count: int
    values: tuple[Frequency, ...]
    values_total: int


def has_label(selector: str) -> Callable[[ServiceRecord], bool]:
    """Whether a record is what this selector asks for."""
    if selector.startswith("!"):
        absent = selector[1:]
        return lambda record: absent not in record.labels
    name, equals, value = selector.partition("=")
    if not equals:
        return lambda record: name in record.labels
    if name.endswith("!"):
        other = name[:-1]
        return lambda record: record.labels.get(other) != value
    return lambda record: record.labels.get(name) == value


async def labels_in_use(records: Sequence[ServiceRecord], q: str, limit: int) -> tuple[list[LabelUse], int]:
    """The most frequent label keys that contain `q`, with their values; and how many keys there are."""
    found: dict[str, Counter[str]] = {}
    async for part in in_slices(records):
        for record in part:
            if record.status is not ServiceStatus.DELETED:
                for name, value in record.labels.items():
                    found.setdefault(name, Counter())[value] += 1
    wanted = q.casefold()
    uses = [_use(name, values) for name, values in found.items() if wanted in name.casefold()]
    uses.sort(key=lambda use: (-use.count, use.name))
    return uses[:limit], len(uses)


async def sites_in_use(records: Sequence[ServiceRecord], q: str, limit: int) -> tuple[list[Frequency], int]:
    """The most frequent sites that contain `q`, and how many there are."""
    found: Counter[str] = Counter()
    async for part in in_slices(records):
        found.update(r.site for r in part if r.site and r.status is not ServiceStatus.DELETED)
    wanted = q.casefold()
    sites = _ordered(Counter({site: count for site, count in found.items() if wanted in site.casefold()}))
    return sites[:limit], len(sites)


def _use(name: str, values: Counter[str]) -> LabelUse:
    shown = tuple(_ordered(values)[:VALUES_SHOWN])
    return LabelUse(name, values.total(), shown, len(values))


def _ordered(found: Counter[str]) -> list[Frequency]:
    pairs = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Frequency(name, count) for name, count in pairs]
