"""How documents and rows differ from what the ledger says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jetway.core.documents import Document, encode_document, render
from jetway.core.drift import Drift, document_drift, is_ours, package_drift, row_drift, stored_document
from jetway.core.ids import ServiceKey, ServiceType, document_key, document_owner
from support.builders import AGENT, LINEAGES, NOW, record
from support.database_rows import agent_row, checker_row, package_row, poller_row

RECORD = record(ServiceType.CHECKER, checker_config={"host": "192.0.2.1"}, incarnation=2)


def document(**changes: Any) -> Document:
    return {**render(RECORD, [], default_interval=30), **changes}


def drift(stored: bytes | None) -> Drift | None:
    wanted = render(RECORD, [], default_interval=30, stored=stored_document(stored, RECORD))
    return document_drift(stored, wanted, RECORD)


def test_a_document_as_it_was_written_is_right() -> None:
    assert drift(encode_document(document())) is None


def test_layout_and_order_do_not_count() -> None:
    assert drift(json.dumps(dict(reversed(document().items()))).encode()) is None


def test_a_checker_config_changed_by_a_person_is_right() -> None:
    assert drift(encode_document(document(checker_config={"host": "192.0.2.2"}))) is None


def test_a_config_that_an_earlier_incarnation_left_is_not() -> None:
    left = document(checker_config={"host": "192.0.2.2"}, incarnation=1, revision=2)
    assert drift(encode_document(left)) is Drift.DOCUMENT_STALE


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, Drift.DOCUMENT_MISSING),
        (b"not JSON", Drift.DOCUMENT_CHANGED),
        (b"{}", Drift.DOCUMENT_STALE),
        (encode_document(document(revision=2)), Drift.DOCUMENT_STALE),
        (encode_document(document(status="active")), Drift.DOCUMENT_CHANGED),
        (encode_document(document(revision=999)), Drift.DOCUMENT_CHANGED),
        (encode_document(document(further="field")), Drift.DOCUMENT_CHANGED),
        (encode_document(document(revision=True)), Drift.DOCUMENT_STALE),
    ],
)
def test_anything_else_is_drift(stored: bytes | None, expected: Drift) -> None:
    assert drift(stored) is expected


def test_only_what_a_gateway_wrote_for_the_service_is_ours() -> None:
    owner = RECORD.key
    assert is_ours(encode_document(document()), owner)
    assert not is_ours(encode_document(document()), ServiceKey(ServiceType.CHECKER, "other"))
    for foreign in (b"{}", b"[]", b"text", encode_document(document(revision="1"))):
        assert not is_ours(foreign, owner)
    unmarked = document()
    del unmarked["checker_config_generated_sha256"]
    assert not is_ours(encode_document(unmarked), owner)


@pytest.mark.parametrize("lineage", LINEAGES.values(), ids=lambda lineage: lineage.service_type.value)
def test_a_documents_owner_is_read_from_its_key(lineage: Any) -> None:
    assert document_owner(document_key(lineage)) == lineage.key


@pytest.mark.parametrize(
    "path",
    [
        "templates/checkers/snmp.json",
        "config/pollers/p1",
        "config/pollers/P1.json",
        "config/pollers/p1/agents.json",
        "config/pollers/p1/checkers/c1.json",
        "config/agents/a1.json",
        "config/pollers//agents/a1.json",
        "config/pollers/p1.json/",
        "config/pollers/p1\n.json",
        "",
    ],
)
def test_other_keys_have_no_owner(path: str) -> None:
    assert document_owner(path) is None


@pytest.mark.parametrize("row", [poller_row(), agent_row(), checker_row()], ids=lambda row: row.service_type)
def test_what_heartbeats_tell_is_no_drift(row: Any) -> None:
    heard = replace(row, last_seen=NOW + timedelta(1), is_healthy=None, version="9")
    assert row_drift(heard, row) is None


def test_what_a_table_has_no_column_for_is_no_drift() -> None:
    assert row_drift(agent_row(), agent_row(checker_kind="snmp", agent_count=4)) is None
    assert row_drift(checker_row(), checker_row(agent_count=1, checker_count=1)) is None


def test_rows_that_differ_are_told_apart() -> None:
    row = agent_row()
    assert row_drift(None, row) is Drift.ROW_MISSING
    assert row_drift(replace(row, revision=2, status="pending"), row) is Drift.ROW_STALE
    assert row_drift(replace(row, label="by hand"), row) is Drift.ROW_CHANGED
    assert row_drift(replace(row, revision=999), row) is Drift.ROW_CHANGED
    assert row_drift(replace(row, checker_count=0), row) is Drift.ROW_CHANGED


def test_a_packages_row_is_right_or_not() -> None:
    assert package_drift(package_row(), package_row()) is None
    assert package_drift(None, package_row()) is Drift.PACKAGE_ROW
    assert package_drift(package_row(status="issued"), package_row()) is Drift.PACKAGE_ROW


def test_an_agents_key_reads_as_it_is_written() -> None:
    assert document_owner("config/pollers/p1/agents/a1.json") == AGENT
