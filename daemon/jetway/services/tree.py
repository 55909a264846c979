"""The hierarchy, as far down as somebody looks: every node tells of all that stand beneath how the worst is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jetway.core.errors import Code, refuse
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.record import ServiceRecord, ServiceStatus
from jetway.services.index import Index
from jetway.services.pace import Pace, in_slices
from jetway.services.views import ServiceView
from jetway.services.window import Order, Page, Window

MOST_NODES = 20_000
"""In one answer."""
_RANK = (Liveness.ONLINE, Liveness.NEVER, Liveness.LATE, Liveness.OFFLINE)
_EXPECTED = frozenset({ServiceStatus.ACTIVE, ServiceStatus.INACTIVE})
"""Statuses of services that should be heard."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A service with its children, as far as they were asked for."""

    view: ServiceView
    children: tuple[TreeNode, ...] = ()
    worst_beneath: Liveness | None = None
    """Of all active and inactive services beneath, shown or not; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeQuery:
    """Which part of the hierarchy."""

    depth: int = 3
    """Levels, 1 to 3."""
    root: ServiceKey | None = None
    """What stands beneath this one; None: all pollers."""
    limit: int = MOST_NODES
    """Services on the first of the levels."""
    cursor: str | None = None
    q: str = ""
    """Of all pollers only those with this in their id, label or site, in any case."""


class Branches:
    """Makes nodes of records."""

    def __init__(
        self,
        index: Index,
        view: Callable[[ServiceRecord], ServiceView],
        verdict: Callable[[ServiceRecord], Liveness],
    ) -> None:
        self._index = index
        self._view = view
        self._verdict = verdict
        self._pace = Pace()
        self._made = 0

    async def page(self, top: Sequence[ServiceRecord], query: TreeQuery) -> Page[TreeNode]:
        """Nodes for a page of `top`. Raises RefusedError (invalid) where they are too many, or by the cursor."""
        order: Order[ServiceRecord] = Order(
            lambda record: record.service_id, lambda record: record.service_id
        )
        window = Window(order, query.limit, query.cursor)
        async for part in in_slices(top):
            window.take(part)
        page = window.page()
        nodes = [await self._node(record, query.depth) for record in page.items]
        return Page(nodes, page.next_cursor, page.total)

    async def _node(self, record: ServiceRecord, depth: int) -> TreeNode:
        await self._pace.breathe()
        self._made += 1
        if self._made > MOST_NODES:
            why = f"this part has more than {MOST_NODES} services: ask for fewer levels, or for fewer with limit"
            raise refuse(Code.INVALID, why, "depth")
        if depth == 1:
            return TreeNode(self._view(record), (), await self._worst_beneath(record.key))
        below = sorted(self._index.children(record.key), key=lambda child: child.service_id)
        nodes = tuple([await self._node(child, depth - 1) for child in below])
        verdicts = [self._own(node.view.record) for node in nodes]
        return TreeNode(
            self._view(record), nodes, _worst([*verdicts, *(node.worst_beneath for node in nodes)])
        )

    async def _worst_beneath(self, key: ServiceKey) -> Liveness | None:
        found: set[Liveness | None] = set()
        for child in self._index.children(key):
            await self._pace.breathe()
            found |= {self._own(child), await self._worst_beneath(child.key)}
        return _worst(found)

    def _own(self, record: ServiceRecord) -> Liveness | None:
        return self._verdict(record) if record.status in _EXPECTED else None


def _worst(verdicts: Iterable[Liveness | None]) -> Liveness | None:
    return max((each for each in verdicts if each is not None), key=_RANK.index, default=None)
