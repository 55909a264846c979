"""Any sequence of commands, heartbeats, crashes, faults and clocks: what must always hold does.

`JETWAY_EXAMPLES=5000` tries that many sequences, other ones each time; without it they are few, and the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from jetway.core import commands as c
from jetway.core.documents import decode_document, version_of
from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.heartbeat import Beat, Payload
from jetway.core.ids import Lineage, ServiceKey, ServiceType, document_key
from jetway.core.record import PackageStatus, ServiceRecord, ServiceStatus
from jetway.core.renewal import make_request, parse_request
from jetway.entry.heartbeats import HeartbeatDoor
from jetway.entry.shares import sender_shares
from jetway.ports import HeartbeatMessage
from jetway.services.administer import Affected
from jetway.services.caller import SYSTEM
from jetway.services.identities import HostKeys
from jetway.services.issue import Issued
from jetway.services.observe import Verdict
from jetway.services.redeem import RedeemAnswer
from support.authorities import sign
from support.harness import Fault, FaultyHouse
from support.house import ALICE, new_service
from support.invariants import check_at_rest, check_histories, histories, records
from support.virtual_time import VirtualLoop

EXAMPLES = os.environ.get("JETWAY_EXAMPLES", "")
POLLER, AGENT, CHECKER = ServiceType
PREFIX = "edge.heartbeat"
SHARED = "one-key-for-all"
"""A key that is sent with any package; the others are made for one, as `jetway join` does it."""

LINEAGES = [
    *(Lineage(POLLER, p) for p in ("p1", "p2")),
    *(Lineage(AGENT, p, a) for p in ("p1", "p2") for a in ("a1", "a2")),
    *(Lineage(CHECKER, p, a, "c1") for p in ("p1", "p2") for a in ("a1", "a2")),
]
"""Every id beneath every parent: half of the heartbeats name the wrong ones."""


class Call:
    """One operation with its arguments, shown as such in a failure."""

    def __init__(self, method: str, *arguments: Any) -> None:
        self.method = method
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"Call({', '.join(map(repr, (self.method, *self.arguments)))})"

    def on(self, machine: AnySequence) -> Awaitable[Any]:
        made: Awaitable[Any] = getattr(machine, self.method)(*self.arguments)
        return made


def operation(method: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(Call, st.just(method), *arguments)


lineages = st.sampled_from(LINEAGES)
keys = st.sampled_from(sorted({lineage.key for lineage in LINEAGES}))
nth = st.integers(0, 30)
"""Which of those that there are, the newest first."""
cascade = st.booleans()

operations = st.one_of(
    operation("bring_up", lineages),
    operation("bring_up", lineages),
    operation("create", lineages, st.sampled_from([None, None, "i-1", "i-2"])),
    operation("create", lineages, st.none()),
    operation("create_again", nth),
    operation("redeem", nth, st.sampled_from(["", "key-1", "key-2", SHARED])),
    operation("redeem", st.just(0), st.sampled_from(["", "key-1", "key-1"])),
    operation("beat", lineages, st.sampled_from([0, 0, 0, 45, -5, 7200])),
    operation("beat_the_newest", st.sampled_from([0, 30])),
    operation("batch", st.sampled_from(["p1", "p2"]), st.lists(lineages, max_size=4)),
    operation("revoke", keys, cascade),
    operation("revoke_package", nth, cascade),
    operation("override", keys, st.sampled_from(ServiceStatus), cascade),
    operation("reissue", nth, st.booleans()),
    operation("renew", lineages, st.integers(0, 2)),
    operation("delete", keys, cascade),
    operation("delete_package", nth),
    operation("register", lineages),
    operation("approve", keys),
    operation("reject", keys),
    operation("pass_time", keys, st.sampled_from([c.Deactivate(), c.ExpirePending(), c.Archive()])),
    operation("jobs"),
)


class AnySequence(RuleBasedStateMachine):
    """The house, and beside it what has been acknowledged to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(capture_logs())
        self.loop = VirtualLoop()
        self.stack.callback(self.loop.close)
        self.issued: list[Issued] = []
        self.kept: list[ServiceRecord] = []
        self.delivered: dict[str, tuple[str, dict[str, Any]]] = {}
        self.requests: list[tuple[Lineage, str]] = []
        self.idempotent: dict[tuple[Any, ...], tuple[str, str]] = {}
        self.spoke: set[tuple[ServiceKey, int]] = set()
        self.versions: dict[tuple[str, Any], tuple[int, int]] = {}
        self.heard: dict[tuple[ServiceKey, int], datetime] = {}
        self.alone = True
        self.run(self._begin())

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _begin(self) -> None:
        self.house = FaultyHouse(implicit_limit=3)
        await self.house.start()

    # --- what happens

    @initialize(there=st.sets(lineages, max_size=4))
    def begin(self, there: set[Lineage]) -> None:
        for lineage in sorted(there, key=lambda lineage: lineage.ids):
            self.run(self._try(Call("bring_up", lineage)))

    @rule(operation=operations)
    def one(self, operation: Call) -> None:
        self.run(self._try(operation))

    @rule(operation=operations)
    def another(self, operation: Call) -> None:
        self.run(self._try(operation))

    @rule(several=st.lists(operations, min_size=2, max_size=4))
    def several_at_once(self, several: list[Call]) -> None:
        self.run(self._try(*several))

    @rule(operation=operations, calls=st.integers(0, 12), fault=st.sampled_from(Fault))
    def one_with_a_fault_near(self, operation: Call, calls: int, fault: Fault) -> None:
        faults = self.house.faults
        faults.armed = True
        faults.plan = {len(faults.calls) + calls: fault}
        self.run(self._try(operation))

    @rule(seconds=st.sampled_from([1, 31, 600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.house.clock.advance(seconds)

    @rule(hours=st.sampled_from([-30, -1, 1, 30]))
    def the_clock_is_set(self, hours: int) -> None:
        self.house.clock.set_wall(self.house.clock.now() + timedelta(hours=hours))

    @rule()
    def crash(self) -> None:
        self.run(self.house.restart())

    @rule()
    def the_feeds_deliver_again(self) -> None:
        self.run(self._again(self.house.deliver_again))

    @rule()
    def all_comes_to_rest(self) -> None:
        self.run(self._check_at_rest())

    @rule(what=st.sampled_from(["documents", "rows", "events"]), which=nth)
    def somebody_damages_what_is_derived(self, what: str, which: int) -> None:
        self.run(self._damage_and_mend(what, which))

    # --- the operations

    async def create(self, lineage: Lineage, idempotency_key: str | None) -> Issued:
        if idempotency_key:
            self.requests.append((lineage, idempotency_key))
        try:
            issued = await self.house.create(
                lineage.key, parent_id=lineage.parent_id, idempotency_key=idempotency_key
            )
        except RefusedError as error:
            answered = (lineage.key, idempotency_key) in self.idempotent
            assert not (answered and error.refused.code is Code.TAKEN), "the one who made it is refused"
            raise
        if idempotency_key:
            made = (issued.token, issued.package.package_id)
            assert self.idempotent.setdefault((lineage.key, idempotency_key), made) == made
        self.issued.append(issued)
        return issued

    async def create_again(self, number: int) -> Issued | None:
        """A client that got no answer, or that forgot it, asks again with the same key."""
        return await self.create(*self.requests[-1 - number % len(self.requests)]) if self.requests else None

    async def bring_up(self, lineage: Lineage) -> Verdict | None:
        """Create, redeem, first heartbeat: of the service, and of its parents if they are not there."""
        verdict = None
        for depth, kind in enumerate(ServiceType, 1):
            there = records(self.house).get(ServiceKey(kind, lineage.ids[depth - 1]))
            if there is None or there.status is ServiceStatus.DELETED or depth == len(lineage.ids):
                own = Lineage(kind, *lineage.ids[:depth])
                issued = await self.create(own, f"up-{len(self.requests)}")
                await self._redeem(issued, "key-1")
                verdict = await self.beat(own, 0)
            if depth == len(lineage.ids):
                break
        return verdict

    async def redeem(self, number: int, nats_key: str) -> RedeemAnswer | None:
        issued = self._nth_issued(number)
        return await self._redeem(issued, nats_key) if issued else None

    async def _redeem(self, issued: Issued, nats_key: str) -> RedeemAnswer:
        package_id = issued.package.package_id
        if nats_key and nats_key != SHARED:
            nats_key = f"{nats_key}-{package_id}"
        bound = HostKeys(nats_key).fingerprint
        try:
            answer = await self.house.redeem(issued.token, key=nats_key)
        except RefusedError as error:
            if error.refused.code is Code.ALREADY_REDEEMED:
                found = self.house.record(issued.record.key).find_package(package_id)
                assert found is not None
                assert found.status is PackageStatus.ACTIVATED or not bound or found.bound_keys != bound, (
                    "the one who has it does not get it again"
                )
            raise
        document = answer.document()
        before = self.delivered.setdefault(package_id, (nats_key, document))
        assert before == (nats_key, document), "two redeemers"
        assert before[1] is document or nats_key, "handed out twice to somebody without a key"
        return answer

    async def renew(self, lineage: Lineage, earlier: int) -> None:
        """With the service's key, or with one that it had before."""
        key = self._nats_key(lineage.key, earlier)
        data = make_request(
            lineage,
            nats_public_key=key,
            now=self.house.clock.now(),
            sign=lambda message: sign(key, message),
            csr_pem=f"csr {key}",
        )
        answer = await self.house.renewer.renew(parse_request(data))
        record = self.house.record(lineage.key)
        if self.alone:
            assert answer.creds
            assert record.live, "the credentials of one that is out were renewed"
            assert record.identity is not None
            assert record.identity.nats_public_key == key, "an old key renewed"

    def _nats_key(self, key: ServiceKey, earlier: int) -> str:
        record = records(self.house).get(key)
        if record is None:
            return SHARED
        known = [each.nats_public_key for each in (record.identity, *record.revoked_identities) if each]
        return known[earlier % len(known)] if known else SHARED

    async def beat(self, lineage: Lineage, late: int) -> Verdict:
        heard: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def answer(verdict: Verdict) -> None:
            if not heard.done():
                heard.set_result(verdict)

        self._note_speaker(lineage.key)
        now = self.house.clock.now()
        payload = Payload(timestamp=now, version=f"v{late}" if late else "")
        self.house.observer.observe(Beat(lineage, payload), now - timedelta(seconds=late), answer)
        try:
            async with asyncio.timeout(5):
                verdict = await heard
        except TimeoutError:
            raise UnavailableError("nobody answers") from None
        self._note_speaker(lineage.key)
        record = records(self.house).get(lineage.key)
        if verdict.refused is None and self.alone:
            assert record is not None
            assert record.status is ServiceStatus.ACTIVE
            assert record.lineage == lineage, "a foreigner was heard"
        return verdict

    async def beat_the_newest(self, late: int) -> Verdict | None:
        issued = self._nth_issued(0)
        return await self.beat(issued.record.lineage, late) if issued else None

    async def batch(self, poller: str, heard: list[Lineage]) -> None:
        house = self.house
        shares = sender_shares(house.clock)
        door = HeartbeatDoor(house.observer, NoReplies(), house.clock, PREFIX, shares)
        entries = ",".join(
            f'{{"service_type":"{x.service_type.value}","poller_id":"{x.poller_id}"'
            + (f',"agent_id":"{x.agent_id}"' if x.agent_id else "")
            + (f',"checker_id":"{x.checker_id}"' if x.checker_id else "")
            + "}"
            for x in heard
        )
        before = {x.key: house.presence.presence(x.key) for x in heard if x.poller_id != poller}
        door.take(HeartbeatMessage(f"{PREFIX}.batch.{poller}", f'{{"heartbeats":[{entries}]}}'.encode()))
        own = {x.key for x in heard if x.poller_id == poller}
        for key, presence in before.items():
            assert key in own or house.presence.presence(key) == presence, "a foreign entry was heard"
        for key in own:
            self._note_speaker(key)
        await house.rest()
        for key in own:
            self._note_speaker(key)

    async def revoke(self, key: ServiceKey, cascade: bool) -> Affected:
        return self._taken_out(await self.house.revoke(key, cascade=cascade))

    async def revoke_package(self, number: int, cascade: bool) -> Affected | None:
        issued = self._nth_issued(number)
        if issued is None:
            return None
        administrator, package_id = self.house.administrator, issued.package.package_id
        return self._taken_out(
            await administrator.revoke_package(
                ALICE, package_id, reason="stolen", cascade=cascade, dry_run=False
            )
        )

    async def override(self, key: ServiceKey, status: ServiceStatus, cascade: bool) -> Affected:
        return await self.house.administrator.override(ALICE, key, status, reason="by hand", cascade=cascade)

    async def reissue(self, number: int, revoke_now: bool) -> Issued | None:
        issued = self._nth_issued(number)
        if issued is None:
            return None
        again = await self.house.issuer.reissue(ALICE, issued.package.package_id, revoke_now=revoke_now)
        self.issued.append(again)
        return again

    async def delete(self, key: ServiceKey, cascade: bool) -> Affected:
        return self._taken_out(
            await self.house.administrator.delete(ALICE, key, reason="gone", cascade=cascade)
        )

    async def delete_package(self, number: int) -> None:
        issued = self._nth_issued(number)
        if issued:
            await self.house.administrator.delete_package(ALICE, issued.package.package_id)

    async def register(self, lineage: Lineage) -> ServiceRecord:
        service = new_service(lineage.key, parent_id=lineage.parent_id)
        return await self.house.issuer.register(ALICE, service)

    async def approve(self, key: ServiceKey) -> ServiceRecord:
        return await self.house.administrator.approve(ALICE, key, "known")

    async def reject(self, key: ServiceKey) -> ServiceRecord:
        return await self.house.administrator.reject(ALICE, key, "unknown")

    async def pass_time(self, key: ServiceKey, command: c.Command) -> ServiceRecord:
        return (await self.house.recorder.apply(key, command, SYSTEM)).after

    async def jobs(self) -> None:
        await self.house.run_jobs()

    # --- how they are carried out

    def _note_speaker(self, key: ServiceKey) -> None:
        record = records(self.house).get(key)
        self.spoke.add((key, record.incarnation if record else 1))

    def _nth_issued(self, number: int) -> Issued | None:
        return self.issued[-1 - number % len(self.issued)] if self.issued else None

    def _taken_out(self, affected: Affected) -> Affected:
        now = records(self.house)
        for record in now.values() if affected.complete and self.alone else ():
            if record.live and record.parent and not now[record.parent].live:
                assert record.parent != affected.record.key, "told complete, and a child lives"
        return affected

    async def _carry_out(self, operation: Call) -> None:
        try:
            answer = await operation.on(self)
        except RefusedError as error:
            assert error.refused.why
            return
        record = answer if isinstance(answer, ServiceRecord) else getattr(answer, "record", None)
        if record is not None:
            self.kept.append(record)

    async def _try(self, *operations: Call) -> None:
        async def work() -> None:
            await asyncio.gather(*(self._carry_out(operation) for operation in operations))

        self.alone = len(operations) == 1
        await self._again(work)

    async def _again(self, work: Callable[[], Awaitable[Any]]) -> None:
        async def once() -> None:
            await work()

        if (await self.house.attempt(once())).interrupted:
            await self.house.restart()

    # --- what must hold

    @invariant()
    def histories_are_explained(self) -> None:
        check_histories(self.house)

    @invariant()
    def what_was_acknowledged_stands(self) -> None:
        versions = {(r.key, *r.version): r for v in histories(self.house).values() for r in v}
        for record in self.kept:
            assert versions.get((record.key, *record.version)) == record, "acknowledged and lost"

    @invariant()
    def nothing_goes_back(self) -> None:
        house = self.house
        seen: dict[tuple[str, Any], tuple[int, int]] = {}
        for key, record in records(house).items():
            seen["ledger", key] = record.version
            stored = house.documents.documents.get(document_key(record.lineage))
            document = decode_document(stored.data) if stored and stored.data is not None else None
            if document is not None:
                seen["document", document_key(record.lineage)] = version_of(document)
        for key, row in house.database.services.items():
            seen["row", key] = (row.epoch, row.revision)
            if row.last_seen is not None:
                assert (key, row.incarnation) in self.spoke, f"{key} was never heard in this life"
                before = self.heard.get((key, row.incarnation), row.last_seen)
                assert row.last_seen >= before, f"{key} was heard {before}, then {row.last_seen}"
                self.heard[key, row.incarnation] = row.last_seen
        for what, version in seen.items():
            assert version >= self.versions.get(what, (0, 0)), f"{what} went back"
        self.versions |= seen

    async def _check_at_rest(self) -> None:
        house = self.house
        house.faults.armed = False
        if house.faults.struck:  # somebody may hang
            house.faults.struck.clear()
            await house.restart()
        for _ in range(2):
            await house.rest()
            await house.run_jobs()
        assert await house.rest()
        check_at_rest(house)
        assert house.index.records == records(house)
        report = await house.compare()
        assert (report.findings, report.errors) == ((), ())

    async def _damage_and_mend(self, what: str, which: int) -> None:
        await self._check_at_rest()
        house = self.house
        targets: dict[str, Any] = {
            "documents": {k: d for k, d in house.documents.documents.items() if d.data is not None},
            "rows": house.database.services,
            "events": {i: e for i, e in house.database.events.items() if e.revision},
        }
        if not targets[what]:
            return
        name = sorted(targets[what])[which % len(targets[what])]
        if what == "documents":
            await house.documents.write(name, b"{}", house.documents.documents[name].sequence)
        elif what == "rows":
            del house.database.services[name]
        else:
            event = house.database.events[name]
            for twin in [e for e in house.database.events.values() if _revision(e) == _revision(event)]:
                del house.database.events[twin.event_id]
        report = await house.compare()
        assert report.findings
        assert (report.errors, report.gaps_open) == ((), 0)
        await self._check_at_rest()

    def teardown(self) -> None:
        try:
            self.run(self._check_at_rest())
        finally:
            self.run(self.house.crash())
            self.run(self.loop.shutdown_asyncgens())
            self.stack.close()


class NoReplies:
    """Implements `ports.Replies`: nobody asks."""

    async def reply(self, subject: str, data: bytes) -> None:
        raise AssertionError(f"{subject} was answered")


def _revision(event: Any) -> tuple[Any, ...]:
    return (event.service_type, event.service_id, event.epoch, event.revision)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=int(EXAMPLES or 400),
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    phases=[Phase.generate, Phase.shrink],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
