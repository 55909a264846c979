"""What the house needs from outside, as Protocols. Adapters implement them, tests have them in memory.

Every method that talks to the outside raises `PortError`s only (see `core.errors`): `ConflictError` when a
compare-and-swap lost, `UnavailableError` when nothing was done, `OutcomeUnknownError` when a write may have
happened, `RejectedError` when a write was refused for what it contains.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

from jetway.core.backup import Line, Manifest
from jetway.core.checkpoint import Signed, TrailEntry
from jetway.core.gaps import EventSpan, Version
from jetway.core.heard import Interval
from jetway.core.identity import CertificateFacts, RevokedCertificate
from jetway.core.ids import Lineage, ServiceKey, ServiceType
from jetway.core.liveness import Liveness
from jetway.core.maintenance import MaintenanceWindow
from jetway.core.record import EventType, ServiceRecord
from jetway.core.rows import CountSample, Event, PackageRow, Presence, ServiceRow
from jetway.core.times import Timestamp
from jetway.core.tokens import Claims

T = TypeVar("T")


class Clock(Protocol):
    """Time. `now` is aware and in UTC; `monotonic` is in seconds and never jumps."""

    def now(self) -> datetime:
        """The wall clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; counts on while the wall clock is set."""
        ...


class Identifiers(Protocol):
    """Randomness, as ids."""

    def new_id(self) -> str:
        """A random UUID in canonical text form."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the ledger: its record, if it has one, and the sequence that a write must expect."""

    record: ServiceRecord | None
    sequence: int
    digest: bytes = field(default=b"", compare=False)
    """SHA-256 of the record's bytes as they are stored; empty where there is none, or it is not known."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change as the ledger tells it. `record` is None when the key was purged."""

    key: ServiceKey
    record: ServiceRecord | None
    sequence: int
    digest: bytes = field(default=b"", compare=False)
    """As in `Entry`."""


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes in order. `caught_up`: nothing newer was waiting when the last of them was read."""

    changes: Sequence[Change]
    caught_up: bool
    position: int = 0
    """The sequence up to which the ledger was read, also where what stood there is no change; 0: as before."""


class Ledger(Protocol):
    """The only truth: one record per key, written by compare-and-swap."""

    @property
    def epoch(self) -> int:
        """The epoch that new revisions carry; known once the ledger is open."""
        ...

    async def read(self, key: ServiceKey) -> Entry:
        """The key as the ledger has it now, not as the index remembers it."""
        ...

    async def write(self, record: ServiceRecord, expected: int) -> int:
        """Write if the key is still at sequence `expected` (0: it was never written); the new sequence."""
        ...

    async def purge(self, key: ServiceKey, expected: int) -> int:
        """Forget the key and its history if it is still at sequence `expected`; the new sequence."""
        ...

    def follow(self, after: int = 0) -> AsyncIterator[ChangeBatch]:
        """All changes after that sequence, newest per key at first, then live, for ever, over reconnects.

        The first batch that is caught up ends the reading of what was there. It may be empty.
        """
        ...

    async def last_sequence(self) -> int:
        """The sequence of the newest write."""
        ...

    async def history(self, key: ServiceKey) -> Sequence[ServiceRecord]:
        """The revisions that are still kept, oldest first; none from before the key was purged."""
        ...


@dataclass(frozen=True, slots=True)
class ViewState:
    """How a view that the server keeps stands to the stream that it is made of."""

    behind: int
    """How far its source is from the newest of what it takes from there."""
    ahead: int
    """How far it is beyond the end of its source, which is a fault: new writes would be passed over."""
    taken: int
    """The sequence in the (first) source up to which it has followed."""
    last: int
    """Its own newest sequence."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Writes of the ledger that the stream of events lacks for good."""

    gaps: Sequence[tuple[int, int]] = ()
    """Of each the first and the last of the ledger's sequences."""
    told: Collection[str] = frozenset()
    """The ids of the entries that the stream has about gaps."""


