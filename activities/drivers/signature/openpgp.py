"""Detached OpenPGP signatures by the certificates the trust policy pins, verified in process.

One signature per file, by one pinned certificate; no keyring folder, no agent, no web of
trust. The date in a signature is the signer's claim, so admission compares it with the
manifest's own dates.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pysequoia.packet import Packet, PacketPile, SignatureType, Tag

from activities.drivers.signature.openpgp_certificate import Certificate, first_line, shown
from activities.drivers.signature.openpgp_packets import STRONG_HASHES, is_signed_by, made, readable
from policies.model.refusals import SignatureInvalid, TrustError, WeakAlgorithm
from policies.model.trust import LAPSED, Envelope, Pinned, SignatureKind, Signer, VerifiedSignature
from policies.model.value import digest_of

MAX_SIGNATURE_BYTES = 16_384
CLOCKS_APART = timedelta(minutes=30)
"""How far the signer's clock may be ahead."""


class OpenPgpVerifier:
    """Verifies signatures by exactly the given certificates."""

    def __init__(self, certificates: Mapping[str, tuple[bytes, str]]) -> None:
        """Load the certificates: name to content and fingerprint.

        Raises:
            PolicyInvalid: a file is not one certificate with the fingerprint the policy names.
        """
        self._certificates = {name: Certificate(name, *pinned) for name, pinned in certificates.items()}

    def keys(self) -> frozenset[str]:
        """Return the fingerprints of all keys of the pinned certificates, subkeys included, in capitals."""
        return frozenset(key.fingerprint for one in self._certificates.values() for key in one.keys)

    def pinned(self) -> tuple[Pinned, ...]:
        """Return the certificates that no key signs for any more some day, and those for which none does."""
        return tuple(
            Pinned(
                kind=SignatureKind.OPENPGP,
                root=name,
                shown=f"the OpenPGP key {name}",
                ends=certificate.ends,
                fault=certificate.fault,
            )
            for name, certificate in self._certificates.items()
            if certificate.ends is not None or certificate.fault
        )

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the signature names a key of the signer's certificate; nothing of it is verified."""
        certificate = self._certificates.get(signer.openpgp or "")
        try:
            (signature,) = PacketPile.from_bytes(envelope.content)
        except Exception:  # noqa: BLE001 - what is no signature names nobody
            return False
        return certificate is not None and certificate.named_by(signature) is not None

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return which pinned certificate signed the payload, for who judges it at that time.

        Raises:
            WeakAlgorithm: the signature is over a hash that can be forged.
            SignatureInvalid: it is by no pinned certificate, over other bytes, or by a key that has ended or
                that its certificate does not have sign.
            SignerRevoked: its certificate says of itself that it was revoked.
        """
        signature = _parse(envelope.content)
        created, expires = made(signature), signature.signature_expiration_time
        if expires is not None and expires <= at:
            raise SignatureInvalid(
                f"the OpenPGP signature expired at {expires:%Y-%m-%d %H:%M:%S} UTC; sign again", reason=LAPSED
            )
        if created > at + CLOCKS_APART:
            raise SignatureInvalid(
                f"the OpenPGP signature is of {created:%Y-%m-%d %H:%M:%S} UTC, which is later than now; set "
                "the clock of this host, or sign again",
                reason="clock",
            )
        refusal: TrustError = SignatureInvalid(
            "the OpenPGP signature is by no pinned certificate over these bytes", reason="root"
        )
        for name, certificate in self._certificates.items():
            key = certificate.named_by(signature)
            if key is None:
                continue
            if key.fault:  # another certificate may have the key by right
                refusal = certificate.refusal_of(key)
                continue
            if not is_signed_by(key.packet, signature, payload):
                continue
            certificate.require_counts(key, created, at)
            return VerifiedSignature(
                kind=SignatureKind.OPENPGP,
                root=name,
                identity=certificate.fingerprint,
                signing_key=key.fingerprint,
                payload_digest=digest_of(payload),
                signed_at=created,
                evidence={"hash": str(signature.hash_algorithm), "time_source": "signer"},
            )
        raise refusal


def _parse(content: bytes) -> Packet:
    """Return the one signature in the file."""
    if len(content) > MAX_SIGNATURE_BYTES:
        raise SignatureInvalid("the OpenPGP signature file is too long", reason="bundle")
    if content.lstrip().startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        raise SignatureInvalid(
            "the OpenPGP signature is around its text; sign with `gpg --detach-sign`", reason="bundle"
        )
    try:
        packets: list[Packet] = [*PacketPile.from_bytes(content)]
        tags = [packet.tag for packet in packets]
    except Exception as error:
        raise SignatureInvalid(f"not an OpenPGP signature: {first_line(error)}", reason="bundle") from error
    found = [*readable(packets)]
    if (
        tags != [Tag.Signature]
        or [one.signature_type for one in found] != [SignatureType.Binary]
        or found[0].signature_created is None
    ):
        raise SignatureInvalid(
            "the file is not exactly one dated OpenPGP signature over bytes", reason="bundle"
        )
    if found[0].hash_algorithm not in STRONG_HASHES:
        hashed = shown(found[0].hash_algorithm)
        raise WeakAlgorithm(f"the OpenPGP signature uses {hashed}; sign with SHA-256 or better")
    return found[0]
