"""The state directory: writable, one daemon's alone, and never half written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jetway.adapters.statedir import LedgerIdentity, StateDir, atomic_write
from jetway.core.errors import StartupError

HOLDER = """
import sys
from pathlib import Path
from jetway.adapters.statedir import StateDir
lock = StateDir(Path(sys.argv[1])).lock()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "lib" / "jetway")
    state.prepare()
    return state


class TestPrepare:
    def test_it_is_made_for_the_owner_alone(self, state: StateDir) -> None:
        assert stat.S_IMODE(state.path.stat().st_mode) == 0o700

    def test_what_is_there_stays(self, state: StateDir) -> None:
        (state.path / "registry.db").write_text("x")
        state.prepare()
        assert [file.name for file in state.path.iterdir()] == ["registry.db"]

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "state").touch()
        with pytest.raises(StartupError, match=f"state_dir: {tmp_path}/state cannot be written: "):
            StateDir(tmp_path / "state").prepare()

    def test_a_place_that_takes_no_files(self) -> None:
        # Nobody, root included, can write here.
        with pytest.raises(StartupError, match="state_dir: /proc/self/fdinfo cannot be written: "):
            StateDir(Path("/proc/self/fdinfo")).prepare()


class TestLock:
    def test_the_pid_stands_in_the_file(self, state: StateDir) -> None:
        with state.lock():
            assert (state.path / "daemon.lock").read_text() == f"{os.getpid()}\n"
        assert (state.path / "daemon.lock").read_text() == ""

    def test_a_second_one_in_this_process_is_refused_until_release(self, state: StateDir) -> None:
        lock = state.lock()
        with pytest.raises(StartupError, match=f"in use by another daemon .pid {os.getpid()},"):
            state.lock()
        lock.release()
        lock.release()
        state.lock().release()

    def test_another_process_holds_it_until_it_dies(self, state: StateDir) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(state.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            with pytest.raises(StartupError, match=f"pid {holder.pid}"):
                state.lock()
            holder.kill()
            holder.wait()
            state.lock().release()

    def test_a_holder_that_is_not_known(self, state: StateDir) -> None:
        with state.lock():
            (state.path / "daemon.lock").write_text("")
            with pytest.raises(StartupError, match="a pid that is not known"):
                state.lock()

    def test_children_do_not_inherit_it(self, state: StateDir) -> None:
        lock = state.lock()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
            lock.release()
            state.lock().release()
            child.communicate()

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match=r"daemon\.lock: No such file"):
            StateDir(tmp_path / "nowhere").lock()


class TestAtomicWrite:
    @pytest.mark.parametrize("mode", [0o600, 0o644])
    def test_content_and_mode(self, tmp_path: Path, mode: int) -> None:
        file = tmp_path / "x"
        file.write_text("old")
        file.chmod(0o666)
        atomic_write(file, b"new", mode)
        assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", mode)
        assert list(tmp_path.iterdir()) == [file]

    def test_a_failure_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "x"
        file.write_text("old")

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            atomic_write(file, b"new")
        assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


class TestLedger:
    def test_before_the_first_start_there_is_none(self, state: StateDir) -> None:
        assert state.read_ledger() is None

    def test_what_was_written_is_read(self, state: StateDir) -> None:
        state.write_ledger(LedgerIdentity("l-1", 3))
        state.write_ledger(LedgerIdentity("l-1", 4))
        assert state.read_ledger() == LedgerIdentity("l-1", 4)
        file = state.path / "ledger.json"
        assert json.loads(file.read_text()) == {"ledger_id": "l-1", "epoch": 4}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b"\xff",
            b'{"ledger_id": "x"}',
            b'{"ledger_id": 1, "epoch": 1}',
            b'{"ledger_id": "x", "epoch": "1"}',
            b'{"ledger_id": "x", "epoch": true}',
        ],
    )
    def test_a_damaged_one_is_not_taken_for_a_first_start(self, state: StateDir, content: bytes) -> None:
        (state.path / "ledger.json").write_bytes(content)
        with pytest.raises(StartupError, match=r"ledger\.json is damaged"):
            state.read_ledger()
