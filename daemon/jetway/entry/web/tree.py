"""The hierarchy: pollers with how the worst beneath them is, and what stands beneath one once it is opened.

Which are open stands in the address, so the page is the same with and without scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from aiohttp import web
from multidict import MultiMapping

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.ids import ServiceKey
from jetway.entry.http.doors import Doors
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit, see_other
from jetway.services.tree import TreeNode, TreeQuery
from jetway.services.window import Page

TREE = "/ui/tree"
MOST_OPEN = 10
_SHOWN = 50
_LONGEST_SEARCH = 200


class TreePages:
    """The page /ui/tree."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue

    @page("GET", TREE)
    async def tree(self, visit: Visit) -> web.StreamResponse:
        """All pollers, or with `root` what stands beneath one service; `open` names those that are opened."""
        query = visit.request.query
        if "toggle" in query:
            return see_other(_toggled(query))
        root = _key(query["root"], "root") if query.get("root") else None
        wanted = TreeQuery(
            depth=1,
            root=root,
            limit=_SHOWN,
            cursor=query.get("cursor") or None,
            q=query.get("q", "")[:_LONGEST_SEARCH],
        )
        top = await self._catalogue.tree(wanted)
        return visit.show(
            "tree.html",
            page=top,
            branches=await self._branches(top, _opened(query)),
            root=self._catalogue.get(root).record if root else None,
            opened=[str(key) for key in _opened(query)],
        )

    async def _branches(
        self, top: Page[TreeNode], opened: Sequence[ServiceKey]
    ) -> dict[ServiceKey, Page[TreeNode]]:
        """What stands beneath the opened ones, as far as they are to be seen."""
        found: dict[ServiceKey, Page[TreeNode]] = {}
        level = list(top.items)
        while level:
            seen = [node.view.record.key for node in level]
            level = []
            for key in seen:
                if key in opened:
                    found[key] = await self._catalogue.tree(TreeQuery(depth=1, root=key, limit=_SHOWN))
                    level += found[key].items
        return found


def _key(text: str, field: str) -> ServiceKey:
    try:
        return ServiceKey.parse(text)
    except ValueError:
        raise refuse(Code.INVALID, f"{field} must name a service as type.id", field) from None


def _opened(query: MultiMapping[str]) -> list[ServiceKey]:
    """The last ones of those that are well named."""
    found = []
    for text in query.getall("open", [])[-MOST_OPEN:]:
        try:
            found.append(_key(text, "open"))
        except RefusedError:
            continue
    return found


def _toggled(query: MultiMapping[str]) -> str:
    """The page with one more or one less open, at the place where that one is."""
    key = _key(query["toggle"], "toggle")
    opened = [each for each in _opened(query) if each != key]
    if key not in _opened(query):
        opened = [*opened, key][-MOST_OPEN:]
    kept = [(name, query[name]) for name in ("root", "q", "cursor") if query.get(name)]
    target = [*kept, *(("open", str(each)) for each in opened)]
    anchor = f"#node-{key.service_type.value}-{key.service_id}"
    return f"{TREE}?{urlencode(target)}{anchor}" if target else f"{TREE}{anchor}"
