"""dev.py: its pure parts, and what happens when an installation fails or another run is at it."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from support import REPOSITORY

PYPROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "edge-jetway"
dependencies = ["aiohttp"]
[tool.ruff]
line-length = 110
"""


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jetway_dev", REPOSITORY / "dev.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dev = _load()


@pytest.fixture
def environment(tmp_path: Path) -> dev.Environment:
    """A checkout that has nothing installed."""
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging" / "constraints.txt").write_text("aiohttp==3.0\n")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return dev.Environment(tmp_path)


def _install(environment: dev.Environment) -> None:
    (environment.folder / "bin").mkdir(parents=True, exist_ok=True)
    Path(environment.program("python")).touch()
    environment.stamp.write_text("\n".join([environment.fingerprint(), *environment.extras]))


def _with_extra(environment: dev.Environment) -> dev.Environment:
    return dev.Environment(environment.root, environment.extras | {"proton-standin"})


class TestPython:
    def test_an_old_one_can_read_the_file_and_is_refused(self) -> None:
        ast.parse((REPOSITORY / "dev.py").read_text(encoding="utf-8"), feature_version=(3, 8))
        assert "needs Python 3.11 or newer, this is 3.10.12" in dev.refusal_of_python((3, 10, 12))

    def test_a_newer_one_on_the_machine_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dev.shutil, "which", lambda name: "/bin/x" if name == "python3.12" else None)
        assert "run: python3.12 dev.py" in dev.refusal_of_python((3, 9, 1))

    @pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 1), (4, 0, 0)])
    def test_a_new_one_is_welcome(self, version: tuple[int, ...]) -> None:
        assert dev.refusal_of_python(version) is None

    def test_without_ensurepip_the_package_to_install_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            dev.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object()
        )
        with pytest.raises(dev.DevError, match=r"without ensurepip; .* apt install python3\.\d+-venv"):
            dev.require_venv()


