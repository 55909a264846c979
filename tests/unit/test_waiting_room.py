"""The quarantine's room, in any order of coming and going: what is counted is what waits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jetway.core.ids import ServiceType
from jetway.core.record import Approval
from jetway.services.waiting_room import FULL, SHARE_USED, RoomTerms, WaitingRoom
from support.builders import record

SENDERS = ("p1", "p2", "p3")
STEPS = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(SENDERS), st.booleans()), max_size=60)


@given(steps=STEPS)
def test_what_is_counted_is_what_waits(steps: list[tuple[int, str, bool]]) -> None:
    room = WaitingRoom(RoomTerms(limit=5, per_sender=2, proven=True))
    waiting: dict[str, str] = {}
    for number, poller, comes in steps:
        name = f"{poller}-{number}"
        made = replace(
            record(ServiceType.AGENT),
            service_id=name,
            poller_id=poller,
            approval=Approval.REQUIRED if comes else Approval.GRANTED,
        )
        room.follow(made)
        waiting.pop(name, None)
        if comes:
            waiting[name] = poller
        for each in SENDERS:
            full = len(waiting) >= 5
            used = list(waiting.values()).count(each) >= 2
            expected = FULL if full else SHARE_USED if used else None
            assert room.why_not(room.sender(each, "192.0.2.1")) is expected


def test_who_is_being_written_counts_and_leaves_nothing_behind() -> None:
    room = WaitingRoom(RoomTerms(limit=5, per_sender=1, proven=False))
    sender = room.sender("p1", "192.0.2.1")
    assert sender != room.sender("p1", "192.0.2.2")
    assert room.sender("p1", "") != room.sender("p2", "")
    with room.entering(sender):
        assert room.why_not(sender) is SHARE_USED
    assert room.why_not(sender) is None
    assert not room._entering
