"""Wrong calls over HTTP: each is told what is wrong by name, changes nothing, and is never our mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from support.daemon import PACKAGES, SERVICES, Answer, Daemon
from support.daemon_state import unchanged

BAD_IDS = ["a/b", "a.b", "a*", "a>", "a b", "a" * 64, "A", "-a", "a-", "ä", "a\n", "a\x00"]
NOT_THERE = "00000000-0000-4000-8000-00000000ffff"


@pytest.fixture(scope="module")
def family(daemon: Daemon) -> dict[str, Any]:
    """What the wrong calls refer to: a live line of descent, and a poller that was revoked."""
    made = {
        "p1": daemon.create("poller", "p1"),
        "a1": daemon.create("agent", "a1", "p1"),
        "c1": daemon.create("checker", "c1", "a1"),
        "gone": daemon.create("poller", "gone"),
    }
    path = f"{PACKAGES}/{made['gone']['package']['package_id']}/revoke"
    assert daemon.call("POST", path, {"reason": "stolen"}).status == 200
    return made


def must_refuse(answer: Answer, status: int, *names: str) -> Any:
    """A problem document that names what is wrong."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    told = problem["detail"] + " ".join(f"{e['field']} {e['message']}" for e in problem["errors"])
    for name in names:
        assert name in told
    assert problem["status"] == status
    return problem


def fields_of(problem: Any) -> list[str]:
    return [error["field"] for error in problem["errors"]]


AGENT = {"component_type": "agent", "label": "New", "component_id": "new", "parent_id": "p1"}
CHECKER = {
    "component_type": "checker",
    "label": "New",
    "component_id": "new",
    "parent_id": "a1",
    "checker_kind": "icmp",
    "checker_config": {"targets": ["192.0.2.1"]},
}


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"label": 7}, "label"),
        ({"label": None}, "label"),
        ({"label": ""}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"label": "a\u0007b"}, "label"),
        ({"component_type": "router"}, "component_type"),
        ({"component_type": ["agent"]}, "component_type"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": {"rack": 12}}, "labels.rack"),
        ({"metadata": "text"}, "metadata"),
        ({"heartbeat_interval_seconds": "30"}, "heartbeat_interval_seconds"),
        ({"heartbeat_interval_seconds": 0}, "heartbeat_interval_seconds"),
        ({"heartbeat_interval_seconds": True}, "heartbeat_interval_seconds"),
        ({"token_ttl_seconds": -1}, "token_ttl_seconds"),
        ({"token_ttl_seconds": 10**30}, "token_ttl_seconds"),
        ({"spiffe_id": "https://example.org"}, "spiffe_id"),
        ({"checker_kind": "../icmp"}, "checker_kind"),
        ({"checker_kind": "icmp"}, "checker_kind"),
        ({"parent_id": ""}, "parent_id"),
        ({"parent_id": 5}, "parent_id"),
    ],
)
async def test_a_wrong_field_is_named(daemon: Daemon, change: dict[str, Any], field: str) -> None:
    async with unchanged(daemon):
        answer = daemon.call("POST", PACKAGES, {**AGENT, **change})
        assert field in fields_of(must_refuse(answer, 422, field))


