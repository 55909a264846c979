"""The audit trail and the tokens of this API."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from aiohttp import web

from jetway.core.record import EventType
from jetway.entry.http import answers as a
from jetway.entry.http import models as m
from jetway.entry.http import render
from jetway.entry.http import requests as r
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors
from jetway.entry.http.fields import TokenName
from jetway.entry.http.whole import whole_or_cut_off
from jetway.services.catalogue import EventFilter

_TOKENS = "/api/admin/api-tokens"
_EXPORTED_AT_ONCE = 500


def _filter(query: r.ExportEvents) -> EventFilter:
    return EventFilter(
        types=[event_type.value for event_type in query.type],
        service_type=query.service_type.value if query.service_type else "",
        service_id=query.service_id,
        package_id=query.package_id or "",
        actor=query.actor,
        since=query.since,
        until=query.until,
    )


class AdminRoutes:
    """The routes of /api/admin/events and /api/admin/api-tokens."""

    def __init__(self, doors: Doors) -> None:
        self._catalogue = doors.catalogue
        self._api_tokens = doors.api_tokens
        self._trail = doors.trail

    @route("GET", "/api/admin/events", tag="audit", role=Role.VIEWER, errors=(503,))
    async def list_events(self, query: r.ListEvents) -> m.EventList:
        """The audit trail, newest first."""
        wanted = replace(_filter(query), limit=query.limit, cursor=query.cursor)
        return render.events(await self._catalogue.events(wanted))

    @route(
        "GET",
        "/api/admin/events/export",
        tag="audit",
        role=Role.VIEWER,
        errors=(503,),
        content={"application/x-ndjson": "An event a line, newest first."},
        seconds=None,
    )
    async def export_events(self, query: r.ExportEvents, call: Call) -> web.StreamResponse:
        """The audit trail as JSON lines, newest first, whatever its size. That it was exported is in the trail.

        An answer that breaks off is not whole: ask again.
        """
        filters = query.model_dump(mode="json", exclude_defaults=True)
        await self._trail.note(EventType.EXPORTED, call.caller, metadata={"filters": filters})
        # The first page before the head of the answer: while the database is away this is a 503.
        page = await self._catalogue.events(replace(_filter(query), limit=_EXPORTED_AT_ONCE))
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(call.request)
        if call.request.method == "HEAD":
            return response
        with whole_or_cut_off(call.request):
            while True:
                items = render.events(page).items
                await response.write(b"".join(item.model_dump_json().encode() + b"\n" for item in items))
                if page.next_cursor is None:
                    break
                wanted = replace(_filter(query), limit=_EXPORTED_AT_ONCE, cursor=page.next_cursor)
                page = await self._catalogue.events(wanted)
        await response.write_eof()
        return response

    @route("GET", _TOKENS, tag="api tokens", role=Role.ADMIN)
    async def list_api_tokens(self) -> a.ApiTokenList:
        """The API tokens, without their secrets."""
        items = [a.ApiToken.model_validate(token) for token in self._api_tokens.list()]
        return a.ApiTokenList(items=items, next_cursor=None, total=len(items))

    @route("POST", _TOKENS, tag="api tokens", role=Role.ADMIN, status=201, errors=(409, 503))
    async def create_api_token(self, body: r.CreateApiToken, call: Call) -> a.NewApiToken:
        """A new API token. Its text is shown here and never again."""
        seconds = body.expires_in_seconds
        expires_in = None if seconds is None else timedelta(seconds=seconds)
        text, token = await self._api_tokens.create(call.caller, body.name, body.role, expires_in)
        return a.NewApiToken(token=text, name=token.name, role=body.role, expires_at=token.expires_at)

    @route("DELETE", _TOKENS + "/{name}", tag="api tokens", role=Role.ADMIN, errors=(503,))
    async def revoke_api_token(self, name: TokenName, call: Call) -> None:
        """End an API token at once."""
        await self._api_tokens.revoke(call.caller, name)
