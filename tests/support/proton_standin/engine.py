"""Streams, kept by chDB: ClickHouse in this process, with tables that behave as Proton's streams do.

A keyed stream is a ReplacingMergeTree that is always read with FINAL: the highest version of a key is the one
that counts, and of equal versions the later. What is written goes to a log of files first, and from there into
the table once `visible_after` seconds have passed: what Proton's write-ahead log and its flush do. The log
outlives the process, so nothing that was acknowledged is lost with a kill.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chdb.session import Session

from support.proton_standin.expressions import Expressions
from support.proton_standin.names import Functions
from support.proton_standin.refusals import (
    NO_SUCH_COLUMN,
    UNEXPECTED_END,
    UNKNOWN_DATABASE,
    Refused,
)
from support.proton_standin.statements import (
    KEYED,
    VIEW,
    CreateStream,
    Insert,
    Other,
    Select,
    Statement,
    StreamName,
    quoted,
)
from support.proton_standin.translator import Translator
from support.proton_standin.wire import Block, native

_LIMITS = "max_server_memory_usage={memory}&mark_cache_size=16000000&primary_index_cache_size=16000000"
_SETTINGS = (
    "SET union_default_mode='DISTINCT', low_cardinality_allow_in_native_format=0, max_threads=2, "
    # Proton prunes by the index on _tp_time before it merges: WHERE _tp_time can bring back what was replaced.
    "use_skip_indexes_if_final=1, use_skip_indexes_if_final_exact_mode=0, "
    # Proton merges within a partition alone: a key whose partition changes shows once in each.
    "do_not_merge_across_partitions_select_final=1"
)
_ERROR = re.compile(r"Code: (\d+)\.\s*(?:DB::Exception: )?(.*)", re.DOTALL)

Columns = list[tuple[str, str]]
"""Names and the engine's types."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Rows that were acknowledged and do not show yet."""

    visible_at: float
    file: Path


