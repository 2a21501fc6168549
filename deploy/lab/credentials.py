"""Who the lab's gateways are, and whom they let in: one CA, one certificate, what the product asks for."""

import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.lab.topology import Host, Topology

PROBE = "probe"
LEGACY_SHARE = 10
"""One user in so many is in the stale list."""
_UNUSED = dict.fromkeys(
    (
        "digital_signature",
        "key_cert_sign",
        "crl_sign",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    ),
    False,
)
"""Of x509.KeyUsage, which wants each of them said."""


@dataclass(frozen=True)
class Credentials:
    """Files of one folder. Everybody has the same password, so that one slow hash serves all."""

    folder: Path
    password: str
    people: tuple[str, ...]
    """Users who only log in and go; never the same one twice in a lab's life."""

    @property
    def authority(self) -> Path:
        """The CA's certificate, which clients trust."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The gateways' certificate, valid for every address of every gateway."""
        return self.folder / "gateway.pem"

    @property
    def key(self) -> Path:
        """The key of the gateways' certificate."""
        return self.folder / "gateway.key"

    @property
    def authority_key(self) -> Path:
        """The CA's key, with which the lab renews the gateways' certificate."""
        return self.folder / "ca.key"

    @property
    def metrics_token(self) -> Path:
        """What Prometheus shows to the exporters."""
        return self.folder / "metrics-token"

    @property
    def probe_password(self) -> Path:
        """The probe's password, where users have one."""
        return self.folder / "probe-password"

    @property
    def users(self) -> Path:
        """The list ocserv asks: everybody."""
        return self.folder / "users"

    @property
    def legacy_users(self) -> Path:
        """A stale list: the probe's user and about a tenth of the others."""
        return self.folder / "users-legacy"


class Issues(Protocol):
    """Makes what people log in with at one product."""

    def issue(self, credentials: Credentials, names: Sequence[str]) -> None:
        """Make it for people of these names, and for the probe."""
        ...


def issue(topology: Topology, folder: Path, daemon: Issues, *, people: int = 4000) -> Credentials:
    """Make new credentials for this topology in an own folder; those of an earlier lab stop counting.

    Raises:
        BadInput: a program that makes them is missing, or does not work.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = tuple(f"user-{number:05}" for number in range(1, people + 1))
    credentials = Credentials(folder, secrets.token_hex(8), names)
    _certify(credentials, [a for host in topology.gateways for a in _addresses(host)])
    write(credentials.metrics_token, f"{secrets.token_hex(32)}\n".encode())
    daemon.issue(credentials, [*(site.name for site in topology.sites), *names])
    return credentials


def _addresses(host: Host) -> tuple[str, ...]:
    return tuple(filter(None, (host.address4, host.address6, host.management4)))


def _certify(credentials: Credentials, addresses: Sequence[str]) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    write(credentials.authority, _authority(ca_key, "penstock lab CA"))
    write(credentials.authority_key, _private(ca_key))
    write(credentials.certificate, _of_gateways(ca_key, key.public_key(), addresses))
    write(credentials.key, _private(key))


@dataclass(frozen=True)
class People:
    """An authority that signs people's certificates; those that it signs may share one key."""

    words: str
    signer: ec.EllipticCurvePrivateKey
    own: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, words: str) -> "People":
        """Make one that is called so."""
        return cls(words, *(ec.generate_private_key(ec.SECP256R1()) for _ in range(2)))

    @property
    def authority(self) -> bytes:
        """Its own certificate, in PEM."""
        return _authority(self.signer, self._called)

    @property
    def key(self) -> bytes:
        """A key for people, in PEM."""
        return _private(self.own)

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The public half of that key."""
        return self.own.public_key()

    def certify(self, name: str, key: ec.EllipticCurvePublicKey) -> bytes:
        """Return the certificate of a person with this key, in PEM."""
        return (
            _certificate(_name(name), _name(self._called), key)
            .add_extension(x509.KeyUsage(**{**_UNUSED, "digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self.signer, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    @property
    def _called(self) -> str:
        return f"penstock lab people of {self.words}"


def _authority(key: ec.EllipticCurvePrivateKey, called: str) -> bytes:
    name = _name(called)
    signs = x509.KeyUsage(**{**_UNUSED, "digital_signature": True, "key_cert_sign": True, "crl_sign": True})
    return (
        _certificate(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption())


def renew(topology: Topology, folder: Path) -> None:
    """Put another certificate of the same key where the gateways' hosts take theirs from."""
    credentials = Credentials(folder, "", ())
    ca_key, key = (
        serialization.load_pem_private_key(path.read_bytes(), None)
        for path in (credentials.authority_key, credentials.key)
    )
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    addresses = [a for host in topology.gateways for a in _addresses(host)]
    write(credentials.certificate, _of_gateways(ca_key, key.public_key(), addresses))


def _of_gateways(
    ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey, addresses: Sequence[str]
) -> bytes:
    """Return a certificate of the gateways that begins now."""
    ours = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    return (
        _certificate(_name("penstock lab gateways"), _name("penstock lab CA"), key)
        .add_extension(x509.SubjectAlternativeName(ours), critical=False)
        .add_extension(x509.KeyUsage(**{**_UNUSED, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=7))
    )


def _name(words: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words)])


def write(path: Path, content: bytes) -> None:
    """Write for root only; the gateways read it before they drop their rights."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
