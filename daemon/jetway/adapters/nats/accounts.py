"""The embedded server's accounts: what its configuration says of them, who the daemon is there, revocations.

The server keeps the accounts' claims in a directory. They are written there before each of its starts, so that it
never runs with older grants or without the revocations that it was last told.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from jetway.adapters.authority import nats_accounts as claims
from jetway.adapters.authority.nats_jwt import read
from jetway.adapters.authority.nats_keys import NatsKeys
from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.dial import Credentials
from jetway.adapters.statedir import atomic_write
from jetway.core.errors import PortError, StartupError, UnavailableError
from jetway.core.grants import GrantNames
from jetway.ports import Clock

log = structlog.get_logger()

ADMIN_FILE = "admin.creds"
_DIRECTORY = "accounts"
_PUSH_SECONDS = 3.0
_ADMIN_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s+([A-Za-z0-9_.-]+)\s")

_CONFIG = """\
operator: {operator}
system_account: {system}
resolver {{
    type: full
    dir: {directory}
    allow_delete: true
}}
# The system account alone: of two claims of the same second the one given here would win over a newer one.
resolver_preload {{
    {system}: {preload}
}}
"""


class Accounts:
    """The operator and its accounts on one embedded server, with their files under `directory`."""

    def __init__(self, directory: Path, keys: NatsKeys, names: GrantNames, clock: Clock) -> None:
        self._directory = directory
        self._keys = keys
        self._names = names
        self._clock = clock
        self._user = NatsKey.generate(Kind.USER)

    @staticmethod
    def stand_in(directory: Path) -> bool:
        """Whether there ever were accounts under `directory`."""
        return (directory / _DIRECTORY).exists()

    @property
    def store_account(self) -> str:
        """The account that the data of JetStream belong to."""
        return self._keys.gateway.public

    def prepare(self) -> str:
        """Write the files that the server reads; the lines of its configuration. May raise OSError."""
        now = self._clock.now()
        directory = self._directory / _DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self._known_revocations(directory / f"{self._keys.edge.public}.jwt")
        jwts = {
            self._keys.system.public: claims.system_jwt(self._keys, now),
            self._keys.gateway.public: claims.gateway_jwt(self._keys, self._names, self._admin_since(), now),
            self._keys.edge.public: claims.edge_jwt(self._keys, self._names, known, now),
        }
        for account, jwt in jwts.items():
            atomic_write(directory / f"{account}.jwt", jwt.encode(), 0o600)
        return _CONFIG.format(
            operator=claims.operator_jwt(self._keys, now),
            system=self._keys.system.public,
            directory=json.dumps(str(directory.absolute()), ensure_ascii=False),
            preload=jwts[self._keys.system.public],
        )

    def gateway_user(self) -> Credentials:
        """The daemon where the ledger is."""
        return Credentials(
            lambda: claims.gateway_user_jwt(self._keys, self._user, "jetway", self._clock.now()),
            self._user.sign,
        )

    def listener(self) -> Credentials:
        """The daemon among the edge hosts."""
        return Credentials(
            lambda: claims.listener_jwt(self._keys, self._names, self._user, self._clock.now()),
            self._user.sign,
        )

    def messenger(self) -> Credentials:
        """The daemon at the server itself."""
        return Credentials(
            lambda: claims.messenger_jwt(self._keys, self._user, self._clock.now()), self._user.sign
        )

    def edge_jwt(self, revoked: Mapping[str, datetime]) -> str:
        """The claims of the edge hosts' account with these revocations."""
        seconds = {key: int(moment.timestamp()) for key, moment in revoked.items()}
        return claims.edge_jwt(self._keys, self._names, seconds, self._clock.now())

    def _admin_since(self) -> datetime:
        """When the user for the operator's tools was made; made now if its file is not there.

        Whatever was issued before is refused: deleting the file and starting again locks its old copies out.
        """
        file = self._directory / ADMIN_FILE
        with contextlib.suppress(OSError, ValueError):
            found = _ADMIN_JWT.search(file.read_text())
            user = read(found[1]) if found else {}
            if user.get("iss") == self._keys.gateway.public:
                file.chmod(0o600)
                # One of the future was made while the clock was ahead: it must not keep us out until then.
                return min(datetime.fromtimestamp(int(user["iat"]), UTC), self._clock.now())
        now = self._clock.now()
        atomic_write(file, claims.admin_creds(self._keys, now).encode(), 0o600)
        return now

    def _known_revocations(self, file: Path) -> Mapping[str, int]:
        """What the server was last told. The records say it all again once they are read."""
        try:
            account = read(file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("the edge account's claims are unreadable", action="nats_claims", reason=str(error))
            return {}
        ours = account.get("iss") == self._keys.operator_signing.public
        revocations: dict[str, int] = account["nats"].get("revocations", {}) if ours else {}
        return revocations


class EdgeAccount:
    """Implements `ports.NatsAccount` on the embedded server, by a short connection of its own for each change."""

    can_revoke = True

    def __init__(self, accounts: Accounts, options: ConnectionOptions, clock: Clock) -> None:
        self._accounts = accounts
        self._options = options
        self._clock = clock

    async def publish_revocations(self, revoked: Mapping[str, datetime]) -> None:
        """Tell the server the whole set; it drops those users' connections before it answers, or just after.

        Raises PortError.
        """
        if len(revoked) > claims.MOST_REVOCATIONS:
            log.warning(
                "more revocations than the NATS server takes: the oldest hold for all credentials of their time",
                action="nats_revocations_joined",
                revocations=len(revoked),
            )
        jwt = self._accounts.edge_jwt(revoked).encode()
        connection = Connection(self._options, self._clock, name="jetway-claims")
        try:
            await connection.connect(_PUSH_SECONDS)
            answer = await connection.request("$SYS.REQ.CLAIMS.UPDATE", jwt, timeout=_PUSH_SECONDS)
        except StartupError as error:
            raise UnavailableError(str(error)) from error
        finally:
            await connection.close()
        _check(answer.data)


class OpenAccount:
    """Implements `ports.NatsAccount` where there is nobody to tell: an open server, or somebody else's."""

    can_revoke = False

    async def publish_revocations(self, revoked: Mapping[str, datetime]) -> None:
        """Raises PortError."""
        raise PortError("this NATS server cannot be told of revocations")


def _check(answer: bytes) -> None:
    try:
        content = json.loads(answer)
        accepted = content["data"]["code"] == 200
    except (ValueError, TypeError, KeyError):
        accepted = False
    if not accepted:
        raise PortError(f"the NATS server refused the edge account's claims: {answer[:200]!r}")
