"""Which revisions the audit trail lacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from jetway.core.gaps import EventSpan, Version, find_gaps, may_have_gaps
from jetway.core.record import ServiceRecord
from support.builders import DAY, EPOCH, NOW, record, transition

SINCE = NOW - 90 * DAY
OLD = SINCE - DAY


def at_revision(number: int, *, epoch: int = EPOCH, at: datetime = NOW, **changes: object) -> ServiceRecord:
    return record(revision=number, epoch=epoch, transition=transition(at=at), **changes)


def span(first: int, last: int, *, epoch: int = EPOCH, count: int | None = None) -> EventSpan:
    return EventSpan(epoch, last - first + 1 if count is None else count, first, last)


def present(*revisions: int, epoch: int = EPOCH, at: datetime = NOW) -> dict[Version, datetime]:
    return {(epoch, revision): at for revision in revisions}


def missing(
    newest: ServiceRecord, there: dict[Version, datetime], history: Sequence[ServiceRecord] = ()
) -> list[int]:
    return [gap.revision for gap in find_gaps(newest, there, history, SINCE)]


class TestSums:
    def test_all_revisions_from_the_first_to_the_newest_are_whole(self) -> None:
        assert not may_have_gaps(at_revision(3), [span(1, 3)], SINCE)

    @pytest.mark.parametrize(
        "spans",
        [
            [],
            [span(1, 2)],
            [span(2, 3)],
            [span(1, 3, count=2)],
            [span(1, 3, epoch=EPOCH - 1)],
            [span(1, 1, epoch=EPOCH - 1), span(3, 3)],
        ],
        ids=["none", "the newest", "the first", "one between", "of this epoch", "between epochs"],
    )
    def test_what_does_not_add_up_is_worth_a_look(self, spans: list[EventSpan]) -> None:
        assert may_have_gaps(at_revision(3), spans, SINCE)

    def test_epochs_that_follow_each_other_are_whole(self) -> None:
        spans = [span(1, 2, epoch=EPOCH - 1), span(3, 3)]
        assert not may_have_gaps(at_revision(3), spans, SINCE)

    def test_epochs_that_overlap_after_a_restore_are_worth_a_look(self) -> None:
        spans = [span(1, 3, epoch=EPOCH - 1), span(3, 4)]
        assert may_have_gaps(at_revision(4), spans, SINCE)

    def test_what_is_older_than_the_trail_is_kept_does_not_count(self) -> None:
        assert not may_have_gaps(at_revision(3, at=OLD), [], SINCE)
        assert not may_have_gaps(at_revision(3, first_registered=OLD), [span(2, 3)], SINCE)

    def test_a_later_incarnation_without_its_first_entries_is_worth_a_look(self) -> None:
        assert may_have_gaps(at_revision(3, incarnation=2), [span(2, 3)], SINCE)
        assert not may_have_gaps(at_revision(3, incarnation=2), [span(1, 3)], SINCE)


class TestRevisions:
    def test_nothing_is_missing_where_all_are_there(self) -> None:
        assert missing(at_revision(3), present(1, 2, 3)) == []

    def test_the_missing_ones_are_named_in_order(self) -> None:
        assert missing(at_revision(6), present(1, 3, 5)) == [2, 4, 6]

    def test_a_trail_without_any_lacks_them_all(self) -> None:
        assert missing(at_revision(3), {}) == [1, 2, 3]

    def test_before_the_first_that_is_kept_nothing_is_missing(self) -> None:
        assert missing(at_revision(5, first_registered=OLD), present(3, 5)) == [4]

    def test_of_a_later_incarnation_the_first_one_kept_begins(self) -> None:
        assert missing(at_revision(5, incarnation=2), present(4, 5)) == []

    def test_the_history_shows_what_is_missing_before_the_first(self) -> None:
        history = [at_revision(2), at_revision(3)]
        assert missing(at_revision(4, first_registered=OLD), present(4), history) == [2, 3]
        assert missing(at_revision(4, incarnation=2), present(4), history) == [2, 3]

    def test_what_had_aged_out_anyway_is_not_missing(self) -> None:
        history = [at_revision(1, at=OLD), at_revision(2, at=OLD), at_revision(3)]
        there = present(1, at=OLD) | present(3, 4)
        assert missing(at_revision(4, first_registered=OLD), there, history) == []

    def test_an_unknown_one_before_an_aged_one_is_not_missing(self) -> None:
        there = present(1, 3, at=OLD) | present(4)
        assert missing(at_revision(4, first_registered=OLD), there) == []

    def test_the_same_revision_of_an_abandoned_epoch_does_not_stand_in(self) -> None:
        there = present(1, 2, 3, 4, epoch=EPOCH - 1) | present(4)
        history = [at_revision(1, epoch=EPOCH - 1), at_revision(2, epoch=EPOCH - 1), at_revision(3)]
        assert missing(at_revision(4), there, history) == [3]

    def test_a_revision_that_makes_no_entry_lacks_none(self) -> None:
        silent = record(revision=2, transition=transition(at=NOW, events=()))
        assert missing(at_revision(3), present(1, 3), [silent]) == []

    def test_a_gap_brings_what_it_can_be_mended_from(self) -> None:
        history = [at_revision(2)]
        gaps = find_gaps(at_revision(4), present(4), history, SINCE)
        assert [(gap.revision, gap.source) for gap in gaps] == [(1, None), (2, history[0]), (3, None)]

    def test_the_newest_can_always_be_mended(self) -> None:
        newest = at_revision(2)
        (gap,) = find_gaps(newest, present(1), [], SINCE)
        assert gap.source is newest

    def test_a_clock_that_went_back_makes_no_gap(self) -> None:
        there = present(1, 2) | {(EPOCH, 3): NOW - timedelta(hours=1)}
        assert missing(at_revision(3, at=NOW - timedelta(hours=1)), there) == []
