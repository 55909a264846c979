"""Expressions of Proton's dialect, said in the engine's: names of functions and types change, nothing else."""

from __future__ import annotations

from support.proton_standin.names import Functions, type_to_engine
from support.proton_standin.tokens import END, Reader, Token, cut, render, split, written

_QUOTE = "'"
# Words that may stand before a parenthesis without being a function.
_NOT_FUNCTIONS = (
    *(
        "SELECT",
        "DISTINCT",
        "FROM",
        "JOIN",
        "PREWHERE",
        "WHERE",
        "ON",
        "USING",
        "BY",
        "HAVING",
        "LIMIT",
        "OFFSET",
    ),
    *("WITH", "AS", "UNION", "ALL", "ANY", "EXCEPT", "INTERSECT", "INTO", "VALUES", "SETTINGS", "KEY", "TTL"),
    *(
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "BETWEEN",
        "LIKE",
        "EXISTS",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "INTERVAL",
    ),
    *("OVER", "FILTER", "DEFAULT", "PARTITION", "ORDER", "GROUP"),
)


class Expressions:
    """Knows the functions."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    def translate(self, tokens: list[Token]) -> str:
        """An expression with the engine's names of functions and types."""
        reader, done = Reader(tokens), []
        while (token := reader.next()) is not END:
            if token.text == "::":
                done.append(token)
                done.append(written(self.type_of(reader), token))
            elif token.is_word("CAST") and reader.peek().text == "(":
                done.append(written(f"CAST({self._cast(reader.in_parentheses())})", token))
            elif token.kind == "word" and reader.peek().text == "(" and not token.is_word(*_NOT_FUNCTIONS):
                done.append(written(self._functions.to_engine(token.text), token))
            else:
                done.append(token)
        return render(done)

    def type_of(self, reader: Reader) -> str:
        """The type that comes next."""
        name = type_to_engine([reader.next()]).strip()
        return f"{name}({type_to_engine(reader.in_parentheses())})" if reader.peek().text == "(" else name

    def _cast(self, tokens: list[Token]) -> str:
        """What stands between the parentheses of cast(value, 'type') or cast(value AS type)."""
        reader = Reader(tokens)
        value = reader.until("AS")
        if reader.accept("AS"):
            return f"{self.translate(value)} AS {self.type_of(reader)}"
        value, kind = split(tokens)
        return f"{self.translate(value)}, '{type_to_engine(cut(kind[0].text.strip(_QUOTE)))}'"
