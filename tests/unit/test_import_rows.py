"""What an import reads: rows with their places, and what is wrong with a row or with the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jetway.cli.errors import CommandError
from jetway.cli.import_rows import COLUMNS, SourceRow, read_rows
from jetway.entry.http.imports import ImportRow

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"


def rows(tmp_path: Path, text: str | bytes, form: str = "csv") -> list[SourceRow]:
    file = tmp_path / f"rows.{form}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(file)


def test_the_columns_are_the_fields_of_the_api() -> None:
    assert set(COLUMNS) == set(ImportRow.model_fields)


def test_both_samples_say_the_same() -> None:
    read = {name: read_rows(SAMPLES / name) for name in ("services.csv", "services.json")}
    assert all(row.problem is None for found in read.values() for row in found)
    parsed = {
        name: sorted(
            (ImportRow.model_validate(dict(row.fields)) for row in found), key=lambda row: row.service_id
        )
        for name, found in read.items()
    }
    assert parsed["services.csv"] == parsed["services.json"]
    assert len(parsed["services.csv"]) == 4


def test_a_row_is_known_by_the_line_that_it_begins_on(tmp_path: Path) -> None:
    text = 'service_type,service_id,label\npoller,a,"two\nlines"\n\npoller,b,x\n'
    assert [(row.place, row.fields["service_id"]) for row in rows(tmp_path, text)] == [
        ("line 2", "a"),
        ("line 5", "b"),
    ]
    listed = '[\n{"service_id": "a"},\n\n{"service_id":\n "b"}]\n'
    assert [row.place for row in rows(tmp_path, listed, "json")] == ["line 2", "line 4"]
    assert [row.place for row in rows(tmp_path, '{"a": 1}\n{"b": 2}\n', "jsonl")] == ["line 1", "line 2"]


def test_empty_cells_are_not_said_and_objects_are_taken_apart(tmp_path: Path) -> None:
    text = '\ufeffservice_type,service_id,labels,metadata,site\npoller,a,rack=12; row=b ,"{""n"": 1}",\n'
    (row,) = rows(tmp_path, text)
    assert row.fields == {
        "service_type": "poller",
        "service_id": "a",
        "labels": {"rack": "12", "row": "b"},
        "metadata": {"n": 1},
    }


@pytest.mark.parametrize(
    ("cells", "field", "why"),
    [
        ("poller,p,,soon", "heartbeat_interval_seconds", "whole number"),
        ("poller,p,,-1", "heartbeat_interval_seconds", "whole number"),
        ("poller,p,{,", "labels", "JSON object"),
        ("poller,p,x,", "labels", "key=value"),
        ("poller,p,a=1;a=2,", "labels", "once"),
        ('poller,p,"{""a"": ""1"", ""a"": ""2""}",', "labels", "twice"),
        ("poller,p", "", "2 cells, the header 4"),
        ("poller,p,,,,", "", "6 cells, the header 4"),
        (b"poller,p,a=\xff,", "labels", "not UTF-8"),
        (b"poller,\xc3\x28,,", "service_id", "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_row_names_its_field(
    tmp_path: Path, cells: str | bytes, field: str, why: str
) -> None:
    data = cells if isinstance(cells, bytes) else cells.encode()
    head = b"service_type,service_id,labels,heartbeat_interval_seconds\n"
    good, bad = rows(tmp_path, head + b"poller,good,,30\n" + data + b"\n")
    assert good.problem is None
    assert (bad.place, bad.problem and bad.problem.field) == ("line 3", field)
    assert bad.problem is not None
    assert why in bad.problem.why


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("service_type,service_id,colour\n", "csv", "line 1: there is no column 'colour'"),
        ("service_type,service_id,label,label\n", "csv", "line 1: the column label is there twice"),
        ("service_type,label\n", "csv", "line 1: the column service_id is missing"),
        ("", "csv", "line 1: the column service_type is missing"),
        ('service_type,service_id\npoller,"a\n', "csv", "line 2: unexpected end"),
        ('[{"a": 1},\n {"b" 2}]', "json", "line 2: it is not JSON"),
        ('[{"a": 1}', "json", "line 1: it is not JSON"),
        ('[{"a": 1}] x', "json", "something follows"),
        ('{"a": 1, "a": 2}', "json", "line 1: it is not JSON: the key 'a' is there twice"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_as_a_whole(
    tmp_path: Path, text: str, form: str, says: str
) -> None:
    with pytest.raises(CommandError, match=says):
        rows(tmp_path, text, form)


def test_json_rows_that_are_no_services(tmp_path: Path) -> None:
    found = rows(tmp_path, '[1, {"colour": "red"}, {"service_id": "\\ud800"}]', "json")
    assert [row.problem and (row.problem.field, row.problem.why[:20]) for row in found] == [
        ("", "must be an object wi"),
        ("colour", "there is no such fie"),
        ("service_id", "is not UTF-8"),
    ]


def test_a_file_of_an_unknown_kind_or_none(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--format"):
        read_rows(tmp_path / "rows.xlsx")
    with pytest.raises(CommandError, match="cannot be read"):
        read_rows(tmp_path / "rows.csv")


def test_wrong_types_in_json_are_the_apis_to_tell() -> None:
    with pytest.raises(ValidationError):
        ImportRow.model_validate({"service_type": "poller", "service_id": 5})
