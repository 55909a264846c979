"""A gateway as it stands on the internet, and edge hosts that join and run with the installed command."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoServersError

from support.daemon import Daemon, environment, jetway
from support.ports import free_port


def internet(**more: str) -> dict[str, str]:
    """HTTPS by the gateway's own authority, NATS on all addresses with TLS and credentials."""
    port = free_port()
    return {
        "JETWAY_HTTP__TLS": "own",
        "JETWAY_HTTP__LISTEN": f"127.0.0.1:{free_port()}",
        "JETWAY_NATS__LISTEN": f"0.0.0.0:{port}",
        "JETWAY_NATS__PUBLIC_URLS": json.dumps([f"tls://127.0.0.1:{port}"]),
        **more,
    }


class EdgeHost:
    """A folder on an edge host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        self.process: subprocess.Popen[bytes] | None = None

    def join(self, token: str) -> subprocess.CompletedProcess[str]:
        """`jetway join`."""
        return jetway("join", "--dir", str(self.folder), "--retry-for", "0s", given=token)

    def joined(self, token: str) -> EdgeHost:
        """The same; it must succeed."""
        done = self.join(token)
        assert done.returncode == 0, done.stderr
        return self

    def once(self) -> subprocess.CompletedProcess[str]:
        """`jetway run --once`."""
        return jetway("run", "--dir", str(self.folder), "--once")

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """`jetway run` in the background; it must not have ended by itself."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jetway", "run", "--dir", str(self.folder)],
                env=environment(JETWAY_LOG__FORMAT="json"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
            assert process.poll() is None, self.log.read_text()[-3000:]
        finally:
            process.terminate()
            process.wait(60)

    def said(self, action: str) -> list[dict[str, Any]]:
        """What its log has of that action."""
        lines = (_fields(line) for line in self.log.read_text().splitlines())
        return [line for line in lines if line.get("action") == action]

    @property
    def service(self) -> Any:
        """The gateway's answer to its token."""
        return json.loads((self.folder / "service.json").read_text())

    @property
    def creds(self) -> Path:
        """Its NATS credentials."""
        return self.folder / "nats.creds"

    @property
    def certificate(self) -> x509.Certificate:
        """Its own certificate."""
        return x509.load_pem_x509_certificates((self.folder / "certificate.pem").read_bytes())[0]

    def copies(self) -> list[str]:
        """Its copies of config documents."""
        return sorted(path.name.removesuffix(".json") for path in (self.folder / "config").glob("*.json"))

    async def connect(self, creds: Path | None = None) -> Client:
        """A client of NATS with its credentials, or with those of another file."""
        return await connect(*self.nats(creds))

    def nats(self, creds: Path | None = None) -> tuple[str, Path, str]:
        """Where the NATS server is, its credentials or those of another file, and who vouches for the server."""
        nats = self.service["nats"]
        return nats["urls"][0], creds or self.creds, nats["ca_pem"]


async def connect(url: str, creds: Path | None, ca_pem: str = "") -> Client:
    """A client that knows nothing of us, and that does not come back once it is thrown out."""
    for _ in range(4):
        try:
            return await _connect(url, creds, ca_pem)
        except NatsError as error:
            # The server waits two seconds for who it is: a busy machine may take longer.
            if "authentication timeout" not in str(error).lower():
                raise
    return await _connect(url, creds, ca_pem)


async def _connect(url: str, creds: Path | None, ca_pem: str) -> Client:

    async def quiet(_: Exception) -> None:
        pass

    client = Client()
    try:
        await client.connect(
            url,
            user_credentials=str(creds) if creds else None,
            tls=ssl.create_default_context(cadata=ca_pem) if ca_pem else None,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=30,
            error_cb=quiet,
        )
    except BaseException:
        await client.close()
        raise
    return client


@contextlib.asynccontextmanager
async def connected(host: EdgeHost, creds: Path | None = None) -> AsyncIterator[Client]:
    """One for as long as the block lasts."""
    client = await host.connect(creds)
    try:
        yield client
    finally:
        await client.close()


async def is_let_in(host: EdgeHost, creds: Path | None = None) -> bool:
    """Whether the NATS server takes these credentials."""
    return await lets_in(*host.nats(creds))


async def lets_in(url: str, creds: Path | None, ca_pem: str = "") -> bool:
    """Whether that NATS server takes these credentials, or nobody's."""
    try:
        client = await connect(url, creds, ca_pem)
        await client.close()
        return True
    except (NatsError, OSError) as error:
        require_turned_away(error)
    await let_go()
    return False


def require_turned_away(error: Exception) -> None:
    """A server that is not there, or that says nothing, has turned nobody away.

    With TLS its refusal may be lost: then the connection is cut off as soon as it stands.
    """
    assert not isinstance(error, ConnectionRefusedError | NoServersError | TimeoutError), repr(error)


async def let_go() -> None:
    """nats-py leaves the socket of a TLS connection that was refused to the collector: have it collected now."""
    await asyncio.sleep(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def seconds_until_closed(client: Client, limit: float) -> float:
    """How long the server still keeps a connection."""
    begun = time.monotonic()
    async with asyncio.timeout(limit):
        while not client.is_closed:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.005)
    return time.monotonic() - begun


def revoked_serials(daemon: Daemon) -> set[int]:
    """What the gateway's revocation list holds, its signature checked."""
    answer = daemon.call("GET", "/api/edge/crl.pem", token="")
    assert answer.status == 200, answer.body
    crl = x509.load_pem_x509_crl(answer.body)
    root = x509.load_pem_x509_certificate(daemon.call("GET", "/api/edge/ca.pem", token="").body)
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    return {entry.serial_number for entry in crl}


def _fields(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
