"""What one pass over all services tells: how long they are silent, what is stuck, what expires soon.

Made when metrics are asked for, in the thread that prints them, and kept for some seconds: nothing of it runs on
the event loop, and a second scraper costs nothing.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric

from jetway.core.identity import Identity
from jetway.core.ids import ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, ServiceRecord, ServiceStatus
from jetway.ports import Clock
from jetway.services.index import Index
from jetway.services.presence import PresenceTable

AGE_BOUNDS = (15.0, 30.0, 60.0, 90.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
"""Upper bounds of the histogram of heartbeat ages, in seconds."""
EXPIRY_WARNING = timedelta(days=7)
_KEPT_SECONDS = 5.0
_SLICE = 500
_BREATH_SECONDS = 0.001
"""Between slices: the event loop wants the interpreter as well, and gets it at once."""
_EXPIRING = ("certificate", "nats")


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusTerms:
    """What is told of services, and what counts as too long."""

    per_service: bool = False
    """Whether each service has a series of its own."""
    per_service_limit: int = 1000
    stuck_after: timedelta = timedelta(hours=24)
    """A service that is pending for longer is stuck."""
    certificate_lifetime: timedelta = timedelta(days=30)
    credentials_lifetime: timedelta = timedelta(days=30)


@dataclass(slots=True)
class _Census:
    buckets: dict[ServiceType, list[int]]
    sums: Counter[ServiceType] = field(default_factory=Counter)
    liveness: Counter[tuple[ServiceType, Liveness]] = field(default_factory=Counter)
    stuck: Counter[ServiceType] = field(default_factory=Counter)
    quarantined: Counter[ServiceType] = field(default_factory=Counter)
    expiring: Counter[tuple[ServiceType, str]] = field(default_factory=Counter)
    ages: list[tuple[str, str, float]] = field(default_factory=list)
    left_out: int = 0


class Census:
    """A collector for prometheus_client: `collect()` may be called in any thread."""

    def __init__(self, index: Index, presence: PresenceTable, clock: Clock, terms: CensusTerms) -> None:
        self._index = index
        self._presence = presence
        self._clock = clock
        self._terms = terms
        self._lock = threading.Lock()
        self._taken: tuple[float, _Census] | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: asked at registration, when nothing is to be counted yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        census = self._census()
        yield _histogram(census)
        yield _by_liveness(census)
        yield _by_type("service_registry_stuck_pending", "Pending for longer than they should.", census.stuck)
        waiting = "Services that wait for an administrator's approval."
        yield _by_type("service_registry_quarantined", waiting, census.quarantined)
        yield _expiring(census)
        if self._terms.per_service:
            yield from _per_service(census)

    def _census(self) -> _Census:
        with self._lock:
            now = self._clock.monotonic()
            if self._taken is None or now - self._taken[0] >= _KEPT_SECONDS:
                self._taken = (now, self._take())
            return self._taken[1]

    def _take(self) -> _Census:
        now = self._clock.now()
        census = _Census({kind: [0] * (len(AGE_BOUNDS) + 1) for kind in ServiceType})
        # Taken at once: the loop goes on changing it.
        for number, record in enumerate(tuple(self._index.records.values()), 1):
            if number % _SLICE == 0:
                time.sleep(_BREATH_SECONDS)
            if not record.live:
                continue
            if record.approval is not Approval.REJECTED:  # nobody listens to those
                self._count_heard(census, record, now)
            self._count_waiting(census, record, now)
            self._count_expiring(census, record, now)
        return census

    def _count_heard(self, census: _Census, record: ServiceRecord, now: datetime) -> None:
        """By the verdict that was published: it stands over a gap in the hearing, as everywhere else."""
        seen = self._presence.seen(record.key)
        census.liveness[record.service_type, seen.verdict if seen else Liveness.NEVER] += 1
        if seen is None:
            return
        kind, age = record.service_type, max(0.0, (now - seen.last_seen).total_seconds())
        census.buckets[kind][bisect_left(AGE_BOUNDS, age)] += 1
        census.sums[kind] += round(age)
        if len(census.ages) < self._terms.per_service_limit:
            census.ages.append((kind.value, record.service_id, age))
        else:
            census.left_out += 1

    def _count_waiting(self, census: _Census, record: ServiceRecord, now: datetime) -> None:
        if record.status is not ServiceStatus.PENDING:
            return
        if record.approval is Approval.REQUIRED:
            census.quarantined[record.service_type] += 1
        if is_stuck(record, now, self._terms.stuck_after):
            census.stuck[record.service_type] += 1

    def _count_expiring(self, census: _Census, record: ServiceRecord, now: datetime) -> None:
        for what, _ in expiring(record, now, self._terms):
            census.expiring[record.service_type, what] += 1


def expiring(record: ServiceRecord, now: datetime, terms: CensusTerms) -> list[tuple[str, datetime]]:
    """What of a service's credentials ends soon or has ended, and when: `certificate`, `nats`."""
    identity = record.identity
    if identity is None:
        return []
    ends = (
        ("certificate", _certificate_end(identity), terms.certificate_lifetime),
        ("nats", identity.nats_expires_at, terms.credentials_lifetime),
    )
    return [
        (what, end)
        for what, end, lifetime in ends
        if end is not None and end - now < min(EXPIRY_WARNING, lifetime / 4)
    ]


