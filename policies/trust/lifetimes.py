"""When what the trust policy pins ends: its keys and authorities admit no new release from then on."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import chain

from policies.model.trust import Pinned, Requirement, Rule, SignatureKind, Signer, TrustPolicy
from policies.trust.admission import distinct

WARNED_BEFORE = timedelta(weeks=6)
"""How long before its end a key is named: time to extend it, and to have its file on every host."""


def ending(policy: TrustPolicy, pinned: Iterable[Pinned], now: datetime) -> tuple[Pinned, ...]:
    """Return what some signer signs by and what has a fault, has ended or ends soon, the first one first."""
    used = {_root(signer) for rule in policy.rules for signer in chain.from_iterable(rule.groups.values())}
    soon = now + WARNED_BEFORE
    found = (one for one in pinned if (one.kind, one.root) in used and one.has_ended(soon))
    return tuple(sorted(found, key=lambda one: now if one.fault or one.ends is None else one.ends))


def unmet(policy: TrustPolicy, pinned: Iterable[Pinned], now: datetime) -> tuple[Rule, ...]:
    """Return the rules for which too few signers are left, once what has ended is left out."""
    ended = {(one.kind, one.root) for one in pinned if one.vouches and one.has_ended(now)}
    return tuple(rule for rule in policy.rules if _can_be_met(rule, set()) and not _can_be_met(rule, ended))


def _can_be_met(rule: Rule, ended: set[tuple[SignatureKind, str]]) -> bool:
    people = {
        group: {signer.seat_of(signer.shown) for signer in signers if _root(signer) not in ended}
        for group, signers in rule.groups.items()
    }
    index = (Requirement(group=rule.index_group),) if rule.index_group and rule.index == "required" else ()
    return distinct(people, rule.require) is not None and distinct(people, index) is not None


def _root(signer: Signer) -> tuple[SignatureKind, str]:
    return signer.kind, getattr(signer, signer.kind)
