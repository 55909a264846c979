"""Run the stand-in by hand: it prints its URL and serves until it is interrupted."""

from __future__ import annotations

import argparse
import contextlib
import threading

from support.proton_standin.process import ProtonStandin


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m support.proton_standin", description=__doc__)
    parser.add_argument(
        "--visible-after", type=float, default=2.0, help="seconds until a write shows in table()"
    )
    given = parser.parse_args()
    with ProtonStandin(visible_after=given.visible_after) as standin, contextlib.suppress(KeyboardInterrupt):
        print(standin.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
