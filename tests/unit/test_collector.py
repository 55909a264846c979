"""What has come to stay is set aside, and only then."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from jetway.collector import _CHANGES, Collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The collector belongs to the whole process."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_records_are_set_aside_once_there_are_enough_of_them() -> None:
    gc.unfreeze()
    collector = Collector()
    for _ in range(_CHANGES - 1):
        collector.count()
    assert not collector.settle_if_due()
    assert gc.get_freeze_count() == 0
    collector.count(None, object())
    assert collector.settle_if_due()
    assert gc.get_freeze_count() > 1000
    assert not collector.settle_if_due(), "it begins to count anew"


def test_garbage_is_not_set_aside() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    gone = [0]

    def leave(_: object) -> None:
        gone[0] += 1

    reference = weakref.ref(Cycle(), leave)
    Collector().settle()
    assert (reference(), gone) == (None, [1])


def test_full_collections_become_rare() -> None:
    Collector().begin()
    young, middle, old = gc.get_threshold()
    assert young * middle * old > 1_000_000