class Views(Protocol):
    """The views that the server itself keeps: of the ledger, of the config bucket."""

    async def state(self) -> Mapping[str, ViewState]:
        """By name: `events` (of the ledger) and `config_watch` (of the config bucket)."""
        ...

    async def passed_over(self) -> PassedOver:
        """What the view `events` passed over. Raises PortError while NATS is away."""
        ...

    async def origin(self, sequence: int) -> Change | None:
        """What the ledger still has at that sequence, to make a passed over entry again. Raises PortError."""
        ...


@dataclass(frozen=True, slots=True)
class FeedItem(Generic[T]):
    """One delivered item, and the position to acknowledge once it is dealt with."""

    value: T
    position: int


class Feed(Protocol[T]):
    """A durable, ordered delivery to one projection. What is not acknowledged comes again."""

    async def fetch(self, limit: int, timeout: float) -> Sequence[FeedItem[T]]:
        """Up to `limit` items, waiting up to `timeout` seconds for the first; empty when none came."""
        ...

    async def acknowledge(self, position: int) -> None:
        """All up to and including this position are dealt with."""
        ...

    async def lag(self) -> int:
        """How many items have not been acknowledged."""
        ...

    async def oldest(self) -> datetime | None:
        """When the oldest of them was written; None where nothing waits."""
        ...

    async def close(self) -> None:
        """Stop receiving; what was not acknowledged comes again to whoever fetches next."""
        ...


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A key of the config bucket: its bytes, None when deleted or absent, and the sequence to expect."""

    data: bytes | None
    sequence: int


class Documents(Protocol):
    """The bucket of config documents and checker templates."""

    async def read(self, key: str) -> StoredDocument:
        """The key as it stands now."""
        ...

    async def write(self, key: str, data: bytes, expected: int) -> int:
        """Write if the key is still at sequence `expected`; the new sequence."""
        ...

    async def delete(self, key: str, expected: int) -> None:
        """Leave a delete marker if the key is still at sequence `expected`."""
        ...

    async def keys(self, prefix: str) -> Sequence[str]:
        """Existing keys that begin with `prefix`, sorted."""
        ...

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[tuple[str, StoredDocument]], None]:
        """Every existing key that begins with `prefix`, in batches, and then an end.

        What changes meanwhile may come as it was, as it is, or twice. Close it when done.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are asked for. Empty fields do not filter; `types` is any of."""

    types: Sequence[str] = ()
    service_type: str = ""
    service_id: str = ""
    package_id: str = ""
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    before: tuple[datetime, str] | None = None
    """Continue after this (timestamp, event_id): newest first."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first, and how many match in all."""

    events: Sequence[Event]
    total: int
    more: bool


