"""Sigstore bundles, verified offline by the genuine library, plus the checks it leaves out.

The library (4.5) accepts signatures made after the window of a certificate authority or log
in the trusted root has closed, any payload type, and duplicate JSON keys. So a bundle is
verified twice: against the whole root, and against the root as it was at the claimed time.
Never used here: anything of the library that fetches (`production`, `staging`, `from_tuf`).
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from sigstore.errors import CertValidationError
from sigstore.hashes import Hashed
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity, VerificationPolicy
from sigstore_models.common.v1 import HashAlgorithm, TimeRange
from sigstore_models.trustroot.v1 import TrustedRoot as RootContent

from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, TrustError, WrongStatementType
from policies.model.release import PAYLOAD_TYPE
from policies.model.trust import (
    CALLER,
    Envelope,
    Pinned,
    SignatureKind,
    Signer,
    VerifiedSignature,
    may_sign,
)
from policies.model.value import digest_of, sentence
from policies.trust import strict_json

MAX_BUNDLE_BYTES = 262_144
MAX_ROOT_BYTES = 4 << 20
MAX_BLOB_BUNDLE_BYTES = 16 << 20

FURTHEST = ("root", "no_time", "expired", "signature", "window")
"""Reasons of refusal, by how far the verification had come."""

# https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SOURCE_REPOSITORY = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")


class SigstoreRoot:
    """One Sigstore instance: its trusted root as it was at any time."""

    def __init__(self, name: str, trusted_root: bytes) -> None:
        self.name = name
        strict_json.loads(
            trusted_root, max_bytes=MAX_ROOT_BYTES
        )  # the library takes the last of two equal keys
        self._content = RootContent.from_json(trusted_root)
        self._whole = Verifier(trusted_root=TrustedRoot(self._content))
        self._at: dict[tuple[bool, ...], Verifier | None] = {}

    def verifiers(self, times: tuple[datetime, ...]) -> tuple[Verifier | None, ...]:
        """Return the verifiers for a bundle of these claimed times; None where a part is missing."""
        then = (self._verifier_at(time) for time in times)
        return (self._whole, *(verifier for verifier in then if verifier is not self._whole))

    def _verifier_at(self, time: datetime) -> Verifier | None:
        parts: dict[str, list[Any]] = {
            "tlogs": [log for log in self._content.tlogs if _covers(log.public_key.valid_for, time)],
            "ctlogs": [log for log in self._content.ctlogs if _covers(log.public_key.valid_for, time)],
            "certificate_authorities": [
                authority
                for authority in self._content.certificate_authorities
                if _covers(authority.valid_for, time)
            ],
        }
        kept = tuple(entry in parts[part] for part in parts for entry in getattr(self._content, part))
        if all(kept):
            return self._whole
        if kept not in self._at:
            whole = all(parts.values())
            reduced = TrustedRoot(self._content.model_copy(update=parts)) if whole else None
            self._at[kept] = Verifier(trusted_root=reduced) if reduced else None
        return self._at[kept]


def public_root(*, staging: bool = False) -> bytes:
    """Return the public instance's trusted root as the library carries it; nothing is fetched."""
    instance = "https://tuf-repo-cdn.sigstage.dev" if staging else "https://tuf-repo-cdn.sigstore.dev"
    return (files("sigstore._store") / quote(instance, safe="") / "trusted_root.json").read_bytes()