@pytest.mark.usefixtures("family")
async def test_all_wrong_fields_are_named_at_once(daemon: Daemon) -> None:
    async with unchanged(daemon):
        answer = daemon.call("POST", PACKAGES, {"component_id": "A b", "labels": 1, "colour": "red"})
        found = fields_of(must_refuse(answer, 422))
        assert {"component_type", "label", "component_id", "labels", "colour"} <= set(found)


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("field", ["component_id", "parent_id"])
@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
async def test_something_that_is_no_id_is_refused_by_field(daemon: Daemon, field: str, bad: str) -> None:
    async with unchanged(daemon):
        problem = must_refuse(daemon.call("POST", PACKAGES, {**AGENT, field: bad}), 422)
        assert fields_of(problem) == [field]
        if field == "component_id":
            body = {"service_id": bad, "parent_id": "p1"}
            problem = must_refuse(daemon.call("POST", f"{SERVICES}/agents", body), 422)
            assert fields_of(problem) == ["service_id"]


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
async def test_a_path_with_something_that_is_no_id_names_nothing(daemon: Daemon, bad: str) -> None:
    async with unchanged(daemon):
        path = f"{SERVICES}/pollers/{quote(bad, safe='')}"
        for method, where, body in (
            ("GET", path, None),
            ("DELETE", path, None),
            ("POST", f"{path}/status", {"status": "revoked"}),
        ):
            must_refuse(daemon.call(method, where, body), 404)


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        ({**AGENT, "parent_id": "nobody"}, 422, ("poller", "nobody", "parent_id")),
        ({**AGENT, "parent_id": "a1"}, 422, ("poller", "a1", "parent_id")),
        ({**AGENT, "parent_id": "gone"}, 409, ("gone", "revoked", "parent_id")),
        ({**CHECKER, "parent_id": "p1"}, 422, ("agent", "p1", "parent_id")),
        ({**CHECKER, "parent_id": "c1"}, 422, ("agent", "c1", "parent_id")),
        ({**CHECKER, "parent_id": "nobody"}, 422, ("agent", "nobody", "parent_id")),
        ({**CHECKER, "checker_kind": ""}, 422, ("checker_kind",)),
        ({**AGENT, "component_type": "poller"}, 422, ("poller", "parent_id")),
        ({**AGENT, "component_id": "a1"}, 409, ("a1", "taken", "component_id")),
        ({"component_type": "poller", "label": "p1"}, 409, ("p1", "taken")),
        ({"component_type": "poller", "label": "gone"}, 409, ("gone", "revoked", "reissue")),
    ],
)
async def test_a_wrong_parent_and_a_taken_id_are_named(
    daemon: Daemon, body: dict[str, Any], status: int, names: tuple[str, ...]
) -> None:
    async with unchanged(daemon):
        must_refuse(daemon.call("POST", PACKAGES, body), status, *names)
        if "checker_kind" not in names:
            register = {
                name: value for name, value in body.items() if name not in ("component_type", "component_id")
            }
            register["service_id"] = body.get("component_id", body["label"])
            path = f"{SERVICES}/{body['component_type']}s"
            must_refuse(daemon.call("POST", path, register), status, names[0])


def chunks(size: int) -> Iterator[bytes]:
    """A body whose length is not told beforehand."""
    yield b'{"label": "'
    for _ in range(size // 65_536):
        yield b"x" * 65_536
    yield b'"}'


TEN_MEGABYTES = json.dumps({**AGENT, "notes": "x" * 10_000_000}).encode()


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    ("raw", "status", "name"),
    [
        (b"", 400, "JSON"),
        (b"not json", 400, "JSON"),
        (b"[]", 422, "body"),
        (b'"text"', 422, "body"),
        (b"\xff\xfe{", 400, "JSON"),
        (b'{"label": "a', 400, "JSON"),
        (json.dumps({**AGENT, "metadata": {"n": float("nan")}}).encode(), 422, "metadata"),
        (
            json.dumps({**AGENT, "heartbeat_interval_seconds": float("inf")}).encode(),
            422,
            "heartbeat_interval",
        ),
        (b"[" * 1000 + b"]" * 1000, 400, "JSON"),
        (b'{"metadata": ' + b'{"a": ' * 1000 + b"1" + b"}" * 1001, 400, "JSON"),
        (b'{"metadata": ' + b'{"a": ' * 100 + b"1" + b"}" * 101, 422, "metadata"),
        (TEN_MEGABYTES, 413, "bytes"),
    ],
    ids=[
        "empty",
        "no-json",
        "list",
        "text",
        "no-utf8",
        "cut",
        "nan",
        "infinity",
        "1000-lists",
        "1000-objects",
        "100-objects",
        "10MB",
    ],
)
async def test_a_body_that_cannot_be_is_refused(daemon: Daemon, raw: bytes, status: int, name: str) -> None:
    async with unchanged(daemon):
        must_refuse(daemon.call("POST", PACKAGES, raw=raw), status, name)
        # The same at the door without an API token.
        answer = daemon.call("POST", "/api/edge/redeem", raw=raw, token="")
        assert answer.status in (400, 413, 422)
        must_refuse(answer, answer.status)


@pytest.mark.usefixtures("family")
async def test_a_body_of_10_mb_that_hides_its_length_is_refused(daemon: Daemon) -> None:
    async with unchanged(daemon):
        for path, token in ((PACKAGES, None), ("/api/edge/redeem", "")):
            answer = daemon.call("POST", path, raw=chunks(10_000_000), token=token)
            must_refuse(answer, 413, "bytes")


