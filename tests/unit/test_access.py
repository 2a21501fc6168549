"""Who may do what on which fleet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.access import (
    ALLOWED,
    OF_PEOPLE,
    OF_VERBS,
    Action,
    action_of,
    is_known_to,
    may,
    open_to,
    refusal_of,
)
from policies.model.command import CommandKind
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, Caller, Member, Oidc, People, Role, Via, joined

SAFE_DIRECTION = (CommandKind.HOLD, CommandKind.ROLL_BACK, CommandKind.ABORT)
roles = st.frozensets(st.sampled_from(Role))


def caller(*held: Role, fleet: str = "edge", machine: bool = False) -> Caller:
    return Caller(person="alice", grants={fleet: frozenset(held)}, via=Via.CLI, machine=machine)


@pytest.mark.parametrize("kind", SAFE_DIRECTION)
def test_an_operator_alone_goes_in_the_safe_direction(kind: CommandKind) -> None:
    assert may(caller(Role.OPERATOR), action_of(kind), "edge")


def test_every_command_asks_for_an_action_that_some_role_has() -> None:
    everything = frozenset[Action]().union(*ALLOWED.values())
    assert {action_of(kind) for kind in CommandKind} <= everything
    assert everything == set(Action)


def test_whoever_starts_upgrades_for_a_living_approves_none() -> None:
    assert not may(caller(Role.OPERATOR), Action.ANSWER, "edge")
    assert not may(caller(Role.ADMIN), Action.ANSWER, "edge")
    assert not may(caller(Role.APPROVER), Action.START, "edge")


@given(roles, st.sampled_from(Action))
def test_a_role_on_one_fleet_is_none_on_another(held: frozenset[Role], action: Action) -> None:
    someone = caller(*held)
    assert not may(someone, action, "core")
    assert not is_known_to(someone, "core")


@given(roles, st.sampled_from(Action))
def test_a_role_on_every_fleet_is_one_on_each(held: frozenset[Role], action: Action) -> None:
    everywhere = Caller(person="alice", grants={EVERY_FLEET: held}, via=Via.CLI)
    assert may(everywhere, action, "edge") == may(caller(*held), action, "edge")


@given(roles, roles, st.sampled_from(Action))
def test_another_role_never_takes_anything_away(
    one: frozenset[Role], more: frozenset[Role], action: Action
) -> None:
    assert may(caller(*one), action, "edge") <= may(caller(*(one | more)), action, "edge")


@given(roles, st.sampled_from(sorted(OF_PEOPLE)))
def test_no_machine_does_what_takes_a_person(held: frozenset[Role], action: Action) -> None:
    assert not may(caller(*held, machine=True), action, "edge")


@given(roles, st.sampled_from(Action))
def test_who_may_not_hears_who_may(held: frozenset[Role], action: Action) -> None:
    someone = caller(*held)
    refusal = refusal_of(someone, action, "edge")
    assert (refusal is None) == may(someone, action, "edge")
    if refusal is not None:
        assert "alice" in refusal
        assert any(role in refusal for role in Role if action in ALLOWED[role])


def test_what_several_sources_grant_is_granted() -> None:
    granted = joined(
        [{"edge": frozenset({Role.VIEWER})}, {"edge": frozenset({Role.OPERATOR}), "*": frozenset()}]
    )
    assert granted["edge"] == {Role.VIEWER, Role.OPERATOR}


OIDC = Oidc(issuer="https://id.example.org", audience="penstock", client="penstock")


def people(*members: Member, oidc: Oidc | None = OIDC) -> People:
    return People(api_version="penstock/v1", people=members, oidc=oidc)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Member(name="alice"), Member(name="alice")),
        (Member(name="alice", system_users=("ops",)), Member(name="bob", system_users=("ops",))),
        (Member(name="alice", subjects=("a@example.org",)), Member(name="bob", subjects=("a@example.org",))),
    ],
)
def test_what_recognises_one_person_recognises_no_other(one: Member, other: Member) -> None:
    with pytest.raises(ValidationError, match="belongs to two people"):
        people(one, other)


@pytest.mark.parametrize("name", ["penstock", "penstock.watch", "break-glass"])
def test_nobody_has_the_name_of_who_acts_when_nobody_does(name: str) -> None:
    """A quarantine by a person called break-glass counted as steering on the host: a rollback left it out."""
    with pytest.raises(ValidationError, match="that is who acts when no person does"):
        people(Member(name=name))


@pytest.mark.parametrize("name", ["Alice", "alice ", "al ice", "", "älice", "a" * 64, "alice\n"])
def test_a_person_has_one_spelling(name: str) -> None:
    with pytest.raises(ValidationError):
        Member(name=name)


def test_subjects_without_a_provider_are_refused() -> None:
    with pytest.raises(ValidationError, match="no oidc that could vouch"):
        people(Member(name="alice", subjects=("a",)), oidc=None)


@pytest.mark.parametrize("verb", OF_VERBS)
@pytest.mark.parametrize("role", Role)
def test_what_is_offered_to_somebody_they_may_do(verb: Verb, role: Role) -> None:
    assert open_to(caller(role), Offer(verb=verb, fleet="edge"), "edge") is (OF_VERBS[verb] in ALLOWED[role])


def test_who_may_hold_may_lift_their_own_hold_and_nobody_elses() -> None:
    approver = caller(Role.APPROVER)
    assert open_to(approver, Offer(verb=Verb.RESUME, fleet="edge", hold_of="alice"), "edge")
    assert not open_to(approver, Offer(verb=Verb.RESUME, fleet="edge", hold_of="ben"), "edge")


@pytest.mark.parametrize("verb", sorted(set(Verb) - set(OF_VERBS)))
def test_what_is_a_question_is_offered_to_everybody(verb: Verb) -> None:
    assert open_to(caller(Role.VIEWER), Offer(verb=verb), "edge")
