"""Detached OpenPGP signatures by the certificates the trust policy pins, verified in process.

One signature per file, by one pinned certificate; no keyring folder, no agent, no web of
trust. The date in a signature is the signer's claim, so admission compares it with the
manifest's own dates.

The library judges a signature by what its key said of itself then. gpg replaces that whenever it extends
a key, so a file of the trust policy holds all exports of its certificate, one behind the other.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import reduce
from typing import NamedTuple

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, Packet, PacketPile, SignatureType, Tag

from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, SignerRevoked, TrustError, WeakAlgorithm
from policies.model.trust import LAPSED, Envelope, Pinned, SignatureKind, Signer, VerifiedSignature
from policies.model.value import digest_of

MAX_SIGNATURE_BYTES = 16_384
OF_THE_PRIMARY = (
    SignatureType.DirectKey,
    SignatureType.GenericCertification,
    SignatureType.PersonaCertification,
    SignatureType.CasualCertification,
    SignatureType.PositiveCertification,
)
"""Signatures of a certificate about its primary key."""
STRONG_HASHES = (HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_SIGNATURE = 2
"""The number of signature packets (RFC 9580, 5)."""
_ARMOR = re.compile(
    rb"\s*-----BEGIN PGP SIGNATURE-----[ \t]*\r?\n(?:[A-Za-z]+: [^\n]*\n)*[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\s]+)-----END PGP SIGNATURE-----\s*"
)
_POLICY = re.compile(r"Policy rejected[^\n]*")
_ARMORED_KEY, _ARMOR_ENDS = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"


class OpenPgpVerifier:
    """Verifies signatures by exactly the given certificates."""

    def __init__(self, certificates: Mapping[str, tuple[bytes, str]]) -> None:
        """Load the certificates: name to content and fingerprint.

        Raises:
            PolicyInvalid: a file has another certificate than the one with the fingerprint the policy names.
        """
        self._certificates = {name: _pinned(name, *pinned) for name, pinned in certificates.items()}

    def keys(self) -> frozenset[str]:
        """Return the fingerprints of all keys of the pinned certificates, subkeys included, in capitals."""
        return frozenset(key.fingerprint for one in self._certificates.values() for key in one.keys)

    def pinned(self) -> tuple[Pinned, ...]:
        """Return the certificates that no key signs for any more some day, and those for which none does."""
        found = (
            Pinned(
                kind=SignatureKind.OPENPGP,
                root=name,
                shown=f"the OpenPGP key {name}",
                ends=None if (fault := _fault(certificate)) else _signs_until(certificate),
                fault=fault,
            )
            for name, certificate in self._certificates.items()
        )
        return tuple(one for one in found if one.ends is not None or one.fault)

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the signature names a key of the signer's certificate; nothing of it is verified."""
        certificate = self._certificates.get(signer.openpgp or "")
        try:
            issuer = Sig.from_bytes(_bare(envelope.content)).issuer_fingerprint
        except Exception:  # noqa: BLE001 - what is no signature names nobody
            return False
        return certificate is not None and issuer is not None and certificate.key(issuer) is not None

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return which pinned certificate signed the payload, for who judges it at that time.

        Raises:
            WeakAlgorithm: the signature is over a hash that can be forged.
            SignatureInvalid: it is by no pinned certificate, over other bytes, by an expired key, or by one
                whose file has no export from that time.
            SignerRevoked: its certificate says of itself that it was revoked.
        """
        signature = _parse(envelope.content)
        if signature.expiration is not None and signature.expiration <= at:
            raise SignatureInvalid(
                f"the OpenPGP signature expired at {signature.expiration:%Y-%m-%d %H:%M:%S} UTC; sign again",
                reason=LAPSED,
            )
        refusal: TrustError = SignatureInvalid(
            "the OpenPGP signature is by no pinned certificate over these bytes", reason="root"
        )
        for name, certificate in self._certificates.items():
            signed_by = _signing_key(payload, signature, certificate.whole)
            if signed_by is None:
                refusal = _refusal(certificate, signature) or refusal
                continue
            expiration = certificate.whole.expiration
            if expiration is not None and expiration <= at:
                raise SignatureInvalid(f"the OpenPGP certificate {name} has expired", reason=LAPSED)
            key = certificate.key(signed_by)
            if key is not None and key.ends is not None and key.ends <= at:
                expired = f"the signing key {signed_by} of the OpenPGP certificate {name} has expired"
                raise SignatureInvalid(expired, reason=LAPSED)
            return VerifiedSignature(
                kind=SignatureKind.OPENPGP,
                root=name,
                identity=certificate.whole.fingerprint.upper(),
                signing_key=signed_by,
                payload_digest=digest_of(payload),
                signed_at=signature.created,
                evidence={"hash": str(signature.hash_algorithm), "time_source": "signer"},
            )
        raise refusal


class _Statement(NamedTuple):
    """One signature of a certificate about a key of its own."""

    at: datetime
    ends: datetime | None
    """When the key expires by it, None for never."""
    hashed_by: str
    is_strong: bool
    user: int = 0
    """The user ID that it is over, in the order of the certificate; 0 for a key alone."""


class _Key(NamedTuple):
    """A primary key or a subkey, and when it expires by its own newest binding."""

    fingerprint: str
    ends: datetime | None = None
    signs: bool = False
    """Whether its own certificate has it sign bytes, and not only other keys."""
    since: datetime | None = None
    """Since when its certificate says anything of it, None where it does not say so."""
    weak: str = ""
    """The hash of its certificate's signatures about it where all of them can be forged."""
    statements: tuple[_Statement, ...] = ()
    """All signatures of its certificate about it that can be read and have a date."""