@pytest.mark.usefixtures("family")
async def test_a_body_of_another_kind_is_refused(daemon: Daemon) -> None:
    async with unchanged(daemon):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        must_refuse(daemon.call("POST", PACKAGES, raw=b"a=b", headers=headers), 415, "JSON")
        headers = {"Content-Encoding": "gzip"}
        must_refuse(daemon.call("POST", PACKAGES, AGENT, headers=headers), 415, "compressed")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("cursor=garbage", "cursor"),
        ("status=alive", "status"),
        ("sort=colour", "sort"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_wrong_query_parameter_is_named(daemon: Daemon, query: str, name: str) -> None:
    problem = must_refuse(daemon.call("GET", f"{SERVICES}/pollers?{query}"), 422, name)
    assert [field.partition(".")[0] for field in fields_of(problem)] == [name]


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{PACKAGES}/{NOT_THERE}", None),
        ("GET", f"{PACKAGES}/{NOT_THERE}/events", None),
        ("POST", f"{PACKAGES}/{NOT_THERE}/revoke", {}),
        ("POST", f"{PACKAGES}/{NOT_THERE}/reissue", {}),
        ("DELETE", f"{PACKAGES}/{NOT_THERE}", None),
        ("GET", f"{PACKAGES}/no-uuid", None),
        ("GET", f"{SERVICES}/agents/nobody", None),
        ("GET", f"{SERVICES}/agents/nobody/checkers", None),
        ("GET", f"{SERVICES}/agents/nobody/events", None),
        ("POST", f"{SERVICES}/agents/nobody/status", {"status": "revoked"}),
        ("POST", f"{SERVICES}/agents/nobody/approve", {}),
        ("DELETE", f"{SERVICES}/agents/nobody", None),
        ("GET", f"{SERVICES}/routers", None),
        ("GET", "/api/nothing", None),
    ],
)
async def test_what_is_not_there_is_404(daemon: Daemon, method: str, path: str, body: Any) -> None:
    async with unchanged(daemon):
        must_refuse(daemon.call(method, path, body), 404)


async def test_what_the_lifecycle_forbids_is_409(daemon: Daemon, family: dict[str, Any]) -> None:
    async with unchanged(daemon):
        for body, name in (({"status": "active"}, "issued"), ({"status": "deleted"}, "DELETE")):
            must_refuse(daemon.call("POST", f"{SERVICES}/agents/a1/status", body), 409, name)
        must_refuse(daemon.call("DELETE", f"{SERVICES}/agents/a1"), 409, "a1", "pending")
        must_refuse(daemon.call("POST", f"{SERVICES}/agents/a1/approve", {}), 409, "a1")
        package = family["a1"]["package"]["package_id"]
        must_refuse(daemon.call("DELETE", f"{PACKAGES}/{package}"), 409, "issued")
        poller = family["p1"]["package"]["package_id"]
        answer = daemon.call("POST", f"{PACKAGES}/{poller}/revoke", {"cascade": False})
        must_refuse(answer, 409, "p1", "1 live agent")


@pytest.mark.parametrize("token", ["", "jwa_" + "x" * 43, "nonsense", "jw1.abc.def"])
async def test_a_caller_without_a_good_token_is_401_everywhere(daemon: Daemon, token: str) -> None:
    async with unchanged(daemon):
        for method, path, body in (
            ("GET", f"{SERVICES}/tree", None),
            ("GET", f"{SERVICES}/pollers", None),
            ("GET", "/api/admin/events", None),
            ("GET", "/api/admin/api-tokens", None),
            ("POST", PACKAGES, AGENT),
            ("POST", f"{SERVICES}/agents", {"service_id": "new", "parent_id": "p1"}),
            ("DELETE", f"{SERVICES}/pollers/gone", None),
        ):
            answer = daemon.call(method, path, body, token=token)
            must_refuse(answer, 401, "token")
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_role_that_is_too_small_is_403_and_named(daemon: Daemon, family: dict[str, Any]) -> None:
    texts = {}
    for role in ("viewer", "operator"):
        answer = daemon.call("POST", "/api/admin/api-tokens", {"name": role, "role": role})
        texts[role] = answer.json["token"]
    async with unchanged(daemon):
        revoke = f"{PACKAGES}/{family['p1']['package']['package_id']}/revoke"
        for role, needed, method, path, body in (
            ("viewer", "operator", "POST", PACKAGES, AGENT),
            ("viewer", "operator", "POST", revoke, {}),
            ("viewer", "operator", "POST", f"{SERVICES}/pollers/p1/status", {"status": "revoked"}),
            ("viewer", "admin", "DELETE", f"{SERVICES}/pollers/gone", None),
            ("operator", "admin", "DELETE", f"{SERVICES}/pollers/gone", None),
            ("operator", "admin", "POST", "/api/admin/api-tokens", {"name": "x", "role": "admin"}),
        ):
            must_refuse(daemon.call(method, path, body, token=texts[role]), 403, needed, role)
        assert daemon.call("GET", f"{SERVICES}/tree", token=texts["viewer"]).status == 200


def test_a_wrong_method_says_which_are_right(daemon: Daemon) -> None:
    answer = daemon.call("PUT", PACKAGES, {})
    must_refuse(answer, 405, "POST")
    assert "POST" in answer.headers["allow"]
