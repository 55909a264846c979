"""`jetway service watch`: changes as they happen, for as long as somebody looks."""

from __future__ import annotations

import json
import random
import select
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from jetway.cli.client import Client, RefusedCallError, connect
from jetway.cli.errors import CommandError
from jetway.cli.options import service_type
from jetway.cli.server_events import EventReader, ServerEvent
from jetway.edge.exchange import plain

_PATH = "/api/admin/services/watch"
_SILENCE_SECONDS = 45.0
"""Three of the daemon's signs of life missed: the connection is dead."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 15.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Refusals that end by themselves."""


def watch(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            parser=service_type, metavar="[TYPE]...", help="poller, agent, checker.", show_default="all"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an event a line, as JSON.")] = False,
) -> None:
    """Follow changes of services until Ctrl-C: what happens from now on, a line for each.

    Reconnects by itself and goes on where it was; what it has to say of that goes to standard error.
    """
    client = connect()
    if sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(f"watching {client.endpoint.url}; Ctrl-C ends it", err=True)
    try:
        _Watching(kinds or [], as_json=as_json).run(client)
    except KeyboardInterrupt:
        # The way in which this ends: nothing went wrong.
        raise typer.Exit(0) from None


class _ReaderGoneError(Exception):
    """Nobody reads our output. No OSError: it would pass for one of the connection's."""


class _Watching:
    """One watch over all its connections."""

    def __init__(self, kinds: list[str], *, as_json: bool) -> None:
        self._kinds = list(dict.fromkeys(kinds))
        self._as_json = as_json
        self._position = ""
        self._connected = False
        self._complaint = ""
        self._pause = _FIRST_PAUSE

    def run(self, client: Client) -> None:
        """Never returns. Raises CommandError where the daemon refuses, or cannot be reached to begin with."""
        while True:
            try:
                self._follow(client)
                self._cut_off("the daemon ended the stream")
            except _ReaderGoneError:
                raise BrokenPipeError from None
            except CommandError as error:
                if not self._worth_another_try(error):
                    raise
                self._cut_off(str(error))
            client = self._again(client)

    def _worth_another_try(self, error: CommandError) -> bool:
        if isinstance(error, RefusedCallError):
            return error.status in _PASSING
        return self._connected

    def _follow(self, client: Client) -> None:
        """One connection. Raises CommandError when it is cut off."""
        reader = EventReader()
        headers = {"Accept": "text/event-stream"}
        if self._position:
            headers["Last-Event-ID"] = self._position

        def take(piece: bytes) -> None:
            self._has_answered()
            for event in reader.feed(piece):
                self._show(event)
            if _reader_is_gone():
                raise _ReaderGoneError

        query = {"service_type": self._kinds}
        try:
            client.stream(_PATH, query, take, headers=headers, timeout=_SILENCE_SECONDS)
        except ValueError as error:
            raise CommandError(f"{client.endpoint.url} sends no events: {error}") from error

    def _has_answered(self) -> None:
        if self._complaint:
            missed = "" if self._position else "; what changed meanwhile is not shown"
            _say(f"connected again{missed}")
        self._connected, self._complaint, self._pause = True, "", _FIRST_PAUSE

    def _cut_off(self, why: str) -> None:
        """Say it, once for each reason."""
        if why != self._complaint:
            _say(f"{why}: connecting again")
        self._complaint = why

    def _again(self, client: Client) -> Client:
        """Wait; the client to go on with. A daemon on this host may have another address since its restart."""
        # Not all of those at once who were cut off together.
        time.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
        self._pause = min(self._pause * 2, _LAST_PAUSE)
        try:
            return connect()
        except CommandError:
            return client

    def _show(self, event: ServerEvent) -> None:
        text = self._text(event)
        if text:
            try:
                print(text, flush=True)
            except BrokenPipeError:
                raise _ReaderGoneError from None
        if event.name == "reset":
            _say("too much was missed to be told: `jetway service list` shows how things are")
        if event.id:
            # Only now: what was not shown is asked for again.
            self._position = event.id

    def _text(self, event: ServerEvent) -> str:
        if event.name not in ("service", "gone", "reset"):
            return ""
        content = json.loads(event.data)
        if self._as_json:
            return json.dumps({"event": event.name, "data": content}, ensure_ascii=False)
        return "" if event.name == "reset" else _line(event.name, content)


def _line(name: str, item: dict[str, Any]) -> str:
    who = f"{item['service_type']:<7} {item['service_id']}"
    if name == "gone":
        words = [who, "purged"]
    else:
        words = [who, item["status"], item["liveness"]]
        if item["parent_id"]:
            words.append(f"under {item['parent_id']}")
        if item["approval"] == "required":
            words.append("approval required")
        if item["healthy"] is False:
            words.append("unhealthy")
        if item["status_reason"]:
            words.append(f"({item['status_reason']})")
    now = datetime.now(UTC).strftime("%H:%M:%SZ")
    return plain("  ".join([now, *words]))


def _say(text: str) -> None:
    typer.echo(f"jetway: {plain(text)}", err=True)


def _reader_is_gone() -> bool:
    """Whether nobody is at the other end of the pipe that we write to: a quiet watch would never notice."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(happened & select.POLLERR for _, happened in poll.poll(0))
