"""Who the lab's gateways are and whom they let in: one CA, one certificate, two lists of users."""

import ipaddress
import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.lab.topology import Host, Topology
from policies.model.errors import BadInput

PROBE = "probe"
LEGACY_SHARE = 10
"""One user in so many is in the stale list."""


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
    def users(self) -> Path:
        """The list ocserv asks: everybody."""
        return self.folder / "users"

    @property
    def legacy_users(self) -> Path:
        """A stale list: the probe's user and about a tenth of the others."""
        return self.folder / "users-legacy"


def issue(topology: Topology, folder: Path, *, people: int = 4000) -> Credentials:
    """Make new credentials for this topology in an own folder; those of an earlier lab stop counting.

    Raises:
        BadInput: ocpasswd is missing, or does not work.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = tuple(f"user-{number:05}" for number in range(1, people + 1))
    credentials = Credentials(folder, secrets.token_hex(8), names)
    _certify(credentials, [a for host in topology.gateways for a in _addresses(host)])
    _write(credentials.metrics_token, f"{secrets.token_hex(32)}\n".encode())
    everybody = [PROBE, *(site.name for site in topology.sites), *names]
    hashed = _hash(credentials.password, folder / "one")
    _list(credentials.users, everybody, hashed)
    _list(credentials.legacy_users, [PROBE, *everybody[LEGACY_SHARE::LEGACY_SHARE]], hashed)
    return credentials


def _addresses(host: Host) -> tuple[str, ...]:
    return tuple(filter(None, (host.address4, host.address6, host.management4)))


def _hash(password: str, scratch: Path) -> str:
    scratch.unlink(missing_ok=True)
    try:
        subprocess.run(
            ["ocpasswd", "--passwd", str(scratch), PROBE],
            input=f"{password}\n{password}\n".encode(),
            capture_output=True,
            check=True,
        )
        return scratch.read_text().strip().rsplit(":", 1)[1]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise BadInput(f"ocpasswd does not work: {error}; `apt-get install ocserv` brings it") from error
    finally:
        scratch.unlink(missing_ok=True)


def _list(path: Path, names: Sequence[str], hashed: str) -> None:
    _write(path, "".join(f"{name}:*:{hashed}\n" for name in names).encode())


def _certify(credentials: Credentials, addresses: Sequence[str]) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("penstock lab CA")
    usable = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usable, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(credentials.authority, authority.public_bytes(pem))
    _write(credentials.authority_key, ca_key.private_bytes(pem, form, plain))
    _write(credentials.certificate, _of_gateways(ca_key, key.public_key(), addresses))
    _write(credentials.key, key.private_bytes(pem, form, plain))


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
    _write(credentials.certificate, _of_gateways(ca_key, key.public_key(), addresses))


def _of_gateways(
    ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey, addresses: Sequence[str]
) -> bytes:
    """Return a certificate of the gateways that begins now."""
    ours = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    return (
        _certificate(_name("penstock lab gateways"), _name("penstock lab CA"), key)
        .add_extension(x509.SubjectAlternativeName(ours), critical=False)
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


def _write(path: Path, content: bytes) -> None:
    """Write for root only; the gateways read it before they drop their rights."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
