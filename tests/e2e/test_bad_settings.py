"""What keeps the daemon from starting: one clear line that names it, exit status 1, and nothing touched."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemon import Daemon, jetway, processes_with

NewDaemon = Callable[..., Daemon]
FREE = {"JETWAY_HTTP__LISTEN": "127.0.0.1:0", "JETWAY_NATS__LISTEN": "127.0.0.1:0"}


def must_fail(done: subprocess.CompletedProcess[str], *names: str) -> str:
    """Exit status 1 and, last on standard error, one line of ours; the line."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("jetway: ")
    for name in names:
        assert name in line
    return line


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory to be, of which no process is left."""
    folder = tmp_path / "state"
    yield folder
    assert not processes_with(str(folder))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[http\nlisten = 1", ("not TOML", "line 1")),
        ("[http]\nlisten = 127.0.0.1:8080", ("not TOML", "line 2")),
        ("[http]\nlistn = '127.0.0.1:8080'", ("http.listn", "no such setting")),
        ("[htp]\nlisten = '127.0.0.1:8080'", ("htp", "no such setting")),
        ("[http]\ndetail_for_all = 'perhaps'", ("http.detail_for_all",)),
        ("[http]\nlisten = 'nowhere'", ("http.listen", "host:port")),
        ("[nats]\nlisten = '0.0.0.0:4222'", ("nats.listen", "nats.public_urls")),
        ("[nats]\nlisten = '192.0.2.1:4222'\ncredentials = 'none'", ("nats.credentials", "loopback")),
        ("[nats]\nmode = 'external'", ("nats.urls",)),
        ("[nats]\npublic_urls = ['nats://edge.example:99999']", ("nats.public_urls", "port")),
        ("[heartbeat]\ninterval = '30 years'", ("heartbeat.interval",)),
        ("[lifecycle]\nimplicit_registration = 'always'", ("lifecycle.implicit_registration",)),
        ("[database]\nurl = 'mysql://user:hunter2@db/x'", ("database.url",)),
        ("\x00", ("not TOML",)),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, state: Path, text: str, names: tuple[str, ...]) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text(text)
    done = jetway("check-config", "--config", str(file), "--state-dir", str(state))
    must_fail(done, *names)
    assert "hunter2" not in done.stdout + done.stderr
    assert not state.exists()


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_wrong_setting_keeps_every_command_from_starting(tmp_path: Path, state: Path, command: str) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text("[http]\nlistn = '127.0.0.1:8080'")
    done = jetway(command, "--config", str(file), "--state-dir", str(state))
    must_fail(done, "http.listn", "no such setting")
    assert not state.exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing.toml"
    must_fail(jetway("serve", "--config", str(file)), str(file), "No such file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JETWAY_HTTPP__LISTEN", "127.0.0.1:1"),
        ("JETWAY_HTTP__LISTN", "127.0.0.1:1"),
        ("JETWAY_NATS__REPLICAS", "many"),
    ],
)
def test_a_wrong_variable_is_named(state: Path, name: str, value: str) -> None:
    done = jetway("serve", "--state-dir", str(state), **{name: value})
    assert done.returncode == 1
    told = done.stderr.lower().replace("__", ".")
    assert name.removeprefix("JETWAY_").lower().replace("__", ".") in told
    assert not state.exists()


@pytest.fixture
def taken() -> Iterator[str]:
    """An address at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_taken_http_port_is_named_and_no_server_stays(state: Path, taken: str) -> None:
    settings = {**FREE, "JETWAY_HTTP__LISTEN": taken, "JETWAY_STATE_DIR": str(state)}
    must_fail(jetway("serve", **settings), "http.listen", taken, "in use")
    assert not (state / "daemon.json").exists()


def test_a_taken_nats_port_is_named(state: Path, taken: str) -> None:
    settings = {**FREE, "JETWAY_NATS__LISTEN": taken, "JETWAY_STATE_DIR": str(state)}
    must_fail(jetway("serve", **settings), "nats.listen", taken, "in use")
    assert not (state / "daemon.json").exists()


def test_an_external_server_that_is_not_there_is_named_without_its_password(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"nats://user:hunter2@127.0.0.1:{port}"
    settings = {**FREE, "JETWAY_NATS__MODE": "external", "JETWAY_NATS__URLS": json.dumps([url])}
    done = jetway("serve", "--state-dir", str(state), **settings)
    must_fail(done, "nats.urls", f"127.0.0.1:{port}")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("command", "place"),
    [("serve", "file"), ("serve", "beneath a file"), ("serve", "/proc/jetway"), ("migrate", "file")],
)
def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path, command: str, place: str) -> None:
    blocking = tmp_path / "file"
    blocking.write_text("mine")
    folder = {"file": blocking, "beneath a file": blocking / "state"}.get(place, Path(place))
    must_fail(jetway(command, "--state-dir", str(folder), **FREE), "state_dir", str(folder))
    assert blocking.read_text() == "mine"


