"""Judge the evidence about a release: the same code when it is admitted and when an auditor asks again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Protocol

from policies.model import refusals
from policies.model.errors import PenstockError
from policies.model.host import Host
from policies.model.refusals import (
    SignatureInvalid,
    SignatureMissing,
    SignerNotAllowed,
    SignerRevoked,
    TrustError,
)
from policies.model.release import ChannelIndex, ReleaseManifest
from policies.model.trust import (
    LAPSED,
    Envelope,
    Pinned,
    Requirement,
    Rule,
    SignatureKind,
    Signer,
    TrustPolicy,
    VerifiedSignature,
)
from policies.model.value import Digest, digest_of
from policies.model.verification import Scope, TrustState, TrustVerdict
from policies.trust.admission import (
    admits,
    is_by,
    refused_caller,
    require_index,
    require_signers,
    rule_for,
)
from policies.trust.statements import parse_index, parse_release, require_digest


class SignatureVerifier(Protocol):
    """One way to verify a signature."""

    def verify(self, payload: bytes, envelope: Envelope, at: datetime) -> VerifiedSignature:
        """Return what the signature proves to who judges it at that time, or raise a TrustError.

        Its reason is `LAPSED` for one that holds and whose key or certificate had ended by then.
        """
        ...

    def claims(self, envelope: Envelope, signer: Signer) -> bool:
        """Return whether the signature names this signer; nothing of it is verified."""
        ...

    def pinned(self) -> tuple[Pinned, ...]:
        """Return what the trust policy pins for signatures of this kind and has an end."""
        ...


@dataclass(frozen=True)
class LoadedTrust:
    """A trust policy and the files it names: its content, its digest, and verifiers over the files."""

    policy: TrustPolicy
    digest: Digest
    verifiers: Mapping[SignatureKind, SignatureVerifier]
    files: Mapping[str, bytes]
    """Everything verdicts depend on, the policy itself included, by name."""

    @property
    def pinned(self) -> tuple[Pinned, ...]:
        """The keys and authorities that the policy pins and that end some day."""
        return tuple(chain.from_iterable(verifier.pinned() for verifier in self.verifiers.values()))


@dataclass(frozen=True)
class Document:
    """A statement with the signatures that came beside it."""

    payload: bytes
    envelopes: tuple[Envelope, ...]
    admitted_at: datetime | None = None
    """When this host's own record has these signatures admit a release; None of what came from a source."""


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
    counted: Document | None = None
    """The document with the signatures that count alone."""
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
    rule = rule_for(trust.policy, question.scope.product, question.scope.channel)
    signatures = _verified(document, trust, rule, question.now)
    found.signatures = signatures.proven
    found.counted = replace(document, envelopes=signatures.envelopes)
    if signatures.failed:
        signatures.require(question.digest, rule.require)
    found.manifest = parse_release(document.payload)
    if needs_index(question, trust):
        if index is None:
            raise SignatureMissing("the channel's index is missing", reason="index")
        found.index = _index(index, trust, rule, question)


@dataclass(frozen=True)
class _Signatures:
    """What the signatures beside a document prove, as far as they count, and why others prove nothing."""

    rule: Rule
    trust: LoadedTrust
    held: Sequence[tuple[Envelope, VerifiedSignature]]
    failed: Sequence[TrustError]

    @property
    def envelopes(self) -> tuple[Envelope, ...]:
        """The signatures that count."""
        return tuple(envelope for envelope, _ in self.held)

    @property
    def proven(self) -> tuple[VerifiedSignature, ...]:
        """What they prove."""
        return tuple(proven for _, proven in self.held)

    def require(self, digest: Digest, require: Sequence[Requirement]) -> None:
        """Return if those who must have signed these bytes; if one that failed is needed, say why it failed.

        Raises:
            TrustError: they have not.
        """
        groups, revoked = self.rule.groups, self.trust.policy.revoked
        try:
            require_signers(self.proven, digest, groups, require, revoked)
        except SignerRevoked:
            raise
        except TrustError as lacking:
            lapsed = [error for error in self.failed if error.reason == LAPSED]
            raise next(iter([*lapsed, *self.failed]), lacking) from lacking


def _verified(document: Document, trust: LoadedTrust, rule: Rule, now: datetime) -> _Signatures:
    """Verify the signatures; those by nobody whom the rule names count for nothing, if any other holds.

    What admitted a release here is judged by the time at which it did: a key or a certificate that has ended
    since says nothing about the bytes. What came from a source is judged now, whatever dates it claims.
    """
    signers = tuple(chain.from_iterable(rule.groups.values()))
    held, failed = list[tuple[Envelope, VerifiedSignature]](), list[TrustError]()
    for envelope in document.envelopes:
        try:
            held.append((envelope, _proven(document.payload, envelope, trust, document.admitted_at or now)))
        except TrustError as error:
            if _spoils(error, envelope, document, trust, signers):
                raise
            failed.append(error)
    callers = (refused_caller(proven, signers) for _, proven in held)
    failed = [*(one for one in callers if one is not None), *failed]
    if document.admitted_at is None:
        named = [one for one in held if any(is_by(one[1], signer) for signer in signers)]
        held = named or held  # who signed alone without a seat is refused by name
    return _Signatures(rule, trust, held, failed)


def _proven(payload: bytes, envelope: Envelope, trust: LoadedTrust, at: datetime) -> VerifiedSignature:
    verifier = trust.verifiers.get(envelope.kind)
    if verifier is None:
        raise SignatureInvalid(f"the trust policy names no {envelope.kind} signer", reason="root")
    return verifier.verify(payload, envelope, at)


def _spoils(
    error: TrustError, envelope: Envelope, document: Document, trust: LoadedTrust, signers: Sequence[Signer]
) -> bool:
    """Return whether a signature that proves nothing refuses the document, whoever else has signed it.

    One that came from a source in the name of a signer does: what that person signed is not what came. One
    that has lapsed does not, and neither does anybody else's: they are as good as absent. What admitted the
    release here did hold, so of that only a revocation counts.
    """
    if error.reason == LAPSED or (document.admitted_at is not None and not isinstance(error, SignerRevoked)):
        return False
    verifier = trust.verifiers.get(envelope.kind)
    return verifier is not None and any(
        signer.kind is envelope.kind and verifier.claims(envelope, signer) for signer in signers
    )


def signed_index(document: Document, trust: LoadedTrust, rule: Rule, now: datetime) -> ChannelIndex:
    """Return the index if one of those who may signed it; whether it is out of date is not asked here.

    Raises:
        TrustError: it is none, or not signed as the rule wants.
    """
    if rule.index_group is None:
        raise SignerNotAllowed(f"the rule for {rule.product}/{rule.channel} has no index_group; name one")
    index = parse_index(document.payload)
    group = {rule.index_group: rule.groups[rule.index_group]}
    signatures = _verified(document, trust, rule.model_copy(update={"groups": group}), now)
    signatures.require(digest_of(document.payload), (Requirement(group=rule.index_group),))
    return index


def _index(document: Document, trust: LoadedTrust, rule: Rule, question: Question) -> ChannelIndex:
    index = signed_index(document, trust, rule, question.now)
    scope = question.scope
    require_index(index, question.state, question.now, product=scope.product, channel=scope.channel)
    return index
