"""Decide whether a release is admitted: signed by the right people, in scope, in time, and not older.

Verification of signatures has happened before; here stands what they are worth. The order of
the questions is fixed, so that one attack always gets one answer.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product as pairs

from policies.model.host import Host
from policies.model.refusals import (
    DowngradeRefused,
    Expired,
    NotOffered,
    ReplayDetected,
    ScopeMismatch,
    SignatureInvalid,
    SignatureMissing,
    SignerNotAllowed,
    SignerRevoked,
    SubjectMismatch,
    ThresholdNotMet,
    TrustError,
)
from policies.model.release import ChannelIndex, ReleaseManifest
from policies.model.revocation import plain_serial, same_identity
from policies.model.trust import (
    CALLER,
    Requirement,
    Revoked,
    Rule,
    Signer,
    TrustPolicy,
    VerifiedSignature,
)
from policies.model.value import Digest
from policies.model.verification import TrustState, TrustVerdict
from policies.trust.constraints import require_fits

CLOCK_SKEW = timedelta(hours=1)
_AS = " as "
"""In a signer's label between the policy's name of the person and the identity that signed."""


def admits(
    manifest: ReleaseManifest,
    digest: Digest,
    signatures: Sequence[VerifiedSignature],
    policy: TrustPolicy,
    state: TrustState,
    *,
    now: datetime,
    product: str,
    channel: str,
    index: ChannelIndex | None = None,
    host: Host | None = None,
) -> TrustVerdict:
    """Return whether this release may run on a fleet of that product and channel, and why.

    `digest` is that of exactly the bytes which say what is in the manifest; `signatures` are those that
    hold, each says over which bytes; `state` is what this fleet has promoted and seen: time known to
    have passed wins over a clock set back. The `index` is the channel's, if it was asked for and verified;
    `host` is where the release is to run, if one asks. What is known-good here needs neither.
    """
    try:
        rule = rule_for(policy, product, channel)
        _require_scope(manifest, "release", product, channel)
        signers = require_signers(signatures, digest, rule.groups, rule.require, policy.revoked)
        known_good = digest in state.promoted
        _require_not_revoked(digest, policy, state, index)
        _require_signed_in_time(manifest, signatures)
        if not known_good:
            _require_in_time(manifest, rule, max(now, state.seen_at or now))
        _require_no_downgrade(manifest, known_good=known_good, rule=rule, state=state, index=index)
        if not known_good:
            _require_offered(manifest, digest, index)
            if host is not None:
                require_fits(manifest, host)
    except TrustError as error:
        return TrustVerdict(admitted=False, code=error.code, reason=str(error), detail=error.reason)
    reason = f"signed by {'; '.join(signers)}; {product}/{channel} needs {_spoken(rule.require, ' and ')}"
    return TrustVerdict(admitted=True, code="Admitted", reason=reason, signers=signers)


def require_not_given_up(
    digest: Digest, manifest: ReleaseManifest | None, rule: Rule, policy: TrustPolicy, state: TrustState
) -> None:
    """Refuse what somebody has decided to run nowhere any more, whoever has signed it.

    Args:
        digest: That of the release.
        manifest: What it says of itself; None where that is not known any more.
        rule: The policy's for its product and channel.
        policy: Who may sign, and what is revoked.
        state: What was seen so far.

    Raises:
        SignerRevoked: It was withdrawn.
        DowngradeRefused: It is below the security floor.
    """
    _require_not_revoked(digest, policy, state, None)
    if manifest is not None:
        _require_no_downgrade(manifest, known_good=True, rule=rule, state=state, index=None)


def rule_for(policy: TrustPolicy, product: str, channel: str) -> Rule:
    """Return the first rule for this product and channel.

    Raises:
        ScopeMismatch: nobody may sign for it.
    """
    for rule in policy.rules:
        if (rule.product, rule.channel) == (product, channel):
            return rule
    raise ScopeMismatch(f"no rule of the trust policy is about {product}/{channel}; add one to it")


def require_index(
    index: ChannelIndex, state: TrustState, now: datetime, *, product: str, channel: str
) -> None:
    """Refuse a channel index that is another channel's, too old, or older than one seen before.

    Raises:
        ScopeMismatch: it speaks about another product or channel.
        Expired: its time is over, which is how a frozen repository shows.
        ReplayDetected: a later one was already seen.
    """
    _require_scope(index, "index", product, channel)
    if index.serial < state.index_serial:
        raise ReplayDetected(f"the index has serial {index.serial}; {state.index_serial} was already seen")
    if max(now, state.seen_at or now) >= index.expires_at:
        raise Expired(f"the index of {product}/{channel} expired at {index.expires_at}; publish a fresh one")


def require_signers(
    signatures: Sequence[VerifiedSignature],
    digest: Digest,
    groups: dict[str, tuple[Signer, ...]],
    require: Sequence[Requirement],
    revoked: Revoked,
) -> tuple[str, ...]:
    """Return the labels of everybody whom the policy names and who signed the document.

    They satisfy every requirement with distinct people. Who signs beyond what is required is a signer, too.

    Raises:
        SignatureMissing: there is no signature at all.
        SignerRevoked: one of the signers was withdrawn.
        SubjectMismatch: every signature is over other bytes.
        SignerNotAllowed: none of the signers is named by the policy.
        ThresholdNotMet: too few distinct people signed exactly these bytes.
    """
    if not signatures:
        raise SignatureMissing("there is no signature beside the document; ask its publisher for the bundles")
    for signature in signatures:
        _require_signer_not_revoked(signature, revoked)
    if all(signature.payload_digest != digest for signature in signatures):
        raise SubjectMismatch(f"the signatures are good, but over other bytes than {digest}")
    people: dict[str, set[str]] = {}
    labels: dict[str, str] = {}
    allowed = False
    for signature, (group, signers) in pairs(signatures, groups.items()):
        signer = next((signer for signer in signers if is_by(signature, signer)), None)
        allowed = allowed or signer is not None
        if signer is not None and signature.payload_digest == digest:
            person = signer.seat_of(signature.identity)
            people.setdefault(group, set()).add(person)
            named = f"{signer.person}{_AS}" if signer.person is not None else ""
            labels[person] = f"{group}: {named}{signature.label}"
    if not allowed:
        sentence = f"{signatures[0].label} may not sign for this product and channel"
        raise SignerNotAllowed(sentence, reason="identity")
    chosen = distinct(people, require)
    if chosen is None:
        wanted = _spoken(require, ", ")
        found = ", ".join(sorted(labels.values())) or "nobody"
        raise ThresholdNotMet(f"needed are {wanted}, all distinct, over the same bytes; signed has {found}")
    return tuple(labels[person] for person in [*chosen, *sorted(labels.keys() - {*chosen})])


def identities_in(label: str) -> frozenset[str]:
    """Return who a signer is by the label that `require_signers` wrote: the policy's person and the identity.

    Names are in one spelling, as `same_identity` has it.
    """
    _, _, signer = label.partition(": ")
    return frozenset(same_identity(one.partition(" (")[0]) for one in {signer, *signer.split(_AS)})


def is_by(signature: VerifiedSignature, signer: Signer) -> bool:
    """Return whether the signature is by this signer: exact names, no patterns but the one prefix form."""
    if getattr(signer, signature.kind.value) != signature.root:
        return False
    if signer.openpgp is not None:
        return True
    return signer.is_named(signature.identity, signature.issuer, signature.source_repository)


def refused_caller(signature: VerifiedSignature, signers: Sequence[Signer]) -> SignerNotAllowed | None:
    """Return the refusal of a signature that only its calling repository keeps from counting, else None."""
    caller = signature.source_repository
    called = [signer.model_copy(update={"source_repository": caller or None}) for signer in signers]
    if any(is_by(signature, one) for one in signers) or not any(is_by(signature, one) for one in called):
        return None
    sentence = (
        f"the workflow {signature.identity} was called by {caller}, which trust.yaml does not name; if your "
        f"releases are signed there, write `source_repository: {caller}` beside the workflow in trust.yaml"
        if caller
        else f"the certificate of {signature.identity} names no repository, and trust.yaml requires one "
        "(source_repository); sign by a Sigstore instance whose certificates name it"
    )
    return SignerNotAllowed(sentence, reason=CALLER)


def distinct(people: dict[str, set[str]], require: Sequence[Requirement]) -> tuple[str, ...] | None:
    """Give every required seat a person of its own, by augmenting paths; None if that is impossible."""
    seats = [requirement.group for requirement in require for _ in range(requirement.count)]
    taken: dict[str, int] = {}

    def seat(number: int, tried: set[str]) -> bool:
        for person in sorted(people.get(seats[number], ())):
            if person not in tried:
                tried.add(person)
                if person not in taken or seat(taken[person], tried):
                    taken[person] = number
                    return True
        return False

    if not all(seat(number, set()) for number in range(len(seats))):
        return None
    return tuple(sorted(taken, key=lambda person: taken[person]))


def _require_signer_not_revoked(signature: VerifiedSignature, revoked: Revoked) -> None:
    fingerprints = {same_identity(fingerprint) for fingerprint in revoked.openpgp}
    if (
        same_identity(signature.identity) in (*revoked.identities, *fingerprints)
        or same_identity(signature.signing_key) in fingerprints
        or (signature.serial and plain_serial(signature.serial) in revoked.cert_serials)
        or (signature.spki_sha256 and signature.spki_sha256 in revoked.spki_sha256)
    ):
        raise SignerRevoked(f"{signature.label} is revoked by the trust policy; have it signed again")


def _require_scope(said: ReleaseManifest | ChannelIndex, what: str, product: str, channel: str) -> None:
    if (said.product, said.channel) != (product, channel):
        raise ScopeMismatch(f"the {what} is for {said.product}/{said.channel}, not for {product}/{channel}")


def _require_not_revoked(
    digest: Digest, policy: TrustPolicy, state: TrustState, index: ChannelIndex | None
) -> None:
    named = (*policy.revoked.manifests, *(index.revoked if index else ()))
    if digest in state.revoked or digest.removeprefix("sha256:") in named:
        raise SignerRevoked(f"release {digest} was withdrawn; choose a later one", reason="manifest")


def _require_in_time(manifest: ReleaseManifest, rule: Rule, now: datetime) -> None:
    if now >= manifest.expires_at:
        raise Expired(f"the manifest of {manifest.version} expired at {manifest.expires_at}; renew it")
    if (now - manifest.issued_at).days >= rule.max_age_days:
        old = f"the manifest of {manifest.version} is older than {rule.max_age_days} days"
        raise Expired(old, reason="age")


def _require_signed_in_time(manifest: ReleaseManifest, signatures: Sequence[VerifiedSignature]) -> None:
    """A signature's own date must lie within the manifest's; some dates are only the signer's claim."""
    for signature in signatures:
        at = signature.signed_at
        if at is not None and not manifest.issued_at - CLOCK_SKEW <= at < manifest.expires_at:
            outside = f"{signature.label} signed at {at}, outside the manifest's time"
            raise SignatureInvalid(outside, reason="time")


