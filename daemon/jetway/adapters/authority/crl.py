"""The certificate revocation list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from jetway.adapters.authority.chain import Chain
from jetway.core.identity import RevokedCertificate

VALID_FOR = timedelta(days=7)
"""Until `nextUpdate`. After it a strict reader refuses every certificate, so it outlasts a weekend without a
gateway; a reader should fetch the list far more often."""
SKEW = timedelta(minutes=5)
"""How far a reader's clock may be behind ours."""


class CrlNumber:
    """Grows with every list, without being stored: milliseconds since 1970, or one more than the last."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: datetime) -> int:
        """The number of a list made now; also larger than the last where the clock was set back."""
        self._last = max(self._last + 1, int(now.timestamp() * 1000))
        return self._last


def build_crl(chain: Chain, revoked: Sequence[RevokedCertificate], now: datetime, number: int) -> str:
    """The list as PEM, signed by whoever signs the certificates."""
    # Handed over as a list: adding them one at a time copies what is there each time.
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=chain.issuer.subject, revoked_certificates=[_entry(each) for each in revoked]
    )
    signed = (
        builder.last_update(now - SKEW)
        .next_update(now + VALID_FOR)
        .add_extension(chain.issuer_key_id, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
        .sign(chain.key, chain.hash_algorithm)
    )
    return signed.public_bytes(Encoding.PEM).decode()


def _entry(revoked: RevokedCertificate) -> x509.RevokedCertificate:
    number = int(revoked.serial, 16)
    return x509.RevokedCertificateBuilder().serial_number(number).revocation_date(revoked.revoked_at).build()
