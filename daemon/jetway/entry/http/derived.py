"""What is derived from the ledger: compared with it, or written anew."""

from __future__ import annotations

from jetway.entry.http import answers as a
from jetway.entry.http.api import Call, route
from jetway.entry.http.auth import Role
from jetway.entry.http.doors import Doors

_TAG = "derived data"
_REPROJECT = "/api/admin/reproject"


class DerivedRoutes:
    """The routes of /api/admin/reconcile and /api/admin/reproject."""

    def __init__(self, doors: Doors) -> None:
        self._reconciler = doors.reconciler
        self._reprojector = doors.reprojector

    @route("POST", "/api/admin/reconcile", tag=_TAG, role=Role.OPERATOR, errors=(409,), seconds=600)
    async def reconcile(self) -> a.Reconciled:
        """Compare documents, rows and the audit trail with the ledger, and mend what differs.

        The daemon does so by itself every `lifecycle.reconcile_interval`. 409 while a run is under way.
        """
        return a.Reconciled.model_validate(await self._reconciler.run())

    @route("POST", _REPROJECT, tag=_TAG, role=Role.ADMIN, status=202, errors=(409,))
    async def start_reproject(self, call: Call) -> a.Reprojection:
        """Begin to write all documents and rows anew from the ledger, whatever they look like.

        A checker's configuration that a person changed is kept. 409 while a run is under way.
        """
        return a.Reprojection.model_validate(self._reprojector.start(call.caller))

    @route("GET", _REPROJECT, tag=_TAG, role=Role.ADMIN)
    async def get_reproject(self) -> a.Reprojection:
        """How far it is."""
        return a.Reprojection.model_validate(self._reprojector.state)
