"""Reads the statements of Proton's dialect and says them again in the engine's.

The dialect is ClickHouse's with snake_case names, streams in place of tables, and a reading of its own of
`FROM`: `table(x)` is the past of a stream and ends, `x` alone is its future and never ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from support.proton_standin.expressions import Expressions
from support.proton_standin.names import rename_types_sql
from support.proton_standin.refusals import (
    ILLEGAL_FINAL,
    MISSING_KEY,
    SYNTAX_ERROR,
    UNKNOWN_STREAM,
    Refused,
    not_modelled,
)
from support.proton_standin.statements import (
    APPEND,
    KEYED,
    VIEW,
    Column,
    CreateStream,
    Insert,
    Other,
    Select,
    Statement,
    StreamName,
    quoted,
)
from support.proton_standin.tokens import END, Reader, Token, cut, render, split, written

# Words that may follow a stream in FROM; any other word there would be an alias without AS.
_AFTER_STREAM = (
    *("AS", "FINAL", "PREWHERE", "WHERE", "ORDER", "GROUP", "HAVING", "LIMIT", "OFFSET", "SETTINGS", "UNION"),
    *("JOIN", "LEFT", "RIGHT", "INNER", "FULL", "CROSS", "ASOF", "ANY", "ALL", "SEMI", "ANTI", "ON", "USING"),
    *("INTERSECT", "EXCEPT", "WINDOW", "EMIT"),
)
_CLAUSES = ("PARTITION BY", "PRIMARY KEY", "ORDER BY", "TTL")

# What Proton shows of itself, where it differs from what the engine shows.
_SYSTEM_TABLES = {
    "columns": f"(SELECT * REPLACE ({rename_types_sql('type')} AS type) FROM system.columns)",
    "tables": "(SELECT * REPLACE ('Stream' AS engine) FROM system.tables)",
}


@dataclass
class Translator:
    """Reads the statements of one connection."""

    expressions: Expressions
    database: str
    modes: Mapping[StreamName, str]
    settings: Mapping[str, str] = field(default_factory=dict)

    def read(self, sql: str) -> Statement:
        """What the statement asks for. Raises Refused where Proton would."""
        reader = Reader(cut(sql))
        for words, parse in self._parsers().items():
            if reader.accept(*words.split()):
                return parse(reader)
        if reader.peek().is_word("SELECT", "WITH"):
            return self._select(reader.until())
        raise reader.syntax_error()

    def _parsers(self) -> dict[str, Callable[[Reader], Statement]]:
        return {
            "CREATE STREAM": self._create_stream,
            "CREATE VIEW": self._create_view,
            "CREATE DATABASE": lambda reader: Other("CREATE DATABASE " + render(reader.until()), True),
            "DROP DATABASE": lambda reader: Other("DROP DATABASE " + render(reader.until()), True),
            "DROP STREAM": self._drop_stream,
            "ALTER STREAM": self._alter_stream,
            "INSERT INTO": self._insert,
            "SHOW STREAMS": self._show_streams,
            "DESCRIBE": self._describe,
            "DESC": self._describe,
            "EXISTS STREAM": lambda reader: Other(f"EXISTS TABLE {quoted(self._stream_name(reader))}"),
        }

    # --- names

    def _stream_name(self, reader: Reader) -> StreamName:
        parts = reader.dotted_name()
        if len(parts) > 2:
            raise reader.syntax_error()
        return (self.database, parts[0]) if len(parts) == 1 else (parts[0], parts[1])

    def _known_stream(self, reader: Reader) -> StreamName:
        stream = self._stream_name(reader)
        if stream not in self.modes:
            raise Refused(UNKNOWN_STREAM, f"Stream {'.'.join(stream)} does not exist")
        return stream

    # --- reading

    def _select(self, tokens: list[Token]) -> Select:
        """Resolve the streams first, then the names of functions."""
        tokens, settings = self._without_settings(tokens)
        snapshot = ({**self.settings, **settings}).get("query_mode") == "table"
        reader, done, streaming = Reader(tokens), [], False
        while (token := reader.next()) is not END:
            if token.is_word("TABLE") and reader.peek().text == "(":
                stream = self._known_stream(Reader(reader.in_parentheses()))
                done += self._placed(stream, token, reader)
            elif token.is_word("FROM", "JOIN") and (shown := _system_table(reader)):
                done += [token, Token("text", shown, " ")]
            elif token.is_word("FROM", "JOIN") and (bare := self._bare_stream(reader)):
                streaming = streaming or (not snapshot and self.modes[bare] != VIEW)
                done += [token, *self._placed(bare, written("", token), reader)]
            else:
                done.append(token)
        return Select(self.expressions.translate(done), streaming)

    def _bare_stream(self, reader: Reader) -> StreamName | None:
        """The stream that is named without table(): a subquery, a function or a WITH name is none."""
        if not reader.peek().is_name or reader.peek(1).text == "(":
            return None
        ahead = 3 if reader.peek(1).text == "." else 1
        named = Reader([reader.peek(at) for at in range(ahead)])
        stream = self._stream_name(named)
        if stream not in self.modes:
            return None
        for _ in range(ahead):
            reader.next()
        return stream

    def _placed(self, stream: StreamName, like: Token, reader: Reader) -> list[Token]:
        """The stream, its alias, and FINAL: reading a keyed stream always gives the latest of each key."""
        placed = quoted(stream)
        if reader.peek().is_name and not reader.peek().is_word(*_AFTER_STREAM):
            raise reader.syntax_error()
        if reader.accept("AS"):
            placed += f" AS {reader.next().text}"
        if reader.accept("FINAL") and self.modes[stream] == APPEND:
            raise Refused(ILLEGAL_FINAL, f"Stream {'.'.join(stream)} doesn't support FINAL")
        if self.modes[stream] == KEYED:
            placed += " FINAL"
        return [Token("text", placed, like.space or " ")]

    def _without_settings(self, tokens: list[Token]) -> tuple[list[Token], dict[str, str]]:
        reader = Reader(tokens)
        query = reader.until("SETTINGS")
        return (query, read_settings(reader)) if reader.accept("SETTINGS") else (tokens, {})

    # --- writing

    def _insert(self, reader: Reader) -> Insert:
        reader.accept("STREAM")
        stream = self._known_stream(reader)
        columns = (
            [part[0].name for part in split(reader.in_parentheses())] if reader.peek().text == "(" else []
        )
        if reader.peek().is_word("SELECT", "WITH"):
            selected = self._select(reader.until())
            if selected.streaming:
                raise not_modelled("INSERT ... SELECT from a stream without table()")
            return Insert(stream, columns, selected.sql.strip())
        reader.expect("VALUES")
        rows = reader.until()
        return Insert(stream, columns, f"VALUES {self.expressions.translate(rows).strip()}" if rows else "")

    # --- streams

    def _create_stream(self, reader: Reader) -> CreateStream:
        if_not_exists = reader.accept("IF", "NOT", "EXISTS")
        stream = self._stream_name(reader)
        columns = [self._column(part) for part in split(reader.in_parentheses())]
        clauses = self._clauses(reader)
        settings = read_settings(reader) if reader.accept("SETTINGS") else {}
        mode = settings.get("mode", APPEND)
        if mode not in (APPEND, KEYED):
            raise not_modelled(f"streams of mode {mode!r}")
        if mode == KEYED and "PRIMARY KEY" not in clauses:
            raise Refused(MISSING_KEY, "a PRIMARY KEY expression must be given for a versioned_kv stream")
        return CreateStream(
            stream=stream,
            if_not_exists=if_not_exists,
            columns=columns,
            mode=mode,
            version=settings.get("version_column", "_tp_time"),
            partition=clauses.get("PARTITION BY", "toYYYYMMDD(_tp_time)"),
            key=clauses.get("PRIMARY KEY") or clauses.get("ORDER BY", "toStartOfHour(_tp_time)"),
            ttl=clauses.get("TTL", ""),
        )

    def _create_view(self, reader: Reader) -> Other:
        guard = "IF NOT EXISTS " if reader.accept("IF", "NOT", "EXISTS") else ""
        view = self._stream_name(reader)
        reader.expect("AS")
        selected = self._select(reader.until())
        if selected.streaming:
            raise not_modelled("a view of a stream without table()")
        return Other(f"CREATE VIEW {guard}{quoted(view)} AS {selected.sql}", True)

    def _column(self, tokens: list[Token]) -> Column:
        reader = Reader(tokens)
        name = reader.dotted_name()[0]
        return Column(
            name, self.expressions.type_of(reader), self.expressions.translate(reader.until()).strip()
        )

    def _clauses(self, reader: Reader) -> dict[str, str]:
        clauses: dict[str, str] = {}
        while not reader.peek().is_word("SETTINGS") and reader.peek() is not END:
            clause = next((one for one in _CLAUSES if reader.accept(*one.split())), "")
            if not clause:
                raise reader.syntax_error()
            clauses[clause] = self.expressions.translate(
                reader.until("PARTITION", "PRIMARY", "ORDER", "TTL", "SETTINGS")
            ).strip()
        return clauses

    def _drop_stream(self, reader: Reader) -> Other:
        if reader.accept("IF", "EXISTS"):
            return Other(f"DROP TABLE IF EXISTS {quoted(self._stream_name(reader))} SYNC", True)
        return Other(f"DROP TABLE {quoted(self._known_stream(reader))} SYNC", True)

    def _alter_stream(self, reader: Reader) -> Other:
        stream = self._known_stream(reader)
        if not reader.accept("ADD", "COLUMN"):
            raise not_modelled("ALTER STREAM other than ADD COLUMN")
        if self.modes[stream] == KEYED:
            raise not_modelled("ADD COLUMN on a keyed stream, after which Proton loses rows")
        guard = "IF NOT EXISTS " if reader.accept("IF", "NOT", "EXISTS") else ""
        column = self._column(reader.until())
        return Other(
            f"ALTER TABLE {quoted(stream)} ADD COLUMN {guard}`{column.name}` {column.type} {column.rest}",
            True,
        )

    def _show_streams(self, reader: Reader) -> Other:
        database = reader.dotted_name()[0] if reader.accept("FROM") else self.database
        return Other(f"SHOW TABLES FROM `{database}` {render(reader.until())}")

    def _describe(self, reader: Reader) -> Other:
        reader.accept("STREAM")
        database, name = self._known_stream(reader)
        return Other(
            f"SELECT name, type, default_kind AS default_type, default_expression, comment "
            f"FROM {_SYSTEM_TABLES['columns']} "
            f"WHERE database = '{database}' AND table = '{name}' ORDER BY position"
        )


def _system_table(reader: Reader) -> str | None:
    if not (reader.peek().is_word("SYSTEM") and reader.peek(1).text == "."):
        return None
    name = reader.dotted_name()[-1]
    return _SYSTEM_TABLES.get(name, f"system.{name}")


def read_settings(reader: Reader) -> dict[str, str]:
    """Read `a = 1, b = 'x'`."""
    settings: dict[str, str] = {}
    for part in split(reader.until()):
        if len(part) < 3 or part[1].text != "=":
            raise Refused(SYNTAX_ERROR, f"Syntax error: failed at setting '{render(part).strip()}'")
        settings[part[0].text] = render(part[2:]).strip().strip("'")
    return settings
