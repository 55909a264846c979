"""Which services a form means: those that were ticked, or all that its filter lets through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from multidict import MultiMapping

from jetway.core.errors import Code, refuse
from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.http.problems import ProblemError
from jetway.entry.web.choices import CHOICES, Choice
from jetway.entry.web.services import kind_of, service_filter
from jetway.entry.web.visit import Visit
from jetway.services.actions import Order
from jetway.services.catalogue import ServiceFilter

MOST_PICKED = 200
_OWN = ("pick", "scope", "action", "from")


@dataclass(frozen=True, slots=True)
class Selection:
    """A deed, and whom it is for."""

    choice: Choice
    filters: Sequence[ServiceFilter]
    """One for each type concerned, parents first."""
    picked: Mapping[ServiceType, Sequence[str]]
    """Ids; empty: all that the filters let through."""

    def orders(self, reason: str = "", expected: Mapping[ServiceType, int] | None = None) -> list[Order]:
        """One for each type, with how many services it must be."""
        return [
            Order(
                action=self.choice.action,
                filters=each,
                ids=self.picked.get(each.service_type, ()),
                status=self.choice.status,
                reason=reason,
                expected_count=expected.get(each.service_type, 0) if expected is not None else None,
            )
            for each in self.filters
        ]


def selection_of(visit: Visit) -> Selection | None:
    """What the address selects; None: nobody. Raises ProblemError or RefusedError for what is wrong in it."""
    query = visit.request.query
    choice = CHOICES.get(query.get("action", ""))
    if choice is None:
        raise refuse(Code.INVALID, f"action is one of {', '.join(CHOICES)}", "action")
    if not visit.may(choice.role):
        raise ProblemError(403, "forbidden", f"to {choice.name} takes the role {choice.role}")
    if query.get("scope") == "all":
        kinds = [kind_of(text) for text in query.getall("type", [])] or list(ServiceType)
        wanted = [kind for kind in ServiceType if kind in kinds]
        return Selection(choice, [service_filter(query, kind) for kind in wanted], {})
    picked = _picked(query)
    filters = [ServiceFilter(service_type=kind) for kind in ServiceType if kind in picked]
    return Selection(choice, filters, picked) if picked else None


def table_of(query: MultiMapping[str]) -> str:
    """The table that the form came from, with its filter."""
    kept = [(name, value) for name, value in query.items() if name not in _OWN and value]
    if query.get("from") == "quarantine":
        kept = [pair for pair in kept if pair[0] == "type"] if len(query.getall("type", [])) == 1 else []
        return f"/ui/quarantine?{urlencode(kept)}" if kept else "/ui/quarantine"
    return f"/ui/services?{urlencode(kept)}" if kept else "/ui/services"


def _picked(query: MultiMapping[str]) -> dict[ServiceType, list[str]]:
    named = query.getall("pick", [])
    if len(named) > MOST_PICKED:
        raise refuse(Code.INVALID, f"at most {MOST_PICKED} services can be picked one by one", "pick")
    picked: dict[ServiceType, list[str]] = {}
    for text in named:
        try:
            key = ServiceKey.parse(text)
        except ValueError:
            raise refuse(Code.INVALID, "pick must name a service as type.id", "pick") from None
        picked.setdefault(key.service_type, []).append(key.service_id)
    return picked
