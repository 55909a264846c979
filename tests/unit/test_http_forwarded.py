"""Whose request it is: what proxies of ours say is believed, and nobody else."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from jetway.entry.http.forwarded import Proxies

OURS = ["10.0.0.0/24", "127.0.0.1", "2001:db8::/64"]


class Transport:
    """A connection from some address."""

    def __init__(self, address: str) -> None:
        self._peer = (address, 40_000)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._peer if name == "peername" else default


def client(peer: str, *forwarded: str, ours: list[str] = OURS) -> str:
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwarded])
    request = make_mocked_request("GET", "/", headers=headers, transport=Transport(peer))
    return Proxies(ours).client_of(request)


@pytest.mark.parametrize(
    ("peer", "forwarded", "who"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.7",), "203.0.113.9"),
        ("10.0.0.7", (), "10.0.0.7"),
        ("10.0.0.7", ("198.51.100.7",), "198.51.100.7"),
        ("::ffff:10.0.0.7", ("198.51.100.7",), "198.51.100.7"),
        ("10.0.0.7", ("1.1.1.1, 198.51.100.7",), "198.51.100.7"),
        ("10.0.0.7", ("1.1.1.1", "198.51.100.7"), "198.51.100.7"),
        ("10.0.0.7", ("198.51.100.7, 10.0.0.8, 127.0.0.1",), "198.51.100.7"),
        ("2001:db8::1", ("2001:db8:1::7",), "2001:db8:1::7"),
        ("10.0.0.7", ("10.0.0.8",), "10.0.0.8"),
        ("10.0.0.7", ("198.51.100.7, unknown, 10.0.0.8",), "10.0.0.8"),
        ("10.0.0.7", ("<script>",), "10.0.0.7"),
        ("10.0.0.7", ("",), "10.0.0.7"),
    ],
)
def test_the_nearest_address_that_is_no_proxy_of_ours(
    peer: str, forwarded: tuple[str, ...], who: str
) -> None:
    assert client(peer, *forwarded) == who


def test_without_settings_nobody_is_believed() -> None:
    assert client("127.0.0.1", "198.51.100.7", ours=[]) == "127.0.0.1"


def test_an_endless_header_is_read_in_part() -> None:
    assert client("10.0.0.7", "198.51.100.7" + ",10.0.0.9" * 500) == "10.0.0.9"


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"), max_size=60), max_size=3))
def test_whatever_is_sent_is_an_address_or_nothing(values: list[str]) -> None:
    assert client("203.0.113.9", *values) == "203.0.113.9"
    assert client("10.0.0.7", *values).isprintable()
