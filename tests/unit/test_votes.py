"""Votes to promote without proof: whose count, and for which verdict."""

import pytest

from policies.model.verdict import Action, Decision, GateVerdict
from policies.votes import Votes

UNPROVEN = Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="few logins")
SICK = Decision(action=Action.HOLD, verdict=GateVerdict.UNHEALTHY, reason="descriptors grow")


def voted(requesters: tuple[str, ...], *people: str) -> Votes:
    votes = Votes(requesters)
    votes.see(UNPROVEN)
    for person in people:
        votes.add(person)
    return votes


def test_two_people_who_did_not_ask_for_it_are_enough() -> None:
    assert not voted(("ana",), "ben").passed
    assert voted(("ana",), "ben", "carla").passed


@pytest.mark.parametrize("people", [("ben", "ben"), ("ben", "ana"), ("ben", "root"), ("root", "carla")])
def test_neither_twice_nor_whoever_asked_nor_root_is_a_second_person(people: tuple[str, ...]) -> None:
    assert not voted(("ana",), *people).passed


def test_who_made_the_machine_that_asked_does_not_vote() -> None:
    assert not voted(("deploy-bot", "ben"), "ben", "carla").passed
    assert voted(("deploy-bot", "ben"), "dora", "carla").passed


def test_where_root_asked_it_takes_one_more_since_root_may_be_one_of_them() -> None:
    assert not voted(("root",), "ben", "carla").passed
    assert voted(("root",), "ben", "carla", "dora").passed


def test_a_vote_ends_with_the_verdict_it_saw() -> None:
    votes = voted(("ana",), "ben")
    votes.see(SICK)
    votes.add("carla")
    assert votes.persons == ("carla",)
