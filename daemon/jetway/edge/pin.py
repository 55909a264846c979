"""The first contact with a gateway that has an authority of its own: its token says whom to trust.

The token holds the hash of the root's key, its pin. The root itself is asked for over a connection that nobody
vouches for, and without telling anything; it is trusted if its key has that hash, and then it alone. The token
goes over a second connection, to a server whose certificate that root vouches for.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jetway.core.tokens import pin_of
from jetway.edge.exchange import Answer, Endpoint, ExchangeError, UntrustedError, trust_anybody, trust_root
from jetway.edge.keys import DAMAGED

ROOT_PATH = "/api/edge/ca.pem"
_LIMIT: Final = 64 * 1024
_TIMEOUT: Final = 30.0
_PASSING = frozenset({429, 500, 502, 503, 504})


class Trust:
    """Whom to trust at an endpoint: the pinned root, fetched once, or without a pin whom the system trusts."""

    def __init__(self, endpoint: Endpoint, pin: str, send: Callable[..., Answer]) -> None:
        self._endpoint = endpoint
        self._pin = pin
        self._send = send
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        """For the connection that carries the token; None: the system's.

        Raises UntrustedError where the server does not have the pinned root, ExchangeError where it says nothing.
        """
        if self._pin and self._context is None:
            self._context = trust_root(self._fetch_root())
        return self._context

    def _fetch_root(self) -> str:
        answer = self._send(
            self._endpoint, "GET", ROOT_PATH, timeout=_TIMEOUT, limit=_LIMIT, context=trust_anybody()
        )
        if answer.status in _PASSING:
            raise ExchangeError(f"{self._endpoint.url}: the gateway cannot answer now ({answer.status})")
        root = find_root(answer.body, self._pin) if answer.status == 200 else None
        if root is None:
            raise UntrustedError(
                f"{self._endpoint.url}: this server does not have the authority that the token names. It is not"
                " the gateway that made the token, or somebody is in between; the token was not sent"
            )
        return root


def find_root(pem: bytes, pin: str) -> str | None:
    """The certificate, as PEM, whose key has this pin and which that key has signed; None if there is none."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except DAMAGED:
        return None
    return next((text for text in (_pinned(each, pin) for each in certificates) if text), None)


def _pinned(certificate: x509.Certificate, pin: str) -> str | None:
    try:
        key = certificate.public_key()
        if pin_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) != pin:
            return None
        # The key alone could stand in anybody's certificate, with other dates and rights.
        certificate.verify_directly_issued_by(certificate)
    except (*DAMAGED, InvalidSignature):
        return None
    return certificate.public_bytes(Encoding.PEM).decode()
