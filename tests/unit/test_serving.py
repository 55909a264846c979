"""SIGHUP: reloads come one after the other, and none is forgotten."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from jetway.serving import Reloads


class Certificates:
    """Takes a while to reload."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def reload(self) -> None:
        self.begun += 1
        self.at_once += 1
        assert self.at_once == 1
        try:
            await self.go_on.wait()
            if self.error:
                raise self.error
        finally:
            self.at_once -= 1


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_signals_that_come_meanwhile_make_one_more() -> None:
    certificates = Certificates()
    reloads = Reloads(certificates.reload)
    reloads.ask()
    await settle()
    for _ in range(5):
        reloads.ask()
    assert certificates.begun == 1
    certificates.go_on.set()
    await settle()
    assert certificates.begun == 2
    reloads.ask()
    await settle()
    assert certificates.begun == 3
    await reloads.stop()


async def test_one_that_fails_is_told_and_the_next_one_comes() -> None:
    certificates = Certificates()
    certificates.go_on.set()
    certificates.error = RuntimeError("no")
    reloads = Reloads(certificates.reload)
    with capture_logs() as logs:
        reloads.ask()
        await settle()
    assert [line["action"] for line in logs] == ["reload_failed"]
    reloads.ask()
    await settle()
    assert certificates.begun == 2
    await reloads.stop()


async def test_stopping_gives_up_what_is_under_way() -> None:
    certificates = Certificates()
    reloads = Reloads(certificates.reload)
    await reloads.stop()
    reloads.ask()
    await settle()
    await reloads.stop()
    assert certificates.at_once == 0
