"""A pinned OpenPGP certificate: which of its keys may sign, until when, and which were revoked.

Judged by its newest self-signatures, as gpg does: the binding of a key today counts for everything that
the key has signed since it was made. gpg replaces these signatures whenever it extends a key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pysequoia import Cert
from pysequoia.packet import Packet, PacketPile, SignatureType, Tag

from activities.drivers.signature.openpgp_packets import (
    STRONG_HASHES,
    Unsupported,
    embedded,
    framed,
    is_signed_by,
    is_soft,
    made,
    names,
    public_key,
    readable,
)
from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, SignerRevoked, TrustError, WeakAlgorithm
from policies.model.trust import LAPSED

_CERTIFICATIONS = (
    SignatureType.GenericCertification,
    SignatureType.PersonaCertification,
    SignatureType.CasualCertification,
    SignatureType.PositiveCertification,
)
_NOT_FOR_SIGNING = "is not for signing"


@dataclass(frozen=True)
class Key:
    """A primary key or a subkey, as the newest signatures of its own certificate describe it."""

    packet: Packet
    ends: datetime | None = None
    """When it expires."""
    revoked: datetime | None = None
    hard: bool = False
    """Whether the revocation counts for what the key signed before, too."""
    fault: str = ""
    """Why nothing that it signs counts, and what to do."""
    weak: bool = False
    """Whether that is because its certificate is signed by a hash that can be forged."""

    @property
    def fingerprint(self) -> str:
        """Its fingerprint, in capitals."""
        return str(self.packet.fingerprint).upper()

    @property
    def shown_fault(self) -> str:
        """The key and its fault."""
        return f"{self.fingerprint} {self.fault}"


class Certificate:
    """One certificate that the trust policy pins."""

    def __init__(self, name: str, content: bytes, fingerprint: str) -> None:
        """Read the certificate.

        Raises:
            PolicyInvalid: the content is not one certificate with this fingerprint.
        """
        self.name, self.fingerprint = name, fingerprint
        read = _read(name, content, fingerprint)
        try:
            groups = _grouped(readable(PacketPile.from_bytes(bytes(read))))
            primary = _primary(groups, revoked_by_others=read.is_revoked)
            self.keys = (primary, *_subkeys(groups, primary))
        except Exception as error:
            raise _unreadable(name, error) from error

    @property
    def fault(self) -> str:
        """Why nothing counts that any key of it signs, and what to do; empty when one signs."""
        if any(not key.fault for key in self.keys):
            return ""
        worst = next((key for key in self.keys if key.weak), self.keys[0])
        return f"nothing counts that the OpenPGP key {self.name} signs: {worst.shown_fault}"

    @property
    def ends(self) -> datetime | None:
        """When no key of it signs any more; None when one has no end, or none signs at all."""
        primary = self.keys[0]
        found = list[datetime | None]()
        for key in self.keys:
            if not key.fault:
                ends = (key.ends, key.revoked, primary.ends, primary.revoked)
                found.append(min((end for end in ends if end is not None), default=None))
        return None if None in found else max((end for end in found if end is not None), default=None)

    def named_by(self, signature: Packet) -> Key | None:
        """Return the key that the signature names; nothing of it is verified."""
        return next((key for key in self.keys if names(signature, key.packet)), None)

    def refusal_of(self, key: Key) -> TrustError:
        """Return the refusal of whatever this key signs, which has a fault."""
        kind: type[TrustError] = WeakAlgorithm if key.weak else SignatureInvalid
        told = f"nothing counts that this key of the OpenPGP certificate {self.name} signs: {key.shown_fault}"
        return kind(told, reason="key")

    def require_counts(self, key: Key, signed: datetime, at: datetime) -> None:
        """Return if what a key without a fault has signed counts at that time.

        The time of a signature is the signer's claim, so an end counts by both times.

        Raises:
            SignatureInvalid: it has ended.
            SignerRevoked: it was revoked.
        """
        certificate = f"the OpenPGP certificate {self.name}"
        judged = {self.keys[0]: certificate}
        judged.setdefault(key, f"the signing key {key.fingerprint} of {certificate}")
        for one, shown in judged.items():
            if one.hard:
                raise SignerRevoked(f"{shown} is revoked", reason="key")
        last = max(signed, at)
        for one, shown in judged.items():
            if one.revoked is not None and one.revoked <= last:
                retired = f"{shown} was replaced or retired at {one.revoked:%Y-%m-%d %H:%M} UTC"
                raise SignerRevoked(retired, reason=LAPSED)
            if one.ends is not None and one.ends <= last:
                raise SignatureInvalid(f"{shown} has expired", reason=LAPSED)


def first_line(error: Exception) -> str:
    """Return the library's message without the backtrace that it appends."""
    return str(error).partition("\n")[0][:200]


