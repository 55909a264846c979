"""Whose NATS key is whose: one key serves one service, so that revoking one never cuts off another."""

from __future__ import annotations

from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceRecord
from jetway.services.index import Index


class KeyOwners:
    """The user keys of all services, current and former ones. It may trail the ledger by a moment."""

    def __init__(self, index: Index) -> None:
        self._owners: dict[str, ServiceKey] = {}
        index.on_change(self._follow)
        index.on_forget(self._forget)

    def is_of_another(self, nats_public_key: str, key: ServiceKey) -> bool:
        """Whether a service other than this one has, or had, the key."""
        return self._owners.get(nats_public_key, key) != key

    def _follow(self, before: ServiceRecord | None, after: ServiceRecord) -> None:
        if before is not None and _same_identities(before, after):
            return
        had, has = _keys(before) if before else set(), _keys(after)
        self._let_go(had - has, after.key)
        for new in has - had:
            self._owners.setdefault(new, after.key)

    def _forget(self, record: ServiceRecord) -> None:
        self._let_go(_keys(record), record.key)

    def _let_go(self, keys: set[str], key: ServiceKey) -> None:
        for gone in keys:
            if self._owners.get(gone) == key:
                del self._owners[gone]


def _same_identities(before: ServiceRecord, after: ServiceRecord) -> bool:
    same_now = before.identity is after.identity or before.identity == after.identity
    same_before = before.revoked_identities == after.revoked_identities
    return same_now and same_before and before.former_keys == after.former_keys


def _keys(record: ServiceRecord) -> set[str]:
    keys = {each.nats_public_key for each in record.revoked_identities}
    keys |= {key for key in record.former_keys if key.startswith("U")}
    if record.identity:
        keys.add(record.identity.nats_public_key)
    return keys - {""}
