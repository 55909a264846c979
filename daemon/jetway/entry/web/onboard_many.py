"""Many packages from one CSV file: a preview of every row, then the packages, then their tokens, once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import structlog
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from jetway.core.errors import Code, RefusedError, refuse
from jetway.entry.http.auth import Role
from jetway.entry.http.bulk import MAX_BODY, BulkCreate, report_of, rows_of
from jetway.entry.http.csv_rows import COLUMNS, rows_of_csv
from jetway.entry.http.doors import Doors
from jetway.entry.http.fields import IdempotencyKey
from jetway.entry.http.problems import STATUS, ProblemError, field_errors
from jetway.entry.web.csv_text import csv_text
from jetway.entry.web.drafts import Draft, Row, Stage, new_shelf
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.services.bulk import MOST_ROWS, BulkIssuer
from jetway.services.caller import Caller
from jetway.services.window import Page

log = structlog.get_logger()

MANY = "/ui/onboard/many"
_ONE = MANY + "/{draft_id}"
_WAIT_SECONDS = 3.0
"""How long an answer waits for the end of the work; a longer one goes on, and the page asks again."""
_ASK_AGAIN_SECONDS = 2
_SHOWN = 100
_TOKENS_SHOWN = 50
"""With more packages their tokens come as a file alone."""
_TEXT_KEPT = 64 * 1024
_KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)
_SAMPLE = (
    ("component_type", "label", "component_id", "parent_id", "site", "labels", "metadata", "checker_kind",
     "checker_config", "heartbeat_interval_seconds", "token_ttl_seconds", "notes"),
    ("poller", "Site A", "site-a", "", "A", "rack=12;row=b", '{"owner": "netops"}', "", "", "30", "86400", ""),
    ("agent", "Core switch room", "core-switch-room", "site-a", "", "", "", "", "", "", "", "Key at the desk"),
    ("checker", "Uplink", "uplink", "core-switch-room", "", "", "", "icmp",
     '{"hosts": ["192.0.2.1"], "interval": "60s"}', "", "", ""),
)  # fmt: skip


class OnboardManyPages:
    """The pages under /ui/onboard/many."""

    def __init__(self, doors: Doors) -> None:
        self._bulk = BulkIssuer(doors.issuer)
        self._drafts = new_shelf()

    async def close(self) -> None:
        """Cut off what is under way: the same file with the same key goes on from there."""
        work = self._drafts.work()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    @page("GET", MANY, Role.OPERATOR)
    async def ask(self, visit: Visit) -> web.StreamResponse:
        """The form."""
        return _form(visit, {})

    @page("GET", MANY + "/sample.csv", Role.OPERATOR)
    async def sample(self, _visit: Visit) -> web.StreamResponse:
        """A file to begin with."""
        return _file("jetway-sample.csv", csv_text(_SAMPLE))

    @page("POST", MANY, Role.OPERATOR, upload=MAX_BODY)
    async def upload(self, visit: Visit) -> web.StreamResponse:
        """Read the file and look what would become of each row, or say what is wrong with it as a whole."""
        try:
            draft = await _draft(visit)
        except ProblemError as error:
            return _form(visit, {"file": error.detail}, error.status)
        except RefusedError as error:
            return _form(visit, {error.refused.field: error.refused.why}, STATUS[error.refused.code])
        self._drafts.keep(draft.draft_id, draft)
        await self._begin(draft, visit.caller, dry_run=True)
        return visit.go(f"{MANY}/{draft.draft_id}")

    @page("GET", _ONE, Role.OPERATOR)
    async def show(self, visit: Visit) -> web.StreamResponse:
        """The preview, or what became of it; while it is worked on, a page that comes again."""
        draft, query = self._find(visit), visit.request.query
        outcome = query.get("outcome", "")
        rows = [row for row in draft.rows if not outcome or row.outcome == outcome]
        response = visit.show(
            "onboard_many_draft.html",
            draft=draft,
            stage=draft.stage.value,
            outcome=outcome,
            page=_page(rows, query.get("cursor", "")),
            waiting_tokens=sum(1 for row in draft.rows if row.token),
            shows_tokens=len(draft.rows) <= _TOKENS_SHOWN,
        )
        if draft.is_busy:
            response.headers["Refresh"] = str(_ASK_AGAIN_SECONDS)
        return response

    @page("POST", _ONE, Role.OPERATOR)
    async def create(self, visit: Visit) -> web.StreamResponse:
        """Create the packages. Pressed twice it does so once; after a failure it is the same call again."""
        draft = self._find(visit)
        may_begin = draft.stage in (Stage.CHECKED, Stage.BROKEN) or draft.counts["failed"]
        if may_begin and not draft.is_busy:
            await self._begin(draft, visit.caller, dry_run=not draft.is_checked)
        return visit.go(f"{MANY}/{draft.draft_id}")

    @page("POST", _ONE + "/tokens", Role.OPERATOR)
    async def tokens(self, visit: Visit) -> web.StreamResponse:
        """The tokens, once: as a file, or, where they are few, on a page."""
        draft = self._find(visit)
        taken = [] if draft.is_busy else draft.take_tokens()
        if not taken:
            return visit.go(f"{MANY}/{draft.draft_id}", "There are no tokens here that were not handed over.")
        if visit.form.get("as") == "page" and len(draft.rows) <= _TOKENS_SHOWN:
            return visit.show("onboard_many_tokens.html", draft=draft, taken=taken)
        text = await asyncio.to_thread(_tokens_text, taken)
        return _file(f"jetway-tokens-{draft.draft_id[:8]}.csv", text)

    def _find(self, visit: Visit) -> Draft:
        return self._drafts.find(visit.part("draft_id"), visit.session, visit.now)

    async def _begin(self, draft: Draft, caller: Caller, *, dry_run: bool) -> None:
        draft.stage = Stage.CHECKING if dry_run else Stage.CREATING
        name = f"web-many-{draft.draft_id}"
        draft.work = asyncio.create_task(self._run(draft, caller, dry_run=dry_run), name=name)
        await asyncio.wait([draft.work], timeout=_WAIT_SECONDS)

    async def _run(self, draft: Draft, caller: Caller, *, dry_run: bool) -> None:
        try:
            rows = await asyncio.to_thread(lambda: rows_of(_body(draft.data)))
            results = await self._bulk.create(caller, rows, draft.key, dry_run=dry_run)
            report = await asyncio.to_thread(report_of, rows, results, dry_run=dry_run)
            await asyncio.to_thread(draft.take_in, report)
        except Exception:
            log.exception("an upload was not dealt with", action="upload_failed")
            draft.stage = Stage.BROKEN
            return
        draft.stage, draft.is_checked = Stage.CHECKED if dry_run else Stage.DONE, True
        if draft.stage is Stage.DONE and not draft.counts["failed"]:
            draft.data = b""


async def _draft(visit: Visit) -> Draft:
    """What was sent. Raises ProblemError or RefusedError for what cannot be read as rows."""
    data, pasted = visit.file, visit.form.get("text", "")
    if data and pasted.strip():
        raise refuse(Code.INVALID, "choose a file or paste its text, not both", "file")
    data = data or pasted.encode()
    if not data.strip():
        raise refuse(Code.INVALID, "choose a file, or paste its text", "file")
    key = visit.form.get("key", "").strip()
    if key:
        try:
            key = _KEY.validate_python(key)
        except ValidationError as error:
            raise refuse(Code.INVALID, field_errors(error)[0].message, "key") from None
    body = await asyncio.to_thread(_body, data)
    draft_id = str(uuid.uuid4())
    name = key or f"web-{draft_id}"
    return Draft(draft_id, visit.session, name, data, len(body.rows), visit.now, repeats=bool(key))


def _body(data: bytes) -> BulkCreate:
    """The rows, as the API reads them. Raises ProblemError, RefusedError."""
    try:
        return BulkCreate.model_validate_json(rows_of_csv(data))
    except ValidationError:
        why = f"a file has between 1 and {MOST_ROWS} rows below its first line"
        raise refuse(Code.INVALID, why, "file") from None


def _form(visit: Visit, wrong: Mapping[str, str], status: int = 200) -> web.Response:
    return visit.show(
        "onboard_many.html",
        status,
        wrong=wrong,
        text=visit.form.get("text", "")[:_TEXT_KEPT],
        key=visit.form.get("key", "")[:255],
        columns=COLUMNS,
        most_rows=MOST_ROWS,
        most_bytes=MAX_BODY,
    )


def _page(rows: list[Row], cursor: str) -> Page[Row]:
    start = int(cursor) if cursor.isdecimal() and len(cursor) < 6 else 0
    end = start + _SHOWN
    return Page(rows[start:end], str(end) if end < len(rows) else None, len(rows))


def _tokens_text(taken: list[tuple[Row, str]]) -> str:
    head = ("row", "service_type", "service_id", "package_id", "token")
    return csv_text(
        [head, *((str(row.number), row.kind, row.service_id, row.package_id, token) for row, token in taken)]
    )


def _file(name: str, text: str) -> web.Response:
    """A file to be saved. Like every answer it is stored nowhere on its way."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=headers)
