"""Names of types and functions: snake_case in Proton, CamelCase in the engine.

Functions are not listed here: the engine is asked for its own, and each is known by the name that Proton
gives it. So a camelCase name is refused because Proton does not know it, not because of how it looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from support.proton_standin.refusals import UNKNOWN_FUNCTION, UNKNOWN_TYPE, Refused
from support.proton_standin.tokens import Token, cut, render, written

_INTEGERS = {
    f"{u}int{bits}": f"{u.upper()}Int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64, 128, 256)
}
_TYPES = _INTEGERS | {
    "string": "String",
    "fixed_string": "FixedString",
    "bool": "Bool",
    "uuid": "UUID",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "float32": "Float32",
    "float64": "Float64",
    "decimal": "Decimal",
    "date": "Date",
    "date32": "Date32",
    "datetime": "DateTime",
    "datetime64": "DateTime64",
    "enum8": "Enum8",
    "enum16": "Enum16",
    "nullable": "Nullable",
    "array": "Array",
    "map": "Map",
    "tuple": "Tuple",
    "low_cardinality": "LowCardinality",
    "nothing": "Nothing",
}
_ALIASES = {"int": "Int32", "uint": "UInt32", "float": "Float32", "double": "Float64", "boolean": "Bool"}
_TO_ENGINE = _TYPES | _ALIASES
_TO_PROTON = {engine: proton for proton, engine in _TYPES.items()}

# The words of a name like toDateTime64 or JSONExtractString; some are written together in Proton too.
_WORD = re.compile(
    r"YYYY[A-Za-z]*|DateTime\d*|UUIDv?\d*|IPv\d|UInt\d*|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+\d*|_+"
)
_COMBINATORS = {"_if": "If", "_array": "Array", "_distinct": "Distinct", "_or_null": "OrNull"}


def type_to_engine(tokens: list[Token]) -> str:
    """A type as the engine calls it. Raises Refused 50 for a name that Proton does not know."""
    return render(_type_name(token) for token in tokens)


def _type_name(token: Token) -> Token:
    if token.kind != "word":
        return token
    if token.text not in _TO_ENGINE:
        raise Refused(UNKNOWN_TYPE, f"Unknown data type family: {token.text}")
    return written(_TO_ENGINE[token.text], token)


def type_to_proton(engine_type: str) -> str:
    """A type as Proton calls it."""
    tokens = cut(engine_type)
    return render(written(_TO_PROTON.get(token.text, token.text), token) for token in tokens)


def rename_types_sql(column: str) -> str:
    """An expression of the engine that gives the type names in a column as Proton calls them."""
    for engine, proton in _TO_PROTON.items():
        column = f"replaceRegexpAll({column}, '\\\\b{engine}\\\\b', '{proton}')"
    return column


class Functions:
    """The functions that Proton knows, and what the engine calls them."""

    def __init__(self, engine_names: Iterable[tuple[str, bool]]) -> None:
        """Take the engine's functions, each with whether it is known in any case."""
        self._names: dict[str, str] = {}
        self._any_case: dict[str, str] = {}
        for name, any_case in engine_names:
            self._names.setdefault(proton_function(name), name)
            if any_case and name.islower():
                self._any_case[name] = name

    def to_engine(self, name: str) -> str:
        """What the engine calls a function. Raises Refused 46 for a name that Proton does not know."""
        found = self._names.get(name) or self._any_case.get(name.lower()) or self._combined(name)
        if found is None:
            raise Refused(UNKNOWN_FUNCTION, f"Unknown function {name}")
        return found

    def _combined(self, name: str) -> str | None:
        for suffix, combinator in _COMBINATORS.items():
            plain = self._names.get(name.removesuffix(suffix))
            if name.endswith(suffix) and plain:
                return plain + combinator
        return None


def proton_function(engine_name: str) -> str:
    """What Proton calls a function of the engine: toStartOfDay is to_start_of_day, toYYYYMM is to_YYYYMM."""
    if engine_name.islower():
        words = [engine_name]
    else:
        words = [word for word in _WORD.findall(engine_name) if not word.startswith("_")]
    words = [word if word.startswith("YYYY") else word.lower() for word in words]
    return "_".join(["unique" if words[0] == "uniq" else words[0], *words[1:]]) if words else engine_name