class _Certificate(NamedTuple):
    """A pinned certificate, read once."""

    name: str
    whole: Cert
    """What all of its exports say."""
    keys: tuple[_Key, ...]
    """The primary key, and its subkeys."""

    def key(self, fingerprint: str) -> _Key | None:
        """Return its key with this fingerprint."""
        return next((key for key in self.keys if key.fingerprint == fingerprint.upper()), None)


def _pinned(name: str, content: bytes, fingerprint: str) -> _Certificate:
    """Return the certificate in a file, with what all of its exports there say."""
    try:
        certificates = Cert.split_bytes(content)
        tags = [packet.tag for one in _exports(content) for packet in PacketPile.from_bytes(one)]
    except Exception as error:
        raise _unreadable(name, error) from error
    if Tag.SecretKey in tags or Tag.SecretSubkey in tags:
        raise PolicyInvalid(
            f"OpenPGP certificate {name} has the secret key with it, which many can read there; write only "
            f"`gpg --export {fingerprint}` into it, and consider the key lost"
        )
    if {one.fingerprint.upper() for one in certificates} != {fingerprint}:
        raise PolicyInvalid(
            f"OpenPGP certificate {name} is not exactly the one with fingerprint {fingerprint}"
        )
    if _ARMORED_KEY in content and not content.rstrip().endswith(_ARMOR_ENDS):
        raise PolicyInvalid(
            f"OpenPGP certificate {name} has something behind its last armored export, which nobody reads; "
            "write every export by `gpg --armor --export`"
        )
    try:
        whole = reduce(Cert.merge, certificates)
        return _Certificate(name, whole, tuple(_keys(whole)))
    except Exception as error:  # the library does not write again all that it reads
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> PolicyInvalid:
    return PolicyInvalid(f"OpenPGP certificate {name} cannot be read: {_first_line(error)}")


def _exports(content: bytes) -> list[bytes]:
    """Return each armored export of a file, of which the library reads one; binary ones are one."""
    armored = content.split(_ARMORED_KEY)
    return [_ARMORED_KEY + one for one in armored[1:]] or [content]


