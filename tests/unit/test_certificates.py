"""The gateway's authority: what it signs, for whom, and that nobody gets another one in its place."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jetway.adapters.authority.ca import (
    CERTIFICATE_FILE,
    KEY_FILE,
    OwnAuthority,
    load_given_authority,
    load_or_create_authority,
)
from jetway.adapters.authority.chain import (
    Chain,
    ChainError,
    key_to_pem,
    key_usage,
    make_chain,
    make_key,
    read_certificates,
    read_chain,
    read_private_key,
)
from jetway.adapters.authority.csr import MAX_LENGTH
from jetway.core.errors import Code, PortError, RefusedError, StartupError
from jetway.core.identity import RevokedCertificate
from jetway.core.tokens import decode64, pin_of
from support import require_program

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
NAME = "spiffe://jetway/agent/site-a/core"
OURS = OwnAuthority(make_chain(make_key(), NOW))
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505
HOST_KEY = ec.generate_private_key(ec.SECP256R1())


def request(key: Any = HOST_KEY, *, hash_: Any = SHA256(), **extensions: x509.ExtensionType) -> str:  # noqa: B008
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.example")])
    )
    for extension in extensions.values():
        builder = builder.add_extension(extension, critical=True)
    edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if edwards else hash_).public_bytes(Encoding.PEM).decode()


CSR = request()


def refused(csr: str) -> str:
    with pytest.raises(RefusedError) as caught:
        OURS.read_request(csr)
    error = caught.value
    assert (error.refused.code, error.refused.field) == (Code.INVALID, "csr_pem")
    assert error.__context__ is None or error.__suppress_context__
    return error.refused.why


def leaf_of(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem.encode())[0]


class TestRequests:
    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.generate(),
            rsa.generate_private_key(65537, 2048),
        ],
        ids=["p256", "p384", "ed25519", "rsa2048"],
    )
    def test_keys_that_are_taken(self, key: Any) -> None:
        issued = OURS.issue(request(key), NAME, NOW, MONTH)
        assert leaf_of(issued.pem).public_key() == key.public_key()
        assert issued.facts.key_sha256 == OURS.read_request(request(key))

    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP521R1()),
            ec.generate_private_key(ec.SECP256K1()),
            WEAK,
            dsa.generate_private_key(2048),
            ed448.Ed448PrivateKey.generate(),
        ],
        ids=["p521", "p256k1", "rsa1024", "dsa", "ed448"],
    )
    def test_keys_that_are_not(self, key: Any) -> None:
        assert refused(request(key)) == (
            "the key must be EC P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits"
        )

    def test_the_same_key_in_another_request_is_the_same(self) -> None:
        assert request() != CSR
        assert OURS.read_request(CSR) == OURS.read_request(request()) == OURS.read_request(f"\n{CSR}\n")

    def test_somebody_elses_key_cannot_be_shown(self) -> None:
        """The signature proves that the private half is there."""
        der = bytearray(x509.load_pem_x509_csr(CSR.encode()).public_bytes(Encoding.DER))
        der[-1] ^= 1
        damaged = _pem(bytes(der))
        assert refused(damaged) in (
            "the certificate request is not signed by its own key",
            "this certificate request cannot be read",
        )

    def test_a_long_one_is_refused_unread(self) -> None:
        assert refused(CSR + " " * MAX_LENGTH) == f"a certificate request has at most {MAX_LENGTH} characters"

    @pytest.mark.parametrize(
        "text",
        ["", "x", CSR + CSR, CSR.replace("REQUEST", "THING"), "é" + CSR, CSR[:-40], "\0" + CSR],
        ids=["empty", "x", "two", "another", "accent", "cut", "nul"],
    )
    def test_what_is_not_one_request(self, text: str) -> None:
        assert refused(text) == "this is not one certificate request in PEM form"

    @given(st.text(max_size=300))
    def test_any_text_is_refused(self, text: str) -> None:
        refused(text)

    @given(st.binary(max_size=300))
    def test_any_bytes_in_the_armour_are_refused(self, data: bytes) -> None:
        refused(_pem(data))

    @settings(max_examples=400)
    @given(
        st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 3)
    )
    def test_an_altered_request_is_refused_or_has_the_same_key(
        self, changes: list[tuple[int, int]], kind: int
    ) -> None:
        """ASN.1 that nearly fits: a value or a refusal, and never another exception."""
        data = bytearray(_DERS[kind])
        for position, value in changes:
            data[position % len(data)] = value
        try:
            OURS.read_request(_pem(bytes(data)))
        except RefusedError as error:
            assert error.refused.field == "csr_pem"
        else:
            assert OURS.read_request(_pem(bytes(data))) == OURS.read_request(_pem(_DERS[kind]))

    @given(st.data())
    def test_a_cut_or_stretched_request_is_refused(self, data: st.DataObject) -> None:
        whole = data.draw(st.sampled_from(_DERS))
        cut = data.draw(st.integers(0, len(whole) - 1))
        refused(_pem(whole[:cut]))
        refused(_pem(whole + whole[: cut + 1]))


def _pem(der: bytes) -> str:
    import base64

    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


_DERS = [
    x509.load_pem_x509_csr(request(key).encode()).public_bytes(Encoding.DER)
    for key in (
        HOST_KEY,
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    )
]


class TestCertificates:
    def test_nothing_is_taken_over_but_the_key(self) -> None:
        csr = request(
            names=x509.SubjectAlternativeName([x509.DNSName("gateway.example")]),
            authority=x509.BasicConstraints(ca=True, path_length=None),
            usage=key_usage(key_cert_sign=True),
        )
        leaf = leaf_of(OURS.issue(csr, NAME, NOW, MONTH).pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.UniformResourceIdentifier(NAME)]
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical and usage.value == key_usage(digital_signature=True)
        assert leaf.subject.rfc4514_string() == "CN=service core"
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(uses) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}

    def test_its_facts_are_its_own(self) -> None:
        issued = OURS.issue(CSR, NAME, NOW, MONTH)
        leaf = leaf_of(issued.pem)
        assert int(issued.facts.serial, 16) == leaf.serial_number
        assert issued.facts.sha256 == leaf.fingerprint(SHA256()).hex()
        assert issued.facts.expires_at == leaf.not_valid_after_utc == NOW + MONTH
        assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)

    def test_no_serial_comes_twice(self) -> None:
        serials = {OURS.issue(CSR, NAME, NOW, MONTH).facts.serial for _ in range(50)}
        assert len(serials) == 50
        assert min(len(serial) for serial in serials) > 24

    def test_it_ends_no_later_than_the_authority(self) -> None:
        end = OURS.chain.expires_at
        issued = OURS.issue(CSR, NAME, end - timedelta(days=2), MONTH)
        assert issued.facts.expires_at == end
        with pytest.raises(PortError, match="has expired"):
            OURS.issue(CSR, NAME, end, MONTH)

    @pytest.mark.parametrize(
        "name",
        ["", "core", "https://jetway/x", "spiffe://jetway", "spiffe://Jetway/x", "spiffe://jetway/a b", "é"],
    )
    def test_another_name_than_a_spiffe_id(self, name: str) -> None:
        with pytest.raises(PortError, match="SPIFFE ID"):
            OURS.issue(CSR, name, NOW, MONTH)

    def test_openssl_agrees(self, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        chain, _ = intermediate(now)
        for authority in (OURS, OwnAuthority(chain)):
            issued = authority.issue(CSR, NAME, now, MONTH)
            first, *others = x509.load_pem_x509_certificates(issued.pem.encode())
            (tmp_path / "leaf.pem").write_bytes(first.public_bytes(Encoding.PEM))
            (tmp_path / "others.pem").write_text("".join(_text(each) for each in others) or _text(first))
            (tmp_path / "root.pem").write_text(authority.root_pem)
            revoked = [RevokedCertificate(serial=issued.facts.serial, revoked_at=now)]
            verify = "verify -x509_strict -CAfile root.pem -untrusted others.pem"
            for entries, expected in (([], "leaf.pem: OK"), (revoked, "certificate revoked")):
                (tmp_path / "crl.pem").write_text(authority.crl(entries, now))
                said = openssl(tmp_path, *verify.split(), "-crl_check", "-CRLfile", "crl.pem", "leaf.pem")
                assert expected in said, said


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def openssl(folder: Path, *arguments: str) -> str:
    program = require_program("openssl")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


class TestRevocationList:
    def test_it_holds_what_was_revoked_and_is_signed(self) -> None:
        revoked = [RevokedCertificate(serial=f"{n:x}", revoked_at=NOW - MONTH) for n in (7, 2**158)]
        crl = x509.load_pem_x509_crl(OURS.crl(revoked, NOW).encode())
        assert crl.is_signature_valid(OURS.chain.key.public_key())
        assert {(each.serial_number, each.revocation_date_utc) for each in crl} == {
            (7, NOW - MONTH),
            (2**158, NOW - MONTH),
        }
        assert crl.last_update_utc <= NOW
        assert crl.next_update_utc == NOW + timedelta(days=7)

    def test_an_empty_one_is_one(self) -> None:
        assert len(x509.load_pem_x509_crl(OURS.crl([], NOW).encode())) == 0

    def test_its_number_grows_also_when_the_clock_goes_back(self) -> None:
        authority = OwnAuthority(OURS.chain)
        numbers = [_number(authority.crl([], NOW + timedelta(seconds=s))) for s in (0, 0, -100, 5, 4)]
        assert numbers == sorted(set(numbers))
        assert _number(OwnAuthority(OURS.chain).crl([], NOW + MONTH)) > numbers[-1], "also after a restart"


def _number(pem: str) -> int:
    crl = x509.load_pem_x509_crl(pem.encode())
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def intermediate(
    now: datetime = NOW, *, ca: bool = True, path_length: int | None = 0, days: int = 365
) -> tuple[Chain, Chain]:
    """An authority beneath a root of its own, and that root."""
    root_key, key = make_key(), make_key()
    root = make_chain(root_key, now)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")])
    upper = (
        x509.CertificateBuilder(name, name, root_key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, SHA256())
    )
    lower = (
        x509.CertificateBuilder(
            name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lower")]), key.public_key(), 2
        )
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        .add_extension(key_usage(key_cert_sign=ca, crl_sign=ca, digital_signature=not ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, SHA256())
    )
    return Chain((lower, upper), key), root


class TestOwnFiles:
    def test_the_first_start_makes_them_private(self, tmp_path: Path) -> None:
        load_or_create_authority(tmp_path / "keys", NOW)
        found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "keys").iterdir()}
        assert found == {CERTIFICATE_FILE: 0o600, KEY_FILE: 0o600}
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700

    def test_later_starts_read_the_same(self, tmp_path: Path) -> None:
        first = load_or_create_authority(tmp_path, NOW)
        again = load_or_create_authority(tmp_path, NOW + MONTH)
        assert (again.pin, again.root_pem) == (first.pin, first.root_pem)

    def test_the_pin_is_the_roots_key(self, tmp_path: Path) -> None:
        authority = load_or_create_authority(tmp_path, NOW)
        (tmp_path / "root.pem").write_text(authority.root_pem)
        openssl(tmp_path, *["x509", "-in", "root.pem", "-pubkey", "-noout", "-out", "key.pem"])
        openssl(tmp_path, *["pkey", "-pubin", "-in", "key.pem", "-outform", "DER", "-out", "key.der"])
        assert authority.pin == pin_of((tmp_path / "key.der").read_bytes())
        assert authority.pin.startswith("sha256:")
        assert len(decode64(authority.pin.removeprefix("sha256:"))) == 32

    def test_a_lost_key_is_never_replaced(self, tmp_path: Path) -> None:
        load_or_create_authority(tmp_path, NOW)
        (tmp_path / KEY_FILE).unlink()
        with pytest.raises(StartupError, match=rf"{KEY_FILE} is missing: restore it from a backup"):
            load_or_create_authority(tmp_path, NOW)
        assert not (tmp_path / KEY_FILE).exists()

    def test_a_lost_certificate_is_made_of_its_key(self, tmp_path: Path) -> None:
        """A first start that was cut short after the key is completed; nobody sees a difference."""
        first = load_or_create_authority(tmp_path, NOW)
        issued = first.issue(CSR, NAME, NOW, MONTH)
        (tmp_path / CERTIFICATE_FILE).unlink()
        again = load_or_create_authority(tmp_path, NOW)
        assert again.pin == first.pin
        leaf_of(issued.pem).verify_directly_issued_by(again.chain.root)

    def test_no_two_gateways_share_one(self, tmp_path: Path) -> None:
        one, two = (load_or_create_authority(tmp_path / name, NOW) for name in "ab")
        assert one.pin != two.pin
        assert one.chain.root.subject != two.chain.root.subject

    @pytest.mark.parametrize("mode", [0o640, 0o604])
    def test_a_key_that_others_may_read(self, tmp_path: Path, mode: int) -> None:
        load_or_create_authority(tmp_path, NOW)
        (tmp_path / KEY_FILE).chmod(mode)
        with pytest.raises(StartupError, match="chmod 600"):
            load_or_create_authority(tmp_path, NOW)

    @pytest.mark.parametrize("name", [CERTIFICATE_FILE, KEY_FILE])
    @pytest.mark.parametrize("content", [b"", b"\xff", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END"])
    def test_a_damaged_one(self, tmp_path: Path, name: str, content: bytes) -> None:
        load_or_create_authority(tmp_path, NOW)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StartupError, match="restore both from a backup") as caught:
            load_or_create_authority(tmp_path, NOW)
        assert caught.value.__suppress_context__
        assert (tmp_path / name).read_bytes() == content

    def test_anothers_key(self, tmp_path: Path) -> None:
        load_or_create_authority(tmp_path, NOW)
        (tmp_path / KEY_FILE).write_bytes(key_to_pem(make_key()))
        with pytest.raises(StartupError, match="the key is not that of the first certificate"):
            load_or_create_authority(tmp_path, NOW)

    def test_the_key_shows_nowhere(self, tmp_path: Path) -> None:
        authority = load_or_create_authority(tmp_path, NOW)
        key = (tmp_path / KEY_FILE).read_text().splitlines()[1]
        assert key not in repr(authority) + repr(authority.chain) + str(authority)


class TestGiven:
    def write(self, folder: Path, pem: str, key: bytes) -> tuple[Path, Path]:
        certificate, key_file = folder / "given.pem", folder / "given-key.pem"
        certificate.write_text(pem)
        key_file.write_bytes(key)
        key_file.chmod(0o600)
        return certificate, key_file

    def test_an_intermediate_signs_and_its_root_is_pinned(self, tmp_path: Path) -> None:
        chain, _ = intermediate()
        authority = load_given_authority(*self.write(tmp_path, chain.pem, key_to_pem(chain.key)), NOW)
        issued = authority.issue(CSR, NAME, NOW, MONTH)
        leaf, lower = x509.load_pem_x509_certificates(issued.pem.encode())
        leaf.verify_directly_issued_by(lower)
        lower.verify_directly_issued_by(chain.root)
        assert authority.root_pem == _text(chain.root)
        assert authority.pin == Chain((chain.root,), chain.key).pin
        crl = x509.load_pem_x509_crl(authority.crl([], NOW).encode())
        assert crl.is_signature_valid(chain.key.public_key())

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"ca": False}, "may not sign"),
            ({"days": -0}, "is valid from"),
        ],
    )
    def test_a_certificate_that_is_no_authority(
        self, tmp_path: Path, change: dict[str, Any], why: str
    ) -> None:
        chain, _ = intermediate(**change)
        files = self.write(tmp_path, chain.pem, key_to_pem(chain.key))
        with pytest.raises(StartupError, match=why):
            load_given_authority(*files, NOW)

    def test_the_root_must_be_there_and_come_last(self, tmp_path: Path) -> None:
        chain, _ = intermediate()
        lower, upper = (_text(each) for each in chain.certificates)
        for pem in (lower, lower + lower, lower + OURS.root_pem, lower + upper + OURS.root_pem):
            with pytest.raises(StartupError, match=r"is not signed by the next one|allows only"):
                load_given_authority(*self.write(tmp_path, pem, key_to_pem(chain.key)), NOW)

    def test_a_root_that_allows_none_beneath(self, tmp_path: Path) -> None:
        """A path length of 0 in our own root: TLS would refuse what an intermediate beneath it signs."""
        chain, _ = intermediate()
        with pytest.raises(ChainError, match="allows only 0"):
            read_chain((_text(chain.issuer) + OURS.root_pem).encode(), key_to_pem(chain.key), NOW)

    @pytest.mark.parametrize(
        "key",
        [ed25519.Ed25519PrivateKey.generate(), WEAK],
        ids=["ed", "rsa"],
    )
    def test_a_key_that_not_everybody_verifies(self, tmp_path: Path, key: Any) -> None:
        with pytest.raises(StartupError, match="EC P-256 or P-384, or RSA"):
            load_given_authority(*self.write(tmp_path, OURS.root_pem, key_to_pem(key)), NOW)

    def test_an_encrypted_key(self, tmp_path: Path) -> None:
        key = OURS.chain.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        with pytest.raises(StartupError, match="no unencrypted private key"):
            load_given_authority(*self.write(tmp_path, OURS.root_pem, key), NOW)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        _, key = self.write(tmp_path, "", key_to_pem(make_key()))
        with pytest.raises(StartupError, match=r"identity\.ca_cert.*nowhere"):
            load_given_authority(tmp_path / "nowhere.pem", key, NOW)

    @given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
    def test_any_bytes_are_no_chain(self, data: bytes) -> None:
        with pytest.raises(ChainError):
            read_certificates(data)
        with pytest.raises(ChainError):
            read_private_key(data)

    # The library warns of a serial number that is not positive and of a country's length; we refuse both.
    @pytest.mark.filterwarnings("ignore:Parsed a serial number")
    @pytest.mark.filterwarnings("ignore:Attribute's length must be")
    @settings(max_examples=200)
    @given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3))
    @example([(48, 47)])  # a negative serial number
    @example([(44, 66)])  # another version
    @example([(386, 103)])  # one extension twice
    @example([(192, 89)])  # a country of more than two letters
    @example([(460, 69)])  # the signature's count of unused bits
    def test_an_altered_chain_is_refused_or_the_same(self, changes: list[tuple[int, int]]) -> None:
        data = bytearray(OURS.root_pem.encode())
        for position, value in changes:
            data[position % len(data)] = value
        try:
            chain = read_chain(bytes(data), key_to_pem(OURS.chain.key), NOW)
        except ChainError:
            return
        # The signature has a byte of its own that the library does not look at.
        assert chain.root.tbs_certificate_bytes == OURS.chain.root.tbs_certificate_bytes
