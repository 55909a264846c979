"""Facts of Proton, from its own test cases, through the real driver: on the stand-in, and where
JETWAY_TEST_PROTON_URL names one, on a real Proton with the same results.

The cases are those of `0014_versioned_kv_join` and `0099_fixed_issues` in its smoke tests. They watch streaming
queries; asked with `table()` after each write, the same facts show in what a query of the past answers.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.proton_standin import ProtonStandin
from support.proton_standin.driver import Client, connect
from support.proton_standin.refusals import (
    ILLEGAL_FINAL,
    SYNTAX_ERROR,
    UNKNOWN_FUNCTION,
    UNKNOWN_STREAM,
    UNKNOWN_TYPE,
)

_REAL = os.environ.get("JETWAY_TEST_PROTON_URL", "")
_REAL_SHOWS_AFTER = 20.0
_KV = "SETTINGS mode = 'versioned_kv', version_column = '_tp_time'"

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module", params=["standin", "real"] if _REAL else ["standin"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "real":
        yield _REAL
        return
    with ProtonStandin() as standin:
        yield standin.url


class Streams:
    """A client, and streams of the test's own that are dropped with it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: list[str] = []

    def create(self, definition: str) -> str:
        """Create a stream of columns and clauses, under a name of its own."""
        name = f"jetway_test_{uuid.uuid4().hex}"
        self._made.append(name)
        self.run(f"CREATE STREAM {name} {definition}")
        return name

    def run(self, sql: str, rows: Rows | None = None) -> Any:
        """Run a statement, with rows for an INSERT."""
        return self._client.execute(sql, rows)

    def shows(self, sql: str, expected: Rows) -> None:
        """The query comes to answer this, once the writes before it show."""
        assert _settled(lambda: self.run(sql), expected) == expected

    def drop(self) -> None:
        """Drop all that was made."""
        for name in self._made:
            self.run(f"DROP STREAM IF EXISTS {name}")


