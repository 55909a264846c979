"""Failures, limited: whoever fails too often has to wait, longer each time; whoever succeeds is never slowed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from jetway.ports import Clock

_TABLE_SIZE = 20_000
"""Keys remembered. A stranger can make up addresses (IPv6) and so drive others out; that costs him more than
it gains, since what is protected is load, not a secret that could be guessed."""

_LONGEST_SECONDS = 300.0
"""Between two failures that are looked at. Longer would lock people out who only mistyped."""

_ROUNDING = 1e-6
"""Keeps a sum of fractions from ending just below a whole failure, and the caller waiting once more."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    left: float
    """Failures left, at the monotonic time `since`, from when on it fills up again."""
    since: float
    strikes: int
    """How often it was emptied since it was full."""


class FailureLimiter:
    """For each key a bucket of `per_minute` failures, which refills evenly over a minute.

    Whoever empties it waits for one failure's refill, then twice that, and so on; the wait itself refills nothing.
    A bucket that is full again forgets all.
    """

    def __init__(self, clock: Clock, per_minute: int, table_size: int = _TABLE_SIZE) -> None:
        self._clock = clock
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60.0
        self._table_size = table_size
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: str) -> float:
        """Seconds until another failure of this key would be looked at; 0 if now."""
        bucket = self._buckets.get(key)
        left = 0.0 if bucket is None else bucket.since - self._clock.monotonic()
        return left if left > _ROUNDING else 0.0

    def fail(self, key: str) -> None:
        """Note a failure of this key."""
        self._buckets[key] = self._after_failure(self._buckets.get(key))
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._table_size:
            self._buckets.popitem(last=False)

    def _after_failure(self, bucket: _Bucket | None) -> _Bucket:
        now = self._clock.monotonic()
        if bucket is not None and now + _ROUNDING < bucket.since:
            return bucket  # two came at one time: the second does not make the wait longer
        left = self._left(bucket, now)
        strikes = 0 if bucket is None or left >= self._capacity else bucket.strikes
        if left - 1.0 >= 1.0 - _ROUNDING:
            return _Bucket(left - 1.0, now, strikes)
        pause = min(2.0 ** min(strikes, 60) / self._per_second, _LONGEST_SECONDS)
        return _Bucket(1.0, now + pause, strikes + 1)

    def _left(self, bucket: _Bucket | None, now: float) -> float:
        if bucket is None:
            return self._capacity
        return min(self._capacity, bucket.left + (now - bucket.since) * self._per_second)


def address_key(address: str) -> str:
    """The key of a client address: an IPv6 client owns a whole /64, so that is what is counted."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return f"address:{parsed}"


def package_key(package_id: str) -> str:
    """The key of a package."""
    return f"package:{package_id}"
