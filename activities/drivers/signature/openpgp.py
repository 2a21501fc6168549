"""Detached OpenPGP signatures by the certificates the trust policy pins, verified in process.

One signature per file, by one pinned certificate; no keyring folder, no agent, no web of
trust. The date in a signature is the signer's claim, so admission compares it with the
manifest's own dates.
"""

from collections.abc import Mapping
from datetime import datetime

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, PacketPile, SignatureType, Tag

from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, SignerRevoked, WeakAlgorithm
from policies.model.trust import Envelope, SignatureKind, VerifiedSignature
from policies.model.value import digest_of

MAX_SIGNATURE_BYTES = 16_384
STRONG_HASHES = (HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512)


class OpenPgpVerifier:
    """Verifies signatures by exactly the given certificates."""

    def __init__(self, certificates: Mapping[str, tuple[bytes, str]]) -> None:
        """Load the certificates: name to content and fingerprint.

        Raises:
            PolicyInvalid: a file is not one certificate with the fingerprint the policy names.
        """
        self._certificates = {name: _pinned(name, *pinned) for name, pinned in certificates.items()}

    def verify(self, payload: bytes, envelope: Envelope, now: datetime) -> VerifiedSignature:
        """Return which pinned certificate signed the payload.

        Raises:
            WeakAlgorithm: the signature is over a hash that can be forged.
            SignatureInvalid: it is by none of the pinned certificates, or over other bytes.
            SignerRevoked: its certificate says of itself that it was revoked.
        """
        signature = _parse(envelope.content)
        for name, certificate in self._certificates.items():
            if _revoked_or_by_other(payload, signature, certificate):
                continue
            if certificate.expiration is not None and certificate.expiration <= now:
                raise SignatureInvalid(f"the OpenPGP certificate {name} has expired", reason="expired")
            return VerifiedSignature(
                kind=SignatureKind.OPENPGP,
                root=name,
                identity=certificate.fingerprint.upper(),
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
    except Exception as error:
        raise PolicyInvalid(f"OpenPGP certificate {name} cannot be read: {_first_line(error)}") from error
    if len(certificates) != 1 or certificates[0].fingerprint.upper() != fingerprint:
        raise PolicyInvalid(
            f"OpenPGP certificate {name} is not exactly the one with fingerprint {fingerprint}"
        )
    return certificates[0]


def _parse(content: bytes) -> Sig:
    """Return the one signature in the file."""
    if len(content) > MAX_SIGNATURE_BYTES:
        raise SignatureInvalid("the OpenPGP signature file is too long", reason="bundle")
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


def _revoked_or_by_other(payload: bytes, signature: Sig, certificate: Cert) -> bool:
    """Return whether the signature is not this certificate's.

    Raises:
        SignerRevoked: it names this certificate, which was revoked.
    """
    if certificate.is_revoked:
        if _named(signature, certificate):
            raise SignerRevoked(f"the OpenPGP certificate {certificate.fingerprint} is revoked", reason="key")
        return True
    try:
        found = verify(bytes=payload, store=lambda _: [certificate], signature=signature).valid_sigs
    except Exception:  # noqa: BLE001 - the library says every kind of no with RuntimeError
        return True
    return [good.certificate for good in found] != [certificate.fingerprint]


def _named(signature: Sig, certificate: Cert) -> bool:
    """Return whether the signature says to be by a key of this certificate, which nothing else proves."""
    claimed = (signature.issuer_fingerprint or "").lower()
    keys = [packet.fingerprint for packet in PacketPile.from_bytes(bytes(certificate)) if packet.fingerprint]
    return claimed in [fingerprint.lower() for fingerprint in keys]


def _first_line(error: Exception) -> str:
    """Return the message without the backtrace that the library appends."""
    return str(error).partition("\n")[0][:200]
