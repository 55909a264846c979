"""The stand-in for Proton reads its dialect: what a statement becomes, what is refused. No engine is needed."""

from __future__ import annotations

import pytest

from support.proton_standin.expressions import Expressions
from support.proton_standin.faults import Fault, Faults
from support.proton_standin.names import Functions, proton_function, type_to_engine, type_to_proton
from support.proton_standin.refusals import (
    ILLEGAL_FINAL,
    MISSING_KEY,
    NOT_IMPLEMENTED,
    SYNTAX_ERROR,
    UNKNOWN_FUNCTION,
    UNKNOWN_STREAM,
    UNKNOWN_TYPE,
    Refused,
)
from support.proton_standin.statements import CreateStream, Insert, Other, Select
from support.proton_standin.tokens import Reader, cut, render, split
from support.proton_standin.translator import Translator
from support.proton_standin.wire import Memory, number, take_number, text

_FUNCTIONS = [
    *(("count", True), ("sum", True), ("argMax", False), ("now", True), ("toStartOfDay", False)),
    *(("toYYYYMM", False), ("toDateTime", False), ("dateDiff", True), ("round", True)),
]
_MODES = {
    ("default", "kv"): "versioned_kv",
    ("default", "log"): "append",
    ("default", "view"): "view",
    ("other", "kv"): "versioned_kv",
}


def _translator(**settings: str) -> Translator:
    return Translator(Expressions(Functions(_FUNCTIONS)), "default", _MODES, settings)


def _select(sql: str, **settings: str) -> Select:
    read = _translator(**settings).read(sql)
    assert isinstance(read, Select)
    return read


def _code(sql: str) -> int:
    with pytest.raises(Refused) as caught:
        _translator().read(sql)
    return caught.value.code


class TestTokens:
    @pytest.mark.parametrize(
        ("sql", "texts"),
        [
            ("a.b>=1 -- c\n;", ["a", ".", "b", ">=", "1"]),
            ("'it''s' /* x */ 'a\\'b'", ["'it''s'", "'a\\'b'"]),
            ("`odd name`::int", ["`odd name`", "::", "int"]),
            ("'-- no comment'", ["'-- no comment'"]),
        ],
    )
    def test_a_statement_is_cut(self, sql: str, texts: list[str]) -> None:
        assert [token.text for token in cut(sql)] == texts

    def test_what_is_not_changed_is_given_on_as_written(self) -> None:
        sql = "SELECT a.b, 'x  y' FROM t"
        assert render(cut(sql)) == sql

    def test_commas_in_parentheses_do_not_split(self) -> None:
        assert [render(part).strip() for part in split(cut("a, f(b, c), [d, e]"))] == [
            "a",
            "f(b, c)",
            "[d, e]",
        ]

    def test_an_open_parenthesis_is_refused(self) -> None:
        with pytest.raises(Refused, match="unmatched"):
            Reader(cut("(a, (b)")).in_parentheses()


class TestNames:
    @pytest.mark.parametrize(
        ("engine", "proton"),
        [
            ("toStartOfDay", "to_start_of_day"),
            ("toYYYYMM", "to_YYYYMM"),
            ("toYYYYMMDDhhmmss", "to_YYYYMMDDhhmmss"),
            ("toDateTime64", "to_datetime64"),
            ("toUInt8", "to_uint8"),
            ("fromUnixTimestamp64Milli", "from_unix_timestamp64_milli"),
            ("JSONExtractString", "json_extract_string"),
            ("uniqExact", "unique_exact"),
            ("uniq", "unique"),
            ("isIPv4String", "is_ipv4_string"),
            ("row_number", "row_number"),
        ],
    )
    def test_of_functions(self, engine: str, proton: str) -> None:
        assert proton_function(engine) == proton

    @pytest.mark.parametrize(
        ("proton", "engine"),
        [
            ("nullable(datetime64(3, 'UTC'))", "Nullable(DateTime64(3, 'UTC'))"),
            ("map(string, array(uint64))", "Map(String, Array(UInt64))"),
            ("enum8('a' = 1, 'String' = 2)", "Enum8('a' = 1, 'String' = 2)"),
        ],
    )
    def test_of_types_go_there_and_back(self, proton: str, engine: str) -> None:
        assert type_to_engine(cut(proton)) == engine
        assert type_to_proton(engine) == proton

    def test_short_ones_have_a_full_name(self) -> None:
        assert type_to_proton(type_to_engine(cut("int"))) == "int32"

    @pytest.mark.parametrize("name", ["sum_if", "arg_max", "COUNT", "count"])
    def test_known_functions(self, name: str) -> None:
        assert Functions(_FUNCTIONS).to_engine(name)

    @pytest.mark.parametrize("name", ["sumIf", "argMax", "toStartOfDay", "made_up", "made_up_if", "dateDiff"])
    def test_unknown_functions(self, name: str) -> None:
        with pytest.raises(Refused) as caught:
            Functions(_FUNCTIONS).to_engine(name)
        assert caught.value.code == UNKNOWN_FUNCTION


