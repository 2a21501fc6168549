"""Detached CMS signatures by an enterprise CA, with an optional RFC 3161 time stamp.

`cryptography` verifies chains but no CMS, and `openssl cms` accepts any certificate of the CA,
so the SignedData (RFC 5652) is taken apart here: one signer, SHA-256 or better, the signed
attributes exactly once, a leaf for code signing, and its chain at the stamped time.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)
from rfc3161_client import VerifierBuilder, decode_timestamp_response

from activities.refusals import (
    PolicyInvalid,
)
from policies.model.refusals import (
    SignatureInvalid,
    SignerNotAllowed,
    TrustError,
    WeakAlgorithm,
)
from policies.model.trust import LAPSED, Envelope, Pinned, SignatureKind, Signer, VerifiedSignature
from policies.model.value import digest_of

MAX_SIGNATURE_BYTES = 65_536
SMALLEST_RSA_BITS = 2048

HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


TEXT_FORMS = (b"-----BEGIN ", b"MIME-Version:", b"Content-Type:")
"""How signatures begin that are written as text."""


@dataclass(frozen=True)
class Authority:
    """An enterprise CA: the roots of its signers and of its time stamps."""

    roots: list[x509.Certificate]
    stamps: list[x509.Certificate]


class CmsVerifier:
    """Verifies signatures by leafs of the given authorities."""

    def __init__(self, authorities: Mapping[str, tuple[bytes, bytes | None]]) -> None:
        """Load the authorities: name to PEM roots, and PEM roots of its time stamps.

        Raises:
            PolicyInvalid: a file holds no certificates.
        """
        self._authorities = {
            name: Authority(_load(name, roots), _load(name, stamps) if stamps else [])
            for name, (roots, stamps) in authorities.items()
        }

    def pinned(self) -> tuple[Pinned, ...]:
        """Return the authorities, and those of their time stamps, each with the end of its last root."""
        return tuple(
            Pinned(
                kind=SignatureKind.CMS,
                root=name,
                shown=f"the {what} of the authority {name}",
                ends=max(root.not_valid_after_utc for root in roots),
                vouches=what == "roots",
            )
            for name, authority in self._authorities.items()
            for what, roots in (("roots", authority.roots), ("tsa", authority.stamps))
            if roots
        )

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the certificate with the signature names the signer; nothing of it is verified."""
        try:
            return signer.is_named(_identity(_leaf(*_open(envelope.content))), "")
        except Exception:  # noqa: BLE001 - what cannot be read names nobody
            return False

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return which subject of which authority signed the payload, for who judges it at that time.

        Raises:
            WeakAlgorithm: a digest or key that can be forged.
            SignatureInvalid: over other bytes, malformed, or by no authority of the policy.
            SignerNotAllowed: the certificate is good, but not for signing code.
        """
        try:
            return self._verify(payload, envelope, at)
        except TrustError:
            raise
        except Exception as error:
            raise SignatureInvalid(
                f"the CMS signature is malformed: {str(error)[:200]}", reason="bundle"
            ) from error

    def _verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        if len(envelope.content) > MAX_SIGNATURE_BYTES:
            raise SignatureInvalid("the CMS signature is too long", reason="bundle")
        signer, certificates = _open(envelope.content)
        leaf = _leaf(signer, certificates)
        _require_attributes(signer, payload)
        _require_signature(signer, leaf)
        signature = bytes(signer["signature"].native)
        refusal = SignatureInvalid("the trust policy names no enterprise authority", reason="root")
        for name, authority in self._authorities.items():
            try:
                stamped = _stamped_at(envelope.token, signature, authority)
                _require_chain(leaf, certificates, authority, stamped, at)
            except SignatureInvalid as error:
                refusal = refusal if refusal.reason == LAPSED else error
                continue
            _require_code_signing(leaf)
            return VerifiedSignature(
                kind=SignatureKind.CMS,
                root=name,
                identity=_identity(leaf),
                payload_digest=digest_of(payload),
                signed_at=stamped,
                serial=f"{leaf.serial_number:x}",
                spki_sha256=_spki_sha256(leaf),
                evidence={
                    "certificate_sha256": leaf.fingerprint(hashes.SHA256()).hex(),
                    "subject": leaf.subject.rfc4514_string(),
                    "time_source": "tsa" if stamped else "verifier",
                },
            )
        raise refusal


def _load(name: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise PolicyInvalid(f"the certificates of {name} cannot be read: {error}") from error


def _open(content: bytes) -> tuple[cms.SignerInfo, list[x509.Certificate]]:
    """Return the one signer and the certificates of a detached SignedData."""
    if content.startswith(TEXT_FORMS):
        raise SignatureInvalid(
            "the CMS signature is PEM or S/MIME; sign with `openssl cms -outform DER`", reason="bundle"
        )
    info = cms.ContentInfo.load(content, strict=True)
    if info["content_type"].native != "signed_data":
        raise SignatureInvalid("the CMS content is not SignedData", reason="bundle")
    signed = info["content"]
    if signed["encap_content_info"]["content"].native is not None or len(signed["signer_infos"]) != 1:
        raise SignatureInvalid("the CMS signature is not detached with exactly one signer", reason="bundle")
    certificates = [x509.load_der_x509_certificate(choice.chosen.dump()) for choice in signed["certificates"]]
    return signed["signer_infos"][0], certificates


def _leaf(signer: cms.SignerInfo, certificates: list[x509.Certificate]) -> x509.Certificate:
    sid = signer["sid"]
    if sid.name != "issuer_and_serial_number":
        raise SignatureInvalid("the CMS signer is not named by issuer and serial number", reason="bundle")
    serial, issuer = sid.chosen["serial_number"].native, sid.chosen["issuer"].dump()
    found = [c for c in certificates if c.serial_number == serial and c.issuer.public_bytes() == issuer]
    if len(found) != 1:
        raise SignatureInvalid(
            "the CMS signature does not carry its signer's certificate once", reason="bundle"
        )
    return found[0]


def _require_attributes(signer: cms.SignerInfo, payload: bytes) -> None:
    """Refuse unless type and digest of the payload are signed, each once."""
    algorithm = signer["digest_algorithm"]["algorithm"].native
    if algorithm not in HASHES:
        raise WeakAlgorithm(f"the CMS signature uses {algorithm}; sign with SHA-256 or better")
    values: dict[str, list[object]] = {}
    for attribute in signer["signed_attrs"]:
        values.setdefault(attribute["type"].native, []).extend(attribute["values"].native)
    if values.get("content_type") != ["data"] or len(values.get("message_digest", [])) != 1:
        raise SignatureInvalid(
            "the CMS signature does not sign type and digest exactly once", reason="bundle"
        )
    if values["message_digest"] != [hashlib.new(algorithm, payload).digest()]:
        raise SignatureInvalid("the CMS signature is over other bytes", reason="signature")


def _require_signature(signer: cms.SignerInfo, leaf: x509.Certificate) -> None:
    """Refuse unless the leaf's key made the signature, by an algorithm that is still good."""
    chosen = HASHES[signer["digest_algorithm"]["algorithm"].native]()
    algorithm = signer["signature_algorithm"]
    signed = signer["signed_attrs"].untag().dump()
    signature, key = bytes(signer["signature"].native), leaf.public_key()
    kind = algorithm.signature_algo
    if kind not in ("ed25519", "rsassa_pss", "rsassa_pkcs1v15", "ecdsa"):
        raise WeakAlgorithm(f"CMS signatures by {kind} are not accepted")
    if kind in ("rsassa_pkcs1v15", "ecdsa") and _hash_of(algorithm, chosen) != chosen.name:
        raise WeakAlgorithm("the CMS signature mixes hash algorithms")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA_BITS:
        raise WeakAlgorithm(
            f"the CMS signer's RSA key has {key.key_size} bits; use {SMALLEST_RSA_BITS} or more"
        )
    try:
        _verify_with(key, signature, signed, chosen, pss=kind == "rsassa_pss")
    except Exception as error:
        raise SignatureInvalid("the CMS signature does not verify", reason="signature") from error


