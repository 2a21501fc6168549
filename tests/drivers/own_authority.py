"""A certificate authority that signs at whatever time a test has."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


def name(words: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words)])


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, words: str, end: datetime | None = None, *, at: datetime = AT) -> None:
        self.at = at
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), name(words)
        self.pem = self.certify(self.key, end=end, of=self.name)

    def certify(
        self,
        key: ec.EllipticCurvePrivateKey,
        begin: datetime | None = None,
        end: datetime | None = None,
        of: x509.Name | None = None,
        names: Sequence[str] = ("vpn.example.org",),
    ) -> str:
        """Return a certificate for the key, in PEM."""
        builder = x509.CertificateBuilder(self.name, of or name("gateway"), key.public_key())
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(begin or self.at - 9 * DAY)
            .not_valid_after(end or self.at + 9 * DAY)
        )
        whom = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        return (
            builder.add_extension(whom, critical=False)
            .sign(self.key, hashes.SHA256())
            .public_bytes(PEM)
            .decode()
        )

    def revoking(self, begin: datetime | None = None, end: datetime | None = None) -> str:
        """Return a list of revoked certificates, in PEM; it revokes none."""
        builder = x509.CertificateRevocationListBuilder(
            self.name, begin or self.at - DAY, end or self.at + DAY
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM).decode()
