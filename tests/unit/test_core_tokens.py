"""Tokens taken apart: whatever is not one is refused in one way."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jetway.core.errors import Code, RefusedError
from jetway.core.ids import ServiceType
from jetway.core.tokens import (
    LAST_SECOND,
    MAX_LENGTH,
    PREFIX,
    Claims,
    decode64,
    encode64,
    join_token,
    signing_input,
    split_token,
)
from support.builders import PACKAGE_ID

CLAIMS = Claims(
    gateway="https://gw.example:8080",
    package_id=PACKAGE_ID,
    generation=1,
    service_type=ServiceType.AGENT,
    service_id="a1",
    expires_at=1_772_700_000,
    secret="s3cret",
)
SIGNED = signing_input(CLAIMS)
TOKEN = join_token(SIGNED, b"\x00" * 64)


def with_claims(**changes: object) -> str:
    document = json.loads(decode64(SIGNED.decode().split(".")[1])) | changes
    return f"{PREFIX}.{encode64(json.dumps(document).encode())}.{encode64(b'sig')}"


def refused(token: str) -> None:
    with pytest.raises(RefusedError) as caught:
        split_token(token)
    assert caught.value.refused.code is Code.TOKEN_MALFORMED
    assert caught.value.__cause__ is None
    assert caught.value.refused.field == "token"


def test_a_token_comes_apart_as_it_was_put_together() -> None:
    parts = split_token(TOKEN)
    assert parts.claims == CLAIMS
    assert (parts.signed, parts.signature) == (SIGNED, b"\x00" * 64)


def test_the_same_claims_give_the_same_text() -> None:
    assert signing_input(replace(CLAIMS)) == SIGNED
    assert signing_input(replace(CLAIMS, generation=2)) != SIGNED


def test_a_secret_does_not_show() -> None:
    assert "s3cret" not in repr(CLAIMS)
    assert "s3cret" not in repr(split_token(TOKEN))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "jw1",
        "jw1.",
        "jw1..",
        "jw1.e30",
        "jw1.e30.",
        "jw1..e30",
        "jw2" + TOKEN[3:],
        "JW1" + TOKEN[3:],
        " " + TOKEN,
        TOKEN + "\n",
        TOKEN + "=",
        TOKEN + ".x",
        TOKEN[:-1],
        TOKEN.replace(".", ".é", 1),
        "jw1.\ud800.\ud800",
        "jw1." + "A" * MAX_LENGTH + ".AA",
        "jw1.!!!!.AA",
        f"jw1.{encode64(b'[]')}.AA",
        f"jw1.{encode64(b'null')}.AA",
        f"jw1.{encode64(b'{')}.AA",
        f"jw1.{encode64(bytes([255] * 9))}.AA",
        f"jw1.{encode64(b'[' * 1200)}.AA",
        "\x00" * 30,
    ],
    ids=lambda token: ascii(token[:16]),
)
def test_what_is_not_a_token_is_malformed(token: str) -> None:
    refused(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"service_id": "Not an id"},
        {"service_id": "a\n"},
        {"service_type": "robot"},
        {"generation": "x"},
        {"expires_at": None},
        {"expires_at": -1},
        {"expires_at": LAST_SECOND},
        {"expires_at": 10**30},
        {"package_id": 7},
        {"gateway": []},
    ],
    ids=str,
)
def test_claims_of_a_wrong_kind_are_malformed(changes: dict[str, object]) -> None:
    refused(with_claims(**changes))


def test_the_last_second_that_a_token_may_name_can_be_judged() -> None:
    claims = split_token(with_claims(expires_at=LAST_SECOND - 1)).claims
    assert not claims.expired(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_token_expires_when_its_whole_second_is_over() -> None:
    last = datetime.fromtimestamp(CLAIMS.expires_at, UTC)
    assert not CLAIMS.expired(last + timedelta(milliseconds=999))
    assert CLAIMS.expired(last + timedelta(seconds=1))


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", bytes(range(256))])
def test_base64url_reads_back_without_padding(data: bytes) -> None:
    text = encode64(data)
    assert "=" not in text
    assert decode64(text) == data
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize("text", ["AB", "A", "AAA=", "AA==", "A A", "AA\n", "+/8", "é", "AAAAA"])
def test_one_text_for_one_value(text: str) -> None:
    """`AB` and `AA` would decode to the same byte: only the canonical form is taken."""
    with pytest.raises(ValueError):
        decode64(text)
