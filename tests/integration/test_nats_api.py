"""What trusted clients ask over NATS: the HTTP API's answers, at a real server, where hosts must not reach it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from jetway import __version__
from jetway.adapters.clock import RandomIdentifiers
from jetway.adapters.nats.accounts import ADMIN_FILE
from jetway.adapters.nats.names import Names
from jetway.core.errors import UnavailableError
from jetway.core.ids import Lineage, ServiceType
from jetway.nats_api import NatsApi
from jetway.services.metrics import Metrics
from jetway.tasks import Releases
from support.http_world import World, http_world
from support.nats_server import settled
from support.secured_nats import CLOCK, SecuredNats, secured_nats

ENDPOINTS = ("jetway.known", "jetway.get", "jetway.stats")
LINEAGES = (
    Lineage(ServiceType.POLLER, "p1"),
    Lineage(ServiceType.AGENT, "p1", "a1"),
    Lineage(ServiceType.CHECKER, "p1", "a1", "c1"),
)


@dataclass
class Asked:
    """A daemon's API over NATS and over HTTP, and a core server's connection."""

    http: World
    nats: SecuredNats
    core: Client
    metrics: Metrics

    async def ask(self, subject: str, question: object = None) -> Msg:
        data = b"" if question is None else json.dumps(question).encode()
        return await self.core.request(subject, data, timeout=30)

    def count(self, endpoint: str, outcome: str) -> float:
        labels = {"endpoint": endpoint, "outcome": outcome}
        return self.metrics.registry.get_sample_value("jetway_nats_requests_total", labels) or 0.0


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    releases, metrics = Releases(), Metrics()
    async with http_world(tmp_path / "http") as http, secured_nats(tmp_path / "nats") as nats:
        api = NatsApi(nats.gateway, Names(), metrics, releases)
        await api.open(http.doors.admission, http.doors.catalogue, CLOCK, RandomIdentifiers())
        core = await nats.connect(nats.folder / "nats" / ADMIN_FILE)
        yield Asked(http, nats, core.client, metrics)
        await releases.all()


def problem(message: Msg) -> Any:
    """The problem document, which the headers tell of as well."""
    told = json.loads(message.data)
    assert message.headers is not None
    assert message.headers["Nats-Service-Error-Code"] == str(told["status"])
    assert message.headers["Nats-Service-Error"]
    return told


async def test_the_answers_are_those_of_the_http_api(asked: Asked) -> None:
    await asked.http.create("poller", "p1")
    await asked.http.create("agent", "a1", parent_id="p1")
    for kind, own in (("poller", "p1"), ("agent", "a1")):
        over_nats = await asked.ask("jetway.get", {"service_type": kind, "service_id": own})
        over_http = await asked.http.call("GET", f"/api/admin/services/{kind}s/{own}", role="viewer")
        assert over_nats.headers is None
        assert json.loads(over_nats.data) == over_http.json
    over_http = await asked.http.call("GET", "/api/admin/services/stats", role="viewer")
    questions: tuple[object, ...] = (None, {})
    for question in questions:
        assert json.loads((await asked.ask("jetway.stats", question)).data) == over_http.json
    over_http = await asked.http.call("GET", "/api/admin/admission/pollers/p1", role="viewer")
    assert json.loads((await asked.ask("jetway.known", {"poller_id": "p1"})).data) == over_http.json
    assert [asked.count(name.removeprefix("jetway."), "answered") for name in ENDPOINTS] == [1, 2, 2]


async def test_what_is_not_there_is_the_http_apis_problem(asked: Asked) -> None:
    over_nats = problem(await asked.ask("jetway.get", {"service_type": "poller", "service_id": "nobody"}))
    over_http = (await asked.http.call("GET", "/api/admin/services/pollers/nobody", role="viewer")).json
    assert over_nats | {"request_id": ""} == over_http | {"request_id": ""}
    assert over_nats["status"] == 404
    assert asked.count("get", "not_found") == 1


@pytest.mark.parametrize(
    ("subject", "question", "field"),
    [
        ("jetway.get", None, "service_type"),
        ("jetway.get", {"service_type": "router", "service_id": "p1"}, "service_type"),
        ("jetway.get", {"service_type": "poller", "service_id": "Not.An.Id"}, "service_id"),
        ("jetway.get", {"service_type": "poller", "service_id": "p1", "secrets": True}, "secrets"),
        ("jetway.get", "p1", "body"),
        ("jetway.stats", {"service_type": "poller"}, "service_type"),
    ],
)
async def test_what_is_no_question_is_told_which_field(
    asked: Asked, subject: str, question: object, field: str
) -> None:
    told = problem(await asked.ask(subject, question))
    assert (told["status"], told["code"]) == (400, "invalid")
    assert field in [error["field"] for error in told["errors"]]
    assert asked.count(subject.removeprefix("jetway."), "malformed") == 1


async def test_a_question_has_a_size(asked: Asked) -> None:
    told = problem(await asked.ask("jetway.get", {"service_id": "x" * 5000}))
    assert told["status"] == 400
    assert "4096" in told["detail"]


async def test_who_looks_for_services_finds_it(asked: Asked) -> None:
    await asked.ask("jetway.get", {"service_type": "poller", "service_id": "nobody"})
    await asked.ask("jetway.stats")
    ping = ServicePing.from_dict(json.loads((await asked.ask("$SRV.PING")).data))
    assert (ping.name, ping.version) == ("jetway", __version__)
    info = ServiceInfo.from_dict(json.loads((await asked.ask("$SRV.INFO.jetway")).data))
    assert [endpoint.subject for endpoint in info.endpoints] == list(ENDPOINTS)
    assert {endpoint.queue_group for endpoint in info.endpoints} == {"jetway"}
    told = json.loads((await asked.ask(f"$SRV.STATS.jetway.{ping.id}")).data)
    stats = ServiceStats.from_dict(told)
    assert (stats.id, stats.type) == (info.id, "io.nats.micro.v1.stats_response")
    known, got, counted = stats.endpoints
    assert (known.num_requests, got.num_requests, counted.num_requests) == (0, 1, 1)
    assert (got.num_errors, counted.num_errors) == (1, 0)
    assert "nobody" in (got.last_error or "")
    assert counted.processing_time >= counted.average_processing_time > 0


async def test_an_answer_goes_to_an_inbox_and_nowhere_else(asked: Asked) -> None:
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    await asked.core.subscribe("elsewhere", cb=hear)
    for subject in (*ENDPOINTS, "$SRV.PING", "$SRV.INFO.jetway"):
        await asked.core.publish(subject, b"", reply="elsewhere")
    await asked.ask("jetway.stats")  # behind them all
    await asked.ask("$SRV.PING")
    await settled(asked.core)
    assert heard == []
    assert asked.count("get", "foreign_reply") == asked.count("stats", "foreign_reply") == 1
    assert asked.count("discovery", "foreign_reply") == 2


async def test_edge_hosts_may_not_ask(asked: Asked) -> None:
    forbidden = (*ENDPOINTS, "$SRV.PING", "$SRV.INFO", "$SRV.STATS.jetway")
    for lineage in LINEAGES:
        host = await asked.nats.host(lineage)
        for subject in forbidden:
            await host.publish(subject, f"{lineage.inbox_prefix}1")
        await host.subscribe("$SRV.PING")
        denied = await host.denied()
        assert denied["publish"] >= {subject.lower() for subject in forbidden}
        assert "$srv.ping" in denied["subscription"]
    # Also somebody in their account who may do everything reaches nobody there.
    for subject in forbidden:
        with pytest.raises(UnavailableError, match="nobody answers"):
            await asked.nats.edge.request(subject, b"{}", timeout=30)
    assert [asked.count(name.removeprefix("jetway."), "answered") for name in ENDPOINTS] == [0, 0, 0]