class TestStamp:
    def test_nothing_installed_is_not_current(self, environment: dev.Environment) -> None:
        assert not environment.is_current()

    def test_a_finished_installation_is_current(self, environment: dev.Environment) -> None:
        _install(environment)
        assert environment.is_current()

    def test_an_interrupted_installation_is_not(self, environment: dev.Environment) -> None:
        _install(environment)
        environment.stamp.unlink()
        assert not environment.is_current()

    def test_a_python_that_went_away_is_noticed(self, environment: dev.Environment) -> None:
        _install(environment)
        Path(environment.program("python")).unlink()
        assert not environment.is_current()

    @pytest.mark.parametrize(
        ("file", "old", "new", "current"),
        [
            ("packaging/constraints.txt", "3.0", "3.1", False),
            ("pyproject.toml", '"aiohttp"', '"aiohttp", "rich"', False),
            ("pyproject.toml", '"hatchling"', '"hatchling>=1"', False),
            ("pyproject.toml", "110", "120", True),
        ],
    )
    def test_what_installing_depends_on_counts(
        self,
        environment: dev.Environment,
        file: str,
        old: str,
        new: str,
        current: bool,
    ) -> None:
        _install(environment)
        path = environment.root / file
        path.write_text(path.read_text().replace(old, new))
        assert environment.is_current() is current

    def test_an_extra_that_is_not_there_counts(self, environment: dev.Environment) -> None:
        _install(environment)
        assert not _with_extra(environment).is_current()

    def test_an_extra_that_is_not_asked_for_does_not(self, environment: dev.Environment) -> None:
        _install(_with_extra(environment))
        assert environment.is_current()

    def test_a_damaged_one_is_not_current(self, environment: dev.Environment) -> None:
        _install(environment)
        environment.stamp.write_text("")
        assert not environment.is_current()

    def test_another_python_or_place_counts(
        self,
        environment: dev.Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = environment.fingerprint()
        monkeypatch.setattr(dev.sys, "version", "3.99")
        assert environment.fingerprint() != before


class TestInstalling:
    def test_a_current_environment_is_left_alone(
        self,
        environment: dev.Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        _install(environment)
        monkeypatch.setattr(dev, "run_quietly", lambda *_: pytest.fail("nothing was to be run"))
        environment.ensure()

    def test_a_failed_one_leaves_no_stamp_and_is_begun_again(
        self,
        environment: dev.Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        commands: list[list[str]] = []

        def run(command: list[str], _lock: int) -> None:
            commands.append(command)
            if "venv" in command:
                (environment.folder / "bin").mkdir(parents=True, exist_ok=True)
                Path(environment.program("python")).touch()
            elif len(commands) == 2:
                raise dev.DevError("the network is away")

        monkeypatch.setattr(dev, "run_quietly", run)
        with pytest.raises(dev.DevError):
            environment.ensure()
        assert not environment.is_current()
        environment.ensure()
        assert environment.is_current()
        assert [("--clear" in command) for command in commands] == [True, False, True, False]

    @pytest.mark.parametrize("asked_again", [True, False])
    def test_an_extra_stays_when_the_environment_is_made_anew(
        self, environment: dev.Environment, monkeypatch: pytest.MonkeyPatch, asked_again: bool
    ) -> None:
        commands: list[list[str]] = []

        def run(command: list[str], _lock: int) -> None:
            commands.append(command)
            if "venv" in command:
                environment.stamp.unlink()

        monkeypatch.setattr(dev, "run_quietly", run)
        _install(_with_extra(environment))
        (environment.root / "packaging" / "constraints.txt").write_text("aiohttp==3.1\n")
        (_with_extra(environment) if asked_again else environment).ensure()
        assert commands[-1][-1] == f"{environment.root}[dev,proton-standin]"
        assert _with_extra(environment).is_current()

    def test_a_second_run_waits_and_finds_the_work_done(
        self,
        environment: dev.Environment,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(dev, "run_quietly", lambda *_: pytest.fail("the first run has installed"))
        waiting = threading.Event()
        monkeypatch.setattr(dev, "say", lambda text: waiting.set() if text.startswith("waiting") else None)
        with (environment.root / ".venv.lock").open("w") as first:
            fcntl.flock(first, fcntl.LOCK_EX)
            second = threading.Thread(target=environment.ensure)
            second.start()
            assert waiting.wait(30)
            _install(environment)
        second.join(30)
        assert not second.is_alive()

    def test_a_failing_command_shows_its_output(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(dev.DevError, match="this failed"):
            dev.run_quietly([sys.executable, "-c", "print('no such package'); raise SystemExit(1)"])
        assert "no such package" in capfd.readouterr().err

    def test_a_command_that_works_is_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        dev.run_quietly([sys.executable, "-c", "print('Collecting ...')"])
        assert capfd.readouterr() == ("", "")


class TestCommandLine:
    @pytest.mark.parametrize(
        ("argv", "name", "passed_on"),
        [
            (["demo", "--once"], "demo", ["--once"]),
            (["demo", "--help"], "demo", ["--help"]),
            (["jetway", "service", "tree"], "jetway", ["service", "tree"]),
            (["test", "-k", "a or b"], "test", ["-k", "a or b"]),
            (["lint"], "lint", []),
        ],
    )
    def test_arguments_are_passed_on(self, argv: list[str], name: str, passed_on: list[str]) -> None:
        command, arguments = dev.parse(argv)
        assert (command.name, arguments) == (name, passed_on)
        assert not dev.asks_for_help(argv)

    @pytest.mark.parametrize(
        ("argv", "text"),
        [
            ([], "name a command"),
            (["fly"], "no command 'fly'"),
            (["lint", "x"], "lint takes no arguments, got: x"),
        ],
    )
    def test_wrong_usage_is_said_and_exits_2(
        self, argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert dev.main(argv) == 2
        assert text in capsys.readouterr().err

    @pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"], ["lint", "--help"]])
    def test_help_names_every_command(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert dev.main(argv) == 0
        shown = capsys.readouterr().out
        assert all(command.name in shown for command in dev.COMMANDS)

    def test_an_error_is_one_line_and_exits_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> None:
            raise dev.DevError("no room on the disk")

        monkeypatch.setattr(dev.Environment, "ensure", lambda _: fail())
        assert dev.main(["lint"]) == 1
        assert capsys.readouterr().err == "dev: no room on the disk\n"

    def test_it_works_from_another_folder(self, tmp_path: Path) -> None:
        command = [sys.executable, str(REPOSITORY / "dev.py"), "--help"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout


class TestExitCodes:
    def test_those_of_programs_and_signals(self) -> None:
        assert [dev.exit_code(code) for code in (0, 3, -15)] == [0, 3, 143]

    def test_all_steps_run_and_the_first_failure_counts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(dev.Environment, "ensure", lambda _: None)
        monkeypatch.setattr(dev.Environment, "program", lambda _, name: f"/bin/{name}")
        assert dev.run_all([["true"], ["sh", "-c", "exit 7"], ["false"]]) == 7
        assert "failed: sh -c 'exit 7', false" in capsys.readouterr().err

    def test_a_program_takes_the_place_of_dev_py(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[tuple[str, list[str]]] = []
        monkeypatch.setattr(dev.Environment, "ensure", lambda _: None)
        monkeypatch.setattr(os, "execv", lambda path, argv: started.append((path, argv)))
        dev.main(["demo", "--once"])
        path = str(REPOSITORY / ".venv" / "bin" / "jetway")
        assert started == [(path, [path, "demo", "--once"])]


class TestExtras:
    def test_those_of_the_tests_come_with_ci_alone(self) -> None:
        assert dev.wanted_extras({"JETWAY_CI": "1"}) == {"dev", "proton-standin"}
        assert dev.wanted_extras({"JETWAY_CI": "0"}) == dev.wanted_extras({}) == {"dev"}

    def test_they_are_those_of_the_project(self) -> None:
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert {"dev", *dev.TEST_EXTRAS} <= set(project["optional-dependencies"])

    def test_one_is_installed_on_request(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ensured: list[frozenset[str]] = []
        monkeypatch.setattr(dev.Environment, "ensure", lambda self: ensured.append(self.extras))
        assert dev.main(["install", "proton-standin"]) == 0
        assert "proton-standin" in ensured[0]
        assert "installed: proton-standin" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [[], ["proton"], ["proton-standin", "x"]])
    def test_an_unknown_one_is_refused(
        self, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(dev.Environment, "ensure", lambda _: pytest.fail("nothing was to be installed"))
        assert dev.main(["install", *arguments]) == 1
        assert "there are: proton-standin" in capsys.readouterr().err


class TestLock:
    def test_pins_are_sorted_names_and_versions_alone(self) -> None:
        lock = dev.render_lock([("PyYAML", "6.0.3"), ("annotated_doc", "0.0.7")])
        assert lock.splitlines()[-2:] == ["annotated-doc==0.0.7", "pyyaml==6.0.3"]
        assert "python3 dev.py lock" in lock

    def test_the_committed_pins_carry_no_address(self) -> None:
        lines = (REPOSITORY / "packaging" / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert pins
        assert all(line.count("==") == 1 and not set(line) & set("/:@ ") for line in pins)
