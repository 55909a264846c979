"""What the HTTP door opens into: the services, handed over by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from jetway.logs import LogLevels
from jetway.ports import Authority, CertificateAuthority
from jetway.services.administer import Administrator
from jetway.services.admit import Admission
from jetway.services.api_tokens import ApiTokens
from jetway.services.catalogue import Catalogue
from jetway.services.count_history import CountHistory
from jetway.services.document_state import DocumentReader
from jetway.services.due import DueReader
from jetway.services.health import Health
from jetway.services.issue import Issuer
from jetway.services.jobs import JobBook
from jetway.services.maintenance import Maintenance
from jetway.services.past import PastReader
from jetway.services.purge import Purger
from jetway.services.reconcile import Reconciler
from jetway.services.redeem import Redeemer
from jetway.services.refusals import Refusals
from jetway.services.renew import Renewer
from jetway.services.reproject import Reprojector
from jetway.services.templates import Templates
from jetway.services.trail import Trail
from jetway.services.watch import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The services that routes call."""

    issuer: Issuer
    redeemer: Redeemer
    renewer: Renewer
    administrator: Administrator
    catalogue: Catalogue
    api_tokens: ApiTokens
    refusals: Refusals
    health: Health
    templates: Templates
    reconciler: Reconciler
    reprojector: Reprojector
    jobs: JobBook
    trail: Trail
    maintenance: Maintenance
    past: PastReader
    counts: CountHistory
    due: DueReader
    documents: DocumentReader
    purger: Purger
    watch: Watch
    admission: Admission
    log_levels: LogLevels
    epoch: Callable[[], int]
    """The ledger's epoch."""
    authority: Authority | None = None
    """Tells, for an address with too many failures, a genuine token from a forged one. Without it everybody
    at such an address waits."""
    certificates: CertificateAuthority | None = None
    """The gateway's own authority."""
    crl: Callable[[], Awaitable[str]] | None = None
    """The certificate revocation list as it stands, PEM."""
    versions: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """What the daemon is connected with: the NATS server, the database's schema. Raises PortError."""
