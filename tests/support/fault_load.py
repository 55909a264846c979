"""A light load on a daemon, whatever happens to it, and a book of what was acknowledged and said."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from nats.aio.client import Client
from nats.errors import Error as NatsError

from support.daemon import PACKAGES, REDEEM, SERVICES, Daemon, fresh, nats_key

WHOLE_SECONDS = 90.0
"""A generous bound for a shared machine, not an aim: the document has what was seen."""
INTERVAL_SECONDS = 2
"""The steady services' interval: late after 4 s, offline after 6 s without a heartbeat."""
LATE_SECONDS = 2 * INTERVAL_SECONDS
BEAT_SECONDS = 0.25
_CREATORS = 2
_PAUSE_SECONDS = 0.15
_CUT_OFF = (aiohttp.ClientError, TimeoutError, OSError)
_TIMEOUT = aiohttp.ClientTimeout(total=45)


@dataclass(frozen=True, slots=True)
class Said:
    """What was answered to a call made at `at`."""

    at: float
    took: float
    what: str


@dataclass(slots=True)
class Book:
    """What was acknowledged, and what was said to whoever asked."""

    created: dict[str, Any] = field(default_factory=dict)
    """Package id → the answer to its creation."""
    redeemed: set[str] = field(default_factory=set)
    creates: list[Said] = field(default_factory=list)
    reads: list[Said] = field(default_factory=list)
    readyz: list[Said] = field(default_factory=list)
    healthz: list[Said] = field(default_factory=list)
    judged: list[Said] = field(default_factory=list)
    """Each time a steady service was called anything but online."""
    held_up: list[Said] = field(default_factory=list)
    """When and for how long the machine kept the sender of heartbeats from its work: what is over a tenth."""
    rss_kb: int = 0
    beats: int = 0


