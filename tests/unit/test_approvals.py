"""How many people must approve a plan, and whose word counts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.approvals import LASTS, approved, require_approved, required
from policies.changes import change_between
from policies.model.approval import Approval, Required
from policies.model.offer import Offer, Verb
from policies.model.refusals import ApprovalRequired
from policies.model.trust import ApprovalRule, ApprovalRules, Change

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MANIFEST, PLAN = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
BEFORE = "tcp-port = @port@\nlog-level = 2\nbanner = hello\n"
RULES = ApprovalRules(
    binary_only=ApprovalRule(count=0),
    config=ApprovalRule(count=1, unless_keys_in=("log-level",), ttl_minutes=30),
    credentials=ApprovalRule(count=2),
)
NOTHING = BEFORE
WHITELISTED = BEFORE.replace("log-level = 2", "log-level = 3")
WIDER = BEFORE + "tls-priorities = LEGACY\n"
SECRET = BEFORE + "server-key = /etc/other.pem\n"


def changed(after: str, before: str | None = BEFORE) -> Change:
    return change_between(MANIFEST, before, after)


def yes(person: str, **fields: object) -> Approval:
    times = {"given_at": NOW - timedelta(hours=1), "expires_at": NOW + timedelta(hours=3)}
    return Approval.model_validate({"plan": PLAN, "person": person, "reason": "reviewed"} | times | fields)


def counted(count: int, *given: Approval, signers: Sequence[str] = ()) -> tuple[tuple[str, ...], int]:
    found = approved(Required(count=count), given, requesters={"alice"}, signers=signers, now=NOW)
    return found.people, found.lacking


@pytest.mark.parametrize(
    ("after", "kind", "count"),
    [
        (NOTHING, "binary_only", 0),
        (WHITELISTED, "binary_only", 0),
        (WIDER, "config", 1),
        (SECRET, "credentials", 2),
    ],
)
def test_the_kind_of_change_says_how_many_must_approve(after: str, kind: str, count: int) -> None:
    found = required([changed(after)], RULES, by_fleet=0)
    assert (found.kind, found.count) == (kind, count)


def test_the_strictest_of_all_known_good_releases_decides() -> None:
    found = required([changed(NOTHING), changed(SECRET), changed(WIDER)], RULES, by_fleet=0)
    assert (found.kind, found.count) == ("credentials", 2)


def test_what_a_gateway_has_now_is_unknown_and_so_everything_counts_as_changed() -> None:
    assert required([changed(NOTHING, before=None)], RULES, by_fleet=0).count == 1


def test_a_fleet_may_ask_for_more_people_and_never_for_fewer() -> None:
    assert required([changed(NOTHING)], RULES, by_fleet=1).count == 1
    assert required([changed(SECRET)], RULES, by_fleet=1).count == 2
    assert required([], RULES, by_fleet=0).count == 0


def test_an_approval_lasts_as_long_as_its_rule_says() -> None:
    assert required([changed(WIDER)], RULES, by_fleet=0).lasts == timedelta(minutes=30)
    assert required([changed(SECRET)], RULES, by_fleet=0).lasts == LASTS


def test_nobody_approves_what_they_start_or_signed_and_nobody_counts_twice() -> None:
    assert counted(2, yes("bob"), yes("bob"), yes("alice"), yes("signer"), signers=["signer"]) == (
        ("bob",),
        1,
    )


def test_an_approval_counts_from_its_moment_until_it_expires() -> None:
    assert counted(1, yes("bob", expires_at=NOW)) == ((), 1)
    assert counted(1, yes("bob", given_at=NOW + timedelta(seconds=1))) == ((), 1)
    assert counted(1, yes("bob", given_at=NOW)) == (("bob",), 0)


def test_an_approval_that_expires_before_it_was_given_is_none() -> None:
    with pytest.raises(ValueError, match="expires after"):
        yes("bob", expires_at=NOW - timedelta(days=1))


def test_a_refusal_says_what_asks_for_people_who_did_and_what_to_do() -> None:
    wanted = required([changed(SECRET)], RULES, by_fleet=0)
    offer = Offer(verb=Verb.APPROVE, fleet="edge", plan=PLAN)
    with pytest.raises(
        ApprovalRequired, match=r"server-key: 2 people must approve .* and bob did"
    ) as refused:
        require_approved(approved(wanted, [yes("bob")], requesters={"alice"}, signers=(), now=NOW), offer)
    assert refused.value.offers == (offer,)
    assert refused.value.reason == "credentials"


@given(st.integers(0, 4), st.lists(st.sampled_from(["alice", "bob", "carol", "dave"])))
def test_a_plan_is_startable_exactly_when_enough_others_said_yes(count: int, said: list[str]) -> None:
    others = {*said} - {"alice"}
    _, lacking = counted(count, *[yes(person) for person in said])
    assert (lacking == 0) == (len(others) >= count)
