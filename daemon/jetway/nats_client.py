"""The client of nats-py, for the daemon's link and the edge host's: held to TLS, and to what flushing promises."""

from __future__ import annotations

from nats.aio.client import DEFAULT_FLUSH_TIMEOUT, Client
from nats.errors import Error


class SecureClient(Client):
    """Sends nothing in the clear once `tls_only` is set.

    Whether the link is encrypted nats-py leaves to the server's greeting, which is not encrypted yet: whoever
    stands in between takes `tls_required` out of it and would be told the credentials and a signature.
    """

    tls_only = False

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Return once the server has whatever was sent or subscribed to so far; `timeout` is in seconds.

        nats-py writes its ping at once, ahead of what still waits to be written: only a second one is behind it.
        """
        for _ in range(2):
            await super().flush(timeout)

    def _connect_command(self) -> bytes:
        """The first thing that is sent: with the JWT, and the server's nonce signed."""
        if self.tls_only and not self._is_encrypted():
            raise Error("the server does not offer TLS, which is asked for: nothing was sent to it")
        return bytes(super()._connect_command())

    def _is_encrypted(self) -> bool:
        scheme = self._current_server.uri.scheme if self._current_server else ""
        return scheme == "wss" or (scheme != "ws" and bool(self._server_info.get("tls_required")))
