"""The client commands against prepared answers: what is asked, what is printed, how it fails."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.cli import places, run_command
from jetway.cli.output import ago
from support.fake_gateway import FakeGateway, Reply, Request, fake_gateway

PACKAGE = "0b9f3c1e-8f5e-4c55-9a3f-0d3a4f2f9f10"


_MOMENT: list[datetime] = []


@pytest.fixture(autouse=True)
def _moment() -> None:
    _MOMENT[:] = [datetime.now(UTC)]


def now() -> datetime:
    """When the test began, not when it was collected: a long run lies between the two."""
    return _MOMENT[0]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("JETWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        monkeypatch.setenv("JETWAY_URL", running.url)
        monkeypatch.setenv("JETWAY_TOKEN", "jwa_test")
        yield running


def service(service_id: str = "core", **more: Any) -> dict[str, Any]:
    return {
        "service_type": "agent",
        "service_id": service_id,
        "parent_id": "site-a",
        "status": "active",
        "approval": "none",
        "liveness": "online",
        "last_seen": (now() - timedelta(minutes=3, seconds=5)).isoformat(),
        "package_id": PACKAGE,
        "registration_source": "edge_onboarding",
        "labels": {"rack": "12"},
        "healthy": True,
        "agent_count": 0,
        **more,
    }


def package(**more: Any) -> dict[str, Any]:
    return {
        "package_id": PACKAGE,
        "component_type": "agent",
        "component_id": "core",
        "status": "issued",
        "created_at": (now() - timedelta(hours=2, minutes=1)).isoformat(),
        "token_expires_at": (now() + timedelta(hours=21, minutes=59)).isoformat(),
        **more,
    }


def issued() -> dict[str, Any]:
    return {
        "package": package(),
        "service": service(),
        "token": "jw1.claims.signature",
        "install": {"python": "jetway join --dir /etc/x", "shell": "curl x | sh"},
        "projection": {"document": "written", "row": "queued"},
        "warnings": ["edge hosts are told a loopback address"],
    }


def page(*items: dict[str, Any], cursor: str | None = None, total: int | None = None) -> Reply:
    return Reply(200, {"items": list(items), "next_cursor": cursor, "total": total or len(items)})


AFFECTED = {
    "dry_run": True,
    "complete": True,
    "service": {},
    "package": None,
    "services": [
        {"service_type": "agent", "service_id": "core", "status_before": "active", "status_after": "revoked"},
        {
            "service_type": "checker",
            "service_id": "ping",
            "status_before": "active",
            "status_after": "revoked",
        },
    ],
}


def asked(api: FakeGateway) -> list[tuple[str, str, Any]]:
    return [(request.method, request.path, request.body) for request in api.requests]


# --- packages


def test_create_sends_every_field_and_shows_the_token_once(
    api: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(Reply(201, issued()))
    (tmp_path / "ping.json").write_text('{"hosts": ["10.0.0.1"]}')
    command = [
        "package",
        "create",
        "checker",
        "Ping the core",
        "--id",
        "ping",
        "--parent",
        "core",
        "--site",
        "A",
    ]
    command += [
        "--label",
        "rack=12",
        "--label",
        "row=",
        "--metadata",
        "owner=netops=x",
        "--checker-kind",
        "icmp",
    ]
    command += ["--checker-config", str(tmp_path / "ping.json"), "--spiffe-id", "spiffe://a/b"]
    command += ["--heartbeat-interval", "1m", "--token-ttl", "2d", "--notes", "n"]
    assert run_command(command) == 0
    [request] = api.requests
    assert (request.method, request.path) == ("POST", "/api/admin/edge-packages")
    assert request.headers["Authorization"] == "Bearer jwa_test"
    assert request.headers["Idempotency-Key"]
    assert request.body == {
        "component_type": "checker",
        "label": "Ping the core",
        "component_id": "ping",
        "parent_id": "core",
        "site": "A",
        "labels": {"rack": "12", "row": ""},
        "metadata": {"owner": "netops=x"},
        "checker_kind": "icmp",
        "checker_config": {"hosts": ["10.0.0.1"]},
        "spiffe_id": "spiffe://a/b",
        "heartbeat_interval_seconds": 60,
        "token_ttl_seconds": 172800,
        "notes": "n",
    }
    captured = capsys.readouterr()
    assert captured.out.count("jw1.claims.signature") == 1
    assert "jetway join --dir /etc/x" in captured.out and "curl x | sh" in captured.out
    assert "in 21h" in captured.out
    assert "the row is queued" in captured.err and "warning: edge hosts" in captured.err


def test_create_sends_nothing_that_was_not_said(api: FakeGateway) -> None:
    api.queue(Reply(201, issued()))
    assert run_command(["package", "create", "poller", "Site A", "--token-only"]) == 0
    assert api.requests[0].body == {"component_type": "poller", "label": "Site A"}


def test_create_for_scripts(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(201, issued()))
    run_command(["package", "create", "poller", "A", "--token-only"])
    assert capsys.readouterr().out == "jw1.claims.signature\n"
    run_command(["package", "create", "poller", "A", "--json"])
    assert json.loads(capsys.readouterr().out) == issued()


def test_a_lost_answer_to_a_creation_is_asked_for_again(
    api: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetway.cli.client._RETRY_PAUSE", 0)
    api.queue(Reply(drop=True), Reply(201, issued()))
    assert run_command(["package", "create", "poller", "A"]) == 0
    first, second = api.requests
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_a_lost_answer_to_anything_else_is_not_repeated(
    api: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(Reply(drop=True))
    assert run_command(["package", "reissue", PACKAGE]) == 1
    assert len(api.requests) == 1
    assert capsys.readouterr().err.startswith(f"jetway: {api.url}")


def test_packages_are_listed(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(page(package()))
    options = [
        "--status",
        "issued",
        "--status",
        "delivered",
        "--type",
        "agents",
        "--parent",
        "site-a",
        "-q",
        "core",
    ]
    assert run_command(["package", "list", *options]) == 0
    assert api.requests[0].path == (
        "/api/admin/edge-packages?status=issued&status=delivered&component_type=agent&parent_id=site-a&q=core&limit=500"
    )
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["PACKAGE", "TYPE", "SERVICE", "STATUS", "CREATED"]
    assert line.split() == [PACKAGE, "agent", "core", "issued", "2h", "ago"]
    assert "\x1b" not in line


def test_a_package_is_found_by_its_service(api: FakeGateway) -> None:
    api.answer = lambda request: Reply(200, service() if "services" in request.path else package())
    assert run_command(["package", "show", "agent/core"]) == 0
    assert [path for _, path, _ in asked(api)] == [
        "/api/admin/services/agents/core",
        f"/api/admin/edge-packages/{PACKAGE}",
    ]


def test_a_service_without_a_package_is_said_so(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, service(package_id="", registration_source="config")))
    assert run_command(["package", "show", "agent/core"]) == 1
    assert capsys.readouterr().err == "jetway: agent/core has no package: it came in by config\n"


def test_a_service_is_reissued_whether_it_has_a_package_or_not(api: FakeGateway) -> None:
    api.queue(Reply(201, issued()))
    assert run_command(["package", "reissue", "agent/core", "--token-only"]) == 0
    assert [path for _, path, _ in asked(api)] == ["/api/admin/services/agents/core/reissue"]


def test_a_revocation_shows_the_cascade_first(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, AFFECTED))
    assert run_command(["package", "revoke", PACKAGE, "--reason", "stolen"]) == 0
    path = f"/api/admin/edge-packages/{PACKAGE}/revoke"
    assert asked(api) == [
        ("POST", path, {"reason": "stolen", "cascade": True, "dry_run": True}),
        ("POST", path, {"reason": "stolen", "cascade": True, "dry_run": False}),
    ]
    output = capsys.readouterr().out
    assert "this would change:" in output and "ping" in output and "done: 2 services changed" in output


def test_a_revocation_is_asked_about_on_a_terminal(
    api: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(Reply(200, AFFECTED))
    monkeypatch.setattr("jetway.cli.output._on_a_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert run_command(["package", "revoke", PACKAGE]) == 1
    assert [body["dry_run"] for _, _, body in asked(api)] == [True]
    assert "nothing was changed" in capsys.readouterr().out
    monkeypatch.setattr("typer.confirm", lambda question: pytest.fail("--yes asks nothing"))
    assert run_command(["package", "revoke", PACKAGE, "--yes", "--no-cascade"]) == 0
    assert asked(api)[-1][2] == {"reason": "", "cascade": False, "dry_run": False}


def test_reissue_and_delete(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(201, issued()), Reply(204))
    assert run_command(["package", "reissue", PACKAGE, "--revoke-now", "--token-ttl", "1h"]) == 0
    assert "jw1.claims.signature" in capsys.readouterr().out
    assert run_command(["package", "delete", PACKAGE]) == 0
    assert asked(api) == [
        (
            "POST",
            f"/api/admin/edge-packages/{PACKAGE}/reissue",
            {"token_ttl_seconds": 3600, "revoke_now": True},
        ),
        ("DELETE", f"/api/admin/edge-packages/{PACKAGE}", None),
    ]


# --- services


def test_services_are_listed_over_all_pages(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(page(service("a"), cursor="next one", total=3), page(service("b"), service("c"), total=3))
    assert run_command(["service", "list", "agent", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [item["service_id"] for item in answer["items"]] == ["a", "b", "c"]
    assert (answer["next_cursor"], answer["total"]) == (None, 3)
    assert api.requests[1].path == "/api/admin/services/agents?limit=500&cursor=next+one"


def test_a_limit_ends_the_listing(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(page(service("a"), service("b"), cursor="c", total=9))
    assert run_command(["service", "list", "agent", "--limit", "2"]) == 0
    assert [request.path for request in api.requests] == ["/api/admin/services/agents?limit=2"]
    assert capsys.readouterr().err == "2 of 9\n"


def test_all_types_are_listed_together(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Request) -> Reply:
        kind = request.path.split("/")[4].partition("s?")[0]
        return page(service(f"one-{kind}", service_type=kind))

    api.answer = answer
    options = ["--label", "rack", "--liveness", "offline", "--sort=-last_seen", "--with-deleted"]
    assert run_command(["service", "list", *options]) == 0
    output = capsys.readouterr().out
    assert all(f"one-{kind}" in output for kind in ("poller", "agent", "checker"))
    assert "3m ago" in output
    assert api.requests[0].path == (
        "/api/admin/services/pollers?liveness=offline&label=rack&sort=-last_seen&with_deleted=true&limit=500"
    )


def test_nothing_to_list(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(page())
    assert run_command(["service", "list", "poller"]) == 0
    assert capsys.readouterr().out == "no services\n"


def test_long_ids_stay_readable_at_80_columns(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(page(service("x" * 63, parent_id="y" * 63, approval="required", status="pending")))
    run_command(["service", "list", "agent"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    joined = "".join("".join(line.split()) for line in lines)
    assert joined.count("x") >= 63 and "…" not in joined


def test_what_others_wrote_cannot_steer_the_terminal(
    api: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(Reply(200, service("core", version="\x1b]0;owned\x07[red]1[/red]")))
    run_command(["service", "show", "agent", "core"])
    output = capsys.readouterr().out
    assert "\x1b" not in output and "[red]1[/red]" in output


def test_a_service_is_shown(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, service()))
    assert run_command(["service", "show", "agents", "core"]) == 0
    output = capsys.readouterr().out
    assert "rack=12" in output and "3m ago" in output and "yes" in output
    run_command(["service", "show", "agent", "core", "--json"])
    assert json.loads(capsys.readouterr().out) == service()


def test_the_tree(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    checker = service("ping", service_type="checker", status="pending", approval="required", children=[])
    agent = service("core", healthy=False, children=[checker])
    poller = service("site-a", service_type="poller", children=[agent])
    answer = {"items": [poller], "total": 3}
    api.queue(Reply(200, answer))
    assert run_command(["service", "tree"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "poller site-a active online"
    assert second.endswith("agent core active online unhealthy")
    assert third.endswith("checker ping pending approval required")
    run_command(["service", "tree", "--json"])
    assert json.loads(capsys.readouterr().out) == answer


def test_a_history(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    event = {
        "timestamp": (now() - timedelta(days=2, hours=1)).isoformat(),
        "event_type": "revoked",
        "actor": "joe",
        "from_status": "active",
        "to_status": "revoked",
        "reason": "stolen",
    }
    api.queue(page(event))
    for command in (["service", "events", "agent", "core"], ["package", "events", PACKAGE]):
        assert run_command(command) == 0
        assert capsys.readouterr().out.splitlines()[1].split() == [
            "2d", "ago", "revoked", "joe", "active", ">", "revoked", "stolen",
        ]  # fmt: skip


def test_set_status_asks_first_only_where_it_reaches_further(api: FakeGateway) -> None:
    api.queue(Reply(200, AFFECTED))
    assert run_command(["service", "set-status", "agent", "core", "inactive", "--reason", "x"]) == 0
    assert run_command(["service", "set-status", "agent", "core", "revoked"]) == 0
    assert [(body["status"], body["dry_run"]) for _, _, body in asked(api)] == [
        ("inactive", False),
        ("revoked", True),
        ("revoked", False),
    ]


def test_delete_a_service(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = lambda request: Reply(200, AFFECTED) if "dry_run=true" in request.path else Reply(204)
    assert run_command(["service", "delete", "agent", "core", "--reason", "gone"]) == 0
    assert [path.partition("?")[2] for _, path, _ in asked(api)] == [
        "reason=gone&cascade=true&dry_run=true",
        "reason=gone&cascade=true&dry_run=false",
    ]
    assert capsys.readouterr().out.endswith("done\n")
    assert run_command(["service", "delete", "agent", "core", "--dry-run"]) == 0
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        (["register", "agent", "core", "--parent", "a"], "", {"service_id": "core", "parent_id": "a"}),
        (["approve", "agent", "core"], "/core/approve", {"reason": ""}),
        (["reject", "agent", "core", "--reason", "no"], "/core/reject", {"reason": "no"}),
    ],
)
def test_decisions(
    api: FakeGateway, command: list[str], path: str, body: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(Reply(201, service()))
    assert run_command(["service", *command]) == 0
    assert asked(api) == [("POST", f"/api/admin/services/agents{path}", body)]
    assert "agent core is active" in capsys.readouterr().out


def test_an_odd_id_stays_one_piece_of_the_path(api: FakeGateway) -> None:
    api.queue(Reply(404, {"detail": "no"}))
    run_command(["service", "show", "agent", "../stats?x=1"])
    assert api.requests[0].path == "/api/admin/services/agents/..%2Fstats%3Fx%3D1"


# --- tokens


def test_api_tokens(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(201, {"token": "jwa_new", "name": "ci", "role": "operator", "expires_at": None}))
    assert run_command(["api-token", "create", "ci", "--role", "operator"]) == 0
    assert capsys.readouterr().out == "jwa_new\n"
    api.queue(
        page({"name": "ci", "role": "operator", "created_at": "", "created_by": "admin", "expires_at": None})
    )
    assert run_command(["api-token", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "ci",
        "operator",
        "-",
        "admin",
        "never",
        "never",
    ]
    api.queue(Reply(204))
    assert run_command(["api-token", "revoke", "ci"]) == 0
    assert asked(api) == [
        ("POST", "/api/admin/api-tokens", {"name": "ci", "role": "operator", "expires_in_seconds": None}),
        ("GET", "/api/admin/api-tokens", None),
        ("DELETE", "/api/admin/api-tokens/ci", None),
    ]


# --- failures, and where the daemon is


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (
            Reply(
                422,
                {"detail": "2 fields are wrong", "errors": [{"field": "parent_id", "message": "is no id"}]},
            ),
            "2 fields are wrong; parent_id: is no id",
        ),
        (Reply(404, {"detail": "there is no agent core"}), "there is no agent core"),
        (Reply(403, {"detail": "this needs the role admin"}), "this needs the role admin"),
        (Reply(401, {"detail": "unknown token"}), "unknown token (JETWAY_TOKEN is not valid there)"),
        (Reply(502, b"<html>"), "the answer was 502 Bad Gateway"),
    ],
)
def test_a_refusal_is_one_line(
    api: FakeGateway, reply: Reply, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.queue(reply)
    assert run_command(["service", "show", "agent", "core"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"jetway: {line}\n"


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("JETWAY_URL", f"http://127.0.0.1:{port}")
    assert run_command(["service", "tree"]) == 1
    error = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}" in error and "jetway serve" in error


@pytest.mark.parametrize("url", ["nonsense", "http://joe:secret@host", "http://host/?x=1"])
def test_an_odd_address(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JETWAY_URL", url)
    assert run_command(["service", "tree"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("jetway: JETWAY_URL: ") and "secret" not in error


def test_something_else_answers(api: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    api.queue(Reply(200, b"<html>hello</html>"))
    assert run_command(["service", "tree"]) == 1
    assert "no Jetway daemon" in capsys.readouterr().err


def state(folder: Path, url: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "daemon.json").write_text(json.dumps({"url": url}))
    (folder / "admin.token").write_text("jwa_admin\n")
    return folder


def test_the_daemon_of_this_host_is_found(
    api: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JETWAY_URL")
    monkeypatch.delenv("JETWAY_TOKEN")
    state(tmp_path / "state", api.url)
    api.queue(page())
    assert run_command(["service", "list", "poller"]) == 0
    assert api.requests[0].headers["Authorization"] == "Bearer jwa_admin"


@pytest.mark.parametrize("how", ["variable", "file"])
def test_a_state_directory_elsewhere_is_found(
    api: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.delenv("JETWAY_URL")
    monkeypatch.delenv("JETWAY_TOKEN")
    folder = state(tmp_path / "elsewhere", api.url)
    if how == "variable":
        monkeypatch.setenv("JETWAY_STATE_DIR", str(folder))
    else:
        (tmp_path / "jetway.toml").write_text(f'state_dir = "{folder}"\n')
        monkeypatch.setenv("JETWAY_CONFIG", str(tmp_path / "jetway.toml"))
    api.queue(page())
    assert run_command(["service", "list", "poller"]) == 0


def test_the_token_found_here_goes_to_the_daemon_found_here_alone(
    api: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JETWAY_TOKEN")
    state(tmp_path / "state", "http://127.0.0.1:1")
    api.queue(Reply(401, {"detail": "who are you?"}))
    assert run_command(["service", "list", "poller"]) == 1
    assert "Authorization" not in api.requests[0].headers


def test_no_daemon_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(places, "SYSTEM_STATE_DIR", tmp_path / "service")  # one may run on this host
    assert run_command(["service", "tree"]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "state") in error and "JETWAY_URL" in error


def test_a_token_with_a_line_break_is_refused(
    api: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JETWAY_TOKEN", "jwa_x\r\nX-Evil: 1")
    assert run_command(["service", "tree"]) == 1
    assert "jwa_x" not in capsys.readouterr().err
    assert api.requests == []


def test_a_checker_config_that_is_no_object(
    api: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("[1]", "{"):
        (tmp_path / "x.json").write_text(text)
        command = ["package", "create", "checker", "x", "--checker-config", str(tmp_path / "x.json")]
        assert run_command(command) == 1
        assert "JSON" in capsys.readouterr().err
    assert sys.stdin is not None and api.requests == []


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (timedelta(seconds=-5), "5s ago"),
        (timedelta(seconds=-90), "1m ago"),
        (timedelta(hours=-25), "1d ago"),
        (timedelta(hours=23, minutes=30), "in 23h"),
        (timedelta(), "now"),
    ],
)
def test_times_are_relative(delta: timedelta, text: str) -> None:
    moment = now()
    assert ago((moment + delta).isoformat(), moment) == text


def test_a_missing_or_odd_time() -> None:
    assert ago(None) == "-"
    assert ago("soon") == "soon"
