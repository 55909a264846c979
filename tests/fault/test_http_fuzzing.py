"""Values that are odd but may come: in headers, in redemptions, in what people write of a service.

Each is taken or refused in a declared way, and what is taken stands unharmed wherever it goes: in answers, config
documents, rows and the trail. The log stays one JSON object a line.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.daemon import PACKAGES, REDEEM, SERVICES, Daemon, eventually, fresh, nats_key

FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
SOME = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAGES = ["/api/admin/events", f"{SERVICES}/pollers", PACKAGES, f"{SERVICES}/pollers/none/events"]
ODD = [
    "'; DROP TABLE pollers; --",
    '"',
    "\\",
    "${HOME}",
    "$(exit)",
    "<script>",
    "{{COMPONENT_ID}}",
    "%s%n",
    "\u2028",
]
ODD += [
    "\u202e",
    "\U0001f4a9",
    "e\u0301",
    "\ufeff",
    "\ufffe",
    "null",
    "NaN",
    "-0",
    "1e999",
    "../../x",
    "a" * 200,
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(
        tmp_path_factory.mktemp("daemon"),
        JETWAY_HTTP__FAILURES_PER_MINUTE="1000000",
        JETWAY_LOG__LEVEL="debug",
    )
    try:
        made.start()
        yield made
        assert made.stop() == 0
        made.check_log()
    finally:
        made.discard()


@pytest.fixture(autouse=True)
def _the_log_is_lines_of_json(daemon: Daemon) -> Iterator[None]:
    begin = len(daemon.log_text())
    yield
    daemon.check_log()
    for line in daemon.log_text()[begin:].splitlines():
        fields = json.loads(line)
        assert {"event", "level", "timestamp"} <= set(fields), line


def ask(daemon: Daemon, path: str, *lines: bytes) -> tuple[int, dict[str, str], Any]:
    """One call whose header lines are any bytes; the status, the headers and the JSON of its answer."""
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    sent = b"\r\n".join([f"GET {path} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *lines, b"", b""])
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(sent)
        received = b""
        while piece := client.recv(65_536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    names = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    return int(head.split()[1]), {name.lower(): value for name, value in names.items()}, json.loads(body)


def harmless(answer: Any, *, statuses: tuple[int, ...]) -> None:
    status, headers, body = answer
    assert status in statuses, body
    assert headers["server"] == "jetway"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", headers["x-request-id"])
    if status >= 400:
        assert headers["content-type"].startswith("application/problem+json")
        assert body["status"] == status


HEADER = st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))


# --- headers


@SOME
@given(HEADER.filter(lambda value: b"\n" not in value and b"\r" not in value))
@example(b"x" * 64)
@example(b"x" * 65)
@example(b"a\xc2\x85b")
def test_any_request_id_is_kept_or_replaced(daemon: Daemon, value: bytes) -> None:
    status, headers, body = answer = ask(daemon, "/nothing", b"X-Request-Id: " + value)
    harmless(answer, statuses=(404, 400))
    assert body["request_id"] == headers["x-request-id"]
    if re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", value):
        assert (status, headers["x-request-id"]) == (404, value.decode())


SCHEMES = st.sampled_from(
    [b"Bearer ", b"bearer  ", b"Basic ", b"", b"Bearer", b"Bearer\t", b"Bearer Bearer "]
)


@SOME
@given(SCHEMES, HEADER | st.integers(0, 50).map(lambda cut: b"cut:%d" % cut))
@example(b"Bearer ", "jwa_é".encode())
@example(b"Bearer ", b"\xed\xa0\x80")
def test_no_authorization_but_a_token_lets_in(daemon: Daemon, scheme: bytes, value: bytes) -> None:
    if value.startswith(b"cut:"):  # the genuine one, but for one character
        cut = int(value[4:]) % len(daemon.token)
        value = (daemon.token[:cut] + daemon.token[cut + 1 :]).encode()
    sent = b"Authorization: " + scheme + value
    harmless(
        ask(daemon, f"{SERVICES}/stats", sent.replace(b"\r", b"").replace(b"\n", b"")), statuses=(401, 400)
    )


@SOME
@given(HEADER.filter(lambda value: b"\n" not in value and b"\r" not in value))
@example(b"k" * 255)
@example(b"k" * 256)
@example(b"")
def test_any_idempotency_key_is_good_or_named(daemon: Daemon, value: bytes) -> None:
    body = json.dumps({"component_type": "poller", "label": fresh("idem")}).encode()
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    sent = [
        f"POST {PACKAGES} HTTP/1.1".encode(),
        b"Host: x",
        b"Connection: close",
        f"Authorization: Bearer {daemon.token}".encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Idempotency-Key: " + value,
        b"",
        body,
    ]
    answers = []
    for _ in range(2):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"\r\n".join(sent))
            received = b""
            while piece := client.recv(65_536):
                received += piece
        head, _, text = received.partition(b"\r\n\r\n")
        answers.append((int(head.split()[1]), json.loads(text)))
    (status, first), (_, second) = answers
    assert status in (201, 400, 422)
    if status == 201:
        daemon.secrets.add(first["token"])
        assert re.fullmatch(rb"[\x21-\x7e]{1,255}", value.strip(b" \t"))
        assert second["package"]["package_id"] == first["package"]["package_id"]
        assert second["token"] == first["token"]
    elif status == 422:
        assert [error["field"] for error in first["errors"]] == ["Idempotency-Key"]


# --- cursors


def made_up(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


CURSORS = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    st.lists(
        st.text(st.characters(codec=None), max_size=10)
        | st.sampled_from(["2026-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "\ud800", "a\0b"])
        | st.integers()
        | st.none(),
        max_size=3,
    ).map(made_up),
)


@SOME
@given(st.sampled_from(PAGES), CURSORS)
@example(PAGES[0], made_up(["2026-01-01T00:00:00Z", "\ud800"]))
@example(PAGES[3], made_up(["2026-01-01T00:00:00Z", "a\0b"]))
def test_any_cursor_is_a_place_or_named(daemon: Daemon, page: str, cursor: str) -> None:
    answer = daemon.call("GET", f"{page}?cursor={quote(cursor.encode('utf-8', 'surrogatepass'))}")
    assert answer.status in (200, 404, 422), answer.body
    if answer.status == 422:
        assert [error["field"] for error in answer.json["errors"]] == ["cursor"]


# --- redemption


WORDS = st.sampled_from(ODD) | st.text(max_size=60)
CSRS = WORDS | st.just("-----BEGIN CERTIFICATE REQUEST-----\n\0\n-----END CERTIFICATE REQUEST-----\n")


@FEW
@given(
    CSRS,
    st.booleans() | WORDS,
    st.fixed_dictionaries({}, optional=dict.fromkeys(("hostname", "os", "arch"), WORDS)),
)
@example("x" * 16_384, True, {"hostname": "x" * 200})
@example("x" * 16_385, False, {})
@example("", "U" + "A" * 54 + "\n", {})
def test_an_installer_may_say_anything_of_itself(
    daemon: Daemon, csr: str, key: bool | str, host: dict[str, str]
) -> None:
    name = fresh("odd")
    token = daemon.create("poller", name)["token"]
    nkey = {True: nats_key(), False: ""}[key] if isinstance(key, bool) else key
    sent = {"token": token, "csr_pem": csr, "nats_public_key": nkey, "host": host}
    answer = daemon.call("POST", REDEEM, sent, token="")
    assert answer.status in (200, 400, 422), answer.body
    if answer.status != 200:
        for error in answer.json["errors"]:
            assert error["field"].split(".")[0] in ("csr_pem", "nats_public_key", "host")
        assert daemon.service("poller", name)["package_id"], "nothing is spent"
        assert daemon.redeem(token).status == 200
        return
    again = daemon.call("POST", REDEEM, sent, token="")
    if csr or nkey:
        assert (again.status, again.json) == (200, answer.json)
    else:
        assert again.status == 409
    other = daemon.call("POST", REDEEM, {**sent, "nats_public_key": nats_key()}, token="")
    assert other.status == 409
    package = daemon.package(answer.json["package_id"])
    assert host.get("hostname", "") in package["delivered_to"]


# --- what people write


LABELS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,20}[A-Za-z0-9])?", fullmatch=True), WORDS, max_size=3
)
FREE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
METADATA = st.dictionaries(WORDS, FREE, max_size=4)


def test_what_is_written_of_a_service_stands_everywhere_as_it_was_written(daemon: Daemon) -> None:
    written: dict[str, dict[str, Any]] = {}

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(WORDS, WORDS, LABELS, METADATA, WORDS)
    @example("x", "", {}, {"a\0b": "c\0d", "\x1b[31m": "\r\n", "\x7f": "\x85"}, "a\n\tb")
    @example("x", "", {}, {"__proto__": {"$ref": "#"}, "": ""}, "")
    @example("x", "", {}, {"n": [0.1, -0.0, 1e308, 5e-324, 2**63 - 1, -(2**63)]}, "")
    def write(label: str, site: str, labels: dict[str, str], metadata: dict[str, Any], notes: str) -> None:
        name = fresh("said")
        said = {"label": label, "site": site, "labels": labels, "metadata": metadata, "notes": notes}
        answer = daemon.call("POST", PACKAGES, {"component_type": "poller", "component_id": name, **said})
        assert answer.status in (201, 422), answer.body
        if answer.status == 422:
            for error in answer.json["errors"]:
                assert error["field"].split(".")[0] in said
            assert daemon.call("GET", f"{SERVICES}/pollers/{name}").status == 404
            return
        assert answer.json["package"]["notes"] == notes
        written[name] = said

    write()
    assert len(written) > 10

    def stands_everywhere() -> None:
        documents = asyncio.run(config_documents(daemon))
        assert {f"config/pollers/{name}.json" for name in written} <= set(documents)
        rows = {row["poller_id"]: row for row in daemon.rows("SELECT * FROM pollers")}
        assert set(written) <= set(rows)
        for name, said in written.items():
            service = daemon.service("poller", name)
            for shown in (service, documents[f"config/pollers/{name}.json"]):
                assert {key: shown[key] for key in ("label", "site", "labels", "metadata")} == {
                    key: said[key] for key in ("label", "site", "labels", "metadata")
                }
            assert rows[name]["label"] == said["label"]
            assert rows[name]["site"] == said["site"]
            assert json.loads(rows[name]["metadata"]) == said["metadata"]

    eventually(stands_everywhere, 60)


async def config_documents(daemon: Daemon) -> dict[str, Any]:
    """All config documents as any NATS client reads them."""
    async with daemon.nats() as client:
        bucket = await client.jetstream(timeout=30).key_value("config")
        found = {}
        for key in await bucket.keys():
            entry = await bucket.get(key)
            found[key] = json.loads(entry.value or b"null")
        return found
