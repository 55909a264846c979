"""Backup and restore, composed: what an operator does on the daemon's own host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from jetway import __version__
from jetway.adapters.authority.keys import load_or_create_keys
from jetway.adapters.backup.archive import Archive, ArchiveWriter
from jetway.adapters.backup.statefiles import RestoreMark, RestorePlace, read_files
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.image import NatsImage
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.loader import NatsLoader
from jetway.adapters.nats.meta import LedgerMeta, MetaStore
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.stores import NatsAuditLog
from jetway.adapters.statedir import LedgerIdentity, StateDir
from jetway.authorities import open_checkpoint_signer
from jetway.core.backup import Manifest, next_epoch
from jetway.core.commands import Context
from jetway.core.errors import PortError, StartupError
from jetway.core.record import EventType
from jetway.core.restoration import Restoration
from jetway.core.times import rfc3339
from jetway.logs import set_up_logs
from jetway.nats_link import external_nats, open_nats, start_private_nats
from jetway.services.backup import back_up
from jetway.services.caller import Caller
from jetway.services.restore import ACTOR, Contents, Restore, Told, inspect
from jetway.services.restores import signed_facts
from jetway.services.trail import Trail
from jetway.settings import Settings
from jetway.tasks import Releases
from jetway.upkeep import require_ledger, way_to_nats


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a file holds."""

    file: str
    bytes: int
    ledger_id: str
    epoch: int
    keys: Mapping[str, int]
    files: tuple[str, ...]
    trail_lacks: int
    """Changes of the ledger whose events were not in the trail yet."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored and found to stand there: per section how many, and the sum over their SHA-256."""

    file: str
    backup_created_at: str
    ledger_id: str
    epoch: int
    keys: Mapping[str, int]
    sha256: Mapping[str, str]
    files: tuple[str, ...]
    state_dir: str
    """Where."""
    set_aside: str = ""
    """Where what stood there before was moved."""


def backup(settings: Settings, file: Path, *, replace: bool = False) -> BackupReport:
    """Write a backup, of a running daemon or of one that is stopped. Raises StartupError, PortError."""
    set_up_logs("error", "auto")
    try:
        taken = file.exists() and not replace
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror}") from error
    if taken:
        raise StartupError(f"{file} exists already")
    return asyncio.run(_backup(settings, file, replace))


def restore(settings: Settings, file: Path, *, discard: str = "", told: Told | None = None) -> RestoreReport:
    """Restore into a state directory, and a NATS, without a ledger. Raises StartupError, PortError.

    `discard`: the id of the ledger that stands there and is to be set aside.
    """
    set_up_logs("error", "auto")
    return asyncio.run(_restore(settings, file, discard, told or (lambda _section, _count: None)))


# --- backup


async def _backup(settings: Settings, file: Path, replace: bool) -> BackupReport:
    require_ledger(settings)
    files = read_files(settings.state_dir)
    releases = Releases()
    try:
        link = await open_nats(settings, await way_to_nats(settings, releases), releases)
        manifest = Manifest(
            product=__version__,
            created_at=SystemClock().now(),
            ledger_id=link.meta.ledger_id,
            epoch=link.meta.epoch,
            ledger_created_at=link.meta.created_at,
        )
        return await _write(NatsImage(link.jetstream, link.names), manifest, files, file, replace)
    finally:
        await releases.all()


async def _write(
    image: NatsImage, manifest: Manifest, files: Mapping[str, bytes], file: Path, replace: bool
) -> BackupReport:
    try:
        writer = ArchiveWriter(file, manifest)
        try:
            walked = await back_up(image, writer, files)
            written = await asyncio.to_thread(writer.finish)
            # A backup that cannot be read is none: it is looked through before it gets its name.
            contents = await asyncio.to_thread(inspect, Archive(written))
            size = writer.commit(replace=replace)
        finally:
            writer.abandon()
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror or error}") from error
    return BackupReport(
        file=str(file),
        bytes=size,
        ledger_id=manifest.ledger_id,
        epoch=manifest.epoch,
        keys=contents.counts,
        files=tuple(contents.files),
        trail_lacks=walked.lacking,
    )


# --- restore


async def _restore(settings: Settings, file: Path, discard: str, told: Told) -> RestoreReport:
    archive = Archive(file)
    contents = await asyncio.to_thread(inspect, archive)
    state = StateDir(settings.state_dir)
    state.prepare()
    releases = Releases()
    releases.add("state lock", state.lock().release)
    place = RestorePlace(settings.state_dir)
    try:
        aside, seen = _look(state, place, discard)
        mark = _mark(contents, seen)
        jetstream, loader, store = await _begin(settings, place, mark, contents, releases, aside)
        run = Restore(archive, contents, _context(mark), RandomIdentifiers())
        await _fill(run, loader, jetstream, settings, told)
        await _sign(settings, store, jetstream, mark, contents, file)
        meta = LedgerMeta(mark.ledger_id, mark.epoch, contents.manifest.ledger_created_at)
        await loader.complete(meta)
        state.write_ledger(LedgerIdentity(mark.ledger_id, mark.epoch))
        await loader.end()
        place.end()
    except OSError as error:
        why = f"state_dir: {error.filename} cannot be written: {error.strerror}"
        raise StartupError(why + _moved(place)) from error
    except (StartupError, PortError) as error:
        if place.aside is None:
            raise
        raise StartupError(f"{error}{_moved(place)}") from error
    finally:
        await releases.all()
    return RestoreReport(
        file=str(file),
        backup_created_at=mark.backup_created_at,
        ledger_id=mark.ledger_id,
        epoch=mark.epoch,
        keys={section: tally.count for section, tally in run.tallies.items()},
        sha256={section: tally.digest for section, tally in run.tallies.items()},
        files=tuple(contents.files),
        state_dir=str(settings.state_dir),
        set_aside=str(place.aside or ""),
    )


