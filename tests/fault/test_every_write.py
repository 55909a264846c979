"""Every call of every port fails, hangs, or is where the power goes: nothing is lost, nothing is half done.

Each scenario is run once without faults, which counts the calls. Then it is run again for every call and every
fault that makes a difference there; the house starts anew (or goes on, where it can), the client asks again as
a real one would, workers and jobs do theirs, and the whole is looked at from outside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest
from structlog.testing import capture_logs

from jetway.core.errors import Code, RefusedError, UnavailableError
from jetway.core.heartbeat import EMPTY, Beat
from jetway.core.ids import Lineage, ServiceKey
from jetway.core.record import Approval, Cascade, PackageStatus, ServiceRecord, ServiceStatus, Source
from jetway.core.renewal import RenewalAnswer, make_request, parse_request
from jetway.services import observe
from jetway.services.caller import Caller
from jetway.services.findings import ReconcileReport
from jetway.services.issue import Issued
from jetway.services.observe import Verdict
from jetway.services.redeem import RedeemAnswer
from support.authorities import sign
from support.builders import AGENT, CHECKER, LINEAGES, POLLER
from support.harness import Attempt, Fault, FaultyHouse, faults_for
from support.house import ALICE, PROJECTORS, new_service
from support.invariants import check_at_rest, histories
from support.virtual_time import run_virtually

TREE = (POLLER, AGENT, CHECKER)
KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
MONTH = timedelta(days=30)
SOON = timedelta(seconds=30)
PAIRS = 25
"""Pairs of faults that are tried for each scenario, always the same ones."""

Plan = Mapping[int, Fault]
Answer = TypeVar("Answer")


class Scenario:
    """What a client wants. One object is one client: it may remember what it was told."""

    settings: ClassVar[dict[str, Any]] = {}

    async def prepare(self, house: FaultyHouse) -> None:
        """The world before, without faults. Nothing is projected meanwhile."""

    async def damage(self, house: FaultyHouse) -> None:
        """What is done to it once it is at rest."""

    async def act(self, house: FaultyHouse) -> Any:
        """What the client asks for, the first time."""
        raise NotImplementedError

    async def again(self, house: FaultyHouse, answer: Any) -> Any:
        """What it does then. `answer` is None where it got none."""
        return answer if answer is not None else await self.act(house)

    async def check(self, house: FaultyHouse, answer: Any) -> None:
        """What must have become of it, once everything is at rest."""


def code_of(error: RefusedError) -> Code:
    return error.refused.code


def count(house: FaultyHouse, key: ServiceKey, event: str) -> int:
    return house.trail_of(key).count(event)


async def hear(house: FaultyHouse, lineage: Lineage) -> Verdict:
    """One heartbeat, sent as a request."""
    heard: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def answer(verdict: Verdict) -> None:
        if not heard.done():
            heard.set_result(verdict)

    house.observer.observe(Beat(lineage, EMPTY), house.clock.now(), answer)
    try:
        async with asyncio.timeout(5):
            return await heard
    except TimeoutError:
        raise UnavailableError("nobody answers") from None


async def reissued(house: FaultyHouse, key: ServiceKey) -> Issued:
    """What a person does whose token is lost."""
    record = house.index.get(key)
    assert record is not None
    assert record.package is not None
    return await house.issuer.reissue(ALICE, record.package.package_id)


async def redeemable(house: FaultyHouse, issued: Issued) -> None:
    """The token is worth something: once."""
    answer = await house.redeem(issued.token)
    assert answer.package.package_id == issued.package.package_id
    with pytest.raises(RefusedError) as caught:
        await house.redeem(issued.token)
    assert code_of(caught.value) is Code.ALREADY_REDEEMED


# --- coming in


class Create(Scenario):
    key = POLLER
    idempotency_key: str | None = None

    async def prepare(self, house: FaultyHouse) -> None:
        for key in TREE[: TREE.index(self.key)]:
            await house.activate(key)

    async def act(self, house: FaultyHouse) -> Issued:
        return await house.create(self.key, idempotency_key=self.idempotency_key)

    async def again(self, house: FaultyHouse, answer: Issued | None) -> Issued:
        if self.idempotency_key is not None:
            same = await self.act(house)
            assert answer is None or (same.token, same.package) == (answer.token, answer.package)
            return same
        if answer is not None:
            return answer
        try:
            return await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.TAKEN
            return await reissued(house, self.key)

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        record = house.record(self.key)
        assert (record.status, record.incarnation) == (ServiceStatus.PENDING, self.incarnation)
        assert record.package is not None
        assert record.package.package_id == answer.package.package_id
        assert record.package.status is PackageStatus.ISSUED
        assert count(house, self.key, "registered") == self.incarnation
        if self.idempotency_key is not None:
            assert record.package.generation == self.incarnation, "one package and no more"
        await redeemable(house, answer)

    incarnation = 1


class CreateWithKey(Create):
    idempotency_key = "k-1"


class CreateAgent(Create):
    key = AGENT


class CreateAgentWithKey(CreateAgent):
    idempotency_key = "k-1"


class CreateChecker(Create):
    key = CHECKER


class CreateCheckerWithKey(CreateChecker):
    idempotency_key = "k-1"


class CreateAnew(Create):
    """Over a deleted id, whose document and package are there."""

    idempotency_key = "k-2"
    incarnation = 2

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        await house.revoke(POLLER)
        await house.administrator.delete(ALICE, POLLER, reason="")

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        assert house.database.services[POLLER].last_seen is None, "another service was heard"
        await super().check(house, answer)


class Register(Scenario):
    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()

    async def act(self, house: FaultyHouse) -> ServiceRecord:
        return await house.issuer.register(ALICE, new_service(AGENT))

    async def again(self, house: FaultyHouse, answer: ServiceRecord | None) -> ServiceRecord:
        if answer is not None:
            return answer
        try:
            return await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.TAKEN
            return house.record(AGENT)

    async def check(self, house: FaultyHouse, answer: ServiceRecord) -> None:
        record = house.record(AGENT)
        assert (record.status, record.registration_source) == (ServiceStatus.PENDING, Source.CONFIG)
        assert house.trail_of(AGENT) == ["registered"]


class Quarantine(Scenario):
    """A checker that nobody knows, under parents that nobody knows: all three wait for approval."""

    async def act(self, house: FaultyHouse) -> Verdict:
        return await hear(house, LINEAGES[CHECKER.service_type])

    async def again(self, house: FaultyHouse, answer: Verdict | None) -> Verdict:
        return await self.act(house)

    async def check(self, house: FaultyHouse, answer: Verdict) -> None:
        assert (answer.refused, answer.known) == (Code.APPROVAL_REQUIRED, True)
        for key in TREE:
            record = house.record(key)
            assert (record.status, record.approval) == (ServiceStatus.PENDING, Approval.REQUIRED)
            assert house.trail_of(key) == ["registered"]


class Admission(Quarantine):
    """The same, where everybody is let in."""

    settings: ClassVar[dict[str, Any]] = {"implicit": "allow"}

    async def check(self, house: FaultyHouse, answer: Verdict) -> None:
        assert (answer.refused, answer.status) == (None, "active")
        assert [house.status(key) for key in TREE] == ["pending", "pending", "active"]
        assert [house.trail_of(key) for key in TREE[:2]] == [["registered"]] * 2
        assert house.trail_of(CHECKER) == ["registered", "activated"]


class Approve(Scenario):
    event, approval = "approved", Approval.GRANTED

    async def prepare(self, house: FaultyHouse) -> None:
        await hear(house, LINEAGES[AGENT.service_type])

    async def act(self, house: FaultyHouse) -> ServiceRecord:
        return await house.administrator.approve(ALICE, AGENT, "known")

    async def check(self, house: FaultyHouse, answer: ServiceRecord) -> None:
        assert house.record(AGENT).approval is self.approval
        assert house.trail_of(AGENT) == ["registered", self.event]


class Reject(Approve):
    event, approval = "rejected", Approval.REJECTED

    async def act(self, house: FaultyHouse) -> ServiceRecord:
        return await house.administrator.reject(ALICE, AGENT, "unknown")


class Adopt(Create):
    """A package for a service that waits in quarantine."""

    idempotency_key = "k-1"

    async def prepare(self, house: FaultyHouse) -> None:
        await hear(house, LINEAGES[POLLER.service_type])

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        await super().check(house, answer)
        assert house.trail_of(POLLER)[:3] == ["registered", "adopted", "issued"]


# --- being handed over


class Redeem(Scenario):
    nats_key = ""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        self.token = (await house.create(AGENT)).token

    async def act(self, house: FaultyHouse) -> RedeemAnswer:
        return await house.redeem(self.token, key=self.nats_key)

    async def again(self, house: FaultyHouse, answer: RedeemAnswer | None) -> RedeemAnswer:
        if answer is not None:
            return answer
        try:
            return await self.act(house)
        except RefusedError as error:
            assert code_of(error) in (Code.ALREADY_REDEEMED, Code.SUPERSEDED)
            self.token = (await reissued(house, AGENT)).token
            return await self.act(house)

    async def check(self, house: FaultyHouse, answer: RedeemAnswer) -> None:
        package = house.record(AGENT).package
        assert package is not None
        assert (package.status, package.package_id) == (PackageStatus.DELIVERED, answer.package.package_id)
        with pytest.raises(RefusedError) as caught:
            await house.redeem(self.token, key="another")
        assert code_of(caught.value) is Code.ALREADY_REDEEMED
        await house.settle()
        (refused,) = [e for e in house.events("redeem_refused") if e.package_id == package.package_id][-1:]
        assert refused.metadata["code"] == "already_redeemed"


class RedeemWithKey(Redeem):
    nats_key = KEY

    async def again(self, house: FaultyHouse, answer: RedeemAnswer | None) -> RedeemAnswer:
        same = await self.act(house)
        assert answer is None or same.document() == answer.document()
        return same

    async def check(self, house: FaultyHouse, answer: RedeemAnswer) -> None:
        await super().check(house, answer)
        assert count(house, AGENT, "delivered") == 1
        assert (await self.act(house)).document() == answer.document()


class RedeemWithBoth(RedeemWithKey):
    """A certificate as well: nothing is half made, and asking again gives the same."""

    async def act(self, house: FaultyHouse) -> RedeemAnswer:
        return await house.redeem(self.token, key=self.nats_key, csr="csr mine")

    async def check(self, house: FaultyHouse, answer: RedeemAnswer) -> None:
        await super().check(house, answer)
        identity = house.record(AGENT).identity
        assert identity is not None
        assert (identity.nats_public_key, len(identity.certificates)) == (KEY, 1)


class RedeemAnew(RedeemWithBoth):
    """With the package of a reissue: the identity of before ends with it, and not earlier."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        issued = await house.create(AGENT)
        await house.redeem(issued.token, key="U-old", csr="csr old")
        self.token = (await house.issuer.reissue(ALICE, issued.package.package_id)).token

    async def check(self, house: FaultyHouse, answer: RedeemAnswer) -> None:
        assert (await self.act(house)).document() == answer.document()
        record = house.record(AGENT)
        assert record.identity is not None
        assert record.identity.nats_public_key == KEY
        assert [each.nats_public_key for each in record.revoked_identities] == ["U-old"]
        assert set(house.nats_account.revoked) == {"U-old"}