def _parse(content: bytes) -> Sig:
    """Return the one signature in the file."""
    if content.lstrip().startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        raise SignatureInvalid(
            "the OpenPGP signature is around its text; sign with `gpg --detach-sign`", reason="bundle"
        )
    bare = _bare(content)
    try:
        signature = Sig.from_bytes(bare)
        kind, created, hashed = signature.signature_type, signature.created, signature.hash_algorithm
    except Exception as error:
        raise SignatureInvalid(f"not an OpenPGP signature: {_first_line(error)}", reason="bundle") from error
    if kind != SignatureType.Binary or created is None:
        raise SignatureInvalid(
            "the file is not exactly one dated OpenPGP signature over bytes", reason="bundle"
        )
    if hashed not in STRONG_HASHES:
        raise WeakAlgorithm(f"the OpenPGP signature uses {_shown(hashed)}; sign with SHA-256 or better")
    return signature


def _bare(content: bytes) -> bytes:
    """Return the one packet of a signature's file, without its armor.

    The library is given nothing else: it unpacks compressed packets, of which a few hundred bytes become
    gigabytes.

    Raises:
        SignatureInvalid: the file is too long, or not exactly one signature packet.
    """
    if len(content) > MAX_SIGNATURE_BYTES:
        raise SignatureInvalid("the OpenPGP signature file is too long", reason="bundle")
    bare = content
    if armored := _ARMOR.fullmatch(content):
        lines = [line for line in armored[1].split() if not line.startswith(b"=")]  # without the checksum
        try:
            bare = base64.b64decode(b"".join(lines), validate=True)
        except binascii.Error as error:
            raise SignatureInvalid(f"not an OpenPGP signature: {error}", reason="bundle") from error
    if not _is_one_signature(bare):
        raise SignatureInvalid("the file is not exactly one OpenPGP signature", reason="bundle")
    return bare


def _is_one_signature(content: bytes) -> bool:
    """Return whether these bytes are one signature packet by its header (RFC 9580, 4.2)."""
    first, second = (*content[:2], 0, 0)[:2]
    if first >= 0xC0:  # noqa: PLR2004 - the newer form
        tag, width = first & 0x3F, 1 if second < 192 else 2 if second < 224 else 5 if second == 255 else 0  # noqa: PLR2004
        length = second if width == 1 else int.from_bytes(content[2:6])
        if width == 2:  # noqa: PLR2004
            length = ((second - 192) << 8) + int.from_bytes(content[2:3]) + 192
    else:
        tag, width = (first & 0x3F) >> 2, (1, 2, 4, 0)[first & 3] if first >= 0x80 else 0  # noqa: PLR2004
        length = int.from_bytes(content[1 : 1 + width])
    return tag == _SIGNATURE and width > 0 and 1 + width + length == len(content)


def _signing_key(payload: bytes, signature: Sig, certificate: Cert) -> str | None:
    """Return the fingerprint of the certificate's key that made the signature; None if no key of it did."""
    if certificate.is_revoked:
        return None
    try:
        found = verify(bytes=payload, store=lambda _: [certificate], signature=signature).valid_sigs
    except Exception:  # noqa: BLE001 - the library reports every kind of refusal by RuntimeError
        return None
    if [good.certificate for good in found] != [certificate.fingerprint]:
        return None
    return str(found[0].signing_key).upper()


def _keys(certificate: Cert) -> list[_Key]:
    """Return all keys of a certificate; the end of the primary key is the certificate's (RFC 9580, 10.1)."""
    keys: list[_Key] = []
    created = newest = _BEFORE_ALL
    key_id, user, withdrawn = "", 0, set[int]()
    for packet in _readable(certificate):
        bound = packet.signature_created or _BEFORE_ALL
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            key_id = key_id or str(packet.key_id)
            keys.append(_Key(str(packet.fingerprint).upper()))
            created, newest = packet.key_created or _BEFORE_ALL, _BEFORE_ALL
        elif packet.signature_type == SignatureType.SubkeyBinding:
            keys[-1] = _with_binding(keys[-1], packet, created)
            if bound >= newest:
                newest = bound
                keys[-1] = keys[-1]._replace(ends=_end(packet, created), signs=_for_signing(packet))
        elif packet.tag in (Tag.UserID, Tag.UserAttribute):
            user += 1
        elif len(keys) == 1 and _is_by(packet, keys[0].fingerprint, key_id):
            if packet.signature_type == SignatureType.CertificationRevocation:
                withdrawn.add(user)
            elif packet.signature_type in OF_THE_PRIMARY:
                keys[0] = _with_binding(keys[0], packet, created, user)
                keys[0] = keys[0]._replace(signs=keys[0].signs or _for_signing(packet))
    return [_without(withdrawn, keys[0]), *keys[1:]]