def _require_no_downgrade(
    manifest: ReleaseManifest, *, known_good: bool, rule: Rule, state: TrustState, index: ChannelIndex | None
) -> None:
    """Only rollback_index orders releases; known-good ones may be below what was promoted since."""
    security = max(rule.security_floor, state.security_floor, index.security_floor if index else 0)
    release = f"{manifest.version} has rollback index {manifest.rollback_index}"
    if manifest.rollback_index < security:
        raise DowngradeRefused(f"{release}, the floor is {security}", reason="security_floor")
    if not known_good and manifest.rollback_index < state.floor:
        raise DowngradeRefused(f"{release}, promoted was {state.floor}")


def _require_offered(manifest: ReleaseManifest, digest: Digest, index: ChannelIndex | None) -> None:
    """Without its index a channel offers whatever is signed: the rule says so."""
    if index is None:
        return
    offered = {current.manifest_sha256: current.rollback_index for current in index.current}
    found = offered.get(digest.removeprefix("sha256:"))
    if found is None:
        raise NotOffered(
            f"{manifest.version} is not among the current releases of {index.product}/{index.channel}; "
            "choose one of them, or have it listed again"
        )
    if found != manifest.rollback_index:
        raise NotOffered(
            f"the index lists {manifest.version} with rollback index {found}, its manifest has "
            f"{manifest.rollback_index}; have the index made anew",
            reason="rollback_index",
        )


def _spoken(require: Sequence[Requirement], between: str) -> str:
    return between.join(f"{requirement.count} of {requirement.group}" for requirement in require)
