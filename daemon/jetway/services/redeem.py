"""Redeem: the installer's call. One winner per token, and nothing consumed unless the answer can be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog
from pydantic import JsonValue

from jetway.core import commands as c
from jetway.core.errors import Code, Refused, RefusedError, refuse
from jetway.core.ids import ServiceKey, children_watch_key, document_key, watch_key
from jetway.core.lifecycle import step
from jetway.core.record import EventType, Package, ServiceRecord
from jetway.core.tokens import Claims
from jetway.ports import Authority
from jetway.services.caller import Caller
from jetway.services.identities import Credentials, HostKeys, Identities
from jetway.services.recorder import Recorder
from jetway.services.trail import Trail

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemRequest:
    """What the installer sends; all but the token may be empty."""

    token: str = field(repr=False)
    csr_pem: str = ""
    nats_public_key: str = ""
    hostname: str = ""
    os: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """What the answer tells of the world around the service."""

    nats_urls: Sequence[str]
    subject_prefix: str
    default_interval: int
    bucket: str
    watch_bucket: str
    live_prefix: str = "edge"
    nats_ca_pem: str = ""
    """What trusts the NATS servers; empty where the system's trust does, or where there is no TLS."""
    ca_pin: str = ""
    """Of the authority behind the gateway's own HTTPS, for tokens; empty where the system's trust is used."""
    gateway_url: str = ""
    """Where hosts reach the gateway itself, as tokens have it."""
    js_api: str = "$JS.API"
    """What the subjects of JetStream's API begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemAnswer:
    """What the service needs to live. Made of the record alone, so a retry gets the identical answer."""

    record: ServiceRecord
    package: Package
    edge: EdgeSettings
    credentials: Credentials = field(repr=False)

    def document(self) -> dict[str, JsonValue]:
        """The answer as the contract spells it."""
        record, edge, lineage = self.record, self.edge, self.record.lineage
        watch_keys = [key for key in (watch_key(lineage), children_watch_key(lineage)) if key]
        return {
            "package_id": self.package.package_id,
            "service": {
                "service_type": record.service_type.value,
                "service_id": record.service_id,
                "parent_id": record.parent_id,
                "poller_id": record.poller_id,
            },
            "heartbeat": {
                "subject": lineage.subject(edge.subject_prefix),
                "interval_seconds": record.heartbeat_interval_seconds or edge.default_interval,
            },
            "gateway": {"url": edge.gateway_url, "ca_pin": edge.ca_pin},
            "nats": self._nats(),
            "config": {
                "bucket": edge.bucket,
                "key": document_key(lineage),
                "watch_bucket": edge.watch_bucket,
                "watch_keys": list(watch_keys),
                "js_api": edge.js_api,
                "live_subjects": [f"{edge.live_prefix}.{key}" for key in watch_keys],
            },
            "identity": {
                "certificate_pem": self.credentials.certificate_pem,
                "ca_pem": self.credentials.ca_pem,
                "spiffe_id": self.credentials.spiffe_id,
            },
        }

    def _nats(self) -> dict[str, JsonValue]:
        creds, note = self.credentials.creds, self.credentials.note
        return {
            "urls": list(self.edge.nats_urls),
            "creds": creds,
            "ca_pem": self.edge.nats_ca_pem,
            "authentication": "jwt" if creds else "none",
            "note": note,
        }


Render = Callable[[RedeemAnswer], object]


class Redeemer:
    """Hands a package out, once."""

    def __init__(
        self,
        recorder: Recorder,
        authority: Authority,
        identities: Identities,
        trail: Trail,
        edge: EdgeSettings,
        count: Callable[[str], None],
    ) -> None:
        self._recorder = recorder
        self._authority = authority
        self._identities = identities
        self._trail = trail
        self._edge = edge
        self._count = count

    async def redeem(
        self, request: RedeemRequest, *, source_ip: str, request_id: str = "", render: Render | None = None
    ) -> RedeemAnswer:
        """Redeem a token. Raises RefusedError, and PortErrors while the ledger is away: then nothing happened.

        A forged, altered or unreadable token is refused before anything is looked up. `render` makes the answer
        in the form in which it will be sent; it is called before the token is spent, and what it raises, nothing
        is consumed.
        """
        try:
            claims = self._authority.read_token(request.token)
        except RefusedError as error:
            self._count(error.refused.code.value)
            raise
        caller = Caller(f"installer:{claims.package_id}", source_ip, request_id)
        try:
            answer = await self._redeem(claims, request, caller, render or RedeemAnswer.document)
        except RefusedError as error:
            self._count(error.refused.code.value)
            await self._note_refusal(claims, request, caller, error.refused)
            raise
        self._count("delivered")
        return answer

    def is_holder(self, request: RedeemRequest) -> bool:
        """Whether this is by who got the package and may have it again: the keys are those it was handed out for.

        Costs a look into memory, and the reading of what was sent.
        """
        try:
            claims = self._authority.read_token(request.token)
            record = self._recorder.index.by_package(claims.package_id)
            package = record.find_package(claims.package_id) if record else None
            if record is None or package is None or not package.bound_keys:
                return False
            key = ServiceKey(claims.service_type, claims.service_id)
            keys = self._identities.read_keys(request.nats_public_key, request.csr_pem, key)
        except RefusedError:
            return False
        bare = c.Redeem(package_id=claims.package_id, bound_keys=keys.fingerprint, hostname=request.hostname)
        # Also in whether it is answered: of a spent package every refusal costs an audit entry.
        return keys.fingerprint == package.bound_keys and isinstance(
            self._rehearsed(record, bare), ServiceRecord
        )

    async def _redeem(
        self, claims: Claims, request: RedeemRequest, caller: Caller, render: Render
    ) -> RedeemAnswer:
        key = ServiceKey(claims.service_type, claims.service_id)
        keys = self._identities.read_keys(request.nats_public_key, request.csr_pem, key)
        bare = c.Redeem(package_id=claims.package_id, bound_keys=keys.fingerprint, hostname=request.hostname)
        try:
            applied = await self._recorder.apply(
                key,
                lambda record: self._with_identity(record, bare, keys),
                caller,
                self._rehearse(claims.package_id, render),
            )
        except RefusedError as error:
            if error.refused.code is Code.NOT_FOUND:
                raise _unknown() from None
            raise
        if applied.changed:
            log.info(
                "package delivered", action="package_delivered", service=str(key), source_ip=caller.source_ip
            )
        return self._answer(applied.after, claims.package_id)

    def _with_identity(self, record: ServiceRecord | None, bare: c.Redeem, keys: HostKeys) -> c.Redeem:
        """The command with an identity, where it would hand the package out: nobody else costs a signature."""
        package = record.find_package(bare.package_id) if record else None
        if record is None or package is None or not self._would_deliver(record, bare):
            return bare
        now = self._recorder.clock.now()
        return replace(bare, identity=self._identities.issue(record, package, keys, now))

    def _would_deliver(self, record: ServiceRecord, bare: c.Redeem) -> bool:
        outcome = self._rehearsed(record, bare)
        return isinstance(outcome, ServiceRecord) and outcome is not record

    def _rehearsed(self, record: ServiceRecord, bare: c.Redeem) -> ServiceRecord | Refused:
        context = c.Context(now=self._recorder.clock.now(), actor="", transition_id="", epoch=0)
        return step(record, bare, context)

    def _rehearse(self, package_id: str, render: Render) -> Callable[[ServiceRecord], object]:
        """Make the whole answer before the token is spent: whatever fails here has consumed nothing."""
        return lambda record: render(self._answer(record, package_id))

    def _answer(self, record: ServiceRecord, package_id: str) -> RedeemAnswer:
        package = record.find_package(package_id)
        if package is None:
            raise _unknown()
        credentials = self._identities.tell(record, package_id)
        return RedeemAnswer(record=record, package=package, edge=self._edge, credentials=credentials)

    async def _note_refusal(
        self, claims: Claims, request: RedeemRequest, caller: Caller, refused: Refused
    ) -> None:
        """Both sides go to the trail: who asks now, and who had it before."""
        record = self._recorder.index.by_package(claims.package_id)
        package = record.find_package(claims.package_id) if record else None
        facts: Mapping[str, JsonValue] = {
            "code": refused.code.value,
            "hostname": request.hostname,
            "delivered_to": package.delivered_to if package else None,
        }
        await self._trail.try_note(
            EventType.REDEEM_REFUSED,
            caller,
            reason=refused.why,
            record=record,
            package_id=claims.package_id,
            metadata=facts,
        )


def _unknown() -> RefusedError:
    return refuse(Code.TOKEN_UNKNOWN, "this token belongs to no package of this gateway", "token")
