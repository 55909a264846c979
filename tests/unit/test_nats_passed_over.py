"""Which writes of the ledger the stream of events passed over, by what its entries name as their origin."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.passed_over import LedgerGaps
from jetway.adapters.nats.pull import Delivered


class Stream:
    """The stream of events, as the server tells of it; each entry's origin by its sequence."""

    def __init__(self) -> None:
        self.origins: dict[int, int] = {}
        self.first = 1

    async def call(self, _subject: str) -> Any:
        """Its state."""
        return {
            "created": "then",
            "state": {"first_seq": self.first, "last_seq": max(self.origins, default=0)},
        }


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def gaps(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> LedgerGaps:
    made = LedgerGaps(cast("JetStream", stream), Names())

    async def read_on(after: int, last: int) -> None:
        for sequence in range(after + 1, last + 1):
            headers = {"Nats-Stream-Source": f"KV_registry {stream.origins[sequence]} >"}
            made._take(Delivered("registry.events.x", b"", "", "", sequence, 0, 0, headers))

    monkeypatch.setattr(made, "_read_on", read_on)
    return made


async def test_what_is_missing_between_two_entries_was_passed_over(stream: Stream, gaps: LedgerGaps) -> None:
    stream.origins = {1: 1, 2: 2}
    assert (await gaps.look()).gaps == ()
    stream.origins |= {3: 6}
    assert (await gaps.look()).gaps == ((3, 5),)


async def test_what_aged_out_before_it_was_looked_at_was_not_passed_over(
    stream: Stream, gaps: LedgerGaps
) -> None:
    stream.origins = {1: 1, 2: 2}
    await gaps.look()
    stream.first, stream.origins = 11, {11: 11, 12: 12, 13: 15}
    assert (await gaps.look()).gaps == ((13, 14),)
