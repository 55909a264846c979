#!/usr/bin/env python3
"""Everything a checkout needs, with Python's standard library alone.

`python3 dev.py demo` on a fresh clone makes `.venv/`, installs the pinned packages into it and starts the
demo; the next run starts at once. The environment is rebuilt when what it was made from changes: the
dependencies in `pyproject.toml`, `packaging/constraints.txt`, the Python that made it, or the place of the
checkout. `python3 dev.py install proton-standin` adds what some tests need and are skipped without; it stays
from then on. `JETWAY_CI=1` asks for all of that.
"""

# Annotations stay unevaluated: a Python too old for their notation has to get as far as main() to be refused.
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent
CONSTRAINTS = Path("packaging", "constraints.txt")

# What every environment holds, and what tests that are skipped without it need: large, so only on request.
BASE_EXTRA = "dev"
TEST_EXTRAS = ("proton-standin",)

USAGE_ERROR = 2
INTERRUPTED = 130

LOCK_HEADER = """\
# Exact versions of all that edge-jetway and its development tools need.
# Resolved on Python {python}, the oldest supported.
# Written by: python3 dev.py lock
"""


class DevError(Exception):
    """Something a person must see to; the text says what."""


def say(text: str) -> None:
    """Print one line of what is going on, away from the program's own output."""
    print(f"dev: {text}", file=sys.stderr, flush=True)


# --- the Python that runs this -----------------------------------------------------------------------------


def refusal_of_python(version: tuple[int, ...]) -> str | None:
    """Return why this Python cannot be used, or None if it can."""
    if version[:2] >= OLDEST:
        return None
    here = ".".join(str(part) for part in version[:3])
    needed = ".".join(str(part) for part in OLDEST)
    newer = next((name for name in _newer_names() if shutil.which(name)), None)
    advice = f"run: {newer} dev.py" if newer else f"install Python {needed} or newer and run dev.py with it"
    return f"Jetway needs Python {needed} or newer, this is {here}; {advice}"


def _newer_names() -> list[str]:
    return [f"python3.{minor}" for minor in range(13, OLDEST[1] - 1, -1)]


def require_venv() -> None:
    """Refuse a Python without `venv` or `ensurepip`, which some distributions package apart."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python3.{sys.version_info.minor}-venv"
        raise DevError(
            f"this Python comes without {' and '.join(missing)}; on Debian and Ubuntu install it with: "
            f"apt install {package} (elsewhere it is part of the python3 package)"
        )


# --- the virtual environment -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """The virtual environment of one checkout, and the extras that it has to hold."""

    root: Path
    extras: frozenset[str] = frozenset((BASE_EXTRA,))

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.root / ".venv"

    @property
    def stamp(self) -> Path:
        """The file that says what a finished installation was made from."""
        return self.folder / "installed-from"

    def program(self, name: str) -> str:
        """Return the path of an installed program."""
        return str(self.folder / "bin" / name)

    def fingerprint(self) -> str:
        """Return a hash of all that an installation depends on."""
        facts = [
            _install_tables(self.root / "pyproject.toml"),
            (self.root / CONSTRAINTS).read_text(encoding="utf-8"),
            sys.version,
            sys.base_prefix,
            str(self.root),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def installed(self) -> tuple[str, frozenset[str]]:
        """Return the fingerprint and the extras of the last finished installation, empty ones without any."""
        try:
            fingerprint, *extras = self.stamp.read_text(encoding="utf-8").split()
        except (FileNotFoundError, ValueError):
            return "", frozenset()
        return fingerprint, frozenset(extras)

    def is_current(self) -> bool:
        """Tell whether the last installation was finished, holds what is asked for, and is not out of date."""
        fingerprint, extras = self.installed()
        is_there = Path(self.program("python")).exists()
        return is_there and self.extras <= extras and fingerprint == self.fingerprint()

    def ensure(self) -> None:
        """Make the environment, unless it is current. One run makes it, others wait for that one."""
        if self.is_current():
            return
        require_venv()
        with self._lock() as lock:
            if not self.is_current():
                self._make(lock)

    def _make(self, lock: int) -> None:
        say("making .venv and installing the pinned packages; this happens once and takes about a minute")
        # Read first: an edit made during the installation must lead to another one.
        fingerprint = self.fingerprint()
        # Who asked for an extra once need not ask again.
        extras = sorted(self.extras | self.installed()[1] & set(TEST_EXTRAS))
        # `--clear` empties the folder, so that whatever an interrupted run left is gone, the stamp with it.
        run_quietly([sys.executable, "-m", "venv", "--clear", str(self.folder)], lock)
        requirement = f"{self.root}[{','.join(extras)}]"
        install = ["install", "-c", str(self.root / CONSTRAINTS), "-e", requirement]
        run_quietly([self.program("python"), "-m", "pip", "--disable-pip-version-check", *install], lock)
        # Written last and in one step: a stamp stands for a finished installation.
        unfinished = self.stamp.with_suffix(".tmp")
        unfinished.write_text("\n".join([fingerprint, *extras]), encoding="utf-8")
        unfinished.replace(self.stamp)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        with (self.root / ".venv.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another dev.py, which is installing")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()


def _install_tables(pyproject: Path) -> str:
    """Return the part of `pyproject.toml` that installing reads: a new lint rule needs no new environment."""
    import tomllib

    tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    read = [tables["build-system"], tables["project"], tables.get("tool", {}).get("hatch")]
    return json.dumps(read, sort_keys=True)


def run_quietly(command: list[str], lock: int | None = None) -> None:
    """Run a command whose output matters only if it fails.

    The command inherits the lock: if this process is killed and the command goes on alone, it stays taken.
    """
    inherited = () if lock is None else (lock,)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=inherited,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise DevError(f"this failed, its output is above: {shlex.join(command)}")


# --- the commands ------------------------------------------------------------------------------------------


def wanted_extras(variables: Mapping[str, str]) -> frozenset[str]:
    """Return the extras that every command needs here: in CI no test may be skipped for want of one."""
    in_ci = variables.get("JETWAY_CI") == "1"
    return frozenset((BASE_EXTRA, *TEST_EXTRAS) if in_ci else (BASE_EXTRA,))


ENVIRONMENT = Environment(ROOT, wanted_extras(os.environ))


def become(name: str, arguments: list[str]) -> NoReturn:
    """Replace this process by an installed program, so that signals and exit codes are the program's own."""
    ENVIRONMENT.ensure()
    say(shlex.join([name, *arguments]))
    path = ENVIRONMENT.program(name)
    sys.stdout.flush()
    os.execv(path, [path, *arguments])  # noqa: S606 - a fixed program of our own environment


