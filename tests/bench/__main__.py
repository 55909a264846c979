"""Benchmarks: `python3 dev.py bench [part ...]` prints the tables in docs/performance.md.

Figures are reported, never asserted. Machines are noisy: compare ratios within one run.
"""

from __future__ import annotations

import os
import platform
import sys

from bench import admission, api, dashboard, heartbeats, liveness, scale, side_by_side

_PARTS = {
    "api": api.run,
    "heartbeats": heartbeats.run,
    "scale": scale.run,
    "bulk": scale.run_bulk,
    "memory": scale.run_memory,
    "admission": admission.run,
    "liveness": liveness.run,
    "dashboard": dashboard.run,
}
_SIDE_BY_SIDE = "side-by-side"


def main() -> int:
    """Run the named benchmarks, or all of Jetway's own."""
    print(f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.system()}\n")
    if sys.argv[1:2] == [_SIDE_BY_SIDE]:
        side_by_side.run(sys.argv[2:])
        return 0
    chosen = sys.argv[1:] or list(_PARTS)
    unknown = [name for name in chosen if name not in _PARTS]
    if unknown:
        print(
            f"no such benchmark: {', '.join(unknown)}; there are {', '.join(_PARTS)}, "
            f"and {_SIDE_BY_SIDE} [--services N]",
            file=sys.stderr,
        )
        return 2
    print("| what | figure | note |\n| --- | --- | --- |", flush=True)
    for name in chosen:
        _PARTS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