class Renew(Scenario):
    async def prepare(self, house: FaultyHouse) -> None:
        await house.redeem((await house.create()).token, key=KEY, csr="csr mine")
        await hear(house, LINEAGES[POLLER.service_type])

    async def act(self, house: FaultyHouse) -> RenewalAnswer:
        request = make_request(
            LINEAGES[POLLER.service_type],
            nats_public_key=KEY,
            now=house.clock.now(),
            sign=lambda message: sign(KEY, message),
            csr_pem="csr mine",
        )
        return await house.renewer.renew(parse_request(request))

    async def check(self, house: FaultyHouse, answer: RenewalAnswer) -> None:
        identity = house.record(POLLER).identity
        assert identity is not None
        held = {each.serial for each in identity.certificates}
        assert answer.certificate_pem.split()[1] in held, "handed out, and could never be revoked"
        assert count(house, POLLER, "renewed") >= 1
        assert house.nats_account.revoked == {}


class Activate(Scenario):
    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        await house.redeem((await house.create(AGENT)).token)

    async def act(self, house: FaultyHouse) -> Verdict:
        house.clock.advance(30)
        return await hear(house, LINEAGES[AGENT.service_type])

    async def check(self, house: FaultyHouse, answer: Verdict) -> None:
        record = house.record(AGENT)
        assert (answer.status, record.status) == ("active", ServiceStatus.ACTIVE)
        assert record.package is not None
        assert record.package.status is PackageStatus.ACTIVATED
        assert house.trail_of(AGENT) == ["registered", "issued", "delivered", "activated"]
        assert record.first_seen is not None