class RegistryDatabase(Protocol):
    """The tables that people query. Rows never go back: an older (epoch, revision) changes nothing."""

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to date; the names of the migrations applied."""
        ...

    async def check(self) -> None:
        """Raise UnavailableError when the database cannot answer now."""
        ...

    async def write_rows(
        self, services: Sequence[ServiceRow], packages: Sequence[PackageRow], *, overwrite: bool = False
    ) -> None:
        """Upsert all of them or none. A row older than the stored one is passed over, an equal one rewritten.

        `overwrite`: whatever is stored. For rows that say they are newer than the ledger, which cannot be.
        """
        ...

    async def remove_rows(self, keys: Sequence[ServiceKey]) -> None:
        """Forget the rows of services that were purged, so that the next row of such an id is a first one.

        Rows of their packages stay. A database that cannot delete keeps them under the status `purged`.
        """
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Append those whose event_id is not there yet: all or none."""
        ...

    async def trim_events(self, before: datetime, *, dry_run: bool = False) -> int:
        """Forget events that happened before then, or only count them; 0 where the database does so by itself."""
        ...

    async def append_counts(self, samples: Sequence[CountSample]) -> None:
        """Keep samples; the same one again changes nothing."""
        ...

    async def load_counts(
        self, since: datetime, until: datetime, *, hourly: bool = False
    ) -> Sequence[CountSample]:
        """Samples in order, `since` included, `until` not; with `hourly` only those of an hour's first minute."""
        ...

    async def trim_counts(self, before: datetime, *, dry_run: bool = False) -> int:
        """Forget samples from before then, or only count them; 0 where the database does so by itself."""
        ...

    async def find_events(self, query: EventQuery) -> EventPage:
        """The events that match, newest first."""
        ...

    async def find_row_versions(self) -> Mapping[ServiceKey, tuple[int, int]]:
        """(epoch, revision) of every service row."""
        ...

    async def find_row_keys(
        self, service_type: ServiceType, *, after: str = "", limit: int = 500
    ) -> Sequence[ServiceKey]:
        """The services that have a row, by id, beginning after the id `after`."""
        ...

    async def load_rows(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, ServiceRow]:
        """Whole rows, of as many services as one wants in memory. A row that cannot be read is left out."""
        ...

    async def load_packages(self, package_ids: Sequence[str]) -> Mapping[str, PackageRow]:
        """Whole rows, likewise."""
        ...

    async def find_event_spans(self, keys: Sequence[ServiceKey]) -> Mapping[ServiceKey, Sequence[EventSpan]]:
        """Which revisions have events, summed up by epoch, epochs in order."""
        ...

    async def find_event_revisions(
        self, keys: Sequence[ServiceKey]
    ) -> Mapping[ServiceKey, Mapping[Version, datetime]]:
        """Exactly which revisions have events, and when they happened."""
        ...

    async def load_presence(self) -> Mapping[ServiceKey, Presence]:
        """What the rows remember of heartbeats, to begin with after a start."""
        ...

    async def close(self) -> None:
        """Finish what is being written and let go."""
        ...


class AuditLog(Protocol):
    """Where what happens outside a record enters the same audit trail."""

    async def append(self, event: Event) -> None:
        """Durable when this returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an idempotency key was first used for."""

    body_sha256: str
    service_key: str
    package_id: str


class IdempotencyStore(Protocol):
    """Idempotency keys, kept for 24 h."""

    async def claim(self, key_sha256: str, claim: Claim) -> Claim:
        """Claim the key; the claim that stands: the caller's own, or the one that was there first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token for the HTTP API, without its secret."""

    name: str
    role: str
    sha256: str
    """Of the token's text; the text itself is stored nowhere."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """As far as it is stored: written seldom, so that calls write nothing."""


class ApiTokenStore(Protocol):
    """API tokens, by name."""

    async def put(self, token: ApiToken) -> None:
        """Create. Raises ConflictError when the name is taken."""
        ...

    async def remove(self, name: str) -> bool:
        """Forget the token at once; whether there was one."""
        ...

    async def note_use(self, token: ApiToken, at: datetime) -> None:
        """Remember that it was used then, unless a later use is known, or it is gone: it never comes back so."""
        ...

    async def load(self) -> Sequence[ApiToken]:
        """All of them, as they stand now."""
        ...

    def follow(self) -> AsyncIterator[Sequence[ApiToken]]:
        """All of them, again after every change, for ever."""
        ...


class Authority(Protocol):
    """Signs and reads package tokens. Keys never leave it."""

    def issue_token(self, claims: Claims) -> str:
        """The token: the same claims give the same text, so that a retry can return it."""
        ...

    def read_token(self, token: str) -> Claims:
        """The claims of a token that this gateway signed.

        Raises RefusedError (`token_malformed`, `token_unknown`) before anything is looked up.
        """
        ...


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate as it is handed out: leaf and intermediates, and what is kept of it."""

    pem: str
    facts: CertificateFacts


