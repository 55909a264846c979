"""What docs/admission.md shows to core servers, run as it stands there against a daemon."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from support import REPOSITORY
from support.daemon import Daemon, fresh
from support.daemon_state import eventually_async

TEXT = (REPOSITORY / "docs" / "admission.md").read_text(encoding="utf-8")
TAG = re.compile(r'(\w+)\s+[\w\[\]]+\s+`json:"(\w+)(?:,omitempty)?"`')


def snippet(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return str(found)


def go_fields(struct: str) -> list[str]:
    """The JSON fields of a struct in the Go snippet."""
    [body] = re.findall(rf"type {struct} struct {{\n(.*?)\n}}", snippet("go"), flags=re.DOTALL)
    return [name for _, name in TAG.findall(body)]


def go_subjects() -> list[str]:
    return re.findall(r's\.nats\.(?:Request|Publish)\("([a-z.]+)"', snippet("go"))


def python() -> Mapping[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(snippet("python"), "admission.md", "exec"), names)  # noqa: S102 - our own documentation
    return names


def delivered_agent(daemon: Daemon) -> tuple[str, str]:
    poller, agent = fresh("p"), fresh("a")
    daemon.redeem(daemon.create("poller", poller)["token"])
    daemon.redeem(daemon.create("agent", agent, poller)["token"])
    return poller, agent


async def is_active(daemon: Daemon, kind: str, service_id: str) -> None:
    assert (await asyncio.to_thread(daemon.service, kind, service_id))["status"] == "active"


async def test_the_python_snippet_asks_and_relays(daemon: Daemon) -> None:
    poller, agent = delivered_agent(daemon)
    async with daemon.nats() as client:
        core = python()["Jetway"](client)

        async def known() -> None:
            """It says no where the gateway is slow to answer and nothing is remembered."""
            assert await core.is_known_poller(poller) is True

        await eventually_async(known)
        assert await core.is_known_poller(fresh("nobody")) is False
        await core.relay(
            [
                {"service_type": "poller", "poller_id": poller, "healthy": True},
                {"service_type": "agent", "poller_id": poller, "agent_id": agent, "healthy": False},
            ]
        )
        await eventually_async(lambda: is_active(daemon, "agent", agent))
        await eventually_async(lambda: is_active(daemon, "poller", poller))
    assert daemon.service("agent", agent)["healthy"] is False


async def test_the_python_snippet_goes_by_what_it_remembers_while_nobody_answers() -> None:
    class Deaf:
        answer: bytes | None = b'{"known": true}'

        async def request(self, subject: str, data: bytes, timeout: float) -> Any:
            if self.answer is None:
                raise TimeoutError
            return type("Message", (), {"data": self.answer})()

        async def publish(self, subject: str, data: bytes) -> None:
            raise ConnectionError

    client = Deaf()
    core = python()["Jetway"](client, own_list=["listed"])
    assert await core.is_known_poller("p1") is True
    client.answer = None
    assert await core.is_known_poller("p1") is True
    assert await core.is_known_poller("never-asked") is False
    assert await core.is_known_poller("listed") is True
    await core.relay([{"service_type": "poller", "poller_id": "p1"}])


async def test_the_go_snippets_subjects_and_json_are_what_the_daemon_takes(daemon: Daemon) -> None:
    known, relay = go_subjects()
    poller, agent = delivered_agent(daemon)
    [asked] = go_fields("question")
    async with daemon.nats() as client:
        answer = await client.request(known, json.dumps({asked: poller}).encode(), timeout=30)
        assert sorted(json.loads(answer.data)) == sorted(go_fields("answer"))
        values = {
            "service_type": "agent",
            "poller_id": poller,
            "agent_id": agent,
            "checker_id": None,
            "healthy": False,
        }
        beat = {name: values[name] for name in go_fields("heartbeat") if values[name] is not None}
        [many] = go_fields("batch")
        first = {"service_type": "poller", "poller_id": poller}
        await client.publish(relay, json.dumps({many: [first, beat]}).encode())
        await eventually_async(lambda: is_active(daemon, "agent", agent))
    assert daemon.service("agent", agent)["healthy"] is False


async def test_services_and_counts_are_asked_for_over_nats_too(daemon: Daemon) -> None:
    poller = fresh("p")
    daemon.create("poller", poller)
    async with daemon.nats() as client:
        question = json.dumps({"service_type": "poller", "service_id": poller}).encode()
        service = json.loads((await client.request("jetway.get", question, timeout=30)).data)
        assert service == await asyncio.to_thread(daemon.service, "poller", poller)
        stats = json.loads((await client.request("jetway.stats", b"", timeout=30)).data)
        assert stats["by_type"] == daemon.get("/api/admin/services/stats")["by_type"]
        ping = json.loads((await client.request("$SRV.PING.jetway", b"", timeout=30)).data)
        assert ping["type"] == "io.nats.micro.v1.ping_response"
    assert daemon.metric("jetway_nats_requests_total", endpoint="get", outcome="answered") >= 1


@pytest.mark.parametrize("body", ["poller_id", "text"])
async def test_a_revoked_poller_is_no_longer_known(daemon: Daemon, body: str) -> None:
    poller = fresh("p")
    package = daemon.create("poller", poller)["package"]["package_id"]
    daemon.call("POST", f"/api/admin/edge-packages/{package}/revoke", {"reason": "stolen"})
    data = poller.encode() if body == "text" else json.dumps({"poller_id": poller}).encode()
    async with daemon.nats() as client:

        async def refused() -> None:
            answer = json.loads((await client.request("jetway.known", data, timeout=30)).data)
            assert (answer["known"], answer["status"]) == (False, "revoked")

        await eventually_async(refused)
    over_http = daemon.get(f"/api/admin/admission/pollers/{poller}")
    assert over_http == {"known": False, "status": "revoked", "source": "edge_onboarding"}
    assert daemon.metric("jetway_admission_refusals_total", reason="revoked", mode="enforce") >= 1
