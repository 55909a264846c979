"""The client of nats-py, held to TLS where TLS is asked for: for the daemon's link and the edge host's."""

from __future__ import annotations

from nats.aio.client import Client
from nats.errors import Error


class SecureClient(Client):
    """Sends nothing in the clear once `tls_only` is set.

    Whether the link is encrypted nats-py leaves to the server's greeting, which is not encrypted yet: whoever
    stands in between takes `tls_required` out of it and would be told the credentials and a signature.
    """

    tls_only = False

    def _connect_command(self) -> bytes:
        """The first thing that is sent: with the JWT, and the server's nonce signed."""
        if self.tls_only and not self._is_encrypted():
            raise Error("the server does not offer TLS, which is asked for: nothing was sent to it")
        return bytes(super()._connect_command())

    def _is_encrypted(self) -> bool:
        scheme = self._current_server.uri.scheme if self._current_server else ""
        return scheme == "wss" or (scheme != "ws" and bool(self._server_info.get("tls_required")))
