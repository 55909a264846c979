"""What the daemon keeps beside the records: claims, API tokens, jobs, maintenance, presence, the lease."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from jetway.core.heard import Interval
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.maintenance import MaintenanceWindow
from jetway.core.record import ServiceRecord
from jetway.core.times import Timestamp


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
    apart: bool = False
    """On terms of its own, so that it is none of the job's regular runs."""


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
