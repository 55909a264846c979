"""Clients that mean harm, or do not know better, against the running daemon.

After every test: it answers, its memory stayed within a bound, every connection was released, nothing was logged
as an error, and no answer was a 5xx but 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support import lacking
from support.daemon import PACKAGES, REDEEM, SERVICES, TOO_SLOW, Daemon, eventually

GROWTH_KB = 150 * 1024
"""How much the daemon may grow over all of these tests: a few times what they send at one moment."""
PATIENCE = 90.0
"""Longer than every deadline that the daemon sets for a client, on a slow machine as well."""
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
NEW = b'{"component_type": "poller", "label": "x", "metadata": %s}'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("daemon"), JETWAY_HTTP__FAILURES_PER_MINUTE="1000000")
    try:
        made.start()
        yield made
        assert made.stop() == 0
        made.check_log()
    finally:
        made.discard()


@pytest.fixture(scope="module")
def memory_before(daemon: Daemon) -> int:
    for path in ("/healthz", "/metrics", "/openapi.json", "/docs/swagger-ui-bundle.js", f"{SERVICES}/tree"):
        daemon.call("GET", path)
    return memory_kb(daemon)


@pytest.fixture(autouse=True)
def _unharmed(daemon: Daemon, memory_before: int) -> Iterator[None]:
    yield
    assert daemon.call("GET", "/healthz", token="").json == {"status": "ok"}
    assert daemon.call("GET", f"{SERVICES}/stats").status == 200

    def released() -> None:
        assert daemon.metric("jetway_http_connections") == 1, "the one that asks"

    eventually(released)
    assert memory_kb(daemon) - memory_before < GROWTH_KB
    daemon.check_log()
    metrics = daemon.call("GET", "/metrics", token="").body.decode()
    failed = re.findall(r'jetway_http_requests_total{.*status="5\d\d".*', metrics)
    assert [line for line in failed if 'status="503"' not in line] == []


def memory_kb(daemon: Daemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1])


def address(daemon: Daemon) -> tuple[str, int]:
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    return host, int(port)


def talk(daemon: Daemon, sent: bytes) -> bytes:
    """All that comes back until the daemon closes; it must close."""
    with socket.create_connection(address(daemon), timeout=30) as client:
        with contextlib.suppress(ConnectionError):  # it may refuse before all is sent
            client.sendall(sent)
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65_536):
                received += piece
    return bytes(received)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d{3}) ", answers)]


def head(daemon: Daemon, method: str, path: str, *more: bytes) -> bytes:
    """A request with the administrator's token, up to its body, after which the daemon is to close."""
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: x",
        b"Connection: close",
        f"Authorization: Bearer {daemon.token}".encode(),
        *([b"Content-Type: application/json"] if method == "POST" else []),
        *more,
    ]
    return b"\r\n".join([*lines, b"", b""])


def with_body(daemon: Daemon, body: bytes, *more: bytes, path: str = PACKAGES) -> bytes:
    return head(daemon, "POST", path, b"Content-Length: %d" % len(body), *more) + body