def _verify_with(
    key: CertificatePublicKeyTypes,
    signature: bytes,
    signed: bytes,
    chosen: hashes.HashAlgorithm,
    *,
    pss: bool,
) -> None:
    """Raise unless the key made the signature."""
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, signed, ec.ECDSA(chosen))
        case ed25519.Ed25519PublicKey():
            key.verify(signature, signed)
        case rsa.RSAPublicKey():
            salted = padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO)  # OpenSSL salts as much as fits
            key.verify(signature, signed, salted if pss else padding.PKCS1v15(), chosen)
        case _:
            raise TypeError(f"keys of kind {type(key).__name__} are not accepted")


def _hash_of(algorithm: cms.SignedDigestAlgorithm, default: hashes.HashAlgorithm) -> str:
    """Return the hash the signature algorithm names; plain rsaEncryption leaves it to the digest's."""
    return default.name if algorithm["algorithm"].native == "rsassa_pkcs1v15" else str(algorithm.hash_algo)


def _stamped_at(token: bytes | None, signature: bytes, authority: Authority) -> datetime | None:
    """Return when the signature was stamped; None without a stamp.

    Raises:
        SignatureInvalid: the stamp is not by this authority, or over something else.
    """
    if token is None:
        return None
    try:
        response = decode_timestamp_response(token)
        builder = VerifierBuilder()
        for root in authority.stamps:
            builder = builder.add_root_certificate(root)
        builder.build().verify_message(response, signature)
        stamped = response.tst_info.gen_time
    except Exception as error:
        raise SignatureInvalid(
            f"the time stamp does not verify: {str(error)[:200]}", reason="no_time"
        ) from error
    return stamped