def _without(users: set[int], key: _Key) -> _Key:
    """Return a key without what it says over these user IDs; all of it where nothing else is left."""
    left = tuple(one for one in key.statements if one.user not in users)
    return key._replace(statements=left or key.statements)


def _is_by(packet: Packet, fingerprint: str, key_id: str) -> bool:
    """Return whether a signature names this key as its maker; others certify user IDs, too.

    The library has verified none of theirs. A signature that names no maker counts as the key's own.
    """
    try:
        by, by_id = packet.issuer_fingerprint, packet.issuer_key_id
    except Exception:  # noqa: BLE001 - the library reports everything by RuntimeError
        return True
    if by is not None:
        return str(by).upper() == fingerprint
    return by_id is None or str(by_id).upper() == key_id.upper()


def _end(packet: Packet, created: datetime) -> datetime | None:
    """Return when a key that was made at that time expires by a signature about it."""
    period = packet.key_validity_period
    return created + period if period else None


def _readable(certificate: Cert) -> Iterator[Packet]:
    """Yield the packets that the library knows: of others it raises errors when they are asked."""
    for packet in PacketPile.from_bytes(bytes(certificate)):
        try:
            _ = packet.tag, packet.signature_type, packet.hash_algorithm, packet.fingerprint
        except Exception:  # noqa: BLE001, S112 - the library reports everything by RuntimeError
            continue
        yield packet


def _with_binding(key: _Key, packet: Packet, created: datetime, user: int = 0) -> _Key:
    """Return the key, made at that time, with one more signature of its certificate about it."""
    bound = packet.signature_created
    times = [one for one in (key.since, bound) if one is not None]
    is_strong = packet.hash_algorithm in STRONG_HASHES
    hashed_by = _shown(packet.hash_algorithm)
    weak = "" if is_strong or (key.since is not None and not key.weak) else hashed_by
    more = () if bound is None else (_Statement(bound, _end(packet, created), hashed_by, is_strong, user),)
    return key._replace(since=min(times, default=None), weak=weak, statements=(*key.statements, *more))


def _shown(constant: object) -> str:
    """Return an algorithm's name as people write it."""
    return str(constant).rpartition(".")[2]


def _fault(certificate: _Certificate) -> str:
    """Return why nothing counts that any key of it signs, and what to do; empty where one does."""
    keys = certificate.keys
    nothing = f"nothing counts that the OpenPGP key {certificate.name} signs: "
    signing = [key for key in keys if key.signs]
    if not keys[0].statements:
        return nothing + _rejected(certificate)
    if keys[0].weak or (signing and all(key.weak for key in signing)):
        return nothing + _forgeable(keys[0], keys[0] if keys[0].weak else signing[0])
    if not signing:
        return f"{nothing}{keys[0].fingerprint} is not for signing, and has no subkey that is"
    return nothing + rejected if (rejected := _rejected(certificate)) else ""


def _rejected(certificate: _Certificate) -> str:
    """Return why the library takes no signature of the primary key about itself, empty where it does."""
    if not certificate.keys[0].statements:
        return _unread(certificate.keys[0])
    try:
        _ = certificate.whole.expiration
    except Exception as error:  # noqa: BLE001 - the library reports everything by RuntimeError
        cause = _POLICY.search(str(error))
        return f"{cause[0][:200]}; make a new key" if cause else _unread(certificate.keys[0])
    return ""


