"""Every job of the table: how something comes to be due, and how it shows that it was done once and whole."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, ClassVar

from jetway.core import commands as c
from jetway.core.ids import ServiceKey
from jetway.core.record import Cascade, EventType, PackageStatus, ServiceStatus
from jetway.core.rows import CountSample
from jetway.services.audit import AuditVerifier
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.house import ALICE, House
from support.invariants import histories

DAY = timedelta(days=1)
TREE = (POLLER, AGENT, CHECKER)


class JobCase:
    """One job. An object is one telling of its story: it may remember what it did."""

    name: ClassVar[str]
    due_after: ClassVar[timedelta] = timedelta()
    """How long until what was prepared is due; nothing: it is due at once, and at every run."""
    settings: ClassVar[dict[str, Any]] = {}
    trims: ClassVar[bool] = False
    """Whether it takes away what the ledger still tells of."""

    async def prepare(self, house: House) -> None:
        """Something to do. Nothing is due yet, unless it is due at once."""
        raise NotImplementedError

    async def tell_other(self, other: House) -> None:
        """What a second daemon hears as well."""

    async def after_a_crash(self, house: House) -> None:
        """What happens by itself in a fleet, once a daemon is up again."""

    async def done(self, house: House) -> bool:
        """Whether it is done, and once."""
        raise NotImplementedError


def once(house: House, key: ServiceKey, event: EventType) -> bool:
    """Whether that happened to the service exactly once."""
    happened = [e for record in histories(house)[key] for e in record.transition.events]
    return happened.count(event) == 1


def all_once(house: House, status: ServiceStatus, event: EventType) -> bool:
    return all(house.record(key).status is status and once(house, key, event) for key in TREE)


class ExpirePackages(JobCase):
    name = "expire-packages"
    due_after = DAY

    async def prepare(self, house: House) -> None:
        for key in TREE:
            await house.create(key)

    async def done(self, house: House) -> bool:
        packages = [house.record(key).package for key in TREE]
        expired = all(package and package.status is PackageStatus.EXPIRED for package in packages)
        return expired and all(once(house, key, EventType.EXPIRED) for key in TREE)


class MarkInactive(JobCase):
    name = "mark-inactive"
    due_after = DAY

    async def prepare(self, house: House) -> None:
        await house.activate_tree()

    async def done(self, house: House) -> bool:
        return all_once(house, ServiceStatus.INACTIVE, EventType.DEACTIVATED)


class ExpirePending(JobCase):
    name = "expire-pending"
    due_after = timedelta(days=30)

    async def prepare(self, house: House) -> None:
        for key in TREE:
            await house.create(key)

    async def done(self, house: House) -> bool:
        return all_once(house, ServiceStatus.REVOKED, EventType.PENDING_EXPIRED)


class Archive(JobCase):
    name = "archive"
    due_after = timedelta(days=90)

    async def prepare(self, house: House) -> None:
        await house.activate_tree()
        house.clock.advance(DAY + timedelta(seconds=1))
        await house.jobs.run("mark-inactive")

    async def done(self, house: House) -> bool:
        return all_once(house, ServiceStatus.REVOKED, EventType.ARCHIVED)


class Purge(JobCase):
    name = "purge"
    due_after = timedelta(days=90)
    _times = 1

    async def prepare(self, house: House) -> None:
        for key in TREE:
            await house.create(key)
        await house.revoke(POLLER)

    async def after_a_crash(self, house: House) -> None:
        self._times = 2  # told and archived before it was done: at the worst that happens once more

    async def done(self, house: House) -> bool:
        told = Counter(event.service_id for event in house.events("purged"))
        archived = {record.key for records in house.archive.files.values() for record in records}
        gone = all(house.status(key) == "-" and house.row(key) is None for key in TREE)
        assert max(told.values(), default=0) <= self._times
        return gone and archived == set(TREE) and set(told) == {key.service_id for key in TREE}


class Checkpoint(JobCase):
    name = "checkpoint"
    settings: ClassVar[dict[str, Any]] = {"checkpoints": True}

    async def prepare(self, house: House) -> None:
        await house.create(POLLER)

    async def done(self, house: House) -> bool:
        """Whoever verifies finds nothing."""
        long_ago = house.clock.now() - timedelta(days=365)
        verified = await AuditVerifier(
            house.trail_reader, house.signer, house.shelf.kept, long_ago, settle_seconds=0
        ).run()
        assert not verified.findings
        return verified.checkpoints > 0 and bool(house.shelf.kept)


class TrimAudit(JobCase):
    name = "trim-audit"
    due_after = timedelta(days=90)
    trims = True

    async def prepare(self, house: House) -> None:
        await house.create(POLLER)
        await house.settle()
        self._old = house.clock.now()
        await house.database.append_counts([CountSample(self._old, "poller", "pending", 1)])

    async def done(self, house: House) -> bool:
        left = [event.timestamp for event in house.database.events.values()]
        return self._old not in left and not house.database.counts


class SampleCounts(JobCase):
    name = "sample-counts"

    async def prepare(self, house: House) -> None:
        await house.create(POLLER)
        await house.settle()
        house.clock.advance(timedelta(minutes=7))

    async def done(self, house: House) -> bool:
        now = house.clock.now()
        at = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
        taken = [sample for sample in house.database.counts.values() if sample.sampled_at == at]
        return taken == [CountSample(at, "poller", "pending", 1)]


class FinishCascades(JobCase):
    name = "finish-cascades"

    async def prepare(self, house: House) -> None:
        for key in TREE:
            await house.create(key)
        await house.recorder.attempt(POLLER, c.Revoke(reason="stolen"), ALICE)
        await house.settle()

    async def done(self, house: House) -> bool:
        at_rest = all(house.record(key).cascade is Cascade.NONE for key in TREE)
        return at_rest and all_once(house, ServiceStatus.REVOKED, EventType.REVOKED)


class FlushLastSeen(JobCase):
    name = "flush-last-seen"

    async def prepare(self, house: House) -> None:
        await house.activate(POLLER)
        await house.jobs.run(self.name)
        await self._hear(house)

    async def tell_other(self, other: House) -> None:
        await other.beat(LINEAGES[POLLER.service_type])

    async def after_a_crash(self, house: House) -> None:
        await self._hear(house)

    async def _hear(self, house: House) -> None:
        house.clock.advance(30)
        await house.beat(LINEAGES[POLLER.service_type])
        self._heard: datetime = house.clock.now()

    async def done(self, house: House) -> bool:
        row = house.row(POLLER)
        assert row is not None
        assert row.status == "active"
        return row.last_seen == self._heard


class Reconcile(JobCase):
    name = "reconcile"

    async def prepare(self, house: House) -> None:
        for key in TREE:
            await house.create(key)
        await house.settle()
        await house.database.remove_rows([AGENT])
        path = next(iter(house.documents.documents))
        stored = await house.documents.read(path)
        await house.documents.write(path, b"{}", stored.sequence)
        self._damaged = path

    async def done(self, house: House) -> bool:
        stored = house.documents.documents[self._damaged]
        return house.row(AGENT) is not None and stored.data not in (b"{}", None)


CASES: dict[str, type[JobCase]] = {case.name: case for case in JobCase.__subclasses__()}
"""By the job's name."""

__all__ = ["CASES", "JobCase"]