def _require_chain(
    leaf: x509.Certificate,
    certificates: list[x509.Certificate],
    authority: Authority,
    stamped: datetime | None,
    at: datetime,
) -> None:
    """Refuse unless the certificate led to the authority when it was stamped; at that time, if it was not."""
    when = stamped or at
    try:
        _verify_chain(leaf, certificates, authority, when)
    except VerificationError as error:
        inside = leaf.not_valid_before_utc <= when <= leaf.not_valid_after_utc
        reason = "root" if inside else "expired"
        if stamped is None and when > leaf.not_valid_before_utc and _held_once(leaf, certificates, authority):
            reason = LAPSED
        raise SignatureInvalid(
            f"the CMS signer's certificate leads to no authority of the policy at that time: {_why(error)}",
            reason=reason,
        ) from error


def _held_once(leaf: x509.Certificate, certificates: list[x509.Certificate], authority: Authority) -> bool:
    """Return whether the certificate led to the authority when it was made out."""
    try:
        _verify_chain(leaf, certificates, authority, leaf.not_valid_before_utc)
    except VerificationError:
        return False
    return True


def _verify_chain(
    leaf: x509.Certificate, certificates: list[x509.Certificate], authority: Authority, at: datetime
) -> None:
    """Raise a VerificationError unless the certificate leads to the authority at that time."""
    any_use = ExtensionPolicy.webpki_defaults_ca().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
    )
    any_leaf = ExtensionPolicy.webpki_defaults_ee().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
    )
    builder = PolicyBuilder().store(Store(authority.roots)).time(at)
    verifier = builder.extension_policies(ca_policy=any_use, ee_policy=any_leaf).build_client_verifier()
    verifier.verify(leaf, [certificate for certificate in certificates if certificate != leaf])


def _why(error: VerificationError) -> str:
    """Return what is missing or wrong, with extensions by their names, and whose certificate it is."""
    said = str(error).removeprefix("validation failed: ")
    of_authority = said.startswith(_OF_AUTHORITIES)
    what = _ABOUT.sub("", said.removeprefix(_OF_AUTHORITIES))
    what = _EXTENSION.sub(lambda found: f"extension {EXTENSIONS.get(found[1], found[1])}", what)
    return f"of the authority: {what[:LONGEST]}" if of_authority and what else what[:LONGEST]


EXTENSIONS = {
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.17": "subjectAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.30": "nameConstraints",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.37": "extendedKeyUsage",
}
"""What RFC 5280 and openssl call the extensions that a verification names by number."""
USAGES = {
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
"""What openssl calls the purposes that certificates of companies have."""
LONGEST = 200
"""Characters of a reason that are kept."""
_OF_AUTHORITIES = "candidates exhausted: "
_ABOUT = re.compile(r" \(encountered processing .*", re.DOTALL)
_EXTENSION = re.compile(r"invalid extension: ([\d.]+)")


def _require_code_signing(leaf: x509.Certificate) -> None:
    try:
        usages = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = []
    if usages != [ExtendedKeyUsageOID.CODE_SIGNING]:
        has = ", ".join(USAGES.get(one, one.dotted_string) for one in usages)[:LONGEST] or "missing"
        raise SignerNotAllowed(
            "the CMS signer's certificate is not for code signing only: its extendedKeyUsage is "
            f"{has}, and must be codeSigning alone",
            reason="eku",
        )


def _identity(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = [
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    ]
    if len(found) != 1:
        raise SignerNotAllowed(
            "the CMS signer's certificate is not made out to one mail address or URI", reason="identity"
        )
    return str(found[0])


def _spki_sha256(leaf: x509.Certificate) -> str:
    spki = leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()
