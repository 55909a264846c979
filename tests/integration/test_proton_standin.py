"""The stand-in for Proton as a tool: its latency, its faults, its death and return, through the real driver."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from proton_driver.errors import NetworkError, ServerException

from support.certificates import Issuer
from support.proton_standin import ProtonStandin
from support.proton_standin.driver import Client, connect
from support.proton_standin.refusals import (
    AUTHENTICATION_FAILED,
    NO_SUCH_COLUMN,
    NOT_IMPLEMENTED,
    UNKNOWN_DATABASE,
)
from support.proton_standin.wire import FromClient, number, text

_KV = "CREATE STREAM {name} (id string, n int32) PRIMARY KEY id SETTINGS mode = 'versioned_kv'"
_LOG = "CREATE STREAM {name} (id string, n int32)"
_LOST = (EOFError, OSError, NetworkError)


@pytest.fixture(scope="module")
def shared() -> Iterator[ProtonStandin]:
    with ProtonStandin() as standin:
        yield standin


@pytest.fixture
def standin(shared: ProtonStandin) -> Iterator[ProtonStandin]:
    """The same server for all tests, with nothing going wrong and everything visible at once."""
    yield shared
    shared.faults.clear()
    shared.visible_after = 0.0


@pytest.fixture
def client(standin: ProtonStandin) -> Iterator[Client]:
    with connect(standin.url) as client:
        yield client


def _stream(client: Client, definition: str = _KV) -> str:
    name = f"s_{uuid.uuid4().hex}"
    client.execute(definition.format(name=name))
    return name


def _put(client: Client, stream: str, *rows: tuple[str, int]) -> None:
    client.execute(f"INSERT INTO {stream} (id, n) VALUES", list(rows))


def _rows(client: Client, stream: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = client.execute(f"SELECT id, n FROM table({stream}) ORDER BY id, n")
    return found


class TestLatency:
    def test_a_write_shows_when_its_time_has_come_and_not_before(
        self, standin: ProtonStandin, client: Client
    ) -> None:
        stream = _stream(client)
        standin.visible_after = 3600
        _put(client, stream, ("a", 1))
        _put(client, stream, ("a", 2))
        assert _rows(client, stream) == []
        standin.visible_after = 0
        assert _rows(client, stream) == [("a", 2)]

    def test_writes_show_in_the_order_in_which_they_were_acknowledged(
        self, standin: ProtonStandin, client: Client
    ) -> None:
        stream = _stream(client)
        standin.visible_after = 3600
        client.execute(f"INSERT INTO {stream} (id, n, _tp_time) VALUES ('a', 1, '2026-01-01 00:00:00')")
        standin.visible_after = 0
        client.execute(f"INSERT INTO {stream} (id, n, _tp_time) VALUES ('a', 2, '2026-01-01 00:00:00')")
        assert _rows(client, stream) == [("a", 2)]

    def test_the_time_of_a_row_is_that_of_its_write(self, standin: ProtonStandin, client: Client) -> None:
        stream = _stream(client)
        standin.visible_after = 3600
        _put(client, stream, ("a", 1))
        written = datetime.now(UTC)
        standin.visible_after = 0
        ((found,),) = client.execute(f"SELECT _tp_time FROM table({stream})")
        assert written - timedelta(seconds=60) < found <= written


class TestDeathAndReturn:
    @pytest.mark.parametrize("definition", [_KV, _LOG])
    def test_what_was_acknowledged_outlives_a_kill(self, definition: str) -> None:
        with ProtonStandin() as standin, connect(standin.url) as client:
            stream = _stream(client, definition)
            _put(client, stream, ("a", 1))
            standin.visible_after = 3600
            _put(client, stream, ("b", 2), ("c", 3))
            address = standin.url
            standin.restart()
            assert standin.url == address
            assert _rows(client, stream) == [("a", 1), ("b", 2), ("c", 3)]

    def test_while_it_is_down_nobody_answers(self) -> None:
        with ProtonStandin() as standin, connect(standin.url) as client:
            stream = _stream(client)
            standin.stop()
            with pytest.raises(_LOST):
                _put(client, stream, ("a", 1))
            standin.start()
            assert _rows(client, stream) == []

    def test_a_kill_in_the_midst_of_writes_loses_and_doubles_none(self) -> None:
        with ProtonStandin() as standin, connect(standin.url) as client:
            stream = _stream(client, _LOG)
            acknowledged = _write_until_killed(standin, stream)
            found = [row[0] for row in _rows(client, stream)]
            assert len(found) == len(set(found))
            assert set(acknowledged) <= set(found)
            assert len(found) <= len(acknowledged) + 1

    def test_two_know_nothing_of_each_other(self) -> None:
        with ProtonStandin() as one, ProtonStandin() as other:
            with connect(one.url) as client:
                _stream(client)
            with connect(other.url) as client:
                assert client.execute("SHOW STREAMS") == []

    def test_its_data_go_with_it(self) -> None:
        with ProtonStandin() as standin:
            folder = standin.folder
            assert folder.is_dir()
        assert not folder.exists()


def _write_until_killed(standin: ProtonStandin, stream: str) -> list[str]:
    """Write row after row while the server is killed and started again; return what was acknowledged."""
    acknowledged: list[str] = []
    enough = threading.Event()

    def write() -> None:
        with connect(standin.url) as writer:
            for number in range(10_000):
                try:
                    _put(writer, stream, (f"r{number}", number))
                except _LOST:
                    return
                acknowledged.append(f"r{number}")
                if number == 20:
                    enough.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert enough.wait(30)
    standin.kill()
    thread.join()
    standin.start()
    return acknowledged


class TestFaults:
    def test_a_connection_lost_before_the_write(self, standin: ProtonStandin, client: Client) -> None:
        stream = _stream(client)
        standin.faults.drop(f"insert into {stream}")
        with pytest.raises(_LOST):
            _put(client, stream, ("a", 1))
        assert _rows(client, stream) == []
        _put(client, stream, ("a", 2))
        assert _rows(client, stream) == [("a", 2)]

    def test_a_connection_lost_after_the_write_was_applied(
        self, standin: ProtonStandin, client: Client
    ) -> None:
        stream = _stream(client)
        standin.faults.drop("INSERT", moment="after")
        with pytest.raises(_LOST):
            _put(client, stream, ("a", 1))
        assert _rows(client, stream) == [("a", 1)]

    def test_an_error_with_its_code(self, standin: ProtonStandin, client: Client) -> None:
        stream = _stream(client)
        standin.faults.error(241, "Memory limit exceeded", "SELECT", times=2)
        for _ in range(2):
            with pytest.raises(ServerException, match="Memory limit exceeded") as caught:
                _rows(client, stream)
            assert caught.value.code == 241
        assert _rows(client, stream) == []
        assert standin.faults.fired >= 2

    def test_an_error_for_a_write_that_was_applied(self, standin: ProtonStandin, client: Client) -> None:
        stream = _stream(client)
        standin.faults.error(159, "timeout", "INSERT", moment="after")
        with pytest.raises(ServerException) as caught:
            _put(client, stream, ("a", 1))
        assert caught.value.code == 159
        assert _rows(client, stream) == [("a", 1)]

    def test_a_slow_answer_keeps_nobody_else_waiting(self, standin: ProtonStandin, client: Client) -> None:
        standin.faults.slow(3600, "SELECT 'slow'")
        with connect(standin.url) as impatient:
            impatient.execute("SELECT 1")
            impatient.connection.socket.settimeout(1)
            with pytest.raises(TimeoutError):
                impatient.execute("SELECT 'slow'")
        assert client.execute("SELECT 'slow'") == [("slow",)]

    def test_half_a_block(self, standin: ProtonStandin, client: Client) -> None:
        stream = _stream(client)
        _put(client, stream, *((f"k{number}", number) for number in range(1000)))
        standin.faults.half_block("SELECT")
        with pytest.raises(_LOST):
            _rows(client, stream)
        assert len(_rows(client, stream)) == 1000

    def test_some_statements_pass_first(self, standin: ProtonStandin, client: Client) -> None:
        standin.faults.error(1, matching="SELECT 7", skip=2)
        assert client.execute("SELECT 7") == client.execute("SELECT 7") == [(7,)]
        with pytest.raises(ServerException):
            client.execute("SELECT 7")

    def test_all_connections_lost_at_once(self, standin: ProtonStandin, client: Client) -> None:
        client.execute("SELECT 1")
        standin.drop_connections()
        with connect(standin.url) as other:
            assert other.execute("SELECT 2") == [(2,)]
        # The driver finds the connection closed and opens another before it sends anything.
        assert client.execute("SELECT 3") == [(3,)]


class TestConnections:
    def test_many_clients_at_once_get_their_own_answers(self, standin: ProtonStandin) -> None:
        wrong: list[Any] = []

        def ask(number: int) -> None:
            with connect(standin.url) as client:
                for turn in range(10):
                    found = client.execute(f"SELECT {number} AS number, {turn} AS turn")
                    if found != [(number, turn)]:
                        wrong.append(found)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_a_client_that_leaves_a_streaming_query_is_forgotten(self, standin: ProtonStandin) -> None:
        before = standin.connections
        with connect(standin.url) as client:
            stream = _stream(client)
            client.connection.socket.settimeout(1)  # for the query alone: what went before may take its time
            with pytest.raises(TimeoutError):
                client.execute(f"SELECT id FROM {stream}")
        deadline = time.monotonic() + 30
        while standin.connections > before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert f"SELECT id FROM {stream}" in standin.statements

    async def test_it_serves_async_tests_too(self) -> None:
        async with ProtonStandin() as standin:
            with connect(standin.url) as client:
                assert await asyncio.to_thread(client.execute, "SELECT 1") == [(1,)]

    def test_a_wrong_password_is_refused(self) -> None:
        with ProtonStandin(user="jetway", password="s3cret/@:") as standin:
            with connect(standin.url) as client:
                assert client.execute("SELECT 1") == [(1,)]
            with (
                connect(standin.url.replace("s3cret", "guess")) as client,
                pytest.raises(ServerException) as caught,
            ):
                client.execute("SELECT 1")
            assert caught.value.code == AUTHENTICATION_FAILED

    def test_databases_keep_streams_apart(self, standin: ProtonStandin, client: Client) -> None:
        name = f"d_{uuid.uuid4().hex}"
        client.execute(f"CREATE DATABASE IF NOT EXISTS {name}")
        with connect(standin.url_of(name)) as other:
            stream = _stream(other)
            _put(other, stream, ("a", 1))
            assert other.execute("SHOW STREAMS") == [(stream,)]
            assert _rows(client, f"{name}.{stream}") == [("a", 1)]
            client.execute(f"DROP DATABASE {name}")
            with pytest.raises(ServerException) as caught:
                other.execute("SELECT 1")
            assert caught.value.code == UNKNOWN_DATABASE


class TestTls:
    def test_with_a_certificate_it_speaks_tls_alone(self, tmp_path: Path) -> None:
        issuer = Issuer(tmp_path)
        files = issuer.issue("127.0.0.1")
        with ProtonStandin(certificate=files.certificate, key=files.key) as standin:
            assert b"timeplusd" in _greeted(standin, trusting=issuer.certificate)
            with pytest.raises(ssl.SSLCertVerificationError):
                _greeted(standin, trusting=None)
            with connect(standin.url) as client, pytest.raises(_LOST):
                client.execute("SELECT 1")


class TestColumns:
    def test_values_go_there_and_back(self, client: Client) -> None:
        name = f"s_{uuid.uuid4().hex}"
        client.execute(
            f"CREATE STREAM {name} (id string, flag bool, n uint32, x float64, at datetime64(3, 'UTC'), "
            "seen nullable(datetime64(3, 'UTC')), labels map(string, string), tags array(string), package uuid, "
            "kind enum8('a' = 1, 'b' = 2), _tp_time datetime64(3, 'UTC')) "
            "PARTITION BY to_YYYYMM(at) PRIMARY KEY id SETTINGS mode = 'versioned_kv', version_column = '_tp_time'"
        )
        at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
        rows = [
            ("1", True, 4_000_000_000, 0.5, at, None, {"site": "a b"}, ["x", ""], uuid.uuid4(), "b", at),
            ("2é'\\`;%", False, 0, -1.0, at, at, {}, [], uuid.uuid4(), "a", at),
        ]
        client.execute(f"INSERT INTO {name} VALUES", rows)
        assert client.execute(f"SELECT * FROM table({name}) ORDER BY id") == rows
        assert client.execute(f"SELECT n FROM table({name}) WHERE id = %(id)s", {"id": rows[1][0]}) == [(0,)]

    def test_it_tells_types_as_proton_does(self, client: Client) -> None:
        name = f"s_{uuid.uuid4().hex}"
        client.execute(
            f"CREATE STREAM {name} (id string DEFAULT 'x', at nullable(datetime64(3, 'UTC')), m map(string, int8))"
        )
        described = [(row[0], row[1]) for row in client.execute(f"DESCRIBE {name}")]
        expected = [
            ("id", "string"),
            ("at", "nullable(datetime64(3, 'UTC'))"),
            ("m", "map(string, int8)"),
            ("_tp_time", "datetime64(3, 'UTC')"),
        ]
        assert described == expected
        columns = f"SELECT name, type FROM system.columns WHERE table = '{name}' ORDER BY position"
        assert client.execute(columns) == expected
        assert client.execute(f"SELECT engine FROM system.tables WHERE name = '{name}'") == [("Stream",)]

    def test_an_empty_answer_has_its_columns(self, client: Client) -> None:
        stream = _stream(client)
        found = client.execute(f"SELECT id, n FROM table({stream})", with_column_types=True)
        assert found == ([], [("id", "string"), ("n", "int32")])

    def test_a_column_that_is_not_there(self, client: Client) -> None:
        stream = _stream(client)
        with pytest.raises(ServerException) as caught:
            client.execute(f"INSERT INTO {stream} (id, no_such) VALUES", [("a", 1)])
        assert caught.value.code == NO_SUCH_COLUMN

    def test_a_column_is_added_to_an_append_stream_alone(self, client: Client) -> None:
        log, keyed = _stream(client, _LOG), _stream(client)
        client.execute(f"ALTER STREAM {log} ADD COLUMN IF NOT EXISTS site string DEFAULT 'none'")
        _put(client, log, ("a", 1))
        assert client.execute(f"SELECT site FROM table({log})") == [("none",)]
        with pytest.raises(ServerException, match="loses rows") as caught:
            client.execute(f"ALTER STREAM {keyed} ADD COLUMN site string")
        assert caught.value.code == NOT_IMPLEMENTED

    def test_a_condition_on_the_version_brings_back_what_was_replaced(self, client: Client) -> None:
        """A trap of Proton 1.6.1 that the stand-in sets too: it prunes by `_tp_time` before it merges."""
        stream = _stream(client)
        for value, second in ((1, 1), (2, 2)):
            client.execute(
                f"INSERT INTO {stream} (id, n, _tp_time) VALUES ('a', {value}, '2026-01-01 00:00:0{second}')"
            )
        assert _rows(client, stream) == [("a", 2)]
        early = (
            f"SELECT n FROM table({stream}) WHERE _tp_time < to_datetime64('2026-01-01 00:00:02', 3, 'UTC')"
        )
        assert client.execute(early) == [(1,)]

    def test_a_key_that_changes_its_partition_shows_twice(self, client: Client) -> None:
        """Another trap: merges stay within a partition, and by default that is the day of `_tp_time`."""
        by_day = _stream(client)
        by_id = _stream(client, _KV.replace("PRIMARY", "PARTITION BY id PRIMARY"))
        for stream in (by_day, by_id):
            for value, day in ((1, 1), (2, 2)):
                client.execute(
                    f"INSERT INTO {stream} (id, n, _tp_time) VALUES ('a', {value}, '2026-01-0{day} 00:00:00')"
                )
        assert _rows(client, by_day) == [("a", 1), ("a", 2)]
        assert _rows(client, by_id) == [("a", 2)]

    def test_what_the_table_refuses_is_said_to_its_writer_and_holds_up_nobody(self, client: Client) -> None:
        stream = _stream(client, _KV.replace("PRIMARY", "PARTITION BY id PRIMARY"))
        with pytest.raises(ServerException, match="partitions"):
            _put(client, stream, *((f"k{number}", number) for number in range(1000)))
        _put(client, stream, ("a", 1))
        assert _rows(client, stream) == [("a", 1)]


class TestWithoutChdb:
    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def test_tests_are_skipped_and_told_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("JETWAY_CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match=r"run python3 dev\.py install proton-standin"):
            ProtonStandin().__enter__()

    def test_in_ci_they_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JETWAY_CI", "1")
        with pytest.raises(pytest.fail.Exception, match="chdb is not installed"):
            ProtonStandin().__enter__()


def _greeted(standin: ProtonStandin, *, trusting: Path | None) -> bytes:
    """What the server answers to a hello over TLS. The driver's own TLS verifies nothing: it is not asked."""
    hello = (
        number(FromClient.HELLO) + text("test") + number(1) * 3 + text("default") + text("default") + text("")
    )
    context = ssl.create_default_context(cafile=trusting)
    with (
        socket.create_connection((standin.host, standin.port)) as plain,
        context.wrap_socket(plain, server_hostname=standin.host) as secure,
    ):
        secure.sendall(hello)
        return secure.recv(1000)
