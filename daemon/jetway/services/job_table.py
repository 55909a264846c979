"""The table of jobs: which there are, how often they come, and which service each of them calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from jetway.core.rows import CountSample
from jetway.ports import Clock, RegistryDatabase
from jetway.services.cascade import Cascades
from jetway.services.checkpoints import Checkpoints
from jetway.services.index import Index
from jetway.services.jobs import JobReport, JobSpec
from jetway.services.purge import Purger
from jetway.services.reconcile import Reconciler
from jetway.services.row_writer import RowWriter
from jetway.services.sweep import Sweeper, Swept
from jetway.settings import Settings

_SAMPLE_MINUTES = 5
_NAMED = 20
_ERRORS = 5
_SOON = timedelta(seconds=60)
"""Not before the projections have caught up with what a restart left to be done."""


def sweep_jobs(sweeper: Sweeper) -> Sequence[JobSpec]:
    """What happens to services because time passed."""
    return (
        JobSpec(
            name="expire-packages",
            description="Marks packages expired whose token was not redeemed in time.",
            every=timedelta(seconds=30),
            run=_swept(sweeper.expire_packages),
            at_once=True,
        ),
        JobSpec(
            name="mark-inactive",
            description="Marks services inactive that have been silent for lifecycle.inactive_after.",
            every=timedelta(minutes=5),
            run=_swept(sweeper.mark_inactive),
            first_after=_SOON,
        ),
        JobSpec(
            name="expire-pending",
            description="Ends pending services that were not activated in lifecycle.pending_expires_after.",
            every=timedelta(hours=1),
            run=_swept(sweeper.expire_pending),
            first_after=_SOON,
        ),
        JobSpec(
            name="archive",
            description="Ends the rights of services that have been inactive for lifecycle.archive_after.",
            every=timedelta(days=7),
            run=_swept(sweeper.archive),
            first_after=_SOON,
        ),
    )


def retention_jobs(
    purger: Purger, database: RegistryDatabase, clock: Clock, settings: Settings
) -> Sequence[JobSpec]:
    """What is forgotten, and when."""

    async def purge(dry_run: bool) -> JobReport:
        swept = await purger.run(dry_run=dry_run)
        return JobReport(counts={"due": swept.due, "purged": swept.changed}, names=swept.names)

    async def trim_audit(dry_run: bool) -> JobReport:
        before = clock.now() - settings.lifecycle.audit_kept
        events = await database.trim_events(before, dry_run=dry_run)
        samples = await database.trim_counts(before, dry_run=dry_run)
        return JobReport(counts={"events": events, "samples": samples})

    return (
        JobSpec(
            name="purge",
            description="Archives and forgets services deleted or revoked longer ago than they are kept.",
            every=timedelta(days=1),
            run=purge,
            first_after=_SOON,
        ),
        JobSpec(
            name="trim-audit",
            description="Forgets audit events and samples in the database older than lifecycle.audit_kept.",
            every=timedelta(days=1),
            run=trim_audit,
            first_after=_SOON,
        ),
    )


def sample_job(index: Index, database: RegistryDatabase, clock: Clock) -> JobSpec:
    """What charts over time are drawn from."""

    async def sample(dry_run: bool) -> JobReport:
        now = clock.now()
        # On the grid, so that samples of several daemons and of every hour's first minute fall together.
        at = now.replace(minute=now.minute - now.minute % _SAMPLE_MINUTES, second=0, microsecond=0)
        counts: Counter[tuple[str, str]] = Counter()
        for (kind, status, *_), count in index.tally.items():
            counts[kind.value, status.value] += count
        samples = [CountSample(at, kind, status, count) for (kind, status), count in sorted(counts.items())]
        if not dry_run:
            await database.append_counts(samples)
        return JobReport(counts={"samples": len(samples)})

    return JobSpec(
        name="sample-counts",
        description="Keeps how many services there are by type and status, for charts over time.",
        every=timedelta(minutes=_SAMPLE_MINUTES),
        run=sample,
        at_once=True,
    )


def audit_jobs(checkpoints: Checkpoints) -> Sequence[JobSpec]:
    """What makes tampering with the audit trail show."""

    async def checkpoint(dry_run: bool) -> JobReport:
        if dry_run:
            return JobReport(counts={"entries": await checkpoints.count()})
        made = await checkpoints.make()
        return JobReport(counts={"entries": made.entries, "records": made.records} if made else {})

    return (
        JobSpec(
            name="checkpoint",
            description="Signs what the audit trail and the ledger hold, for `jetway audit verify`.",
            every=timedelta(days=1),
            run=checkpoint,
            first_after=_SOON,
        ),
    )


def upkeep_jobs(
    cascades: Cascades, rows: RowWriter, reconciler: Reconciler, settings: Settings
) -> Sequence[JobSpec]:
    """What keeps everything that is derived in step with the ledger."""

    async def finish_cascades(dry_run: bool) -> JobReport:
        if dry_run:
            unfinished = cascades.unfinished()
            return JobReport(counts={"due": len(unfinished)}, names=tuple(map(str, unfinished[:_NAMED])))
        return JobReport(counts={"finished": await cascades.resume()})

    async def flush_last_seen(dry_run: bool) -> JobReport:
        if dry_run:
            return JobReport(counts={"rows": rows.behind})
        return JobReport(counts={"rows": await rows.flush_presence()})

    async def reconcile(dry_run: bool) -> JobReport:
        if dry_run:
            found = await reconciler.rehearse()
            return JobReport(
                counts={"checked": found.checked} | {drift.value: n for drift, n in found.counts.items()},
                names=tuple(found.named[:_NAMED]),
                error="; ".join(found.errors[:_ERRORS]),
            )
        report = await reconciler.run()
        return JobReport(
            counts={
                "checked": report.checked,
                "documents_mended": report.documents_mended,
                "rows_mended": report.rows_mended,
                "gaps_open": report.gaps_open,
            },
            error="; ".join(report.errors[:_ERRORS]),
        )

    return (
        JobSpec(
            name="finish-cascades",
            description="Finishes revocations beneath a service that a crash or an outage cut off.",
            every=timedelta(seconds=15),
            run=finish_cascades,
            at_once=True,
        ),
        JobSpec(
            name="flush-last-seen",
            description="Writes when services were last heard into the database.",
            every=settings.heartbeat.flush_interval,
            run=flush_last_seen,
        ),
        JobSpec(
            name="reconcile",
            description="Compares documents, rows and the audit trail with the ledger and mends what differs.",
            every=settings.lifecycle.reconcile_interval,
            run=reconcile,
            first_after=_SOON,
        ),
    )


def _swept(sweep: Callable[[bool], Awaitable[Swept]]) -> Callable[[bool], Awaitable[JobReport]]:
    async def run(dry_run: bool) -> JobReport:
        swept = await sweep(dry_run)
        return JobReport(counts={"due": swept.due, "changed": swept.changed}, names=swept.names)

    return run
