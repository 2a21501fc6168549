"""Decide what a release changes beside its programs, and whose approval that needs.

Configuration outside the whitelist can undo everything a signature protects (an open
listener, another authentication), so it takes people of its own to say yes.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from policies.model.refusals import ApprovalRequired
from policies.model.trust import Approval, ApprovalRule, ApprovalRules, Change
from policies.model.value import Digest, digest_of

CREDENTIALS = re.compile(r"key|secret|passw|passwd|token|credential|cert|radius|auth|pin$|psk", re.IGNORECASE)
"""Keys of the daemons' configuration that hold or lead to credentials."""

LITERAL_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\$[1256aby]{1,2}\$")
"""Private keys and password hashes, which belong into no template."""


def change_between(manifest: Digest, before: str | None, after: str) -> Change:
    """Return how the template of a release differs from the one in use."""
    old, new = _settings(before or ""), _settings(after)
    keys = tuple(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))
    secret = {key for key in keys if CREDENTIALS.search(key)}
    secret.update(key for key in keys if LITERAL_SECRET.search("\n".join(new.get(key, ()))))
    return Change(
        manifest=manifest,
        before=digest_of(before.encode()) if before is not None else None,
        after=digest_of(after.encode()),
        keys=keys,
        credentials=tuple(sorted(secret)),
    )


def digest_of_change(change: Change) -> Digest:
    """Return the digest that approvals of this change name."""
    return digest_of(change.model_dump_json().encode())


def rule_of(change: Change, rules: ApprovalRules) -> ApprovalRule:
    """Return the rule of the strictest kind that is in this change."""
    if change.credentials:
        return rules.credentials
    if set(change.keys) - set(rules.config.unless_keys_in):
        return rules.config
    return rules.binary_only


def require_approvals(
    change: Change,
    approvals: Sequence[Approval],
    rules: ApprovalRules,
    *,
    policy: Digest,
    requester: str,
    signers: Sequence[str],
    now: datetime,
) -> tuple[str, ...]:
    """Return the people whose approvals allow the change; what the whitelist covers needs nobody here.

    An approval counts if it names this change and this policy, is in time, and comes from
    somebody who neither asked for the change nor signed the release.

    Raises:
        ApprovalRequired: too few approvals count.
    """
    rule = rule_of(change, rules)
    if rule is rules.binary_only:
        return ()
    wanted = digest_of_change(change)
    people = {
        approval.person
        for approval in approvals
        if (approval.manifest, approval.change, approval.policy) == (change.manifest, wanted, policy)
        and approval.given_at <= now < approval.expires_at
        and approval.person not in (requester, *signers)
    }
    if len(people) < rule.count:
        touched = ", ".join(change.credentials or sorted(set(change.keys) - set(rule.unless_keys_in)))
        lacking = f"{rule.count} people must approve that, {len(people)} did"
        kind = "credentials" if change.credentials else "config"
        raise ApprovalRequired(f"the release changes {touched}; {lacking}", reason=kind)
    return tuple(sorted(people))


def _settings(text: str) -> dict[str, tuple[str, ...]]:
    """Return every setting with its values in order; lines that are no setting count as one of their own."""
    found: dict[str, tuple[str, ...]] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith(("#", ";")):
            key, value = (*re.split(r"\s*=\s*|\s+", line, maxsplit=1), "")[:2]
            found[key] = (*found.get(key, ()), value)
    return found
