"""On which state directory the commands of the daemon's own host work, and that they make none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jetway import audits, backups, rotation, upkeep
from jetway.adapters.statedir import RESTORE_FILE, LedgerIdentity, StateDir
from jetway.cli import client, places, run_command
from jetway.cli.errors import CommandError
from jetway.core.errors import StartupError
from jetway.settings import Settings, load_settings

LOCAL = [
    ["backup", "FILE"],
    ["audit", "verify"],
    ["keys", "rotate"],
    ["api-token", "create", "keeper", "--local"],
    ["restore", "FILE"],
    ["migrate"],
]
OF_A_LEDGER = LOCAL[:4]


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The service's directory, not there yet. That of the user is `user/jetway`."""
    for name in list(os.environ):
        if name.startswith("JETWAY_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(places, "SYSTEM_STATE_DIR", tmp_path / "service")
    return tmp_path / "service"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Where a daemon of this user would keep its state."""
    return tmp_path / "user" / "jetway"


@pytest.fixture
def worked_on(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that the commands, none of which does anything, would have worked on."""
    seen: list[Path] = []

    def take(settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings.state_dir)
        raise StartupError("enough")

    for module, name in (
        (backups, "backup"),
        (backups, "restore"),
        (audits, "verify"),
        (rotation, "rotate"),
        (upkeep, "create_token_locally"),
        (upkeep, "migrate"),
    ):
        monkeypatch.setattr(module, name, take)
    return seen


def with_ledger(place: Path) -> Path:
    place.mkdir(parents=True)
    StateDir(place).write_ledger(LedgerIdentity("l-1", 1))
    return place


@pytest.mark.parametrize("command", LOCAL, ids=" ".join)
def test_the_service_is_found_without_being_named(
    command: list[str], service: Path, worked_on: list[Path]
) -> None:
    """As after an installation under systemd, where only the unit knows STATE_DIRECTORY."""
    with_ledger(service)
    assert run_command(command) == 1
    assert worked_on == [service]


def test_the_order_is_that_of_the_client_commands(service: Path, user: Path, worked_on: list[Path]) -> None:
    with_ledger(service)
    with_ledger(user)
    run_command(["audit", "verify"])
    assert worked_on == [user]
    assert client.state_dirs() == [user, service]


def test_a_directory_without_a_ledger_is_passed_over(
    service: Path, user: Path, worked_on: list[Path]
) -> None:
    user.mkdir(parents=True)
    service.mkdir()
    (service / RESTORE_FILE).touch()
    run_command(["restore", "FILE"])
    assert worked_on == [service]


def test_what_is_restored_goes_where_the_service_will_look(
    service: Path, user: Path, worked_on: list[Path]
) -> None:
    run_command(["restore", "FILE"])
    user.mkdir(parents=True)
    service.mkdir()
    run_command(["restore", "FILE"])
    assert worked_on == [user, service]


@pytest.mark.parametrize("how", ["option", "variable", "file", "systemd"])
def test_a_directory_that_is_named_is_used(
    how: str, service: Path, tmp_path: Path, worked_on: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_ledger(service)
    named, file = tmp_path / "named", tmp_path / "jetway.toml"
    file.write_text(f'state_dir = "{named}"\n')
    if how in ("variable", "systemd"):
        monkeypatch.setenv("JETWAY_STATE_DIR" if how == "variable" else "STATE_DIRECTORY", str(named))
    more = {"option": ["--state-dir", str(named)], "file": ["--config", str(file)]}.get(how, [])
    run_command(["restore", "FILE", *more])
    assert worked_on == [named]


@pytest.mark.parametrize("command", LOCAL, ids=" ".join)
def test_another_users_directory_is_left_alone(
    command: list[str],
    service: Path,
    worked_on: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Root is no exception: it would leave files there that the daemon cannot read."""
    with_ledger(service)
    monkeypatch.setattr(os, "geteuid", lambda: service.stat().st_uid + 1)
    monkeypatch.setattr(places, "_user", lambda _uid: "jetway")
    assert run_command(command) == 1
    assert worked_on == []
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{service} belongs to the user jetway" in line
    assert "sudo -u jetway" in line and "--state-dir" in line


@pytest.mark.parametrize(("owner", "user"), [(0, 4711), (4711, 0)])
def test_an_empty_directory_is_whose_may_write_there(
    owner: int, user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted volume often belongs to root, and to the daemon by a group. Root may write everywhere."""
    stat = Path.stat

    def looked_at(path: Path, **how: Any) -> object:
        return SimpleNamespace(st_uid=owner) if path == tmp_path else stat(path, **how)

    monkeypatch.setattr(Path, "stat", looked_at)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if user:
        places.require_own(tmp_path)
        return
    with pytest.raises(CommandError, match="belongs to the user"):
        places.require_own(tmp_path)


def test_what_a_daemon_left_there_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "daemon.lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CommandError, match="belongs to the user"):
        places.require_own(tmp_path)


def test_an_owner_without_a_name_is_a_number() -> None:
    assert places._user(2**31 - 7) == str(2**31 - 7)


def test_what_may_not_be_looked_at_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run_command(["keys", "rotate", "--state-dir", str(tmp_path / "file" / "state")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "file/state cannot be looked at" in line


# --- what is done where no ledger is


@pytest.mark.parametrize("command", OF_A_LEDGER, ids=" ".join)
@pytest.mark.parametrize("there", [False, True])
def test_without_a_ledger_nothing_is_done_and_nothing_made(
    command: list[str], there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    if there:
        state.mkdir()
    assert run_command([*command, "--state-dir", str(state)]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert f"no ledger belongs to {state}" in line and "--state-dir" in line
    assert state.exists() is there
    assert not there or list(state.iterdir()) == []


@pytest.mark.parametrize(
    "work",
    [
        lambda settings: rotation.rotate(settings),
        lambda settings: audits.verify(settings),
        lambda settings: upkeep.create_token_locally(settings, "keeper", "admin", None),
        lambda settings: backups.backup(settings, Path("/nowhere/backup.tar.gz")),
    ],
    ids=["rotate", "verify", "api-token", "backup"],
)
def test_nor_where_a_restore_was_cut_off(work: Callable[[Settings], Any], tmp_path: Path) -> None:
    (tmp_path / RESTORE_FILE).touch()
    settings = load_settings(overrides={"state_dir": tmp_path})
    with pytest.raises(StartupError, match="run `jetway restore` again"):
        work(settings)
    assert [each.name for each in tmp_path.iterdir()] == [RESTORE_FILE]
