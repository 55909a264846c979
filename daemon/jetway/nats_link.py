"""The way to NATS: to a server of our own or to somebody else's, as whom, and who issues credentials there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from jetway.adapters.authority.ca import open_authority
from jetway.adapters.authority.nats_keys import NatsKeys, load_or_create_nats_keys, read_signing_key
from jetway.adapters.authority.nats_users import GivenSigner, NatsUsers, OwnSigner
from jetway.adapters.authority.server_certificate import (
    LOOPBACK,
    GivenServerCertificate,
    OwnServerCertificate,
)
from jetway.adapters.clock import RandomIdentifiers, SystemClock
from jetway.adapters.nats.accounts import ADMIN_FILE, Accounts, EdgeAccount, OpenAccount
from jetway.adapters.nats.certificate import CA_FILE, CertificateKeeper
from jetway.adapters.nats.connection import Connection, ConnectionOptions
from jetway.adapters.nats.jetstream import JetStream
from jetway.adapters.nats.layout import Layout
from jetway.adapters.nats.meta import LedgerMeta, MetaStore
from jetway.adapters.nats.names import Names
from jetway.adapters.nats.schema import Schema
from jetway.adapters.nats.server import EmbeddedServer, ServerTls
from jetway.adapters.statedir import StateDir
from jetway.core.errors import PortError, StartupError
from jetway.ports import Clock, NatsAccount, NatsAuthority, ServedCertificate, ServerCertificate
from jetway.setting_types import split_address
from jetway.settings import Settings
from jetway.tasks import Releases

_CERTIFICATE_FILE = "server.pem"
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with
_OPEN = "the NATS server asks for no credentials: it listens on this machine alone"
_NO_KEY = "nats.account_signing_key_file is not set: whoever runs the NATS servers issues their credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsWay:
    """How NATS is reached, before anybody connects."""

    gateway: ConnectionOptions
    """As whom the daemon connects where the ledger is."""
    edge: ConnectionOptions | None = None
    """As whom among edge hosts, where they have an account of their own."""
    authority: NatsAuthority
    account: NatsAccount
    ca_pem: str = ""
    """What edge hosts need to trust the servers; empty where the system's trust does, or without TLS."""
    server: EmbeddedServer | None = None
    certificate: CertificateKeeper | None = None
    """What the embedded server shows, where it speaks TLS."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the daemon connects."""
        return tuple(self.gateway.urls)


@dataclass(frozen=True, slots=True)
class NatsLink:
    """The way to NATS, its streams in order."""

    connection: Connection
    """Where the ledger is. Everything but what comes from edge hosts goes this way."""
    edge: Connection
    """Where edge hosts are: they are heard and answered here. Not the ledger's even where all share an account:
    the ledger's answers would wait behind all the heartbeats that came before them."""
    jetstream: JetStream
    names: Names
    store: MetaStore
    meta: LedgerMeta
    way: NatsWay

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the daemon is connected."""
        return self.way.urls

    @property
    def connected(self) -> bool:
        """Whether all of it stands."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """What does not stand, for an operator; empty while all of it does."""
        if not self.connection.connected:
            return "not connected: reads go on from memory, writes are refused"
        return "" if self.edge.connected else "not connected where edge hosts are: no heartbeat is heard"

    @property
    def reconnects(self) -> int:
        """How often a part of it was made anew."""
        return self.connection.reconnects + self.edge.reconnects


def external_nats(settings: Settings) -> NatsWay:
    """Somebody else's servers. Raises StartupError for a signing key that is none."""
    nats = settings.nats
    signer = None
    if nats.account_signing_key_file:
        key = read_signing_key(nats.account_signing_key_file)
        signer = GivenSigner(
            key, nats.account, Names.of(nats).grants(settings.heartbeat.subject_prefix, nats)
        )
    gateway = ConnectionOptions.external(nats)
    return NatsWay(
        gateway=gateway,
        edge=replace(gateway, creds_file=nats.edge_creds_file) if nats.edge_creds_file else None,
        authority=NatsUsers(signer, "" if signer else _NO_KEY),
        account=OpenAccount(),
        ca_pem=_read_ca(nats.tls_ca),
    )


async def start_embedded_nats(
    settings: Settings, releases: Releases, certificate: ServerCertificate | None = None
) -> NatsWay:
    """Start the server of our own; `certificate` is what it shows, where it is to speak TLS.

    Raises StartupError.
    """
    keeper = CertificateKeeper(certificate, settings.state_dir / "nats") if certificate else None
    served = await _load(keeper)
    keys, accounts = _accounts(settings)
    clock, tls = SystemClock(), ServerTls(served.certificate, served.key) if served else None
    server = EmbeddedServer(settings.state_dir, settings.nats.listen, clock, accounts=accounts, tls=tls)
    releases.add("nats-server", server.stop, 12.0)
    await server.start()
    options = ConnectionOptions((server.url,))
    if served:
        options = _with_tls(options, settings)
    if keys is None or accounts is None:
        return NatsWay(
            gateway=options,
            authority=NatsUsers(None, _OPEN),
            account=OpenAccount(),
            ca_pem=_edge_ca(settings, served),
            server=server,
            certificate=keeper,
        )
    return NatsWay(
        gateway=replace(options, credentials=accounts.gateway_user()),
        edge=replace(options, credentials=accounts.listener()),
        authority=NatsUsers(OwnSigner(keys)),
        account=EdgeAccount(accounts, replace(options, credentials=accounts.messenger()), clock),
        ca_pem=_edge_ca(settings, served),
        server=server,
        certificate=keeper,
    )


