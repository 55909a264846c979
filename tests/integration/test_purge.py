"""Purging on a real NATS server with a real database: what is left of a service, and what its id can be again."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path

from jetway.core.record import ServiceStatus
from jetway.services.catalogue import EventFilter
from jetway.services.issue import NewPackageRequest
from support.builders import AGENT, CHECKER, POLLER
from support.house import ALICE, new_service
from support.real_house import real_house


async def test_a_purged_tree_is_gone_and_can_be_made_anew(tmp_path: Path) -> None:
    async with real_house(tmp_path) as real:
        house = real.house
        for key in (POLLER, AGENT, CHECKER):
            await house.issuer.create(
                ALICE, NewPackageRequest(service=new_service(key)), None, body_sha256=""
            )
        await house.administrator.override(
            ALICE, POLLER, ServiceStatus.REVOKED, reason="stolen", cascade=True
        )
        await real.settle()

        swept = await house.purger.run(older_than=timedelta(), caller=ALICE)
        await real.settle()

        assert (swept.due, swept.changed) == (3, 3)
        assert not house.index.records
        archived = [
            json.loads(line)["service_id"]
            for path in (tmp_path / "archive").glob("*.jsonl.gz")
            for line in gzip.decompress(path.read_bytes()).splitlines()
        ]
        assert sorted(archived) == ["a1", "c1", "p1"]
        trail = await house.catalogue.events(EventFilter(types=["purged"]))
        assert sorted(event.service_id for event in trail.items) == ["a1", "c1", "p1"]

        await real.activate_tree()
        report = await house.reconciler.run()
        assert (report.findings, report.errors, report.gaps_open) == ((), (), 0)
        revisions = {key: record.revision for key, record in house.index.records.items()}
        assert revisions == {POLLER: 3, AGENT: 3, CHECKER: 3}
