"""The audit trail: looked through, and taken along as a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web
from multidict import MultiMapping
from pydantic import JsonValue, ValidationError

from jetway.core.ids import ServiceType
from jetway.core.record import EventType
from jetway.core.rows import Event
from jetway.entry.http import render
from jetway.entry.http import requests as r
from jetway.entry.http.doors import Doors
from jetway.entry.http.problems import field_errors, wrong_filter
from jetway.entry.http.whole import whole_or_cut_off
from jetway.entry.web.csv_text import csv_text
from jetway.entry.web.pages import page
from jetway.entry.web.visit import Visit
from jetway.services.catalogue import EventFilter
from jetway.services.window import Page

_ONE_VALUE = ("service_type", "service_id", "actor", "cursor")
_EXPORTED_AT_ONCE = 500
_COLUMNS = (
    "timestamp", "event_type", "service_type", "service_id", "actor", "source_ip", "reason", "from_status",
    "to_status", "parent_id", "registration_source", "package_id", "metadata", "epoch", "revision", "request_id",
    "event_id",
)  # fmt: skip

Encode = Callable[[Page[Event]], bytes]


class AuditPages:
    """The pages under /ui/audit."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._trail = doors.trail

    @page("GET", "/ui/audit")
    async def table(self, visit: Visit) -> web.StreamResponse:
        """A page of the trail, the newest first."""
        query = visit.request.query
        try:
            asked, wrong = _asked(query), {}
        except ValidationError as error:
            asked, wrong = None, {each.field.split(".")[0]: each.message for each in field_errors(error)}
        found = await self._catalogue.events(_filter_of(asked)) if asked else None
        return visit.show(
            "audit.html",
            422 if wrong else 200,
            wrong=wrong,
            page=found,
            chosen=query.getall("type", []),
            kinds=list(ServiceType),
            types=sorted(EventType),
        )

    @page("GET", "/ui/audit/export.jsonl")
    async def export_lines(self, visit: Visit) -> web.StreamResponse:
        """All that the filter lets through, as the API gives it: an event a line, newest first."""
        return await self._export(visit, "application/x-ndjson", "jsonl", b"", _lines)

    @page("GET", "/ui/audit/export.csv")
    async def export_table(self, visit: Visit) -> web.StreamResponse:
        """The same as a table for a spreadsheet."""
        return await self._export(
            visit, "text/csv; charset=utf-8", "csv", csv_text([_COLUMNS]).encode(), _table
        )

    async def _export(
        self, visit: Visit, content_type: str, ending: str, head: bytes, encode: Encode
    ) -> web.StreamResponse:
        """A page of events at a time, as fast as it is taken. That it was exported is in the trail."""
        query = visit.request.query
        wanted = replace(_filter(query), limit=_EXPORTED_AT_ONCE, cursor=None)
        await self._trail.note(EventType.EXPORTED, visit.caller, metadata={"filters": _given(query)})
        # The first page before the head of the answer: while the database is away this is an error page.
        page = await self._catalogue.events(wanted)
        name = f"audit-{visit.now:%Y-%m-%d}.{ending}"
        headers = {
            "Content-Type": content_type,
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(visit.request)
        if visit.request.method != "HEAD":
            await response.write(head)
            await self._send(response, visit.request, wanted, page, encode)
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        request: web.Request,
        wanted: EventFilter,
        page: Page[Event],
        encode: Encode,
    ) -> None:
        with whole_or_cut_off(request):
            while True:
                await response.write(await asyncio.to_thread(encode, page))
                if page.next_cursor is None:
                    break
                page = await self._catalogue.events(replace(wanted, cursor=page.next_cursor))
        await response.write_eof()


def _filter(query: MultiMapping[str]) -> EventFilter:
    """What the address asks for. Raises ProblemError that names what is wrong in it."""
    try:
        return _filter_of(_asked(query))
    except ValidationError as error:
        raise wrong_filter(error) from None


def _asked(query: MultiMapping[str]) -> r.ListEvents:
    values: dict[str, object] = {name: query[name] for name in _ONE_VALUE if query.get(name)}
    values["type"] = [each for each in query.getall("type", []) if each]
    for name, end in (("since", "T00:00:00Z"), ("until", "T23:59:59.999Z")):
        if query.get(name):
            values[name] = query[name] + end
    return r.ListEvents.model_validate(values)


def _filter_of(asked: r.ListEvents) -> EventFilter:
    return EventFilter(
        types=[event_type.value for event_type in asked.type],
        service_type=asked.service_type.value if asked.service_type else "",
        service_id=asked.service_id,
        actor=asked.actor,
        since=asked.since,
        until=asked.until,
        cursor=asked.cursor,
    )


def _given(query: MultiMapping[str]) -> dict[str, JsonValue]:
    """What the filter says, for the trail."""
    names = ("service_type", "service_id", "actor", "since", "until")
    filters: dict[str, JsonValue] = {name: query[name] for name in names if query.get(name)}
    types: list[JsonValue] = [each for each in query.getall("type", []) if each]
    return filters | ({"type": types} if types else {})


def _lines(page: Page[Event]) -> bytes:
    return b"".join(item.model_dump_json().encode() + b"\n" for item in render.events(page).items)


def _table(page: Page[Event]) -> bytes:
    shown = [item.model_dump(mode="json") for item in render.events(page).items]
    return csv_text([_cell(item.get(name)) for name in _COLUMNS] for item in shown).encode()


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None else str(value)