def shown(constant: object) -> str:
    """Return an algorithm's name as people write it."""
    return str(constant).rpartition(".")[2]


def _read(name: str, content: bytes, fingerprint: str) -> Cert:
    try:
        certificates = Cert.split_bytes(content)
        tags = [packet.tag for packet in PacketPile.from_bytes(content)]
    except Exception as error:
        raise _unreadable(name, error) from error
    if Tag.SecretKey in tags or Tag.SecretSubkey in tags:
        raise PolicyInvalid(
            f"OpenPGP certificate {name} has the secret key with it, which many can read there; write only "
            f"`gpg --export {fingerprint}` into it, and consider the key lost"
        )
    if len(certificates) != 1 or certificates[0].fingerprint.upper() != fingerprint:
        raise PolicyInvalid(
            f"OpenPGP certificate {name} is not exactly the one with fingerprint {fingerprint}"
        )
    return certificates[0]


def _unreadable(name: str, error: Exception) -> PolicyInvalid:
    return PolicyInvalid(f"OpenPGP certificate {name} cannot be read: {first_line(error)}")


def _grouped(packets: Iterable[Packet]) -> list[tuple[Packet, list[Packet]]]:
    """Return keys and user IDs, each with the signatures behind it."""
    groups = list[tuple[Packet, list[Packet]]]()
    for packet in packets:
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey, Tag.UserID, Tag.UserAttribute):
            groups.append((packet, []))
        elif packet.signature_type is not None:
            groups[-1][1].append(packet)
    return groups


def _primary(groups: Sequence[tuple[Packet, list[Packet]]], *, revoked_by_others: bool) -> Key:
    """Return the primary key: signatures of its own bind it, about itself and about its user IDs."""
    packet, direct = groups[0]
    signed = framed(packet)
    own = [(signed, one) for one in direct if one.signature_type == SignatureType.DirectKey]
    of_users = [
        (signed + framed(about), one)
        for about, behind in groups
        if about.tag in (Tag.UserID, Tag.UserAttribute)
        for one in behind
        if one.signature_type in _CERTIFICATIONS
    ]
    # Both name an end and what the key is for; gpg changes the second alone, so the narrower one counts.
    newest = [one for one in (_newest(packet, own), _newest(packet, of_users)) if one is not None]
    flags = [one.key_flags for one in newest if one.key_flags is not None]
    key = replace(Key(packet), ends=_end(packet, newest))
    if unsupported := _unsupported(packet):
        key = replace(key, fault=unsupported)
    elif not newest:
        key = _unbound(key, packet, [one for _, one in (*own, *of_users)])
    elif not flags or not all(one.signing for one in flags):
        key = replace(key, fault=_NOT_FOR_SIGNING)
    revocations = _of_type(groups, SignatureType.KeyRevocation)
    key = _revoked(key, [one for one in revocations if is_signed_by(packet, one, signed)])
    if revoked_by_others and key.revoked is None:  # the key that may do so is not here to be asked
        return replace(key, revoked=min(map(made, revocations), default=made(packet)), hard=True)
    return key


def _subkeys(groups: Sequence[tuple[Packet, list[Packet]]], primary: Key) -> list[Key]:
    keys = list[Key]()
    revocations = _of_type(groups, SignatureType.SubkeyRevocation)
    for packet, behind in groups:
        if packet.tag == Tag.PublicSubkey:
            signed = framed(primary.packet) + framed(packet)
            key = _subkey(packet, behind, signed, primary)
            keys.append(
                _revoked(key, [one for one in revocations if is_signed_by(primary.packet, one, signed)])
            )
    return keys


