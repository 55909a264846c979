"""Faults on real servers: what is said meanwhile, how long until all is whole again, and what is lost.

A test makes a fault happen within `with case.fault()` and then asks the case. With JETWAY_TEST_RECORD=<file> every
case adds a row to that file; `failure_modes.py` makes the document of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import require_program
from support.daemon import Daemon
from support.daemon_state import eventually_async, require_all_equal
from support.fault_load import LATE_SECONDS, WHOLE_SECONDS, Book, Load, Said, client_of, until

LONG = os.environ.get("JETWAY_TEST_LONG", "") not in ("", "0")
"""Whether faults last as long as they do in life; else just long enough."""
RSS_LIMIT_MB = 256
"""No fault may make the daemon larger; a fresh one has about 80 MB."""
_LOG_BYTES_PER_SECOND = 64 * 1024


def lasting(short: float, long: float) -> float:
    """How many seconds a fault lasts in this run."""
    return long if LONG else short


class Case:
    """One fault: the load around it, and its row of the document."""

    def __init__(self, name: str, load: Load) -> None:
        self.name = name
        self.load = load
        self.began = self.ended = 0.0
        self.whole_after = ""
        self._started = time.monotonic()
        self._log_began = len(load.daemon.log_text())

    @property
    def daemon(self) -> Daemon:
        return self.load.daemon

    @property
    def book(self) -> Book:
        return self.load.book

    @contextmanager
    def fault(self) -> Iterator[None]:
        """The fault lasts as long as the block."""
        self.began = time.monotonic()
        yield
        self.ended = time.monotonic()

    def meanwhile(self, said: list[Said]) -> list[Said]:
        """What was asked while the fault lasted, or so far."""
        ended = self.ended or time.monotonic()
        return [each for each in said if self.began <= each.at <= ended]

    def said(self, said: list[Said], words: str) -> bool:
        """Whether it was answered so while the fault lasted; `words` is how the answer begins."""
        return any(each.what.startswith(words) for each in self.meanwhile(said))

    async def until_felt(self) -> None:
        """Wait until a creation within the fault is answered otherwise than in good times."""
        await until(lambda: any(each.what != "201" for each in self.meanwhile(self.book.creates)))

    async def until_said(self, said: list[Said], words: str) -> None:
        """Wait until it is answered so within the fault: a machine that is busy may be slow to notice."""
        await until(lambda: self.said(said, words))

    async def whole(self) -> None:
        """Wait until all is well without a hand, and note how long that took; then end the load."""

        # A comparison that fell into the fault says so until the next one, some minutes later.
        well = ("200 ok", "200 degraded (reconcile)")

        def first(said: list[Said], *what: str) -> Said | None:
            return next((each for each in said if each.at > self.ended and each.what in what), None)

        await until(lambda: bool(first(self.book.readyz, *well) and first(self.book.creates, "201")))
        both = (first(self.book.readyz, *well), first(self.book.creates, "201"))
        self.whole_after = f"{max(each.at + each.took for each in both if each) - self.ended:.1f} s"
        await self.load.under_way()
        await self.load.stop()

    async def nothing_lost(self, nats_url: str = "", *, trail: bool = True) -> None:
        """Everything acknowledged is there, and everything derived says what the ledger says, once."""

        async def equal() -> Any:
            async with client_of(nats_url or self.daemon.nats_url) as client:
                return await require_all_equal(self.daemon, client, trail=trail)

        records = await eventually_async(equal, WHOLE_SECONDS)
        by_package = {record["package"]["package_id"]: record for record in records.values()}
        assert set(self.book.created) <= set(by_package)
        for package_id, made in self.book.created.items():
            assert by_package[package_id]["service_id"] == made["service"]["service_id"]
        delivered = {by_package[each]["package"]["status"] for each in self.book.redeemed}
        assert delivered <= {"delivered", "activated"}

    async def reconcile(self) -> None:
        """What the daemon does by itself every hour: compare all that is derived with the ledger."""

        async def compared() -> None:  # 409 while it does so by itself, as a minute after its start
            answer = await asyncio.to_thread(self.daemon.call, "POST", "/api/admin/reconcile")
            assert answer.status == 200, answer.body

        await eventually_async(compared, WHOLE_SECONDS)

    def bounded(self) -> None:
        """It neither grew nor talked without end."""
        assert self.book.rss_kb < RSS_LIMIT_MB * 1024
        written = len(self.daemon.log_text()) - self._log_began
        assert written < _LOG_BYTES_PER_SECOND * (time.monotonic() - self._started) + 256 * 1024

    def nobody_judged(self) -> None:
        """No steady service was called late or offline, though the daemon could not hear it.

        A sender that the machine itself kept from sending was silent indeed: then there is nothing to say.
        """
        held_up = [each for each in self.book.held_up if each.took >= LATE_SECONDS / 2]
        if held_up:
            print(f"the sender was held up: {held_up}")
        wrong = [
            each
            for each in self.book.judged
            if not any(0 <= each.at - one.at <= one.took + LATE_SECONDS for one in held_up)
        ]
        assert not wrong, wrong[:3]

    def note(self, *, heartbeats: str, lost: str = "", after: str = "", remark: str = "") -> None:
        """Write the row, if this run is recorded. The texts given here are what the test has checked."""
        book = self.book
        record(
            {
                "fault": self.name,
                "lasted": round(self.ended - self.began, 1),
                "creates": _summary(self.meanwhile(book.creates)),
                "reads": _summary(self.meanwhile(book.reads)),
                "heartbeats": heartbeats,
                "readyz": _summary(self.meanwhile(book.readyz)),
                "healthz": _summary(self.meanwhile(book.healthz)),
                "whole_after": after or self.whole_after,
                "lost": lost or f"nothing of {len(book.created)}",
                "rss_mb": round(book.rss_kb / 1024),
                "remark": remark,
            }
        )


def record(row: dict[str, Any]) -> None:
    """Add a row to the file that JETWAY_TEST_RECORD names."""
    file = os.environ.get("JETWAY_TEST_RECORD")
    if not file:
        return
    path = Path(file)
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [each for each in rows if each["fault"] != row["fault"]] + [row]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def refusal(fault: str, daemon: Daemon, remark: str = "") -> str:
    """Start a daemon that must refuse; what it said. A row, if this run is recorded."""
    assert daemon.process is None or daemon.process.poll() is not None
    began = len(daemon.log_text())
    with contextlib.suppress(RuntimeError):
        daemon.start()
        raise AssertionError("the daemon started")
    assert daemon.process is not None
    assert daemon.process.returncode == 1
    said = daemon.log_text()[began:]
    assert "Traceback" not in said, said
    sentence = said.strip().splitlines()[-1]
    record({"fault": fault, "refused": sentence, "remark": remark})
    return sentence


def _summary(said: list[Said]) -> list[dict[str, Any]]:
    """Each different answer, the most frequent first: how often, and how long the slowest took."""
    counts = Counter(each.what for each in said)
    slowest = {what: max(each.took for each in said if each.what == what) for what in counts}
    return [
        {"what": what, "count": n, "slowest": round(slowest[what], 1)} for what, n in counts.most_common()
    ]


@asynccontextmanager
async def case(name: str, daemon: Daemon, nats_url: str = "") -> AsyncIterator[Case]:
    """A load on a daemon that serves, well under way."""
    load = Load(daemon, nats_url)
    try:
        await load.start()
        made = Case(name, load)
        await load.under_way()
        yield made
    finally:
        await load.stop()


# --- what the machine is asked for


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own that is so small, gone with the block; the test is skipped where none may be."""
    require_tmpfs()
    folder.mkdir(parents=True)
    options = f"size={megabytes}m,mode=0700"
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


def remount(folder: Path, option: str) -> None:
    """Make it read-only (`ro`) or not (`rw`)."""
    _run("mount", "-o", f"remount,{option}", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def require_tmpfs() -> None:
    """Skip the test where none can be mounted. That is a right that CI may lack as well; the tools it has."""
    command = [require_program("unshare"), "--mount", require_program("mount")]
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root, and nobody has to be that, nor CI")
    done = subprocess.run([*command, "-t", "tmpfs", "probe", "/mnt"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this machine does not let root mount a tmpfs, nor does many a container that CI is in")


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[None]:
    """No room is left in a small file system within the block, whatever is given back meanwhile."""
    filler = folder / "filler"

    async def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while True:
                with contextlib.suppress(OSError):
                    while file.write(bytes(4096)) == 4096:
                        pass
                await asyncio.sleep(0.02)

    task = asyncio.create_task(fill())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        filler.unlink()