class TestReading:
    def test_a_keyed_stream_is_always_merged(self) -> None:
        wanted = "SELECT a FROM `default`.`kv` FINAL WHERE b = 1"
        assert _select("SELECT a FROM table(kv) WHERE b = 1").sql == wanted
        assert _select("SELECT a FROM table(kv) FINAL WHERE b = 1").sql == wanted

    def test_an_append_stream_never(self) -> None:
        assert _select("SELECT a FROM table(log) AS l").sql == "SELECT a FROM `default`.`log` AS l"
        assert _code("SELECT a FROM table(log) FINAL") == ILLEGAL_FINAL

    def test_aliases_databases_and_joins(self) -> None:
        found = _select("SELECT * FROM table(other.kv) AS a LEFT JOIN table(kv) AS b ON a.x = b.x")
        assert found.sql == (
            "SELECT * FROM `other`.`kv` AS a FINAL LEFT JOIN `default`.`kv` AS b FINAL ON a.x = b.x"
        )

    def test_functions_and_casts_are_renamed_and_strings_are_not(self) -> None:
        found = _select(
            "SELECT sum_if(a, b), to_start_of_day(now()), cast(a AS nullable(string)), x::uint8, 'now('"
        )
        assert (
            found.sql
            == "SELECT sumIf(a, b), toStartOfDay(now()), CAST(a AS Nullable(String)), x::UInt8, 'now('"
        )

    @pytest.mark.parametrize(
        ("sql", "streaming"),
        [
            ("SELECT a FROM kv", True),
            ("SELECT a FROM kv FINAL", True),
            ("SELECT a FROM table(kv) AS t JOIN log ON t.a = log.a", True),
            ("SELECT a FROM (SELECT a FROM log)", True),
            ("WITH x AS (SELECT a FROM table(kv)) SELECT a FROM x", False),
            ("SELECT a FROM kv SETTINGS query_mode = 'table'", False),
            ("SELECT name FROM system.tables", False),
            ("SELECT 1", False),
        ],
    )
    def test_a_stream_without_table_never_ends(self, sql: str, streaming: bool) -> None:
        assert _select(sql).streaming is streaming

    def test_unless_the_client_asks_for_the_past(self) -> None:
        found = _select("SELECT a FROM kv", query_mode="table")
        assert (found.sql, found.streaming) == ("SELECT a FROM `default`.`kv` FINAL", False)

    @pytest.mark.parametrize(
        ("sql", "code"),
        [
            ("SELECT a FROM table(kv) k", SYNTAX_ERROR),
            ("SELECT a FROM table(nope)", UNKNOWN_STREAM),
            ("SELECT a FROM table(default.kv.x)", SYNTAX_ERROR),
            ("SELECT toStartOfDay(a) FROM table(kv)", UNKNOWN_FUNCTION),
            ("SELECT cast(a AS String)", UNKNOWN_TYPE),
            ("DELETE FROM kv WHERE a = 1", SYNTAX_ERROR),
            ("UPDATE kv SET a = 1", SYNTAX_ERROR),
            ("CREATE TABLE x (a int) ENGINE = Memory", SYNTAX_ERROR),
            ("", SYNTAX_ERROR),
        ],
    )
    def test_what_is_refused(self, sql: str, code: int) -> None:
        assert _code(sql) == code


class TestWriting:
    def test_rows_that_follow_in_blocks(self) -> None:
        assert _translator().read("INSERT INTO kv (a, `b`) VALUES") == Insert(
            ("default", "kv"), ["a", "b"], ""
        )

    def test_rows_that_the_statement_gives(self) -> None:
        read = _translator().read("insert into other.kv(a) values (1)(to_YYYYMM(now()));")
        assert read == Insert(("other", "kv"), ["a"], "VALUES (1)(toYYYYMM(now()))")

    def test_rows_of_a_query(self) -> None:
        read = _translator().read("INSERT INTO kv (a) SELECT a FROM table(log)")
        assert read == Insert(("default", "kv"), ["a"], "SELECT a FROM `default`.`log`")

    def test_rows_of_a_query_that_never_ends(self) -> None:
        assert _code("INSERT INTO kv (a) SELECT a FROM log") == NOT_IMPLEMENTED


