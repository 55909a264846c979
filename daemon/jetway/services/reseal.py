"""Reseal: whatever the records keep encrypted is encrypted again with the key that is now written with."""

from __future__ import annotations

from jetway.core import commands as c
from jetway.core.record import ServiceRecord
from jetway.ports import Vault
from jetway.services.caller import Caller
from jetway.services.identities import seed_context
from jetway.services.pace import Pace
from jetway.services.recorder import Applied, Recorder


class Resealer:
    """Goes over all records. Safe to repeat: what is done already is passed over."""

    def __init__(self, recorder: Recorder, vault: Vault) -> None:
        self._recorder = recorder
        self._vault = vault

    async def run(self, caller: Caller) -> int:
        """Seal anew what another key sealed; how many. The index must have read the ledger.

        Raises PortError where something cannot be opened or written; what was done stays done.
        """
        due, done, pace = [], 0, Pace()
        for record in list(self._recorder.index.records.values()):
            if self._is_due(record):
                due.append(record.key)
            await pace.breathe()
        for key in due:
            outcome = await self._recorder.attempt(key, self._command, caller)
            done += isinstance(outcome, Applied) and outcome.changed
        return done

    def _is_due(self, record: ServiceRecord) -> bool:
        identity = record.identity
        return bool(identity and identity.sealed_seed and not self._vault.is_current(identity.sealed_seed))

    def _command(self, record: ServiceRecord | None) -> c.Reseal:
        if record is None or record.identity is None or not self._is_due(record):
            return c.Reseal(sealed_before="", sealed_after="")
        before, context = record.identity.sealed_seed, seed_context(record.identity.package_id)
        after = self._vault.seal(self._vault.open(before, context=context), context=context)
        return c.Reseal(sealed_before=before, sealed_after=after)
