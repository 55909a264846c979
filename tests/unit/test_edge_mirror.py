"""Copies of config documents: never backwards, whatever arrives late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jetway.core.documents import Document
from jetway.edge.beat import Pulse, gone, payload
from jetway.edge.mirror import Applied, Mirror

OWN = "config.pollers.site-a.agents.core"
FILTER = "config.agents.core.checkers.*"
CHILD = "config.agents.core.checkers.ping"


def document(epoch: int, revision: int, **more: Any) -> bytes:
    return json.dumps(
        {"epoch": epoch, "revision": revision, "created_at": "2026-01-01T00:00:00.000Z", **more}
    ).encode()


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    made = Mirror(tmp_path / "config", OWN, FILTER)
    made.load()
    return made


def test_a_document_is_written_privately(mirror: Mirror) -> None:
    assert mirror.put(OWN, document(1, 1), 5) is Applied.WRITTEN
    assert mirror.path(OWN).read_bytes() == document(1, 1)
    assert mirror.path(OWN).stat().st_mode & 0o777 == 0o600
    assert mirror.own is not None and mirror.own["revision"] == 1


def test_what_no_disk_takes_counts_all_the_same_and_is_written_later(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.put(OWN, document(1, 1), 5)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("jetway.edge.mirror.write_file", full)
        with pytest.raises(OSError, match="No space"):
            mirror.put(OWN, document(1, 2, status="revoked"), 6)
    assert gone(mirror.own, deleted=mirror.own_deleted) == "revoked"
    assert mirror.put(OWN, document(1, 2, status="revoked"), 6) is Applied.WRITTEN
    assert mirror.path(OWN).read_bytes() == document(1, 2, status="revoked")


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ((1, 5), (1, 6), Applied.WRITTEN),
        ((1, 5), (1, 4), Applied.STALE),
        ((1, 5), (2, 1), Applied.WRITTEN),
        ((2, 1), (1, 9), Applied.STALE),
    ],
)
def test_epoch_and_revision_decide(
    mirror: Mirror, first: tuple[int, int], second: tuple[int, int], outcome: Applied
) -> None:
    mirror.put(OWN, document(*first), 10)
    assert mirror.put(OWN, document(*second), 11) is outcome


def test_at_the_same_revision_the_later_text_wins(mirror: Mirror) -> None:
    mirror.put(OWN, document(1, 5, children=[]), 10)
    newer = document(1, 5, children=[{"type": "checker", "id": "ping"}])
    assert mirror.put(OWN, newer, 12) is Applied.WRITTEN
    assert mirror.put(OWN, document(1, 5, children=[]), 10) is Applied.STALE
    assert mirror.put(OWN, newer, 12) is Applied.UNCHANGED


def test_a_late_answer_does_not_bring_back_what_was_deleted(mirror: Mirror) -> None:
    mirror.put(CHILD, document(1, 5), 10)
    assert mirror.remove(CHILD, 11) is Applied.REMOVED
    assert not mirror.path(CHILD).exists()
    assert mirror.put(CHILD, document(1, 5), 10) is Applied.STALE
    assert mirror.put(CHILD, document(1, 4), 9) is Applied.STALE


def test_a_late_marker_does_not_remove_what_came_after_it(mirror: Mirror) -> None:
    mirror.put(CHILD, document(1, 7), 12)
    assert mirror.remove(CHILD, 11) is Applied.STALE
    assert mirror.path(CHILD).exists()


@pytest.mark.parametrize(
    "again", [document(1, 6), document(2, 1), document(1, 1, created_at="2026-02-01T00:00:00.000Z")]
)
def test_a_service_created_anew_comes_back(mirror: Mirror, again: bytes) -> None:
    mirror.put(CHILD, document(1, 5), 10)
    mirror.remove(CHILD, 11)
    assert mirror.put(CHILD, again, 12) is Applied.WRITTEN


def test_created_anew_while_nobody_listened(mirror: Mirror) -> None:
    """Deleted, purged and created again: revision 1 once more, seen without the marker in between."""
    mirror.put(CHILD, document(1, 5), 10)
    mirror.begin()
    assert mirror.put(CHILD, document(1, 1, created_at="2026-02-01T00:00:00.000Z"), 3) is Applied.WRITTEN


def test_a_bucket_made_anew_counts_from_one(mirror: Mirror) -> None:
    mirror.put(OWN, document(1, 5), 1000)
    mirror.begin()
    assert mirror.put(OWN, document(1, 5, label="edited"), 2) is Applied.WRITTEN
    assert mirror.put(OWN, document(1, 4), 3) is Applied.STALE


def test_an_earlier_run_is_remembered(mirror: Mirror, tmp_path: Path) -> None:
    mirror.put(OWN, document(3, 5, status="active"), 1000)
    mirror.put(CHILD, document(3, 2), 1001)
    (tmp_path / "config" / ".tmp-x").write_text("half")
    (tmp_path / "config" / "config.agents.other.checkers.x.json").write_text("{}")
    (tmp_path / "config" / "config.agents.core.checkers.bad.json").write_text("{")
    again = Mirror(tmp_path / "config", OWN, FILTER)
    again.load()
    assert again.own is not None and again.own["status"] == "active"
    assert again.present_children() == {CHILD}
    assert again.put(OWN, document(3, 4), 1) is Applied.STALE
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == [f"{CHILD}.json", f"{OWN}.json"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "../x",
        "config.pollers.site-a",
        "config.agents.other.checkers.x",
        "config.agents.core.checkers.*",
        "config.agents.core.checkers.a.b",
        "config.agents.core.checkers.../../x",
    ],
)
def test_foreign_keys_never_become_files(mirror: Mirror, tmp_path: Path, key: str) -> None:
    assert mirror.put(key, document(1, 1), 1) is Applied.FOREIGN
    assert mirror.remove(key, 1) is Applied.FOREIGN
    assert list((tmp_path / "config").iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"x": "' + b"y" * (4 * 1024 * 1024) + b'"}'])
def test_what_is_no_document_changes_nothing(mirror: Mirror, data: bytes) -> None:
    mirror.put(OWN, document(1, 1), 1)
    assert mirror.put(OWN, data, 2) is Applied.MALFORMED
    assert mirror.path(OWN).read_bytes() == document(1, 1)


def test_a_checker_has_no_children(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "config", CHILD, "")
    mirror.load()
    mirror.put(CHILD, document(1, 1, children=[{"type": "x", "id": "y"}]), 1)
    assert mirror.listed_children() == set()
    assert not mirror.covers("config.agents.core.checkers.other")


def test_listed_children_are_keys_of_ids_alone(mirror: Mirror) -> None:
    mirror.put(OWN, document(1, 1, children=[{"id": "ping"}, {"id": "../x"}, {"id": 3}, "x", {}]), 1)
    assert mirror.listed_children() == {CHILD}


def test_memory_is_bounded(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetway.edge.mirror.KEYS_LIMIT", 2)
    mirror.put(OWN, document(1, 1), 1)
    mirror.remove(CHILD, 2)
    assert mirror.put("config.agents.core.checkers.third", document(1, 1), 3) is Applied.FULL
    assert mirror.remove("config.agents.core.checkers.fourth", 4) is Applied.FULL
    mirror.begin()
    assert mirror.put("config.agents.core.checkers.third", document(1, 1), 3) is Applied.WRITTEN


def test_the_own_documents_end_is_told_from_its_absence(mirror: Mirror) -> None:
    assert not mirror.own_deleted
    mirror.remove(OWN, 1)
    assert mirror.own_deleted and mirror.own is None
    mirror.begin()
    assert mirror.own_deleted
    mirror.put(OWN, document(1, 1), 2)
    assert not mirror.own_deleted


@pytest.mark.parametrize(
    ("document_", "deleted", "expected"),
    [(None, False, ""), (None, True, "deleted"), ({"status": "revoked"}, False, "revoked"),
     ({"status": "pending"}, False, ""), ({"status": 7}, False, "")],
)  # fmt: skip
def test_who_may_not_beat(document_: Document | None, deleted: bool, expected: str) -> None:
    assert gone(document_, deleted=deleted) == expected


def test_a_beat_says_what_the_contract_lists() -> None:
    from datetime import UTC, datetime

    moment = datetime(2026, 11, 23, 9, 10, 11, 123456, UTC)
    beat = json.loads(payload(moment, 15, {"revision": 7}, stopping=True))
    assert beat.pop("version")
    assert beat.pop("instance_id")
    assert beat == {
        "timestamp": "2026-11-23T09:10:11.123Z",
        "healthy": True,
        "interval_seconds": 15,
        "config_revision": 7,
        "stopping": True,
    }


def test_the_rhythm_is_the_documents_within_ten_per_cent() -> None:
    pulse = Pulse(30)
    pulse.learn({"heartbeat_interval_seconds": 100})
    assert (pulse.pause(lambda: 0.0), pulse.pause(lambda: 1.0)) == pytest.approx((90, 110))
    for nonsense in (None, {}, {"heartbeat_interval_seconds": 0}, {"heartbeat_interval_seconds": True}):
        pulse.learn(nonsense)
        assert pulse.interval == 100


def test_a_document_of_a_parent_of_thousands_is_taken(mirror: Mirror) -> None:
    """As large as a message can be: what the gateway can write must be read here."""
    children = [{"type": "checker", "id": f"{'c' * 50}{number:06}"} for number in range(40_000)]
    data = document(1, 1, children=children)
    assert 3 * 1024 * 1024 < len(data) < 4 * 1024 * 1024
    assert mirror.put(OWN, data, 5) is Applied.WRITTEN
    mirror.load()
    assert mirror.own is not None