class LastSeen(Scenario):
    """Heard and written down, and heard again, which a crash may forget. `last_seen` never goes back."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        house.clock.advance(60)
        await hear(house, LINEAGES[POLLER.service_type])
        await house.row_writer.flush_presence()
        self.before = house.database.services[POLLER].last_seen

    async def damage(self, house: FaultyHouse) -> None:
        house.clock.advance(60)
        await hear(house, LINEAGES[POLLER.service_type])

    async def act(self, house: FaultyHouse) -> bool:
        await house.row_writer.flush_presence()
        return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        seen = house.database.services[POLLER].last_seen
        assert seen is not None
        assert self.before is not None
        assert seen >= self.before


# --- coming back


class Reissue(Scenario):
    """Of a package that nobody has redeemed."""

    key = POLLER

    async def prepare(self, house: FaultyHouse) -> None:
        self.old = await house.create()

    async def act(self, house: FaultyHouse) -> Issued:
        return await house.issuer.reissue(ALICE, self.old.package.package_id, reason="lost")

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        record = house.record(self.key)
        assert record.status is ServiceStatus.PENDING
        packages = [p for p in (record.package, *record.earlier_packages) if p is not None]
        assert [p.status for p in packages].count(PackageStatus.ISSUED) == 1
        with pytest.raises(RefusedError) as caught:
            await house.redeem(self.old.token)
        assert code_of(caught.value) in (Code.SUPERSEDED, Code.REVOKED)
        await redeemable(house, answer)


class ReissueNow(Reissue):
    """Of an identity that shall end at once."""

    async def prepare(self, house: FaultyHouse) -> None:
        self.old = await house.create()
        await house.redeem(self.old.token, key=KEY)

    async def act(self, house: FaultyHouse) -> Issued:
        return await house.issuer.reissue(ALICE, self.old.package.package_id, revoke_now=True)

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        assert set(house.nats_account.revoked) == {KEY}
        await super().check(house, answer)


class ReissueRevoked(Reissue):
    key = AGENT

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        self.old = await house.create(AGENT)
        await house.revoke(AGENT)


# --- being taken out


class Revoke(Scenario):
    """The poller by its package, and all beneath it."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate_tree()
        package = house.record(POLLER).package
        assert package is not None
        self.package_id = package.package_id

    async def act(self, house: FaultyHouse) -> bool:
        affected = await house.administrator.revoke_package(
            ALICE, self.package_id, reason="stolen", cascade=True, dry_run=False
        )
        if affected.complete:
            assert [house.status(key) for key in TREE] == ["revoked"] * 3, "told complete, and somebody lives"
        return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        for key in TREE:
            record = house.record(key)
            assert record.status is ServiceStatus.REVOKED
            assert record.package is not None
            assert record.package.status is PackageStatus.REVOKED
            assert count(house, key, "revoked") == 1
            assert record.identity is None
            assert record.revoked_identities[0].nats_public_key in house.nats_account.revoked
            assert count(house, key, "cascade_completed") == (key is not CHECKER)
            assert (await hear(house, record.lineage)).refused is Code.REVOKED


