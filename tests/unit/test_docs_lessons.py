"""docs/lessons.md names tests that there are, for every defect."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from support import REPOSITORY

PAGE = REPOSITORY / "docs" / "lessons.md"
DEFECTS = 19
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> dict[int, list[tuple[str, str]]]:
    """The tests of each defect."""
    return {int(number): _TEST.findall(named) for number, _, named in _ROW.findall(PAGE.read_text())}


@cache
def functions_in(path: str) -> frozenset[str]:
    """The names of all functions, those in classes too."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_defect_has_its_row() -> None:
    assert list(rows()) == list(range(1, DEFECTS + 1))
    assert all(rows().values())
    assert PAGE.read_text().count("::") == sum(map(len, rows().values())), "one is not spelt as the others"


@pytest.mark.parametrize("number", range(1, DEFECTS + 1))
def test_its_tests_exist(number: int) -> None:
    for path, name in rows()[number]:
        assert name.startswith("test_")
        assert name in functions_in(path), f"{path} has no {name}"
