"""An enterprise CA with fresh keys: roots, leafs for code signing and for TLS clients, CMS signatures."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.publishing.signing import sign_cms

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class EnterpriseCa:
    """One root and whatever leafs a test asks for, in a folder of its own."""

    def __init__(self, folder: Path, name: str = "corp root") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder(subject, subject, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3650))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))

    def leaf(
        self,
        identity: str,
        *,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
        names: tuple[x509.GeneralName, ...] | None = None,
        starts: timedelta = timedelta(minutes=-5),
        ends: timedelta = timedelta(days=30),
        key: Key | None = None,
    ) -> tuple[Path, Path]:
        """Return files with a key and its certificate."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        named = (x509.RFC822Name(identity),) if names is None else (*names, x509.DNSName("nobody.example"))
        builder = (
            x509.CertificateBuilder(self.root.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName(named), critical=False)
            .add_extension(authority, critical=False)
            .add_extension(_usage(sign_certificates=False), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        stem = self.folder / f"{certificate.serial_number:x}"
        key_file, certificate_file = stem.with_suffix(".key"), stem.with_suffix(".pem")
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return key_file, certificate_file

    def sign(self, statement: bytes, identity: str, **leaf: object) -> bytes:
        """Return a detached CMS signature by a fresh leaf."""
        return sign_cms(statement, *self.leaf(identity, **leaf))  # type: ignore[arg-type]


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