# --- what is not HTTP, or hardly


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET /healthz\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400, id="HTTP/2"),
        pytest.param(LAST.replace(b"/1.1", b"/3.7") + b"\r\n", 400, id="a version that there is not"),
        pytest.param(LAST + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 200, id="an upgrade"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400, id="TLS"),
        pytest.param(b" " * 100_000, 400, id="spaces"),
        pytest.param(b"\x00" * 10_000, 400, id="zeros"),
        pytest.param(LAST.replace(b"GET", b"BREW") + b"\r\n", 400, id="a method that there is not"),
        pytest.param(LAST.replace(b"GET", b"TRACE").replace(b"/healthz", b"/") + b"\r\n", 405, id="TRACE"),
        pytest.param(LAST.replace(b"\r\n", b"\n") + b"\n", 400, id="lines end with LF alone"),
        pytest.param(LAST.replace(b"Host: x\r\n", b"") + b"\r\n", 400, id="no host"),
        pytest.param(LAST + b"Host: y\r\n\r\n", 400, id="two hosts"),
        pytest.param(LAST.replace(b": x", b": [::1") + b"\r\n", 200, id="half a host"),
        pytest.param(LAST + b"X: " + b"x" * 3_000_000 + b"\r\n\r\n", 400, id="a header of 3 MB"),
        pytest.param(LAST + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n", 400, id="headers"),
        pytest.param(LAST + b"X: y\r\n" * 5000 + b"\r\n", 400, id="a header again and again"),
        pytest.param(LAST + b"X: a\r\n b\r\n\r\n", 400, id="a folded header"),
        pytest.param(LAST + b"X: a\0b\r\n\r\n", 400, id="NUL in a header"),
        pytest.param(LAST + b"X: a\rb\r\n\r\n", 400, id="CR in a header"),
        pytest.param(LAST + b"X : a\r\n\r\n", 400, id="a space before the colon"),
        pytest.param(LAST + b": a\r\n\r\n", 400, id="a header without a name"),
        pytest.param(LAST + b"X: \xff\xfe\xed\xa0\x80\r\n\r\n", 200, id="a header that is no UTF-8"),
        pytest.param(LAST + b"X-Request-Id: \xff\xfe\r\n\r\n", 200, id="an id that is no UTF-8"),
        pytest.param(
            LAST + b"Authorization: Bearer \xff\xfe\r\n\r\n", 200, id="a token that nobody asked for"
        ),
        pytest.param(LAST + b"Expect: the unexpected\r\n\r\n", 200, id="an expectation"),
        pytest.param(LAST + b"Range: bytes=-99999999999999999999\r\n\r\n", 200, id="a range"),
    ],
)
def test_what_is_hardly_http_has_one_answer_and_an_end(daemon: Daemon, sent: bytes, status: int) -> None:
    assert statuses(talk(daemon, sent)) == [status]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("CONNECT", "example.com:443", 404),
        ("GET", "http://example.com/api/admin/events", 200),
        ("GET", "ftp://example.com/api/admin/events", 200),
        ("GET", "http://[::1/healthz", 400),
        ("GET", "http://x:99999999/healthz", 400),
        ("OPTIONS", "*", 404),
        ("GET", "//example.com/healthz", 404),
        ("GET", "/docs/../api/../../etc/passwd", 404),
        ("GET", "/docs/%2e%2e%2f%2e%2e%2fserver.py", 404),
        ("GET", f"{SERVICES}/pollers/..%2f..%2fevents", 404),
        ("GET", f"{SERVICES}/pollers/a%2fb", 404),
        ("GET", f"{SERVICES}/pollers/a%00b", 404),
        ("GET", f"{SERVICES}/pollers/a\0b", 400),
        ("GET", f"{SERVICES}/pollers/a%ff%fe", 404),
        ("GET", f"{SERVICES}/pollers/a\xff\xfe", 400),
        ("GET", f"{SERVICES}/pollers/%zz", 404),
        ("GET", f"{SERVICES}/pollers/%", 404),
        ("GET", f"{SERVICES}/pollers?q=%ff%fe", 200),
        ("GET", f"{SERVICES}/pollers?q=\xff\xfe", 400),
        ("GET", f"{SERVICES}/pollers?q=%ed%a0%80", 200),
        ("GET", f"{SERVICES}/pollers?%ed%a0%80=1", 422),
        ("GET", f"{SERVICES}/pollers?q=%00", 422),
        ("GET", f"{SERVICES}/pollers?" + "&".join(f"a{n}=1" for n in range(1000)), 422),
        ("GET", f"{SERVICES}/pollers?" + "&".join(["limit=1"] * 1000), 422),
        ("GET", "/" + "x" * 100_000, 400),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_odd_target_is_nothing_worse(daemon: Daemon, method: str, target: str, status: int) -> None:
    sent = head(daemon, method, "@").replace(b"@", target.encode("latin-1"))
    if method == "CONNECT":  # nothing is closed after it
        with socket.create_connection(address(daemon), timeout=30) as client:
            client.sendall(sent)
            assert statuses(client.recv(65_536)) == [status]
        return
    answer = talk(daemon, sent)
    assert statuses(answer) == [status]
    assert b"root:" not in answer


