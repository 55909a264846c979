"""Import: services that report elsewhere so far, registered here with the source `config`.

They are pending, and active at their first heartbeat. Run again, it changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from jetway.core.errors import Code, RefusedError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.importing import Imported, Verdict, judge
from jetway.services.caller import Caller
from jetway.services.issue import Issuer, NewService

_AT_ONCE = 32
_CREATES = frozenset({Imported.CREATED, Imported.ADOPTED})


class Importer:
    """Imports rows in the order of the hierarchy, whatever their own order is."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def run(
        self,
        caller: Caller,
        rows: Sequence[NewService],
        *,
        dry_run: bool,
        planned: Collection[ServiceKey] = (),
    ) -> Sequence[Verdict]:
        """What became of each row, or with `dry_run` would. Raises PortErrors where the ledger is away.

        `planned`: services that an earlier part of the same dry run would create.
        """
        verdicts: dict[int, Verdict] = {}
        coming = set(planned) if dry_run else set()
        seen: dict[ServiceKey, int] = {}
        for kind in ServiceType:
            numbers = [number for number, row in enumerate(rows) if row.service_type is kind]
            fresh = [number for number in numbers if seen.setdefault(_key(rows[number]), number) == number]
            for number in set(numbers).difference(fresh):
                verdicts[number] = Verdict(Imported.REFUSED, "another row has this id already", "service_id")
            found = await self._all(caller, [rows[n] for n in fresh], coming, dry_run=dry_run)
            verdicts |= zip(fresh, found, strict=True)
            if dry_run:
                created = [n for n in fresh if verdicts[n].outcome is Imported.CREATED]
                coming |= {_key(rows[number]) for number in created}
        return [verdicts[number] for number in range(len(rows))]

    async def _all(
        self, caller: Caller, rows: Iterable[NewService], coming: Collection[ServiceKey], *, dry_run: bool
    ) -> list[Verdict]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(row: NewService) -> Verdict:
            async with gate:
                return await self._one(caller, row, coming, dry_run=dry_run)

        # All of them are let come to their end, lest a row is half done when the answer says why it failed.
        done = await asyncio.gather(*map(one, rows), return_exceptions=True)
        failed = [each for each in done if isinstance(each, BaseException)]
        if failed:
            raise failed[0]
        return [each for each in done if isinstance(each, Verdict)]

    async def _one(
        self, caller: Caller, row: NewService, coming: Collection[ServiceKey], *, dry_run: bool
    ) -> Verdict:
        try:
            verdict = judge(await self._issuer.find(row), row.parent_id, _said(row))
            if verdict.outcome not in _CREATES:
                return verdict
            if dry_run:
                await self._issuer.check(row, parent_planned=_parent(row) in coming)
                return verdict
            return await self._register(caller, row, verdict)
        except RefusedError as error:
            refused = error.refused
            return Verdict(Imported.REFUSED, refused.why, _FIELDS.get(refused.field, refused.field))

    async def _register(self, caller: Caller, row: NewService, verdict: Verdict) -> Verdict:
        try:
            await self._issuer.register(caller, row, revive=False)
        except RefusedError as error:
            if error.refused.code is not Code.TAKEN:
                raise
            # Somebody else was quicker: what stands there now is judged as if it had always been there.
            now = judge(await self._issuer.find(row), row.parent_id, _said(row))
            if now.outcome in _CREATES:
                raise
            return now
        return verdict


_FIELDS: Mapping[str, str] = {"component_id": "service_id"}
"""What refusals call it, and what rows do."""


def _key(row: NewService) -> ServiceKey:
    return ServiceKey(row.service_type, row.service_id)


def _parent(row: NewService) -> ServiceKey | None:
    kind = row.service_type.parent_type
    return ServiceKey(kind, row.parent_id) if kind else None


def _said(row: NewService) -> dict[str, object]:
    """What the row says, by the record's names; what it leaves open is not said."""
    said: dict[str, object] = {
        "label": row.label if row.label != row.service_id else "",
        "site": row.site,
        "labels": dict(row.labels),
        "metadata": dict(row.metadata),
        "checker_kind": row.checker_kind,
        "checker_config": row.checker_config,
        "spiffe_identity": row.spiffe_id,
        "heartbeat_interval_seconds": row.heartbeat_interval_seconds,
    }
    return {name: value for name, value in said.items() if value not in ("", None, {})}