def _subkey(packet: Packet, behind: Sequence[Packet], signed: bytes, primary: Key) -> Key:
    """Return a subkey: a signature of the primary key binds it, and one of its own where it signs."""
    key = Key(packet)
    if primary.fault not in ("", _NOT_FOR_SIGNING):
        return replace(key, fault=primary.fault, weak=primary.weak)
    bindings = [one for one in behind if one.signature_type == SignatureType.SubkeyBinding]
    newest = _newest(primary.packet, [(signed, one) for one in bindings])
    if newest is None:
        return _unbound(key, primary.packet, bindings)
    key = replace(key, ends=_end(packet, [newest]))
    if newest.key_flags is None or not newest.key_flags.signing:
        return replace(key, fault=_NOT_FOR_SIGNING)
    agreed = [one for one in embedded(newest) if one.signature_type == SignatureType.PrimaryKeyBinding]
    if any(_is_strong(one) and is_signed_by(packet, one, signed) for one in agreed):
        return replace(key, fault=_unsupported(packet))
    if weak := [one for one in agreed if not _is_strong(one)]:
        return replace(key, fault=_forgeable(weak[0], key, primary.packet), weak=True)
    return replace(key, fault=_unsupported(packet) or "has not signed that it is part of this certificate")


def _newest(key: Packet, found: Sequence[tuple[bytes, Packet]]) -> Packet | None:
    """Return the newest of these signatures that the key has made, and that nobody can forge."""
    good = [
        one for signed, one in found if _is_strong(one) and names(one, key) and is_signed_by(key, one, signed)
    ]
    return max(good, key=made, default=None)


def _unbound(key: Key, primary: Packet, found: Sequence[Packet]) -> Key:
    """Return a key that no good signature of the primary key binds, with the reason."""
    if weak := [one for one in found if names(one, primary) and not _is_strong(one)]:
        return replace(key, fault=_forgeable(weak[0], key, primary), weak=True)
    return replace(key, fault="is bound to this certificate by no signature that holds")


def _revoked(key: Key, revocations: Sequence[Packet]) -> Key:
    if not revocations:
        return key
    hard = any(not is_soft(one) for one in revocations)
    return replace(key, revoked=min(map(made, revocations)), hard=hard)


def _end(key: Packet, signatures: Sequence[Packet]) -> datetime | None:
    ends = [one.signature_expiration_time for one in signatures if one.signature_expiration_time]
    ends += [made(key) + one.key_validity_period for one in signatures if one.key_validity_period]
    return min(ends, default=None)


def _unsupported(key: Packet) -> str:
    """Return why signatures of this key cannot be verified here; empty when they can."""
    try:
        public_key(key)
    except Unsupported as error:
        return (
            f"is {error}, which is not accepted; make one by `gpg --quick-generate-key NAME ed25519 sign 5y`"
        )
    except (ValueError, IndexError):
        return "cannot be read"
    return ""


def _forgeable(signature: Packet, key: Key, primary: Packet) -> str:
    mend = f"write new ones by `gpg --quick-set-expire {Key(primary).fingerprint} 5y`"
    if key.packet is not primary:  # gpg signs what is about a subkey by the hash of the signature before
        mend = f"add a signing subkey by `gpg --quick-add-key {Key(primary).fingerprint} ed25519 sign 5y`"
    return (
        f"has signatures of its certificate by {shown(signature.hash_algorithm)} alone, which can be forged; "
        f"have its holder {mend}, and export the key into its file again"
    )


def _is_strong(signature: Packet) -> bool:
    return signature.hash_algorithm in STRONG_HASHES


def _of_type(groups: Sequence[tuple[Packet, list[Packet]]], kind: SignatureType) -> list[Packet]:
    """Return the signatures of a kind wherever they are: whoever appends a revocation need not sort it in."""
    return [one for _, behind in groups for one in behind if one.signature_type == kind]
