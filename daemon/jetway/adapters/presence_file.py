"""The presence snapshot in the state directory: when heartbeats could be heard, and who was heard when.

A first line that says what it is, lines of some hundred services each, and a last line that is the SHA-256 of all
before it. It is replaced in one step, so it is there as a whole or as it was before. It is worth little by itself,
as the database knows nearly the same: one that is damaged is passed over with a warning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from jetway.adapters.statedir import atomic_write
from jetway.core.errors import UnavailableError
from jetway.core.heard import Interval
from jetway.core.ids import ServiceKey
from jetway.core.liveness import Liveness
from jetway.core.turns import TURN_BYTES
from jetway.ports import PresenceSnapshot, RememberedService

log = structlog.get_logger()

SNAPSHOT_FILE = "presence.snapshot"
_VERSION = 2
_READ = (1, _VERSION)
"""The first had no turns."""
_LINE_SERVICES = 500
_MOST_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PresenceFile:
    """Implements `ports.PresenceStore` for one ledger in one of its epochs: another one's is not read."""

    path: Path
    ledger_id: str
    epoch: int

    def load(self) -> PresenceSnapshot | None:
        """The snapshot, None where there is none that can be used. Blocks, and never raises."""
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            return self._parse(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            log.warning(
                "the presence snapshot is not used: what the database knows stands in",
                action="presence_snapshot_unused",
                file=str(self.path),
                error=str(error),
            )
            return None

    def save(self, snapshot: PresenceSnapshot) -> None:
        """Replace it; durable when this returns. Blocks; raises UnavailableError."""
        lines = [self._header(snapshot), *_lines(snapshot)]
        body = b"".join(lines)
        try:
            atomic_write(self.path, body + hashlib.sha256(body).hexdigest().encode() + b"\n", 0o600)
        except OSError as error:
            raise UnavailableError(f"{self.path} cannot be written: {error.strerror}") from error

    def _header(self, snapshot: PresenceSnapshot) -> bytes:
        heard = [[_milliseconds(one.since), _milliseconds(one.until)] for one in snapshot.heard]
        fields = {"version": _VERSION, "ledger_id": self.ledger_id, "epoch": self.epoch, "heard": heard}
        if snapshot.turns_since is not None:
            fields["turns_since"] = _milliseconds(snapshot.turns_since)
        return json.dumps(fields).encode() + b"\n"

    def _parse(self, data: bytes) -> PresenceSnapshot | None:
        body, told = data[:-65], data[-65:]
        if told != hashlib.sha256(body).hexdigest().encode() + b"\n":
            raise ValueError("its checksum is wrong")
        first, *lines = body.splitlines()
        header = json.loads(first)
        is_own = (header["ledger_id"], header["epoch"]) == (self.ledger_id, self.epoch)
        if header["version"] not in _READ or not is_own:
            log.info("the presence snapshot is of another ledger", action="presence_snapshot_foreign")
            return None
        heard = tuple(Interval(_moment(since), _moment(until)) for since, until in header["heard"])
        since = header.get("turns_since")
        return PresenceSnapshot(
            heard,
            [_service(row) for line in lines for row in json.loads(line)],
            None if since is None else _moment(since),
        )


def _lines(snapshot: PresenceSnapshot) -> Iterator[bytes]:
    services = iter(snapshot.services)
    while some := list(islice(services, _LINE_SERVICES)):
        yield json.dumps([_row(one) for one in some], separators=(",", ":")).encode() + b"\n"


def _row(one: RememberedService) -> list[Any]:
    row = [
        str(one.key),
        _milliseconds(one.last_seen),
        one.verdict.value,
        one.interval_seconds,
        one.incarnation,
    ]
    told = (one.beats, one.instance_id, one.source_ip)
    if any(told):
        return [*row, one.turns.hex(), told]
    return [*row, one.turns.hex()] if one.turns else row


def _service(row: Sequence[Any]) -> RememberedService:
    key, last_seen, verdict, interval, incarnation, *more = row
    packed = bytes.fromhex(more[0]) if more else b""
    beats, instance_id, source_ip = more[1] if len(more) > 1 else (0, "", "")
    if len(packed) % TURN_BYTES:
        raise ValueError(f"the turns of {key} are not whole")
    return RememberedService(
        ServiceKey.parse(key),
        _moment(last_seen),
        Liveness(verdict),
        None if interval is None else int(interval),
        int(incarnation),
        packed,
        int(beats),
        str(instance_id),
        str(source_ip),
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
