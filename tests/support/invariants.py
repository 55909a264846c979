"""What must hold of the house whenever it is at rest, whatever went before: all of it seen from outside.

Nothing here asks the index or the services: what is derived is derived again from the ledger alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from jetway.core.documents import encode_document, has_document, render
from jetway.core.drift import row_facts
from jetway.core.identity import revoked_nats_keys
from jetway.core.ids import ServiceKey, ServiceType, document_key
from jetway.core.policy import GONE
from jetway.core.record import Cascade, EventType, PackageStatus, ServiceRecord, ServiceStatus
from jetway.core.rows import Counts, Presence, events_of, package_rows, service_row
from support.house import House

INTERVAL = 30
_ACTIVATING = {EventType.ACTIVATED, EventType.REACTIVATED}
_LEAVING = {ServiceStatus.REVOKED, ServiceStatus.DELETED}
_RETURNING = {EventType.ISSUED, EventType.REGISTERED}


def check_at_rest(house: House) -> None:
    """All of it, once workers and jobs have nothing left to do."""
    check_histories(house)
    check_nobody_outlives_a_parent(house)
    check_documents(house)
    check_rows(house)
    check_events(house)
    check_identities(house)


def records(house: House) -> dict[ServiceKey, ServiceRecord]:
    """What the ledger says now."""
    return {key: entry.record for key, entry in house.ledger.entries.items() if entry.record}


def histories(house: House) -> Mapping[ServiceKey, Sequence[ServiceRecord]]:
    """Every revision that was ever written, by key."""
    found: dict[ServiceKey, list[ServiceRecord]] = defaultdict(list)
    for change in house.ledger.changes.values:
        if change.record:
            found[change.key].append(change.record)
    return found


def check_histories(house: House) -> None:
    """Versions grow one by one, every status is explained, and nobody comes alive who must not."""
    for key, versions in histories(house).items():
        before: ServiceRecord | None = None
        for after in versions:
            _check_revision(key, before, after)
            before = after
        check_one_redeemer(versions)
        check_no_key_returns(versions)


def _check_revision(key: ServiceKey, before: ServiceRecord | None, after: ServiceRecord) -> None:
    change, name = after.transition, f"{key} revision {after.revision}"
    assert after.revision == (before.revision if before else 0) + 1, f"{name} is not the next"
    assert before is None or after.version > before.version, f"{name} goes back"
    assert change.events, f"{name} is explained by no event"
    assert change.from_status == (before.status if before else None), f"{name} came from elsewhere"
    assert change.to_status == after.status, f"{name} is not what its events say"
    was = before.status if before else None
    if after.status is ServiceStatus.ACTIVE and was is not ServiceStatus.ACTIVE:
        by_heartbeat = _ACTIVATING & set(change.events) and change.actor == f"heartbeat:{key}"
        assert by_heartbeat or EventType.STATUS_OVERRIDE in change.events, f"{name} is active without cause"
        if by_heartbeat:
            assert was not in _LEAVING, f"{name} came alive by a heartbeat"
            package = before.package if before else None
            assert not package or package.status is not PackageStatus.ISSUED, f"{name} skipped its token"
    if was in _LEAVING and after.status not in _LEAVING:
        assert _RETURNING & set(change.events), f"{name} came back by itself"


def check_one_redeemer(versions: Iterable[ServiceRecord]) -> None:
    """A package is delivered once, and to one."""
    delivered: Counter[str] = Counter()
    redeemers: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for record in versions:
        if EventType.DELIVERED in record.transition.events:
            delivered[record.transition.package_id] += 1
        for package in filter(None, (record.package, *record.earlier_packages)):
            if package.delivered_at:
                who = (package.bound_keys, package.delivered_to, package.delivered_at)
                redeemers[package.package_id].add(who)
    assert all(count == 1 for count in delivered.values()), f"delivered twice: {delivered}"
    assert all(len(who) == 1 for who in redeemers.values()), f"two redeemers: {redeemers}"


def check_nobody_outlives_a_parent(house: House) -> None:
    """No live child beneath one that is gone, and no cascade left undone."""
    now = records(house)
    for record in now.values():
        assert record.cascade is Cascade.NONE, f"the cascade of {record.key} never ends"
        parent = now.get(record.parent) if record.parent else None
        if record.live and record.parent:
            assert parent is not None, f"{record.key} has no parent"
            assert parent.status not in GONE, f"{record.key} outlives {parent.key}"


def check_documents(house: House) -> None:
    """Every document to the byte what the ledger makes of it, and no other."""
    now = records(house)
    children = _children(now)
    wanted = {
        document_key(record.lineage): encode_document(
            render(record, children[record.key], default_interval=INTERVAL)
        )
        for record in now.values()
        if has_document(record)
    }
    stored = {
        path: document.data
        for path, document in house.documents.documents.items()
        if document.data is not None and path.startswith("config/")
    }
    assert sorted(stored) == sorted(wanted), "documents are missing or left over"
    for path, data in wanted.items():
        assert stored[path] == data, f"{path} is {stored[path]!r}, not {data!r}"


def check_rows(house: House) -> None:
    """Every row what the ledger makes of it, and the presence that the house has in memory."""
    now = records(house)
    assert set(house.database.services) == set(now), "rows are missing or left over"
    packages = {}
    children = _children(now)
    for key, record in now.items():
        presence = house.presence.presence(key)
        wanted = service_row(record, presence, _counts(children, key), default_interval=INTERVAL)
        stored = house.database.services[key]
        assert row_facts(stored) == row_facts(wanted), f"the row of {key} is {stored}, not {wanted}"
        seen = Presence(stored.last_seen, stored.is_healthy, stored.version)
        assert seen == presence, f"{key} was heard {presence}, its row says {seen}"
        packages |= {package.package_id: package for package in package_rows(record)}
    for package_id, package in packages.items():
        assert house.database.packages.get(package_id) == package, f"the row of package {package_id}"
    rest = set(house.database.packages) - set(packages)
    known = {p.package_id for v in histories(house).values() for r in v for p in package_rows(r)}
    assert rest <= known, f"packages that nobody has: {rest - known}"


def check_events(house: House) -> None:
    """Every event of the ledger and of the audit log once, and no other."""
    wanted = {e.event_id: e for v in histories(house).values() for record in v for e in events_of(record)}
    wanted |= {event.event_id: event for event in house.audit.events}
    assert house.database.events == wanted, "the trail is not what happened"


def check_identities(house: House) -> None:
    """Only who is in has an identity, and NATS is told of all that were revoked."""
    now = records(house)
    for record in now.values():
        identity, package = record.identity, record.package
        if identity is None:
            continue
        assert record.live, f"{record.key} is out and has an identity"
        assert identity.nats_public_key not in _revoked_keys(record), f"{record.key} has a revoked key"
        if identity.sealed_seed or identity.nats_jwt:
            retried = package is not None and package.package_id == identity.package_id
            assert retried, f"{record.key} keeps what nobody may ask for"
            assert package is not None
            had_another = any(earlier.delivered_at for earlier in record.earlier_packages)
            asked = package.status is PackageStatus.DELIVERED or (
                package.status is PackageStatus.ACTIVATED and had_another and not identity.proven
            )
            assert asked, f"{record.key} keeps what nobody may ask for"
    # What expires soon may have been left out while the clock was ahead.
    wanted = revoked_nats_keys(now.values(), house.clock.now() + timedelta(days=4))
    told = house.nats_account.revoked
    assert wanted.items() <= told.items(), f"NATS knows {told}, not {wanted}"
    current = {record.identity.nats_public_key for record in now.values() if record.identity}
    assert not current & set(told), "NATS refuses who is in"


def check_no_key_returns(versions: Iterable[ServiceRecord]) -> None:
    """What was revoked once never is a service's identity again."""
    gone: set[str] = set()
    for record in versions:
        identity = record.identity
        if identity is not None:
            assert identity.nats_public_key not in gone, f"{record.key}: a revoked key is back"
        gone |= _revoked_keys(record)


def _revoked_keys(record: ServiceRecord) -> set[str]:
    return {each.nats_public_key for each in record.revoked_identities} - {""}


def _children(now: Mapping[ServiceKey, ServiceRecord]) -> Mapping[ServiceKey, list[ServiceKey]]:
    """Who stands beneath whom, deleted ones left out."""
    children: dict[ServiceKey, list[ServiceKey]] = defaultdict(list)
    for record in now.values():
        if record.parent and record.status is not ServiceStatus.DELETED:
            children[record.parent].append(record.key)
    return children


def _counts(children: Mapping[ServiceKey, Sequence[ServiceKey]], key: ServiceKey) -> Counts:
    direct = children[key]
    if key.service_type is ServiceType.POLLER:
        return Counts(agents=len(direct), checkers=sum(len(children[agent]) for agent in direct))
    return Counts(checkers=len(direct))
