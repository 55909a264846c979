"""Which of a row's versions wins: never an older revision, always the last rewrite, whoever wrote it when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from jetway.adapters.database.proton_streams import milliseconds
from jetway.adapters.database.proton_versions import RowVersions
from jetway.core.gaps import Version

START = datetime(2026, 11, 23, 9, 0, 0, tzinfo=UTC)
NAME = ("agents", "a")


@dataclass
class _Clock:
    seconds: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class _Writer:
    """A daemon with a memory of its own."""

    def __init__(self, clock: _Clock) -> None:
        self.rows = RowVersions(clock)

    def write(self, version: Version, made_at: datetime = START, *, overwrite: bool = False) -> int | None:
        found = self.rows.place(NAME, version, made_at, overwrite=overwrite)
        return found[0] if found else None


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def writer(clock: _Clock) -> _Writer:
    return _Writer(clock)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_the_first_write_of_a_revision_has_the_time_at_which_it_was_made(
    writer: _Writer, clock: _Clock
) -> None:
    clock.seconds = 500
    assert writer.write((1, 3)) == milliseconds(START)


def test_another_daemon_gives_the_same_revision_the_same_time(clock: _Clock) -> None:
    assert _Writer(clock).write((1, 3)) == _Writer(_Clock(99)).write((1, 3))


def test_rewrites_go_forward_even_within_one_millisecond(writer: _Writer) -> None:
    times = [writer.write((1, 3)) for _ in range(100)]
    assert times == sorted(set(times))  # type: ignore[type-var]


def test_rewrites_go_forward_while_the_wall_clock_goes_back(writer: _Writer, clock: _Clock) -> None:
    times = []
    for seconds in (1000.0, 10.0, -4000.0):
        clock.seconds = seconds
        times.append(writer.write((1, 3)))
    assert times == sorted(set(times))  # type: ignore[type-var]


def test_an_older_revision_is_passed_over(writer: _Writer) -> None:
    writer.write((1, 3), _at(3))
    assert writer.write((1, 2), _at(2)) is None
    assert writer.write((0, 9), _at(9)) is None


def test_a_newer_revision_wins_though_made_in_the_same_millisecond_or_before(writer: _Writer) -> None:
    first = writer.write((1, 3), _at(3))
    second = writer.write((1, 4), _at(3))
    third = writer.write((1, 5), _at(-500))
    assert first is not None and second is not None and third is not None
    assert first < second < third


def test_a_newer_epoch_wins_over_a_later_time(writer: _Writer) -> None:
    before = writer.write((1, 9), _at(900))
    after = writer.write((2, 7), _at(700))
    assert before is not None and after is not None and after > before


def test_an_overwrite_wins_whatever_is_there(writer: _Writer) -> None:
    before = writer.write((1, 999), _at(900))
    after = writer.write((1, 3), _at(3), overwrite=True)
    assert before is not None and after is not None and after > before
    assert writer.write((1, 2)) is None, "from here on the overwritten version counts"


def test_a_stranger_that_comes_late_with_an_older_revision_loses(clock: _Clock) -> None:
    """One that knows nothing of the newer one writes it minutes afterwards, for the first time and again."""
    newer = _Writer(clock).write((1, 4), _at(10))
    clock.seconds = 600
    late = _Writer(clock)
    assert newer is not None
    for _ in range(5):
        time = late.write((1, 3), _at(0))
        assert time is not None and time < newer


def test_a_year_of_rewrites_every_minute_stays_within_minutes_of_the_revision(clock: _Clock) -> None:
    """However long a revision stands, the next one is far ahead of its rewrites."""
    writer = _Writer(clock)
    time = None
    for minute in range(365 * 24 * 60):
        clock.seconds = minute * 60
        time = writer.write((1, 3))
    assert time is not None and time - milliseconds(START) < 10 * 60_000


def test_a_rewrite_after_a_restart_wins_over_those_that_do_not_show_yet(clock: _Clock) -> None:
    before = _Writer(clock)
    before.write((1, 3))
    clock.seconds = 60
    unseen = [before.write((1, 3)) for _ in range(3)][-1]
    clock.seconds = 63
    after = _Writer(clock)
    after.rows.learn(NAME, (1, 3), milliseconds(START))  # what the table still shows
    time = after.write((1, 3))
    assert unseen is not None and time is not None and time > unseen


def test_what_the_table_holds_counts_only_where_nothing_was_written_from_here(writer: _Writer) -> None:
    writer.write((1, 5), _at(5))
    writer.rows.learn(NAME, (1, 2), milliseconds(START))
    assert writer.write((1, 4), _at(4)) is None


def test_the_table_is_asked_again_after_a_while(writer: _Writer, clock: _Clock) -> None:
    assert list(writer.rows.find_unknown([NAME])) == [NAME]
    writer.write((1, 3))
    clock.seconds = 119
    assert list(writer.rows.find_unknown([NAME])) == []
    writer.write((1, 3))
    clock.seconds = 238
    assert list(writer.rows.find_unknown([NAME])) == []
    clock.seconds = 240
    assert list(writer.rows.find_unknown([NAME])) == [NAME]


class TestTakenBack:
    def test_an_older_one_may_follow_one_that_was_not_stored(self, writer: _Writer) -> None:
        writer.write((1, 3), _at(3))
        found = writer.rows.place(NAME, (1, 5), _at(5), overwrite=False)
        assert found is not None
        writer.rows.take_back([found[1]])
        time = writer.write((1, 4), _at(4))
        assert time is not None and time > found[0], "its time may be taken after all"

    def test_what_was_written_meanwhile_stands(self, writer: _Writer) -> None:
        found = writer.rows.place(NAME, (1, 5), _at(5), overwrite=False)
        writer.write((1, 6), _at(6))
        assert found is not None
        writer.rows.take_back([found[1]])
        assert writer.write((1, 5), _at(5)) is None


def test_in_an_adopted_stream_a_row_has_the_present_time(clock: _Clock) -> None:
    clock.seconds = 500
    rows = RowVersions(clock)
    times = [rows.place(NAME, (1, revision), None, overwrite=False) for revision in (3, 3, 4)]
    assert [time for time, _ in filter(None, times)] == [milliseconds(_at(500)) + n for n in range(3)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_arrives_in_whatever_order_the_newest_is_shown(seed: int) -> None:
    """Two daemons render revisions as they know them; writes arrive shuffled. The highest time is shown."""
    rng = random.Random(seed)
    clock = _Clock()
    writers = [_Writer(clock), _Writer(clock)]
    made: list[datetime] = []
    written: list[tuple[int, int]] = []
    for revision in range(1, 30):
        clock.seconds += rng.uniform(0.2, 90)
        made.append(clock.now())
        for _ in range(rng.randrange(1, 5)):
            clock.seconds += rng.uniform(0, 0.1)
            behind = rng.randrange(0, min(3, revision))
            time = rng.choice(writers).write((1, revision - behind), made[revision - behind - 1])
            if time is not None:
                written.append((time, revision - behind))
        writers[0].write((1, revision), made[-1])
        written.append((writers[0].write((1, revision), made[-1]) or 0, revision))
        rng.shuffle(written)
        assert max(written)[1] == revision


def test_times_that_no_stream_can_hold_are_refused() -> None:
    for year in (1899, 2299):
        with pytest.raises(ValueError, match="from 1900 to 2298"):
            milliseconds(datetime(year, 1, 1, tzinfo=UTC))
    assert milliseconds(datetime(1970, 1, 1, 0, 0, 1, 2999, tzinfo=UTC)) == 1002