# --- where one request ends and the next begins


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        pytest.param((b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"0\r\n\r\n", id="CL.TE"),
        pytest.param((b"Transfer-Encoding: chunked", b"Content-Length: 5"), b"0\r\n\r\n", id="TE.CL"),
        pytest.param(
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), b"0\r\n\r\n", id="TE.TE"
        ),
        pytest.param((b"Transfer-Encoding: xchunked",), b"0\r\n\r\n", id="TE that there is not"),
        pytest.param((b"Transfer-Encoding:\x0bchunked",), b"0\r\n\r\n", id="TE with a tab"),
        pytest.param((b"Transfer-Encoding : chunked",), b"0\r\n\r\n", id="TE with a space"),
        pytest.param((b"Content-Length: 2", b"Content-Length: 3"), b"{}x", id="two lengths"),
        pytest.param((b"Content-Length: 2, 2",), b"{}", id="a list of lengths"),
        pytest.param((b"Content-Length: -1",), b"{}", id="a negative length"),
        pytest.param((b"Content-Length: +2",), b"{}", id="a length with a sign"),
        pytest.param((b"Content-Length: 0x2",), b"{}", id="a hexadecimal length"),
        pytest.param((b"Content-Length: " + b"9" * 30,), b"{}", id="an endless length"),
        pytest.param((b"Transfer-Encoding: chunked",), b"zz\r\n{}\r\n0\r\n\r\n", id="a size that is none"),
        pytest.param((b"Transfer-Encoding: chunked",), b"-2\r\n{}\r\n0\r\n\r\n", id="a negative size"),
        pytest.param((b"Transfer-Encoding: chunked",), b"f" * 64 + b"\r\n{}", id="an endless size"),
        pytest.param((b"Transfer-Encoding: chunked",), b"2\r\n{}xx0\r\n\r\n", id="more than the size"),
        pytest.param(
            (b"Transfer-Encoding: chunked",),
            b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            id="trailers",
        ),
    ],
)
def test_nothing_is_smuggled(daemon: Daemon, framing: tuple[bytes, ...], rest: bytes) -> None:
    sent = head(daemon, "POST", PACKAGES, *framing).replace(b"Connection: close\r\n", b"") + rest
    answer = talk(daemon, sent + b"GET /api/admin/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(answer) == [400]


def test_requests_behind_one_another_are_answered_in_order(daemon: Daemon) -> None:
    answer = talk(daemon, GET * 500 + GET.replace(b"healthz", b"nothing") + LAST + b"\r\n")
    assert statuses(answer) == [200] * 500 + [404, 200]


def test_garbage_behind_a_request_ends_the_connection(daemon: Daemon) -> None:
    with socket.create_connection(address(daemon), timeout=30) as client:
        client.sendall(GET)
        assert statuses(client.recv(65_536)) == [200]
        client.sendall(b"\0\1\2garbage\r\n\r\n" + GET)
        assert statuses(client.recv(65_536)) == [400]
        assert client.recv(1) == b""


# --- bodies


@pytest.mark.parametrize("path", [PACKAGES, REDEEM])
@pytest.mark.parametrize(
    "coding",
    [[b"gzip"], [b"GZip"], [b"deflate"], [b"br"], [b"identity, gzip"], [b"identity", b"gzip"]],
    ids=repr,
)
def test_a_packed_body_is_refused_unopened(daemon: Daemon, path: str, coding: list[bytes]) -> None:
    bomb = gzip.compress(b" " * 20_000_000)
    assert len(bomb) < 64 * 1024
    sent = with_body(daemon, bomb, *[b"Content-Encoding: " + each for each in coding], path=path)
    assert statuses(talk(daemon, sent)) == [415]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b"[" * 1000 + b"]" * 1000, 400, id="1,000 levels"),
        pytest.param(b"[" * 500_000, 400, id="500,000 levels"),
        pytest.param(NEW % (b'{"a":' * 1000 + b"1" + b"}" * 1000), 400, id="1,000 levels of metadata"),
        pytest.param(NEW % (b'{"a":' * 40 + b"1" + b"}" * 40), 422, id="40 levels of metadata"),
        pytest.param(NEW % b'{"a": 1%s}' % (b"0" * 5000), 400, id="a number of 5,000 digits"),
        pytest.param(NEW % b'{"a": 1%s}' % (b"0" * 30), 422, id="a number of 31 digits"),
        pytest.param(NEW % b'{"a": 1e999}', 422, id="1e999"),
        pytest.param(NEW % b'{"a": NaN}', 422, id="NaN"),
        pytest.param(NEW % b'{"a": -Infinity}', 422, id="-Infinity"),
        pytest.param(NEW % b"{%s}" % b",".join(b'"%d":0' % n for n in range(20_000)), 422, id="20,000 keys"),
        pytest.param(NEW.replace(b"x", b"\\ud800") % b"{}", 400, id="half a surrogate pair"),
        pytest.param(NEW % b'{"a\\ud800": "\\udfff"}', 400, id="halves of pairs in metadata"),
        pytest.param(NEW.replace(b"x", b"\xed\xa0\x80") % b"{}", 400, id="a surrogate in UTF-8"),
        pytest.param(NEW.replace(b"x", b"\xff") % b"{}", 400, id="no UTF-8"),
        pytest.param(NEW.replace(b"x", b"\\u0000") % b"{}", 422, id="NUL"),
        pytest.param(b"\xef\xbb\xbf" + NEW % b"{}", 400, id="a byte order mark"),
        pytest.param((NEW % b"{}").decode().encode("utf-16"), 400, id="UTF-16"),
        pytest.param(b'"' + b"a" * 1_100_000 + b'"', 413, id="more than a megabyte"),
    ],
)
def test_json_that_means_harm(daemon: Daemon, body: bytes, status: int) -> None:
    assert statuses(talk(daemon, with_body(daemon, body))) == [status]


