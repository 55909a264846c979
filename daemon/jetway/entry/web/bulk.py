"""One deed over many services: a preview that names whom it touches, then the deed, then what became of each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import structlog
from aiohttp import web

from jetway.core.errors import Code, RefusedError, refuse
from jetway.core.ids import ServiceType
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import STATUS
from jetway.entry.web.actions import COUNT_AGAIN, reason_of
from jetway.entry.web.bulk_plan import SHOWN, plan
from jetway.entry.web.bulk_runs import Run, new_shelf
from jetway.entry.web.pages import page
from jetway.entry.web.selection import Selection, selection_of, table_of
from jetway.entry.web.visit import Visit
from jetway.services.actions import Actions, Order, Result
from jetway.services.caller import Caller
from jetway.services.window import Page

log = structlog.get_logger()

BULK = "/ui/services/bulk"
_RUN = BULK + "/{run_id:[0-9a-f-]{36}}"
_WAIT_SECONDS = 3.0
"""How long an answer waits for the end of the work; a longer one goes on, and the page asks again."""
_ASK_AGAIN_SECONDS = 2
_FAILURES_SHOWN = 100
_COUNT_AGAIN = COUNT_AGAIN


class BulkPages:
    """The pages under /ui/services/bulk. Which services they mean stands in the address."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._actions = Actions(doors.catalogue, doors.administrator)
        self._runs = new_shelf()

    async def close(self) -> None:
        """Cut off what is under way: what was done stays done, and doing it again does the rest."""
        work = self._runs.work()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    @page("GET", BULK, Role.OPERATOR)
    async def ask(self, visit: Visit) -> web.StreamResponse:
        """What would happen."""
        selection = selection_of(visit)
        if selection is None:
            return visit.go(table_of(visit.request.query), "Tick services first, or choose all that match.")
        return await self._preview(visit, selection)

    @page("POST", BULK, Role.OPERATOR)
    async def act(self, visit: Visit) -> web.StreamResponse:
        """Do it, or say why not."""
        selection = selection_of(visit)
        if selection is None:
            return visit.go(table_of(visit.request.query), "Tick services first, or choose all that match.")
        try:
            reason, expected = reason_of(visit.form.get("reason", "")), _expected(visit.form)
            _require_count(visit.form, selection)
            asked = _run(visit, selection, sum(expected.values()))
            run = self._runs.keep(asked.run_id, asked)
        except RefusedError as error:
            refused = error.refused
            return await self._preview(visit, selection, {refused.field: refused.why}, STATUS[refused.code])
        if run.work is None:
            work = self._do(run, visit.caller, selection.orders(reason, expected))
            run.work = asyncio.create_task(work, name=f"web-bulk-{run.run_id}")
        await asyncio.wait([run.work], timeout=_WAIT_SECONDS)
        return visit.go(f"{BULK}/{run.run_id}")

    @page("GET", _RUN, Role.OPERATOR)
    async def show(self, visit: Visit) -> web.StreamResponse:
        """What became of it; while it is under way, a page that comes again."""
        run = self._runs.find(visit.part("run_id"), visit.session, visit.now)
        failures = _page(run.failures, visit.request.query.get("cursor", ""))
        response = visit.show("bulk_run.html", run=run, page=failures)
        if run.is_busy:
            response.headers["Refresh"] = str(_ASK_AGAIN_SECONDS)
        return response

    async def _preview(
        self, visit: Visit, selection: Selection, wrong: Mapping[str, str] | None = None, status: int = 200
    ) -> web.StreamResponse:
        made = await plan(self._actions, self._catalogue, selection)
        return visit.show(
            "bulk.html",
            status,
            plan=made,
            choice=selection.choice,
            wrong=wrong or {},
            form=visit.form,
            shown=SHOWN,
            kinds=list(ServiceType),
            counts_again=selection.choice.grave and made.total > _COUNT_AGAIN,
            run_id=str(uuid.uuid4()),
            here=str(visit.request.rel_url),
            table=table_of(visit.request.query),
        )

    async def _do(self, run: Run, caller: Caller, orders: list[Order]) -> None:
        try:
            for order in orders:
                await self._actions.run(caller, order, run.take)
        except RefusedError as error:
            run.wrong = error.refused.why
        except Exception:
            log.exception("an action on many services broke off", action="bulk_failed")
            run.wrong = "a mistake of ours stopped it; the log has more. Doing it again does the rest"


def _run(visit: Visit, selection: Selection, expected: int) -> Run:
    try:
        run_id = str(uuid.UUID(visit.form.get("run", "")))
    except ValueError:
        raise refuse(Code.INVALID, "the form is not whole: open the preview again", "run") from None
    again, table = str(visit.request.rel_url), table_of(visit.request.query)
    return Run(run_id, visit.session, selection.choice, again, table, expected, visit.now)


def _expected(form: Mapping[str, str]) -> dict[ServiceType, int]:
    """How many services of each type the preview counted."""
    counts = {kind: form.get(f"expected-{kind.value}", "0") for kind in ServiceType}
    if not all(text.isdecimal() and len(text) < 9 for text in counts.values()):
        raise refuse(Code.INVALID, "the form is not whole: open the preview again", "expected")
    return {kind: int(text) for kind, text in counts.items()}


def _require_count(form: Mapping[str, str], selection: Selection) -> None:
    """The number that whoever confirms a grave deed has read. What it is told against is the preview's."""
    total = form.get("total", "")
    if not total.isdecimal() or len(total) > 8:
        raise refuse(Code.INVALID, "the form is not whole: open the preview again", "total")
    must = selection.choice.grave and int(total) > _COUNT_AGAIN
    if must and form.get("count", "").strip() != total:
        raise refuse(Code.INVALID, f"must be {total}, the number of services that it touches", "count")


def _page(failures: list[Result], cursor: str) -> Page[Result]:
    start = int(cursor) if cursor.isdecimal() and len(cursor) < 6 else 0
    end = start + _FAILURES_SHOWN
    return Page(failures[start:end], str(end) if end < len(failures) else None, len(failures))
