"""What a group of gateways can carry while a change is under way."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Gateway, Limits, Slot
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import Strategy
from policies.planning.capacity import (
    Load,
    addresses_in,
    cramped,
    crowded,
    load_of,
    shortage,
    target_of,
    waits_for_capacity,
)
from tests.unit.fleets import OLD, Facts, any_facts, fleet, gateway, planned, some_plan, state

PAIR = [gateway("gw-1", capacity=100), gateway("gw-2", capacity=100)]


def loads_of(states: Mapping[str, GatewayState]) -> dict[str, Load]:
    return {name: load_of(found) for name, found in states.items()}


def short(states: Mapping[str, Load], headroom: float = 1.2, *quarantined: str) -> str | None:
    """What is said of PAIR."""
    return shortage(fleet(*PAIR, limits=Limits(headroom=headroom)), "main", states, quarantined)


def load(sessions: int | None) -> Load:
    return Load(takes_users=True, sessions=sessions)


def counts(first: int, second: int | None) -> dict[str, Load]:
    return {"gw-1": load(first), "gw-2": load(second)}


def test_exactly_the_headroom_is_enough_and_one_session_more_is_not() -> None:
    assert short(counts(80, 80), 1.25) is None
    assert short(counts(80, 81), 1.25) == "group main can carry 200 sessions and needs 202"


def test_a_gateway_that_counts_more_sessions_than_it_can_carry_is_named() -> None:
    assert short(counts(10, 5000)) == (
        "group main can carry 200 sessions and needs 6012; more sessions than capacity on gw-2"
    )


def test_a_gateway_that_takes_no_users_adds_no_capacity_but_its_sessions_count() -> None:
    draining = Load(takes_users=False, sessions=50)
    assert (
        short({"gw-1": load(50), "gw-2": draining})
        == "group main can carry 100 sessions and needs 120; nothing serves on gw-2"
    )


def test_a_gateway_of_which_nothing_is_known_adds_nothing_and_needs_all_it_could_carry() -> None:
    assert short({"gw-1": load(1)}) == (
        "group main can carry 100 sessions and needs 122; nothing is known of gw-2"
    )


def test_sessions_that_cannot_be_counted_need_all_the_gateway_can_carry() -> None:
    assert short(counts(1, None), 2.0) == (
        "group main can carry 200 sessions and needs 202; sessions cannot be counted on gw-2"
    )


def test_a_gateway_in_quarantine_carries_its_own_users_and_nobody_elses() -> None:
    assert short(counts(50, 50), 1.2, "gw-2") is None
    assert short(counts(90, 50), 1.2, "gw-2") == (
        "group main can carry 150 sessions and needs 168; in quarantine: gw-2"
    )


def test_a_gateway_that_is_dead_and_in_quarantine_keeps_no_other_from_its_turn() -> None:
    alone = fleet(gateway("gw-1"), gateway("gw-2"))
    known = {"gw-1": load(50)}
    assert shortage(alone, "main", known) is not None
    assert shortage(alone, "main", known, {"gw-2"}) is None


def test_a_short_group_names_some_of_many_and_counts_the_others() -> None:
    many = fleet(*(gateway(f"gw-{n:03}") for n in range(500)))
    sentence = shortage(many, "main", {}) or ""
    assert sentence.endswith("; nothing is known of gw-000, gw-001, gw-002 and 497 more")


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 50)), min_size=1, max_size=6))
def test_losing_a_gateway_or_a_count_never_makes_room(rows: list[tuple[int, int | None]]) -> None:
    made = fleet(*(gateway(f"gw-{i}", capacity=capacity) for i, (capacity, _) in enumerate(rows)))
    loads = {
        g.name: load(n if n is None else min(n, g.capacity))
        for g, (_, n) in zip(made.gateways, rows, strict=True)
    }
    if shortage(made, "main", loads):
        for lost in loads:
            assert shortage(made, "main", {name: loads[name] for name in loads if name != lost})
            assert shortage(made, "main", loads | {lost: load(None)})
            assert shortage(made, "main", loads, {lost})


@given(any_facts(), st.sampled_from(Strategy))
def test_5_nobody_starts_in_a_group_that_cannot_carry_its_sessions(facts: Facts, strategy: Strategy) -> None:
    plan = some_plan(facts, strategy)
    if plan is None:
        return
    changing = [name for wave in plan.waves for name in wave.gateways]
    dead = {g.name: Load(sessions=1) for g in plan.fleet.gateways}
    for known in (dead, {}):
        assert waits_for_capacity(plan, changing, known).keys() == {*changing}


@given(any_facts(), st.sampled_from(Strategy))
def test_whoever_a_plan_was_made_for_may_start_while_nothing_has_changed_since(
    facts: Facts, strategy: Strategy
) -> None:
    if plan := some_plan(facts, strategy):
        for wave in plan.waves:
            assert waits_for_capacity(plan, wave.gateways, loads_of(facts[1])) == {}


def test_one_short_group_keeps_no_other_waiting() -> None:
    members = [gateway("gw-1", group="east", capacity=10), gateway("gw-2", group="west", capacity=100)]
    east_and_west = fleet(*members, limits=Limits(steps=("100%",), holdout="0"))
    states = {g.name: state(g.name, sessions=5) for g in members}
    plan = planned((east_and_west, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    crowd = {"gw-1": load(9), "gw-2": load(5)}
    assert waits_for_capacity(plan, ("gw-1", "gw-2"), crowd) == {
        "gw-1": "group east can carry 10 sessions and needs 11"
    }


def test_a_gateway_compared_with_itself_waits_until_it_has_room_for_both_instances() -> None:
    busy = fleet(*(gateway(f"gw-{n}", capacity=100) for n in (1, 2, 3)))
    states = {g.name: state(g.name, sessions=10) for g in busy.gateways}
    facts = (busy, states, dict.fromkeys(states, OLD))
    names, loads, full = ("gw-1", "gw-2"), loads_of(states), {"gw-1": load(90)}
    blue_green, rolling = planned(facts, Strategy.BLUE_GREEN), planned(facts, Strategy.ROLLING)
    assert waits_for_capacity(blue_green, names, loads) == {}
    assert waits_for_capacity(rolling, names, loads | full) == {}
    assert waits_for_capacity(blue_green, names, loads | full) == {
        "gw-1": "gateway gw-1 has room for 100 sessions in each instance and needs 108"
    }
    for uncounted in (Load(), load(None)):
        waits = waits_for_capacity(blue_green, names, loads | {"gw-1": uncounted})
        assert [*waits] == ["gw-1"]
        assert "cannot be counted" in waits["gw-1"]


def test_each_of_two_instances_needs_addresses_and_capacity_for_all_users() -> None:
    roomy = gateway("gw-1", capacity=1000)
    assert crowded(roomy, 400, headroom=1.2) is None
    assert crowded(roomy, 500, headroom=1.2) == (
        "gateway gw-1 has room for 509 sessions in each instance and needs 600"
    )
    assert "cannot be counted" in (crowded(roomy, None, headroom=1.0) or "")


def test_sessions_are_counted_over_every_running_instance_of_a_gateway() -> None:
    assert load_of(state("gw-1", sessions=7, draining=3)).sessions == 10


def test_one_instance_that_cannot_be_counted_makes_the_gateway_unknown() -> None:
    assert load_of(state("gw-1", sessions=7, uncounted=True)).sessions is None


def test_a_gateway_takes_users_only_while_its_serving_instance_runs() -> None:
    assert load_of(state("gw-1")).takes_users
    assert not load_of(state("gw-1", life=InstanceState.FAILED)).takes_users
    assert not load_of(state("gw-1", serving=None)).takes_users


def test_what_a_gateway_in_quarantine_says_beyond_its_capacity_keeps_nobody_from_starting() -> None:
    """Whoever put it there no longer believes it."""
    for says in (100, 10**12):
        assert short({"gw-1": load(10), "gw-2": load(says)}, 1.0, "gw-2") is None
    assert short({"gw-1": load(10), "gw-2": load(10**12)}, 1.0) is not None


def small_pools(name: str, *pools: str) -> Gateway:
    """Return a gateway with a slot for each of these pools."""
    made = gateway(name, capacity=1500)
    slots = tuple(
        Slot(name=letter, port=4431 + at, device=f"p{letter}", pool4=IPv4Network(pool))
        for at, (letter, pool) in enumerate(zip("abc", pools, strict=False))
    )
    return made.model_copy(update={"slots": slots})


def test_a_gateway_whose_next_slot_has_fewer_addresses_than_it_has_users_is_left_alone_by_a_plan() -> None:
    """B8: a plan by whole gateways never asked, and logins failed the next morning."""
    tight, roomy = (
        small_pools("gw-1", "10.1.0.0/21", "10.1.8.0/24"),
        small_pools("gw-2", "10.2.0.0/21", "10.2.8.0/21"),
    )
    pair = fleet(tight, roomy, limits=Limits(holdout="0"))
    states = {"gw-1": state("gw-1", sessions=1000), "gw-2": state("gw-2", sessions=1000)}
    made = planned((pair, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    assert [wave.gateways for wave in made.waves] == [("gw-2",)]
    assert [(skip.gateway, skip.reason) for skip in made.skipped] == [
        (
            "gw-1",
            (
                "slot b of gw-1 has addresses for 253 users and the gateway has 1000 sessions; enlarge the "
                "slot's pool"
            ),
        )
    ]


def test_a_gateway_waits_when_its_users_have_outgrown_the_next_slot_since_the_plan() -> None:
    """B8: asked again before every batch."""
    member = small_pools("gw-1", "10.1.0.0/21", "10.1.8.0/24")
    alone = fleet(member, small_pools("gw-2", "10.2.0.0/21", "10.2.8.0/21"), limits=Limits(holdout="0"))
    states = {name: state(name, sessions=250) for name in ("gw-1", "gw-2")}
    plan = planned((alone, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    loads = loads_of(states)
    assert waits_for_capacity(plan, ("gw-1",), loads) == {}
    grown = loads | {"gw-1": loads["gw-1"]._replace(sessions=254)}
    assert "has addresses for 253 users" in waits_for_capacity(plan, ("gw-1",), grown)["gw-1"]


def test_the_slot_that_the_host_starts_in_is_the_one_whose_pool_counts() -> None:
    """B8: of three slots the host takes the first that is free."""
    three = small_pools("gw-1", "10.1.0.0/21", "10.1.8.0/21", "10.1.16.0/28")
    assert cramped(three, Load(takes_users=True, sessions=1000, target="b")) is None
    assert "slot c" in (cramped(three, Load(takes_users=True, sessions=1000, target="c")) or "")
    assert "slot c" in (cramped(three, Load(takes_users=True, sessions=1000)) or "")
    assert target_of(state("gw-1", sessions=7)) == "b"
    assert target_of(state("gw-1", sessions=7, draining=3)) is None


def test_a_pool_of_either_family_may_be_the_smaller_one() -> None:
    slot = Slot(
        name="a",
        port=4431,
        device="pa",
        pool4=IPv4Network("10.1.0.0/21"),
        pool6=IPv6Network("fd00::/120"),
    )
    assert addresses_in(slot) == 253
    assert addresses_in(slot.model_copy(update={"pool6": None})) == 2045
