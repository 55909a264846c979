"""The answer to a redeemed token, and the folder that keeps it.

The folder of a joined service:

    service.json            the answer without credentials; written last, so it means "joined"
    nats.creds              NATS credentials, where the gateway gave some
    ca.pem                  the authority of the NATS servers, where they have their own
    certificate.pem, key.pem, identity-ca.pem      the service's X.509 identity, where the gateway gave one
    keys-<package>.json     this host's own keys, made before the token was redeemed
    config/                 copies of the config documents, kept by `jetway run`
    backup-<time>/          what an earlier join left
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jetway.core.heartbeat import lineage_of
from jetway.core.ids import Lineage, ServiceId, ServiceType, children_watch_key, watch_key
from jetway.edge.errors import EdgeError, NotJoinedError

SERVICE_FILE = "service.json"
CREDS_FILE = "nats.creds"
CA_FILE = "ca.pem"
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"
IDENTITY_CA_FILE = "identity-ca.pem"
CONFIG_FOLDER = "config"

_SUBJECT = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"


class _Part(BaseModel):
    # A newer gateway may say more than this program knows.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ServicePart(_Part):
    """Who the service is."""

    service_type: ServiceType
    service_id: ServiceId
    parent_id: str = ""
    poller_id: str = ""


class HeartbeatPart(_Part):
    """Where and how often it says that it lives."""

    subject: str = Field(pattern=_SUBJECT, max_length=512)
    interval_seconds: int = Field(ge=1, le=86_400)


class GatewayPart(_Part):
    """Where the gateway itself is, and by what it is known."""

    url: str = ""
    ca_pin: str = ""


class NatsPart(_Part):
    """How it reaches NATS."""

    urls: tuple[str, ...] = Field(min_length=1)
    creds: str = Field(default="", repr=False)
    ca_pem: str = ""

    @model_validator(mode="after")
    def _known_schemes(self) -> NatsPart:
        for url in self.urls:
            if not url.startswith(("nats://", "tls://", "ws://", "wss://")):
                raise ValueError("a NATS address begins with nats://, tls://, ws:// or wss://")
        return self


class ConfigPart(_Part):
    """Where its configuration stands."""

    bucket: str = ""
    key: str = ""
    watch_bucket: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    watch_keys: tuple[str, ...] = ()
    live_subjects: tuple[str, ...] = ()
    js_api: str = Field(default="$JS.API", pattern=r"^\$JS\.([A-Za-z0-9_-]+\.)?API$")
    """What the subjects of JetStream's API begin with: another where it is in a domain."""


class IdentityPart(_Part):
    """Its X.509 identity, empty where the gateway gives none."""

    certificate_pem: str = ""
    ca_pem: str = ""
    spiffe_id: str = ""


class Joined(_Part):
    """A redeemed package."""

    package_id: str
    service: ServicePart
    heartbeat: HeartbeatPart
    gateway: GatewayPart = GatewayPart()
    nats: NatsPart
    config: ConfigPart
    identity: IdentityPart = IdentityPart()

    @model_validator(mode="after")
    def _consistent(self) -> Joined:
        """The keys and subjects must be the service's own: file names are made of them."""
        own = watch_key(self.lineage)
        if own not in self.config.watch_keys:
            raise ValueError(f"config.watch_keys: {own} is missing")
        if not any(subject.endswith(f".{own}") for subject in self.config.live_subjects):
            raise ValueError(f"config.live_subjects: none ends in {own}")
        return self

    @property
    def lineage(self) -> Lineage:
        """The service with its parents."""
        service = self.service
        ids = {
            ServiceType.POLLER: [service.service_id],
            ServiceType.AGENT: [service.parent_id, service.service_id],
            ServiceType.CHECKER: [service.poller_id, service.parent_id, service.service_id],
        }[service.service_type]
        return lineage_of(service.service_type, ids)

    @property
    def name(self) -> str:
        """`agent core-switch-room`, for people."""
        return f"{self.service.service_type.value} {self.service.service_id}"

    @property
    def own_key(self) -> str:
        """The service's key in the watch bucket."""
        return watch_key(self.lineage)

    @property
    def children_filter(self) -> str:
        """The filter of its children's keys, empty for a checker."""
        return children_watch_key(self.lineage)

    @property
    def live_prefix(self) -> str:
        """What stands before a key in its live subject, `edge.`."""
        for subject in self.config.live_subjects:
            if subject.endswith(f".{self.own_key}"):
                return subject.removesuffix(self.own_key)
        raise AssertionError("checked when the answer was read")


def parse_answer(data: bytes) -> Joined:
    """The gateway's answer. Raises EdgeError when it is not one."""
    try:
        return Joined.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "answer"
        raise EdgeError(f"the gateway's answer makes no sense: {where}: {first['msg']}") from None


def load_joined(folder: Path) -> Joined:
    """The service joined in `folder`. Raises NotJoinedError where there is none."""
    try:
        data = (folder / SERVICE_FILE).read_bytes()
    except FileNotFoundError:
        raise NotJoinedError(
            f"{folder} holds no joined service: run `jetway join --dir {folder}` first"
        ) from None
    except OSError as error:
        raise EdgeError(f"cannot read {folder / SERVICE_FILE}: {error.strerror}") from error
    try:
        return parse_answer(data)
    except EdgeError:
        raise EdgeError(f"{folder / SERVICE_FILE} is damaged: join again with a new token") from None