def test_of_a_key_given_twice_the_last_counts(daemon: Daemon) -> None:
    answer = talk(daemon, with_body(daemon, b'{"component_type":"poller","label":"one","label":"two"}'))
    assert statuses(answer) == [201]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["service"]["service_id"] == "two"


@pytest.mark.parametrize("path", [PACKAGES, REDEEM, f"{SERVICES}/pollers"])
def test_a_body_without_end_is_cut_off(daemon: Daemon, path: str) -> None:
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    sent = head(daemon, "POST", path, b"Transfer-Encoding: chunked") + chunk * 400
    assert statuses(talk(daemon, sent)) in ([413], []), "or the refusal was lost, since it went on sending"


def test_a_body_that_nobody_asked_for_is_not_read(daemon: Daemon) -> None:
    sent = head(daemon, "GET", "/api/admin/events", b"Content-Length: 50000000") + b"a" * 10_000_000
    assert statuses(talk(daemon, sent)) in ([200], []), "or the answer was lost, since it went on sending"


# --- slow ones, and many


@asynccontextmanager
async def connected(daemon: Daemon) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address(daemon))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end, which is a reset where something that we sent was not read any more."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            received += piece
    return bytes(received)


async def trickle(daemon: Daemon, start: bytes, piece: bytes) -> int:
    """Send a little now and then until the daemon has had enough; the status of its answer, 0 for none."""
    async with connected(daemon) as (reader, writer):
        answer = asyncio.create_task(all_of(reader))
        writer.write(start)
        while not answer.done():
            writer.write(piece)
            await asyncio.wait({answer}, timeout=0.3)
        return next(iter(statuses(await answer)), 0)