class Override(Scenario):
    """A service without a package made active by hand."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.issuer.register(ALICE, new_service())

    async def act(self, house: FaultyHouse) -> bool:
        await house.administrator.override(ALICE, POLLER, ServiceStatus.ACTIVE, reason="old hand")
        return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        assert house.status(POLLER) == "active"
        assert house.trail_of(POLLER) == ["registered", "status_override"]


class Delete(Scenario):
    """An inactive poller with live children: they are revoked, it is deleted."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()
        await house.activate(AGENT)
        await house.administrator.override(ALICE, POLLER, ServiceStatus.INACTIVE, reason="")

    async def act(self, house: FaultyHouse) -> bool:
        await house.administrator.delete(ALICE, POLLER, reason="gone")
        return True

    async def again(self, house: FaultyHouse, answer: bool | None) -> bool:
        try:
            return answer or await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.ILLEGAL_TRANSITION
            return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        assert [house.status(key) for key in (POLLER, AGENT)] == ["deleted", "revoked"]
        assert count(house, POLLER, "deleted") == 1
        assert house.document(LINEAGES[POLLER.service_type]) is None


class DeletePackage(Scenario):
    async def prepare(self, house: FaultyHouse) -> None:
        self.package_id = (await house.create()).package.package_id
        await house.revoke(POLLER)

    async def act(self, house: FaultyHouse) -> bool:
        await house.administrator.delete_package(ALICE, self.package_id)
        return True

    async def again(self, house: FaultyHouse, answer: bool | None) -> bool:
        try:
            return answer or await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.NOT_FOUND
            return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        assert house.database.packages[self.package_id].deleted_at is not None
        assert count(house, POLLER, "package_deleted") == 1


