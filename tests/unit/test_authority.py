"""Keys and tokens: only ours are read, and nothing secret shows."""

from __future__ import annotations

import base64
import json
import logging
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from jetway.adapters.authority.keys import SECRET_FILE, SIGNING_FILE, TokenKeys, load_or_create_keys
from jetway.adapters.authority.tokens import TokenAuthority
from jetway.core.errors import Code, PortError, RefusedError, StartupError
from jetway.core.ids import ServiceType
from jetway.core.tokens import Claims, encode64, join_token, signing_input

CLAIMS = Claims(
    gateway="https://gateway.example",
    package_id="0b0c9d64-6a39-4d4b-9d5e-5f2a4b1c7e11",
    generation=1,
    service_type=ServiceType.AGENT,
    service_id="core-switch-room",
    expires_at=1_795_424_000,
)
KEYS = TokenKeys(Ed25519PrivateKey.from_private_bytes(b"s" * 32), b"k" * 32)
AUTHORITY = TokenAuthority(KEYS)
TOKEN = AUTHORITY.issue_token(CLAIMS)


def _assert_no_context(error: BaseException) -> None:
    """A library's error could quote what it was given."""
    assert error.__context__ is None or error.__suppress_context__


def _code(token: str, authority: TokenAuthority = AUTHORITY) -> Code:
    with pytest.raises(RefusedError) as caught:
        authority.read_token(token)
    _assert_no_context(caught.value)
    return caught.value.refused.code


class TestTokens:
    def test_what_was_issued_is_read(self) -> None:
        claims = AUTHORITY.read_token(TOKEN)
        assert replace(claims, secret="") == CLAIMS
        assert len(base64.urlsafe_b64decode(claims.secret + "=")) == 32

    def test_a_retry_gives_the_identical_text(self) -> None:
        again = TokenAuthority(TokenKeys(Ed25519PrivateKey.from_private_bytes(b"s" * 32), b"k" * 32))
        assert again.issue_token(replace(CLAIMS)) == TOKEN
        assert again.issue_token(replace(CLAIMS, secret="chosen by the caller")) == TOKEN

    def test_every_package_and_generation_has_a_secret_of_its_own(self) -> None:
        variants = [
            CLAIMS,
            replace(CLAIMS, generation=2),
            replace(CLAIMS, generation=11),
            replace(CLAIMS, package_id="7d5c4b0e-8f0f-4f1c-9a76-1d1f5f0f7a10"),
        ]
        secrets = {AUTHORITY.read_token(AUTHORITY.issue_token(claims)).secret for claims in variants}
        assert len(secrets) == len(variants)

    def test_expiry_is_not_judged_here(self) -> None:
        assert AUTHORITY.read_token(AUTHORITY.issue_token(replace(CLAIMS, expires_at=1))).expires_at == 1

    @given(position=st.integers(0, len(TOKEN) - 1), char=st.characters(codec="utf-8"))
    def test_any_altered_character_is_refused(self, position: int, char: str) -> None:
        altered = TOKEN[:position] + char + TOKEN[position + 1 :]
        if altered != TOKEN:
            assert _code(altered) in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN)

    @given(position=st.integers(0), change=st.integers(1, 255))
    def test_any_altered_byte_of_the_claims_or_signature_is_refused(self, position: int, change: int) -> None:
        for part in (1, 2):
            parts = TOKEN.split(".")
            data = bytearray(base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4)))
            data[position % len(data)] ^= change
            parts[part] = encode64(bytes(data))
            assert _code(".".join(parts)) in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN)

    @given(cut=st.integers(0, len(TOKEN) - 1))
    def test_a_token_that_was_not_copied_whole_is_refused(self, cut: int) -> None:
        assert _code(TOKEN[:cut]) in (Code.TOKEN_MALFORMED, Code.TOKEN_UNKNOWN)

    @given(text=st.text())
    def test_anything_else_is_malformed(self, text: str) -> None:
        assert _code(text) is Code.TOKEN_MALFORMED

    def test_changed_claims_under_the_old_signature_are_unknown(self) -> None:
        _, body, signature = TOKEN.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["service_id"] = "another"
        assert _code(f"jw1.{encode64(json.dumps(claims).encode())}.{signature}") is Code.TOKEN_UNKNOWN

    def test_another_gateways_token_is_unknown(self) -> None:
        other = TokenAuthority(TokenKeys(Ed25519PrivateKey.generate(), KEYS.secret))
        assert _code(other.issue_token(CLAIMS)) is Code.TOKEN_UNKNOWN

    @pytest.mark.parametrize("secret", ["", "guess", "é", "x" * 43])
    def test_signed_by_us_with_another_secret_is_unknown(self, secret: str) -> None:
        signed = signing_input(replace(CLAIMS, secret=secret))
        assert _code(join_token(signed, KEYS.signing.sign(signed))) is Code.TOKEN_UNKNOWN

    def test_a_token_that_nobody_could_read_is_not_issued(self) -> None:
        with pytest.raises(PortError, match="public_url is too long"):
            AUTHORITY.issue_token(replace(CLAIMS, gateway="https://" + "x" * 2000))

    def test_secrets_show_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        claims = AUTHORITY.read_token(TOKEN)
        other = TokenAuthority(TokenKeys(KEYS.signing, b"z" * 32))
        shown = [repr(claims), str(claims), repr(KEYS), str(KEYS), repr(AUTHORITY), str(AUTHORITY)]
        with caplog.at_level(logging.DEBUG), pytest.raises(RefusedError) as caught:
            other.read_token(TOKEN)
        shown += [repr(caught.value), str(caught.value), str(caught.value.refused), caplog.text]
        raw = base64.urlsafe_b64decode(claims.secret + "=")
        for secret in (claims.secret, TOKEN, raw.hex(), "kkkkkkkk", "ssssssss", str(KEYS.secret)):
            assert not [text for text in shown if secret in text]