class CertificateAuthority(Protocol):
    """The gateway's own certificate authority. Its keys never leave it; every call is short and does no I/O."""

    @property
    def pin(self) -> str:
        """`sha256:` and the base64url SHA-256 of the root key's SubjectPublicKeyInfo."""
        ...

    @property
    def root_pem(self) -> str:
        """What trusts every certificate of this authority."""
        ...

    def read_request(self, csr_pem: str) -> str:
        """Check a certificate request; the SHA-256 of its key's SubjectPublicKeyInfo, hex.

        Raises RefusedError naming `csr_pem` for what is not a request that would be signed.
        """
        ...

    def issue(self, csr_pem: str, spiffe_id: str, now: datetime, lifetime: timedelta) -> IssuedCertificate:
        """A certificate for the request's key, under that name alone. Raises RefusedError as above."""
        ...

    def crl(self, revoked: Sequence[RevokedCertificate], now: datetime) -> str:
        """The certificate revocation list, PEM."""
        ...


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """What a TLS server shows: the files to read, and what is known of them."""

    certificate: Path
    """The certificate that is the server's own first, then those up to the root, as far as they are sent."""
    key: Path
    expires_at: datetime
    pem: str
    """What a program on this machine trusts it by: the root, or the certificate itself."""
    stamp: str
    """Tells this reading of the files from another."""
    alone: str = ""
    """The server's own certificate and no other, PEM: whoever knows it needs no name to know the server."""


class ServerCertificate(Protocol):
    """Where a TLS server has its certificate from. Both calls read files: not for the event loop."""

    def load(self) -> ServedCertificate:
        """The certificate to show from now on. Raises PortError with a sentence, naming setting and file."""
        ...

    def due(self, served: ServedCertificate) -> bool:
        """Whether another one should be loaded in the place of `served`."""
        ...


class NatsAuthority(Protocol):
    """Issues NATS user credentials. Its keys never leave it; every call is short and does no I/O."""

    @property
    def issues(self) -> bool:
        """Whether it can: not without a signing key, and not for a server that asks for no credentials."""
        ...

    @property
    def why_not(self) -> str:
        """A sentence for the answer and /readyz where it does not."""
        ...

    @property
    def why_no_watch(self) -> str:
        """A sentence where it cannot grant a KV watch consumer; empty where it can, or grants nothing at all."""
        ...

    def check_key(self, public_key: str) -> None:
        """Raise RefusedError naming `nats_public_key` for what is not the public key of a user."""
        ...

    def new_user(self) -> tuple[str, str]:
        """A user key made here: (public key, seed)."""
        ...

    def issue(
        self, *, public_key: str, lineage: Lineage, watch: bool, now: datetime, lifetime: timedelta
    ) -> str:
        """A user JWT that allows exactly what this service may do."""
        ...

    def verify(self, public_key: str, message: bytes, signature: bytes) -> bool:
        """Whether the holder of this key signed the message; False also for what is no key or signature."""
        ...


class NatsAccount(Protocol):
    """The NATS account that edge hosts belong to."""

    @property
    def can_revoke(self) -> bool:
        """Whether the server can be told; somebody else's server cannot."""
        ...

    async def publish_revocations(self, revoked: Mapping[str, datetime]) -> None:
        """Tell the server the whole set: user keys, and the moment up to which their credentials are void.

        Once this returns, connections of those users are being dropped. Raises PortError.
        """
        ...


class Vault(Protocol):
    """Encryption at rest."""

    def seal(self, plaintext: bytes, *, context: str) -> str:
        """Encrypt: `v1.<key id>.<base64url>`. `context` says what it is, and must be said again to open it."""
        ...

    def open(self, sealed: str, *, context: str) -> bytes:
        """The inverse. Raises PortError for an unknown key, another context or an altered text."""
        ...

    def is_current(self, sealed: str) -> bool:
        """Whether it is sealed with the key that is now written with."""
        ...


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class HeartbeatMessage(NamedTuple):
    """A message on a heartbeat subject, as it arrived. A tuple, for tens of thousands may come in a second."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] = _NO_HEADERS


class Replies(Protocol):
    """Answers to requests."""

    async def reply(self, subject: str, data: bytes) -> None:
        """Send, without waiting for anything."""
        ...


class Answers(Protocol):
    """Answers to questions, which say in headers what became of them."""

    async def answer(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send, without waiting for anything. Raises PortError."""
        ...


