"""Pools of the fleet's file and of what runs: what a reload brings, and what is refused beforehand."""

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from policies.drift import described_by
from policies.model.adoption import ADOPTED
from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState, Steering
from policies.planning.pools import in_the_way
from policies.planning.settings import changing, difference
from policies.pools import has_grown
from tests.unit.fleets import fleet, gateway, state

HAS = gateway("gw-1")
POOL = HAS.slots[0].pool4
LARGER, SMALLER = IPv4Network((POOL.network_address, 22)), next(POOL.subnets(1))


def with_pool(pool4: IPv4Network | None = None, pool6: IPv6Network | None = None, slot: int = 0) -> Gateway:
    """Return the gateway with other pools in a slot, the other slot far away."""
    slots = list(HAS.slots)
    slots[1] = slots[1].model_copy(update={"pool4": IPv4Network("10.200.0.0/24")})
    slots[slot] = slots[slot].model_copy(
        update={"pool4": pool4 or slots[slot].pool4, "pool6": pool6 or slots[slot].pool6}
    )
    return HAS.model_copy(update={"slots": tuple(slots)})


def answered(described: Gateway, *pools: IPv4Network | IPv6Network, sessions: int = 10) -> GatewayState:
    """Return what a gateway says in whose slot a an instance with these pools runs."""
    said = state("gw-1", sessions=sessions)
    instances = [one.model_copy(update={"pools": pools or (POOL,)}) for one in said.instances]
    return said.model_copy(update={"instances": tuple(instances), "described": described_by(described)})


def of(one: Gateway) -> Fleet:
    return fleet(one.model_copy(update={"fleet": "edge"}))


def described(one: Gateway) -> Gateway:
    return of(one).gateways[0]


def test_a_pool_that_differs_from_what_runs_is_shown_and_nothing_else_of_its_slot() -> None:
    wanted = with_pool(LARGER)
    found = changing(of(wanted), {"gw-1": answered(described(wanted))})
    assert (found.gateways, found.keys) == (("gw-1",), ("pool4",))
    assert found.sentences == (
        "gw-1:",
        f"  - pool4 of slot a = {POOL}",
        f"  + pool4 of slot a = {LARGER}",
    )
    assert in_the_way(of(wanted), {"gw-1": answered(described(wanted))}, ["gw-1"]) == ()


def test_a_pool_of_a_slot_in_which_nothing_runs_is_taken_by_its_next_start() -> None:
    wanted = with_pool(IPv4Network("10.201.0.0/24"), slot=1)
    assert difference(of(wanted), wanted, answered(described(wanted))) == ()


def test_what_was_adopted_and_what_does_not_tell_its_pools_are_left_alone() -> None:
    wanted = with_pool(LARGER)
    own = answered(described(wanted)).model_copy(update={"steering": Steering(serving=ADOPTED)})
    assert difference(of(wanted), wanted, own) == ()
    assert difference(of(wanted), wanted, state("gw-1")) == ()


def test_a_pool_of_ipv6_comes_with_a_new_instance() -> None:
    small, large = IPv6Network("fd00::/112"), IPv6Network("fd00::/104")
    wanted = with_pool(pool6=large)
    said = answered(described(wanted), POOL, small)
    assert changing(of(wanted), {"gw-1": said}).keys == ("pool6",)
    [refusal] = in_the_way(of(wanted), {"gw-1": said}, ["gw-1"])
    assert f"pool6 {small}, and what runs takes" in refusal


@pytest.mark.parametrize("other", [SMALLER, IPv4Network("10.202.0.0/24")])
def test_a_pool_that_has_not_only_grown_is_refused_with_what_to_do(other: IPv4Network) -> None:
    wanted = with_pool(other)
    [said] = in_the_way(of(wanted), {"gw-1": answered(described(wanted), sessions=12)}, ["gw-1"])
    assert said.startswith(f"gw-1: slot a has 12 sessions and pool4 {POOL}, and what runs takes a larger")
    assert "`penstock upgrade start`" in said


def test_a_pool_that_begins_elsewhere_is_no_larger_one() -> None:
    """The daemon's own address is the first one: those who are logged in have it as their gateway."""
    assert has_grown(ip_network("10.0.2.0/24"), ip_network("10.0.2.0/23"))
    assert not has_grown(ip_network("10.0.3.0/24"), ip_network("10.0.2.0/23"))
    assert not has_grown(ip_network("10.0.2.0/24"), ip_network("10.0.2.0/24"))


def test_a_pool_is_not_planned_that_the_agents_file_does_not_have() -> None:
    wanted = with_pool(LARGER)
    [said] = in_the_way(of(wanted), {"gw-1": answered(described(with_pool(POOL)))}, ["gw-1"])
    assert said.startswith(f"gw-1: slot a: fleet.yaml says port 4431, device pa, users {LARGER}, its agent's")
    assert said.endswith("have both say the same, and restart its agent, which ends no session")
