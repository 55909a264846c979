"""Load on a daemon from several tasks at once, and a book of what it acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from nats.aio.client import Client
from nats.errors import Error as NatsError

from support.daemon import PACKAGES, REDEEM, Daemon, fresh, nats_key

CREATORS = 8
_CUT_OFF = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(slots=True)
class Book:
    """What was acknowledged before everything ended."""

    created: dict[str, Any] = field(default_factory=dict)
    """Package id → the answer to its creation."""
    redeemed: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Package id → the key of the redeemer and the answer it got."""
    beats: int = 0
    refused: list[int] = field(default_factory=list)
    """Statuses other than done; a daemon that stops may say 503."""


@asynccontextmanager
async def load(daemon: Daemon) -> AsyncIterator[Book]:
    """Create, redeem and beat until the block ends, whatever happens to the daemon meanwhile."""
    book, poller = Book(), fresh("p")
    daemon.create("poller", poller)
    async with daemon.nats(allow_reconnect=False) as client, _session(daemon) as session:
        tasks = [asyncio.create_task(_onboard(session, client, poller, book)) for _ in range(CREATORS)]
        try:
            yield book
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [each for each in ended if isinstance(each, Exception)]
    if failed:
        raise failed[0]


async def until_created(book: Book, count: int) -> None:
    """Return when the daemon is well under way."""
    async with asyncio.timeout(240):
        while len(book.created) < count or len(book.redeemed) < count // 2 or not book.beats:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def require_hardly_refused(book: Book) -> None:
    """What serves refuses next to nothing; where the disk is busy a write may be 503, and clients repeat it."""
    assert set(book.refused) <= {503}, book.refused
    assert len(book.refused) <= CREATORS + len(book.created) // 10, book.refused


def _session(daemon: Daemon) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=20)
    return aiohttp.ClientSession(
        daemon.url, headers={"Authorization": f"Bearer {daemon.token}"}, timeout=timeout
    )


async def _onboard(session: aiohttp.ClientSession, client: Client, poller: str, book: Book) -> None:
    """One agent after the other, until the daemon is gone."""
    try:
        while True:
            created = await _create(session, poller, book)
            if created is None:
                continue
            answer = await _redeem(session, created, book)
            if answer is not None:
                await client.publish(answer["heartbeat"]["subject"], b'{"healthy": true}')
                await client.flush(timeout=30)
                book.beats += 1
    except (*_CUT_OFF, NatsError):
        return


async def _create(session: aiohttp.ClientSession, poller: str, book: Book) -> Any:
    body = {"component_type": "agent", "label": fresh("a"), "parent_id": poller}
    async with session.post(PACKAGES, json=body) as response:
        told = await response.json(content_type=None)
        if response.status != 201:
            book.refused.append(response.status)
            return None
        book.created[told["package"]["package_id"]] = told
        return told


async def _redeem(session: aiohttp.ClientSession, created: Any, book: Book) -> Any:
    key = nats_key()
    async with session.post(REDEEM, json={"token": created["token"], "nats_public_key": key}) as response:
        body = await response.read()
        if response.status != 200:
            book.refused.append(response.status)
            return None
        book.redeemed[created["package"]["package_id"]] = (key, body)
        return await response.json()