class Expire(Scenario):
    """Nobody redeems, and time passes."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.create(token_ttl=timedelta(seconds=60))
        house.clock.advance(timedelta(days=5))

    async def act(self, house: FaultyHouse) -> bool:
        await house.sweeper.expire_packages()
        return True

    async def again(self, house: FaultyHouse, answer: bool | None) -> bool:
        house.clock.advance(timedelta(days=5))
        return await self.act(house)

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        package = house.record(POLLER).package
        assert package is not None
        assert package.status is PackageStatus.EXPIRED
        assert house.trail_of(POLLER) == ["registered", "issued", "expired"]


# --- two at once


async def later(work: Coroutine[Any, Any, Answer]) -> Answer:
    """After the other one, unless a call of that one is slow: then in the middle of it."""
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        work.close()
        raise
    return await work


class CreateWhileRevoked(Scenario):
    """A child comes while its parent goes."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate()

    async def act(self, house: FaultyHouse) -> bool:
        _, revoked = await asyncio.gather(
            self._create(house), later(house.revoke(POLLER)), return_exceptions=True
        )
        if isinstance(revoked, BaseException):
            raise revoked
        return True

    @staticmethod
    async def _create(house: FaultyHouse) -> None:
        try:
            issued = await house.create(AGENT, idempotency_key="k-1")
        except RefusedError as error:
            assert code_of(error) in (Code.PARENT_NOT_LIVE, Code.TAKEN)
        else:
            assert issued.record.live, "answered with a package that is dead"
            assert issued.package.status is PackageStatus.ISSUED
            parent = house.record(POLLER)
            done = parent.status is ServiceStatus.REVOKED and parent.cascade is Cascade.NONE
            assert not (done and house.record(AGENT).live), "created beneath a parent that was gone"

    async def again(self, house: FaultyHouse, answer: bool | None) -> bool:
        await self._create(house)
        await house.revoke(POLLER)
        return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        assert house.status(POLLER) == "revoked"
        assert house.status(AGENT) in ("-", "revoked", "deleted")


class ReissueWhileRedeemed(Scenario):
    """The old token is redeemed while a new one is issued: whoever comes later knows of the other."""

    async def prepare(self, house: FaultyHouse) -> None:
        self.old = await house.create()

    async def act(self, house: FaultyHouse) -> Issued:
        issued, redeemed = await asyncio.gather(
            later(house.issuer.reissue(ALICE, self.old.package.package_id)),
            house.redeem(self.old.token, key=KEY),
            return_exceptions=True,
        )
        if isinstance(issued, BaseException):
            raise issued
        if isinstance(redeemed, RefusedError):
            assert code_of(redeemed) is Code.SUPERSEDED
        return issued

    async def again(self, house: FaultyHouse, answer: Issued | None) -> Issued:
        return answer or await house.issuer.reissue(ALICE, self.old.package.package_id)

    async def check(self, house: FaultyHouse, answer: Issued) -> None:
        with pytest.raises(RefusedError) as caught:
            await house.redeem(self.old.token, key=KEY)
        assert code_of(caught.value) is Code.SUPERSEDED
        await redeemable(house, answer)


