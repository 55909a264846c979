"""What the API takes: bodies and query parameters. Unknown fields are refused, every string has a bound."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from jetway.core.ids import ServiceId, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.record import Approval, EventType, PackageStatus, ServiceStatus, Source
from jetway.core.tokens import MAX_LENGTH
from jetway.entry.http import fields as f
from jetway.services.catalogue import SORTS

Role = Literal["viewer", "operator", "admin"]
Token = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH)]
Selector = f.LabelSelector
Sort = Annotated[
    str,
    StringConstraints(max_length=64),
    Field(json_schema_extra={"enum": [f"{sign}{name}" for name in SORTS for sign in ("", "-")]}),
]


class Taken(BaseModel):
    """Base of all bodies and queries."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _examples(*values: JsonDict) -> ConfigDict:
    """Shown in the API's description."""
    return ConfigDict(json_schema_extra={"examples": list(values)})


# --- bodies


class _Described(Taken):
    """What a person says of a service."""

    parent_id: f.OptionalId = Field(default="", description="A poller for an agent, an agent for a checker.")
    site: f.Line = Field(default="", description="Empty: the parent's.")
    labels: f.Labels = Field(default_factory=dict)
    metadata: f.Metadata = Field(default_factory=dict, description="At most 16 KiB as JSON, 32 levels.")
    checker_kind: f.Kind = Field(default="", description="Required for a checker.")
    checker_config: f.CheckerConfig | None = Field(
        default=None, description="null: the kind's template, filled in. At most 64 KiB, 32 levels."
    )
    spiffe_id: f.SpiffeId = ""
    heartbeat_interval_seconds: f.IntervalSeconds | None = Field(
        default=None, description="null: the daemon's default."
    )


class CreatePackage(_Described):
    """A service to be, and the terms of its token."""

    model_config = _examples(
        {
            "component_type": "poller",
            "label": "Site A",
            "component_id": "site-a",
            "site": "A",
            "labels": {"rack": "12"},
            "metadata": {"owner": "netops"},
            "heartbeat_interval_seconds": 30,
            "token_ttl_seconds": 86_400,
        },
        {"component_type": "agent", "label": "Core switch room", "parent_id": "site-a"},
        {
            "component_type": "checker",
            "label": "Uplink",
            "parent_id": "core-switch-room",
            "checker_kind": "icmp",
            "checker_config": {"hosts": ["192.0.2.1"], "interval": "60s"},
        },
    )

    component_type: ServiceType
    label: f.Label
    component_id: f.OptionalId = Field(default="", description="Empty: a slug of the label.")
    token_ttl_seconds: f.TokenTtlSeconds | None = Field(
        default=None, description="null: the daemon's default."
    )
    notes: f.Notes = ""
    watch: bool = Field(
        default=False,
        description="For software that insists on a standard KV watch: its NATS credentials then allow a consumer "
        "on the service's own documents. Leave it off otherwise; a reissue keeps it.",
    )


class RegisterService(_Described):
    """A service that comes in without a package."""

    model_config = _examples({"service_id": "site-b", "label": "Site B"})

    service_id: ServiceId
    label: f.Label | None = Field(default=None, description="null: the id.")


class RevokePackage(Taken):
    """Revoke the service of a package, and with `cascade` all beneath it."""

    model_config = _examples({"reason": "the host was stolen"}, {"cascade": False, "dry_run": True})

    reason: f.Reason = ""
    cascade: bool = True
    dry_run: bool = False


class ReissuePackage(Taken):
    """A new package and token for the same service."""

    model_config = _examples({"reason": "new hardware", "revoke_now": True})

    reason: f.Reason = ""
    token_ttl_seconds: f.TokenTtlSeconds | None = None
    notes: f.Notes = ""
    revoke_now: bool = Field(default=False, description="End the old identity at once.")


class SetStatus(Taken):
    """An administrator's override."""

    model_config = _examples({"status": "inactive", "reason": "maintenance"})

    status: ServiceStatus
    reason: f.Reason = ""
    cascade: bool = True
    dry_run: bool = False


class Verdict(Taken):
    """Why a service is approved or rejected."""

    model_config = _examples({"reason": "known to the site's people"})

    reason: f.Reason = ""


class CreateApiToken(Taken):
    """A token for this API."""

    model_config = _examples({"name": "dashboards", "role": "viewer", "expires_in_seconds": 31_536_000})

    name: f.TokenName
    role: Role
    expires_in_seconds: f.ExpirySeconds | None = Field(default=None, description="null: it does not expire.")


