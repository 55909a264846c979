"""The host's own keys: the right form, stable over attempts, usable for NATS."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from jetway.edge import keys
from jetway.edge.errors import EdgeError

PACKAGE = "0b9f3c1e-8f5e-4c55-9a3f-0d3a4f2f9f10"


def test_made_once_and_found_again(tmp_path: Path) -> None:
    first = keys.load_or_make(tmp_path, PACKAGE, 1, "core")
    assert keys.load_or_make(tmp_path, PACKAGE, 1, "core") == first
    assert keys.load_or_make(tmp_path, PACKAGE, 2, "core") != first
    assert keys.keys_file(tmp_path, PACKAGE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damaged", ["", "[]", "{", json.dumps({"package_id": PACKAGE})])
def test_a_damaged_file_is_replaced(tmp_path: Path, damaged: str) -> None:
    keys.keys_file(tmp_path, PACKAGE).write_text(damaged)
    made = keys.load_or_make(tmp_path, PACKAGE, 1, "core")
    assert keys.load_or_make(tmp_path, PACKAGE, 1, "core") == made


def test_the_request_names_the_service_and_is_signed() -> None:
    request = x509.load_pem_x509_csr(keys.make(PACKAGE, 1, "core").csr_pem.encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=core"


def test_secrets_do_not_show() -> None:
    made = keys.make(PACKAGE, 1, "core")
    assert made.nats_seed not in repr(made) and "PRIVATE" not in repr(made)


def test_an_nkey_signs_what_its_public_half_verifies() -> None:
    made = keys.make(PACKAGE, 1, "core")
    assert len(made.nats_public_key) == 56 and made.nats_public_key.startswith("U")
    assert len(made.nats_seed) == 58 and made.nats_seed.startswith("SU")
    credentials = keys.read_creds(keys.complete_creds("aa.bb.cc", made.nats_seed))
    public = base64.b32decode(made.nats_public_key)[1:33]
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(credentials.sign("nonce")), b"nonce")
    assert credentials.user_jwt() == b"aa.bb.cc"


def test_a_known_nkey_is_encoded_as_nats_does() -> None:
    """The zero seed, as the nkeys tool writes it."""
    assert keys._seed_nkey(bytes(32)).startswith("SUAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert keys._crc16(b"123456789") == 0x31C3


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN NATS USER JWT-----\naa.bb.cc\n------END NATS USER JWT------\n"]
)
def test_creds_without_a_key_are_refused(text: str) -> None:
    with pytest.raises(EdgeError, match="damaged"):
        keys.read_creds(text)


def test_creds_that_are_neither_are_refused() -> None:
    with pytest.raises(EdgeError, match="make no sense"):
        keys.complete_creds("hello", keys.make(PACKAGE, 1, "core").nats_seed)


def test_a_mistyped_seed_is_refused() -> None:
    made = keys.make(PACKAGE, 1, "core")
    broken = made.nats_seed[:20] + ("A" if made.nats_seed[20] != "A" else "B") + made.nats_seed[21:]
    with pytest.raises(EdgeError, match="damaged"):
        keys.Credentials("j", broken).sign("nonce")
