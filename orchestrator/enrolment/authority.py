"""The installation's own certificate authority: it signs what gateways and relays show each other.

ECDSA on P-256, because the TLS library of gRPC takes no Ed25519 certificates. Its certificate and key lie in
one folder, which the first relay makes whole; where only fingerprints are told, the certificate is enough.
"""

import hashlib
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from activities.drivers.private_files import read_private, write_private
from orchestrator.enrolment.names import RELAY_NAME, uri_of
from policies.model.errors import BadInput

CERTIFICATE, KEY = "authority.pem", "authority.key"
LIVES = timedelta(days=3650)
SLACK = timedelta(minutes=5)
"""How far the clocks of two hosts may be apart."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh key for a certificate."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as it lies in files."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return by what a certificate is recognised: SHA-256 of it, in hexadecimal."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def key_in(request: str) -> ec.EllipticCurvePublicKey:
    """Return the key that a certificate request is for.

    Raises:
        BadInput: It is no request, its key is none that we take, or it does not prove to have the key.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        key, proven = asked.public_key(), asked.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadInput("what was sent is no certificate request in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput("the key of a gateway is an ECDSA key on P-256; `penstock agent enrol` makes one")
    if not proven:
        raise BadInput("the certificate request is not signed with its own key")
    return key


@dataclass(frozen=True)
class Issued:
    """A certificate that was just signed."""

    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """As it travels and lies in files."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def serial(self) -> str:
        """In hexadecimal."""
        return f"{self.certificate.serial_number:x}"

    @property
    def expires(self) -> datetime:
        """When it is good no longer."""
        return self.certificate.not_valid_after_utc


@dataclass(frozen=True)
class _Term:
    """Which certificate it is, and from when until when it is good."""

    number: int
    begins: datetime
    ends: datetime


class Authority:
    """Signs certificates of gateways and of relays."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def open(cls, folder: Path) -> "Authority":
        """Return the authority in this folder, made when there is none yet.

        Raises:
            BadInput: It cannot be read or made, has expired, or others can read its key.
        """
        _make_once(folder)
        certificate = authority_certificate(folder)
        try:
            key = load_pem_private_key(read_private(folder / KEY, "the authority's key"), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadInput(f"{folder / KEY} is no key in PEM: {error}; restore it from a backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise BadInput(f"{folder / KEY} is not the key of {folder / CERTIFICATE}; restore both together")
        _refuse_expired(certificate, folder)
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate, which agents and relays trust."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue_gateway(self, request: str, fleet: str, gateway: str, lives: timedelta) -> Issued:
        """Return a certificate of the gateway for the key in the request, whatever else the request says.

        Raises:
            BadInput: It is no request, its key is none that we take, or it does not prove to have the key.
        """
        return self._issue_gateway(request, fleet, gateway, _term(lives))

    def issue_gateway_again(
        self, request: str, fleet: str, gateway: str, serial: str, issued_at: datetime, expires: datetime
    ) -> Issued:
        """Return the certificate of that serial once more, for whoever asked for it and never got it.

        Raises:
            BadInput: As of `issue_gateway`.
        """
        term = _Term(int(serial, 16), issued_at - SLACK, expires)
        return self._issue_gateway(request, fleet, gateway, term)

    def _issue_gateway(self, request: str, fleet: str, gateway: str, term: _Term) -> Issued:
        key = key_in(request)
        name = x509.UniformResourceIdentifier(uri_of(fleet, gateway))
        return self._issue(key, f"{fleet}/{gateway}", name, ExtendedKeyUsageOID.CLIENT_AUTH, term)

    def issue_relay(self, lives: timedelta) -> tuple[bytes, bytes]:
        """Return a fresh key and its certificate for a relay, both in PEM."""
        key = new_key()
        name = x509.DNSName(RELAY_NAME)
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        issued = self._issue(key.public_key(), "penstock relay", name, usage, _term(lives))
        return key_pem(key), issued.pem.encode()

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority has signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: str,
        name: x509.GeneralName,
        usage: x509.ObjectIdentifier,
        term: _Term,
    ) -> Issued:
        # A name has 64 characters at most (RFC 5280, appendix A.1); who it is stands in the URI.
        common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
        builder = (
            x509.CertificateBuilder(self.certificate.subject, common, key, term.number)
            .not_valid_before(term.begins)
            .not_valid_after(term.ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_usage(signs_certificates=False), critical=True)
        )
        return Issued(builder.sign(self._key, hashes.SHA256()))


def _term(lives: timedelta) -> _Term:
    now = datetime.now(UTC)
    return _Term(x509.random_serial_number(), now - SLACK, now + lives)


def authority_certificate(folder: Path) -> x509.Certificate:
    """Return the certificate of the authority in this folder.

    Raises:
        BadInput: There is none.
    """
    path = folder / CERTIFICATE
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(
            f"{path} is not there: copy it from a relay, or set PENSTOCK_AUTHORITY to where it is"
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from error
    except ValueError as error:
        raise BadInput(f"{path} is no certificate in PEM: {error}") from error


def fingerprint_in(folder: Path) -> str:
    """Return the fingerprint of the authority in this folder; none is made here.

    Raises:
        BadInput: There is none, or it cannot be read.
    """
    return fingerprint_of(authority_certificate(folder))


def _refuse_expired(certificate: x509.Certificate, folder: Path) -> None:
    ends = certificate.not_valid_after_utc
    if ends - SLACK <= datetime.now(UTC):
        wrong = f"expires at {ends:%Y-%m-%d %H:%M} UTC"
        raise BadInput(
            f"the authority in {folder} {wrong}; move it away, and the next relay to start makes another, by "
            "which every host has to be enrolled anew"
        )


def _make_once(folder: Path) -> None:
    """Have an authority there, whole; of two processes that make one, the first one's counts."""
    if folder.exists():
        return
    key, now = new_key(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"penstock {secrets.token_hex(4)}")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + LIVES)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.mkdir(mode=0o700)
        write_private(made / KEY, key_pem(key))
        write_private(made / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
        made.rename(folder)
    except OSError as error:
        if not folder.exists():
            wrong = f"the authority {folder} cannot be made: {error.strerror}"
            raise BadInput(f"{wrong}; set PENSTOCK_AUTHORITY to a folder that can be written") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
