"""Many services at once, written straight into the ledger as the daemon would write them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import nats

from jetway.core import commands as c
from jetway.core.ids import Lineage, ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import ServiceRecord, encode_record

_AT_ONCE = 256
_EPOCH = 1
"""Before every epoch of a daemon, so that whatever it writes is newer."""
_AGENTS_PER_POLLER = 100


def record_of(lineage: Lineage) -> ServiceRecord:
    """The first version of a service of source `config`."""
    spec = c.ServiceSpec(
        service_type=lineage.service_type,
        service_id=lineage.service_id,
        label=f"Bench {lineage.service_id}",
        parent_id=lineage.parent_id,
        poller_id=lineage.poller_id,
        site=lineage.poller_id,
        labels={"rack": "12", "row": "7"},
        metadata={"owner": "netops"},
    )
    context = c.Context(now=datetime.now(UTC), actor="bench", transition_id=lineage.service_id, epoch=_EPOCH)
    made = step(None, c.Register(spec=spec), context)
    assert isinstance(made, ServiceRecord)
    return made


def lineages(count: int) -> list[Lineage]:
    """Pollers with a hundred agents each, `count` services in all, parents first."""
    found: list[Lineage] = []
    number = 0
    while len(found) < count:
        poller = f"p{number}"
        found.append(Lineage(ServiceType.POLLER, poller))
        found += [Lineage(ServiceType.AGENT, poller, f"a{number}-{i}") for i in range(_AGENTS_PER_POLLER)]
        number += 1
    return found[:count]


async def seed_services(url: str, count: int, skip: int = 0) -> list[str]:
    """Register `count` services, the first `skip` of which are there already; the new ones' subjects."""
    link = await nats.connect(url)
    gate = asyncio.Semaphore(_AT_ONCE)
    wanted = lineages(count)[skip:]

    async def write(lineage: Lineage) -> None:
        async with gate:
            await link.jetstream().publish(f"$KV.registry.{lineage.key}", encode_record(record_of(lineage)))

    for start in range(0, len(wanted), 5000):
        await asyncio.gather(*map(write, wanted[start : start + 5000]))
    await link.close()
    return [lineage.subject("edge.heartbeat") for lineage in wanted]
