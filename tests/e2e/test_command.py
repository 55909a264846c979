"""The installed command, as an operator and an edge host type it: exit status 0, 1 or 2, and JSON that parses."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import (
    PACKAGES,
    SERVICES,
    Daemon,
    environment,
    eventually,
    fresh,
    jetway,
    processes_with,
)
from support.ports import free_port

NewDaemon = Callable[..., Daemon]


def line_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one clear line of a command that was refused."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def done_well(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_its_version() -> None:
    assert re.fullmatch(r"jetway \d+\.\d+\.\d+\S*\n", done_well(jetway("--version")))


def test_help_names_every_command() -> None:
    told = done_well(jetway("--help"))
    for name in [
        "serve",
        "demo",
        "check-config",
        "migrate",
        "package",
        "service",
        "api-token",
        "join",
        "run",
    ]:
        assert re.search(rf"^\s+{name}\b", told, re.MULTILINE), name


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["package"],
        ["package", "create"],
        ["package", "create", "router", "x"],
        ["service", "show", "poller"],
        ["service", "list", "--colour", "red"],
        ["join"],
        ["api-token", "create", "x", "--role", "king"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = jetway(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout + done.stderr


def test_check_config_prints_what_is_in_effect_and_hides_secrets(tmp_path: Path) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text(
        '[nats]\nmode = "external"\nurls = ["nats://user:hunter2@nats.example:4222"]\n'
        '[http]\nlisten = "127.0.0.1:1"'
    )
    told = done_well(jetway("check-config", "--config", str(file), JETWAY_HTTP__LISTEN="127.0.0.1:9999"))
    settings = tomllib.loads(told)
    assert settings["http"]["listen"] == "127.0.0.1:9999"
    assert settings["nats"]["mode"] == "external"
    assert "hunter2" not in told
    as_json = json.loads(done_well(jetway("check-config", "--config", str(file), "--json")))
    assert as_json["http"]["listen"] == "127.0.0.1:1"


def test_migrate_says_what_is_pending_then_applies_it_once(tmp_path: Path) -> None:
    where = ("--state-dir", str(tmp_path / "state"))
    assert "pending  0001" in done_well(jetway("migrate", "--status", *where))
    assert "applied  0001" in done_well(jetway("migrate", *where))
    assert done_well(jetway("migrate", "--status", *where)) == "the schema is current\n"


# --- packages and services


def test_the_life_of_a_package(daemon: Daemon) -> None:
    poller = fresh("p")
    issued = daemon.json_of("package", "create", "poller", "Site A", "--id", poller, "--site", "A")
    package_id = issued["package"]["package_id"]
    daemon.secrets.add(issued["token"])
    listed = daemon.json_of("package", "list", "--search", poller)
    assert [item["package_id"] for item in listed["items"]] == [package_id]
    assert daemon.json_of("package", "show", f"poller/{poller}") == daemon.package(package_id)

    anew = daemon.json_of("package", "reissue", package_id, "--reason", "lost")
    daemon.secrets.add(anew["token"])
    new_id = anew["package"]["package_id"]
    assert daemon.package(package_id)["status"] == "superseded"
    preview = daemon.json_of("package", "revoke", new_id, "--dry-run")
    assert (preview["dry_run"], len(preview["services"])) == (True, 1)
    assert daemon.package(new_id)["status"] == "issued"
    done_well(daemon.command("package", "revoke", new_id, "--reason", "stolen", "--yes"))
    assert daemon.package(new_id)["status"] == "revoked"

    def told() -> None:
        old, new = (daemon.get(f"{PACKAGES}/{each}/events")["items"] for each in (package_id, new_id))
        assert {event["event_type"] for event in old} == {"registered", "issued", "reissued"}
        assert {event["event_type"] for event in new} == {"issued", "revoked", "cascade_completed"}
        assert {e["actor"] for e in new if e["event_type"] != "cascade_completed"} == {"admin"}

    eventually(told)
    assert daemon.json_of("package", "events", new_id) == daemon.get(f"{PACKAGES}/{new_id}/events")
    assert done_well(daemon.command("package", "delete", new_id, "--yes")) == "deleted\n"
    assert "no package" in line_of(daemon.command("package", "show", new_id), 1)


def test_a_token_is_printed_alone_for_scripts(daemon: Daemon) -> None:
    done = daemon.command("package", "create", "poller", fresh("p"), "--token-only")
    token = done_well(done).strip()
    daemon.secrets.add(token)
    assert daemon.redeem(token).status == 200


def test_the_install_commands_hold_no_token(daemon: Daemon) -> None:
    told = done_well(daemon.command("package", "create", "poller", fresh("p")))
    token = re.findall(r"jw1\.\S+", told)
    assert len(token) == 1
    daemon.secrets.add(token[0])
    assert "jetway join --dir" in told


def test_the_life_of_a_service(daemon: Daemon) -> None:
    poller, agent, checker = fresh("p"), fresh("a"), fresh("c")
    registered = daemon.json_of("service", "register", "poller", poller, "--site", "A", "--label", "rack=12")
    assert (registered["registration_source"], registered["status"]) == ("config", "pending")
    done_well(daemon.command("service", "register", "agent", agent, "--parent", poller))
    kind = ("--checker-kind", "custom", "--checker-config", "-")
    done_well(
        daemon.command(
            "service", "register", "checker", checker, "--parent", agent, *kind, given='{"port": 1}'
        )
    )
    listed = daemon.json_of("service", "list", "--search", poller)
    assert [item["service_id"] for item in listed["items"]] == [poller]
    tree = [node for node in daemon.json_of("service", "tree")["items"] if node["service_id"] == poller]
    assert tree[0]["children"][0]["children"][0]["service_id"] == checker
    shown = daemon.json_of("service", "show", "poller", poller)
    assert (shown["agent_count"], shown["checker_count"], shown["labels"]) == (1, 1, {"rack": "12"})

    done_well(daemon.command("service", "set-status", "poller", poller, "active", "--reason", "by hand"))
    assert daemon.service("poller", poller)["status"] == "active"
    assert "active" in line_of(daemon.command("service", "delete", "poller", poller, "--yes"), 1)
    done_well(daemon.command("service", "set-status", "poller", poller, "revoked", "--yes"))
    assert daemon.service("checker", checker)["status"] == "revoked"
    done_well(daemon.command("service", "delete", "poller", poller, "--yes"))
    assert daemon.service("poller", poller)["status"] == "deleted"

    def told() -> None:
        events = [e["event_type"] for e in daemon.get(f"{SERVICES}/pollers/{poller}/events")["items"]]
        assert {"registered", "status_override", "revoked", "deleted"} <= set(events)

    eventually(told)
    events = daemon.json_of("service", "events", "poller", poller, "--limit", "2")
    assert [event["service_id"] for event in events["items"]] == [poller] * 2


async def test_services_that_registered_themselves_are_approved_or_rejected(daemon: Daemon) -> None:
    welcome, unwelcome = fresh("p"), fresh("p")
    async with daemon.nats() as client:
        for poller in (welcome, unwelcome):
            await client.publish(f"edge.heartbeat.poller.{poller}")
        await client.flush()

    def waiting(poller: str) -> None:
        assert daemon.call("GET", f"{SERVICES}/pollers/{poller}").status == 200

    eventually(lambda: waiting(welcome))
    eventually(lambda: waiting(unwelcome))
    assert (
        daemon.json_of("service", "approve", "poller", welcome, "--reason", "ours")["approval"] == "granted"
    )
    assert daemon.json_of("service", "reject", "poller", unwelcome)["approval"] == "rejected"
    daemon.create("poller", "onboarded")
    assert "onboarded" in line_of(daemon.command("service", "approve", "poller", "onboarded"), 1)


def test_listings_are_tables_for_people(daemon: Daemon) -> None:
    poller = fresh("p")
    daemon.create("poller", poller)
    for arguments, heading in (
        (("service", "list", "poller"), "LIVENESS"),
        (("package", "list"), "CREATED"),
        (("api-token", "list"), "ROLE"),
    ):
        told = done_well(daemon.command(*arguments))
        assert heading in told.splitlines()[0]
    told = done_well(daemon.command("service", "tree"))
    assert f"poller {poller} pending" in told


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("service", "show", "poller", "nobody"), "nobody"),
        (("package", "show", "00000000-0000-4000-8000-00000000ffff"), "00000000-0000-4000-8000-00000000ffff"),
        (("package", "show", "poller/nobody"), "nobody"),
        (("package", "create", "agent", "x"), "parent_id"),
        (("package", "create", "agent", "x", "--parent", "nobody"), "nobody"),
        (("package", "create", "poller", "x", "--id", "A.b"), "component_id"),
        (("service", "set-status", "poller", "nobody", "active"), "nobody"),
        (("service", "register", "agent", "x", "--parent", "nobody"), "nobody"),
        (("api-token", "revoke", "nobody", "--yes"), "nobody"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_refusal_is_one_line_that_names_it_and_ends_with_1(
    daemon: Daemon, arguments: tuple[str, ...], name: str
) -> None:
    assert name in line_of(daemon.command(*arguments), 1)


# --- API tokens


def test_an_api_token_is_created_used_listed_and_revoked(daemon: Daemon) -> None:
    name = fresh("t")
    token = done_well(daemon.command("api-token", "create", name, "--role", "viewer")).strip()
    daemon.secrets.add(token)
    mine = {"JETWAY_URL": daemon.url, "JETWAY_TOKEN": token}
    done_well(jetway("service", "list", **mine))
    assert "operator" in line_of(jetway("package", "create", "poller", "x", **mine), 1)
    listed = daemon.json_of("api-token", "list")["items"]
    assert [(item["role"], item["created_by"]) for item in listed if item["name"] == name] == [
        ("viewer", "admin")
    ]
    assert token not in json.dumps(listed)
    assert name in line_of(daemon.command("api-token", "create", name), 1)
    assert done_well(daemon.command("api-token", "revoke", name, "--yes")) == "revoked\n"
    assert "JETWAY_TOKEN" in line_of(jetway("service", "list", **mine), 1)


def test_a_lost_token_locks_nobody_out_while_the_daemon_runs(daemon: Daemon) -> None:
    done = daemon.command("api-token", "create", fresh("t"), "--role", "admin", "--local")
    token = done_well(done).strip()
    daemon.secrets.add(token)

    def let_in() -> None:
        assert daemon.call("GET", "/api/admin/api-tokens", token=token).status == 200

    eventually(let_in)


def test_a_lost_token_locks_nobody_out_while_the_daemon_is_down(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.stop()
    (daemon.state / "admin.token").unlink()
    answer = daemon.json_of("api-token", "create", "spare", "--role", "admin", "--local")
    plain = done_well(daemon.command("api-token", "create", "plain", "--local"))
    assert re.fullmatch(r"jwa_\S+\n", plain)  # alone, so that it can go into a file or a variable
    assert not processes_with(str(daemon.state))
    daemon.start()
    assert daemon.call("GET", "/api/admin/api-tokens", token=answer["token"]).status == 200
    assert not (daemon.state / "admin.token").exists()  # the old one is still in force: no second one is made


# --- finding the daemon


def test_without_a_daemon_it_says_what_to_do(tmp_path: Path) -> None:
    nowhere = {"JETWAY_STATE_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    assert "jetway serve" in line_of(jetway("service", "list", **nowhere), 1)
    away = {"JETWAY_URL": "http://127.0.0.1:9", "JETWAY_TOKEN": "x"}
    assert "http://127.0.0.1:9" in line_of(jetway("service", "list", **away), 1)


def test_the_local_token_goes_to_the_local_daemon_alone(daemon: Daemon, new_daemon: NewDaemon) -> None:
    other = new_daemon("other")
    done = daemon.command("service", "list", JETWAY_URL=other.url)
    assert "JETWAY_TOKEN" in line_of(done, 1)
    assert daemon.token not in other.log_text()


def test_a_token_on_the_command_line_is_refused_and_not_repeated(daemon: Daemon, tmp_path: Path) -> None:
    token = daemon.create("poller", fresh("p"))["token"]
    for arguments in (("join", "--dir", str(tmp_path), token), ("join", f"--token-file={token}")):
        done = jetway(*arguments)
        assert done.returncode == 2
        assert token not in done.stdout + done.stderr
    assert daemon.redeem(token).status == 200


# --- the edge host


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Path]:
    """A folder of a joined service, of which no process is left."""
    folder = tmp_path / "edge"
    yield folder
    assert not processes_with(str(folder))


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "run.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jetway", "run", "--dir", str(folder), *arguments],
            env=environment(JETWAY_LOG__FORMAT="json"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def test_join_and_run_bring_a_service_to_life_and_say_goodbye(daemon: Daemon, edge: Path) -> None:
    poller, agent = fresh("p"), fresh("a")
    token = daemon.create("poller", poller, heartbeat_interval_seconds=1)["token"]
    assert f"joined as poller {poller}" in done_well(jetway("join", "--dir", str(edge), given=token))
    assert daemon.service("poller", poller)["status"] == "pending"
    process = start(edge)
    try:
        must_become(daemon, poller, "active", "online")
        daemon.create("agent", agent, poller)

        def copied() -> None:
            texts = {path.name: path.read_text() for path in (edge / "config").glob("*.json")}
            own = json.loads(texts.get(f"config.pollers.{poller}.json", "{}"))
            assert own.get("status") == "active"
            assert own["children"] == [{"type": "agent", "id": agent}]
            assert f"config.pollers.{poller}.agents.{agent}.json" in texts

        eventually(copied)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    must_become(daemon, poller, "active", "offline")  # it said so: nobody has to wait for silence
    assert token not in (edge / "run.log").read_text()


def must_become(daemon: Daemon, poller: str, status: str, liveness: str) -> None:
    def check() -> None:
        service = daemon.service("poller", poller)
        assert (service["status"], service["liveness"]) == (status, liveness)

    eventually(check)


def test_join_is_safe_to_run_again_and_keeps_its_files_private(daemon: Daemon, edge: Path) -> None:
    created = daemon.create("poller", fresh("p"))
    join = ("join", "--dir", str(edge))
    done_well(jetway(*join, JETWAY_JOIN_TOKEN=created["token"]))
    before = {path.name: path.read_bytes() for path in edge.iterdir() if path.is_file()}
    assert "already joined" in done_well(jetway(*join, JETWAY_JOIN_TOKEN=created["token"]))
    assert {path.name: path.read_bytes() for path in edge.iterdir() if path.is_file()} == before
    assert not any(created["token"].encode() in content for content in before.values())
    assert stat.S_IMODE(edge.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((edge / "service.json").stat().st_mode) & 0o077 == 0
    assert daemon.service("poller", created["service"]["service_id"])["revision"] == 2


def test_join_with_another_hosts_token_is_one_line(daemon: Daemon, edge: Path, tmp_path: Path) -> None:
    token = daemon.create("poller", fresh("p"))["token"]
    file = tmp_path / "token"
    file.write_text(token)
    first = ("join", "--dir", str(edge), "--token-file", str(file), "--hostname", "edge-1")
    done_well(jetway(*first))
    second = jetway("join", "--dir", str(tmp_path / "other"), "--token-file", str(file))
    line = line_of(second, 1)
    assert "edge-1" in line
    assert token not in line
    assert not (tmp_path / "other" / "service.json").exists()


@pytest.mark.parametrize("given", ["", "nonsense", "jw1.abc.def"])
def test_join_without_a_good_token_is_one_line(edge: Path, given: str) -> None:
    assert "token" in line_of(jetway("join", "--dir", str(edge), given=given), 1)


def test_run_in_a_folder_that_was_not_joined_is_one_line(edge: Path) -> None:
    edge.mkdir()
    line = line_of(jetway("run", "--dir", str(edge)), 1)
    assert str(edge) in line
    assert "join" in line


def test_a_revoked_service_stops_beating_and_run_once_ends_with_1(daemon: Daemon, edge: Path) -> None:
    created = daemon.create("poller", fresh("p"))
    done_well(jetway("join", "--dir", str(edge), given=created["token"]))
    done_well(jetway("run", "--dir", str(edge), "--once"))
    done_well(daemon.command("package", "revoke", created["package"]["package_id"], "--yes"))

    def stops() -> None:
        done = jetway("run", "--dir", str(edge), "--once")
        assert done.returncode == 1, done.stderr
        assert "revoked" in done.stderr

    eventually(stops)  # the document follows the answer, on a busy machine


def test_join_finds_a_gateway_that_comes_back(new_daemon: NewDaemon, edge: Path) -> None:
    daemon = new_daemon(JETWAY_HTTP__LISTEN=f"127.0.0.1:{free_port()}")
    token = daemon.create("poller", "site-a")["token"]
    daemon.stop()
    joining = subprocess.Popen(
        [sys.executable, "-m", "jetway", "join", "--dir", str(edge)],
        env=environment(JETWAY_JOIN_TOKEN=token),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with joining:
        assert joining.stderr is not None
        assert "next attempt" in joining.stderr.readline()
        daemon.start()
        assert joining.wait(60) == 0
    assert (edge / "service.json").exists()


def test_an_ordinary_user_of_the_api_finds_everything_in_its_description(daemon: Daemon) -> None:
    document: Any = daemon.call("GET", "/openapi.json", token="").json
    assert document["openapi"].startswith("3.1")
    assert "/api/edge/redeem" in document["paths"]
    assert daemon.call("GET", "/docs", token="").status == 200
    script = daemon.call("GET", "/install.sh", token="")
    assert script.body.startswith(b"#!/bin/sh")
    assert daemon.url.encode() in script.body


# --- watching


def watching(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    """`jetway service watch`, as soon as it hears of changes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "service", "watch", "--json", *arguments],
        env=environment(**daemon.settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, they and what they start ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(process.stdout.readline()), daemon=True)
    reader.start()

    def something_is_heard() -> None:
        daemon.create("poller", fresh("w"))
        reader.join(0.2)
        assert heard

    eventually(something_is_heard)
    assert json.loads(heard[0])["event"] == "service"
    return process


def test_changes_are_followed_until_ctrl_c(daemon: Daemon) -> None:
    with watching(daemon, "pollers") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        # communicate() would leave out what readline() has read ahead.
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
    assert err == ""
    assert all(json.loads(line)["data"]["service_type"] == "poller" for line in out.splitlines())


def test_a_watch_ends_with_the_reader_of_its_pipe(daemon: Daemon) -> None:
    with watching(daemon) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        daemon.create("poller", fresh("w"))
        assert process.wait(60) == 1
        assert process.stderr.read() == ""
