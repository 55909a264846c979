"""Pollers, agents and checkers as another product keeps them in Proton: what an import reads.

Its streams have the names of ours and their ids and parents; other columns are taken where they are. They are read
as tables: `FROM pollers` alone would wait for what is yet to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jetway.adapters.database.proton_client import ProtonClient, Target
from jetway.adapters.database.proton_migrations import column_types
from jetway.adapters.database.proton_streams import PACK, VERSION, read_object
from jetway.core.errors import PortError

_PARENTS = {"poller": "", "agent": "poller_id", "checker": "agent_id"}
_TAKEN: Mapping[str, str] = {
    "label": "label",
    "site": "site",
    "checker_kind": "checker_kind",
    "spiffe_identity": "spiffe_id",
    "heartbeat_interval_seconds": "heartbeat_interval_seconds",
}
"""Their columns, and what an import calls them."""
_JSON = ("labels", "metadata")
_GONE = frozenset({"deleted", "revoked", "rejected", "purged"})


@dataclass(frozen=True, slots=True)
class ForeignService:
    """A service of another product. `why` says what is wrong with the field `problem`; empty: nothing."""

    fields: Mapping[str, Any]
    problem: str = ""
    why: str = ""


def read_services(target: Target) -> Iterator[ForeignService]:
    """All of them, parents first. Blocks. Raises PortError, also where there is no such stream."""
    client = ProtonClient(target)
    try:
        for kind in _PARENTS:
            yield from _read(client, kind)
    finally:
        client.close()


def _read(client: ProtonClient, kind: str) -> Iterator[ForeignService]:
    types = column_types(client, f"{kind}s")
    if types is None:
        raise PortError(f"there is no stream {kind}s in this database")
    parent = _PARENTS[kind]
    wanted = [f"{kind}_id", parent, "status", *_TAKEN, *_JSON]
    names = [name for name in wanted if name in types]
    for name in filter(None, (f"{kind}_id", parent)):
        if name not in names:
            raise PortError(f"the stream {kind}s has no column {name}")
    columns = ", ".join(f"`{name}`" for name in names)
    # Names are of the lists above alone, never of what somebody wrote. Of a key there may be a row for each day.
    newest = f"SELECT {columns} FROM table({kind}s) ORDER BY {VERSION} DESC LIMIT 1 BY `{kind}_id`"  # noqa: S608
    for row in sorted(client.select(newest), key=lambda row: str(row[0])):
        yield _service(kind, dict(zip(names, row, strict=True)))


def _service(kind: str, row: Mapping[str, Any]) -> ForeignService:
    parent = _PARENTS[kind]
    fields: dict[str, Any] = {"service_type": kind, "service_id": row[f"{kind}_id"]}
    if parent:
        fields["parent_id"] = row[parent]
    fields |= {ours: row[theirs] for theirs, ours in _TAKEN.items() if row.get(theirs)}
    status = row.get("status") or ""
    if status in _GONE:
        return ForeignService(fields, "status", f"it is {status} there")
    for name in _JSON:
        try:
            value = _object(row.get(name))
        except ValueError:
            return ForeignService(fields, name, "must be a JSON object")
        if value:
            fields[name] = value
    return ForeignService(fields)


def _object(value: Any) -> dict[str, Any]:
    """A JSON text or a map; other JSON, `null` above all, says nothing. Raises ValueError for what is no JSON."""
    found = value if isinstance(value, Mapping) else read_object(value)
    return {str(key): each for key, each in found.items() if key != PACK}
