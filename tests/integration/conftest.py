"""Fixtures of the integration tests."""

from support.nats_server import gateway, nats_server

__all__ = ["gateway", "nats_server"]