def _settled(ask: Callable[[], Rows], expected: Rows) -> Rows:
    deadline = time.monotonic() + (_REAL_SHOWS_AFTER if _REAL else 0)
    while (found := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.fixture
def streams(url: str) -> Iterator[Streams]:
    with connect(url) as client:
        streams = Streams(client)
        yield streams
        streams.drop()


def _refused(streams: Streams, sql: str) -> int:
    with pytest.raises(Exception) as caught:
        streams.run(sql)
    return int(getattr(caught.value, "code", -1))


class TestKeyedStreams:
    """Cases 0014 #0, #2, #6, #10 and 0099 #15."""

    def test_a_later_write_replaces_an_earlier_one(self, streams: Streams) -> None:
        kv = streams.create(f"(i int, s string) PRIMARY KEY s {_KV}")
        for rows in ("(1, 'a')", "(2, 'b')", "(2, 'a'), (3, 'b'), (4, 'c')", "(5, 'd'), (6, 'c')"):
            streams.run(f"INSERT INTO {kv} (i, s) VALUES {rows}")
        expected = [(2, "a"), (3, "b"), (5, "d"), (6, "c")]
        streams.shows(f"SELECT i, s FROM table({kv}) ORDER BY i", expected)
        streams.shows(f"SELECT i, s FROM table({kv}) FINAL ORDER BY i", expected)

    def test_of_one_key_twice_in_an_insert_the_last_counts(self, streams: Streams) -> None:
        left = streams.create("(i int, s string)")
        right = streams.create(f"(ii int, ss string) PRIMARY KEY ss {_KV}")
        joined = (
            f"SELECT i, ii, s FROM table({left}) AS l INNER JOIN table({right}) AS r ON s = ss ORDER BY i"
        )
        streams.run(f"INSERT INTO {right} (ii, ss) VALUES", [(1, "s1"), (2, "s1"), (3, "s3")])
        streams.run(f"INSERT INTO {left} (i, s) VALUES", [(1, "s1"), (2, "s3")])
        streams.shows(joined, [(1, 2, "s1"), (2, 3, "s3")])
        streams.run(f"INSERT INTO {right} (ii, ss) VALUES", [(4, "s1"), (5, "s3")])
        streams.shows(joined, [(1, 4, "s1"), (2, 5, "s3")])

    def test_aggregates_see_the_latest_rows_alone(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, val float) PRIMARY KEY id {_KV}")
        aggregates = f"SELECT count(), min(val), max(val), sum(val), avg(val) FROM table({kv})"
        streams.run(f"INSERT INTO {kv} (id, val) VALUES", [(1, 1.0), (2, 2.0), (3, 6.0)])
        streams.shows(aggregates, [(3, 1.0, 6.0, 9.0, 3.0)])
        streams.run(f"INSERT INTO {kv} (id, val) VALUES", [(1, 3.0), (3, 4.0)])
        streams.shows(aggregates, [(3, 2.0, 4.0, 9.0, 3.0)])

    def test_a_key_of_two_columns(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, location string, val float) PRIMARY KEY (id, location) {_KV}")
        aggregates = f"SELECT count(id), min(val), max(val), sum(val), avg(val) FROM table({kv})"
        streams.run(f"INSERT INTO {kv} (id, location, val) VALUES (1,'a1',11), (2,'b1',22), (3,'c1',33)")
        streams.shows(aggregates, [(3, 11.0, 33.0, 66.0, 22.0)])
        streams.run(f"INSERT INTO {kv} (id, location, val) VALUES (1,'a2',1), (2,'b1',44), (3,'c2',55)")
        streams.shows(aggregates, [(5, 1.0, 55.0, 144.0, 28.8)])

    def test_a_sum_follows_an_update(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, val float64) PRIMARY KEY id {_KV}")
        aggregates = f"SELECT count(*), round(sum(val), 3) FROM table({kv})"
        streams.run(f"INSERT INTO {kv} (id, val) VALUES (1, 1.1)(2, 2.2);")
        streams.shows(aggregates, [(2, 3.3)])
        streams.run(f"INSERT INTO {kv} (id, val) VALUES (1, 11.1);")
        streams.shows(aggregates, [(2, 13.3)])


class TestTwoKeyedStreams:
    """Cases 0014 #4 and #13, and 0099 #16."""

    def test_a_union_reads_the_latest_of_both(self, streams: Streams) -> None:
        left = streams.create(f"(i int, s string) PRIMARY KEY s {_KV}")
        right = streams.create(f"(ii int, ss string) PRIMARY KEY ss {_KV}")
        for stream, value in ((right, 1), (left, 0), (left, 2), (right, 3)):
            columns = "i, s" if stream == left else "ii, ss"
            streams.run(f"INSERT INTO {stream} ({columns}) VALUES ({value}, 's1')")
        union = f"SELECT i, s FROM table({left}) UNION SELECT ii, ss FROM table({right})"
        streams.shows(f"SELECT * FROM ({union}) ORDER BY i", [(2, "s1"), (3, "s1")])

    def test_a_join_on_a_key_of_two_columns(self, streams: Streams) -> None:
        left = streams.create(f"(i1 int, i2 int, s string) PRIMARY KEY (i1, i2) {_KV}")
        right = streams.create(f"(ii1 int, ii2 int, ss string) PRIMARY KEY (ii1, ii2) {_KV}")
        joined = (
            f"SELECT s, ss FROM table({left}) AS l INNER JOIN table({right}) AS r "
            "ON i1 = ii1 AND i2 = ii2 ORDER BY s"
        )
        streams.run(f"INSERT INTO {left} (i1, i2, s) VALUES", [(1, 1, "s11")])
        streams.run(f"INSERT INTO {right} (ii1, ii2, ss) VALUES", [(1, 1, "ss11")])
        streams.shows(joined, [("s11", "ss11")])
        streams.run(f"INSERT INTO {left} (i1, i2, s) VALUES", [(1, 1, "s112")])
        streams.run(f"INSERT INTO {left} (i1, i2, s) VALUES", [(1, 2, "s12")])
        streams.shows(joined, [("s112", "ss11")])
        streams.run(f"INSERT INTO {right} (ii1, ii2, ss) VALUES", [(1, 1, "ss112")])
        streams.run(f"INSERT INTO {right} (ii1, ii2, ss) VALUES", [(1, 2, "ss12")])
        streams.shows(joined, [("s112", "ss112"), ("s12", "ss12")])

    def test_aggregates_over_a_join(self, streams: Streams) -> None:
        left = streams.create(f"(id int, val float64) PRIMARY KEY id {_KV}")
        right = streams.create(f"(id int, val float64) PRIMARY KEY id {_KV}")
        joined = (
            "SELECT a.id, count(*), sum(a.val), sum(b.val) "
            f"FROM table({left}) AS a JOIN table({right}) AS b ON a.id = b.id GROUP BY a.id ORDER BY a.id"
        )
        for stream in (right, left):
            streams.run(f"INSERT INTO {stream} (id, val) VALUES (1, 1.1)(2, 2.2);")
        streams.shows(joined, [(1, 1, 1.1, 1.1), (2, 1, 2.2, 2.2)])
        for stream in (right, left):
            streams.run(f"INSERT INTO {stream} (id, val) VALUES (1, 11.1);")
        streams.shows(joined, [(1, 1, 11.1, 11.1), (2, 1, 2.2, 2.2)])


class TestVersions:
    """What an idempotent writer relies on."""

    def _write(self, streams: Streams, stream: str, value: int, version: str) -> None:
        streams.run(f"INSERT INTO {stream} (id, val, _tp_time) VALUES (1, {value}, '{version}')")

    def test_the_highest_version_wins_whatever_the_order(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, val int) PRIMARY KEY id {_KV}")
        self._write(streams, kv, 2, "2026-01-01 00:00:02.000")
        self._write(streams, kv, 1, "2026-01-01 00:00:01.000")
        streams.shows(f"SELECT val FROM table({kv})", [(2,)])

    def test_of_equal_versions_the_later_wins(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, val int) PRIMARY KEY id {_KV}")
        for value in (7, 5, 6):
            self._write(streams, kv, value, "2026-01-01 00:00:01.000")
        streams.shows(f"SELECT val FROM table({kv})", [(6,)])

    def test_a_write_replaces_the_whole_row(self, streams: Streams) -> None:
        kv = streams.create(
            "(id int, status string DEFAULT 'pending', n nullable(int32), _tp_time datetime64(3, 'UTC')) "
            f"PRIMARY KEY id {_KV}"
        )
        streams.run(
            f"INSERT INTO {kv} (id, status, n, _tp_time) VALUES (1, 'active', 5, '2026-01-01 00:00:01')"
        )
        streams.shows(f"SELECT status, n FROM table({kv})", [("active", 5)])
        streams.run(f"INSERT INTO {kv} (id, _tp_time) VALUES (1, '2026-01-01 00:00:02')")
        streams.shows(f"SELECT status, n FROM table({kv})", [("pending", None)])

    def test_a_condition_on_another_column_sees_the_latest_alone(self, streams: Streams) -> None:
        kv = streams.create(f"(id int, status string) PRIMARY KEY id {_KV}")
        streams.run(f"INSERT INTO {kv} (id, status) VALUES (1, 'pending')")
        streams.shows(f"SELECT count() FROM table({kv}) WHERE status = 'pending'", [(1,)])
        streams.run(f"INSERT INTO {kv} (id, status) VALUES (1, 'active')")
        streams.shows(f"SELECT count() FROM table({kv}) WHERE status = 'active'", [(1,)])
        streams.shows(f"SELECT count() FROM table({kv}) WHERE status = 'pending'", [(0,)])

    def test_an_append_stream_keeps_every_row(self, streams: Streams) -> None:
        log = streams.create("(id int, at datetime64(3, 'UTC')) TTL to_datetime(at) + INTERVAL 90 DAY")
        for _ in range(2):
            streams.run(f"INSERT INTO {log} (id, at) SELECT 1, now64(3, 'UTC')")
        streams.shows(f"SELECT count(), count_if(id = 1) FROM table({log})", [(2, 2)])


class TestRefusals:
    """What Proton answers with an error, and its code."""

    @pytest.mark.parametrize(
        "function", ["toStartOfDay(now())", "countIf(1 = 1)", "argMax(1, 2)", "toString(1)"]
    )
    def test_camel_case_functions(self, streams: Streams, function: str) -> None:
        assert _refused(streams, f"SELECT {function}") == UNKNOWN_FUNCTION

    @pytest.mark.parametrize("kind", ["String", "DateTime64(3)", "Nullable(string)", "UInt8"])
    def test_camel_case_types(self, streams: Streams, kind: str) -> None:
        name = f"jetway_test_{uuid.uuid4().hex}"
        assert _refused(streams, f"CREATE STREAM {name} (a {kind})") == UNKNOWN_TYPE
        assert _refused(streams, f"SELECT cast('1', '{kind}')") == UNKNOWN_TYPE

    def test_delete_from(self, streams: Streams) -> None:
        kv = streams.create(f"(id int) PRIMARY KEY id {_KV}")
        assert _refused(streams, f"DELETE FROM {kv} WHERE id = 1") == SYNTAX_ERROR

    def test_final_on_an_append_stream(self, streams: Streams) -> None:
        log = streams.create("(id int)")
        assert _refused(streams, f"SELECT id FROM table({log}) FINAL") == ILLEGAL_FINAL

    def test_an_alias_without_as(self, streams: Streams) -> None:
        kv = streams.create(f"(id int) PRIMARY KEY id {_KV}")
        assert _refused(streams, f"SELECT k.id FROM table({kv}) k") == SYNTAX_ERROR
        streams.shows(f"SELECT k.id FROM table({kv}) AS k", [])

    def test_a_stream_that_is_not_there(self, streams: Streams) -> None:
        assert _refused(streams, "SELECT 1 FROM table(jetway_test_no_such_stream)") == UNKNOWN_STREAM

    def test_after_an_error_the_client_goes_on(self, streams: Streams) -> None:
        assert _refused(streams, "SELECT no_such_function(1)") == UNKNOWN_FUNCTION
        assert streams.run("SELECT 1") == [(1,)]


class TestStreamingQueries:
    def test_without_table_a_query_never_ends(self, url: str, streams: Streams) -> None:
        kv = streams.create(f"(id int) PRIMARY KEY id {_KV}")
        streams.run(f"INSERT INTO {kv} (id) VALUES (1)")
        with connect(url) as impatient:
            impatient.execute("SELECT 1")
            impatient.connection.socket.settimeout(1)  # for the query alone: a slow greeting is no proof
            with pytest.raises(TimeoutError):
                impatient.execute(f"SELECT id FROM {kv} WHERE id = 2")

    def test_with_query_mode_table_it_does(self, url: str, streams: Streams) -> None:
        kv = streams.create(f"(id int) PRIMARY KEY id {_KV}")
        streams.run(f"INSERT INTO {kv} (id) VALUES (1)")
        streams.shows(f"SELECT id FROM table({kv})", [(1,)])
        assert streams.run(f"SELECT id FROM {kv} SETTINGS query_mode = 'table'") == [(1,)]
        with connect(url, query_mode="table") as client:
            assert client.execute(f"SELECT id FROM {kv}") == [(1,)]
