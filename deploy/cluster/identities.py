"""Who may speak with a cluster's API, and by what: one authority, certificates, tokens, kubeconfigs."""

import ipaddress
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = "127.0.0.1"
SERVICES = "10.96.0.0/16"
"""Addresses of Services; the API's own is the first."""
OF_THE_API = ("10.96.0.1", "localhost", "kubernetes.default.svc")
_LIVES = timedelta(days=30)
_STARTED = timedelta(minutes=5)
"""Certificates are valid from before they were made: clocks of two processes may differ."""


@dataclass(frozen=True)
class Person:
    """Somebody with a token: their user's name, and the groups that give them rights."""

    name: str
    user: str
    groups: tuple[str, ...] = ()


_ALL_RIGHTS = ("system:masters",)
ADMIN = Person("admin", "admin", _ALL_RIGHTS)
OWN = (
    ADMIN,
    Person("controller-manager", "test:controller-manager", _ALL_RIGHTS),
    Person("scheduler", "test:scheduler", _ALL_RIGHTS),
    Person("kwok", "test:kwok", (*_ALL_RIGHTS, "system:nodes")),
)
"""The control plane's own people, and who sets tests up."""


class Identities:
    """The keys of one cluster, in a folder that nobody else reads."""

    def __init__(self, folder: Path, *, people: Iterable[Person] = (), addresses: Sequence[str] = ()) -> None:
        """Make all of them; the API server is known at loopback, and at these addresses and names."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.authority = folder / "authority.pem"
        """Who vouches for every certificate here."""
        self.service_account_key = folder / "service-accounts.key"
        """Signs the tokens of service accounts."""
        self.token_list = folder / "tokens.csv"
        """As the API server reads it, at its start and never again."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root = _root(self._key)
        self._tokens = {person.name: secrets.token_hex(16) for person in (*OWN, *people)}
        _write(self.authority, self._root.public_bytes(serialization.Encoding.PEM))
        _write(self.service_account_key, _pem(ec.generate_private_key(ec.SECP256R1())))
        lines = [self._line(person) for person in (*OWN, *people)]
        _write(self.token_list, "".join(lines).encode())
        self.server = self.leaf("kube-apiserver", names=(LOOPBACK, *OF_THE_API, *addresses))
        """Key and certificate of the API server."""

    def token(self, name: str) -> str:
        """Return the token of a person by their name."""
        return self._tokens[name]

    def kubeconfig(self, name: str, server: str, *, token: str | None = None) -> Path:
        """Write how this person reaches a server, as `https://127.0.0.1:6443`; return the file.

        Who has no token in the list, as a service account, brings one.
        """
        file = self.folder / f"{name}.kubeconfig"
        cluster = {"server": server, "certificate-authority": str(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token or self.token(name)}}],
            "contexts": [{"name": name, "context": {"cluster": "cluster", "user": name}}],
            "current-context": name,
        }
        _write(file, json.dumps(content, indent=1).encode())  # YAML is a superset of JSON
        return file

    def leaf(self, user: str, *, names: Sequence[str] = (), groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return a new key and its certificate, for a server of these names or a client of these groups."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _leaf(self._root, self._key, key, _subject(user, groups), names)
        stem = self.folder / f"{user.replace(':', '-')}-{certificate.serial_number:x}"
        _write(stem.with_suffix(".key"), _pem(key))
        _write(stem.with_suffix(".pem"), certificate.public_bytes(serialization.Encoding.PEM))
        return stem.with_suffix(".key"), stem.with_suffix(".pem")

    def _line(self, person: Person) -> str:
        groups = ",".join(person.groups)
        return f'{self.token(person.name)},{person.user},{person.name},"{groups}"\n'


def _subject(user: str, groups: Sequence[str] = ()) -> x509.Name:
    said = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*said, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _subject("the test cluster's authority")
    return (
        _begun(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    names: Sequence[str],
) -> x509.Certificate:
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    builder = (
        _begun(subject, root.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(by, critical=False)
    )
    if names:
        known = x509.SubjectAlternativeName([_name(one) for one in names])
        builder = builder.add_extension(known, critical=False)
    return builder.sign(root_key, hashes.SHA256())


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    number = x509.random_serial_number()
    return x509.CertificateBuilder(issuer, subject, key, number, now - _STARTED, now + _LIVES)


def _name(said: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(said))
    except ValueError:
        return x509.DNSName(said)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain
    )


def _write(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
