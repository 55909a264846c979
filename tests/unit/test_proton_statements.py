"""What is sent to Proton: never a query that does not end, never one that loses rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetway.adapters.database import proton_migrations
from jetway.adapters.database import proton_statements as sql
from jetway.adapters.database.migrations import find_migrations, split_statements
from jetway.adapters.database.proton_streams import Stream
from jetway.adapters.database.tables import ALL_TABLES, EVENTS, Kind, Table
from jetway.ports import EventQuery
from support.database_rows import MOMENT

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "migrations"
SOURCES = sorted((ROOT / "daemon" / "jetway" / "adapters" / "database").glob("proton*.py"))
BARE_FROM = re.compile(r"\b(?:FROM|JOIN)\s+(?!table\(|\(|system\.)\S+", re.IGNORECASE)
TYPES = {
    Kind.TEXT: "string",
    Kind.JSON: "string",
    Kind.INTEGER: "int64",
    Kind.BOOLEAN: "bool",
    Kind.TIME: "datetime64(3, 'utc')",
}


def _type(table: Table, name: str) -> str:
    column = next(column for column in table.columns if column.name == name)
    return f"nullable({TYPES[column.kind]})" if column.nullable else TYPES[column.kind]


def _own(table: Table) -> Stream:
    return Stream(table, {name: _type(table, name) for name in table.names} | {"_tp_time": "datetime64(3)"})


def _adopted(table: Table) -> Stream:
    kept = {table.key, "metadata", "status", "first_registered", "timestamp"}
    types = {name: _type(table, name) for name in table.names if name in kept}
    return Stream(table, types)


def _statements() -> Iterator[str]:
    query = EventQuery(
        types=("issued",), actor="ann", package_id="p", since=MOMENT, until=MOMENT, before=(MOMENT, "e")
    )
    for table in ALL_TABLES:
        for stream in (_own(table), _adopted(table)):
            if table is EVENTS:
                continue
            yield sql.select_keys(stream)
            yield sql.select_rows(stream)
            yield sql.select_all(stream, table.names[:3])
            yield sql.select_versions(stream)
        yield sql.require_keyed(table.name)
    for events in (_own(EVENTS), _adopted(EVENTS)):
        yield sql.count_events(events, query).sql
        yield sql.select_event_ids(events, query).sql
        yield sql.select_events(events)
        yield sql.select_event_spans(events)
        yield sql.select_event_revisions(events)
    yield sql.CHECK_SCHEMA
    yield sql.ANSWER
    yield sql.select_samples(hourly=True)
    yield sql.select_samples(hourly=False)
    yield proton_migrations._SELECT
    yield proton_migrations._SELECT_ADOPTED
    for migration in find_migrations(MIGRATIONS / "proton"):
        yield from split_statements(migration)


def test_the_search_finds_what_it_is_for() -> None:
    assert BARE_FROM.search("SELECT 1 FROM pollers")
    assert BARE_FROM.search("SELECT 1 FROM table(a) AS a JOIN b USING x")
    assert not BARE_FROM.search("SELECT 1 FROM table(pollers) WHERE x IN (SELECT 1 FROM (SELECT 2))")


@pytest.mark.parametrize("statement", sorted(set(_statements())), ids=lambda text: text[:60])
def test_no_statement_reads_a_stream_without_table(statement: str) -> None:
    code = re.sub(r"--[^\n]*", "", statement)
    assert not BARE_FROM.search(code)
    assert "DELETE" not in code and "DROP" not in code and "ALTER" not in code


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_source_holds_a_query_that_never_ends(source: Path) -> None:
    """Whatever statement is added: each SELECT of the adapter stands in its source as text."""
    for text in _texts(ast.parse(source.read_text())):
        if re.search(r"\bSELECT\b.*\bFROM\b", text, re.DOTALL):
            assert not BARE_FROM.search(text), text


def _texts(tree: ast.Module) -> Iterator[str]:
    """Every text that a source holds and that is no description: f-strings with `{}` for what is put in."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, described) and ast.get_docstring(node) is not None:
            left_out.add(id(node.body[0].value))  # type: ignore[attr-defined]
        if isinstance(node, ast.JoinedStr):
            left_out.update(id(part) for part in node.values)
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_search_looks_into_every_kind_of_text() -> None:
    source = '''
def one():
    """SELECT x FROM pollers"""
    a = """
SELECT x
FROM agents
"""
    return a + f"SELECT {a} FROM checkers WHERE {a}" + f"SELECT x FROM table({a})" + f"SELECT x FROM {a}"
'''
    found = [text for text in _texts(ast.parse(source)) if BARE_FROM.search(text)]
    assert len(found) == 3


