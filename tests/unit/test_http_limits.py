from __future__ import annotations

import pytest

from jetway.entry.http.limits import FailureLimiter, address_key, package_key
from support.builders import FakeClock


def limiter(per_minute: int = 3, table_size: int = 100) -> tuple[FailureLimiter, FakeClock]:
    clock = FakeClock()
    return FailureLimiter(clock, per_minute, table_size), clock


def fail(limits: FailureLimiter, key: str, times: int) -> None:
    for _ in range(times):
        limits.fail(key)


def test_a_stranger_does_not_wait() -> None:
    limits, _ = limiter()
    assert limits.wait("a") == 0
    assert len(limits) == 0, "asking alone leaves nothing behind"


def test_the_failure_after_the_last_one_waits_for_the_bucket_to_refill() -> None:
    limits, clock = limiter(per_minute=3)
    fail(limits, "a", 2)
    assert limits.wait("a") == 0
    limits.fail("a")
    assert limits.wait("a") == pytest.approx(20.0, abs=0.01)
    clock.advance(20)
    assert limits.wait("a") == 0
    limits.fail("a")
    assert limits.wait("a") > 19


def test_whoever_goes_on_failing_waits_longer_each_time_up_to_a_limit() -> None:
    limits, clock = limiter(per_minute=30)
    fail(limits, "a", 30)
    waits = []
    for _ in range(12):
        waits.append(round(limits.wait("a")))
        clock.advance(limits.wait("a"))
        assert limits.wait("a") == 0
        limits.fail("a")
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]


def test_failures_during_a_wait_do_not_make_it_longer() -> None:
    limits, clock = limiter(per_minute=3)
    fail(limits, "a", 100)
    assert limits.wait("a") == pytest.approx(20.0, abs=0.01)
    clock.advance(20)
    fail(limits, "a", 100)
    assert limits.wait("a") == pytest.approx(40.0, abs=0.01)


def test_a_bucket_that_is_full_again_forgets_all() -> None:
    limits, clock = limiter(per_minute=30)
    for _ in range(30 + 5):
        limits.fail("a")
        clock.advance(limits.wait("a"))
    clock.advance(60)
    fail(limits, "a", 29)
    assert limits.wait("a") == 0
    limits.fail("a")
    assert limits.wait("a") == pytest.approx(2.0, abs=0.01)


def test_half_a_minutes_peace_gives_back_half_but_forgets_nothing() -> None:
    limits, clock = limiter(per_minute=30)
    fail(limits, "a", 30)
    clock.advance(2 + 30)
    fail(limits, "a", 15)
    assert limits.wait("a") == 0
    limits.fail("a")
    assert limits.wait("a") == pytest.approx(4.0, abs=0.01)


def test_a_long_pause_gives_back_all_but_no_more() -> None:
    limits, clock = limiter(per_minute=3)
    fail(limits, "a", 3)
    clock.advance(3600)
    fail(limits, "a", 3)
    assert limits.wait("a") > 0


def test_one_key_does_not_slow_another() -> None:
    limits, _ = limiter(per_minute=1)
    limits.fail("a")
    assert limits.wait("a") > 0
    assert limits.wait("b") == 0


def test_the_table_is_bounded_and_forgets_the_longest_unseen() -> None:
    limits, _ = limiter(per_minute=1, table_size=2)
    for key in ("a", "b", "a", "c"):
        limits.fail(key)
    assert len(limits) == 2
    assert limits.wait("a") > 0
    assert limits.wait("b") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "not an address", False),
    ],
)
def test_an_ipv6_client_is_its_network(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


def test_packages_and_addresses_have_keys_of_their_own() -> None:
    assert package_key("192.0.2.1") != address_key("192.0.2.1")
