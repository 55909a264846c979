"""The server itself: listening, stopping, headers, logs, the description and its page."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from jetway.core.errors import StartupError
from jetway.core.record import ServiceRecord
from jetway.entry.http.server import HttpServer
from support.http_world import World, http_settings, http_world

PACKAGES = "/api/admin/edge-packages"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        yield made


async def raw(world: World, sent: bytes) -> bytes:
    host, port = world.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read(65_536)
    finally:
        writer.close()
        await writer.wait_closed()


# --- listening and stopping


async def test_a_port_in_use_is_named_with_its_setting(world: World, tmp_path: Path) -> None:
    listen = world.server.url.removeprefix("http://")
    other = HttpServer(world.doors, http_settings(tmp_path, listen=listen), CollectorRegistry(), world.clock)
    with pytest.raises(StartupError, match=rf"http\.listen: {re.escape(listen)} is in use"):
        await other.start()
    await other.stop()


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no-such-host.invalid:0"])
async def test_an_address_of_another_machine(world: World, tmp_path: Path, listen: str) -> None:
    settings = http_settings(tmp_path, listen=listen, allow_plain=True)
    other = HttpServer(world.doors, settings, CollectorRegistry(), world.clock)
    with pytest.raises(StartupError, match=r"http\.listen: .* is not an address of this machine"):
        await other.start()


async def test_a_free_port_can_be_asked_for(world: World) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", world.server.url)


async def test_a_stopped_port_can_be_taken_at_once(tmp_path: Path) -> None:
    async with http_world(tmp_path) as world:
        await world.call("GET", "/healthz")
        address = world.server.url.removeprefix("http://")
        await world.server.stop()
        await world.server.stop()
        again = HttpServer(
            world.doors, http_settings(tmp_path, listen=address), CollectorRegistry(), world.clock
        )
        await again.start()
        await again.stop()


async def test_what_is_in_flight_ends_before_the_server_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    write = world.ledger.write

    async def slow(record: ServiceRecord, expected: int) -> int:
        reached.set()
        await go_on.wait()
        return await write(record, expected)

    monkeypatch.setattr(world.ledger, "write", slow)
    creating = asyncio.create_task(world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"}))
    await reached.wait()
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    go_on.set()
    assert (await creating).status == 201
    await stopping
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", _port(world)), timeout=1):
        pass


def _port(world: World) -> int:
    return int(world.server.url.rpartition(":")[2])


# --- headers


async def test_every_answer_has_safe_headers(world: World) -> None:
    for path in (PACKAGES, "/nothing", "/healthz", "/docs", "/install.sh"):
        headers = (await world.call("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["Server"] == "jetway", path
        assert headers["X-Request-Id"], path
    assert (await world.call("GET", PACKAGES)).headers["Cache-Control"] == "no-store"


async def test_a_sane_request_id_is_kept_and_another_replaced(world: World) -> None:
    kept = await world.call("GET", "/healthz", headers={"X-Request-Id": "trace-1.2_3"})
    assert kept.headers["X-Request-Id"] == "trace-1.2_3"
    for bad in ("", "a b", "x" * 65, "<script>"):
        headers = (await world.call("GET", "/healthz", headers={"X-Request-Id": bad})).headers
        assert re.fullmatch(r"[0-9a-f-]{36}", headers["X-Request-Id"])


async def test_the_request_id_reaches_the_trail(world: World) -> None:
    body = {"component_type": "poller", "label": "x"}
    await world.call("POST", PACKAGES, body, headers={"X-Request-Id": "trace-9"})
    event = (await world.call("GET", "/api/admin/events")).json["items"][0]
    assert (event["request_id"], event["source_ip"]) == ("trace-9", "127.0.0.1")


async def test_the_address_from_a_proxy_of_ours_reaches_the_trail(tmp_path: Path) -> None:
    async with http_world(tmp_path, trusted_proxies=["127.0.0.1"]) as world:
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
        await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"}, headers=headers)
        event = (await world.call("GET", "/api/admin/events")).json["items"][0]
        assert event["source_ip"] == "203.0.113.9"


async def test_forwarded_addresses_are_not_believed(world: World) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"}, headers=headers)
    event = (await world.call("GET", "/api/admin/events")).json["items"][0]
    assert event["source_ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_refused_and_the_server_goes_on(world: World, sent: bytes) -> None:
    answer = await raw(world, sent)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in answer
    assert b"malformed_request" in answer
    assert b"xxxx" not in answer, "what was sent is not repeated"
    assert (await world.call("GET", "/healthz")).status == 200


async def test_ten_megabytes_are_refused_and_the_client_sees_it(world: World) -> None:
    size = 10_000_000
    head = (
        f"POST {PACKAGES} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {world.tokens['admin']}\r\nContent-Length: {size}\r\n\r\n"
    )
    answer = await raw(world, head.encode() + b" " * size)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


# --- logs


async def test_a_log_line_has_the_template_and_no_secret(world: World) -> None:
    created = await world.create("poller", "site-a")
    with capture_logs() as lines:
        await world.redeem(created["token"])
        await world.call("GET", f"/api/admin/services/pollers?q=s3cret&x={created['token']}")
        await world.call("GET", f"/{created['token']}")
    text = str(lines)
    assert created["token"] not in text
    assert world.tokens["admin"] not in text
    assert "s3cret" not in text
    requests = [line for line in lines if line.get("action") == "http_request"]
    assert [line["route"] for line in requests] == [
        "/api/edge/redeem",
        "/api/admin/services/{plural}",
        "unmatched",
    ]
    assert [line["status"] for line in requests] == [200, 422, 404]
    assert requests[1]["actor"] == "admin"


async def test_a_mistake_of_ours_is_in_the_log_with_its_cause(world: World) -> None:
    world.ledger.next_error = RuntimeError("the cause")
    with capture_logs() as lines:
        await world.call("POST", PACKAGES, {"component_type": "poller", "label": "x"})
    failed = next(line for line in lines if line.get("action") == "http_failed")
    assert failed["exc_info"]


# --- the description


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values())) if value else own
    return set().union(*map(references, value)) if isinstance(value, list) else set()


async def test_the_description_is_whole(world: World) -> None:
    document = (await world.call("GET", "/openapi.json", role=None)).json
    assert document["openapi"].startswith("3.1.")
    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in target, reference
            target = target[part]
    operations = [op for methods in document["paths"].values() for op in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"].endswith(".") or ":" in operation["summary"] for operation in operations)


CONTRACT = [
    ("post", PACKAGES),
    ("get", PACKAGES),
    ("get", f"{PACKAGES}/{{package_id}}"),
    ("get", f"{PACKAGES}/{{package_id}}/events"),
    ("post", f"{PACKAGES}/{{package_id}}/revoke"),
    ("post", f"{PACKAGES}/{{package_id}}/reissue"),
    ("delete", f"{PACKAGES}/{{package_id}}"),
    ("get", f"{PACKAGES}/defaults"),
    ("get", "/api/admin/services/{plural}"),
    ("post", "/api/admin/services/{plural}"),
    ("get", "/api/admin/services/{plural}/{service_id}"),
    ("delete", "/api/admin/services/{plural}/{service_id}"),
    ("get", "/api/admin/services/{plural}/{service_id}/events"),
    ("get", "/api/admin/services/{plural}/{service_id}/liveness"),
    ("post", "/api/admin/services/{plural}/{service_id}/status"),
    ("post", "/api/admin/services/{plural}/{service_id}/approve"),
    ("post", "/api/admin/services/{plural}/{service_id}/reject"),
    ("post", "/api/admin/services/{plural}/{service_id}/reissue"),
    ("get", "/api/admin/services/pollers/{service_id}/agents"),
    ("get", "/api/admin/services/agents/{service_id}/checkers"),
    ("get", "/api/admin/services/tree"),
    ("get", "/api/admin/services/stats"),
    ("get", "/api/admin/events"),
    ("get", "/api/admin/events/export"),
    ("post", "/api/admin/reconcile"),
    ("post", "/api/admin/reproject"),
    ("get", "/api/admin/reproject"),
    ("get", "/api/admin/api-tokens"),
    ("post", "/api/admin/api-tokens"),
    ("delete", "/api/admin/api-tokens/{name}"),
    ("post", "/api/edge/redeem"),
    ("get", "/api/edge/ca.pem"),
    ("get", "/api/edge/crl.pem"),
    ("get", "/install.sh"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/api/admin/admission/pollers/{poller_id}"),
    ("get", "/api/admin/log-level"),
    ("put", "/api/admin/log-level"),
    ("post", "/api/admin/edge-packages/bulk"),
    ("get", "/api/admin/jobs"),
    ("get", "/api/admin/jobs/{name}"),
    ("post", "/api/admin/jobs/{name}/runs"),
    ("get", "/api/admin/maintenance"),
    ("post", "/api/admin/maintenance"),
    ("delete", "/api/admin/maintenance/{window_id}"),
    ("get", "/api/admin/quarantine"),
    ("post", "/api/admin/quarantine/{plural}/{service_id}/adopt"),
    ("post", "/api/admin/services/actions"),
    ("post", "/api/admin/services/import"),
    ("get", "/api/admin/services/labels"),
    ("post", "/api/admin/services/purge"),
    ("get", "/api/admin/services/sites"),
    ("get", "/api/admin/services/watch"),
    ("post", "/api/edge/renew"),
]


async def test_the_description_has_every_route_and_only_those(world: World) -> None:
    paths = (await world.call("GET", "/openapi.json", role=None)).json["paths"]
    described = {(method, path) for path, methods in paths.items() for method in methods}
    assert described == set(CONTRACT)


async def test_the_description_tells_of_headers_types_and_errors(world: World) -> None:
    paths = (await world.call("GET", "/openapi.json", role=None)).json["paths"]
    create = paths[PACKAGES]["post"]
    assert "Idempotency-Key" in [parameter["name"] for parameter in create["parameters"]]
    assert "Location" in create["responses"]["201"]["headers"]
    assert {"400", "401", "403", "409", "413", "415", "422", "429", "500", "503"} <= set(create["responses"])
    redeem = paths["/api/edge/redeem"]["post"]
    assert set(redeem["responses"]["200"]["content"]) == {"application/json", "application/gzip"}
    assert {"400", "401", "409", "410", "429"} <= set(redeem["responses"])
    deleted = paths["/api/admin/services/{plural}/{service_id}"]["delete"]["responses"]
    assert {"200", "204"} <= set(deleted)


async def test_the_page_is_served_from_here_alone(world: World) -> None:
    page = (await world.call("GET", "/docs", role=None)).body.decode()
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<script>|<style|\son\w+=", page)
    for asset in re.findall(r'(?:src|href)="(docs/[^"]+)"', page):
        assert (await world.call("GET", f"/{asset}", role=None)).status == 200, asset