def test_a_second_daemon_on_the_same_state_is_refused_and_the_first_serves_on(new_daemon: NewDaemon) -> None:
    first = new_daemon()
    first.create("poller", "site-a")
    assert first.process is not None
    before = (first.state / "daemon.json").read_bytes()
    done = jetway("serve", **first.settings)
    must_fail(done, "state_dir", str(first.state), str(first.process.pid))
    assert (first.state / "daemon.json").read_bytes() == before
    first.require_written(first.create("poller", "site-b"))


# --- a state that was tampered with


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that does not run; once all tests have mended what they broke, it serves as before."""
    daemon = Daemon(tmp_path_factory.mktemp("stopped"))
    try:
        token = daemon.start().create("poller", "site-a")["token"]
        assert daemon.stop() == 0
        yield daemon
        daemon.start()
        assert daemon.redeem(token).status == 200
        assert daemon.stop() == 0
        daemon.check_log()
    finally:
        daemon.discard()


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """What is at `path` is away for a while; it comes back as it was, whatever stands there then."""
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    try:
        yield kept
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        kept.replace(path)


def ledger_id(daemon: Daemon) -> str:
    """The ledger that the state directory belongs to."""
    return str(json.loads((daemon.state / "ledger.json").read_bytes())["ledger_id"])


def must_not_start(daemon: Daemon, *names: str) -> None:
    must_fail(jetway("serve", **daemon.settings), *names)
    assert not processes_with(str(daemon.state))


def test_a_ledger_that_is_not_the_one_of_this_state_is_refused(
    stopped: Daemon, new_daemon: NewDaemon
) -> None:
    other = new_daemon("other")
    assert other.stop() == 0
    mine, foreign = ledger_id(stopped), ledger_id(other)
    with aside(stopped.state / "nats"):
        shutil.copytree(other.state / "nats", stopped.state / "nats")
        must_not_start(stopped, mine, foreign, str(stopped.state), "restore")


def test_a_ledger_that_is_gone_is_not_replaced_by_an_empty_one(stopped: Daemon) -> None:
    with aside(stopped.state / "nats" / "jetstream"):
        must_not_start(stopped, "no ledger", ledger_id(stopped), "restore")


def test_a_ledger_of_before_a_restore_is_refused(stopped: Daemon) -> None:
    file = stopped.state / "ledger.json"
    remembered = json.loads(file.read_bytes())
    with aside(file):
        newer = remembered | {"epoch": remembered["epoch"] + 1}
        file.touch(0o600)
        file.write_text(json.dumps(newer))
        must_not_start(stopped, str(remembered["epoch"]), str(newer["epoch"]), "restore")


@pytest.mark.parametrize("name", ["token-signing.pem", "token-secret.key"])
def test_a_lost_key_is_not_replaced_in_silence(stopped: Daemon, name: str) -> None:
    file = stopped.state / "keys" / name
    with aside(file):
        must_not_start(stopped, str(file), "missing")
        assert not file.exists()


@pytest.mark.parametrize("name", ["token-signing.pem", "token-secret.key", "ledger.json"])
def test_a_damaged_file_is_named_and_kept(stopped: Daemon, name: str) -> None:
    file = stopped.state / name if name == "ledger.json" else stopped.state / "keys" / name
    with aside(file):
        file.touch(0o600)
        file.write_bytes(b"garbage")
        must_not_start(stopped, str(file), "damaged")
        assert file.read_bytes() == b"garbage"


def test_a_key_open_to_others_is_refused(stopped: Daemon) -> None:
    file = stopped.state / "keys" / "token-secret.key"
    file.chmod(0o644)
    must_not_start(stopped, str(file), "chmod 600")
    file.chmod(0o600)


def test_a_damaged_database_is_named_and_kept(stopped: Daemon) -> None:
    file = stopped.state / "registry.db"
    assert not (stopped.state / "registry.db-wal").exists()  # an orderly stop leaves one file
    with aside(file):
        file.write_bytes(b"this is no database" * 100)
        must_not_start(stopped, "registry.db")
        assert file.read_bytes() == b"this is no database" * 100


def test_what_the_daemon_keeps_is_closed_to_others(stopped: Daemon) -> None:
    assert oct(stopped.state.stat().st_mode & 0o777) == "0o700"
    for name in ("admin.token", "ledger.json", "keys/token-signing.pem", "keys/token-secret.key"):
        assert oct((stopped.state / name).stat().st_mode & 0o777) == "0o600", name