# --- what is not in a record


class CreateApiToken(Scenario):
    async def act(self, house: FaultyHouse) -> str:
        return (await house.api_tokens.create(ALICE, "ci", "operator"))[0]

    async def again(self, house: FaultyHouse, answer: str | None) -> str:
        await house.api_tokens.load()
        if answer is not None:
            return answer
        try:
            return await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.TAKEN
            await house.api_tokens.revoke(ALICE, "ci")
            return await self.act(house)

    async def check(self, house: FaultyHouse, answer: str) -> None:
        await house.api_tokens.load()
        token = house.api_tokens.authenticate(answer)
        assert token is not None
        assert [t.name for t in house.api_tokens.list()] == ["ci"]


class RevokeApiToken(Scenario):
    async def prepare(self, house: FaultyHouse) -> None:
        self.text, _ = await house.api_tokens.create(ALICE, "ci", "operator")

    async def act(self, house: FaultyHouse) -> bool:
        await house.api_tokens.revoke(ALICE, "ci")
        return True

    async def again(self, house: FaultyHouse, answer: bool | None) -> bool:
        await house.api_tokens.load()
        if answer is not None:
            assert house.api_tokens.authenticate(self.text) is None, "it ended at once"
            return answer
        try:
            return await self.act(house)
        except RefusedError as error:
            assert code_of(error) is Code.NOT_FOUND
            return True

    async def check(self, house: FaultyHouse, answer: bool) -> None:
        assert house.api_tokens.authenticate(self.text) is None


# --- mending


class Reconcile(Scenario):
    """A document, a row and an event are gone, another document is changed, one belongs to nobody."""

    async def prepare(self, house: FaultyHouse) -> None:
        await house.activate_tree()

    async def damage(self, house: FaultyHouse) -> None:
        stored = house.documents.documents
        path = "config/pollers/p1.json"
        stray = (stored[path].data or b"").replace(b'"p1"', b'"p2"')
        await house.documents.write("config/pollers/p2.json", stray, 0)
        await house.documents.write(path, b"{}", stored[path].sequence)
        agent = "config/pollers/p1/agents/a1.json"
        await house.documents.delete(agent, stored[agent].sequence)
        del house.database.services[CHECKER]
        del house.database.events[house.events("activated")[0].event_id]

    async def act(self, house: FaultyHouse) -> ReconcileReport:
        report = await house.compare()
        if report.errors:
            raise UnavailableError(report.errors[0])
        return report


class Reproject(Reconcile):
    async def damage(self, house: FaultyHouse) -> None:
        house.database.services.clear()
        for path, stored in list(house.documents.documents.items()):
            await house.documents.write(path, b"{}", stored.sequence)

    async def act(self, house: FaultyHouse) -> Any:
        house.reprojector.start(Caller("alice"))
        while house.reprojector.state.state == "running":  # noqa: ASYNC110 - people ask it, too
            await asyncio.sleep(0.1)
        if house.reprojector.state.error:
            raise UnavailableError(house.reprojector.state.error)
        return house.reprojector.state


SCENARIOS: list[type[Scenario]] = [
    Create, CreateWithKey, CreateAgent, CreateAgentWithKey, CreateChecker, CreateCheckerWithKey, CreateAnew,
    Register, Quarantine, Admission, Approve, Reject, Adopt,
    Redeem, RedeemWithKey, RedeemWithBoth, RedeemAnew, Renew, Activate, LastSeen,
    Reissue, ReissueNow, ReissueRevoked,
    Revoke, Override, Delete, DeletePackage, Expire,
    CreateWhileRevoked, ReissueWhileRedeemed,
    CreateApiToken, RevokeApiToken,
    Reconcile, Reproject,
]  # fmt: skip

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(observe, "_WORKERS", 4)  # thousands of starts, and never more than one heartbeat
    with capture_logs():
        yield


# --- running them


async def count_calls(scenario: Scenario) -> list[str]:
    """Every call of a port from the client's request until everything is at rest."""
    house = await prepared(scenario)
    house.faults.arm({})
    await endure(house, scenario, goes_on=True)
    return house.faults.calls[: house.first_calls]


