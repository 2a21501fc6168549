"""Judge the evidence about a release: the same code when it is admitted and when an auditor asks again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from policies.model import refusals
from policies.model.errors import PenstockError
from policies.model.host import Host
from policies.model.refusals import SignatureInvalid, SignatureMissing, SignerNotAllowed, TrustError
from policies.model.release import ChannelIndex, ReleaseManifest
from policies.model.trust import Envelope, Requirement, Rule, SignatureKind, TrustPolicy, VerifiedSignature
from policies.model.value import Digest, digest_of
from policies.model.verification import Scope, TrustState, TrustVerdict
from policies.trust.admission import admits, require_index, require_signers, rule_for
from policies.trust.statements import parse_index, parse_release, require_digest


class SignatureVerifier(Protocol):
    """One way to verify a signature."""

    def verify(self, payload: bytes, envelope: Envelope, now: datetime) -> VerifiedSignature:
        """Return what the signature proves, or raise a TrustError."""
        ...


@dataclass(frozen=True)
class LoadedTrust:
    """A trust policy and the files it names: its content, its digest, and verifiers over the files."""

    policy: TrustPolicy
    digest: Digest
    verifiers: Mapping[SignatureKind, SignatureVerifier]
    files: Mapping[str, bytes]
    """Everything verdicts depend on, the policy itself included, by name."""


@dataclass(frozen=True)
class Document:
    """A statement with the signatures that came beside it."""

    payload: bytes
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True)
class Question:
    """May this release run on this fleet?"""

    digest: Digest
    scope: Scope
    state: TrustState
    now: datetime
    host: Host | None = None
    """Where it is to run, when a host asks."""


@dataclass
class Judgement:
    """The answer, with what was understood on the way to it."""

    verdict: TrustVerdict
    manifest: ReleaseManifest | None = None
    signatures: tuple[VerifiedSignature, ...] = ()
    index: ChannelIndex | None = None


def judge(question: Question, document: Document, index: Document | None, trust: LoadedTrust) -> Judgement:
    """Return the verdict about a release; `index` is None where the channel's is not needed."""
    found = Judgement(TrustVerdict(admitted=False, code="", reason="not judged"))
    try:
        _understand(found, question, document, index, trust)
        assert found.manifest is not None  # noqa: S101 - understood
        found.verdict = admits(
            found.manifest,
            question.digest,
            found.signatures,
            trust.policy,
            question.state,
            now=question.now,
            product=question.scope.product,
            channel=question.scope.channel,
            index=found.index,
            host=question.host,
        )
    except TrustError as error:
        found.verdict = refused(error)
    return found


def refused(error: PenstockError) -> TrustVerdict:
    """Return the verdict a refusal stands for."""
    detail = error.reason if isinstance(error, TrustError) else ""
    return TrustVerdict(admitted=False, code=error.code, reason=str(error), detail=detail)


def refusal(verdict: TrustVerdict) -> TrustError:
    """Return the error a verdict stands for."""
    kind: type[TrustError] = getattr(refusals, verdict.code)
    return kind(verdict.reason, reason=verdict.detail)


def needs_index(question: Question, trust: LoadedTrust) -> bool:
    """Return whether the channel's index must be seen; a promoted release must be reachable without it.

    Raises:
        ScopeMismatch: no rule is about this product and channel.
    """
    rule = rule_for(trust.policy, question.scope.product, question.scope.channel)
    return rule.index == "required" and question.digest not in question.state.promoted


def _understand(
    found: Judgement, question: Question, document: Document, index: Document | None, trust: LoadedTrust
) -> None:
    """Verify signatures and read documents, in the order in which refusals are reported."""
    require_digest(document.payload, question.digest, "the manifest")
    found.signatures = _verified(document, trust, question.now)
    found.manifest = parse_release(document.payload)
    if needs_index(question, trust):
        if index is None:
            raise SignatureMissing("the channel's index is missing", reason="index")
        rule = rule_for(trust.policy, question.scope.product, question.scope.channel)
        found.index = _index(index, trust, rule, question)


def _verified(document: Document, trust: LoadedTrust, now: datetime) -> tuple[VerifiedSignature, ...]:
    """Return what each signature proves; one that does not hold spoils the document."""
    found = []
    for envelope in document.envelopes:
        verifier = trust.verifiers.get(envelope.kind)
        if verifier is None:
            raise SignatureInvalid(f"the trust policy names no {envelope.kind} signer", reason="root")
        found.append(verifier.verify(document.payload, envelope, now))
    return tuple(found)


def signed_index(document: Document, trust: LoadedTrust, rule: Rule, now: datetime) -> ChannelIndex:
    """Return the index if one of those who may signed it; whether it is out of date is not asked here.

    Raises:
        TrustError: it is none, or not signed as the rule wants.
    """
    if rule.index_group is None:
        raise SignerNotAllowed(f"the rule for {rule.product}/{rule.channel} has no index_group; name one")
    index = parse_index(document.payload)
    require_signers(
        _verified(document, trust, now),
        digest_of(document.payload),
        {rule.index_group: rule.groups[rule.index_group]},
        (Requirement(group=rule.index_group),),
        trust.policy.revoked,
    )
    return index


def _index(document: Document, trust: LoadedTrust, rule: Rule, question: Question) -> ChannelIndex:
    index = signed_index(document, trust, rule, question.now)
    scope = question.scope
    require_index(index, question.state, question.now, product=scope.product, channel=scope.channel)
    return index
