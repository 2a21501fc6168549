"""OpenPGP certificates: of gpg, at any time, and packet by packet, of which gpg makes no bad ones."""

import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CURVE = bytes.fromhex("092b06010401da470f01")
HASHES = {2: "sha1", 10: "sha512"}
CERTIFIES, SIGNS = 1, 2
BINARY, USER, SUBKEY, AGREES, KEY_REVOKED, SUBKEY_REVOKED = 0, 0x13, 0x18, 0x19, 0x20, 0x28
UNSPECIFIED, COMPROMISED, RETIRED = 0, 2, 3
USER_ID = b"lead@corp.example"
PAYLOAD = b'{"a":"statement"}'
DAY = timedelta(days=1)
MADE = datetime(2024, 1, 1, tzinfo=UTC)
SIGNED, EXTENDED, REVOKED = MADE + 100 * DAY, MADE + 300 * DAY, MADE + 400 * DAY


class Gpg:
    """The real gpg, with a folder of its own."""

    def __init__(self, home: Path) -> None:
        """Make the folder."""
        home.mkdir(mode=0o700)
        self.home = home

    def __call__(self, *arguments: str, at: datetime | None = None, content: bytes = b"") -> bytes:
        """Run it, at that time by its own clock, and return what it prints."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
        command += ["--passphrase", "", "--no-auto-check-trustdb", "--trust-model", "always"]
        command += ["--faked-system-time", f"{at.astimezone(UTC):%Y%m%dT%H%M%S}!"] if at else []
        done = subprocess.run([*command, *arguments], input=content, check=True, capture_output=True)
        return done.stdout

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its first key."""
        lines = self("--with-colons", "--list-keys").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def finds_good(self, certificate: bytes, payload: bytes, signature: bytes, at: datetime) -> bool:
        """Return whether it finds a signature good by this certificate."""
        self("--import", content=certificate, at=at)
        for name, content in (("payload", payload), ("signature", signature)):
            (self.home / name).write_bytes(content)
        arguments = ("--status-fd", "1", "--verify", str(self.home / "signature"), str(self.home / "payload"))
        try:
            return b"[GNUPG:] GOODSIG" in self(*arguments, at=at)
        except subprocess.CalledProcessError:
            return False