class Ears(Protocol):
    """What hears heartbeats."""

    @property
    def dropped(self) -> int:
        """Messages that came and were lost because there were too many."""
        ...

    async def echo(self, timeout: float) -> None:
        """Return once a message sent now has come back the way that heartbeats come.

        Raises UnavailableError when none comes back in time.
        """
        ...


class LedgerImage(Protocol):
    """All that the ledger's NATS holds and that cannot be derived, for a backup. See `core.backup`."""

    def walk(self, section: str) -> AsyncGenerator[Sequence[Line], None]:
        """Every key of a section, in batches, and then an end.

        What changes meanwhile comes as it was, as it is, or both, marked `again`: the last one counts.
        """
        ...

    def walk_trail(self, limit: int = 0) -> AsyncGenerator[Sequence[Line], None]:
        """The audit trail as far as it goes now, oldest first, or its first `limit` entries."""
        ...

    async def settle_trail(self, seconds: float = 30.0) -> int:
        """Wait until the trail has what is written for it by now; how many entries it lacks after `seconds`."""
        ...


class LedgerLoader(Protocol):
    """An empty ledger that is being filled from a backup."""

    async def load(self, section: str, lines: Sequence[Line]) -> None:
        """Write keys that are not there yet."""
        ...

    async def load_trail(self, lines: Sequence[Line]) -> None:
        """Append to the audit trail. Not after `open_trail`."""
        ...

    async def open_trail(self) -> None:
        """From here on the trail follows the ledger by itself."""
        ...


class BackupWriter(Protocol):
    """A backup that is being written. Its methods block, and raise OSError."""

    def add_file(self, name: str, data: bytes) -> None:
        """A file of the state directory."""
        ...

    def add_lines(self, section: str, lines: Sequence[Line]) -> None:
        """Further lines of a section."""
        ...


@dataclass(frozen=True, slots=True)
class BackupPart:
    """A stretch of a backup: lines of a section, or one file."""

    section: str
    lines: tuple[Line, ...] = ()
    name: str = ""
    data: bytes = field(default=b"", repr=False)


class BackupReader(Protocol):
    """A backup. Reading blocks, and raises `core.backup.BadBackupError` for all that is wrong with it."""

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""
        ...

    def parts(self) -> Iterator[BackupPart]:
        """All parts in order; that all was there and undamaged is known once the iteration has ended."""
        ...