def asks_and_never_reads(daemon: Daemon) -> socket.socket:
    """A client that asks for more than there is room for on the way, and takes nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address(daemon))
    client.settimeout(1)
    with contextlib.suppress(TimeoutError):
        for _ in range(10_000):
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    return client


async def half_open(daemon: Daemon, start: bytes) -> int:
    """Send a beginning, say that no more will come, and wait for an end."""
    async with connected(daemon) as (reader, writer):
        writer.write(start)
        writer.write_eof()
        return next(iter(statuses(await all_of(reader))), 0)


def test_slow_clients_are_ended_while_others_are_served(daemon: Daemon) -> None:
    body = head(daemon, "POST", PACKAGES, b"Content-Length: 100000")
    chunks = head(daemon, "POST", REDEEM, b"Transfer-Encoding: chunked")

    async def attack() -> list[tuple[str, int]]:
        attacks = [
            *[("head", trickle(daemon, b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n")) for _ in range(20)],
            *[("line", trickle(daemon, b"GET /", b"x")) for _ in range(5)],
            *[("newlines", trickle(daemon, b"", b"\r\n")) for _ in range(5)],
            *[("body", trickle(daemon, body, b" ")) for _ in range(20)],
            *[("chunks", trickle(daemon, chunks, b"1\r\n \r\n")) for _ in range(20)],
            *[("one chunk", trickle(daemon, chunks + b"fffffff\r\n", b" ")) for _ in range(5)],
            *[("half a head", half_open(daemon, b"GET /healthz HTTP/1.1\r\nHo")) for _ in range(5)],
            *[("half a body", half_open(daemon, body + b"{")) for _ in range(5)],
        ]
        under_way = asyncio.gather(*(each for _, each in attacks))
        served = 0
        async with asyncio.timeout(PATIENCE):
            while not under_way.done():
                answer = await asyncio.to_thread(daemon.call, "GET", f"{SERVICES}/stats")
                assert answer.status == 200
                served += 1
                await asyncio.wait({under_way}, timeout=0.5)
        assert served > 5
        return list(zip((name for name, _ in attacks), await under_way, strict=True))

    deaf = [asks_and_never_reads(daemon) for _ in range(5)]
    found = asyncio.run(attack())
    for name in ("head", "line", "newlines", "body", "chunks", "one chunk"):
        assert {status for own, status in found if own == name} == {408}, name
    assert daemon.metric("jetway_http_connections_cut_total", reason="slow_head") >= 30

    def given_up() -> None:
        assert daemon.metric("jetway_http_connections_cut_total", reason="stalled") == len(deaf)
        assert daemon.metric("jetway_http_connections") == 1

    eventually(given_up, PATIENCE)
    for client in deaf:
        client.close()


def test_clients_that_vanish_leave_nothing(daemon: Daemon) -> None:
    starts = [
        b"",
        b"GET /heal",
        GET,
        head(daemon, "POST", PACKAGES, b"Content-Length: 100") + b"{",
        head(daemon, "POST", REDEEM, b"Transfer-Encoding: chunked") + b"5\r\n{",
        head(daemon, "GET", "/docs/swagger-ui-bundle.js"),
        head(daemon, "GET", "/openapi.json") * 20,
    ]
    for start in starts * 20:
        with socket.create_connection(address(daemon), timeout=30) as client:
            client.sendall(start)
            # Closed with a reset, as by a machine that lost its power and came back.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_thousand_idle_connections_are_in_nobodys_way(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 1200
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            lacking(f"{hard} open files are allowed here, and this takes {needed}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    before = memory_kb(daemon)
    idle: list[socket.socket] = []
    try:
        for number in range(1000):
            idle.append(socket.create_connection(address(daemon), timeout=30))
            if number % 2:  # one in two has been used before it went idle
                idle[-1].sendall(GET)

        def all_there() -> None:
            assert daemon.metric("jetway_http_connections") == 1001

        eventually(all_there)
        for number in range(20):
            answer = daemon.call(
                "POST", PACKAGES, {"component_type": "poller", "label": f"meanwhile {number}"}
            )
            assert answer.status == 201
            daemon.require_written(answer.json)
        assert memory_kb(daemon) - before < 100 * 1024
        for client in (idle[0], idle[1], idle[-1]):
            client.sendall(GET)
            assert statuses(client.recv(65_536))[0] == 200
    finally:
        for client in idle:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_flood_beyond_the_limit_is_refused_and_passes(tmp_path: Path) -> None:
    small = Daemon(tmp_path, JETWAY_HTTP__MAX_CONNECTIONS="20")
    try:
        small.start()
        clients = [socket.create_connection(address(small), timeout=30) for _ in range(60)]
        refused = [client.recv(65_536) for client in clients[20:]]
        assert all(statuses(answer) == [503] and b"too_many_connections" in answer for answer in refused)
        clients[0].sendall(GET)
        assert statuses(clients[0].recv(65_536)) == [200]
        for client in clients:
            client.close()

        def served() -> None:
            assert small.call("GET", f"{SERVICES}/stats").status == 200

        eventually(served)
        assert small.metric("jetway_http_connections_cut_total", reason="full") >= 40
        assert small.stop() == 0
        small.check_log()
    finally:
        small.discard()


def test_it_stops_in_time_while_clients_hold_on(tmp_path: Path) -> None:
    held = Daemon(tmp_path)
    held.expected_errors |= TOO_SLOW
    try:
        held.start()
        starts = [b"", b"GET /heal", head(held, "POST", PACKAGES, b"Content-Length: 100") + b"{"]
        clients = [socket.create_connection(address(held), timeout=30) for _ in starts]
        for client, start in zip(clients, starts, strict=True):
            client.sendall(start)
        held.terminate()
        assert held.wait(30) == 0
        held.check_log()
        for client in clients:
            client.close()
    finally:
        held.discard()
