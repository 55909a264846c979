"""A real embedded server that asks for credentials, and edge hosts of any kind that try what they may."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError

from jetway.adapters.authority import nats_accounts as claims
from jetway.adapters.authority.nats_keys import NatsKeys, load_or_create_nats_keys
from jetway.adapters.authority.nats_users import NatsUsers, OwnSigner
from jetway.adapters.authority.nkeys import Kind, NatsKey
from jetway.adapters.clock import SystemClock
from jetway.adapters.nats.accounts import Accounts, EdgeAccount
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.dial import Credentials
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.schema import Schema
from jetway.adapters.nats.server import EmbeddedServer, ServerTls
from jetway.core.creds import creds_text
from jetway.core.grants import GrantNames
from jetway.core.ids import Lineage
from support.nats_server import settled
from support.ports import free_port

CLOCK = SystemClock()
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


@dataclass
class Host:
    """An edge host's client, and what the server said against it."""

    client: Client
    name: str = ""
    """The type of service."""
    errors: list[str] = field(default_factory=list)

    async def publish(self, subject: str, reply: str = "") -> None:
        """Try to publish there."""
        await self.client.publish(subject, b"{}", reply=reply)

    async def subscribe(self, subject: str) -> None:
        """Try to subscribe there, for a moment."""
        subscription = await self.client.subscribe(subject)
        await settled(self.client)
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()

    async def denied(self) -> dict[str, set[str]]:
        """What it was denied so far, by `publish` and `subscription`, in the lower case that the client makes it.

        The server complains in order, and the client tells of it a little later: the last complaint is about a
        subject that nobody may use.
        """
        await self.client.publish("the.last.one", b"")
        async with asyncio.timeout(30):
            while not (self.errors and '"the.last.one"' in self.errors[-1]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        found = [_VIOLATION.search(error) for error in self.errors]
        assert all(found), self.errors
        return {
            kind: {match[2] for match in found if match and match[1] == kind}
            for kind in ("publish", "subscription")
        }


class SecuredNats:
    """The server with its accounts, and the daemon's connections to it."""

    def __init__(self, folder: Path, listen: str = "", tls: ServerTls | None = None) -> None:
        self.folder = folder
        self.keys: NatsKeys = load_or_create_nats_keys(folder / "keys", first_time=True)
        self.accounts = Accounts(folder / "nats", self.keys, GrantNames(), CLOCK)
        listen = listen or f"127.0.0.1:{free_port()}"
        self.server = EmbeddedServer(folder, listen, CLOCK, accounts=self.accounts, tls=tls)
        self.users = NatsUsers(OwnSigner(self.keys))
        self._connections: list[Connection] = []
        self._hosts: list[Client] = []

    @property
    def account(self) -> EdgeAccount:
        options = ConnectionOptions((self.server.url,), credentials=self.accounts.messenger())
        return EdgeAccount(self.accounts, options, CLOCK)

    async def open(self) -> None:
        """Start it, and connect as the daemon does."""
        await self.server.start()
        url = (self.server.url,)
        self.gateway = await self._connect(ConnectionOptions(url, credentials=self.accounts.gateway_user()))
        self.listener = await self._connect(ConnectionOptions(url, credentials=self.accounts.listener()))
        self.edge = await self._connect(ConnectionOptions(url, credentials=self._anybody()))
        self.jetstream = JetStream(self.gateway)
        await Schema(self.jetstream, Layout(Names(), 1, timedelta(days=90))).ensure()

    def _anybody(self) -> Credentials:
        """Somebody who may do everything among the edge hosts, as nobody may in life."""
        everything = {"allow": [">"]}
        user = NatsKey.generate(Kind.USER)
        jwt = claims._user(self.keys.edge, user, "anybody", everything, everything, CLOCK.now())
        return Credentials(lambda: jwt, user.sign)

    async def close(self) -> None:
        for client in self._hosts:
            with contextlib.suppress(NatsError, OSError):
                await client.close()
        for connection in self._connections:
            await connection.close()
        await self.server.stop()

    async def _connect(self, options: ConnectionOptions) -> Connection:
        connection = Connection(options, CLOCK)
        self._connections.append(connection)
        await connection.connect()
        return connection

    def write_creds(
        self,
        lineage: Lineage,
        *,
        watch: bool = False,
        lifetime: timedelta = timedelta(days=1),
        now: datetime | None = None,
        user: tuple[str, str] | None = None,
    ) -> tuple[str, Path]:
        """(public key, .creds file) of a new user, or of that one."""
        public, seed = user or self.users.new_user()
        jwt = self.users.issue(
            public_key=public, lineage=lineage, watch=watch, now=now or CLOCK.now(), lifetime=lifetime
        )
        file = self.folder / f"{lineage.service_id}-{public[-8:]}.creds"
        file.write_text(creds_text(jwt, seed))
        return public, file

    async def connect(self, file: Path | None, inbox: str = "_INBOX_x") -> Host:
        """Connect with these credentials, once. Raises what the client raises when it is refused."""
        client = Client()
        host = Host(client)
        self._hosts.append(client)

        async def on_error(error: Exception) -> None:
            host.errors.append(str(error))

        await client.connect(
            self.server.url,
            user_credentials=str(file) if file else None,
            inbox_prefix=inbox,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=30,
            error_cb=on_error,
        )
        return host

    async def host(self, lineage: Lineage, *, watch: bool = False) -> Host:
        """An edge host with fresh credentials."""
        _, file = self.write_creds(lineage, watch=watch)
        host = await self.connect(file, lineage.inbox_prefix.removesuffix("."))
        host.name = lineage.service_type.value
        return host


@asynccontextmanager
async def secured_nats(folder: Path) -> AsyncIterator[SecuredNats]:
    """The server, stopped at the end."""
    secured = SecuredNats(folder)
    try:
        await secured.open()
        yield secured
    finally:
        await secured.close()


__all__ = ["CLOCK", "Host", "SecuredNats", "secured_nats"]