class SigstoreVerifier:
    """Verifies bundles against the instances the trust policy names."""

    def __init__(self, roots: Mapping[str, bytes]) -> None:
        """Load the instances: name to the content of trusted_root.json.

        Raises:
            PolicyInvalid: a file is not a trusted root.
        """
        try:
            self._roots = [SigstoreRoot(name, content) for name, content in roots.items()]
        except Exception as error:
            raise PolicyInvalid(f"a trusted root cannot be read: {str(error)[:200]}") from error

    def pinned(self) -> tuple[Pinned, ...]:
        """Return nothing: a bundle proves its own time, so what it was signed with may end."""
        return ()

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the certificate in the bundle names the signer; nothing of it is verified."""
        try:
            certificate = parse_bundle(envelope.content).signing_certificate
            return signer.is_named(
                identity_of(certificate), issuer_of(certificate), source_repository_of(certificate)
            )
        except Exception:  # noqa: BLE001 - what cannot be read names nobody
            return False

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return who signed which bytes, according to this bundle.

        The signed bytes may be others than `payload`; the digest in the answer says which.

        Raises:
            SignatureInvalid: the bundle proves nothing; `reason` is bundle, no_time, expired, root or window.
            WrongStatementType: the envelope holds something else than an in-toto statement.
        """
        del payload, at  # the bundle carries what it signs, and its own proof of time
        bundle = parse_bundle(envelope.content)
        times = claimed_times(bundle)
        root, (kind, signed) = self._by_any_root(bundle, times)
        if kind != PAYLOAD_TYPE:
            raise WrongStatementType(f"the bundle signs something of type {kind[:80]!r}, not a statement")
        certificate = bundle.signing_certificate
        return VerifiedSignature(
            kind=SignatureKind.SIGSTORE,
            root=root,
            issuer=issuer_of(certificate),
            identity=identity_of(certificate),
            source_repository=source_repository_of(certificate),
            payload_digest=digest_of(signed),
            signed_at=min(times),
            serial=f"{certificate.serial_number:x}",
            spki_sha256=spki_sha256(certificate),
            evidence=_evidence(bundle),
        )

    def verify_blob(
        self, sha256: str, bundle: bytes, *, identity: str, issuer: str, source_repository: str | None = None
    ) -> None:
        """Refuse unless the bundle is that signer's over the blob, or over a statement about it.

        Without a `source_repository`, a workflow that another repository called is not that signer.

        Raises:
            SignatureInvalid: it is not, for whatever reason.
        """
        parsed = parse_bundle(bundle, max_bytes=MAX_BLOB_BUNDLE_BYTES)
        times, signer = claimed_times(parsed), Identity(identity=identity, issuer=issuer)
        try:
            over_statement = "dsseEnvelope" in strict_json.loads(bundle, max_bytes=MAX_BLOB_BUNDLE_BYTES)
            if over_statement:
                _, (kind, statement) = self._by_any_root(parsed, times, signer=signer)
                _require_subject(kind, statement, sha256)
            else:
                blob = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(sha256))
                self._by_any_root(parsed, times, blob, signer)
            _require_caller(parsed.signing_certificate, identity, source_repository)
        except TrustError:
            raise
        except Exception as error:
            raise SignatureInvalid(f"the bundle cannot be verified: {error}", reason="bundle") from error

    def _by_any_root(
        self,
        bundle: Bundle,
        times: tuple[datetime, ...],
        blob: Hashed | None = None,
        signer: VerificationPolicy | None = None,
    ) -> tuple[str, tuple[str, bytes]]:
        """Return the name of the root that vouches for the bundle, and what it signs."""
        refusals: list[SignatureInvalid] = []
        for root in self._roots:
            try:
                return root.name, _verify_all(root, bundle, times, blob, signer or _AnySigner())
            except SignatureInvalid as refusal:
                refusals.append(refusal)
        if not refusals:
            raise SignatureInvalid("the trust policy names no Sigstore instance", reason="root")
        # the refusal that got furthest says most
        raise max(refusals, key=lambda refusal: FURTHEST.index(refusal.reason))


def parse_bundle(raw: bytes, *, max_bytes: int = MAX_BUNDLE_BYTES) -> Bundle:
    """Return the bundle these bytes are, if they have one meaning only.

    Raises:
        SignatureInvalid: malformed in any way.
    """
    try:
        document = strict_json.loads(raw, max_bytes=max_bytes)
    except TrustError as error:
        why = f"the Sigstore bundle is malformed: {error}"
        if _has_several(raw, max_bytes):
            why = "the file has several Sigstore bundles, one a line; write the one line that is meant"
        raise SignatureInvalid(why, reason="bundle") from error
    try:
        return Bundle.from_json(raw)
    except Exception as error:
        reason = "no_time" if "signed timestamp" in str(error) else "bundle"
        raise SignatureInvalid(_why_no_bundle(document), reason=reason) from error


