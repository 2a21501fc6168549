"""OpenPGP signature packets (RFC 9580), verified one by one: whether this key made it over these bytes.

The library verifies a signature only by a certificate that was bound when it was made. `gpg` replaces these
bindings when it extends a key, so the arithmetic is asked alone, and a certificate is judged beside it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from pysequoia.packet import HashAlgorithm, Packet, PacketPile, SignatureType, Tag

SMALLEST_RSA_BITS = 2048
STRONG_HASHES = (HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512)
_HASHES: dict[int, hashes.HashAlgorithm] = {
    2: hashes.SHA1(),  # noqa: S303 - for revocations alone; the certificate takes nothing else by it
    8: hashes.SHA256(),
    9: hashes.SHA384(),
    10: hashes.SHA512(),
}
_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("2b81040022"): ec.SECP384R1(),
    bytes.fromhex("2b81040023"): ec.SECP521R1(),
}
_ED25519 = bytes.fromhex("2b06010401da470f01")
"""The curve of the older EdDSA keys, which are what gpg makes."""
_REASON_FOR_REVOCATION, _EMBEDDED_SIGNATURE = 29, 32
_SUPERSEDED, _RETIRED = 1, 3
_UNDERSTOOD = {2, 3, 4, 7, 9, 11, 16, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33, 34, 35, 39}
"""Kinds of subpackets that may be critical; a signature with another critical one proves nothing."""

_OTHERS = {16: "ElGamal", 17: "DSA", 18: "ECDH", 19: "ECDSA on this curve", 22: "EdDSA on this curve"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


class Unsupported(ValueError):
    """A key of an algorithm or size that is not accepted."""


class _Subpacket(NamedTuple):
    kind: int
    critical: bool
    content: bytes


class _Parts(NamedTuple):
    """The fields of a signature packet that its arithmetic needs."""

    version: int
    algorithm: int
    hashed_by: int
    hashed: bytes
    """From the version to the end of what the signature is also over."""
    salt: bytes
    numbers: bytes
    proven: tuple[_Subpacket, ...]
    unproven: tuple[_Subpacket, ...]


def readable(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Return the packets of kinds and algorithms that the library knows: of others it raises errors later."""
    return filter(_is_readable, packets)


def _is_readable(packet: Packet) -> bool:
    try:
        _ = packet.tag, packet.signature_type, packet.hash_algorithm, packet.body
    except Exception:  # noqa: BLE001 - the library reports everything by RuntimeError
        return False
    return True


def framed(packet: Packet) -> bytes:
    """Return a key or user ID as signatures of a certificate are over it (RFC 9580, 5.2.4)."""
    body = bytes(packet.body)
    if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
        if body[0] == 6:  # noqa: PLR2004 - the version of the key
            return b"\x9b" + len(body).to_bytes(4) + body
        return b"\x99" + len(body).to_bytes(2) + body
    first = b"\xb4" if packet.tag == Tag.UserID else b"\xd1"
    return first + len(body).to_bytes(4) + body


def made(packet: Packet) -> datetime:
    """Return when a key or a signature was made; one without a time was made before all others."""
    return packet.signature_created or packet.key_created or datetime.min.replace(tzinfo=UTC)


def names(signature: Packet, key: Packet) -> bool:
    """Return whether a signature says that this key has made it."""
    if signature.issuer_fingerprint is not None:
        return bool(signature.issuer_fingerprint == key.fingerprint)
    return signature.issuer_key_id is not None and signature.issuer_key_id == key.key_id


def is_signed_by(key: Packet, signature: Packet, signed: bytes) -> bool:
    """Return whether the key made the signature over these bytes; what the key may sign is not asked.

    One from before the key was made does not count, and neither does one with a critical part that is not
    understood, unless it revokes.
    """
    if made(signature) < made(key):
        return False
    try:
        parts = _parts(bytes(signature.body))
        if not _revokes(signature) and any(
            one.critical and one.kind not in _UNDERSTOOD for one in parts.proven
        ):
            return False
        if key.body[0] != parts.version or key.body[5] != parts.algorithm:
            return False
        trailer = bytes([parts.version, 0xFF]) + len(parts.hashed).to_bytes(4)
        _verify(public_key(key), parts, parts.salt + signed + parts.hashed + trailer)
    except (InvalidSignature, ValueError, IndexError, KeyError, OverflowError):
        return False
    return True


def _revokes(signature: Packet) -> bool:
    return signature.signature_type in (SignatureType.KeyRevocation, SignatureType.SubkeyRevocation)