@contextmanager
def gpg_in(home: Path) -> Iterator[Gpg]:
    """Yield a gpg in a new folder, and end its agent."""
    try:
        yield Gpg(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@dataclass
class Made:
    """A key pair whose packets and signatures are put together here."""

    created: datetime
    secret: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def body(self) -> bytes:
        """The key packet without its header."""
        point = b"\x40" + self.secret.public_key().public_bytes_raw()
        return b"\x04" + seconds(self.created) + b"\x16" + CURVE + number(point)

    @property
    def secret_body(self) -> bytes:
        """The packet with the secret key, without a passphrase."""
        secret = number(self.secret.private_bytes_raw())
        return self.body + b"\0" + secret + (sum(secret) % 65536).to_bytes(2)

    @property
    def framed(self) -> bytes:
        """The key as signatures are over it."""
        return b"\x99" + len(self.body).to_bytes(2) + self.body

    @property
    def fingerprint(self) -> str:
        """The fingerprint, in capitals."""
        return hashlib.sha1(self.framed, usedforsecurity=False).hexdigest().upper()

    def sign(
        self,
        kind: int,
        signed: bytes,
        at: datetime,
        *proven: bytes,
        beside: Iterable[bytes] = (),
        by: int = 10,
        broken: bool = False,
    ) -> bytes:
        """Return a signature of this kind, without its packet's header."""
        issuer = subpacket(33, b"\x04" + bytes.fromhex(self.fingerprint))
        area = b"".join((subpacket(2, seconds(at)), issuer, *proven))
        hashed = bytes([4, kind, 22, by]) + len(area).to_bytes(2) + area
        digest = hashlib.new(HASHES[by], signed + hashed + b"\x04\xff" + len(hashed).to_bytes(4)).digest()
        value = self.secret.sign(digest[::-1] if broken else digest)
        key_id = subpacket(16, bytes.fromhex(self.fingerprint)[-8:])  # gpg asks for it
        unproven = b"".join((key_id, *beside))
        parts = (
            hashed,
            len(unproven).to_bytes(2),
            unproven,
            digest[:2],
            number(value[:32]),
            number(value[32:]),
        )
        return b"".join(parts)


def seconds(at: datetime) -> bytes:
    """Return a time as four bytes."""
    return int(at.timestamp()).to_bytes(4)


def lasts(length: timedelta) -> bytes:
    """Return that a key ends so long after it was made."""
    return subpacket(9, int(length.total_seconds()).to_bytes(4))


def flags(flag: int) -> bytes:
    """Return what a key is for."""
    return subpacket(27, bytes([flag]))


def subpacket(kind: int, content: bytes) -> bytes:
    """Return a part of a signature."""
    return b"\xff" + (len(content) + 1).to_bytes(4) + bytes([kind]) + content


def number(content: bytes) -> bytes:
    """Return a number with its length in bits before it."""
    stripped = content.lstrip(b"\0")
    return int.from_bytes(stripped).bit_length().to_bytes(2) + stripped


def packet(tag: int, body: bytes) -> bytes:
    """Return a packet with its header."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4) + body


@dataclass
class Crafted:
    """A certificate that was extended after its signing subkey has signed, and what is wrong with it."""

    primary: Made = field(default_factory=lambda: Made(MADE))
    subkey: Made = field(default_factory=lambda: Made(MADE))
    binder: Made | None = None
    """The key that makes the signature which binds the subkey, instead of the primary one."""
    agreeing: Made | None = None
    """The key that agrees to it, instead of the subkey."""
    agreed: bool = True
    subkey_flags: bytes = flags(SIGNS)
    user_flags: bytes = flags(CERTIFIES)
    ends: bytes = b""
    subkey_ends: bytes = b""
    hashed_by: int = 10
    subkey_hashed_by: int = 10
    agreeing_hashed_by: int = 10
    broken: bool = False
    more: tuple[bytes, ...] = ()
    """Packets behind the subkey."""

    @property
    def bound(self) -> bytes:
        """The two keys as signatures are over them that bind one to the other."""
        return self.primary.framed + self.subkey.framed

    @property
    def certified(self) -> bytes:
        """The primary key and its user ID as signatures are over them."""
        return self.primary.framed + b"\xb4" + len(USER_ID).to_bytes(4) + USER_ID

    def content(self, *, secret: bool = False) -> bytes:
        """Return the certificate, or with the secret keys what gpg imports."""
        of_user = self.primary.sign(
            USER, self.certified, EXTENDED, self.user_flags, self.ends, by=self.hashed_by
        )
        agreeing = (self.agreeing or self.subkey).sign(
            AGREES, self.bound, EXTENDED, by=self.agreeing_hashed_by
        )
        beside = [subpacket(32, agreeing)] if self.agreed else []
        binding = (self.binder or self.primary).sign(
            SUBKEY,
            self.bound,
            EXTENDED,
            self.subkey_flags,
            self.subkey_ends,
            beside=beside,
            by=self.subkey_hashed_by,
            broken=self.broken,
        )
        primary = packet(5, self.primary.secret_body) if secret else packet(6, self.primary.body)
        subkey = packet(7, self.subkey.secret_body) if secret else packet(14, self.subkey.body)
        packets = [primary, packet(13, USER_ID), packet(2, of_user), subkey, packet(2, binding)]
        return b"".join((*packets, *self.more))

    def revoke(
        self, kind: int, reason: int | None, at: datetime = REVOKED, by: Made | None = None
    ) -> "Crafted":
        """Have the key revoke, itself or by another, and return the certificate."""
        signed = self.primary.framed if kind == KEY_REVOKED else self.bound
        why = () if reason is None else (subpacket(29, bytes([reason])),)
        self.more += (packet(2, (by or self.primary).sign(kind, signed, at, *why)),)
        return self

    def signature(self, at: datetime = SIGNED, *proven: bytes, payload: bytes = PAYLOAD) -> bytes:
        """Return the subkey's detached signature."""
        return packet(2, self.subkey.sign(BINARY, payload, at, *proven))