def test_every_parameter_is_bound_under_its_name() -> None:
    query = EventQuery(types=("a",), service_type="agent", service_id="b", since=MOMENT, before=(MOMENT, "e"))
    for statement in (sql.count_events(_own(EVENTS), query), sql.select_event_ids(_own(EVENTS), query)):
        assert set(re.findall(r"%\((\w+)\)s", statement.sql)) == set(statement.values)
        assert "%" not in re.sub(r"%\(\w+\)s", "", statement.sql)


class TestMigrations:
    def test_the_numbers_and_names_are_those_of_sqlite(self) -> None:
        names = {kind: [m.name for m in find_migrations(MIGRATIONS / kind)] for kind in ("sqlite", "proton")}
        assert names["proton"] == names["sqlite"]

    def test_every_statement_may_be_run_again_and_takes_nothing_away(self) -> None:
        for migration in find_migrations(MIGRATIONS / "proton"):
            for statement in split_statements(migration):
                code = re.sub(r"--[^\n]*", "", statement).strip()
                assert re.match(r"CREATE (STREAM|VIEW) IF NOT EXISTS \w+", code)
        assert proton_migrations._CREATE_TABLE.strip().startswith("CREATE STREAM IF NOT EXISTS")

    @pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
    def test_columns_are_as_declared(self, table: Table) -> None:
        (text,) = (
            statement
            for migration in find_migrations(MIGRATIONS / "proton")
            for statement in split_statements(migration)
            if f"CREATE STREAM IF NOT EXISTS {table.name} (" in statement
        )
        body = re.sub(r"--[^\n]*", "", text).split("(", 1)[1].split(") PARTITION BY")[0]
        columns = dict(re.findall(r"^\s+(\w+)\s+(\S.*?),?$", body, re.MULTILINE))
        assert {name: kind.lower() for name, kind in columns.items()} == {
            name: _type(table, name) for name in table.names
        }
        assert list(columns) == list(table.names)

    @pytest.mark.parametrize("table", [t for t in ALL_TABLES if t is not EVENTS], ids=lambda t: t.name)
    def test_keyed_streams_are_one_partition_and_keep_all_keys(self, table: Table) -> None:
        text = re.sub(r"--[^\n]*", "", (MIGRATIONS / "proton" / "0001_registry.sql").read_text())
        clauses = text.split(f"CREATE STREAM IF NOT EXISTS {table.name} (")[1].split(";")[0]
        assert f"PRIMARY KEY ({table.key})" in clauses
        # Proton keeps a row of a key in each partition that the key was ever written to.
        assert "PARTITION BY tuple()" in clauses
        assert "mode='versioned_kv', version_column='_tp_time'" in clauses
        assert "TTL" not in clauses

    def test_events_are_kept_for_ninety_days(self) -> None:
        text = re.sub(r"--[^\n]*", "", (MIGRATIONS / "proton" / "0001_registry.sql").read_text())
        events = text.split("service_registration_events (")[1].split(";")[0]
        assert "TTL to_datetime(timestamp) + INTERVAL 90 DAY" in events
        assert "versioned_kv" not in events
