"""What a release changes beside its programs, and whose approval that needs."""

from datetime import UTC, datetime, timedelta

import pytest

from policies.changes import change_between, digest_of_change, require_approvals
from policies.model.refusals import ApprovalRequired
from policies.model.trust import Approval, ApprovalRule, ApprovalRules, Change

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MANIFEST = "sha256:" + "ab" * 32
POLICY = "sha256:" + "cd" * 32
RULES = ApprovalRules(config=ApprovalRule(count=2, unless_keys_in=("log-level", "banner")))
BEFORE = (
    "# ocserv\ntcp-port = @port@\nlog-level = 2\nbanner = hello\nroute = 10.0.0.0/8\nroute = 192.168.0.0/16\n"
)


def changed(after: str, before: str | None = BEFORE) -> Change:
    return change_between(MANIFEST, before, after)


def approval(person: str, change: Change, **fields: object) -> Approval:
    known = {
        "person": person,
        "reason": "reviewed",
        "manifest": MANIFEST,
        "change": digest_of_change(change),
        "policy": POLICY,
        "given_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(hours=23),
    }
    return Approval.model_validate(known | fields)


def approved(change: Change, *approvals: Approval) -> tuple[str, ...]:
    return require_approvals(
        change, approvals, RULES, policy=POLICY, requester="alice", signers=["bot"], now=NOW
    )


def test_the_same_settings_in_another_layout_are_no_change() -> None:
    assert changed(BEFORE.replace(" = ", "=").replace("# ocserv\n", "\n; other words\n")).keys == ()


def test_what_the_whitelist_covers_needs_nobody() -> None:
    change = changed(BEFORE.replace("log-level = 2", "log-level = 3").replace("hello", "welcome"))
    assert change.keys == ("banner", "log-level")
    assert approved(change) == ()


@pytest.mark.parametrize(
    "after",
    [
        BEFORE + "tls-priorities = LEGACY\n",
        BEFORE.replace("route = 192.168.0.0/16\n", ""),
        BEFORE.replace("10.0.0.0/8", "0.0.0.0/0"),
        BEFORE.replace("@port@", "22"),
    ],
)
def test_a_change_outside_the_whitelist_needs_two_people(after: str) -> None:
    change = changed(after)
    with pytest.raises(ApprovalRequired):
        approved(change)
    with pytest.raises(ApprovalRequired):
        approved(change, approval("bob", change))
    assert approved(change, approval("bob", change), approval("carol", change)) == ("bob", "carol")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('auth = "radius[config=/etc/other]"', "auth"),
        ("server-key = /etc/other.pem", "server-key"),
        ("banner = -----BEGIN RSA PRIVATE KEY-----", "banner"),
        ("banner = $5$salt$hash", "banner"),
    ],
)
def test_credentials_are_never_on_the_whitelist(line: str, key: str) -> None:
    change = changed(BEFORE.replace("banner = hello", line))
    assert key in change.credentials
    with pytest.raises(ApprovalRequired) as refused:
        approved(change)
    assert refused.value.reason == "credentials"


def test_a_first_installation_is_a_change_of_everything() -> None:
    change = changed(BEFORE, before=None)
    assert change.before is None
    assert change.keys == ("banner", "log-level", "route", "tcp-port")


def test_an_approval_is_worth_nothing_for_anything_else() -> None:
    change = changed(BEFORE + "tls-priorities = LEGACY\n")
    other = changed(BEFORE + "tls-priorities = NONE\n")
    good = approval("bob", change)
    for bad in (
        approval("carol", other),
        approval("carol", change, manifest=POLICY),
        approval("carol", change, policy=MANIFEST),
        approval("carol", change, expires_at=NOW),
        approval("carol", change, given_at=NOW + timedelta(minutes=1)),
        approval("alice", change),
        approval("bot", change),
        approval("bob", change),
    ):
        with pytest.raises(ApprovalRequired):
            approved(change, good, bad)


def test_an_approval_that_expires_before_it_was_given_is_none() -> None:
    with pytest.raises(ValueError, match="expires after"):
        approval("bob", changed(BEFORE), expires_at=NOW - timedelta(days=1))
