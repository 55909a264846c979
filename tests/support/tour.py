"""Every page of the dashboard, one after the other, with something on it: for whatever holds for all of them.

A page that no stop shows is found by `forgotten`, which looks at the routes themselves.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from urllib.parse import urlsplit

from jetway.entry import web
from support.browser import announce, sync_api
from support.daemon import Daemon, fresh

EVIL = "<script>document.title='taken'</script>"
LONG = "Longlabel" * 22 + "xy"
"""200 characters without a place to break."""
NO_PAGES = {
    "/ui/live", "/ui/charts/services.svg", "/ui/onboard/parents", "/ui/onboard/sites", "/ui/onboard/labels",
    "/ui/onboard/many/sample.csv", "/ui/audit/export.csv", "/ui/audit/export.jsonl",
}  # fmt: skip
"""What is read by scripts, or saved as a file."""
CSV = "component_type,label,component_id\npoller,{label},{id}\npoller,Lost,Not An Id\n"


def tour(page: sync_api.Page, daemon: Daemon) -> Iterator[str]:
    """Leads a page that an administrator signed in on to every stop; what it yields is where it is."""
    poller, agent, stranger, lost = fresh("site"), fresh("room"), fresh("stranger"), fresh("lost")
    issued = daemon.create("poller", poller, label=EVIL, site=LONG, labels={"rack": EVIL}, notes=EVIL)
    daemon.create("agent", agent, poller, label=LONG)
    daemon.create("checker", fresh("uplink"), agent, label=EVIL)
    for each in (stranger, lost):
        announce(daemon, each, b'{"version": "%s"}' % EVIL.encode())
    daemon.call("POST", f"/api/admin/services/pollers/{lost}/reject", {"reason": LONG})
    _maintenance(daemon, poller)
    one, many = f"/ui/services/poller/{poller}", "/ui/services/bulk?scope=all&action=revoke&type=poller"
    yield from _at(page, ["/ui/", "/ui/services", "/ui/services?type=agent", "/ui/services?type=checker"])
    yield from _at(page, [f"/ui/services?type=poller&q={poller}&status=active&status=pending"])
    yield from _at(page, [f"/ui/tree?open=poller.{poller}&open=agent.{agent}", "/ui/quarantine", "/ui/due"])
    yield from _at(
        page, ["/ui/packages", "/ui/maintenance", "/ui/audit", "/ui/jobs", "/ui/tokens", "/ui/about"]
    )
    yield from _at(page, [f"/ui/onboard?type={kind}" for kind in ("poller", "agent", "checker")])
    yield from _at(page, [one, f"/ui/services/agent/{agent}", f"/ui/services/poller/{lost}"])
    yield from _at(page, [f"{one}/revoke", f"{one}/reissue", f"/ui/services/poller/{stranger}/approve"])
    yield from _at(page, [many, "/ui/tokens/admin/revoke", f"/ui/onboard/{issued['package']['package_id']}"])
    yield from _at(page, ["/ui/nothing", "/ui/audit?service_id=No+Id"], status=(404, 422))
    yield from _forms(page, daemon)
    yield from _dialog(page, one)
    page.get_by_role("button", name="Sign out").locator("visible=true").click()
    page.wait_for_url("**/ui/sign-in")
    yield page.url


def forgotten(urls: Iterable[str]) -> set[str]:
    """Routes of pages that are none of these addresses'."""
    paths = [urlsplit(url).path for url in urls]
    return {
        route
        for route in _routes() - NO_PAGES
        if not any(re.fullmatch(_as_pattern(route), path) for path in paths)
    }


def _at(page: sync_api.Page, paths: Iterable[str], status: tuple[int, ...] = (200,)) -> Iterator[str]:
    for path in paths:
        answer = page.goto(path)
        assert answer is not None and answer.status in status, path
        yield path


def _forms(page: sync_api.Page, daemon: Daemon) -> Iterator[str]:
    """What forms answer with: tokens that are shown once, errors, results."""
    page.goto("/ui/onboard?type=poller")
    page.get_by_label("Label", exact=True).fill("!!!")
    page.locator("[name='labels.1']").fill("no pair")
    page.get_by_role("button", name="Create the package").click()
    page.locator("#wrong-labels").wait_for()
    yield page.url
    page.get_by_label("Label", exact=True).fill(fresh("toured"))
    page.locator("[name='labels.1']").fill("a=b")
    page.get_by_role("button", name="Create the package").click()
    page.wait_for_url("**/ui/onboard/*-*")
    daemon.secrets.add(page.get_by_label("Token", exact=True).input_value())
    yield page.url
    page.goto("/ui/onboard/many")
    yield page.url
    page.get_by_text("Paste it, or repeat").click()
    page.locator("[name=text]").fill(CSV.format(label=LONG, id=fresh("many")))
    page.get_by_role("button", name="Look at the rows").click()
    page.locator("#row-2").wait_for()
    yield page.url
    page.get_by_role("button", name="Create 1 package").click()
    page.get_by_role("button", name="Show them on a page").click()
    page.get_by_role("heading", name="1 token").wait_for()
    daemon.secrets.add(page.locator("textarea").input_value())
    yield page.url
    page.goto("/ui/tokens")
    page.get_by_label("Name").fill(fresh("token"))
    page.get_by_role("button", name="Make the token").click()
    daemon.secrets.add(page.locator("#fresh-text").input_value())
    yield page.url
    page.goto("/ui/jobs")
    page.get_by_role("button", name="Run purge now").click()
    page.get_by_role("heading", name="Run the job purge now?").wait_for()
    yield page.url
    page.goto(f"/ui/services/bulk?scope=chosen&action=activate&pick=poller.{fresh('nobody')}")
    yield page.url
    alone = fresh("alone")
    daemon.create("poller", alone)
    page.goto(f"/ui/services/bulk?scope=chosen&action=revoke&pick=poller.{alone}")
    page.get_by_role("button", name="Revoke 1 service").click()
    page.wait_for_url("**/ui/services/bulk/*")
    page.get_by_role("link", name="Back to the table").wait_for()  # until then the page comes again by itself
    yield page.url


def _dialog(page: sync_api.Page, service: str) -> Iterator[str]:
    page.goto(service)
    page.get_by_role("link", name="Revoke…").click()
    page.get_by_role("dialog").wait_for()
    yield f"{service}#dialog"
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()


def _maintenance(daemon: Daemon, poller: str) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = daemon.call(
        "POST", "/api/admin/maintenance", {"service": f"poller.{poller}", "until": until, "reason": EVIL}
    )
    assert answer.status == 201, answer.body


def _routes() -> set[str]:
    found = set()
    for each in pkgutil.iter_modules(web.__path__):
        for room in vars(import_module(f"{web.__name__}.{each.name}")).values():
            for handler in vars(room).values() if isinstance(room, type) else ():
                found |= {p.path for p in getattr(handler, "__page__", ()) if p.method == "GET"}
    return found


def _as_pattern(route: str) -> str:
    """`{name}` and `{name:pattern}` as a pattern; what stands around them as it is."""
    pieces = re.split(r"\{\w+(?::((?:[^{}]|\{[^{}]*\})*))?\}", route)
    return "".join(
        re.escape(piece) if place % 2 == 0 else f"(?:{piece or '[^/]+'})"
        for place, piece in enumerate(pieces)
    )
