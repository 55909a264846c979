"""The commands that need no API: help, usage, settings, join; and what they call in the daemon."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jetway.cli import run_command
from jetway.core.errors import Code, StartupError, refuse
from support.fake_gateway import FakeGateway, Reply, fake_gateway, make_token, redeem_answer


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("JETWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        running.queue(Reply(200, redeem_answer()))
        yield running


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the modules that the commands load: jetway.serving and jetway.upkeep."""
    import jetway

    module = types.ModuleType("jetway.daemon")
    for name in ("serving", "upkeep"):
        monkeypatch.setitem(sys.modules, f"jetway.{name}", module)
        monkeypatch.setattr(jetway, name, module, raising=False)
    return module


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def jetway(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jetway", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


# --- help and usage


@pytest.mark.parametrize(
    "command",
    [
        [],
        *(
            [name]
            for name in ("serve", "check-config", "migrate", "join", "run", "package", "service", "api-token")
        ),
        *(["package", name] for name in ("create", "list", "show", "events", "revoke", "reissue", "delete")),
        *(["service", name] for name in ("list", "tree", "show", "events", "set-status", "delete")),
        *(["service", name] for name in ("register", "approve", "reject")),
        *(["api-token", name] for name in ("create", "list", "revoke")),
    ],
    ids=" ".join,
)
def test_every_command_has_help_within_80_columns(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*command, "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Usage: jetway")
    assert max(map(len, output.splitlines())) <= 80


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from jetway import __version__

    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"jetway {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "join",
        "package create",
        "service show host x",
        "run --dir x --beats 0",
        "api-token create x --role root",
        "package create agent x --token-ttl soon",
        "package create agent x --label nonsense",
        "package create agent x --label a=1 --label a=2",
    ],
)
def test_wrong_usage_is_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Usage: " in captured.err


