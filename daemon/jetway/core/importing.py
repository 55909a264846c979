"""What an import does about a service that is there already: nothing, and it says why.

An import brings in services that report elsewhere so far. What is known here is known better: it is never changed,
and what a person took out is never brought back. One exception: a service that only registered itself by its
heartbeats is adopted, since naming it in an import is what an approval asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from jetway.core.record import Approval, ServiceRecord, ServiceStatus, Source
from jetway.core.times import rfc3339


class Imported(StrEnum):
    """What became of a row."""

    CREATED = "created"
    ADOPTED = "adopted"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a row, why, and which field of it is to blame."""

    outcome: Imported
    why: str = ""
    field: str = ""


def judge(record: ServiceRecord | None, parent_id: str, said: Mapping[str, object]) -> Verdict:
    """What an import does. `said`: what the row says of the service, by the record's names of the fields."""
    if record is None:
        return Verdict(Imported.CREATED)
    out = _taken_out(record)
    if out:
        return Verdict(Imported.REFUSED, out, "service_id")
    if record.parent_id != parent_id:
        why = f"it stands beneath {record.parent_id!r} here: heartbeats that name {parent_id!r} are refused"
        return Verdict(Imported.REFUSED, why, "parent_id")
    if record.registration_source is Source.IMPLICIT:
        return Verdict(Imported.ADOPTED, "it had registered itself by its heartbeats")
    differing = [name for name, value in said.items() if getattr(record, name) != value]
    if record.registration_source is Source.CONFIG and not differing:
        return Verdict(Imported.UNCHANGED)
    came = f"it is {record.status.value} here, from {record.registration_source.value}"
    if differing:
        came += f"; {', '.join(differing)}: as here, not as in the row"
    return Verdict(Imported.KEPT, came)


def _taken_out(record: ServiceRecord) -> str:
    """Why a person would have to bring it back; empty where nobody took it out."""
    since = rfc3339(record.updated_at)
    if record.approval is Approval.REJECTED:
        return f"it was rejected ({since}); an import does not let it in"
    if record.status is ServiceStatus.REVOKED:
        return f"it was revoked ({since}); an import does not bring it back: reissue its package"
    if record.status is ServiceStatus.DELETED:
        return f"it was deleted ({since}); an import does not bring it back: create a package for it"
    return ""
