"""What the gateway signs when a ledger is restored: whoever may write to the trail could else pretend a restore.

A restore excuses what is missing from before it, and no more: see `services.audit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from jetway.core.times import Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """The statement. It has other fields than a checkpoint, so that neither can be taken for the other."""

    kind: Literal["restore"] = "restore"
    version: Literal[1] = 1
    ledger_id: str
    epoch: int
    """The one that it began."""
    backup_created_at: Timestamp
    restored_at: Timestamp


_RESTORATION: TypeAdapter[Restoration] = TypeAdapter(Restoration)


def text_of(restoration: Restoration) -> str:
    """What is to be signed."""
    return _RESTORATION.dump_json(restoration).decode()


def read_restoration(text: str) -> Restoration:
    """What was signed. Raises ValueError."""
    return _RESTORATION.validate_json(text)