def _has_several(raw: bytes, max_bytes: int) -> bool:
    """Whether the bytes are JSON Lines, as `gh attestation download` writes them."""
    lines = [line for line in raw.split(b"\n") if line.strip()]
    try:
        return len(lines) > 1 and all(
            isinstance(strict_json.loads(line, max_bytes=max_bytes), dict) for line in lines
        )
    except TrustError:
        return False


def _why_no_bundle(document: Any) -> str:
    """Return why the library reads no bundle in a document, and what to do."""
    if not isinstance(document, dict):
        return "the Sigstore bundle is not a JSON object; write the bundle that `cosign sign-blob` prints"
    if "base64Signature" in document or "rekorBundle" in document:
        return (
            "the bundle has the form of cosign 1 and 2, which is not read here; sign again with cosign 3, or "
            "with `--new-bundle-format`"
        )
    if "mediaType" not in document:
        return (
            "the document has no mediaType, so it is not a Sigstore bundle; write the file that cosign made"
        )
    material = document.get("verificationMaterial")
    if isinstance(material, dict) and "publicKey" in material:
        return (
            "the bundle was signed with a key, as by `cosign sign-blob --key`, and only bundles with a "
            "certificate are read; sign without --key, by an OIDC identity (`penstock release sign "
            "--identity-token FILE`), or with an OpenPGP or CMS key (docs/releases.md)"
        )
    if isinstance(material, dict) and not material.get("tlogEntries"):
        return (
            "the bundle has no entry of a transparency log, as GitHub makes them for private repositories; "
            "only instances with a log are supported, so sign with one (docs/releases.md)"
        )
    media_type = sentence(str(document["mediaType"]), 80)
    return (
        f"the bundle of type {media_type} lacks a part that verification needs, or a part cannot be read; "
        "sign again with a current cosign"
    )


def claimed_times(bundle: Bundle) -> tuple[datetime, ...]:
    """Return every time the bundle claims to be signed at; the library proves at least one of them.

    Raises:
        SignatureInvalid: there is none, or it cannot be read.
    """
    try:
        stamps = bundle.verification_material.timestamp_verification_data
        times = [stamp.tst_info.gen_time for stamp in stamps.rfc3161_timestamps] if stamps else []
        entry = bundle.log_entry._inner  # noqa: SLF001 - the library has no public view of the entry
        if entry.integrated_time and entry.inclusion_promise:
            times.append(datetime.fromtimestamp(entry.integrated_time, tz=UTC))
    except Exception as error:
        raise SignatureInvalid(f"the bundle's time stamps are malformed: {error}", reason="bundle") from error
    if not times:
        raise SignatureInvalid("the bundle has no trusted time", reason="no_time")
    return tuple(times)


def identity_of(certificate: x509.Certificate) -> str:
    """Return the one mail address or URI the certificate is made out to.

    Raises:
        SignatureInvalid: it is not made out to exactly one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [
            *names.get_values_for_type(x509.RFC822Name),
            *names.get_values_for_type(x509.UniformResourceIdentifier),
        ]
    except Exception as error:
        raise SignatureInvalid(
            f"the certificate's name cannot be read: {error}", reason="identity"
        ) from error
    if len(found) != 1 or len(list(names)) != 1:
        raise SignatureInvalid("the certificate is not made out to exactly one identity", reason="identity")
    return str(found[0])


def issuer_of(certificate: x509.Certificate) -> str:
    """Return the OIDC issuer the certificate authority saw; the older, unencoded extension is not read.

    Raises:
        SignatureInvalid: there is none, or it is not a DER UTF8String.
    """
    issuer = _text_of(certificate, ISSUER_V2, "issuer")
    if not issuer:
        raise SignatureInvalid("the certificate names no issuer", reason="identity")
    return issuer


def source_repository_of(certificate: x509.Certificate) -> str:
    """Return the repository whose run signed, empty where the certificate names none.

    It is not the workflow's own where that is a reusable one, whose address is then the identity.

    Raises:
        SignatureInvalid: it is not a DER UTF8String.
    """
    return _text_of(certificate, SOURCE_REPOSITORY, "source repository")


def _text_of(certificate: x509.Certificate, extension: x509.ObjectIdentifier, name: str) -> str:
    """Return the text in an extension of Fulcio's, printable and without spaces; empty where it is absent."""
    try:
        value = certificate.extensions.get_extension_for_oid(extension).value
        text = asn1.decode_der(str, value.public_bytes())
    except x509.ExtensionNotFound:
        return ""
    except Exception as error:
        raise SignatureInvalid(f"the certificate's {name} is malformed", reason="identity") from error
    if not re.fullmatch(r"[!-~]+", text):
        raise SignatureInvalid(f"the certificate's {name} is malformed", reason="identity")
    return text


