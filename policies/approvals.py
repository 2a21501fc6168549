"""Decide how many people must approve the plan of an upgrade, and whose word counts.

An approval binds to the digest of a plan, and so to everything the plan names: the release, what each
gateway goes back to, the fleet, the gates and the trust policy. Whatever of these changes makes another
plan, which nobody has approved.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from policies.changes import beyond_whitelist
from policies.model.approval import Approval, Approved, Required
from policies.model.offer import Offer
from policies.model.people import ROOT
from policies.model.refusals import ApprovalRequired
from policies.model.revocation import same_identity
from policies.model.trust import ApprovalRule, ApprovalRules, Change

LASTS = timedelta(hours=4)
"""How long an approval is good, where the trust policy names no time of its own."""


def required(
    changes: Sequence[Change],
    rules: ApprovalRules,
    by_fleet: int,
    replaced: Sequence[ApprovalRules] = (),
    *,
    signed: Collection[str] = (),
) -> Required:
    """Return how many people must approve, and why.

    Args:
        changes: How the configuration of the release differs from each that a gateway goes back to.
        rules: What the trust policy asks for, by kind of change.
        by_fleet: What the fleet's own file asks of every upgrade.
        replaced: What the trust policy of the fleet's last upgrade asked for, if it is another one now: who
            edits it must not be the only one who says how many people that takes.
        signed: For which kinds of changes the release's own signers ask for somebody: one at least, and for
            keys that the policy's whitelist names, too.
    """
    found = [_required(change, rules) for change in changes]
    found += [_by_signers(change, rules, signed) for change in changes]
    why = "the trust policy is another one than that of the last upgrade"
    found += [
        _by_rule(one.trust_policy_change, "trust_policy_change", why)
        for one in (rules, *replaced)
        if replaced
    ]
    found.append(Required(count=by_fleet, reason="the fleet's file asks for it of every upgrade"))
    return max(found, key=lambda one: one.count)


def required_without_release(settings: Sequence[str], rules: ApprovalRules, by_fleet: int) -> Required:
    """Return how many people must approve a reload, and why.

    Args:
        settings: The keys that it changes; none where it is one of credentials.
        rules: What the trust policy asks for, by kind of change.
        by_fleet: What the fleet's own file asks of every such reload.
    """
    what = "change of settings" if settings else "reload of credentials"
    found = [Required(count=by_fleet, reason=f"the fleet's file asks for it of every {what}")]
    if wider := sorted(set(settings) - set(rules.config.unless_keys_in)):
        found.append(_by_rule(rules.config, "config", f"it changes {', '.join(wider)}"))
    return max(found, key=lambda one: one.count)


def approved(
    wanted: Required,
    given: Sequence[Approval],
    *,
    requesters: Collection[str],
    signers: Collection[str],
    now: datetime,
) -> Approved:
    """Return whose approvals count now: of people who neither ask for the upgrade nor signed the release.

    Args:
        wanted: What the plan needs.
        given: Every approval of it.
        requesters: Who asks; with a machine also whoever made its token, who may ask through it.
        signers: Who signed the release.
        now: When it is asked.
    """
    if ROOT in requesters and wanted.count:  # whoever has become root may be one of those who approve
        wanted = wanted.model_copy(
            update={"count": wanted.count + 1, "reason": f"{wanted.reason}, and root may be one of them"}
        )
    involved = {*requesters, *signers}
    people = {
        one.person
        for one in given
        if one.given_at <= now < one.expires_at and not is_one_of(one.person, involved)
    }
    return Approved(required=wanted, people=tuple(sorted(people)))


def is_one_of(person: str, people: Collection[str]) -> bool:
    """Return whether the person is one of these, however their names are spelled."""
    return same_identity(person) in {same_identity(one) for one in people}


def overriding(found: Approved) -> Approved:
    """Return how far a plan has come that is to start outside of every window: it takes one person more."""
    wanted = found.required
    reason = "overriding windows and freezes takes one person more than the plan"
    update = {"count": wanted.count + 1, "reason": reason}
    return found.model_copy(update={"required": wanted.model_copy(update=update)})


def require_approved(found: Approved, *offers: Offer) -> None:
    """Return once enough people have approved; `offers` say what helps otherwise.

    Raises:
        ApprovalRequired: Too few have.
    """
    if found.lacking:
        wanted, people = found.required, ", ".join(found.people) or "nobody"
        raise ApprovalRequired(
            f"{wanted.reason}: {_people(wanted.count)} must approve the plan who did not ask for it, "
            f"and {people} did",
            *offers,
            reason=wanted.kind,
        )


def require_same_file(found: Approved) -> None:
    """Return once enough administrators have applied the same file of a fleet.

    Raises:
        ApprovalRequired: Too few have; root's own counts for none, since root may be one of them.
    """
    if found.lacking:
        wanted, people = found.required, ", ".join(found.people) or "none"
        others = "one more administrator" if wanted.count == 1 else f"{wanted.count} more administrators"
        raise ApprovalRequired(
            f"{wanted.reason}: {others} must apply the same file within {LASTS}; so far: {people}. "
            "What root applies does not count",
            reason=wanted.kind,
        )


def _required(change: Change, rules: ApprovalRules) -> Required:
    if change.credentials:
        touched = ", ".join(change.credentials)
        return _by_rule(rules.credentials, "credentials", f"the release changes {touched}")
    if wider := beyond_whitelist(change, rules):
        return _by_rule(rules.config, "config", f"the release changes {', '.join(wider)}")
    return _by_rule(rules.binary_only, "binary_only", "the trust policy asks for it of every upgrade")


def _by_signers(change: Change, rules: ApprovalRules, signed: Collection[str]) -> Required:
    """Return what the release's signers ask for; the policy's own number counts where it is higher."""
    if change.credentials and "credentials" in signed:
        kind, rule, keys = "credentials", rules.credentials, change.credentials
    elif change.keys and "config" in signed:
        kind, rule, keys = "config", rules.config, change.keys
    else:
        return Required()
    asked = _by_rule(rule, kind, f"the release's signers ask for it where it changes {', '.join(keys)}")
    return asked.model_copy(update={"count": 1})


def _by_rule(rule: ApprovalRule, kind: str, reason: str) -> Required:
    lasts = timedelta(minutes=rule.ttl_minutes) if rule.ttl_minutes is not None else LASTS
    return Required(count=rule.count, kind=kind, reason=reason, lasts=lasts)


def _people(count: int) -> str:
    return "one person" if count == 1 else f"{count} people"
