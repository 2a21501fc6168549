"""Votes to promote without proof: whose count, and for which verdict."""

import pytest

from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.votes import Votes, basis_of

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


# B4: what operators vote on is what is decided (R10).


def held_by(*gates: str, reason: str = "descriptors grow by 0.03") -> Decision:
    readings = [GateReading(gate=gate, verdict=GateVerdict.UNHEALTHY, reason=reason) for gate in gates]
    good = GateReading(gate="logins", verdict=GateVerdict.HEALTHY, reason="proven not worse")
    return SICK.model_copy(update={"reason": reason, "readings": (*readings, good)})


def test_a_vote_ends_when_a_gate_holds_that_it_did_not_see() -> None:
    votes = Votes(("ana",))
    votes.see(held_by("descriptor-leak"))
    votes.add("ben")
    votes.see(held_by("complaints", "descriptor-leak"))
    assert not votes.persons
    votes.add("carla")
    assert votes.persons == ("carla",)


def test_a_vote_outlasts_the_end_of_one_of_its_reasons_and_its_return() -> None:
    votes = Votes(("ana",))
    for seen in (held_by("complaints", "descriptor-leak"), held_by("descriptor-leak")):
        votes.see(seen)
        votes.add("ben")
    votes.see(held_by("complaints", "descriptor-leak"))
    assert not votes.persons  # its last word was on the leak alone
    votes.add("ben")
    votes.see(held_by("complaints"))
    votes.see(held_by("descriptor-leak"))
    assert votes.persons == ("ben",)


def test_a_vote_is_not_bound_to_the_numbers_of_its_reason() -> None:
    votes = Votes(("ana",))
    votes.see(held_by(reason="a descriptor leak of 0.03 a minute").model_copy(update={"readings": ()}))
    votes.add("ben")
    votes.see(held_by(reason="a descriptor leak of 0.041 a minute").model_copy(update={"readings": ()}))
    assert votes.persons == ("ben",)
    votes.see(held_by(reason="40 users of 200 cannot log in").model_copy(update={"readings": ()}))
    assert not votes.persons


def test_a_vote_counts_for_what_its_person_was_shown_however_late_it_arrives() -> None:
    shown = basis_of(held_by("descriptor-leak"))
    votes = Votes(("ana",))
    votes.see(held_by("complaints", "descriptor-leak"))
    votes.add("ben", shown)
    assert not votes.persons
    votes.see(held_by("descriptor-leak"))
    votes.add("ben", shown)
    assert votes.persons == ("ben",)


def test_metrics_that_are_missing_speak_against_a_wave_only_once_they_hold_it() -> None:
    blind = (GateReading(gate="logins", verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no answer"),)
    for action, against in ((Action.CONTINUE, ()), (Action.HOLD, ("logins",))):
        decision = Decision(
            action=action, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no answer", readings=blind
        )
        assert basis_of(decision).against == against
