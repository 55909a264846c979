"""Settings: TOML, every key also an environment variable (`JETWAY_HTTP__LISTEN`), unknown keys refused by name.

With no file at all the daemon runs embedded, on loopback, with its state under `$STATE_DIRECTORY` (systemd) or
the platform's user state folder. Secrets are `SecretStr`: they do not show in `check-config`, logs or errors.
"""

from __future__ import annotations

import os
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from jetway.core.alerts import AlertKind
from jetway.core.errors import StartupError
from jetway.core.ids import ServiceId
from jetway.setting_checks import check_together
from jetway.setting_types import (
    LONGEST_LIFETIME,
    Address,
    Duration,
    NatsUrl,
    Network,
    OptionalFile,
    is_loopback,
    require_bool_or_networks,
    require_host_and_port,
    require_webhook_url,
    split_address,
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(_Section):
    """The HTTP door."""

    listen: Address = "127.0.0.1:8080"
    """host:port. Anything but loopback needs `tls`, or `allow_plain` behind a proxy that speaks TLS."""
    public_url: Annotated[str, AfterValidator(require_host_and_port)] = Field(
        default="", pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$"
    )
    """What goes into tokens and install commands; empty: http:// or https:// and `listen`."""
    tls: Literal["off", "own", "files"] = "off"
    """own: HTTPS by the gateway's own authority, which tokens then name; files: by `tls_cert` and `tls_key`."""
    tls_cert: OptionalFile = None
    """files only: the certificate and its intermediates, PEM. Read again when the file changes, and on SIGHUP."""
    tls_key: OptionalFile = None
    """files only: its private key, PEM, not encrypted."""
    allow_plain: bool = False
    """Whether plain HTTP may be listened to beyond loopback: on a network that only a TLS proxy reaches."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded-For is believed. With one, tokens name no authority."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """A larger request body is refused with 413 before it is read whole."""
    max_connections: int = Field(default=2000, ge=1, le=100_000)
    """Open at one time; further ones are answered 503 and closed."""
    failures_per_minute: int = Field(default=30, ge=1)
    """Failed calls without authentication per client address, and per package, before 429."""
    detail_for_all: bool = False
    """Whether /metrics and the detail of /readyz are open to other hosts without a token."""


class NatsSettings(_Section):
    """NATS: embedded (the daemon runs nats-server) or external."""

    mode: Literal["embedded", "external"] = "embedded"
    listen: Address = "127.0.0.1:4222"
    """Embedded only. Anything but loopback is with TLS and credentials."""
    credentials: Literal["auto", "required", "none"] = "auto"
    """Embedded only. auto: asked for beyond loopback; none: anybody on this machine may do anything."""
    public_urls: tuple[NatsUrl, ...] = ()
    """What edge hosts are told; empty: `listen`, or `urls` in external mode."""
    urls: tuple[NatsUrl, ...] = ()
    """External only."""
    creds_file: OptionalFile = None
    """External only: a .creds file of a user who may use JetStream."""
    edge_creds_file: OptionalFile = None
    """External only: a .creds file of a user among the edge hosts, where they have an account of their own."""
    account_signing_key_file: OptionalFile = None
    """External only: the seed (`SA…`) of a signing key of `account`, mode 0600. Without it none are issued."""
    account: str = Field(default="", pattern=r"^(A[A-Z2-7]{55})?$")
    """External only: the public key of the account that edge hosts are to belong to."""
    tls_ca: OptionalFile = None
    """The authority behind the servers' certificates, where the system does not know it."""
    tls_cert: OptionalFile = None
    """External: the daemon's client certificate. Embedded: the server's own, instead of one by our authority."""
    tls_key: OptionalFile = None
    js_domain: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """External: the JetStream domain, where the servers are a leaf node's."""
    bucket_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """Stands before every bucket and stream name, so that two gateways can share one server.

    Heartbeats and renewals have none: the edge hosts of the two belong in accounts of their own.
    """
    config_bucket: str = Field(default="config", pattern=r"^[A-Za-z0-9_-]+$")
    replicas: int = Field(default=1, ge=1, le=5)
    """Of every bucket and stream."""


class IdentitySettings(_Section):
    """Certificates and NATS credentials of services."""

    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,255}$")] = "jetway"
    """What stands in every certificate's name, spiffe://<trust domain>/. Those out keep theirs."""
    certificate_lifetime: Annotated[Duration, Field(le=LONGEST_LIFETIME)] = timedelta(days=30)
    """Of a service's certificate, until it is renewed."""
    credentials_lifetime: Annotated[Duration, Field(le=LONGEST_LIFETIME)] = timedelta(days=30)
    """Of a service's NATS credentials, until they are renewed."""
    ca_cert: OptionalFile = None
    """The operator's authority instead of the gateway's own: the certificate that signs, then up to the root."""
    ca_key: OptionalFile = None
    """Its private key, PEM, not encrypted, mode 0600."""


