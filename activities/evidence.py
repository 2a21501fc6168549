"""Evidence: statements and signatures kept by digest, so that verdicts can be recomputed offline."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from activities.refusals import PolicyChanged
from activities.verdicts import Document, LoadedTrust, Question, judge
from policies.model.refusals import DigestMismatch
from policies.model.trust import Envelope
from policies.model.value import Digest
from policies.model.verification import Signed, StoredSignature, TrustVerdict, Verification


class ContentStore(Protocol):
    """Files by digest; every read hashes again and raises DigestMismatch for bytes that changed."""

    def has(self, digest: Digest, size: int) -> bool:
        """Return whether the blob is here in full length."""
        ...

    def put(self, content: bytes) -> Digest:
        """Store these bytes."""
        ...

    def read(self, digest: Digest) -> bytes:
        """Return the blob's bytes."""
        ...

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the blob's bytes; the error comes at the end."""
        ...

    def install(self, digest: Digest, folder: Path, path: str, mode: int = 0o644) -> None:
        """Copy the blob to that path beneath the folder, hashing while copying."""
        ...

    def discard(self, digest: Digest) -> None:
        """Remove the blob."""
        ...

    def collect(self, keep: Collection[Digest]) -> tuple[Digest, ...]:
        """Remove everything else; return what was removed."""
        ...


def keep(evidence: ContentStore, document: Document) -> Signed:
    """Store a statement and its signatures; return how to find them again."""
    return Signed(
        statement=evidence.put(document.payload),
        signatures=tuple(
            StoredSignature(
                kind=envelope.kind,
                content=evidence.put(envelope.content),
                token=evidence.put(envelope.token) if envelope.token is not None else None,
            )
            for envelope in document.envelopes
        ),
        admitted_at=document.admitted_at,
    )


def recall(evidence: ContentStore, signed: Signed) -> Document:
    """Return a stored statement with its signatures.

    Raises:
        DigestMismatch: something of it is gone or was changed.
    """
    envelopes = tuple(
        Envelope(
            kind=signature.kind,
            content=evidence.read(signature.content),
            token=evidence.read(signature.token) if signature.token else None,
        )
        for signature in signed.signatures
    )
    return Document(evidence.read(signed.statement), envelopes, signed.admitted_at)


def reverify(verification: Verification, evidence: ContentStore, trust: LoadedTrust) -> TrustVerdict:
    """Return the verdict that the stored evidence gives today, at the time of the first one.

    Only verdicts about documents can be recomputed: one about a transfer has no evidence to judge.

    Raises:
        DigestMismatch: some of the evidence is gone or was changed.
        PolicyChanged: `trust` is another policy than the one that was applied.
    """
    if trust.digest != verification.policy:
        raise PolicyChanged(
            f"the verdict was given under policy {verification.policy}, this is {trust.digest}"
        )
    if verification.manifest is None:
        raise DigestMismatch("the verdict was given before any document had arrived", reason="absent")
    document = recall(evidence, verification.manifest)
    index = recall(evidence, verification.index) if verification.index else None
    question = Question(
        verification.release, verification.scope, verification.state, verification.at, verification.host
    )
    return judge(question, document, index, trust).verdict
