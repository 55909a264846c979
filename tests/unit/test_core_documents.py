"""Config documents: what they say, what a person's edit survives, and what cannot poison them."""

from __future__ import annotations

import json

import pytest

from jetway.core import documents as doc
from jetway.core.ids import ServiceKey, ServiceType
from jetway.core.record import ServiceStatus
from support.builders import EPOCH, record

CHECKER = ServiceType.CHECKER
FIELDS = [
    "component_id",
    "component_type",
    "status",
    "label",
    "parent_id",
    "parent_type",
    "poller_id",
    "site",
    "labels",
    "metadata",
    "checker_kind",
    "checker_config",
    "spiffe_id",
    "heartbeat_interval_seconds",
    "children",
    "created_by",
    "created_at",
    "updated_at",
    "epoch",
    "revision",
    "incarnation",
    "checker_config_generated_sha256",
]


def render(stored: doc.Document | None = None, **changes: object) -> doc.Document:
    return doc.render(
        record(CHECKER, checker_config={"port": 161}, **changes), [], default_interval=30, stored=stored
    )


def test_a_document_has_the_contracts_fields_in_the_contracts_order() -> None:
    document = render(heartbeat_interval_seconds=5, labels={"rack": "12"}, metadata={"owner": "x"})
    assert list(document) == FIELDS
    assert document | {"checker_config_generated_sha256": ""} == {
        "component_id": "c1",
        "component_type": "checker",
        "status": "pending",
        "label": "The checker",
        "parent_id": "a1",
        "parent_type": "agent",
        "poller_id": "p1",
        "site": "A",
        "labels": {"rack": "12"},
        "metadata": {"owner": "x"},
        "checker_kind": "snmp",
        "checker_config": {"port": 161},
        "spiffe_id": "",
        "heartbeat_interval_seconds": 5,
        "children": [],
        "created_by": "alice",
        "created_at": "2026-03-03T05:06:07.890Z",
        "updated_at": "2026-03-03T05:06:07.890Z",
        "epoch": EPOCH,
        "revision": 3,
        "incarnation": 1,
        "checker_config_generated_sha256": "",
    }


def test_the_default_interval_stands_in_where_a_service_names_none() -> None:
    assert render()["heartbeat_interval_seconds"] == 30


def test_children_are_sorted_whatever_order_they_come_in() -> None:
    keys = [ServiceKey(ServiceType.AGENT, name) for name in ("b", "a", "c")]
    document = doc.render(record(ServiceType.POLLER), keys, default_interval=30)
    assert document["children"] == [{"type": "agent", "id": name} for name in "abc"]
    assert document["parent_type"] == ""


@pytest.mark.parametrize("status", list(ServiceStatus))
def test_every_service_has_a_document_until_it_is_deleted(status: ServiceStatus) -> None:
    assert doc.has_document(record(status=status)) is (status is not ServiceStatus.DELETED)


def test_the_hash_is_that_of_the_canonical_config() -> None:
    assert doc.config_hash({"b": 1, "a": [2, "ü"]}) == doc.config_hash({"a": [2, "ü"], "b": 1})
    assert doc.config_hash({"a": 1}) != doc.config_hash({"a": 2})
    assert doc.config_hash({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_a_generated_config_is_not_edited_and_follows_the_record() -> None:
    stored = render()
    assert not doc.edited_by_hand(stored)
    newer = doc.render(record(CHECKER, checker_config={"port": 162}), [], default_interval=30, stored=stored)
    assert newer["checker_config"] == {"port": 162}


def test_an_existing_checker_config_that_a_person_changed_is_never_overwritten() -> None:
    edited = render() | {"checker_config": {"port": 1161}}
    assert doc.edited_by_hand(edited)
    again = render(edited)
    assert again["checker_config"] == {"port": 1161}
    assert doc.edited_by_hand(again), "it stays marked as edited"


def test_any_other_field_changed_by_hand_is_mended() -> None:
    assert render(
        render() | {"status": "active", "label": "mine", "children": [{"type": "agent", "id": "x"}]}
    ) == (render())


@pytest.mark.parametrize(
    "stored", [{}, {doc.GENERATED_HASH: None}, {doc.GENERATED_HASH: 3}, {"checker_config": 1}]
)
def test_without_a_generated_hash_nothing_counts_as_edited(stored: doc.Document) -> None:
    assert not doc.edited_by_hand(stored)
    assert render(stored)["checker_config"] == {"port": 161}


@pytest.mark.parametrize(
    ("stored", "version"),
    [
        ({"epoch": 2, "revision": 9}, (2, 9)),
        ({"epoch": "2", "revision": 9}, (0, 0)),
        ({"revision": 9}, (0, 0)),
        ({"epoch": 2, "revision": None}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_a_stored_version_is_two_numbers_or_older_than_any(
    stored: doc.Document, version: tuple[int, int]
) -> None:
    assert doc.version_of(stored) == version


def test_edits_do_not_carry_over_to_a_new_incarnation() -> None:
    stored = render()
    assert doc.belongs_to_older_incarnation(stored, record(CHECKER, incarnation=2))
    assert not doc.belongs_to_older_incarnation(stored, record(CHECKER, incarnation=1))
    assert not doc.belongs_to_older_incarnation({}, record(CHECKER, incarnation=2))


def test_a_document_reads_back() -> None:
    document = render(label="Zürich “core”")
    assert doc.decode_document(doc.encode_document(document)) == document
    assert json.loads(doc.encode_document(document)) == document


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": {"b": 1e999}}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_document_is_none(data: bytes) -> None:
    """Whatever somebody puts into the bucket, the worker that mends documents does not stumble over it."""
    assert doc.decode_document(data) is None


@pytest.mark.parametrize("depth", [1, 50, 150])
def test_whatever_is_read_can_be_compared_and_written_again(depth: int) -> None:
    data = b'{"checker_config_generated_sha256": "x", "checker_config": ' + b"[" * depth + b"]" * depth + b"}"
    stored = doc.decode_document(data)
    assert stored is not None
    assert doc.edited_by_hand(stored)
    assert doc.decode_document(doc.encode_document(render(stored))) == render(stored)