def is_stuck(record: ServiceRecord, now: datetime, stuck_after: timedelta) -> bool:
    """Whether a service has been pending for so long. One that was rejected is not: somebody wants it that way."""
    if record.status is not ServiceStatus.PENDING or record.approval is Approval.REJECTED:
        return False
    return now - pending_since(record) > stuck_after


def pending_since(record: ServiceRecord) -> datetime:
    """Since when a pending service waits: for its package's installer, or without one since its last change.

    The end of a token is a change, and brings nobody nearer.
    """
    return record.package.created_at if record.package else record.updated_at


def _certificate_end(identity: Identity) -> datetime | None:
    return identity.certificates[0].expires_at if identity.certificates else None


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _by_type(name: str, text: str, counts: Counter[ServiceType]) -> GaugeMetricFamily:
    gauge = _gauge(name, text, "type")
    for kind in ServiceType:
        gauge.add_metric([kind.value], counts[kind])
    return gauge


def _by_liveness(census: _Census) -> GaugeMetricFamily:
    """All pairs, zeros included: a rule that asks how many there were before needs a series from before."""
    gauge = _gauge("service_registry_liveness", "Live services by liveness.", "type", "liveness")
    for kind in ServiceType:
        for verdict in Liveness:
            gauge.add_metric([kind.value, verdict.value], census.liveness[kind, verdict])
    return gauge


def _expiring(census: _Census) -> GaugeMetricFamily:
    name, text = "service_registry_credentials_expiring", "Live services whose credentials end within days."
    gauge = _gauge(name, text, "type", "what")
    for kind in ServiceType:
        for what in _EXPIRING:
            gauge.add_metric([kind.value, what], census.expiring[kind, what])
    return gauge


def _histogram(census: _Census) -> GaugeHistogramMetricFamily:
    family = GaugeHistogramMetricFamily(
        "service_registry_heartbeat_ages_seconds",
        "Since the last heartbeats of the live services, now.",
        labels=["type"],
    )
    for kind, counts in census.buckets.items():
        total, buckets = 0, []
        for bound, number in zip((*map(str, AGE_BOUNDS), "+Inf"), counts, strict=True):
            total += number
            buckets.append((bound, float(total)))
        family.add_metric([kind.value], buckets, float(census.sums[kind]))
    return family


def _per_service(census: _Census) -> Iterator[Metric]:
    name = "service_registry_heartbeat_age_seconds"
    ages = _gauge(name, "Since a service's last heartbeat.", "type", "id")
    for kind, service_id, age in census.ages:
        ages.add_metric([kind, service_id], age)
    yield ages
    text = "Services without a heartbeat age of their own, for there are more than metrics.per_service_limit."
    left_out = _gauge("service_registry_heartbeat_age_left_out", text)
    left_out.add_metric([], census.left_out)
    yield left_out
