"""What was begun for the next certificate: its key, and how far its source has come."""

import ipaddress
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from activities.drivers.disk import sync_folder
from activities.drivers.private_files import make_private, read_private, write_private


class Pending:
    """A folder for the root user alone; all of it goes when the certificate is laid down, or is of no use."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        """Take where it is, and what the certificate has to name; nothing is made yet."""
        self._folder = folder
        self._key = folder / "key.pem"
        self.names = names

    def has_key(self) -> bool:
        """Say whether a key was made and not yet laid down."""
        return self._key.exists()

    def key(self) -> bytes:
        """Return the next certificate's key in PEM, made at the first call; it never leaves this host."""
        if not self.has_key():
            make_private(self._key, new_key())
        return read_private(self._key, "the next certificate's key")

    def request(self) -> bytes:
        """Return the request for a certificate of that key, in PEM."""
        key = load_pem_private_key(self.key(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the key was made here, of another kind")
        said = x509.SubjectAlternativeName([general_name(name) for name in self.names])
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return asked.add_extension(said, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def read(self, name: str) -> str | None:
        """Return what a source has kept under that name, None without."""
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return None

    def keep(self, name: str, content: str) -> None:
        """Keep this, also when the power goes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._folder / name, content.encode())
        sync_folder(self._folder)

    def forget(self) -> None:
        """Begin anew the next time: with another key."""
        shutil.rmtree(self._folder, ignore_errors=True)


def new_key() -> bytes:
    """Return a new key in PEM; whoever gets it keeps it to the root user."""
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def general_name(name: str) -> x509.GeneralName:
    """Return what a certificate calls a name of DNS or an address."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