class TestKeys:
    def test_the_first_start_makes_them_private(self, tmp_path: Path) -> None:
        directory = tmp_path / "state" / "keys"
        load_or_create_keys(directory, first_start=True)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {
            SIGNING_FILE: 0o600,
            SECRET_FILE: 0o600,
        }

    def test_later_starts_read_the_same(self, tmp_path: Path) -> None:
        first = load_or_create_keys(tmp_path / "keys", first_start=True)
        for first_start in (False, True):
            again = load_or_create_keys(tmp_path / "keys", first_start=first_start)
            assert (again.secret, again.key_id) == (first.secret, first.key_id)
            assert TokenAuthority(again).issue_token(CLAIMS) == TokenAuthority(first).issue_token(CLAIMS)

    def test_a_first_start_that_was_cut_short_is_completed(self, tmp_path: Path) -> None:
        first = load_or_create_keys(tmp_path / "keys", first_start=True)
        (tmp_path / "keys" / SECRET_FILE).unlink()
        assert load_or_create_keys(tmp_path / "keys", first_start=True).key_id == first.key_id

    def test_no_two_gateways_share_them(self, tmp_path: Path) -> None:
        one, two = (load_or_create_keys(tmp_path / name, first_start=True) for name in "ab")
        assert one.key_id != two.key_id
        assert one.secret != two.secret

    def test_the_key_id_depends_on_the_key_alone(self) -> None:
        assert KEYS.key_id == AUTHORITY.key_id == replace(KEYS, secret=b"other" * 8).key_id
        assert len(KEYS.key_id) == 16
        int(KEYS.key_id, 16)

    def test_the_secrets_id_depends_on_the_secret_alone_and_does_not_show_it(self) -> None:
        other = replace(KEYS, secret=b"other" * 8)
        assert other.secret_id != KEYS.secret_id == replace(other, secret=KEYS.secret).secret_id
        assert len(KEYS.secret_id) == 16
        assert KEYS.secret_id not in KEYS.secret.hex()

    @pytest.mark.parametrize("name", [SIGNING_FILE, SECRET_FILE])
    def test_a_missing_one_is_never_replaced(self, tmp_path: Path, name: str) -> None:
        load_or_create_keys(tmp_path / "keys", first_start=True)
        file = tmp_path / "keys" / name
        file.unlink()
        with pytest.raises(StartupError, match=f"{file} is missing"):
            load_or_create_keys(tmp_path / "keys", first_start=False)
        assert not file.exists()

    def test_a_missing_directory_is_never_made(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match="is missing"):
            load_or_create_keys(tmp_path / "keys", first_start=False)
        assert not (tmp_path / "keys").exists()

    @pytest.mark.parametrize("first_start", [True, False])
    @pytest.mark.parametrize("name", [SIGNING_FILE, SECRET_FILE])
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
    def test_one_that_others_may_touch(self, tmp_path: Path, name: str, mode: int, first_start: bool) -> None:
        load_or_create_keys(tmp_path / "keys", first_start=True)
        file = tmp_path / "keys" / name
        file.chmod(mode)
        with pytest.raises(
            StartupError, match=rf"{file} is open to other users \(mode 0{mode:o}\): chmod 600"
        ):
            load_or_create_keys(tmp_path / "keys", first_start=first_start)

    def test_a_directory_that_others_may_write(self, tmp_path: Path) -> None:
        load_or_create_keys(tmp_path / "keys", first_start=True)
        (tmp_path / "keys").chmod(0o770)
        with pytest.raises(StartupError, match="chmod 700"):
            load_or_create_keys(tmp_path / "keys", first_start=False)

    @pytest.mark.parametrize("first_start", [True, False])
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (SIGNING_FILE, b""),
            (SIGNING_FILE, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            (SECRET_FILE, b""),
            (SECRET_FILE, b"not base64!"),
            (SECRET_FILE, base64.b64encode(b"short")),
            (SECRET_FILE, b"\xff\xfe"),
        ],
    )
    def test_a_damaged_one(self, tmp_path: Path, name: str, content: bytes, first_start: bool) -> None:
        load_or_create_keys(tmp_path / "keys", first_start=True)
        file = tmp_path / "keys" / name
        file.write_bytes(content)
        with pytest.raises(StartupError, match=f"{file} is damaged") as caught:
            load_or_create_keys(tmp_path / "keys", first_start=first_start)
        _assert_no_context(caught.value)
        assert file.read_bytes() == content

    def test_a_key_of_another_kind(self, tmp_path: Path) -> None:
        load_or_create_keys(tmp_path / "keys", first_start=True)
        other = generate_private_key(SECP256R1())
        pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "keys" / SIGNING_FILE).write_bytes(pem)
        with pytest.raises(StartupError, match="is not an Ed25519 key"):
            load_or_create_keys(tmp_path / "keys", first_start=False)

    def test_a_file_where_the_directory_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "keys").touch()
        with pytest.raises(StartupError, match=str(tmp_path / "keys")):
            load_or_create_keys(tmp_path / "keys", first_start=True)