async def start_private_nats(settings: Settings, releases: Releases) -> NatsWay:
    """The same server where nobody else reaches it, for what is done while no daemon runs."""
    listen = {"listen": "127.0.0.1:0", "tls_cert": None, "tls_key": None, "tls_ca": None}
    credentials = {"credentials": "required" if settings.nats_credentials else "none"}
    private = settings.nats.model_copy(update=listen | credentials)
    return await start_embedded_nats(settings.model_copy(update={"nats": private}), releases)


def running_nats(settings: Settings, urls: tuple[str, ...]) -> NatsWay:
    """The server of a daemon that runs on this machine, with the rights of the operator's own tools."""
    admin = settings.state_dir / "nats" / ADMIN_FILE
    options = ConnectionOptions(urls, creds_file=admin if admin.exists() else None)
    if settings.nats_tls:
        options = _with_tls(options, settings)
    return NatsWay(gateway=options, authority=NatsUsers(None, _OPEN), account=OpenAccount())


async def open_nats(settings: Settings, way: NatsWay, releases: Releases) -> NatsLink:
    """Connect, and make or check what stands there. Raises StartupError."""
    clock, names = SystemClock(), Names.of(settings.nats)
    connection = await _connect(way.gateway, "jetway", releases)
    edge = await _connect(way.edge or way.gateway, "jetway-edge", releases)
    jetstream = JetStream(connection, settings.nats.js_domain)
    layout = Layout.of(settings, names)
    remembered = StateDir(settings.state_dir).read_ledger()
    await Schema(jetstream, layout).ensure(ledger_id=remembered.ledger_id if remembered else "")
    store = MetaStore(jetstream, names, clock, RandomIdentifiers())
    return NatsLink(connection, edge, jetstream, names, store, await store.open(), way)


def nats_certificate(settings: Settings, clock: Clock) -> ServerCertificate | None:
    """What the embedded server is to show; None where it does not speak TLS. Raises StartupError."""
    nats = settings.nats
    if not settings.nats_tls:
        return None
    if nats.tls_cert is not None and nats.tls_key is not None:
        return GivenServerCertificate(nats.tls_cert, nats.tls_key, clock, "nats")
    listen, _ = split_address(nats.listen)
    hosts = [*_public_hosts(settings), *(() if listen in _EVERY_ADDRESS else (listen,)), *LOOPBACK]
    file = settings.state_dir / "nats" / _CERTIFICATE_FILE
    authority = open_authority(settings, clock.now())
    return OwnServerCertificate(authority, tuple(dict.fromkeys(hosts)), file, clock)


def _public_hosts(settings: Settings) -> list[str]:
    """The hosts by which edge hosts know the servers."""
    return [urlsplit(url).hostname or "" for url in settings.nats_public_urls]


async def _connect(options: ConnectionOptions, name: str, releases: Releases) -> Connection:
    connection = Connection(options, SystemClock(), name=name)
    releases.add(f"NATS connection {name}", connection.close)
    await connection.connect()
    return connection


async def _load(keeper: CertificateKeeper | None) -> ServedCertificate | None:
    try:
        return await keeper.load() if keeper else None
    except PortError as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"state_dir: {error.filename} cannot be written: {error.strerror}") from error


def _accounts(settings: Settings) -> tuple[NatsKeys | None, Accounts | None]:
    """The keys and the accounts, where credentials are asked for."""
    if not settings.nats_credentials:
        return None, None
    directory = settings.state_dir / "nats"
    keys = load_or_create_nats_keys(settings.state_dir / "keys", first_time=not Accounts.stand_in(directory))
    names = Names.of(settings.nats).grants(settings.heartbeat.subject_prefix, settings.nats)
    return keys, Accounts(directory, keys, names, SystemClock())


def _with_tls(options: ConnectionOptions, settings: Settings) -> ConnectionOptions:
    """Trusting what the server shows. A certificate from elsewhere need not name this machine's loopback."""
    given = _public_hosts(settings)[0] if settings.nats.tls_cert else ""
    return replace(options, tls_ca=settings.state_dir / "nats" / CA_FILE, tls_hostname=given)


def _edge_ca(settings: Settings, served: ServedCertificate | None) -> str:
    if served is None:
        return ""
    return _read_ca(settings.nats.tls_ca) if settings.nats.tls_cert else served.pem


def _read_ca(file: Path | None) -> str:
    try:
        return file.read_text() if file else ""
    except (OSError, ValueError) as error:
        raise StartupError(f"nats.tls_ca: cannot read {file}: {error}") from error
