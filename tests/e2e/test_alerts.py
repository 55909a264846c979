"""Alerts of a real daemon at a real receiver."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.daemon import PACKAGES, Daemon, eventually, fresh

SECRET = b"a secret of a webhook"
Got = list[dict[str, Any]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Got]]:
    """(address, what came): checks every signature."""
    got: Got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signed = self.headers["Jetway-Timestamp"].encode() + b"." + body
            expected = "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
            genuine = hmac.compare_digest(expected, self.headers["Jetway-Signature"])
            got.append({**json.loads(body), "genuine": genuine})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got
        server.shutdown()
        thread.join()


async def test_troubles_are_told_to_a_webhook(
    new_daemon: Callable[..., Daemon], receiver: tuple[str, Got], tmp_path: Path
) -> None:
    address, got = receiver
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    hook = {"url": address, "secret_file": str(secret), "allow_private": True}
    daemon = new_daemon(JETWAY_ALERTS__WEBHOOKS=json.dumps([hook]))
    stranger, stolen, gone = fresh("p"), fresh("p"), fresh("p")

    async with daemon.nats() as client:
        await client.publish(f"edge.heartbeat.poller.{stranger}", b"{}")
        created = daemon.create("poller", stolen)
        daemon.call("POST", f"{PACKAGES}/{created['package']['package_id']}/revoke", {"reason": "was stolen"})
        daemon.redeem(created["token"])
        daemon.redeem(daemon.create("poller", gone)["token"])
        await client.publish(f"edge.heartbeat.poller.{gone}", b"{}")
        await client.flush()
        eventually(lambda: _is_active(daemon, gone))
        await client.publish(f"edge.heartbeat.poller.{gone}", b'{"stopping": true}')
        await client.flush()

    def all_told() -> None:
        told = {(each["kind"], each["service"]["service_id"]) for each in got}
        wanted = {
            ("quarantine", stranger),
            ("revoked", stolen),
            ("redeem_refused", stolen),
            ("offline", gone),
        }
        assert told == wanted, told

    eventually(all_told)
    assert all(each["genuine"] for each in got)
    assert daemon.metric("jetway_alerts_total", kind="revoked", outcome="sent") == 1
    assert "hook" not in daemon.log_text()


def _is_active(daemon: Daemon, poller: str) -> None:
    assert daemon.service("poller", poller)["status"] == "active"
