"""What settings are made of: durations, addresses, URLs, files; each refuses what is none, and says why."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
)

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_LONGEST = timedelta(days=36_500)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """`30s`, `24h`, `90d`, `250ms` as a timedelta; anything else is left for pydantic to judge."""
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            raise ValueError("a duration is a number and a unit: ms, s, m, h or d, for example 30s")
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds > _LONGEST.total_seconds():
            raise ValueError(f"a duration is at most {_LONGEST.days}d")
        return timedelta(seconds=seconds)
    return value


def format_duration(value: timedelta) -> str:
    """The inverse of parse_duration, in the largest unit that is exact."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    Field(gt=timedelta(0), le=_LONGEST),
]


def _parse_address(value: object) -> str:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if host and port.isdecimal() and int(port) <= 65535:
            return value
    raise ValueError("an address is host:port, for example 127.0.0.1:8080")


Address = Annotated[str, BeforeValidator(_parse_address)]


def require_host_and_port(url: str) -> str:
    """A URL goes to edge hosts as it stands: one that nobody can take apart is found here, not there."""
    if not _VISIBLE.match(url):
        raise ValueError("must be visible ASCII characters (a host's name as xn--...), at most 512")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if url and not usable:
        raise ValueError("must hold a host, and a port from 1 to 65535 if any")
    if url and not _is_host(parts.hostname or ""):
        raise ValueError(
            "its host is no name: parts of 1 to 63 characters, 253 in all, with dots between them"
        )
    return url


def _is_host(host: str) -> bool:
    """Whether a resolver would take it at all."""
    name = host.removesuffix(".")
    return ":" in name or (len(name) <= 253 and all(1 <= len(part) <= 63 for part in name.split(".")))


def _require_nats_url(url: str) -> str:
    if not _NATS_URL.match(url):
        raise ValueError("must be the address of a NATS server, for example nats://nats.example:4222")
    return require_host_and_port(url)


_VISIBLE = re.compile(r"[\x21-\x7E]{0,512}\Z")
"""Whatever a URL holds goes into tokens, which have a length, and into shell scripts, which end at a NUL."""
_NATS_URL = re.compile(r"^(nats|tls|wss?)://[^\s/?#]+/?\Z")
NatsUrl = Annotated[str, AfterValidator(_require_nats_url)]


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of an `Address`; brackets of an IPv6 host are dropped."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


OptionalFile = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]
"""A file's path; the empty string is none."""


LONGEST_LIFETIME = timedelta(days=366)
"""Of what a service holds: what lasts longer is never renewed, so nobody knows whether renewal works."""


def _require_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError("an address or a network, for example 10.0.0.7 or 10.0.0.0/24") from None
    return text


Network = Annotated[str, AfterValidator(_require_network)]


def require_webhook_url(url: SecretStr) -> SecretStr:
    """The URL, which may hold a secret, or ValueError."""
    text = url.get_secret_value()
    if not text.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// (or http://, with allow_private)")
    require_host_and_port(text)
    return url


def require_bool_or_networks(value: object) -> object:
    """A bool, or a tuple of networks, or ValueError."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("true, false, or a list of the networks where it may be")
    return tuple(_require_network(str(each)) for each in value)
