"""A daemon that is killed while it revokes 1,000 services: the next one finishes, and none of them gets in."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from nats.errors import Error as NatsError

from jetway.edge.keys import HostKeys, complete_creds, make
from support.daemon import PACKAGES, REDEEM, TOO_SLOW, Daemon, eventually
from support.internet import connect, revoked_serials

# nats-py leaves the socket of a connection that was refused to the collector, whenever that comes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NewDaemon = Callable[..., Awaitable[Daemon]]
SERVICES = 1000
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Member:
    """A service with its credentials."""

    keys: HostKeys
    answer: Any

    @property
    def serial(self) -> int:
        pem = self.answer["identity"]["certificate_pem"]
        return x509.load_pem_x509_certificates(pem.encode())[0].serial_number

    async def is_let_in(self, daemon: Daemon, folder: Path) -> bool:
        creds = folder / "tried.creds"
        creds.write_text(complete_creds(self.answer["nats"]["creds"], self.keys.nats_seed))
        try:
            await (await connect(daemon.nats_url, creds)).close()
        except NatsError as error:
            assert "authorization" in str(error).lower(), error
            return False
        return True


async def onboard(daemon: Daemon) -> list[Member]:
    """A poller and the agents beneath it, each with keys of its own."""
    rows = [{"component_type": "poller", "label": "p", "component_id": "p"}]
    for number in range(SERVICES - 1):
        name = f"a{number}"
        rows.append({"component_type": "agent", "label": name, "component_id": name, "parent_id": "p"})
    headers = {"Idempotency-Key": "all", "Authorization": f"Bearer {daemon.token}"}
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(daemon.url, timeout=timeout) as session:
        for _ in range(5):  # a slow disk may fail some rows: the same call goes on
            async with session.post(f"{PACKAGES}/bulk", json={"rows": rows}, headers=headers) as response:
                told = await response.json()
            if told["created"] == SERVICES:
                break
        assert told["created"] == SERVICES, told
        gate = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(_redeem(session, gate, row["token"]) for row in told["rows"]))


async def _redeem(session: aiohttp.ClientSession, gate: asyncio.Semaphore, token: str) -> Member:
    keys = make("", 0, "service")
    body = {"token": token, "csr_pem": keys.csr_pem, "nats_public_key": keys.nats_public_key}
    async with gate:
        for _ in range(60):  # a slow disk may leave one without an answer in time: the same host asks again
            async with session.post(REDEEM, json=body) as response:
                status, text = response.status, await response.text()
            if status != 503:
                break
            await asyncio.sleep(0.5)
    assert status == 200, text
    return Member(keys, json.loads(text))


def revoked(daemon: Daemon) -> int:
    """How many services are."""
    by_status = daemon.get("/api/admin/services/stats")["by_status"]
    return int(by_status.get("revoked", 0))


def kill_in_the_midst(daemon: Daemon) -> int:
    """End it with some revoked and some not; how many were, when last seen."""
    seen = eventually(lambda: _some(daemon), 60)
    assert daemon.process is not None
    daemon.process.kill()
    daemon.wait()
    return seen


def _some(daemon: Daemon) -> int:
    count = revoked(daemon)
    assert count >= SERVICES // 10
    return count


def revoked_keys(daemon: Daemon) -> set[str]:
    """What the NATS server itself was told: the revocations in the claims of the edge hosts' account."""
    found: set[str] = set()
    for file in (daemon.state / "nats").rglob("*.jwt"):
        token = file.read_text()
        assert token.count(".") == 2, "the server is writing it: it empties the file first"
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        found |= set(claims["nats"].get("revocations", {}))
    return found


async def cut(new_daemon: NewDaemon, tmp_path: Path) -> tuple[Daemon, list[Member], int]:
    """A daemon that was killed while it revoked, who it had onboarded, and how many it had revoked when last seen.

    A machine that is busy may look only when all is done: then once more, with another.
    """
    for _ in range(3):
        daemon = await new_daemon(JETWAY_NATS__CREDENTIALS="required")
        daemon.expected_errors |= TOO_SLOW
        members = await onboard(daemon)
        assert all(member.answer["nats"]["authentication"] == "jwt" for member in members)
        assert await members[-1].is_let_in(daemon, tmp_path)
        package = (await asyncio.to_thread(daemon.service, "poller", "p"))["package_id"]
        call = asyncio.create_task(
            asyncio.to_thread(daemon.call, "POST", f"{PACKAGES}/{package}/revoke", {"reason": "stolen"})
        )
        seen = await asyncio.to_thread(kill_in_the_midst, daemon)
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if seen < SERVICES and isinstance(outcome, OSError):
            return daemon, members, seen
    raise AssertionError(f"all were revoked each time before the daemon was killed, lastly: {outcome}")


@pytest.mark.slow
async def test_a_cascade_that_was_cut_is_finished(
    new_daemon: NewDaemon, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    daemon, members, seen = await cut(new_daemon, tmp_path)
    assert SERVICES // 10 <= seen < SERVICES

    begun = time.monotonic()
    await asyncio.to_thread(daemon.start)
    await asyncio.to_thread(eventually, lambda: _require_all(daemon, members), 120)
    seconds = time.monotonic() - begun
    record_property("revoked when it was killed", seen)
    record_property("seconds from the start until all were revoked everywhere", round(seconds, 1))
    print(f"killed with {seen} of {SERVICES} revoked; all were, {seconds:.1f} s after the next start began")
    for member in (members[0], members[1], members[SERVICES // 2], members[-1]):
        assert not await member.is_let_in(daemon, tmp_path)
    assert daemon.stop() == 0
    daemon.check_log()


def _require_all(daemon: Daemon, members: list[Member]) -> None:
    assert revoked(daemon) == SERVICES
    assert revoked_keys(daemon) >= {member.keys.nats_public_key for member in members}
    assert revoked_serials(daemon) == {member.serial for member in members}