def spki_sha256(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the certificate's public key in hex."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


class _AnySigner:
    """Lets every signer pass: who is allowed is decided later, from what the certificate says."""

    def verify(self, cert: x509.Certificate) -> None:
        """Accept; the library takes an exception, and only that, as a no."""


def _verify_all(
    root: SigstoreRoot,
    bundle: Bundle,
    times: tuple[datetime, ...],
    blob: Hashed | None,
    signer: VerificationPolicy,
) -> tuple[str, bytes]:
    """Return type and bytes of what is signed, if the root vouches for it now and at every claimed time."""
    found = ("", b"")
    for number, verifier in enumerate(root.verifiers(times)):
        if verifier is None:
            raise SignatureInvalid("no authority or log was in service at the claimed time", reason="window")
        try:
            if blob is None:
                found = verifier.verify_dsse(bundle, signer)
            else:
                verifier.verify_artifact(blob, bundle, signer)
        except Exception as error:
            reason = "window" if number else _reason(error, bundle, times)
            raise SignatureInvalid(
                f"the signature does not verify: {str(error)[:200]}", reason=reason
            ) from error
    return found


def _reason(error: Exception, bundle: Bundle, times: tuple[datetime, ...]) -> str:
    if "sources of verified time" in str(error):
        return "no_time"
    certificate = bundle.signing_certificate
    inside = all(
        certificate.not_valid_before_utc <= time <= certificate.not_valid_after_utc for time in times
    )
    if not inside:
        return "expired"
    return "root" if isinstance(error, CertValidationError) else "signature"


def _covers(window: TimeRange | None, time: datetime) -> bool:
    if window is None:
        return True
    return window.start <= time and (window.end is None or time <= window.end)


def _require_subject(kind: str, statement: bytes, sha256: str) -> None:
    document = strict_json.loads(statement, max_bytes=MAX_BLOB_BUNDLE_BYTES)
    subjects = document.get("subject", []) if kind == PAYLOAD_TYPE and isinstance(document, dict) else []
    if not any(subject.get("digest", {}).get("sha256") == sha256 for subject in subjects):
        raise SignatureInvalid("the bundle's statement is about something else", reason="subject")


def _require_caller(certificate: x509.Certificate, identity: str, named: str | None) -> None:
    caller = source_repository_of(certificate)
    if not may_sign(identity, caller, named):
        sentence = (
            f"{identity} was called by {caller}; if that repository may, add `--source-repository {caller}`"
            if caller
            else f"the certificate of {identity} names no repository; leave out --source-repository"
        )
        raise SignatureInvalid(sentence, reason=CALLER)


def _evidence(bundle: Bundle) -> dict[str, str]:
    """Return what an auditor can check again; unsigned fields such as logIndex are left out."""
    entry = bundle.log_entry._inner  # noqa: SLF001 - the library has no public view of the entry
    proof = entry.inclusion_proof
    return {
        "certificate_sha256": bundle.signing_certificate.fingerprint(hashes.SHA256()).hex(),
        "log_key_id": entry.log_id.key_id.hex(),
        "log_root": proof.root_hash.hex(),
        "log_position": f"{proof.log_index} of {proof.tree_size}",
        "time_source": "tsa" if bundle.verification_material.timestamp_verification_data else "log",
    }
