"""The restores that the trail tells of: which of them the gateway made, by its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from jetway.core.checkpoint import Checkpoint, decode_signed
from jetway.core.record import EventType
from jetway.core.restoration import Restoration, read_restoration, text_of
from jetway.core.rows import Event
from jetway.core.times import rfc3339
from jetway.ports import AuditReader, CheckpointSigner, CheckpointVerifier


def signed_facts(signer: CheckpointSigner, restoration: Restoration) -> Mapping[str, JsonValue]:
    """What the event of a restore carries."""
    signed = signer.sign(text_of(restoration))
    return {"text": signed.text, "signature": signed.signature, "key_id": signed.key_id}


@dataclass(frozen=True, slots=True)
class Restores:
    """Those of a ledger."""

    proven: Sequence[Restoration] = ()
    unproven: Sequence[Event] = ()
    newest: int = field(init=False)
    """The newest epoch that one of them began; 0 where none did."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "newest", max((each.epoch for each in self.proven), default=0))

    def began(self, epoch: int) -> bool:
        """Whether one of them began that epoch."""
        return any(each.epoch == epoch for each in self.proven)

    def undid(self, checkpoint: Checkpoint) -> bool:
        """Whether one of them went back to before the checkpoint was made. Later ones it says nothing of."""
        return any(
            checkpoint.epoch < each.epoch and each.backup_created_at <= checkpoint.made_at
            for each in self.proven
        )


async def find_restores(reader: AuditReader, key: CheckpointVerifier) -> Restores:
    """Those in the trail. Raises PortError."""
    proven, unproven = [], []
    for event in await reader.happened(EventType.RESTORED):
        if event.service_id:
            continue  # what it did to one service: such an entry excuses nothing
        restoration = _proven(event, reader, key)
        if restoration is None:
            unproven.append(event)
        else:
            proven.append(restoration)
    return Restores(proven, unproven)


def _proven(event: Event, reader: AuditReader, key: CheckpointVerifier) -> Restoration | None:
    facts = {name: event.metadata.get(name) for name in ("text", "signature", "key_id")}
    try:
        signed = decode_signed(facts)
        restoration = read_restoration(signed.text)
    except ValueError:
        return None
    own = restoration.ledger_id == reader.ledger_id and restoration.epoch <= reader.epoch
    return restoration if own and key.verify(signed) else None


def shown(restoration: Restoration) -> str:
    """For the operator, who knows whether it was made."""
    at, backup = (rfc3339(t) for t in (restoration.restored_at, restoration.backup_created_at))
    return f"restored at {at} from a backup of {backup}; that began epoch {restoration.epoch}"


def shown_unproven(event: Event) -> str:
    """As a finding."""
    at: datetime = event.timestamp
    return f"the trail tells of a restore at {rfc3339(at)} that the gateway's key did not sign: it excuses nothing"