class VaultSettings(_Section):
    """Encryption of the secrets in the ledger."""

    key_file: OptionalFile = None
    """Keys, one a line; none: systemd's credential `jetway-vault.keys`, else `keys/vault.keys` in state_dir."""


class DatabaseSettings(_Section):
    """The registry database."""

    url: SecretStr = SecretStr("")
    """`sqlite:///path`, `proton://user:password@host:port/database`, or `protons://` for Proton over TLS.

    Empty: registry.db in the state directory.
    """
    password_file: OptionalFile = None
    """Proton only: the file that holds the password, in place of one in the URL."""
    tls_ca: OptionalFile = None
    """`protons://` only: the authority of the server's certificate; none: the system's own."""


class HeartbeatSettings(_Section):
    """What counts as alive."""

    subject_prefix: str = Field(default="edge.heartbeat", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    interval: Duration = timedelta(seconds=30)
    """For a service that names none."""
    late_after: float = Field(default=2.0, gt=1.0)
    """× interval."""
    offline_after: float = Field(default=3.0, gt=1.0)
    """× interval."""
    flush_interval: Duration = timedelta(seconds=60)
    """How often last_seen goes to the database, for changed services only."""
    flap_changes: int = Field(default=6, ge=2, le=40)
    """More changes of its liveness than this within `flap_window`: the service is flapping."""
    flap_window: Duration = timedelta(minutes=10)
    """For how long a change counts."""


class LifecycleSettings(_Section):
    """How long things last."""

    inactive_after: Duration = timedelta(hours=24)
    archive_after: Duration = timedelta(days=90)
    pending_expires_after: Duration = timedelta(days=30)
    revoked_kept: Duration = timedelta(days=90)
    deleted_kept: Duration = timedelta(days=7)
    audit_kept: Duration = timedelta(days=90)
    archive_dir: OptionalFile = None
    """Where what is purged is written before, as compressed JSON lines; empty: archive/ in the state directory."""
    reconcile_interval: Duration = timedelta(hours=1)
    """How often everything that is derived is compared with the ledger."""
    token_ttl: Duration = timedelta(hours=24)
    """For a package that names none."""
    implicit_registration: Literal["allow", "quarantine", "deny"] = "quarantine"
    """A heartbeat of an unknown service: active at once, pending until approved, or refused."""
    implicit_limit: int = Field(default=1000, ge=0)
    """Services that may wait for approval at one time; further unknown ones are refused and counted."""
    implicit_per_sender: int = Field(default=100, ge=1)
    """Of those, how many may be one poller's with what is beneath it; without credentials, one address's."""
    implicit_per_minute: int = Field(default=6000, ge=1)
    """Unknown services that are registered in a minute at most; the others are, when they beat again."""
    known_pollers: tuple[ServiceId, ...] = ()
    """Registered at start with source config; never brought back if revoked or deleted."""


class AdmissionSettings(_Section):
    """Whether unknown pollers are refused, only counted, or not asked about."""

    mode: Literal["enforce", "observe", "off"] = "enforce"


class MetricsSettings(_Section):
    """What /metrics tells beside counts."""

    per_service: bool = False
    """Whether each service has a series with its heartbeat's age: many services make many series."""
    per_service_limit: int = Field(default=1000, ge=1, le=100_000)
    """Further services are left out, and counted."""


class WebhookSettings(_Section):
    """Where alerts go."""

    url: Annotated[SecretStr, AfterValidator(require_webhook_url)]
    """https://, or http:// with `allow_private`. Hidden everywhere: what follows the host may be a secret."""
    secret_file: Path
    """The secret that signs, at least 16 characters."""
    events: tuple[AlertKind, ...] = tuple(AlertKind)
    """Which kinds; all, where it is left out."""
    allow_private: Annotated[bool | tuple[str, ...], BeforeValidator(require_bool_or_networks)] = False
    """Whether it may be on a private network, or on this machine; or the only networks where it may."""
    tls_ca: OptionalFile = None
    """The authority of its certificate, where the system does not know it."""

    @model_validator(mode="after")
    def _plain_stays_at_home(self) -> Self:
        if self.url.get_secret_value().startswith("http://") and not self.allow_private:
            raise ValueError("http:// only with allow_private")
        return self

    @property
    def host(self) -> str:
        """What may be told of the address."""
        return urlsplit(self.url.get_secret_value()).hostname or ""


class AlertsSettings(_Section):
    """What is told of troubles."""

    webhooks: tuple[WebhookSettings, ...] = ()
    """Who is told."""
    repeat_after: Duration = timedelta(hours=1)
    """The same of the same service is not told again before."""

    stuck_pending_after: Duration = timedelta(hours=24)
    """A service that stays pending for longer is stuck."""


class LogSettings(_Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON elsewhere."""


def default_state_dir() -> Path:
    """`$STATE_DIRECTORY` when systemd gives one, else the platform's user state folder."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "jetway"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "jetway"


class Settings(BaseSettings):
    """All settings, frozen. Environment variables win over the file."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="JETWAY_", env_nested_delimiter="__", validate_default=True
    )

    state_dir: Path = Field(default_factory=default_state_dir)
    http: HttpSettings = HttpSettings()
    nats: NatsSettings = NatsSettings()
    identity: IdentitySettings = IdentitySettings()
    vault: VaultSettings = VaultSettings()
    database: DatabaseSettings = DatabaseSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()
    admission: AdmissionSettings = AdmissionSettings()
    metrics: MetricsSettings = MetricsSettings()
    alerts: AlertsSettings = AlertsSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file, which comes in as init values."""
        return (env_settings, init_settings)

    @property
    def public_url(self) -> str:
        """The gateway's address for tokens and install commands, without a trailing slash."""
        scheme = "http" if self.http.tls == "off" else "https"
        return (self.http.public_url or f"{scheme}://{self.http.listen}").rstrip("/")

    @property
    def pins_own_authority(self) -> bool:
        """Whether the first contact meets a certificate of the gateway's own authority: tokens then name it."""
        return self.http.tls == "own" and not self.http.trusted_proxies

    @property
    def database_url(self) -> str:
        """The database's URL, defaulted."""
        return (
            self.database.url.get_secret_value() or f"sqlite:///{self.state_dir.absolute() / 'registry.db'}"
        )

    @property
    def database_path(self) -> Path:
        """The SQLite file, absolute: `sqlite:///var/lib/x.db` and `sqlite:////var/lib/x.db` are the same."""
        return Path("/" + self.database_url.removeprefix("sqlite:///").lstrip("/"))

    @property
    def archive_dir(self) -> Path:
        """Where purged records are archived."""
        return self.lifecycle.archive_dir or self.state_dir / "archive"

    @property
    def nats_public_urls(self) -> tuple[str, ...]:
        """What edge hosts are told."""
        scheme = "tls" if self.nats_tls else "nats"
        own = self.nats.urls if self.nats.mode == "external" else (f"{scheme}://{self.nats.listen}",)
        return self.nats.public_urls or own

    @property
    def nats_credentials(self) -> bool:
        """Whether the embedded server asks for credentials."""
        if self.nats.mode == "external" or self.nats.credentials == "none":
            return False
        return self.nats.credentials == "required" or self.nats_is_public

    @property
    def proves_senders(self) -> bool:
        """Whether edge hosts have credentials of ours, that let each speak for itself alone."""
        return self.nats_credentials or self.nats.account_signing_key_file is not None

    @property
    def heartbeat_proof(self) -> Literal["jwt", "none"]:
        """What shows that a heartbeat is by who it says."""
        return "jwt" if self.proves_senders else "none"

    @property
    def nats_is_public(self) -> bool:
        """Whether the embedded server is reached from elsewhere."""
        return self.nats.mode == "embedded" and not is_loopback(split_address(self.nats.listen)[0])

    @property
    def nats_tls(self) -> bool:
        """Whether the embedded server speaks TLS."""
        return self.nats_is_public or (self.nats.mode == "embedded" and self.nats.tls_cert is not None)

    @property
    def interval_seconds(self) -> int:
        """The default heartbeat interval in whole seconds."""
        return max(1, round(self.heartbeat.interval.total_seconds()))


CLIENT_VARIABLES = frozenset({"JETWAY_URL", "JETWAY_TOKEN", "JETWAY_JOIN_TOKEN", "JETWAY_CONFIG"})
"""Environment variables that speak to the client commands, not to the daemon."""


def load_settings(file: Path | None = None, *, overrides: dict[str, Any] | None = None) -> Settings:
    """Read the file and the environment. Raises StartupError with one line per wrong setting."""
    values = _read_toml(file) if file else {}
    values.update(overrides or {})
    _refuse_unknown_variables()
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise StartupError(_explain(error, file)) from None
    except SettingsError as error:
        raise StartupError(f"the environment: {error}; lists and tables are given as JSON") from None
    check_together(settings)
    return settings


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise StartupError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(f"{file} is not TOML: {error}") from None


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores unknown top-level variables; a typing error should not pass in silence."""
    for name in os.environ:
        if (
            not name.startswith("JETWAY_")
            or name in CLIENT_VARIABLES
            or name.startswith(("JETWAY_TEST_", "JETWAY_CI"))
        ):
            continue
        section = name.removeprefix("JETWAY_").lower().partition("__")[0]
        if section not in Settings.model_fields:
            raise StartupError(f"{name}: there is no such setting")


def _explain(error: ValidationError, file: Path | None) -> str:
    where = f"{file}: " if file else ""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"])
        message = "there is no such setting" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{where}{key}: {message}")
    return "\n".join(lines)
