"""A parent whose document outgrows what a real NATS server takes in a message: the others are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceStatus
from support.house import ALICE
from support.real_house import real_house

SECONDS = 60


async def test_a_document_larger_than_the_server_takes_keeps_nobody_else_back(tmp_path: Path) -> None:
    async with real_house(tmp_path, max_payload="8KB") as real, asyncio.timeout(SECONDS):
        await real.activate_tree()
        names = [f"{'a' * 55}{number:03}" for number in range(100)]
        for name in names:
            await real.create_agent(name)
        key = ServiceKey(ServiceType.AGENT, names[3])
        await real.house.administrator.override(ALICE, key, ServiceStatus.REVOKED, reason="stolen")
        await real.settle()
        state = await real.house.document_reader.read(key)
        assert state is not None
        assert state.document is not None
        assert state.document["status"] == "revoked"
        assert [refused.name for refused in real.house.documents_aside.all()] == ["poller.p1"]
        assert await real.house.projections.documents.lag() == 0
