"""A stand-in for a Timeplus Proton server: its native protocol on a loopback port, chDB behind it.

No package ships a Proton server, so the tests run the real driver against this. What is known of Proton 1.6.1
and matters to a client is modelled, and what is not modelled is refused rather than guessed:

- a keyed stream (`mode='versioned_kv'`) reads as one row per key: the highest version, of equal ones the later;
- a write replaces the whole row, columns left out take their DEFAULT, `_tp_time` the time of the block;
- a write is acknowledged at once and shows in `table()` only after `visible_after` seconds;
- `FROM stream` without `table()`, and without `query_mode=table`, never ends;
- camelCase names, DELETE FROM, an alias without AS and FINAL on an append stream are errors, with Proton's codes.

`translator` and what it imports read the dialect, `engine` keeps the streams, `wire` and `connection` speak
the protocol, `faults` goes wrong on demand, `server` is the process, `process` the handle that tests hold.
By hand: `python -m support.proton_standin` in the folder `tests`.
"""

from __future__ import annotations

from support.proton_standin.faults import Fault
from support.proton_standin.process import ProtonStandin, require_chdb

__all__ = ["Fault", "ProtonStandin", "require_chdb"]