@pytest.mark.parametrize(
    "template",
    [
        ["join", "--dir", "d", "{}"],
        ["join", "--dir", "d", "--token", "{}"],
        ["join", "--dir", "d", "--token={}"],
        ["{}"],
    ],
)
def test_a_token_on_the_command_line_is_wrong_usage_and_not_repeated(
    template: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    token = make_token("http://127.0.0.1:1")
    assert run_command([part.format(token) for part in template]) == 2
    captured = capsys.readouterr()
    assert "never goes on the command line" in captured.err
    assert token[:40] not in captured.out + captured.err


def test_help_is_quick() -> None:
    """Nothing heavy is imported for it."""
    assert jetway("--help").returncode == 0
    listed = "print([m for m in ('nats', 'aiohttp', 'rich.table', 'jetway.settings') if m in sys.modules])"
    code = f"import sys; from jetway.cli import run_command; run_command(['--help']); {listed}"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_news() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "check-config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)
    assert errors == b""


# --- settings


def test_check_config_prints_toml_that_means_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jetway.settings import load_settings

    assert run_command(["check-config"]) == 0
    output = capsys.readouterr().out
    assert tomllib.loads(output)["http"]["public_url"] == "http://127.0.0.1:8080"
    (tmp_path / "again.toml").write_text(output)
    again, before = load_settings(tmp_path / "again.toml"), load_settings()
    assert (again.public_url, again.database_url, again.lifecycle) == (
        before.public_url,
        before.database_url,
        before.lifecycle,
    )


def test_check_config_hides_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text('[nats]\nmode = "external"\nurls = ["nats://joe:hunter2@nats.example:4222"]\n')
    for more in ([], ["--json"]):
        assert run_command(["check-config", "--config", str(file), *more]) == 0
        output = capsys.readouterr().out
        assert "hunter2" not in output and "nats://[hidden]@nats.example:4222" in output


@pytest.mark.parametrize(
    "command", [["check-config"], ["serve"], ["migrate"], ["api-token", "create", "x", "--local"]]
)
def test_wrong_settings_are_one_line(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text("[http]\nlisten_on = 1\n")
    assert run_command([*command, "--config", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"jetway: {file}: http.listen_on: there is no such setting\n"


# --- what is called in the daemon


def test_serve_runs_the_daemon(daemon: Any, tmp_path: Path) -> None:
    seen = []
    daemon.run = lambda settings: seen.append(settings.state_dir) or 3
    assert run_command(["serve", "--state-dir", str(tmp_path / "elsewhere")]) == 3
    assert seen == [tmp_path / "elsewhere"]


def test_serve_that_cannot_start_says_why(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(settings: object) -> int:
        raise StartupError("another daemon holds the state directory")

    daemon.run = fail
    assert run_command(["serve"]) == 1
    assert capsys.readouterr().err == "jetway: another daemon holds the state directory\n"


@pytest.mark.parametrize(
    ("status", "names", "output"),
    [
        (True, ["0002_x"], "pending  0002_x\n"),
        (False, ["0001_a", "0002_b"], "applied  0001_a\napplied  0002_b\n"),
        (False, [], "the schema is current\n"),
    ],
)
def test_migrate(
    daemon: Any, status: bool, names: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def migrate(settings: object, *, status: bool) -> list[str]:
        assert status is wanted
        return names

    wanted = status
    daemon.migrate = migrate
    assert run_command(["migrate", *(["--status"] if status else [])]) == 0
    assert capsys.readouterr().out == output


def test_migrations_as_json(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.migrate = lambda _settings, status: ["0002_b"]
    assert run_command(["migrate", "--status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"items": ["0002_b"], "next_cursor": None, "total": 1}


def test_a_local_api_token(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def create(settings: object, name: str, role: str, expires_in: timedelta | None) -> str:
        seen.append((name, role, expires_in))
        return "jwa_secret"

    daemon.create_token_locally = create
    assert run_command(["api-token", "create", "ci", "--local", "--role", "admin", "--expires", "90d"]) == 0
    assert seen == [("ci", "admin", timedelta(days=90))]
    assert capsys.readouterr().out == "jwa_secret\n"


def test_a_local_api_token_that_is_refused(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def create(*_: object) -> str:
        raise refuse(Code.TAKEN, "there is a token of that name")

    daemon.create_token_locally = create
    assert run_command(["api-token", "create", "ci", "--local"]) == 1
    assert capsys.readouterr().err == "jetway: there is a token of that name\n"


def test_an_interrupt_is_quiet(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(settings: object) -> int:
        raise KeyboardInterrupt

    daemon.run = interrupted
    assert run_command(["serve"]) == 130
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# --- join and run


def test_join_reads_standard_input(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "edge"
    stdin(monkeypatch, make_token(gateway.url) + "\n")
    assert run_command(["join", "--dir", str(folder), "--hostname", "h"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"joined as agent core-switch-room\nstart it: jetway run --dir {folder}\n"
    assert captured.err == ""


def test_join_again_is_said(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JETWAY_JOIN_TOKEN", make_token(gateway.url))
    assert run_command(["join", "--dir", str(tmp_path / "edge")]) == 0
    assert run_command(["join", "--dir", str(tmp_path / "edge")]) == 0
    assert capsys.readouterr().out.endswith("already joined as agent core-switch-room\n")


def test_join_reads_a_file(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(make_token(gateway.url))
    assert (
        run_command(["join", "--dir", str(tmp_path / "edge"), "--token-file", str(tmp_path / "token")]) == 0
    )


@pytest.mark.parametrize("more", [[], ["--token-file", "/does/not/exist"]])
def test_join_without_a_token(
    tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, "\n")
    assert run_command(["join", "--dir", str(tmp_path / "edge"), *more]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_join_asks_on_a_terminal_without_echo(gateway: FakeGateway, tmp_path: Path) -> None:
    token = make_token(gateway.url)
    terminal, inner = pty.openpty()
    # In a session of its own, so that the terminal that the tests may run on is not the one that is asked.
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "join", "--dir", str(tmp_path / "edge")],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    shown = b""
    try:
        while b"Token: " not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, token.encode() + b"\n")
        while chunk := os.read(terminal, 1024):
            shown += chunk
    except OSError:
        pass  # the terminal's end
    finally:
        os.close(terminal)
    assert process.wait(timeout=30) == 0, shown
    assert b"joined as agent core-switch-room" in shown
    assert token[:40].encode() not in shown


def test_a_refused_join_is_one_line(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.queue(Reply(409, {"detail": "this token was redeemed by host-b (10.0.0.9)"}))
    stdin(monkeypatch, make_token(gateway.url))
    assert run_command(["join", "--dir", str(tmp_path / "edge")]) == 1
    assert capsys.readouterr().err == "jetway: this token was redeemed by host-b (10.0.0.9)\n"


def test_run_in_a_folder_that_was_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = jetway("run", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr
        == f"jetway: {tmp_path} holds no joined service: run `jetway join --dir {tmp_path}` first\n"
    )


def test_join_as_a_program(gateway: FakeGateway, tmp_path: Path) -> None:
    done = jetway("join", "--dir", str(tmp_path / "edge"), input=make_token(gateway.url))
    assert done.returncode == 0
    assert (
        json.loads((tmp_path / "edge" / "service.json").read_text())["service"]["service_id"]
        == "core-switch-room"
    )
