"""Whose request a proxy passes on, and by which scheme it came to it.

X-Forwarded-For and X-Forwarded-Proto are believed from the proxies in the settings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import web

_MOST = 20
"""Addresses looked at, from the nearest on. Chains of proxies are shorter; a header can be longer."""

Address = IPv4Address | IPv6Address


class Proxies:
    """The proxies that are trusted to say who is behind them."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(text) for text in networks]

    def client_of(self, request: web.Request) -> str:
        """The address that a request came from, as far as it is known from somebody trusted.

        The header is read from its end, where the nearest proxy wrote. What stands before the first address that
        is no proxy of ours anybody may have sent.
        """
        nearest = request.remote or ""
        if not self._networks:
            return nearest
        if not self._trusted(nearest):
            return nearest
        named = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for text in reversed(named[-_MOST:]):
            address = _address(text)
            if address is None:
                break
            nearest = str(address)
            if not self._trusted(nearest):
                break
        return nearest

    def speaks_https(self, request: web.Request) -> bool:
        """Whether a trusted proxy says that HTTPS was spoken on the way to it.

        In a chain of proxies any of them may be the one that ends TLS, so one word of it is enough.
        """
        if not self._networks or not self._trusted(request.remote or ""):
            return False
        named = ",".join(request.headers.getall("X-Forwarded-Proto", [])).split(",")
        return any(text.strip().lower() == "https" for text in named[-_MOST:])

    def _trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    # Where one socket listens for both kinds, the older kind comes so.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