async def prepared(scenario: Scenario) -> FaultyHouse:
    house = FaultyHouse(token_ttl=MONTH, **scenario.settings)
    await house.start()
    for name in PROJECTORS:  # one batch in the end is faster
        await house.stall(name)
    await scenario.prepare(house)
    for name in PROJECTORS:
        house.resume(name)
    await house.settle()
    await scenario.damage(house)
    return house


async def strike(scenario: Scenario, plan: Plan, *, goes_on: bool = False) -> None:
    """Run the scenario under these faults and see that all is well in the end."""
    house = await prepared(scenario)
    house.faults.arm(plan)
    await endure(house, scenario, goes_on=goes_on)


async def endure(house: FaultyHouse, scenario: Scenario, *, goes_on: bool) -> None:
    first = await house.attempt(scenario.act(house))
    at_rest = await house.rest(
        until=lambda: not goes_on and bool(house.faults.plan) and house.faults.all_struck
    )
    house.first_calls = len(house.faults.calls)
    if first.interrupted or not (goes_on and at_rest):
        await house.restart()
    told = [first.answer] if first else []
    final = await insist(house, scenario, first.answer)
    told.append(final)
    await finish(house)
    if len(house.faults.plan) == 1:
        assert house.faults.all_struck, "the fault never struck"
    house.faults.armed = False
    if len(house.faults.plan) > 1:  # one may have struck who only waits
        await house.restart()
        await finish(house)
    check_kept(house, told)
    await scenario.check(house, final)
    await finish(house)
    check_at_rest(house)
    report = await house.compare()
    assert (report.findings, report.errors) == ((), ())
    await house.crash()


async def insist(house: FaultyHouse, scenario: Scenario, answer: Any) -> Any:
    """Ask again until there is an answer."""
    for _ in range(len(house.faults.plan) + 2):
        attempt = await house.attempt(scenario.again(house, answer))
        if attempt:
            return attempt.answer
        if attempt.interrupted:
            await house.restart()
    raise AssertionError("the client never gets an answer")


async def finish(house: FaultyHouse) -> None:
    """Let workers and jobs do theirs, twice for those who failed."""
    attempt = Attempt()
    for _ in range(len(house.faults.plan) + 2):
        attempt = await house.attempt(house.run_jobs())
        at_rest = await house.rest()
        if attempt.interrupted or not at_rest:
            await house.restart()
    assert attempt
    assert await house.rest()


def check_kept(house: FaultyHouse, answers: list[Any]) -> None:
    """Whatever was said in an answer stands in the ledger."""
    versions = {(r.key, *r.version): r for v in histories(house).values() for r in v}
    for answer in answers:
        record = answer if isinstance(answer, ServiceRecord) else getattr(answer, "record", None)
        if isinstance(record, ServiceRecord):
            assert versions.get((record.key, *record.version)) == record, "acknowledged and lost"


def _run(scenario: type[Scenario], plan: Plan, calls: list[str], *, goes_on: bool) -> None:
    try:
        run_virtually(strike(scenario(), plan, goes_on=goes_on))
    except BaseException as error:
        where = ", ".join(f"call {n} ({calls[n]}) {fault.value}" for n, fault in plan.items())
        error.add_note(f"{scenario.__name__}: {where}; the house {'goes on' if goes_on else 'starts anew'}")
        raise


@every_scenario
def test_one_fault_at_every_call(scenario: type[Scenario]) -> None:
    calls = run_virtually(count_calls(scenario()))
    assert calls
    for number, call in enumerate(calls):
        for fault in faults_for(call):
            for goes_on in fault.ways_on:
                _run(scenario, {number: fault}, calls, goes_on=goes_on)


@every_scenario
def test_two_faults(scenario: type[Scenario]) -> None:
    """The second one may strike while the first is being mended."""
    calls = run_virtually(count_calls(scenario()))
    chance = random.Random(scenario.__name__)
    for _ in range(PAIRS):
        first = chance.randrange(len(calls))
        second = first + 1 + chance.randrange(40)
        plan = {first: chance.choice(faults_for(calls[first])), second: chance.choice(list(Fault))}
        names = [*calls, *["one of those after"] * 100]
        _run(scenario, plan, names, goes_on=chance.random() < 0.5)
