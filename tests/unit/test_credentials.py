"""Credentials that a release asks for: who lacks one is left alone, and who does not tell is named, too."""

import pytest

from policies.credentials import elsewhere_of, lacking, untold
from policies.model.errors import Refused
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState, GivenCredential
from policies.model.plan import Plan, Strategy
from policies.model.value import digest_of
from policies.planning.plan import plan
from tests.unit.fleets import NEW, Facts, facts_of, state

KEY = GivenCredential(name="key")
LOST = GivenCredential(name="users", missing="the credential file /etc/vpn/users cannot be read")
IN_A_VAULT = GivenCredential(name="users", elsewhere=True)
ASKED = frozenset({"key", "users"})


def with_given(name: str, *given: GivenCredential) -> GatewayState:
    return state(name).model_copy(update={"credentials": given})


def planned(facts: Facts) -> Plan:
    fleet, states, known_good = facts
    return plan(
        fleet,
        states,
        known_good,
        NEW,
        Strategy.CANARY,
        gates=GatePolicy(),
        trust_policy=digest_of(b"trust"),
        credentials=ASKED,
    )


def test_a_host_lacks_what_its_agents_file_does_not_name_and_what_cannot_be_read() -> None:
    assert lacking(with_given("gw-1", KEY, IN_A_VAULT), ASKED) is None
    assert lacking(with_given("gw-1", KEY, LOST), {"key"}) is None
    assert lacking(with_given("gw-1", LOST), ASKED) == (
        "its host lacks credential key, which its agent's file does not name; credential users (the "
        "credential file /etc/vpn/users cannot be read)"
    )


def test_a_gateway_that_lacks_a_credential_is_left_alone_and_named_before_anything_starts() -> None:
    fleet, states, known_good = facts_of(4)
    states |= {"gw-3": with_given("gw-3", KEY)}
    made = planned((fleet, states, known_good))
    assert {skip.gateway: skip.reason for skip in made.skipped} == {
        "gw-3": "its host lacks credential users, which its agent's file does not name"
    }
    with pytest.raises(Refused, match=r"gw-1 \(its host lacks credential users, which .* mend these"):
        planned((fleet, {name: with_given(name, KEY) for name in states}, known_good))


def test_what_nobody_can_know_before_a_start_is_said_to_be_unknown() -> None:
    vaults = {"gw-1": elsewhere_of((KEY, IN_A_VAULT)), "gw-2": elsewhere_of(None)}
    assert untold(vaults, ASKED) == (
        "whether gw-1 can read credential users is not known before a start: a vault has it",
        "whether gw-2 can read key, users is not known: an agent that is older does not tell",
    )
    assert untold(vaults, ()) == ()
