"""Ending what runs on an edge host, whatever a library does with the request."""

from __future__ import annotations

import asyncio

from jetway.edge import session


async def test_a_task_that_swallows_its_first_cancellation_is_ended() -> None:
    """As Python 3.11's wait_for does where its future ends in the same turn."""
    swallowed = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(600)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await session.cancel_all(task)
    assert swallowed.is_set()
    assert task.cancelled()


async def test_nothing_to_end_is_ended_at_once() -> None:
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await session.cancel_all(done)
    await session.cancel_all()