def _moved(place: RestorePlace) -> str:
    return f"; what stood there before is in {place.aside}" if place.aside else ""


def _look(state: StateDir, place: RestorePlace, discard: str) -> tuple[str, int]:
    """The name under which what stands there is to be set aside, and the newest epoch that was seen here."""
    unfinished = place.unfinished()
    if unfinished is not None:
        return "", unfinished.epoch
    if not place.occupied():
        return "", 0
    standing = state.read_ledger()
    if standing is None:
        raise StartupError(
            f"state_dir: {state.path} holds keys or data of NATS, but does not say of which ledger: move it away"
        )
    if discard != standing.ledger_id:
        raise StartupError(
            f"state_dir: {state.path} belongs to the ledger {standing.ledger_id}. To restore in its place, say so:"
            f" --in-place-of {standing.ledger_id}; what stands there is set aside, not deleted"
        )
    return f"replaced-{standing.ledger_id}-{standing.epoch}", standing.epoch


def _mark(contents: Contents, seen: int) -> RestoreMark:
    now, manifest = SystemClock().now(), contents.manifest
    return RestoreMark(
        ledger_id=manifest.ledger_id,
        epoch=next_epoch(manifest.epoch, seen, int(now.timestamp())),
        backup_created_at=rfc3339(manifest.created_at),
        started_at=rfc3339(now),
    )


async def _begin(
    settings: Settings,
    place: RestorePlace,
    mark: RestoreMark,
    contents: Contents,
    releases: Releases,
    aside: str,
) -> tuple[JetStream, NatsLoader, MetaStore]:
    """Mark the place, put the keys there, and make what is to be filled."""
    embedded = settings.nats.mode == "embedded"
    if embedded:
        place.begin(mark, contents.files, embedded=True, aside=aside)
    clock, names = SystemClock(), Names.of(settings.nats)
    way = await start_private_nats(settings, releases) if embedded else external_nats(settings)
    connection = Connection(way.gateway, clock)
    releases.add("NATS connection", connection.close)
    await connection.connect()
    jetstream = JetStream(connection, settings.nats.js_domain)
    store = MetaStore(jetstream, names, clock, RandomIdentifiers())
    loader = NatsLoader(jetstream, Layout.of(settings, names), store)
    await _require_incomplete(loader, place)
    await loader.begin(json.dumps(asdict(mark)).encode())
    if not embedded:
        # Only now is it known that nothing stands at the server: one that is refused leaves all as it was.
        place.begin(mark, contents.files, embedded=False, aside=aside)
    return jetstream, loader, store


async def _require_incomplete(loader: NatsLoader, place: RestorePlace) -> None:
    """An attempt may have been cut off when nothing was left to do but to remove its mark."""
    mark = place.unfinished()
    if mark is not None and await loader.is_complete(mark.ledger_id, mark.epoch):
        place.end()
        raise StartupError("the restore before this one was complete but for its mark, which is removed now")


def _context(mark: RestoreMark) -> Context:
    return Context(now=SystemClock().now(), actor=ACTOR, transition_id="", epoch=mark.epoch)


async def _fill(
    run: Restore, loader: NatsLoader, jetstream: JetStream, settings: Settings, told: Told
) -> None:
    image = NatsImage(jetstream, Names.of(settings.nats))
    try:
        await run.load(loader, told)
        await run.check_trail(image)
        await loader.open_trail()
        await run.check(image)
    except PortError as error:
        raise StartupError(f"the restore is not complete, run it again: {error}") from error


async def _sign(
    settings: Settings,
    store: MetaStore,
    jetstream: JetStream,
    mark: RestoreMark,
    contents: Contents,
    file: Path,
) -> None:
    """Make sure that the keys are this ledger's, and tell the trail, signed."""
    keys = load_or_create_keys(settings.state_dir / "keys", first_start=False)
    for name, own in (("token_key", keys.key_id), ("token_secret", keys.secret_id)):
        standing = await store.agree(name, own)
        if standing != own:
            raise StartupError(
                f"keys: the backup's {name} is {own}, but its tokens were made with {standing}"
            )
    signer = await open_checkpoint_signer(settings, store)
    restoration = Restoration(
        ledger_id=mark.ledger_id,
        epoch=mark.epoch,
        backup_created_at=contents.manifest.created_at,
        restored_at=SystemClock().now(),
    )
    trail = Trail(NatsAuditLog(jetstream, Names.of(settings.nats)), SystemClock(), RandomIdentifiers())
    facts: dict[str, JsonValue] = {"backup_created_at": mark.backup_created_at, "epoch": mark.epoch}
    facts |= signed_facts(signer, restoration)
    await trail.note(EventType.RESTORED, Caller(ACTOR), reason=f"restored from {file.name}", metadata=facts)