class Lease(Protocol):
    """Which of several daemons leads: runs projections and jobs. A daemon by itself always does."""

    @property
    def held(self) -> bool:
        """Whether this daemon leads now."""
        ...

    @property
    def leader(self) -> str | None:
        """The host of another daemon that leads, as far as is known: it may have no name. None: nobody does."""
        ...

    async def run(self) -> None:
        """Renew, or wait for a chance, for ever."""
        ...

    async def wait(self, held: bool) -> None:
        """Wait until this daemon leads, or no longer does."""
        ...

    async def release(self) -> None:
        """Let another one lead at once."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """A value of the ledger as it is stored. `data` is None where the key was purged."""

    key: str
    data: bytes | None
    sequence: int


class AuditReader(Protocol):
    """The audit trail and the ledger as they are stored, byte by byte. Close what walks when done."""

    ledger_id: str
    epoch: int

    async def last_sequence(self) -> int:
        """Of the newest entry."""
        ...

    async def entry(self, sequence: int) -> TrailEntry | None:
        """The entry at that place."""
        ...

    def entries(self, after: int = 0, until: int = 0) -> AsyncGenerator[Sequence[TrailEntry], None]:
        """All after the place `after`, up to `until` or to where the trail ended when it was asked for."""
        ...

    async def happened(self, kind: EventType) -> Sequence[Event]:
        """All events of a kind that happens outside records and is rare, the oldest first."""
        ...

    def revisions(self) -> AsyncGenerator[Sequence[StoredRevision], None]:
        """Every revision that the ledger still keeps, in the order in which they were written, and purges."""
        ...

    async def settle(self, seconds: float) -> int:
        """Wait until the trail has what the ledger holds now; how many changes it lacks after `seconds`."""
        ...


class CheckpointVerifier(Protocol):
    """Tells whether the gateway signed a checkpoint."""

    def verify(self, signed: Signed) -> bool:
        """Whether it did."""
        ...


class CheckpointSigner(CheckpointVerifier, Protocol):
    """Signs checkpoints. The key never leaves it."""

    @property
    def public_pem(self) -> bytes:
        """The public key."""
        ...

    def sign(self, text: str) -> Signed:
        """The text with its signature."""
        ...


class CheckpointShelf(Protocol):
    """Where checkpoints are kept beside the trail."""

    async def store(self, signed: Signed, public_pem: bytes) -> None:
        """Durable when this returns. Raises PortError."""
        ...


class AlertSender(Protocol):
    """Somebody outside who wants to know of troubles."""

    async def send(self, alert_id: str, kind: str, body: bytes) -> None:
        """One attempt. Raises RejectedError where another one is of no use, else UnavailableError."""
        ...


class PurgeArchive(Protocol):
    """Where records go before they are purged."""

    async def store(self, name: str, records: Sequence[ServiceRecord]) -> str:
        """One file of this name, durable when this returns; where it is. Raises PortError."""
        ...


class JobOutcome(StrEnum):
    """How a run of a job ended."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The daemon stopped, or it is still running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of a job."""

    job: str
    actor: str
    """Who asked for it: a person's token, or the daemon itself."""
    dry_run: bool
    started_at: Timestamp
    seconds: float = 0.0
    outcome: JobOutcome
    counts: Mapping[str, int] = field(default_factory=dict)
    names: Sequence[str] = ()
    """The first of the services concerned."""
    error: str = ""


class JobStore(Protocol):
    """The last runs of rare jobs, beyond a restart and for every daemon."""

    async def load(self) -> Mapping[str, Sequence[JobRun]]:
        """By job, the newest first."""
        ...

    async def save(self, job: str, runs: Sequence[JobRun]) -> None:
        """Keep these instead of what was kept. The last one who writes wins: only the leader does."""
        ...


class MaintenanceStore(Protocol):
    """Maintenance windows, for every daemon."""

    async def load(self) -> Sequence[MaintenanceWindow]:
        """All that are kept, those that are over included."""
        ...

    async def put(self, window: MaintenanceWindow) -> None:
        """Keep it, in the place of one of the same id."""
        ...

    async def remove(self, window_id: str) -> None:
        """Forget it, if it is there."""
        ...


class RememberedService(NamedTuple):
    """What a snapshot tells of one service. A tuple, for there are very many."""

    key: ServiceKey
    last_seen: datetime
    verdict: Liveness
    interval_seconds: int | None
    """As the service itself gave it."""
    incarnation: int
    turns: bytes = b""
    """The last changes of its verdict, as `core.turns` packs them."""
    beats: int = 0
    """This and what follows only of one that waits for approval: whoever decides looks at it."""
    instance_id: str = ""
    source_ip: str = ""


@dataclass(frozen=True, slots=True)
class PresenceSnapshot:
    """When heartbeats could be heard, and who was heard when."""

    heard: Sequence[Interval]
    services: Iterable[RememberedService]
    """Gone through once."""
    turns_since: datetime | None = None
    """From then on no turn is missing; None where turns were not kept yet."""


class PresenceStore(Protocol):
    """Where the snapshot is kept: this daemon's own. Both calls block."""

    def load(self) -> PresenceSnapshot | None:
        """The newest one, None where there is none that can be used. Never raises."""
        ...

    def save(self, snapshot: PresenceSnapshot) -> None:
        """Replace it. Raises PortError."""
        ...
