"""What no single setting can tell: which of them go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetway.core.errors import StartupError
from jetway.database_url import is_proton, parse_proton_url
from jetway.setting_types import is_loopback, split_address

if TYPE_CHECKING:
    from jetway.settings import HttpSettings, Settings


def check_together(settings: Settings) -> None:
    """What no single field can tell."""
    if settings.heartbeat.offline_after < settings.heartbeat.late_after:
        raise StartupError("heartbeat.offline_after: must not be smaller than heartbeat.late_after")
    _check_nats(settings)
    _check_http(settings.http)
    if (settings.identity.ca_cert is None) != (settings.identity.ca_key is None):
        raise StartupError("identity.ca_cert, ca_key: give both or none")
    _check_database(settings)


def _check_nats(settings: Settings) -> None:
    nats = settings.nats
    if (nats.tls_cert is None) != (nats.tls_key is None):
        raise StartupError("nats.tls_cert, tls_key: give both or none")
    if nats.mode == "external":
        if not nats.urls:
            raise StartupError("nats.urls: needed with nats.mode = external")
        if bool(nats.account) != bool(nats.account_signing_key_file):
            raise StartupError("nats.account, account_signing_key_file: give both or none")
        return
    given = (nats.creds_file, nats.edge_creds_file, nats.account, nats.account_signing_key_file)
    if nats.urls or any(given):
        raise StartupError(
            "nats.urls, creds_file, edge_creds_file, account and account_signing_key_file: only with"
            " nats.mode = external"
        )
    if nats.js_domain:
        raise StartupError("nats.js_domain: only with nats.mode = external")
    if nats.tls_ca and not nats.tls_cert:
        raise StartupError("nats.tls_ca: only together with nats.tls_cert, or with nats.mode = external")
    _check_nats_listen(settings)


def _check_nats_listen(settings: Settings) -> None:
    nats, host = settings.nats, split_address(settings.nats.listen)[0]
    if settings.nats_is_public and nats.credentials == "none":
        raise StartupError(f"nats.credentials: none is for loopback; nats.listen {nats.listen} is not")
    if host in ("0.0.0.0", "::") and not nats.public_urls:  # noqa: S104 - compared with
        raise StartupError(f"nats.public_urls: needed where nats.listen is {nats.listen}: it names no host")
    if any(url.startswith(("ws://", "wss://")) for url in nats.public_urls):
        raise StartupError("nats.public_urls: the embedded server speaks no WebSocket (ws://, wss://)")
    if settings.nats_tls and any(url.startswith("nats://") for url in nats.public_urls):
        raise StartupError("nats.public_urls: must begin with tls:// where the server speaks TLS")


def _check_http(http: HttpSettings) -> None:
    given = [file for file in (http.tls_cert, http.tls_key) if file]
    if http.tls == "files" and len(given) < 2:
        raise StartupError("http.tls_cert, tls_key: both are needed with http.tls = files")
    if http.tls != "files" and given:
        raise StartupError("http.tls_cert, tls_key: only with http.tls = files")
    if http.tls != "off" and http.public_url.startswith("http://"):
        raise StartupError(f"http.public_url: must begin with https:// where http.tls is {http.tls}")
    host, _ = split_address(http.listen)
    _check_http_address(http, host)


def _check_http_address(http: HttpSettings, host: str) -> None:
    if http.tls == "off" and not is_loopback(host) and not http.allow_plain:
        raise StartupError(
            f"http.listen: {http.listen} is reached from elsewhere, and whoever reads plain HTTP on its way has"
            " every token: set http.tls, or http.allow_plain where only a proxy that speaks TLS gets there"
        )
    if host in ("0.0.0.0", "::") and not http.public_url:  # noqa: S104 - compared with
        raise StartupError(
            f"http.public_url: needed where http.listen is {http.listen}: it names no host, and tokens need one"
        )


def _check_database(settings: Settings) -> None:
    database, text = settings.database, settings.database_url
    if not is_proton(text):
        if not text.startswith("sqlite:///"):
            raise StartupError(
                "database.url: must be sqlite:///path or proton://user:password@host:8463/default"
            )
        if database.password_file or database.tls_ca:
            raise StartupError("database.password_file and tls_ca: only with proton:// in database.url")
        return
    try:
        url = parse_proton_url(text)
    except ValueError as error:
        raise StartupError(f"database.url: {error}") from None
    if url.password and database.password_file:
        raise StartupError("database.password_file: database.url holds a password already")
    if database.tls_ca and not url.tls:
        raise StartupError("database.tls_ca: only with protons://, which is proton:// over TLS")
