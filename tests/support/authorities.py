"""The authorities in memory: real logic over words in place of keys, and errors on demand.

A key is any word, a certificate request is `csr <key>`, a signature is a hash: quick, and easy to read in a
failing test. The vault is the real one, with a key that is always the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from jetway.adapters.authority.vault import AesVault, VaultKeys, key_id
from jetway.core.errors import Code, refuse
from jetway.core.identity import CertificateFacts, RevokedCertificate
from jetway.core.ids import Lineage
from jetway.core.times import rfc3339
from jetway.ports import IssuedCertificate
from jetway.services.identities import IdentityTerms
from support.memory import Failing

_WORD = re.compile(r"[A-Za-z0-9-]{1,100}\Z")
ROOT_PEM = "the root"
TERMS = IdentityTerms(
    trust_domain="jetway", credentials_lifetime=timedelta(days=30), certificate_lifetime=timedelta(days=30)
)


def sign(public_key: str, message: bytes) -> bytes:
    """What the holder of that key would sign."""
    return hashlib.sha256(public_key.encode() + message).digest()


class MemoryCertificates(Failing):
    """Implements `ports.CertificateAuthority`."""

    pin = "sha256:" + "A" * 43
    root_pem = ROOT_PEM

    def __init__(self) -> None:
        super().__init__()
        self.issued: list[CertificateFacts] = []

    def read_request(self, csr_pem: str) -> str:
        """`csr <key>`."""
        with self._call("read_request"):
            return self._key(csr_pem)

    def issue(self, csr_pem: str, spiffe_id: str, now: datetime, lifetime: timedelta) -> IssuedCertificate:
        """With a serial that counts up."""
        with self._call("issue"):
            key = self._key(csr_pem)
            serial = f"{len(self.issued) + 1:x}"
            text = f"certificate {serial} of {spiffe_id} until {rfc3339(now + lifetime)}"
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            facts = CertificateFacts(serial=serial, sha256=sha256, expires_at=now + lifetime, key_sha256=key)
            self.issued.append(facts)
            return IssuedCertificate(text, facts)

    def crl(self, revoked: Sequence[RevokedCertificate], now: datetime) -> str:
        """Its serials."""
        with self._call("crl"):
            return "revoked: " + " ".join(each.serial for each in revoked)

    def _key(self, csr_pem: str) -> str:
        kind, _, key = csr_pem.partition(" ")
        if kind != "csr" or not _WORD.match(key):
            raise refuse(Code.INVALID, "this is not a certificate request", "csr_pem")
        return hashlib.sha256(key.encode()).hexdigest()


class MemoryNatsAuthority(Failing):
    """Implements `ports.NatsAuthority`."""

    why_not = "this server asks for no credentials"
    why_no_watch = ""

    def __init__(self) -> None:
        super().__init__()
        self.issues = True
        self.made = 0

    def check_key(self, public_key: str) -> None:
        """Any word."""
        with self._call("check_key"):
            if not _WORD.match(public_key):
                raise refuse(Code.INVALID, "this is not the public key of a NATS user", "nats_public_key")

    def new_user(self) -> tuple[str, str]:
        """They count up."""
        with self._call("new_user"):
            self.made += 1
            return f"U-made-{self.made}", f"SU-seed-{self.made}"

    def issue(
        self, *, public_key: str, lineage: Lineage, watch: bool, now: datetime, lifetime: timedelta
    ) -> str:
        """What it says, in words."""
        with self._call("issue"):
            grant = "watch" if watch else "plain"
            return f"jwt.{public_key}.{lineage.key}.{grant}.{int((now + lifetime).timestamp())}"

    def verify(self, public_key: str, message: bytes, signature: bytes) -> bool:
        """As `sign` does it."""
        with self._call("verify"):
            return signature == sign(public_key, message)


class MemoryNatsAccount(Failing):
    """Implements `ports.NatsAccount`. `revoked` is what the server knows."""

    def __init__(self) -> None:
        super().__init__()
        self.can_revoke = True
        self.revoked: dict[str, datetime] = {}
        self.pushes = 0

    async def publish_revocations(self, revoked: Mapping[str, datetime]) -> None:
        """The whole set, each time."""
        with self._call("publish_revocations"):
            self.revoked = dict(revoked)
            self.pushes += 1


class MemoryVault(Failing):
    """Implements `ports.Vault`: the real one over a fixed key."""

    def __init__(self) -> None:
        super().__init__()
        key = bytes(32)
        self.real = AesVault(VaultKeys({key_id(key): key}), key_id(key))

    def seal(self, plaintext: bytes, *, context: str) -> str:
        """Encrypt."""
        with self._call("seal"):
            return self.real.seal(plaintext, context=context)

    def open(self, sealed: str, *, context: str) -> bytes:
        """Decrypt."""
        with self._call("open"):
            return self.real.open(sealed, context=context)

    def is_current(self, sealed: str) -> bool:
        """Whether the writing key sealed it."""
        with self._call("is_current"):
            return self.real.is_current(sealed)
