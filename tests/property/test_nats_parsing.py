"""Whatever is given for a NATS key or a JWT: a value or a refusal, never another exception."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jetway.adapters.authority.nats_jwt import read, sign
from jetway.adapters.authority.nats_users import NatsUsers
from jetway.adapters.authority.nkeys import Kind, NatsKey, read_public
from jetway.core.errors import RefusedError

NOW = datetime(2026, 11, 24, tzinfo=UTC)
USER, ACCOUNT = NatsKey.generate(Kind.USER), NatsKey.generate(Kind.ACCOUNT)
TOKEN = sign(ACCOUNT, USER.public, "x", {"type": "user"}, NOW, NOW + timedelta(days=1))
ALPHABET = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
KEYS = st.one_of(
    st.text(max_size=70),
    st.text(ALPHABET, min_size=55, max_size=59),
    st.builds(
        lambda place, letter: USER.public[:place] + letter + USER.public[place + 1 :],
        st.integers(0, 55),
        ALPHABET,
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["iss", "alg", "nats", "sub"]) | st.text(), inner)
    ),
    max_leaves=8,
)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


PARTS = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    JSON.map(part),
    st.sampled_from(TOKEN.split(".")),
)


@given(KEYS, st.sampled_from(Kind))
def test_keys(text: str, kind: Kind) -> None:
    with contextlib.suppress(ValueError):
        read_public(text, kind)
        assert text == USER.public
    with contextlib.suppress(ValueError):
        assert NatsKey.from_seed(text, kind).seed == text
    with contextlib.suppress(RefusedError):
        NatsUsers(None).check_key(text)


@given(KEYS, st.binary(max_size=100), st.binary(max_size=80))
def test_proofs(text: str, message: bytes, signature: bytes) -> None:
    assert NatsUsers(None).verify(text, message, signature) is False


@given(st.lists(PARTS, max_size=5).map(".".join) | st.text())
def test_jwts(token: str) -> None:
    with contextlib.suppress(ValueError):
        read(token)
        assert token == TOKEN


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_a_changed_jwt_is_never_accepted(place: int, letter: str) -> None:
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]
    with contextlib.suppress(ValueError):
        read(changed)
        # The last letter of a part may spell the same bytes in several ways.
        assert [_bytes(one) for one in changed.split(".")] == [_bytes(one) for one in TOKEN.split(".")]


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