def run_all(commands: list[list[str]]) -> int:
    """Run every command in the checkout, also after one has failed; return the first failure's exit code."""
    ENVIRONMENT.ensure()
    codes = [_run_step(command) for command in commands]
    failed = [shlex.join(command) for command, code in zip(commands, codes, strict=True) if code]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return next((code for code in codes if code), 0)


def _run_step(command: list[str]) -> int:
    say(shlex.join(command))
    code = subprocess.run([ENVIRONMENT.program(command[0]), *command[1:]], cwd=ROOT, check=False).returncode
    return exit_code(code)


def exit_code(returncode: int) -> int:
    """Turn a subprocess's return code into an exit code as a shell gives it: 128 + n for signal n."""
    return returncode if returncode >= 0 else 128 - returncode


LINT = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["lint-imports", "--no-logo"],
]
# Of whole test files: what one shares is made once. Most of the time goes by in waiting for servers, so it pays on
# one core too; more at a time would make those late that count on real time. In the order of the names the few
# long ones come first, and the many short ones fill what is left.
TWO_AT_A_TIME = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
FORMAT = [["ruff", "check", "--fix-only", "."], ["ruff", "format", "."]]


def _demo(arguments: list[str]) -> int:
    become("jetway", ["demo", *arguments])


def _serve(arguments: list[str]) -> int:
    become("jetway", ["serve", *arguments])


def _jetway(arguments: list[str]) -> int:
    become("jetway", arguments)


def _test(arguments: list[str]) -> int:
    os.chdir(ROOT)
    become("pytest", arguments or TWO_AT_A_TIME)


def _bench(arguments: list[str]) -> int:
    os.chdir(ROOT / "tests")
    become("python", ["-m", "bench", *arguments])


def _install(extras: list[str]) -> int:
    unknown = [name for name in extras if name not in TEST_EXTRAS]
    if unknown or not extras:
        raise DevError(f"install takes names of extras, there are: {', '.join(TEST_EXTRAS)}")
    Environment(ROOT, ENVIRONMENT.extras | set(extras)).ensure()
    say(f"installed: {', '.join(extras)}")
    return 0


def _failure_modes(_: list[str]) -> int:
    os.chdir(ROOT)
    become("python", ["tests/fault/failure_modes.py"])


def _lint(_: list[str]) -> int:
    return run_all(LINT)


def _format(_: list[str]) -> int:
    return run_all(FORMAT)


def _check(_: list[str]) -> int:
    return run_all([*LINT, ["pytest", *TWO_AT_A_TIME]])


