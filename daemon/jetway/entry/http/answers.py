"""What the API answers to calls that do something, and to machines that ask how it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from jetway.core.ids import ServiceType
from jetway.core.record import ServiceStatus
from jetway.core.times import Timestamp
from jetway.entry.http.models import Answer, Package, Service
from jetway.ports import JobOutcome

Projected = Literal["written", "queued"]


class Install(Answer):
    """Commands for the edge host. They ask for the token; it is not in them."""

    python: str
    shell: str


class Projection(Answer):
    """Whether the config document and the registry row are written, or will be."""

    document: Projected
    row: Projected


class Issued(Answer):
    """A new package. The token is shown here and never again."""

    package: Package
    service: Service
    token: str
    install: Install
    projection: Projection
    warnings: list[str] = Field(description="What is likely to keep an edge host from joining.")


class AffectedService(Answer):
    """One service that a change touched, or would touch."""

    service_type: ServiceType
    service_id: str
    status_before: ServiceStatus
    status_after: ServiceStatus


class Left(Answer):
    """What a change has not reached."""

    what: Literal["document", "row", "nats", "cascade"]
    why: str


class Affected(Answer):
    """What a change did, or with `dry_run` would do."""

    dry_run: bool
    complete: bool = Field(description="False where a cascade goes on in the background.")
    service: Service
    package: Package | None = Field(description="The service's current package.")
    services: list[AffectedService]
    reached: list[Literal["status", "document", "row", "nats", "crl"]] = Field(
        description="What knows of it by now. `nats`: credentials are refused and connections dropped. "
        "`crl`: certificates are on the revocation list. Both only where there were any."
    )
    left: list[Left] = Field(description="What does not, and why.")


class ApiToken(Answer):
    """A token for this API, without its secret."""

    name: str
    role: Literal["viewer", "operator", "admin"]
    created_at: Timestamp
    created_by: str
    expires_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="As far as it is known: stored every ten minutes.")


class ApiTokenList(Answer):
    """All API tokens."""

    items: list[ApiToken]
    next_cursor: None
    total: int


class NewApiToken(Answer):
    """A new API token. Its text is shown here and never again."""

    token: str
    name: str
    role: Literal["viewer", "operator", "admin"]
    expires_at: Timestamp | None


class CheckerKind(Answer):
    """A kind of checker that has a template."""

    kind: str
    template: dict[str, JsonValue]
    placeholders: list[str] = Field(description="What the template takes from the checker and its metadata.")


class Defaults(Answer):
    """What a form for a new package starts from."""

    heartbeat_interval_seconds: int
    token_ttl_seconds: int
    component_types: list[ServiceType]
    template_metadata: list[str] = Field(description="Metadata keys that templates may use.")
    checker_kinds: list[CheckerKind]


class RedeemedService(Answer):
    """Who the service is."""

    service_type: ServiceType
    service_id: str
    parent_id: str
    poller_id: str


class RedeemedHeartbeat(Answer):
    """Where and how often it says that it lives."""

    subject: str
    interval_seconds: int


class RedeemedGateway(Answer):
    """How it reaches the gateway, to renew credentials that ran out."""

    url: str
    ca_pin: str = Field(description="Of the gateway's own authority; empty where the system's trust is used.")


class RedeemedNats(Answer):
    """How it reaches NATS."""

    urls: list[str]
    creds: str = Field(description="A .creds file; without the seed where the installer made the key.")
    ca_pem: str
    authentication: Literal["jwt", "none"]
    note: str = Field(description="Why there are no credentials, where there are none.")


class RedeemedConfig(Answer):
    """Where its configuration stands."""

    bucket: str
    key: str
    watch_bucket: str
    watch_keys: list[str]
    js_api: str = Field(description="What the subjects of JetStream's API begin with.")
    live_subjects: list[str]


class RedeemedIdentity(Answer):
    """Its X.509 identity, empty where the gateway gives none."""

    certificate_pem: str
    ca_pem: str
    spiffe_id: str


class Redeemed(Answer):
    """What an installer gets for its token."""

    package_id: str
    service: RedeemedService
    heartbeat: RedeemedHeartbeat
    gateway: RedeemedGateway
    nats: RedeemedNats
    config: RedeemedConfig
    identity: RedeemedIdentity


class Renewed(Answer):
    """New credentials for a service that has proven itself."""

    creds: str = Field(
        description="The JWT in its armour; the host has the seed. Empty where none are issued."
    )
    certificate_pem: str = Field(description="Empty where no request was sent.")
    ca_pem: str
    expires_at: Timestamp | None = Field(description="When the first of them expires.")


class Reconciled(Answer):
    """What a comparison with the ledger found and mended."""

    checked: int = Field(description="Services compared.")
    documents_mended: int
    rows_mended: int
    orphans: int = Field(description="Rows of services that the ledger does not know. They are left alone.")
    gaps_found: int = Field(description="Revisions whose events were missing from the audit trail.")
    gaps_mended: int
    gaps_open: int = Field(description="Those whose events cannot be made again.")
    started_at: Timestamp
    finished_at: Timestamp
    findings: list[str] = Field(description="The first of everything that differed, by name.")
    errors: list[str] = Field(description="Why something could not be compared or mended; the rest was.")


class Reprojection(Answer):
    """How far the rewriting of all documents and rows is: the last run, or the one under way."""

    state: Literal["idle", "running", "done", "failed"]
    total: int = Field(description="Services.")
    done: int
    written: int = Field(description="Documents that were not as they should be, and all rows.")
    error: str
    started_at: Timestamp | None
    finished_at: Timestamp | None


class Purged(Answer):
    """What was forgotten, or would be."""

    dry_run: bool
    due: int
    purged: int
    services: list[str] = Field(description="The first of those that were due, as `type.id`.")


class JobRun(Answer):
    """One run of a background job."""

    job: str
    actor: str = Field(description="Who asked for it: a token's name, or `jetway` for the schedule.")
    dry_run: bool
    started_at: Timestamp
    seconds: float
    outcome: JobOutcome
    counts: dict[str, int] = Field(description="What it did, or would do, by name.")
    names: list[str] = Field(description="The first of the services concerned, as `type.id`.")
    error: str
    apart: bool = Field(
        description="Whether it was on terms of its own, and is none of the job's regular runs."
    )


class Job(Answer):
    """A background job with its last runs, the newest first."""

    name: str
    description: str
    every_seconds: int
    rehearses: bool = Field(description="Whether it can say what it would do without doing it.")
    running: bool
    next_run: Timestamp | None = Field(description="Null where another daemon runs the jobs.")
    runs: list[JobRun]


class JobList(Answer):
    """All background jobs."""

    items: list[Job]
    next_cursor: None
    total: int


class Component(Answer):
    """One part's state."""

    state: Literal["ok", "degraded", "down"]
    detail: str


class Alive(Answer):
    """Whether the process does what it is for."""

    status: Literal["ok", "unavailable"]


class Ready(Answer):
    """Whether requests can be served. `components` only for those who may see it."""

    status: Literal["ok", "degraded", "unavailable"]
    components: dict[str, Component] | None = None