def is_soft(revocation: Packet) -> bool:
    """Return whether a revocation says that the key was replaced or retired, and nothing worse."""
    try:
        proven = _parts(bytes(revocation.body)).proven
    except (ValueError, IndexError):
        return False
    reasons = {one.content[:1] for one in proven if one.kind == _REASON_FOR_REVOCATION}
    return bool(reasons) and reasons <= {bytes([_SUPERSEDED]), bytes([_RETIRED])}


def embedded(signature: Packet) -> Iterator[Packet]:
    """Yield the signatures in a signature: of a binding those by which a subkey agrees to it."""
    parts = _parts(bytes(signature.body))
    for one in (*parts.proven, *parts.unproven):
        if one.kind == _EMBEDDED_SIGNATURE:
            packet = b"\xc2\xff" + len(one.content).to_bytes(4) + one.content
            with suppress(Exception):  # one that the library cannot read is none
                yield from readable(PacketPile.from_bytes(packet))


def public_key(key: Packet) -> PublicKey:
    """Return the key in a packet.

    Raises:
        Unsupported: it is of another algorithm or too small.
        ValueError: it is malformed.
    """
    body = bytes(key.body)
    material = body[10:] if body[0] == 6 else body[6:]  # noqa: PLR2004 - the version of the key
    match body[5]:
        case 1 | 3:  # RSA
            modulus, material = _number(material)
            exponent, _ = _number(material)
            if modulus.bit_length() < SMALLEST_RSA_BITS:
                raise Unsupported(f"an RSA key of {modulus.bit_length()} bits")
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        case 19:  # ECDSA
            curve = _CURVES.get(material[1 : 1 + material[0]])
            if curve is not None:
                point = material[1 + material[0] + 2 :]
                return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        case 22:  # EdDSA, as gpg writes it
            if material[1 : 1 + material[0]] == _ED25519:
                point = material[1 + material[0] + 2 :]
                return ed25519.Ed25519PublicKey.from_public_bytes(point.removeprefix(b"\x40"))
        case 27:
            return ed25519.Ed25519PublicKey.from_public_bytes(material)
        case 28:
            return ed448.Ed448PublicKey.from_public_bytes(material)
        case _:
            pass
    raise Unsupported(f"a key of {_OTHERS.get(body[5], f'algorithm {body[5]}')}")


def _verify(key: PublicKey, parts: _Parts, signed: bytes) -> None:
    by = _HASHES[parts.hashed_by]
    digest = hashlib.new(by.name, signed).digest()
    match key:
        case rsa.RSAPublicKey():
            value, _ = _number(parts.numbers)
            size = (key.key_size + 7) // 8
            key.verify(value.to_bytes(size), digest, padding.PKCS1v15(), utils.Prehashed(by))
        case ec.EllipticCurvePublicKey():
            r, rest = _number(parts.numbers)
            s, _ = _number(rest)
            key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(by)))
        case ed25519.Ed25519PublicKey() if parts.algorithm == 22:  # noqa: PLR2004 - two numbers, without zeros before
            r, rest = _number(parts.numbers)
            s, _ = _number(rest)
            key.verify(r.to_bytes(32) + s.to_bytes(32), digest)
        case _:
            key.verify(parts.numbers, digest)


def _parts(body: bytes) -> _Parts:
    version = body[0]
    if version not in (4, 6):
        raise ValueError(f"a signature of version {version}")
    width = 2 if version == 4 else 4  # noqa: PLR2004 - the version
    end = 4 + width + int.from_bytes(body[4 : 4 + width])
    after = end + width + int.from_bytes(body[end : end + width])
    numbers, salt = body[after + 2 :], b""  # two bytes of the digest are before them, for a quick look
    if version == 6:  # noqa: PLR2004 - the version
        salt, numbers = numbers[1 : 1 + numbers[0]], numbers[1 + numbers[0] :]
    return _Parts(
        version=version,
        algorithm=body[2],
        hashed_by=body[3],
        hashed=body[:end],
        salt=salt,
        numbers=numbers,
        proven=tuple(_subpackets(body[4 + width : end])),
        unproven=tuple(_subpackets(body[end + width : after])),
    )


def _subpackets(area: bytes) -> Iterator[_Subpacket]:
    while area:
        length, start = area[0], 1
        if length == 255:  # noqa: PLR2004 - four bytes of length follow
            length, start = int.from_bytes(area[1:5]), 5
        elif length >= 192:  # noqa: PLR2004 - one byte of length follows
            length, start = ((length - 192) << 8) + area[1] + 192, 2
        content, area = area[start : start + length], area[start + length :]
        yield _Subpacket(content[0] & 0x7F, bool(content[0] & 0x80), content[1:])


def _number(material: bytes) -> tuple[int, bytes]:
    """Return the number at the beginning, and what is after it."""
    end = 2 + (int.from_bytes(material[:2]) + 7) // 8
    return int.from_bytes(material[2:end]), material[end:]
