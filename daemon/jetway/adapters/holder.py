"""Under which name the processes of one state directory hold the lease, one after the other."""

from __future__ import annotations

from pathlib import Path

import structlog

from jetway.adapters.statedir import atomic_write
from jetway.ports import Identifiers

log = structlog.get_logger()

HOLDER_FILE = "lease-holder"
_LONGEST = 100


def lease_holder(state_dir: Path, identifiers: Identifiers) -> str:
    """The name, made by the first process. The directory must be locked: no two may use it at a time.

    Where it cannot be kept a new one does: the next process then waits until the lease has run out.
    """
    file = state_dir / HOLDER_FILE
    try:
        known = file.read_text(encoding="ascii").strip()
        if 0 < len(known) <= _LONGEST:
            return known
    except (OSError, ValueError):
        pass
    holder = identifiers.new_id()
    try:
        atomic_write(file, holder.encode() + b"\n")
    except OSError as error:
        log.warning("the lease's holder is not remembered", action="holder_not_kept", error=error.strerror)
    return holder
