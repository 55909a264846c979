"""Counters and gauges, by type and outcome; nothing here grows with the number of services."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jetway.core.errors import Code
from jetway.core.record import ServiceRecord
from jetway.services.index import Kind

HEARTBEATS_REFUSED = (
    Code.UNKNOWN_SERVICE,
    Code.WRONG_PARENTS,
    Code.PARENT_NOT_LIVE,
    Code.NOT_DELIVERED,
    Code.APPROVAL_REQUIRED,
    Code.REJECTED,
    Code.REVOKED,
    Code.DELETED,
    "quarantine_full",
    "quarantine_share",
    "too_many_unknown",
    "overloaded",
    "ledger_unavailable",
    "server_message",
    "malformed",
    "malformed_entry",
    "too_much",
    "foreign_reply",
    "answer_dropped",
    "answer_failed",
)
"""Why a heartbeat is refused. Each counts from nought on: an alert rule sees no first burst of a new series."""
REDEMPTIONS = (
    "delivered",
    Code.TOKEN_MALFORMED,
    Code.TOKEN_UNKNOWN,
    Code.EXPIRED,
    Code.REVOKED,
    Code.SUPERSEDED,
    Code.ALREADY_REDEEMED,
    Code.KEY_USED_BEFORE,
    Code.MALFORMED,
    Code.INVALID,
)
"""What becomes of a call to redeem a token; for the same reason."""


class Metrics:
    """The daemon's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.heartbeats = Counter(
            "jetway_heartbeats", "Heartbeats accepted, by service type.", ["type"], registry=self.registry
        )
        self.heartbeats_refused = Counter(
            "jetway_heartbeats_refused", "Heartbeats refused, by reason.", ["reason"], registry=self.registry
        )
        self.heartbeats_dropped = Gauge(
            "jetway_heartbeats_dropped", "Heartbeats lost before they were read.", registry=self.registry
        )
        self.redemptions = Counter(
            "jetway_redemptions", "Calls to redeem a token, by outcome.", ["outcome"], registry=self.registry
        )
        self.api_refused = Counter(
            "jetway_api_refused", "Refused calls of the API, by reason.", ["reason"], registry=self.registry
        )
        self.transitions = Counter(
            "service_registry_state_transitions",
            "Status changes, by service type.",
            ["type", "from", "to"],
            registry=self.registry,
        )
        self.liveness_changes = Counter(
            "service_registry_liveness_changes",
            "Verdicts on services that turned, by what they turned to.",
            ["type", "to"],
            registry=self.registry,
        )
        self.admission_hits = Counter(
            "jetway_admission_hits",
            "Pollers found known, by where they stand.",
            ["place"],
            registry=self.registry,
        )
        self.admission_refusals = Counter(
            "jetway_admission_refusals",
            "Pollers found unknown, by reason; in the mode observe they were let in.",
            ["reason", "mode"],
            registry=self.registry,
        )
        self.admission_dropped = Counter(
            "jetway_admission_dropped",
            "Questions over NATS that were no questions, or got no answer, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.nats_requests = Counter(
            "jetway_nats_requests",
            "Questions over NATS, by endpoint and what became of them.",
            ["endpoint", "outcome"],
            registry=self.registry,
        )
        self.alerts = Counter(
            "jetway_alerts",
            "Alerts for webhooks, by what became of them.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.hearing_age = Gauge(
            "jetway_hearing_age_seconds",
            "Since heartbeats were last proven to be heard; 0 while they are.",
            registry=self.registry,
        )
        self.index_age = Gauge(
            "jetway_index_age_seconds",
            "Since everything in the ledger was last proven to be known in memory.",
            registry=self.registry,
        )
        self.services = Gauge(
            "service_registry_total", "Services in the registry.", ["type", "status"], registry=self.registry
        )
        self.projection_lag = Gauge(
            "jetway_projection_lag_records",
            "Changes not yet projected.",
            ["projection"],
            registry=self.registry,
        )
        self.projection_age = Gauge(
            "jetway_projection_lag_seconds",
            "Age of the oldest change not yet projected.",
            ["projection"],
            registry=self.registry,
        )
        self.rows_set_aside = Gauge(
            "service_registry_rows_set_aside",
            "Rows that the database refuses for what they contain, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.documents_set_aside = Gauge(
            "jetway_documents_set_aside",
            "Config documents that cannot be written for what they are.",
            registry=self.registry,
        )
        self.renewals = Counter(
            "jetway_renewals", "Calls to renew credentials, by outcome.", ["outcome"], registry=self.registry
        )
        self.revocations_left = Gauge(
            "jetway_revocations_left",
            "Revoked services whose NATS credentials the server still takes.",
            registry=self.registry,
        )
        self.floods = Counter(
            "jetway_floods",
            "Services shut out for a while because they flooded the gateway with messages.",
            registry=self.registry,
        )
        self.heartbeat_proof = Gauge(
            "jetway_heartbeat_proof",
            "1 for what shows that a heartbeat is by who it says: jwt or none.",
            ["proof"],
            registry=self.registry,
        )
        self.drift = Counter(
            "jetway_drift",
            "What was found to differ from the ledger, by what it was.",
            ["kind"],
            registry=self.registry,
        )
        self.audit_gaps = Gauge(
            "jetway_audit_gaps",
            "Revisions that are missing from the audit trail and cannot be made again.",
            registry=self.registry,
        )
        self.nats_connected = Gauge(
            "jetway_nats_connected", "1 while NATS is reached.", registry=self.registry
        )
        self.nats_reconnects = Gauge(
            "jetway_nats_reconnects", "Reconnections to NATS.", registry=self.registry
        )
        self.job_runs = Counter(
            "jetway_job_runs",
            "Runs of background jobs, by outcome.",
            ["job", "outcome"],
            registry=self.registry,
        )
        self.job_seconds = Gauge(
            "jetway_job_last_seconds",
            "How long the last run that succeeded took.",
            ["job"],
            registry=self.registry,
        )
        self.job_success = Gauge(
            "jetway_job_last_success_timestamp_seconds",
            "When the last run that succeeded began, as Unix time.",
            ["job"],
            registry=self.registry,
        )
        self.loop_stall = Histogram(
            "jetway_event_loop_stall_seconds",
            "How late the event loop woke.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=self.registry,
        )

        for reason in HEARTBEATS_REFUSED:
            self.heartbeats_refused.labels(str(reason))
        for outcome in REDEMPTIONS:
            self.redemptions.labels(str(outcome))

    def count_change(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        """Count a status change; to be called for every newer version of a record."""
        was = before.status.value if before else "none"
        if was != after.status.value:
            self.transitions.labels(after.service_type.value, was, after.status.value).inc()

    def set_services(self, tally: Mapping[Kind, int]) -> None:
        """Set the gauge of services by type and status."""
        counts: Counts[tuple[str, str]] = Counts()
        for (service_type, service_status, _, _), number in tally.items():
            counts[service_type.value, service_status.value] += number
        self.services.clear()
        for (kind, status), count in counts.items():
            self.services.labels(kind, status).set(count)

    def set_lag(self, projection: str, records: float, seconds: float) -> None:
        """How many changes wait, and how old the oldest is; NaN where that cannot be told."""
        self.projection_lag.labels(projection).set(records)
        self.projection_age.labels(projection).set(seconds)

    def count_api_refusal(self, reason: str) -> None:
        """Count a refused call of the API."""
        self.api_refused.labels(reason).inc()

    def count_renewal(self, outcome: str) -> None:
        """Count a call to renew credentials."""
        self.renewals.labels(outcome).inc()

    def count_redemption(self, outcome: str) -> None:
        """Count a call to redeem a token."""
        self.redemptions.labels(outcome).inc()
