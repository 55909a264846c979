"""A client of NATS that knows nothing of us: what it sees of a service's life, and when."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.kv import KeyValue

from support.daemon import PACKAGES, SERVICES, Daemon, eventually, fresh, nats_key
from support.daemon_state import eventually_async
from support.nats_server import settled


async def entry(client: Client, key: str) -> KeyValue.Entry:
    """What stands there now, asked once."""
    return await (await client.jetstream(timeout=30).key_value("config")).get(key)


def stored_at(message: Msg) -> float:
    """When the server stored it, in seconds since 1970."""
    stamp = (message.headers or {})["Nats-Time-Stamp"].rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{stamp[0]}+00:00").timestamp() + float(f"0.{stamp[2] or 0}")


async def activate(daemon: Daemon, client: Client, created: Any) -> Any:
    """Redeem by hand and send one heartbeat; the answer to the token."""
    answer = daemon.redeem(created["token"], nats_public_key=nats_key())
    assert answer.status == 200, answer.body
    await client.publish(answer.json["heartbeat"]["subject"], b"{}")
    await client.flush()
    return answer.json


async def test_the_pending_document_and_row_stand_when_the_201_arrives(daemon: Daemon) -> None:
    """Where it says that they are written; a machine that is busy may have it say that they are queued."""
    promised = 0
    async with daemon.nats() as client:
        for number in range(25):
            poller = fresh("p")
            created = await asyncio.to_thread(daemon.create, "poller", poller, site=f"S{number}")
            arrived = time.time()

            async def require_both(poller: str = poller, site: str = f"S{number}") -> Msg:
                stood = await client.request(
                    f"$JS.API.DIRECT.GET.KV_config.$KV.config.config/pollers/{poller}.json", timeout=30
                )
                row = daemon.rows(f"SELECT status, site, revision FROM pollers WHERE poller_id = '{poller}'")
                assert stood.data, "there is no document"
                document = json.loads(stood.data)
                assert (document["status"], document["site"]) == ("pending", site)
                assert row == [{"status": "pending", "site": site, "revision": document["revision"]}]
                return stood

            if created["projection"] == {"document": "written", "row": "written"}:
                # Asked once each: nothing is waited for.
                assert stored_at(await require_both()) <= arrived
                promised += 1
            else:
                assert set(created["projection"].values()) <= {"written", "queued"}
                await eventually_async(require_both)
    assert promised, "every one was queued"


async def test_a_watcher_sees_pending_before_the_201_and_active_after_the_heartbeat(daemon: Daemon) -> None:
    poller = fresh("p")
    key = f"config/pollers/{poller}.json"
    async with daemon.nats() as client:
        watcher = await (await client.jetstream(timeout=30).key_value("config")).watch(key)
        assert await watcher.updates(timeout=30) is None  # nothing there yet
        created = await asyncio.to_thread(daemon.create, "poller", poller)
        first = await watcher.updates(timeout=30)
        assert first is not None and json.loads(first.value)["status"] == "pending"
        answer = await activate(daemon, client, created)
        assert answer["config"]["key"] == key
        seen = []
        while "active" not in seen:
            update = await watcher.updates(timeout=30)
            seen.append(json.loads(update.value)["status"])
        assert seen in (["active"], ["pending", "active"])
        await watcher.stop()
        service = daemon.service("poller", poller)
        assert (service["status"], service["liveness"]) == ("active", "online")
        assert daemon.package(created["package"]["package_id"])["status"] == "activated"


@dataclass
class Heard:
    """What comes by on a subject or a watch: (key, status), DEL for a deletion."""

    changes: list[tuple[str, str]] = field(default_factory=list)

    async def take(self, message: Msg) -> None:
        operation = (message.headers or {}).get("KV-Operation", "")
        self.note(message.subject.removeprefix("edge."), operation, message.data)

    def note(self, key: str, operation: str | None, value: bytes | None) -> None:
        change = (key, operation or json.loads(value or b"")["status"])
        if not self.changes or self.changes[-1] != change:  # delivery and the like keep the status
            self.changes.append(change)

    async def must_be(self, changes: list[tuple[str, str]]) -> None:
        assert self.changes == changes


async def follow(watcher: Any, heard: Heard) -> None:
    async for update in watcher:
        if update is not None:
            heard.note(update.key, update.operation, update.value)


async def test_a_poller_hears_of_its_agents_and_of_no_others(daemon: Daemon) -> None:
    mine, other, agent = fresh("p"), fresh("p"), fresh("a")
    daemon.create("poller", mine)
    daemon.create("poller", other)
    live, watched = Heard(), Heard()
    async with daemon.nats() as client:
        await client.subscribe(f"edge.config.pollers.{mine}.>", cb=live.take)
        await settled(client)
        watcher = await (await client.jetstream(timeout=30).key_value("config_watch")).watch(
            f"config.pollers.{mine}.agents.*"
        )
        following = asyncio.create_task(follow(watcher, watched))

        key = f"config.pollers.{mine}.agents.{agent}"
        life: list[tuple[str, str]] = []

        async def both_hear(status: str) -> None:
            """The next state. The view keeps one value a key: what is not awaited may be passed over."""
            life.append((key, status))
            await eventually_async(lambda: live.must_be(life))
            await eventually_async(lambda: watched.must_be(life))

        foreign = daemon.create("agent", fresh("a"), other)
        created = daemon.create("agent", agent, mine)
        await both_hear("pending")
        await activate(daemon, client, foreign)
        await activate(daemon, client, created)
        await both_hear("active")
        for package in (foreign, created):
            path = f"{PACKAGES}/{package['package']['package_id']}/revoke"
            assert daemon.call("POST", path, {"reason": "stolen"}).status == 200
        await both_hear("revoked")
        for package in (foreign, created):
            path = f"{SERVICES}/agents/{package['service']['service_id']}"
            assert daemon.call("DELETE", path).status == 204
        await both_hear("DEL")
        following.cancel()
        await watcher.stop()


async def test_an_agent_finds_its_checkers_through_its_own_document(daemon: Daemon) -> None:
    poller, agent, checker = fresh("p"), fresh("a"), fresh("c")
    daemon.create("poller", poller)
    daemon.create("agent", agent, poller)
    created = daemon.create("checker", checker, agent, checker_config={"targets": ["198.51.100.7"]})
    daemon.require_written(created)
    async with daemon.nats() as client:

        async def check() -> None:
            own = json.loads(
                (await entry(client, f"config/pollers/{poller}/agents/{agent}.json")).value or b""
            )
            assert own["children"] == [{"type": "checker", "id": checker}]

        await eventually_async(check)
        document = json.loads(
            (await entry(client, f"config/agents/{agent}/checkers/{checker}.json")).value or b""
        )
        assert document["checker_config"]["targets"] == ["198.51.100.7"]
        view = f"$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch.config.agents.{agent}.checkers.{checker}"

        async def shown() -> None:
            assert json.loads((await client.request(view, timeout=30)).data or "null") == document

        await eventually_async(shown)


async def test_a_heartbeat_asked_as_a_request_is_answered_into_the_senders_own_inbox(daemon: Daemon) -> None:
    poller = fresh("p")
    created = daemon.create("poller", poller, heartbeat_interval_seconds=7)
    subject = daemon.redeem(created["token"]).json["heartbeat"]["subject"]
    async with daemon.nats(inbox=f"_INBOX_poller_{poller}") as client:
        reply = await client.request(subject, b'{"version": "1.2.3"}', timeout=30)
        answer = json.loads(reply.data)
        assert (answer["status"], answer["known"], answer["interval_seconds"]) == ("active", True, 7)
        assert answer["config_revision"] == daemon.service("poller", poller)["revision"]
    assert daemon.service("poller", poller)["version"] == "1.2.3"


@pytest.mark.parametrize(
    "foreign", ["_INBOX.somebody", "_INBOX_poller_another.x", "$KV.config.config/pollers/x.json"]
)
async def test_a_reply_subject_elsewhere_is_ignored_and_counted(daemon: Daemon, foreign: str) -> None:
    poller = fresh("p")
    created = daemon.create("poller", poller)
    subject = daemon.redeem(created["token"]).json["heartbeat"]["subject"]
    before = daemon.metric("jetway_heartbeats_refused_total", reason="foreign_reply")
    async with daemon.nats() as client, daemon.nats(inbox=f"_INBOX_poller_{poller}") as honest:
        listening = await client.subscribe(foreign)
        await settled(client)
        await client.publish(subject, b"{}", reply=foreign)
        await settled(client)
        # An answer to a later, honest question: the ignored one would have come by now.
        await honest.request(subject, b"{}", timeout=30)
        await settled(client)
        with pytest.raises(NatsTimeoutError):
            await listening.next_msg(timeout=0.3)

    def counted() -> None:
        assert daemon.metric("jetway_heartbeats_refused_total", reason="foreign_reply") == before + 1

    eventually(counted)
