"""Issue: create a package for a service, register one without, or issue a package anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, OutcomeUnknownError, Refused, RefusedError, UnavailableError, refuse
from jetway.core.ids import ServiceKey, ServiceType, is_id, slug
from jetway.core.policy import judge_parent, parent_key, parent_went_away, unknown_service
from jetway.core.record import EventType, Package, PackageStatus, ServiceRecord, ServiceStatus
from jetway.core.tokens import Claims
from jetway.ports import Authority, Claim, IdempotencyStore
from jetway.services.caller import SYSTEM, Caller
from jetway.services.project import Projections
from jetway.services.recorder import Applied, Recorder, Versions
from jetway.services.templates import Templates

log = structlog.get_logger()

PROJECTION_SECONDS = 2.0
"""How long an answer waits for document and row; after that it says that they are queued."""
_ORPHANED = "the parent was revoked meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewService:
    """What a person asks for."""

    service_type: ServiceType
    label: str
    service_id: str = ""
    """Empty: a slug of the label."""
    parent_id: str = ""
    site: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    checker_kind: str = ""
    checker_config: dict[str, JsonValue] | None = None
    spiffe_id: str = ""
    heartbeat_interval_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPackageRequest:
    """A service to be, and the terms of its token."""

    service: NewService
    token_ttl: timedelta | None = None
    notes: str = ""
    watch: bool = False
    """Whether its NATS credentials shall allow a standard KV watch on the service's own documents."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A package with its token, which is shown here and never again."""

    record: ServiceRecord
    package: Package
    token: str = field(repr=False)
    projection: Mapping[str, str] = field(default_factory=dict)