def _unread(primary: _Key) -> str:
    return (
        f"its file has no signature of {primary.fingerprint} about itself that can be verified here. Either "
        "the export has no user ID, or the key has an algorithm or a curve that is not supported, such as "
        "secp256k1. Export the key with its user IDs, or make a new key"
    )


def _forgeable(primary: _Key, key: _Key) -> str:
    mend = f"write new ones by `gpg --quick-set-expire {primary.fingerprint} 5y`"
    if key != primary:  # gpg signs what is about a subkey by the hash of the signature before
        mend = f"add a signing subkey by `gpg --quick-add-key {primary.fingerprint} ed25519 sign 5y`"
    return (
        f"{key.fingerprint} has signatures of its certificate by {key.weak} alone, which can be forged; have "
        f"its holder {mend}, and put the new export behind the one in its file"
    )


def _refusal(certificate: _Certificate, signature: Sig) -> TrustError | None:
    """Return why a signature that names a key of the certificate does not hold, where that is known."""
    name, primary = certificate.name, certificate.keys[0]
    key = certificate.key(signature.issuer_fingerprint or "")
    if key is None:
        return None
    if certificate.whole.is_revoked:
        return SignerRevoked(f"the OpenPGP certificate {name} is revoked", reason="key")
    if weak := next((one for one in (primary, key) if one.weak), None):
        return WeakAlgorithm(f"the OpenPGP key {name}: {_forgeable(primary, weak)}", reason="key")
    if rejected := _rejected(certificate):
        return SignatureInvalid(f"the OpenPGP key {name}: {rejected}", reason="key")
    at = signature.created or _BEFORE_ALL
    return _unknown_then(name, primary, at) or _unknown_then(name, key, at)


def _unknown_then(name: str, key: _Key, at: datetime) -> TrustError | None:
    """Return why the file of a certificate does not have the key sign at that time, None where it does.

    What the key says of itself then is its newest statement from before.
    """
    signed = f"the OpenPGP signature is of {_minute(at)}, and "
    replaced = "gpg replaces what a key says of itself when it is extended; put"
    before = [one for one in key.statements if one.at <= at]
    later = min((one.at for one in key.statements if one.at > at and one.is_strong), default=None)
    if key.since is not None and at < key.since:
        why = f"what the file of the key {name} says begins at {_minute(key.since)}: {replaced} the earlier "
        return SignatureInvalid(f"{signed}{why}export of the key back before the newer one", reason="key")
    strong = [one for one in before if one.is_strong]
    if before and not strong:
        why = f"at that time the key {name} had signatures of its certificate about {key.fingerprint} by "
        forged = f"{before[0].hashed_by} alone, which can be forged; sign again"
        return WeakAlgorithm(f"{signed}{why}{forged}", reason="key")
    last = max(strong, key=lambda one: (one.at, one.ends is None, one.ends or at), default=None)
    if last is None or last.ends is None or last.ends > at:
        return None
    ended = f"by the file of the key {name}, {key.fingerprint} had expired at {_minute(last.ends)}"
    if later is None:
        newest = "put the newest export of the key behind the one in its file, or sign again with a valid key"
        return SignatureInvalid(f"{signed}{ended}; {newest}", reason="key")
    between = f"the export from between {_minute(last.at)} and {_minute(later)} back between the two there"
    return SignatureInvalid(f"{signed}{ended}: {replaced} {between}", reason="key")


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _for_signing(packet: Packet) -> bool:
    return packet.key_flags is not None and packet.key_flags.signing


def _signs_until(certificate: _Certificate) -> datetime | None:
    """Return when no key of the certificate signs any more; None when one has no end."""
    ends = [key.ends for key in certificate.keys if key.signs]
    own = None if None in ends else max((end for end in ends if end is not None), default=None)
    bounds = [end for end in (own, certificate.whole.expiration) if end is not None]
    return min(bounds, default=None)


def _first_line(error: Exception) -> str:
    """Return the message without the backtrace that the library appends."""
    return str(error).partition("\n")[0][:200]