class Host(Taken):
    """The installer's host, as it shows itself."""

    hostname: f.Line = ""
    os: f.Line = ""
    arch: f.Line = ""


class Redeem(Taken):
    """An installer's token, with keys of its own if it has them."""

    model_config = _examples(
        {
            "token": "jw1.eyJnYXRld2F5Ijoi.c2lnbmF0dXJl",
            "nats_public_key": "U" + "A" * 55,
            "host": {"hostname": "edge-1", "os": "Linux", "arch": "x86_64"},
        },
    )

    token: Token = Field(repr=False)
    csr_pem: Annotated[str, StringConstraints(max_length=16 * 1024)] = ""
    nats_public_key: Annotated[str, StringConstraints(max_length=128)] = ""
    host: Host = Host()


class Renew(Taken):
    """A host's request for new credentials, signed with its NATS key."""

    model_config = _examples(
        {
            "subject": "jetway.renew.agent.site-a.core-switch-room",
            "timestamp": "2026-11-23T09:10:11.123Z",
            "nats_public_key": "U" + "A" * 55,
            "signature": "c2lnbmF0dXJl",
        },
    )

    subject: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    timestamp: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    nats_public_key: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    signature: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        repr=False, description="Over subject, timestamp and the SHA-256 of the request; base64url."
    )
    csr_pem: Annotated[str, StringConstraints(max_length=16 * 1024)] = ""


# --- queries


class Paged(Taken):
    """Which part of a list."""

    limit: f.Limit = 50
    cursor: f.Cursor | None = Field(default=None, description="The next_cursor of the answer before.")


class ListChildren(Paged):
    """Filters of a list of services. A parameter that may repeat means any of its values."""

    status: list[ServiceStatus] = Field(default_factory=list)
    source: list[Source] = Field(default_factory=list)
    liveness: list[Liveness] = Field(default_factory=list)
    approval: list[Approval] = Field(default_factory=list)
    site: f.Line | None = None
    label: list[Selector] = Field(
        default_factory=list,
        max_length=16,
        description="`key=value`, `key`, `key!=value`, `!key`; all must match.",
    )
    q: f.Search = Field(default="", description="Part of the id, label or site, in any case.")
    sort: Sort = "service_id"
    with_deleted: f.QueryTruth = Field(default=False, description="Show deleted ones as well.")


class ListServices(ListChildren):
    """Filters of a list of all services of a type."""

    parent_id: f.OptionalId | None = None


class GetTree(Taken):
    """Which part of the hierarchy."""

    depth: Literal["1", "2", "3"] = Field(default="3", description="How many levels.")
    root: f.ServiceName | None = Field(
        default=None, description="A service as `type.id`: what stands beneath it."
    )
    limit: f.Limit | None = Field(default=None, description="Services on the first level; absent: all.")
    cursor: f.Cursor | None = None


class ListPackages(Paged):
    """Filters of a list of packages, newest first."""

    status: list[PackageStatus] = Field(default_factory=list)
    component_type: ServiceType | None = None
    parent_id: f.OptionalId | None = None
    site: f.Line | None = None
    q: f.Search = Field(default="", description="Part of the id, label, site or notes, in any case.")


class Purge(Taken):
    """What is to be forgotten."""

    retention_days: int | None = Field(
        default=None, ge=0, le=36_500, description="null: `lifecycle.deleted_kept` and `revoked_kept`."
    )
    dry_run: bool = False


class RunJob(Taken):
    """How a background job is run by hand."""

    dry_run: bool = Field(default=False, description="Only say what it would do.")


class WatchServices(Taken):
    """What a watcher wants to hear of."""

    service_type: list[ServiceType] = Field(default_factory=list, description="None: every type.")


class ExportEvents(Taken):
    """Filters of the audit trail."""

    type: list[EventType] = Field(default_factory=list)
    service_type: ServiceType | None = None
    service_id: f.OptionalId = ""
    package_id: f.PackageId | None = None
    actor: f.Search = ""
    since: f.QueryTime | None = None
    until: f.QueryTime | None = None


class ListEvents(Paged, ExportEvents):
    """Filters of the audit trail, newest first."""


class ListHistory(Paged):
    """Filters of one service's or package's history, newest first."""

    type: list[EventType] = Field(default_factory=list)
    since: f.QueryTime | None = None
    until: f.QueryTime | None = None


class DeleteService(Taken):
    """How a service is deleted."""

    reason: f.Reason = ""
    cascade: f.QueryTruth = True
    dry_run: f.QueryTruth = False
