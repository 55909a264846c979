"""A gateway made of prepared answers: a real HTTP server on a free port, for programs that speak HTTP."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jetway.core.ids import Lineage, ServiceType, children_watch_key, document_key, watch_key
from jetway.core.tokens import Claims, join_token, signing_input

PACKAGE = "0b9f3c1e-8f5e-4c55-9a3f-0d3a4f2f9f10"
OTHER_PACKAGE = "5d1d8e0a-55d5-4f0b-8a55-6d4f8f3b1c22"
AGENT = Lineage(ServiceType.AGENT, "site-a", "core-switch-room")


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


def _body(raw: bytes, headers: Message) -> Any:
    if headers.get_content_type() == "text/csv":
        return raw.decode()
    return json.loads(raw) if raw else None


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    """Close the connection instead of answering: a lost reply."""


class FakeGateway:
    """Records requests; answers with `answer(request)`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Reply] = lambda request: Reply(404, {"detail": "no such thing"})
        self.url = ""

    def queue(self, *replies: Reply) -> None:
        """Answer in this order; the last one stays."""
        waiting = list(replies)
        self.answer = lambda request: waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextmanager
def fake_gateway(tls: ssl.SSLContext | None = None) -> Iterator[FakeGateway]:
    """One on loopback; with `tls` it speaks HTTPS."""
    gateway = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, dict(self.headers), _body(raw, self.headers))
            gateway.requests.append(request)
            reply = gateway.answer(request)
            if reply.drop:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(0 if reply.status == 204 else len(body)))
            self.end_headers()
            if reply.status != 204:
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing on the screen."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that does not trust us hangs up: nothing to print."""

        def finish_request(self, request: Any, client_address: Any) -> None:
            """The handshake on the connection's own thread, so that one client cannot hold up another."""
            connection = tls.wrap_socket(request, server_side=True) if tls else request
            try:
                super().finish_request(connection, client_address)
            finally:
                connection.close()

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        gateway.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        try:
            yield gateway
        finally:
            server.shutdown()
            thread.join()


def make_token(gateway: str, *, package_id: str = PACKAGE, lineage: Lineage = AGENT, **more: Any) -> str:
    """A token as the gateway's authority makes them, its signature left to imagination."""
    claims = Claims(
        gateway=gateway,
        package_id=package_id,
        generation=more.pop("generation", 1),
        service_type=lineage.service_type,
        service_id=lineage.service_id,
        expires_at=4_000_000_000,
        secret="s" * 43,
        **more,
    )
    return join_token(signing_input(claims), b"x" * 64)


def redeem_answer(
    *,
    package_id: str = PACKAGE,
    lineage: Lineage = AGENT,
    nats_url: str = "nats://127.0.0.1:4222",
    creds: str = "",
) -> dict[str, Any]:
    """What the gateway answers to a redeemed token."""
    keys = [key for key in (watch_key(lineage), children_watch_key(lineage)) if key]
    return {
        "package_id": package_id,
        "service": {
            "service_type": lineage.service_type.value,
            "service_id": lineage.service_id,
            "parent_id": lineage.parent_id,
            "poller_id": lineage.poller_id,
        },
        "heartbeat": {"subject": lineage.subject("edge.heartbeat"), "interval_seconds": 30},
        "nats": {"urls": [nats_url], "creds": creds, "ca_pem": ""},
        "config": {
            "bucket": "config",
            "key": document_key(lineage),
            "watch_bucket": "config_watch",
            "watch_keys": keys,
            "live_subjects": [f"edge.{key}" for key in keys],
        },
        "identity": {"certificate_pem": "", "ca_pem": "", "spiffe_id": ""},
    }