def _lock(_: list[str]) -> int:
    if sys.version_info[:2] != OLDEST:
        needed = ".".join(str(part) for part in OLDEST)
        raise DevError(f"versions are pinned for the oldest Python supported: run this with python{needed}")
    require_venv()
    say(f"resolving the newest versions allowed by pyproject.toml into {CONSTRAINTS}")
    target = ROOT / CONSTRAINTS
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    after = render_lock(_resolve())
    target.write_text(after, encoding="utf-8")
    say(
        "nothing changed" if after == before else f"changed {CONSTRAINTS}; run the tests before committing it"
    )
    return 0


def _resolve() -> list[tuple[str, str]]:
    """Ask pip what it would install for the project with all its extras."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = ",".join(sorted(project.get("optional-dependencies", {})))
    with tempfile.TemporaryDirectory(prefix="jetway-lock-") as folder:
        report = Path(folder, "report.json")
        python = str(Path(folder, "venv", "bin", "python"))
        run_quietly([sys.executable, "-m", "venv", str(Path(folder, "venv"))])
        resolve = ["install", "--dry-run", "--ignore-installed", "--report", str(report), f"{ROOT}[{extras}]"]
        run_quietly([python, "-m", "pip", "--disable-pip-version-check", *resolve])
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = [(item["metadata"]["name"], item["metadata"]["version"]) for item in found]
    return [(name, version) for name, version in versions if name != project["name"]]


def render_lock(versions: list[tuple[str, str]]) -> str:
    """Render pins as a constraints file: names and versions alone, in an order that makes for small diffs."""
    pins = sorted(f"{name.lower().replace('_', '-')}=={version}" for name, version in versions)
    return LOCK_HEADER.format(python=".".join(str(part) for part in OLDEST)) + "\n".join(pins) + "\n"


# --- the command line --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One word of the command line."""

    name: str
    takes: str
    does: str
    run: Callable[[list[str]], int]


COMMANDS = [
    Command(
        "demo",
        "[args]",
        "everything at once in a throw-away directory; --once exits when it has worked",
        _demo,
    ),
    Command("serve", "[args]", "the daemon in the foreground", _serve),
    Command("jetway", "[args]", "the program itself: dev.py jetway service tree", _jetway),
    Command(
        "test",
        "[args]",
        "the tests, two files at a time; arguments go to pytest: dev.py test tests/unit -k name",
        _test,
    ),
    Command("install", "[extra]", f"what some tests are skipped without: {', '.join(TEST_EXTRAS)}", _install),
    Command("bench", "[part]", "measure; prints the table of docs/performance.md", _bench),
    Command(
        "failure-modes", "", "docs/failure-modes.md, made of a long run of the fault tests", _failure_modes
    ),
    Command("lint", "", "ruff, mypy and the direction of imports", _lint),
    Command("format", "", "format the code and mend what can be mended", _format),
    Command("check", "", "lint, then test", _check),
    Command("lock", "", f"pin the newest allowed versions in {CONSTRAINTS}", _lock),
]


def usage() -> str:
    """Return the text of `--help`."""
    rows = [f"  {(command.name + ' ' + command.takes).rstrip():<14}  {command.does}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: python3 dev.py COMMAND [args]",
            "",
            "Makes .venv/ from the pinned versions if need be, then runs one of:",
            "",
            *rows,
            "",
            "`dev.py COMMAND --help` asks the program behind the command.",
            "Nothing outside the checkout is changed.",
        ]
    )


def parse(argv: list[str]) -> tuple[Command, list[str]]:
    """Split a command line into a command and what is passed on to it."""
    if not argv:
        raise DevError(f"name a command\n\n{usage()}")
    name, arguments = argv[0], argv[1:]
    command = next((one for one in COMMANDS if one.name == name), None)
    if command is None:
        known = ", ".join(one.name for one in COMMANDS)
        raise DevError(f"no command {name!r}; there are: {known}")
    if arguments and not command.takes:
        raise DevError(f"{name} takes no arguments, got: {shlex.join(arguments)}")
    return command, arguments


def asks_for_help(argv: list[str]) -> bool:
    """Tell whether dev.py's own help is wanted; a command that passes its arguments on has its own."""
    helps = {"-h", "--help", "help"}
    own = {command.name for command in COMMANDS if not command.takes}
    return bool(argv) and (argv[0] in helps or (argv[0] in own and bool(helps & set(argv[1:]))))


def main(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    refusal = refusal_of_python(tuple(sys.version_info[:3]))
    if refusal:
        say(refusal)
        return 1
    if asks_for_help(argv):
        print(usage())
        return 0
    try:
        command, arguments = parse(argv)
    except DevError as error:
        say(str(error))
        return USAGE_ERROR
    try:
        return command.run(arguments)
    except DevError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
