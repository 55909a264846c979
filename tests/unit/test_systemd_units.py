"""The units as systemd reads them: correct, and sandboxed as far as promised."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support import REPOSITORY, require_program

UNITS = ["jetway.service", "jetway-edge@.service"]
SYSTEMD = REPOSITORY / "systemd"

# In tenths: `systemd-analyze security` goes from 0 (locked up) to 10.
HIGHEST_EXPOSURE = 15

# Known since systemd 254. An older one ignores them and says so; anything else it says is a mistake of ours.
NEWER_KEYS = ("RestartSteps", "RestartMaxDelaySec")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program in ExecStart that exists on every machine."""
    for name in UNITS:
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        replaced, count = re.subn(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
        assert count == 1
        (tmp_path / name).write_text(replaced, encoding="utf-8")
    return tmp_path


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    # What is compared must not depend on the machine's language, pager or terminal.
    quiet = {**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "cat", "SYSTEMD_COLORS": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_no_mistakes(units: Path, unit: str) -> None:
    done = _run(require_program("systemd-analyze"), "verify", "--man=no", str(units / unit))
    ours = [
        line
        for line in done.stderr.splitlines()
        if unit in line and not any(key in line for key in NEWER_KEYS)
    ]
    assert (done.returncode, ours) == (0, [])


def test_a_mistake_in_a_unit_would_be_noticed(units: Path) -> None:
    broken = units / "broken.service"
    broken.write_text((units / UNITS[0]).read_text(encoding="utf-8").replace("Type=notify", "Typo=notify"))
    done = _run(require_program("systemd-analyze"), "verify", "--man=no", str(broken))
    assert "Typo" in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_sandboxed(units: Path, unit: str) -> None:
    done = _run(
        require_program("systemd-analyze"),
        "security",
        "--offline=true",
        f"--threshold={HIGHEST_EXPOSURE}",
        str(units / unit),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_users_and_directories_are_made(tmp_path: Path) -> None:
    sysusers, tmpfiles = require_program("systemd-sysusers"), require_program("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("giving files to users takes root, below another root too, and CI need not be that")
    (tmp_path / "etc" / "jetway").mkdir(parents=True)
    (tmp_path / "etc" / "jetway" / "jetway.toml").touch(mode=0o644)
    for program, kind in [([sysusers], "sysusers"), ([tmpfiles, "--create"], "tmpfiles")]:
        files = sorted(str(path) for path in SYSTEMD.glob(f"*.{kind}.conf"))
        done = _run(*program, f"--root={tmp_path}", *files)
        assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc" / "passwd").read_text(encoding="utf-8")
    assert re.search(r"^jetway:", users, re.MULTILINE)
    assert re.search(r"^jetway-edge:", users, re.MULTILINE)
    assert (tmp_path / "etc" / "jetway" / "jetway.toml").stat().st_mode & 0o777 == 0o640
    state = (tmp_path / "var" / "lib" / "jetway").stat()
    assert (state.st_mode & 0o777, state.st_uid == 0) == (0o700, False)
    assert (tmp_path / "etc" / "jetway-edge").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("name", ["jetway", "jetway-edge"])
def test_the_sysusers_files_parse(name: str) -> None:
    done = _run(require_program("systemd-sysusers"), "--dry-run", str(SYSTEMD / f"{name}.sysusers.conf"))
    assert done.returncode == 0, done.stderr
