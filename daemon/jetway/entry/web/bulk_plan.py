"""What would become of a selection: whom it changes, who goes with them, and who is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.web.selection import Selection
from jetway.services.actions import Actions, Result
from jetway.services.catalogue import Catalogue
from jetway.services.pace import Pace
from jetway.services.views import ServiceView

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """A preview."""

    selected: Mapping[ServiceType, int]
    """How many the selection is, by type: confirmed with the deed."""
    changed: Counter[ServiceType]
    beneath: Counter[ServiceType]
    """Who would go with them, none counted twice."""
    unchanged: int
    refused: Sequence[Result]
    shown: Sequence[tuple[ServiceView, int]]
    """The first that would be changed, each with how many beneath it."""

    @property
    def total(self) -> int:
        """All that would be changed."""
        return self.changed.total() + self.beneath.total()


async def plan(actions: Actions, catalogue: Catalogue, selection: Selection) -> Plan:
    """Look, and touch nothing. Raises RefusedError where too many are selected."""
    selected: dict[ServiceType, int] = {}
    results: list[Result] = []
    for order in selection.orders():
        found = await actions.preview(order)
        selected[order.filters.service_type] = len(found)
        results += found
    changed = [result for result in results if result.changed]
    shown = [
        (catalogue.get(each.key), each.beneath) for each in changed[:SHOWN] if catalogue.record(each.key)
    ]
    return Plan(
        selected,
        Counter(each.key.service_type for each in changed),
        await _beneath(catalogue, changed),
        sum(1 for each in results if not each.changed and each.refused is None),
        [each for each in results if each.refused is not None],
        shown,
    )


async def _beneath(catalogue: Catalogue, changed: Sequence[Result]) -> Counter[ServiceType]:
    own, found, pace = {each.key for each in changed}, set[ServiceKey](), Pace()
    for result in changed:
        await pace.breathe()
        if result.beneath:
            found |= {record.key for record in catalogue.beneath(result.key) if record.live}
    return Counter(key.service_type for key in found - own)
