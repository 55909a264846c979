"""The keys of the embedded NATS server: made once, when it first asks for credentials, and never silently again.

With another operator or account the server would know neither its data nor anybody's credentials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.adapters.authority.private import check_directory, read_private
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import StartupError
from jetway.core.ids import ServiceType

NATS_FILE = "nats.json"
LOST = "without it no service's NATS credentials are good, nor is the data of JetStream found"


_KINDS = {
    "operator": Kind.OPERATOR,
    "operator-signing": Kind.OPERATOR,
    "system": Kind.ACCOUNT,
    "gateway": Kind.ACCOUNT,
    "edge": Kind.ACCOUNT,
    **{f"edge-{service_type.value}": Kind.ACCOUNT for service_type in ServiceType},
}


@dataclass(frozen=True, slots=True)
class NatsKeys:
    """The operator, its accounts, and for each type of service the key that signs its credentials.

    Edge hosts have an account of their own. A server answers a request to whatever subject the request names,
    without asking whether its sender may publish there. In the account of the ledger, an edge host that may read
    one document could have it written over any record, or have the ledger deleted by an empty answer.
    """

    by_name: Mapping[str, NatsKey] = field(repr=False)

    @property
    def operator(self) -> NatsKey:
        """The root."""
        return self.by_name["operator"]

    @property
    def operator_signing(self) -> NatsKey:
        """Signs the accounts."""
        return self.by_name["operator-signing"]

    @property
    def system(self) -> NatsKey:
        """The account that tells the server of new claims."""
        return self.by_name["system"]

    @property
    def gateway(self) -> NatsKey:
        """The account of the daemon and of the operator's tools, with JetStream."""
        return self.by_name["gateway"]

    @property
    def edge(self) -> NatsKey:
        """The account of all edge hosts."""
        return self.by_name["edge"]

    def signing(self, service_type: ServiceType) -> NatsKey:
        """Signs the credentials of such services."""
        return self.by_name[f"edge-{service_type.value}"]


def load_or_create_nats_keys(directory: Path, first_time: bool) -> NatsKeys:
    """The keys in `directory`, made if there are none and the server never had any before.

    Raises StartupError, naming the file, for one that is missing later, damaged, or open to other users.
    """
    path = directory / NATS_FILE
    try:
        if first_time and not path.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            seeds = {name: NatsKey.generate(kind).seed for name, kind in _KINDS.items()}
            atomic_write(path, json.dumps(seeds, indent=2).encode() + b"\n", 0o600)
        check_directory(directory)
        return _read(path, read_private(path, LOST))
    except OSError as error:
        raise StartupError(f"cannot read or make the key {path}: {error.strerror}") from error


def _read(path: Path, text: bytes) -> NatsKeys:
    try:
        seeds = json.loads(text)
        return NatsKeys({name: NatsKey.from_seed(seeds[name], kind) for name, kind in _KINDS.items()})
    except (ValueError, TypeError, KeyError):
        # The cause could quote a key.
        raise StartupError(f"{path} is damaged: restore it from a backup") from None


def read_signing_key(path: Path) -> NatsKey:
    """The signing key of somebody else's account: a file with its seed. Raises StartupError."""
    try:
        text = read_private(path, "nats.account_signing_key_file names it").decode(errors="replace").strip()
    except OSError as error:
        raise StartupError(f"nats.account_signing_key_file: {path}: {error.strerror}") from error
    try:
        return NatsKey.from_seed(text, Kind.ACCOUNT)
    except ValueError as error:
        raise StartupError(f"nats.account_signing_key_file: {path} {error}") from None
