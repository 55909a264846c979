"""The real driver, as the tests use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from proton_driver.client import Client

__all__ = ["Client", "connect"]


@contextmanager
def connect(url: str, **options: Any) -> Iterator[Client]:
    """A client of the server at that address; options go into it, such as `query_mode='table'`."""
    terms = urlencode({"connect_timeout": 5, "send_receive_timeout": 15, **options})
    client = Client.from_url(f"{url}{'&' if '?' in url else '?'}{terms}")
    try:
        yield client
    finally:
        client.disconnect()