class Issuer:
    """Creates packages and registrations."""

    def __init__(
        self,
        recorder: Recorder,
        authority: Authority,
        idempotency: IdempotencyStore,
        templates: Templates,
        projections: Projections,
        *,
        public_url: str,
        token_ttl: timedelta,
        ca_pin: str = "",
        why_no_watch: str = "",
    ) -> None:
        self._recorder = recorder
        self._authority = authority
        self._idempotency = idempotency
        self._templates = templates
        self._projections = projections
        self._public_url = public_url
        self._token_ttl = token_ttl
        self._ca_pin = ca_pin
        self._why_no_watch = why_no_watch

    async def create(
        self, caller: Caller, request: NewPackageRequest, idempotency_key: str | None, body_sha256: str
    ) -> Issued:
        """Create a package. With a key, a retry answers with the same package and token.

        Raises RefusedError (taken, parent_missing, parent_not_live, invalid, idempotency_mismatch).
        """
        own_id = self._recorder.identifiers.new_id()
        if idempotency_key is None:
            return await self._issued(await self._issue(caller, request, own_id))
        self._require_possible(request)
        key = _service_key(request.service)
        claim = Claim(body_sha256=body_sha256, service_key=str(key), package_id=own_id)
        standing_id = await self._claim(caller, idempotency_key, claim)
        return await self.create_named(caller, request, standing_id, is_new=standing_id == own_id)

    async def reserve(self, caller: Caller, idempotency_key: str) -> tuple[str, bool]:
        """What the packages of one repeatable call are named after, and whether this is the first such call.

        Raises RefusedError where the key stands for something else, PortError where it cannot be kept.
        """
        own_id = self._recorder.identifiers.new_id()
        claim = Claim(body_sha256="", service_key="", package_id=own_id)
        standing_id = await self._claim(caller, idempotency_key, claim)
        return standing_id, standing_id == own_id

    async def create_named(
        self, caller: Caller, request: NewPackageRequest, package_id: str, *, is_new: bool
    ) -> Issued:
        """Create the package of this id; where the same call made it before, answer with it.

        `is_new`: nobody can have made it earlier. Then only a refusal has to be looked into: the same call may
        run twice at once. Raises RefusedError like create.
        """
        key = _service_key(request.service)
        earlier = None if is_new else await self._issued_before(key, package_id)
        if earlier:
            return earlier
        try:
            applied = await self._issue(caller, request, package_id)
        except RefusedError as error:
            if error.refused.code is not Code.TAKEN:
                raise
            twin = await self._issued_before(key, package_id)  # the same request, a moment earlier
            if twin is None:
                raise
            return twin
        return await self._issued(applied)

    async def _issue(self, caller: Caller, request: NewPackageRequest, package_id: str) -> Applied:
        self._require_possible(request)
        key = _service_key(request.service)
        spec = await self._spec(key, request.service)
        package = self._terms(package_id, request.token_ttl, request.notes, request.watch)
        return await self._admitted(key, c.Issue(spec=spec, package=package), caller)

    def _require_possible(self, request: NewPackageRequest) -> None:
        if request.watch and self._why_no_watch:
            # Now, and not when the host redeems it.
            raise refuse(Code.INVALID, self._why_no_watch, "watch")

    async def register(self, caller: Caller, service: NewService, *, revive: bool = True) -> ServiceRecord:
        """Register without a package, source `config`. Raises RefusedError like create.

        `revive`: whether a deleted service may come back.
        """
        key = _service_key(service)
        spec = await self._spec(key, service)
        applied = await self._admitted(key, c.Register(spec=spec, revive=revive), caller)
        await self._projections.settled(applied.sequence, PROJECTION_SECONDS, [applied.after.key])
        return applied.after

    async def find(self, service: NewService) -> ServiceRecord | None:
        """The record that has the service's id now. Raises RefusedError for what is no id."""
        return await self._recorder.read(_service_key(service))

    async def check(self, service: NewService, *, parent_planned: bool = False) -> None:
        """Raise RefusedError where `register` would for what is said of the service.

        `parent_planned`: its parent will be there by then, though it is not yet.
        """
        await self._spec(_service_key(service), service, parent_planned=parent_planned)

    async def adopt(self, caller: Caller, key: ServiceKey, like: ServiceRecord) -> ServiceRecord:
        """Approve a service that registered itself, described as `like` is. Raises RefusedError."""
        spec = c.ServiceSpec(
            service_type=key.service_type,
            service_id=key.service_id,
            label=like.label,
            parent_id=like.parent_id,
            poller_id=like.poller_id if like.parent_id else key.service_id,
            site=like.site,
            labels=like.labels,
            metadata=like.metadata,
            checker_kind=like.checker_kind,
            checker_config=like.checker_config,
            spiffe_identity=like.spiffe_identity,
            heartbeat_interval_seconds=like.heartbeat_interval_seconds,
        )

        def described(record: ServiceRecord | None) -> c.Register:
            if record is None:
                raise RefusedError(unknown_service(key))
            return c.Register(spec=spec, revive=False)

        applied = await self._recorder.apply(key, described, caller)
        await self._projections.settled(applied.sequence, PROJECTION_SECONDS, [applied.after.key])
        return applied.after

    async def register_known(self, poller_id: str) -> None:
        """A poller that the settings name: registered if it is not there, never brought back."""
        key = ServiceKey(ServiceType.POLLER, poller_id)
        spec = c.ServiceSpec(
            service_type=ServiceType.POLLER, service_id=poller_id, label=poller_id, poller_id=poller_id
        )
        await self._recorder.attempt(key, c.Register(spec=spec, revive=False), Caller("settings"))

    async def reissue(
        self,
        caller: Caller,
        of: str | ServiceKey,
        *,
        reason: str = "",
        token_ttl: timedelta | None = None,
        notes: str = "",
        revoke_now: bool = False,
        expected: Versions | None = None,
    ) -> Issued:
        """A new package for a service, its first one where it came in without. Raises RefusedError.

        `of`: a package of the service, which may have been deleted, by its id, or the service itself.
        """
        known = await self._to_reissue(of)
        if await self._orphaned(known):
            raise refuse(
                Code.PARENT_NOT_LIVE, f"the parent {known.parent_id!r} is gone: reissue it first", "parent_id"
            )
        watch = bool(known.package and known.package.watch)
        terms = self._terms(self._recorder.identifiers.new_id(), token_ttl, notes, watch)
        command = c.Reissue(package=terms, reason=reason, revoke_now=revoke_now)
        applied = await self._recorder.apply(known.key, command, caller, expected=expected)
        await self._require_parent_still(applied.after, c.Revoke(reason=_ORPHANED))
        return await self._issued(applied)

    async def _to_reissue(self, of: str | ServiceKey) -> ServiceRecord:
        if isinstance(of, str):
            return await self._recorder.of_package(of, deleted_current=True)
        known = await self._recorder.read(of)
        if known is None:
            raise RefusedError(unknown_service(of))
        return known

    async def _claim(self, caller: Caller, idempotency_key: str, claim: Claim) -> str:
        """The package id that this key stands for. Raises RefusedError for another body under the same key."""
        name = hashlib.sha256(f"{caller.actor}\n{idempotency_key}".encode()).hexdigest()
        standing = await self._idempotency.claim(name, claim)
        if standing.body_sha256 != claim.body_sha256 or standing.service_key != claim.service_key:
            why = "this Idempotency-Key was used for another request in the last 24 hours"
            raise refuse(Code.IDEMPOTENCY_MISMATCH, why, "Idempotency-Key")
        return standing.package_id

    async def _issued_before(self, key: ServiceKey, package_id: str) -> Issued | None:
        """What the first call of an idempotent pair answered, if it came so far."""
        entry = await self._recorder.ledger.read(key)
        record = entry.record
        package = record.find_package(package_id) if record else None
        if record is None or package is None:
            return None
        self._recorder.index.apply(record, entry.sequence, entry.digest)
        if package.status is PackageStatus.REVOKED and package.delivered_at is None:
            raise await self._ended_unused(record)
        if package is record.package and package.status is PackageStatus.ISSUED:
            # That call may have been cut off before it looked at the parent again.
            await self._require_parent_still(record, c.Withdraw(reason=_ORPHANED))
        projection = await self._projections.settled(entry.sequence, PROJECTION_SECONDS, [record.key])
        return Issued(record, package, self._token(record, package), projection)

    async def _spec(
        self, key: ServiceKey, service: NewService, *, parent_planned: bool = False
    ) -> c.ServiceSpec:
        """The service's full description, its parents looked up in the ledger."""
        named = _parent(service)
        parent = None if parent_planned else await self._require_parent(named)
        if service.service_type is ServiceType.CHECKER and not service.checker_kind:
            raise refuse(Code.INVALID, "a checker needs a checker_kind", "checker_kind")
        if service.service_type is not ServiceType.CHECKER and (
            service.checker_kind or service.checker_config
        ):
            raise refuse(Code.INVALID, f"{service.service_type.value}s have no checker_kind", "checker_kind")
        spec = c.ServiceSpec(
            service_type=key.service_type,
            service_id=key.service_id,
            label=service.label,
            parent_id=service.parent_id,
            poller_id=parent.poller_id if parent else key.service_id,
            site=service.site or (parent.site if parent else ""),
            labels=dict(service.labels),
            metadata=dict(service.metadata),
            checker_kind=service.checker_kind,
            checker_config=service.checker_config,
            spiffe_identity=service.spiffe_id,
            heartbeat_interval_seconds=service.heartbeat_interval_seconds,
        )
        return replace(spec, checker_config=await self._templates.config_for(spec))

    async def _require_parent(self, key: ServiceKey | None) -> ServiceRecord | None:
        if key is None:
            return None
        parent = await self._recorder.read(key)
        refused = judge_parent(key, parent)
        if refused:
            raise RefusedError(refused)
        return parent

    async def _admitted(self, key: ServiceKey, command: c.Issue | c.Register, caller: Caller) -> Applied:
        """Apply, then look at the parent again: its cascade may have passed before this child was there."""
        applied = await self._recorder.apply(key, command, caller)
        await self._require_parent_still(applied.after, c.Withdraw(reason=_ORPHANED))
        return applied

    async def _orphaned(self, record: ServiceRecord) -> bool:
        return record.parent is not None and parent_went_away(
            await self._recorder.read_settled(record.parent)
        )

    async def _require_parent_still(self, record: ServiceRecord, take_back: c.Withdraw | c.Revoke) -> None:
        """After the record was written: undo it where its parent is gone, and raise RefusedError.

        "Nothing was changed" would be false from here on, so an outage is one of unknown outcome.
        """
        try:
            if not await self._orphaned(record):
                return
            await self._recorder.attempt(record.key, take_back, SYSTEM)
        except UnavailableError as error:
            raise OutcomeUnknownError(str(error)) from error
        raise _parent_gone(self._recorder.index.get(record.key) or record)

    async def _ended_unused(self, record: ServiceRecord) -> RefusedError:
        """Why the package of an earlier call is worth nothing: nobody redeemed it before it was revoked."""
        if not record.live and (
            await self._orphaned(record) or EventType.WITHDRAWN in record.transition.events
        ):
            return _parent_gone(record)
        why = f"the package was revoked before it was redeemed; {_standing(record)}"
        return refuse(Code.ILLEGAL_TRANSITION, why, "Idempotency-Key")

    async def _issued(self, applied: Applied) -> Issued:
        record, package = applied.after, applied.after.package
        if package is None:
            raise refuse(Code.NOT_FOUND, "the service has no package")
        log.info(
            "package issued", action="package_issued", service=str(record.key), package_id=package.package_id
        )
        # Before the wait: a batch of the projections wakes many at once, who should not all sign in one turn.
        token = self._token(record, package)
        projection = await self._projections.settled(
            applied.sequence, PROJECTION_SECONDS, [applied.after.key]
        )
        return Issued(record, package, token, projection)

    def _terms(self, package_id: str, token_ttl: timedelta | None, notes: str, watch: bool) -> c.NewPackage:
        expires: datetime = self._recorder.clock.now() + (token_ttl or self._token_ttl)
        return c.NewPackage(package_id=package_id, token_expires_at=expires, notes=notes, watch=watch)

    def _token(self, record: ServiceRecord, package: Package) -> str:
        return self._authority.issue_token(
            Claims(
                gateway=self._public_url,
                package_id=package.package_id,
                generation=package.generation,
                service_type=record.service_type,
                service_id=record.service_id,
                expires_at=int(package.token_expires_at.timestamp()),
                ca_pin=self._ca_pin,
            )
        )


def _service_key(service: NewService) -> ServiceKey:
    service_id = service.service_id or slug(service.label)
    if not is_id(service_id):
        why = "no id can be made of this label: give a component_id"
        raise refuse(Code.INVALID, why, "label" if not service.service_id else "component_id")
    return ServiceKey(service.service_type, service_id)


def _parent(service: NewService) -> ServiceKey | None:
    key = parent_key(service.service_type, service.parent_id)
    if isinstance(key, Refused):
        raise RefusedError(key)
    return key


def _parent_gone(record: ServiceRecord) -> RefusedError:
    why = f"the parent {record.parent_id!r} was revoked while this was being written; {_standing(record)}"
    return refuse(Code.PARENT_NOT_LIVE, why, "parent_id")


def _standing(record: ServiceRecord) -> str:
    """What remains of a service after a call that was refused or undone, and what can be done with it."""
    name = f"{record.service_type.value} {record.service_id!r}"
    if record.status is ServiceStatus.DELETED:
        return f"{name} was taken back, and its id can be used again"
    hint = (
        "delete it to use the id again" if record.status is ServiceStatus.REVOKED else "reissue its package"
    )
    return f"{name} is {record.status.value}: {hint}"
