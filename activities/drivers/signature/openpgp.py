"""Detached OpenPGP signatures by the certificates the trust policy pins, verified in process.

One signature per file, by one pinned certificate; no keyring folder, no agent, no web of
trust. The date in a signature is the signer's claim, so admission compares it with the
manifest's own dates.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, Packet, PacketPile, SignatureType, Tag

from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, SignerRevoked, WeakAlgorithm
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


class OpenPgpVerifier:
    """Verifies signatures by exactly the given certificates."""

    def __init__(self, certificates: Mapping[str, tuple[bytes, str]]) -> None:
        """Load the certificates: name to content and fingerprint.

        Raises:
            PolicyInvalid: a file is not one certificate with the fingerprint the policy names.
        """
        self._certificates = {name: _pinned(name, *pinned) for name, pinned in certificates.items()}

    def keys(self) -> frozenset[str]:
        """Return the fingerprints of all keys of the pinned certificates, subkeys included, in capitals."""
        every = map(_keys, self._certificates.values())
        return frozenset(key.fingerprint for key in chain.from_iterable(every))

    def pinned(self) -> tuple[Pinned, ...]:
        """Return the certificates whose last signing key ends, or that end themselves."""
        return tuple(
            Pinned(kind=SignatureKind.OPENPGP, root=name, shown=f"the OpenPGP key {name}", ends=ends)
            for name, certificate in self._certificates.items()
            if (ends := _signs_until(certificate)) is not None
        )

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the signature names a key of the signer's certificate; nothing of it is verified."""
        certificate = self._certificates.get(signer.openpgp or "")
        try:
            issuer = Sig.from_bytes(envelope.content).issuer_fingerprint
        except Exception:  # noqa: BLE001 - what is no signature names nobody
            return False
        return (
            certificate is not None
            and issuer is not None
            and issuer.upper() in {key.fingerprint for key in _keys(certificate)}
        )

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return which pinned certificate signed the payload, for who judges it at that time.

        Raises:
            WeakAlgorithm: the signature is over a hash that can be forged.
            SignatureInvalid: it is by no pinned certificate, over other bytes, or by an expired key.
            SignerRevoked: its certificate says of itself that it was revoked.
        """
        signature = _parse(envelope.content)
        if signature.expiration is not None and signature.expiration <= at:
            raise SignatureInvalid(
                f"the OpenPGP signature expired at {signature.expiration:%Y-%m-%d %H:%M:%S} UTC; sign again",
                reason=LAPSED,
            )
        for name, certificate in self._certificates.items():
            signed_by = _signing_key(payload, signature, certificate)
            if signed_by is None:
                continue
            if certificate.expiration is not None and certificate.expiration <= at:
                raise SignatureInvalid(f"the OpenPGP certificate {name} has expired", reason=LAPSED)
            ends = next((key.ends for key in _keys(certificate) if key.fingerprint == signed_by), None)
            if ends is not None and ends <= at:
                expired = f"the signing key {signed_by} of the OpenPGP certificate {name} has expired"
                raise SignatureInvalid(expired, reason=LAPSED)
            return VerifiedSignature(
                kind=SignatureKind.OPENPGP,
                root=name,
                identity=certificate.fingerprint.upper(),
                signing_key=signed_by,
                payload_digest=digest_of(payload),
                signed_at=signature.created,
                evidence={"hash": str(signature.hash_algorithm), "time_source": "signer"},
            )
        raise SignatureInvalid(
            "the OpenPGP signature is by no pinned certificate over these bytes", reason="root"
        )


def _pinned(name: str, content: bytes, fingerprint: str) -> Cert:
    try:
        certificates = Cert.split_bytes(content)
        tags = [packet.tag for packet in PacketPile.from_bytes(content)]
    except Exception as error:
        raise PolicyInvalid(f"OpenPGP certificate {name} cannot be read: {_first_line(error)}") from error
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


def _parse(content: bytes) -> Sig:
    """Return the one signature in the file."""
    if len(content) > MAX_SIGNATURE_BYTES:
        raise SignatureInvalid("the OpenPGP signature file is too long", reason="bundle")
    if content.lstrip().startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        raise SignatureInvalid(
            "the OpenPGP signature is around its text; sign with `gpg --detach-sign`", reason="bundle"
        )
    try:
        tags = [packet.tag for packet in PacketPile.from_bytes(content)]
        signature = Sig.from_bytes(content)
        kind, created, hashed = signature.signature_type, signature.created, signature.hash_algorithm
    except Exception as error:
        raise SignatureInvalid(f"not an OpenPGP signature: {_first_line(error)}", reason="bundle") from error
    if tags != [Tag.Signature] or kind != SignatureType.Binary or created is None:
        raise SignatureInvalid(
            "the file is not exactly one dated OpenPGP signature over bytes", reason="bundle"
        )
    if hashed not in STRONG_HASHES:
        raise WeakAlgorithm(f"the OpenPGP signature uses {hashed}; sign with SHA-256 or better")
    return signature


def _signing_key(payload: bytes, signature: Sig, certificate: Cert) -> str | None:
    """Return the fingerprint of the certificate's key that made the signature; None if no key of it did.

    Raises:
        SignerRevoked: the signature names this certificate, which was revoked.
    """
    if certificate.is_revoked:
        claimed = (signature.issuer_fingerprint or "").upper()
        if claimed in {key.fingerprint for key in _keys(certificate)}:
            raise SignerRevoked(f"the OpenPGP certificate {certificate.fingerprint} is revoked", reason="key")
        return None
    try:
        found = verify(bytes=payload, store=lambda _: [certificate], signature=signature).valid_sigs
    except Exception:  # noqa: BLE001 - the library reports every kind of refusal by RuntimeError
        return None
    if [good.certificate for good in found] != [certificate.fingerprint]:
        return None
    return str(found[0].signing_key).upper()


class _Key(NamedTuple):
    """A primary key or a subkey, and when it expires by its own newest binding."""

    fingerprint: str
    ends: datetime | None
    signs: bool
    """Whether its own certificate has it sign bytes, and not only other keys."""


def _keys(certificate: Cert) -> list[_Key]:
    """Return all keys of a certificate; the end of the primary key is the certificate's (RFC 9580, 10.1)."""
    keys: list[_Key] = []
    created = newest = _BEFORE_ALL
    for packet in PacketPile.from_bytes(bytes(certificate)):
        bound = packet.signature_created or _BEFORE_ALL
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            keys.append(_Key(packet.fingerprint.upper(), None, signs=False))
            created, newest = packet.key_created, _BEFORE_ALL
        elif packet.signature_type == SignatureType.SubkeyBinding and bound >= newest:
            newest, period = bound, packet.key_validity_period
            ends = created + period if period else None
            keys[-1] = keys[-1]._replace(ends=ends, signs=_for_signing(packet))
        elif packet.signature_type in OF_THE_PRIMARY and len(keys) == 1:
            keys[0] = keys[0]._replace(signs=keys[0].signs or _for_signing(packet))
    return keys


def _for_signing(packet: Packet) -> bool:
    return packet.key_flags is not None and packet.key_flags.signing


def _signs_until(certificate: Cert) -> datetime | None:
    """Return when no key of the certificate signs any more; None when one has no end."""
    ends = [key.ends for key in _keys(certificate) if key.signs]
    own = None if None in ends else max((end for end in ends if end is not None), default=None)
    bounds = [end for end in (own, certificate.expiration) if end is not None]
    return min(bounds, default=None)


def _first_line(error: Exception) -> str:
    """Return the message without the backtrace that the library appends."""
    return str(error).partition("\n")[0][:200]