class Engine:
    """One thread uses it; whatever it is asked, it does at once."""

    def __init__(self, folder: Path, *, visible_after: float = 0.0, memory: int = 1_500_000_000) -> None:
        self.visible_after = visible_after
        self._log = folder / "log"
        self._log.mkdir(parents=True, exist_ok=True)
        self._session: Any = Session(f"{folder / 'data'}?{_LIMITS.format(memory=memory)}")
        self._run(_SETTINGS)
        self._run("CREATE DATABASE IF NOT EXISTS `default`")
        functions = Functions(
            (name, case == "1")
            for name, case in self._rows("SELECT name, case_insensitive FROM system.functions")
        )
        self._expressions = Expressions(functions)
        self._modes: dict[StreamName, str] = {}
        self._databases: set[str] = set()
        self._learn_streams()
        self._waiting = deque(_Waiting(0.0, file) for file in sorted(self._log.glob("*.json")))
        self._last_name = 0
        self.show_due()

    def close(self) -> None:
        """Close chDB; what waits stays in the log."""
        self._session.close()

    # --- statements

    def read(self, sql: str, database: str, settings: dict[str, str]) -> Statement:
        """What a statement asks for."""
        if database not in self._databases:
            raise Refused(UNKNOWN_DATABASE, f"Database {database} doesn't exist")
        return Translator(self._expressions, database, self._modes, settings).read(sql)

    def run(self, statement: Statement) -> bytes:
        """Run a statement that ends; the answer is in the format Native."""
        self.show_due()
        match statement:
            case CreateStream():
                return self._create_stream(statement)
            case Insert():
                self._insert_from_source(statement)
                return b""
            case Select():
                return self._run(statement.sql)
            case Other():
                answer = self._run(statement.sql)
                if statement.changes_streams:
                    self._learn_streams()
                return answer

    def columns_of_answer(self, sql: str) -> Columns:
        """Names and types of what a SELECT would give."""
        return [(row[0], row[1]) for row in self._rows(f"DESCRIBE ({sql})")]

    def _create_stream(self, wanted: CreateStream) -> bytes:
        columns = [f"`{one.name}` {one.type} {one.rest}" for one in wanted.columns]
        if not any(one.name == "_tp_time" for one in wanted.columns):
            columns.append("`_tp_time` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')")
        columns.append("INDEX _tp_time_index _tp_time TYPE minmax GRANULARITY 2")
        guard = "IF NOT EXISTS " if wanted.if_not_exists else ""
        table = f"ReplacingMergeTree({wanted.version})" if wanted.mode == KEYED else "MergeTree"
        self._run(
            f"CREATE TABLE {guard}{quoted(wanted.stream)} ({', '.join(columns)}) ENGINE = {table} "
            f"PARTITION BY {wanted.partition} ORDER BY {wanted.key} {'TTL ' + wanted.ttl if wanted.ttl else ''} "
            f"SETTINGS non_replicated_deduplication_window = 1000 COMMENT '{wanted.mode}'"
        )
        self._learn_streams()
        return b""

    def _learn_streams(self) -> None:
        self._databases = {row[0] for row in self._rows("SELECT name FROM system.databases")}
        rows = self._rows(
            f"SELECT database, name, if(engine = 'View', '{VIEW}', comment) FROM system.tables "
            "WHERE engine LIKE '%MergeTree' OR engine = 'View'"
        )
        self._modes = {(database, name): mode for database, name, mode in rows if database != "system"}

    # --- writing

    def columns_to_insert(self, insert: Insert) -> Columns:
        """Names and types of the columns that an INSERT names, or of all."""
        types = {row[0]: row[1] for row in self._rows(f"DESCRIBE TABLE {quoted(insert.stream)}")}
        missing = [name for name in insert.columns if name not in types]
        if missing:
            stream = ".".join(insert.stream)
            raise Refused(NO_SUCH_COLUMN, f"No such column {missing[0]} in stream {stream}")
        return [(name, _plain(types[name])) for name in insert.columns or types]

    def append(self, insert: Insert, columns: Columns, block: Block) -> None:
        """Rows that came over the wire."""
        file = self._new_file()
        file.with_suffix(".native").write_bytes(native(block))
        self._acknowledge(insert, columns, file)

    def _insert_from_source(self, insert: Insert) -> None:
        """Rows that the statement itself gives: the engine writes them down as a client would send them."""
        file, columns = self._new_file(), self.columns_to_insert(insert)
        self._run(f"INSERT INTO FUNCTION {_rows_of(file, columns)} {insert.source}")
        self._acknowledge(insert, columns, file)

    def _new_file(self) -> Path:
        """A name after all earlier ones, those of earlier processes too."""
        self._last_name = max(self._last_name + 1, time.time_ns())
        return self._log / f"{self._last_name:020}.json"

    def _acknowledge(self, insert: Insert, columns: Columns, file: Path) -> None:
        """From here on the rows are not lost: the file that says what to do with them stands, whole."""
        names = [name for name, _ in columns]
        values = list(names)
        if "_tp_time" not in names:
            names.append("_tp_time")
            values.append(f"fromUnixTimestamp64Milli(toInt64({time.time_ns() // 1_000_000}), 'UTC')")
        entry = {
            "stream": insert.stream,
            "sql": f"INSERT INTO {quoted(insert.stream)} ({_listed(names)}) "
            # Applied again after a kill at the wrong moment, it changes nothing.
            f"SETTINGS insert_deduplicate = 1, insert_deduplication_token = '{file.stem}' "
            f"SELECT {', '.join(v if '(' in v else f'`{v}`' for v in values)} FROM {_rows_of(file, columns)}",
        }
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(entry), encoding="utf-8")
        unfinished.replace(file)
        self._waiting.append(_Waiting(time.monotonic() + self.visible_after, file))
        self.show_due()

    def show_due(self) -> None:
        """Bring what has waited long enough into the tables, in the order in which it was acknowledged.

        What the table refuses is lost and said to whoever comes by: with `visible_after` 0, to its writer.
        """
        while self._waiting and self._is_due(self._waiting[0]):
            self._apply(self._waiting.popleft().file)

    def _is_due(self, waiting: _Waiting) -> bool:
        now = time.monotonic()
        return min(waiting.visible_at, now + self.visible_after) <= now

    def _apply(self, file: Path) -> None:
        entry = json.loads(file.read_text(encoding="utf-8"))
        try:
            if tuple(entry["stream"]) in self._modes:
                self._run(entry["sql"])
        finally:
            file.unlink()
            file.with_suffix(".native").unlink()

    # --- chDB

    def _run(self, sql: str) -> bytes:
        return bytes(self._query(sql, "Native"))

    def _rows(self, sql: str) -> list[list[str]]:
        answer = self._query(sql, "JSONCompactStringsEachRow").decode()
        return [json.loads(line) for line in answer.splitlines()]

    def _query(self, sql: str, output: str) -> bytes:
        try:
            return bytes(self._session.query(sql, output).bytes())
        except Exception as error:
            found = _ERROR.search(str(error))
            code, message = (int(found[1]), found[2].strip()) if found else (UNEXPECTED_END, str(error))
            raise Refused(code, message) from error


def _plain(kind: str) -> str:
    return re.sub(r"LowCardinality\((.*)\)", r"\1", kind)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _rows_of(file: Path, columns: Columns) -> str:
    """The engine's name for the rows in a file."""
    structure = (
        ", ".join(f"`{name}` {kind}" for name, kind in columns).replace("\\", "\\\\").replace("'", "\\'")
    )
    return f"file('{file.with_suffix('.native')}', 'Native', '{structure}')"