class TestStreams:
    def test_a_keyed_one(self) -> None:
        read = _translator().read(
            """CREATE STREAM IF NOT EXISTS pollers ( -- who polls
                 id string, n uint32 DEFAULT 0, at nullable(datetime64(3,'UTC'))
               ) PARTITION BY to_YYYYMM(at) PRIMARY KEY (id, n) TTL to_datetime(at) + INTERVAL 90 DAY
               SETTINGS mode='versioned_kv', version_column='n', shards=1;"""
        )
        assert isinstance(read, CreateStream)
        assert [(one.name, one.type, one.rest) for one in read.columns] == [
            ("id", "String", ""),
            ("n", "UInt32", "DEFAULT 0"),
            ("at", "Nullable(DateTime64(3,'UTC'))", ""),
        ]
        assert (read.stream, read.if_not_exists, read.mode) == (("default", "pollers"), True, "versioned_kv")
        assert (read.key, read.version, read.partition) == ("(id, n)", "n", "toYYYYMM(at)")
        assert read.ttl == "toDateTime(at) + INTERVAL 90 DAY"

    def test_an_append_one_is_kept_by_day(self) -> None:
        read = _translator().read("CREATE STREAM x (a int)")
        assert isinstance(read, CreateStream)
        assert (read.mode, read.partition, read.ttl) == ("append", "toYYYYMMDD(_tp_time)", "")

    @pytest.mark.parametrize(
        ("sql", "code"),
        [
            ("CREATE STREAM x (a int) SETTINGS mode = 'versioned_kv'", MISSING_KEY),
            ("CREATE STREAM x (a Int32)", UNKNOWN_TYPE),
            ("CREATE STREAM x (a int) SETTINGS mode = 'changelog_kv'", NOT_IMPLEMENTED),
            ("CREATE STREAM x (a int) ENGINE = Stream(1, 1)", SYNTAX_ERROR),
            ("ALTER STREAM kv ADD COLUMN b int", NOT_IMPLEMENTED),
            ("ALTER STREAM log DELETE WHERE a = 1", NOT_IMPLEMENTED),
            ("DROP STREAM nope", UNKNOWN_STREAM),
            ("DROP TABLE kv", SYNTAX_ERROR),
        ],
    )
    def test_what_is_refused(self, sql: str, code: int) -> None:
        assert _code(sql) == code

    def test_a_view_is_of_the_past(self) -> None:
        read = _translator().read("CREATE VIEW IF NOT EXISTS v AS SELECT count() FROM table(kv)")
        wanted = "CREATE VIEW IF NOT EXISTS `default`.`v` AS  SELECT count() FROM `default`.`kv` FINAL"
        assert read == Other(wanted, True)
        assert not _select("SELECT a FROM view").streaming
        assert _code("CREATE VIEW v AS SELECT a FROM kv") == NOT_IMPLEMENTED

    def test_what_shows_and_changes_them(self) -> None:
        read = _translator().read
        assert read("SHOW STREAMS LIKE 'p%'") == Other("SHOW TABLES FROM `default`  LIKE 'p%'")
        assert read("DROP STREAM IF EXISTS nope") == Other("DROP TABLE IF EXISTS `default`.`nope` SYNC", True)
        assert read("ALTER STREAM log ADD COLUMN IF NOT EXISTS b string DEFAULT ''") == Other(
            "ALTER TABLE `default`.`log` ADD COLUMN IF NOT EXISTS `b` String DEFAULT ''", True
        )


class TestFaults:
    def test_each_hits_what_matches_so_often_and_then_rests(self) -> None:
        faults = Faults()
        faults.add(Fault("drop", matching="^insert", times=2, skip=1))
        struck = [
            faults.strike(sql) is not None
            for sql in ("INSERT 1", "SELECT", "INSERT 2", "insert 3", "INSERT 4")
        ]
        assert struck == [False, False, True, True, False]
        assert faults.fired == 2

    def test_one_without_end_goes_on_until_it_is_cleared(self) -> None:
        faults = Faults()
        faults.add(Fault("slow", times=-1))
        assert all(faults.strike("SELECT 1") for _ in range(100))
        faults.clear()
        assert faults.strike("SELECT 1") is None


class TestWire:
    @pytest.mark.parametrize("value", [0, 127, 128, 54459, 2**63])
    async def test_numbers_go_there_and_back(self, value: int) -> None:
        assert await take_number(Memory(number(value))) == value

    async def test_an_end_in_the_midst_is_noticed(self) -> None:
        with pytest.raises(EOFError):
            await Memory(text("abc")[:2]).take(3)
