"""A genuine token, altered at every one of its bytes and in every way at once: never taken for ours."""

from __future__ import annotations

import base64
import string
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from jetway.adapters.authority.keys import TokenKeys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.core.errors import Code, RefusedError
from jetway.core.ids import ServiceType
from jetway.core.tokens import Claims, decode64, encode64, join_token, split_token
from support.builders import uid

AUTHORITY = TokenAuthority(TokenKeys(Ed25519PrivateKey.from_private_bytes(bytes(32)), bytes(32)))
CLAIMS = Claims(
    gateway="https://gateway.example",
    package_id=uid(1),
    generation=1,
    service_type=ServiceType.AGENT,
    service_id="core-switch-room",
    expires_at=4_000_000_000,
)
TOKEN = AUTHORITY.issue_token(CLAIMS)
ALPHABET = string.ascii_letters + string.digits + "-_."
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the signature's group: adding it to the second half gives another spelling of the same number."""


def refused(token: str) -> Code:
    with pytest.raises(RefusedError) as caught:
        AUTHORITY.read_token(token)
    return caught.value.refused.code


def alterations(at: int) -> Iterator[str]:
    """The token with the byte there changed, doubled, taken out, or exchanged with the next."""
    before, own, after = TOKEN[:at], TOKEN[at], TOKEN[at + 1 :]
    for other in (
        *ALPHABET[at % 5 :: 5],
        own.swapcase(),
        chr(ord(own) ^ 1),
        "=",
        " ",
        "\n",
        "\0",
        "é",
        "\ud800",
    ):
        if other != own:
            yield before + other + after
    yield before + own + own + after
    yield before + after
    if after and after[0] != own:
        yield before + after[0] + own + after[1:]


def test_the_token_as_it_is_passes() -> None:
    assert AUTHORITY.read_token(TOKEN).service_id == CLAIMS.service_id


@pytest.mark.parametrize("start", range(0, len(TOKEN), 50))
def test_every_byte_counts(start: int) -> None:
    for at in range(start, min(start + 50, len(TOKEN))):
        for altered in alterations(at):
            assert refused(altered) in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN), (at, altered[at : at + 1])


def test_every_bit_of_the_signature_counts() -> None:
    parts = split_token(TOKEN)
    for bit in range(len(parts.signature) * 8):
        flipped = bytearray(parts.signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(join_token(parts.signed, bytes(flipped))) is Code.TOKEN_UNKNOWN


def test_a_signature_has_one_spelling() -> None:
    parts = split_token(TOKEN)
    scalar = int.from_bytes(parts.signature[32:], "little")
    for times in range(1, 8):
        again = parts.signature[:32] + (scalar + times * ORDER).to_bytes(32, "little")
        assert refused(join_token(parts.signed, again)) is Code.TOKEN_UNKNOWN
    assert refused(join_token(parts.signed, parts.signature + b"\0")) is Code.TOKEN_UNKNOWN
    assert refused(join_token(parts.signed, parts.signature[:-1])) is Code.TOKEN_UNKNOWN
    assert refused(join_token(parts.signed, bytes(64))) is Code.TOKEN_UNKNOWN


def test_the_same_claims_in_other_words_are_not_signed() -> None:
    _, body, signature = TOKEN.split(".")
    text = decode64(body)
    for other in (text.replace(b":", b": ", 1), text + b" ", b" " + text, text.replace(b"{", b'{"x":1,', 1)):
        assert refused(f"jw1.{encode64(other)}.{signature}") in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN)
    padded = base64.urlsafe_b64encode(text).decode()
    assert padded == body or refused(f"jw1.{padded}.{signature}") is Code.TOKEN_MALFORMED


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(TOKEN)),
            st.integers(0, 20),
            st.text(st.sampled_from(ALPHABET), max_size=20) | st.text(max_size=4),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_edit_is_refused(edits: list[tuple[int, int, str]]) -> None:
    token = TOKEN
    for at, cut, insert in edits:
        token = token[:at] + insert + token[at + cut :]
    if token != TOKEN:
        assert refused(token) in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN)


@given(
    st.sampled_from(["gateway", "package_id", "generation", "service_id", "expires_at", "ca_pin"]), st.data()
)
def test_no_signature_carries_over_to_other_claims(name: str, data: st.DataObject) -> None:
    values = {
        "gateway": st.text(max_size=40),
        "package_id": st.uuids().map(str),
        "generation": st.integers(0, 9),
        "service_id": st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True),
        "expires_at": st.integers(0, 5_000_000_000),
        "ca_pin": st.text(max_size=40),
    }
    other = replace(CLAIMS, **{name: data.draw(values[name])})
    if other == CLAIMS:
        return
    signed = AUTHORITY.issue_token(other).rpartition(".")[0]
    assert refused(f"{signed}.{TOKEN.rpartition('.')[2]}") is Code.TOKEN_UNKNOWN