class Load:
    """Creates, redeems and beats, and asks how the daemon is, until it is stopped, whatever happens to it."""

    def __init__(self, daemon: Daemon, nats_url: str = "") -> None:
        self.daemon = daemon
        self.book = Book()
        self.beating = True
        """Whether the steady services beat."""
        self._nats_url = nats_url
        self._poller = fresh("p")
        self._steady: list[tuple[str, str]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def steady_path(self) -> str:
        """Where the API shows a service that beats all the time."""
        return self._steady[0][0]

    async def start(self) -> None:
        await self._begin_steady()
        work = [self._create_forever() for _ in range(_CREATORS)]
        work += [self._beat_apart(), self._ask_forever(), self._weigh_forever()]
        self._tasks = [asyncio.create_task(each) for each in work]

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        going = set(tasks)
        while going:
            for task in going:
                task.cancel()  # again where it got lost: Python 3.11's wait_for may take it for its own end
            _, going = await asyncio.wait(going, timeout=1)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def under_way(self, count: int = 5) -> None:
        """Return when so many more were created and redeemed, and heartbeats are sent."""
        redeemed, beats = len(self.book.redeemed), self.book.beats
        await until(lambda: len(self.book.redeemed) >= redeemed + count and self.book.beats > beats)

    async def _begin_steady(self) -> None:
        """A poller and an agent that beat all the time."""
        daemon, agent = self.daemon, fresh("steady")
        for kind, own, parent in (("poller", self._poller, ""), ("agent", agent, self._poller)):
            made = await asyncio.to_thread(
                daemon.create, kind, own, parent, heartbeat_interval_seconds=INTERVAL_SECONDS
            )
            answer = (await asyncio.to_thread(daemon.redeem, made["token"])).json
            self.book.created[made["package"]["package_id"]] = made
            self.book.redeemed.add(made["package"]["package_id"])
            self._steady.append((f"{SERVICES}/{kind}s/{own}", answer["heartbeat"]["subject"]))

    async def _create_forever(self) -> None:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                body = {"component_type": "agent", "label": fresh("a"), "parent_id": self._poller}
                headers = self._bearer() | {"Idempotency-Key": uuid.uuid4().hex}
                made = await self._insist(session, PACKAGES, body, headers, 201, self.book.creates)
                assert made["package"]["package_id"] not in self.book.created
                self.book.created[made["package"]["package_id"]] = made
                redeem = {"token": made["token"], "nats_public_key": nats_key()}
                await self._insist(session, REDEEM, redeem, {}, 200, [])
                self.book.redeemed.add(made["package"]["package_id"])
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _insist(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
        wanted: int,
        said: list[Said],
    ) -> Any:
        """Repeat the call until it succeeds, as a client does that got no answer or 503."""
        while True:
            began = time.monotonic()
            status, answer = 0, None
            with contextlib.suppress(*_CUT_OFF):
                async with session.post(self.daemon.url + path, json=body, headers=headers) as response:
                    answer = await response.json(content_type=None)
                    status = response.status
            assert status in (0, wanted, 503), (status, answer)
            said.append(Said(began, time.monotonic() - began, _words_of_create(status, answer)))
            if status == wanted:
                return answer
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _beat_apart(self) -> None:
        """Beat in a thread of its own: whatever keeps this one busy delays no heartbeat."""
        ended = threading.Event()
        beating = asyncio.create_task(asyncio.to_thread(asyncio.run, self._beat_until(ended)))
        try:
            await asyncio.shield(beating)
        finally:
            ended.set()
            while not beating.done():
                with contextlib.suppress(asyncio.CancelledError):  # asked again: it is under way
                    await asyncio.wait({beating}, timeout=0.1)

    async def _beat_until(self, ended: threading.Event) -> None:
        beating = asyncio.create_task(self._beat_forever())
        while not ended.is_set() and not beating.done():
            began = time.monotonic()
            await asyncio.sleep(0.05)
            if (late := time.monotonic() - began - 0.05) > 0.1:
                self.book.held_up.append(Said(began, late, "held up"))
        while not beating.done():
            beating.cancel()  # again where it got lost, as above
            await asyncio.wait({beating}, timeout=1)
        if not beating.cancelled():
            beating.result()

    async def _beat_forever(self) -> None:
        """Edge hosts beat on, and connect again by themselves."""
        while True:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                async with client_of(self._nats_url or self.daemon.nats_url, patience=2) as client:
                    while client.is_connected:
                        if self.beating:
                            for _, subject in self._steady:
                                await client.publish(subject, b'{"healthy": true}')
                            await client.flush(timeout=3)
                            self.book.beats += 1
                        await asyncio.sleep(BEAT_SECONDS)
            await asyncio.sleep(0.1)

    async def _ask_forever(self) -> None:
        book = self.book
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, asyncio.TaskGroup() as group:
            group.create_task(self._ask(session, "/readyz", book.readyz, _words_of_readyz))
            group.create_task(self._ask(session, "/healthz", book.healthz, lambda status, _: str(status)))
            for path, _ in self._steady:
                group.create_task(self._ask(session, path, book.reads, self._judge))

    async def _ask(
        self, session: aiohttp.ClientSession, path: str, said: list[Said], words: Callable[[int, Any], str]
    ) -> None:
        while True:
            began = time.monotonic()
            what = "no answer"
            with contextlib.suppress(*_CUT_OFF):
                async with session.get(self.daemon.url + path, headers=self._bearer()) as response:
                    what = words(response.status, await response.json(content_type=None))
            said.append(Said(began, time.monotonic() - began, what))
            await asyncio.sleep(0.1)

    def _judge(self, status: int, body: Any) -> str:
        if status == 200 and body["liveness"] in ("late", "offline"):
            self.book.judged.append(Said(time.monotonic(), 0, body["liveness"]))
        return str(status)

    async def _weigh_forever(self) -> None:
        while True:
            self.book.rss_kb = max(self.book.rss_kb, rss_kb(self.daemon))
            await asyncio.sleep(0.2)

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.daemon.token}"}


def _words_of_create(status: int, answer: Any) -> str:
    if status == 0:
        return "no answer"
    if status == 201:
        waiting = [part for part, state in answer["projection"].items() if state == "queued"]
        return "201" + (f", {' and '.join(waiting)} queued" if waiting else "")
    return f"{status} `{answer.get('code', '')}`"


def _words_of_readyz(status: int, body: Any) -> str:
    parts = {name: part["state"] for name, part in body.get("components", {}).items()}
    worst = "down" if "down" in parts.values() else "degraded"
    unwell = ", ".join(sorted(name for name, state in parts.items() if state == worst))
    return f"{status} {body['status']}" + (f" ({unwell})" if unwell else "")


def rss_kb(daemon: Daemon) -> int:
    """The daemon's resident memory; 0 while there is none."""
    if daemon.process is None:
        return 0
    try:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)


@asynccontextmanager
async def client_of(url: str, patience: int = 30) -> AsyncIterator[Any]:
    client = Client()
    try:
        # nats-py waits two seconds after a refusal, though it is not to try again.
        await client.connect(
            url,
            connect_timeout=patience,
            allow_reconnect=False,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]
            error_cb=_ignore,
        )
        yield client
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await client.close()
        if client._transport is not None:  # the library forgets it where the server says nothing
            client._transport.close()


async def _ignore(_: Exception) -> None:
    """A client that is cut off has nothing to add."""


async def until(holds: Callable[[], bool], patience: float = WHOLE_SECONDS) -> None:
    """Wait until something is seen."""
    async with asyncio.timeout(patience):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.02)
