"""What the house needs from outside, as Protocols. Adapters implement them, tests have them in memory.

Every method that talks to the outside raises `PortError`s only (see `core.errors`): `ConflictError` when a
compare-and-swap lost, `UnavailableError` when nothing was done, `OutcomeUnknownError` when a write may have
happened, `RejectedError` when a write was refused for what it contains.
"""

from __future__ import annotations

from jetway.ports.audit import (
    AuditReader,
    CheckpointShelf,
    CheckpointSigner,
    CheckpointVerifier,
    StoredRevision,
)
from jetway.ports.authority import (
    Authority,
    CertificateAuthority,
    IssuedCertificate,
    NatsAccount,
    NatsAuthority,
    ServedCertificate,
    ServerCertificate,
    Vault,
)
from jetway.ports.backup import BackupPart, BackupReader, BackupWriter, LedgerImage, LedgerLoader
from jetway.ports.clock import Clock, Identifiers
from jetway.ports.database import AuditLog, EventPage, EventQuery, RegistryDatabase
from jetway.ports.documents import Documents, StoredDocument
from jetway.ports.ledger import (
    Change,
    ChangeBatch,
    Entry,
    Feed,
    FeedItem,
    Ledger,
    PassedOver,
    Views,
    ViewState,
)
from jetway.ports.messages import AlertSender, Answers, Ears, HeartbeatMessage, Replies
from jetway.ports.stores import (
    ApiToken,
    ApiTokenStore,
    Claim,
    IdempotencyStore,
    JobOutcome,
    JobRun,
    JobStore,
    Lease,
    MaintenanceStore,
    PresenceSnapshot,
    PresenceStore,
    PurgeArchive,
    RememberedService,
)

__all__ = [
    "AlertSender",
    "Answers",
    "ApiToken",
    "ApiTokenStore",
    "AuditLog",
    "AuditReader",
    "Authority",
    "BackupPart",
    "BackupReader",
    "BackupWriter",
    "CertificateAuthority",
    "Change",
    "ChangeBatch",
    "CheckpointShelf",
    "CheckpointSigner",
    "CheckpointVerifier",
    "Claim",
    "Clock",
    "Documents",
    "Ears",
    "Entry",
    "EventPage",
    "EventQuery",
    "Feed",
    "FeedItem",
    "HeartbeatMessage",
    "IdempotencyStore",
    "Identifiers",
    "IssuedCertificate",
    "JobOutcome",
    "JobRun",
    "JobStore",
    "Lease",
    "Ledger",
    "LedgerImage",
    "LedgerLoader",
    "MaintenanceStore",
    "NatsAccount",
    "NatsAuthority",
    "PassedOver",
    "PresenceSnapshot",
    "PresenceStore",
    "PurgeArchive",
    "RegistryDatabase",
    "RememberedService",
    "Replies",
    "ServedCertificate",
    "ServerCertificate",
    "StoredDocument",
    "StoredRevision",
    "Vault",
    "ViewState",
    "Views",
]
