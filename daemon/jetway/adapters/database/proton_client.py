"""One connection to Proton, held by one thread: proton-driver is not safe for two.

The driver asks for no certificate, whatever it is told (it stores the wish in the wrong attribute of its
SSLContext), so it is given a context of ours that verifies the chain and the host's name.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proton_driver.client import Client
from proton_driver.connection import Connection

from jetway.adapters.database.proton_errors import Stage, translate
from jetway.core.errors import StartupError, UnavailableError

Row = tuple[Any, ...]

# It writes a warning with a traceback whenever it cannot connect; every error is raised as well.
logging.getLogger("proton_driver").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, and how it is talked to. `password` is asked for at every connect, so that it may change."""

    label: str
    host: str
    port: int
    database: str
    user: str
    password: Callable[[], str] = field(repr=False)
    tls: ssl.SSLContext | None = None
    connect_timeout: float = 5.0
    timeout: float = 15.0
    """Seconds that the server may be silent."""


def verifying_context(authority: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, chain and host name verified. `authority`: a PEM file; none: the system's own.

    Raises StartupError for a file that cannot be read as that.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise StartupError(f"database.tls_ca: {authority} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ProtonClient:
    """Connects at its first use. After an error it is closed, and another one is made."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: _Connection | None = None
        self._client: Any = None
        self.is_given_up = False

    def select(self, sql: str, values: Mapping[str, Any] | None = None) -> Sequence[Row]:
        """The rows of a query. Raises PortErrors."""
        rows: Sequence[Row] = self._run(lambda client: client.execute(sql, dict(values) if values else None))
        return rows

    def command(self, sql: str) -> None:
        """A statement that answers nothing. Raises PortErrors; an interrupted one may have been done."""
        self._run(lambda client: client.execute(sql))

    def insert(self, sql: str, rows: Sequence[Row]) -> None:
        """`INSERT INTO stream (columns) VALUES` with rows, in one block. Raises PortErrors.

        UnavailableError: none are stored. OutcomeUnknownError: perhaps. RejectedError: they never can be.
        """
        if rows:
            self._run(lambda client: client.execute(sql, list(rows)))

    def interrupt(self) -> None:
        """Wake the thread that waits for the server; from any thread. The client is done for."""
        self.is_given_up = True
        if self._connection is not None:
            self._connection.give_up()

    def close(self) -> None:
        """Let go of the socket."""
        if self._client is not None:
            self._client.disconnect()

    def _run(self, call: Callable[[Any], Any]) -> Any:
        connection = self._connect()
        connection.stage = Stage.NOTHING_SENT
        started = time.monotonic()
        try:
            return call(self._client)
        except Exception as error:
            seconds = time.monotonic() - started
            raise translate(self._target.label, error, connection.stage, seconds=seconds) from error

    def _connect(self) -> _Connection:
        if self._connection is None:
            settings = {"query_mode": "table", "max_execution_time": math.ceil(self._target.timeout)}
            client = Client(self._target.host, settings=settings)
            connection = _Connection(self._target)
            connection.context.settings = client.settings
            connection.context.client_settings = client.client_settings
            client.connection = connection
            self._client, self._connection = client, connection
        if self.is_given_up:
            raise UnavailableError(f"the database {self._target.label} was not asked: its time was over")
        return self._connection


class _Connection(Connection):  # type: ignore[misc]  # the driver has no types
    """The driver's connection, with TLS that verifies, and told apart how far an INSERT got."""

    def __init__(self, target: Target) -> None:
        super().__init__(
            target.host,
            port=target.port,
            database=target.database,
            user=target.user,
            password=target.password(),
            client_name="jetway",
            connect_timeout=target.connect_timeout,
            send_receive_timeout=target.timeout,
            sync_request_timeout=target.connect_timeout,
            secure=target.tls is not None,
        )
        self.stage = Stage.NOTHING_SENT
        self._tls = target.tls
        self._given_up = False

    def give_up(self) -> None:
        """Shut the socket down; whoever waits for it wakes at once."""
        self._given_up = True
        if self.socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which lets go of TLS first: what is sent in that moment would go in clear.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def _create_ssl_context(self, ssl_options: object) -> ssl.SSLContext | None:
        return self._tls

    def _create_socket(self, host: str, port: int) -> socket.socket:
        made: socket.socket = super()._create_socket(host, port)
        if self._tls is not None and not _is_verified(made, self._tls):
            made.close()
            # Should a later driver make its context elsewhere, nothing is sent.
            raise OSError(0, "the connection was not verified, so nothing was sent")
        return made

    def send_hello(self) -> None:
        """The first message, which holds the password: not once the time is over."""
        if self._given_up:
            raise OSError(0, "the time was over before the connection stood")
        super().send_hello()

    def send_data(self, block: Any, table_name: str = "") -> None:
        """Rows, or the empty block that ends them."""
        if block.num_rows:
            self.stage = Stage.SENDING
        super().send_data(block, table_name)
        if block.num_rows:
            self.stage = Stage.SENT


def _is_verified(made: socket.socket, context: ssl.SSLContext) -> bool:
    return (
        isinstance(made, ssl.SSLSocket)
        and made.context is context
        and context.verify_mode is ssl.CERT_REQUIRED
        and context.check_hostname
        and bool(made.getpeercert())
    )
