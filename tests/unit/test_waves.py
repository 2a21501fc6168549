"""Who changes in which wave, and who stays unchanged to be compared with."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model.errors import Refused
from policies.model.fleet import Gateway, Limits
from policies.model.instance import InstanceState
from policies.model.plan import Plan, Strategy
from policies.planning.capacity import load_of
from tests.unit.fleets import (
    OLD,
    Facts,
    any_facts,
    facts_of,
    fleet,
    gateway,
    planned,
    release,
    some_plan,
    state,
)


def sizes(plan: Plan) -> list[int]:
    return [len(wave.gateways) for wave in plan.waves]


def none_held(**limits: object) -> Limits:
    return Limits.model_validate({"holdout": "0", **limits})


@given(any_facts())
def test_3_no_wave_reaches_beyond_its_step_and_a_canary_goes_alone(facts: Facts) -> None:
    limits = facts[0].limits
    if (plan := some_plan(facts, Strategy.CANARY)) and plan.waves:
        everybody = sum(sizes(plan))
        row = sum(len(wave.gateways) for wave in plan.waves if not wave.holdout)
        allowed = {1, row}
        for step in limits.steps:
            size = ceil(everybody * int(step[:-1]) / 100) if step.endswith("%") else int(step)
            allowed.add(min(size, row))
        reached = [sum(sizes(plan)[: n + 1]) for n in range(len(plan.waves))]
        assert reached[0] == 1
        assert allowed <= set(reached)
        assert max(sizes(plan)) <= limits.draining
        assert len(plan.waves) <= len(allowed) + everybody // limits.draining + 1


@given(any_facts(), st.sampled_from([Strategy.CANARY, Strategy.ROLLING]))
def test_whoever_is_held_out_changes_last_and_every_group_of_three_has_somebody(
    facts: Facts, strategy: Strategy
) -> None:
    upgraded, states, _ = facts
    if plan := some_plan(facts, strategy):
        kinds = [wave.holdout for wave in plan.waves]
        assert kinds == sorted(kinds)
        held = {name for wave in plan.waves if wave.holdout for name in wave.gateways}
        for group, members in upgraded.groups.items():
            alive = {
                g.name for g in members if g.name in plan.wave_of and load_of(states[g.name]).takes_users
            }
            mine = {g.name for g in members} & held
            asked = {"0": 0, "1": 1, "2": 2, "30%": ceil(len(alive) * 0.3)}[upgraded.limits.holdout]
            assert mine <= alive
            assert len(mine) == min(asked, len(alive) // 3), group


@given(st.integers(1, 60), st.integers(1, 6), st.sampled_from([Strategy.CANARY, Strategy.ROLLING]))
def test_each_wave_takes_about_the_same_part_of_every_group(
    count: int, groups: int, strategy: Strategy
) -> None:
    upgraded, states, known_good = facts_of(count, none_held(), groups=groups)
    plan = planned((upgraded, states, known_good), strategy)
    changed: set[str] = set()
    for wave in plan.waves:
        changed |= {*wave.gateways}
        for members in upgraded.groups.values():
            fair = len(members) * len(changed) / count
            slack = 2 + len(members) * groups / (2 * count)
            assert abs(len(changed & {g.name for g in members}) - fair) <= slack


@given(any_facts())
def test_blue_green_changes_a_whole_group_at_once_and_compares_it_with_itself(facts: Facts) -> None:
    if plan := some_plan(facts, Strategy.BLUE_GREEN):
        groups = [{plan.fleet.gateway(name).group for name in wave.gateways} for wave in plan.waves]
        assert all(len(found) == 1 for found in groups)
        assert len({*map(frozenset, groups)}) == len(groups)
        assert all(wave.shares == (10, 50, 100) and wave.compared_with_itself for wave in plan.waves)
        assert not any(wave.holdout for wave in plan.waves)


def test_a_canary_plan_of_sixteen_goes_one_then_a_quarter_then_all_but_one_held_out() -> None:
    plan = planned(facts_of(16))
    assert sizes(plan) == [1, 3, 11, 1]
    assert [wave.holdout for wave in plan.waves] == [False, False, False, True]
    assert sizes(planned(facts_of(16, none_held()))) == [1, 3, 12]


def test_each_group_of_three_or_more_holds_one_out_and_smaller_ones_none() -> None:
    plan = planned(facts_of(7, groups=2))
    assert {plan.fleet.gateway(name).group for name in plan.waves[-1].gateways} == {"group-0", "group-1"}
    assert plan.waves[-1].holdout
    assert not any(wave.holdout for wave in planned(facts_of(2)).waves)


def test_a_third_of_a_group_is_the_most_that_is_held_out() -> None:
    assert sizes(planned(facts_of(9, Limits(holdout="50%"))))[-1] == 3
    assert sizes(planned(facts_of(40, Limits(holdout="10%"))))[-1] == 4


def test_no_wave_has_more_gateways_than_may_drain_at_once() -> None:
    assert sizes(planned(facts_of(16, none_held(draining=5)))) == [1, 3, 5, 5, 2]


def test_a_rolling_plan_takes_waves_of_one_size() -> None:
    assert sizes(planned(facts_of(16, none_held()), Strategy.ROLLING)) == [4, 4, 4, 4]
    assert sizes(planned(facts_of(10, none_held()), Strategy.ROLLING)) == [3, 3, 3, 1]
    assert sizes(planned(facts_of(4), Strategy.ROLLING)) == [1, 1, 1, 1]


def test_a_blue_green_plan_has_a_wave_a_group_and_the_small_group_goes_first() -> None:
    plan = planned(facts_of(5, groups=2), Strategy.BLUE_GREEN)
    assert [sorted(wave.gateways) for wave in plan.waves] == [["gw-2", "gw-4"], ["gw-1", "gw-3", "gw-5"]]


def test_a_blue_green_group_that_cannot_drain_at_once_is_refused_with_what_to_set() -> None:
    with pytest.raises(
        Refused, match=r"all 60 gateways of group group-0 at once .* set limits.draining to 60"
    ):
        planned(facts_of(60), Strategy.BLUE_GREEN)


def test_blue_green_without_a_share_below_all_has_nobody_to_compare_with() -> None:
    with pytest.raises(Refused, match="needs a share below 100; write limits"):
        planned(facts_of(3, Limits(shares=(100,))), Strategy.BLUE_GREEN)


def test_a_canary_may_be_five_per_cent_of_one_gateway() -> None:
    plan = planned(facts_of(4, Limits(canary_share=5)))
    assert [wave.shares for wave in plan.waves] == [(5, 100), (100,), (100,)]
    assert [wave.compared_with_itself for wave in plan.waves] == [True, False, False]


def test_a_canary_with_no_neighbour_is_compared_with_itself() -> None:
    plan = planned(facts_of(1))
    assert (sizes(plan), plan.waves[0].shares) == ([1], (10, 50, 100))
    assert planned(facts_of(1, Limits(canary_share=5))).waves[0].shares == (5, 100)
    assert planned(facts_of(1), Strategy.ROLLING).waves[0].shares == (100,)
    with pytest.raises(Refused, match="needs a share below 100"):
        planned(facts_of(1, Limits(shares=(100,))))


def test_no_share_is_planned_where_a_hook_sends_everybody_or_nobody() -> None:
    def routed(facts: Facts) -> Facts:
        upgraded, states, known_good = facts
        steered = [
            Gateway.model_validate(one.model_dump() | {"steering": "hook", "hook_can": ("lease",)})
            for one in upgraded.gateways
        ]
        return upgraded.model_copy(update={"gateways": tuple(steered)}), states, known_good

    assert planned(routed(facts_of(3))).waves[0].shares == (100,)
    assert planned(routed(facts_of(1)), Strategy.ROLLING).waves
    why = "wave 1 is to send {} of new users, and the hook of gw-. sends everybody or nobody"
    with pytest.raises(Refused, match=why.format("10%, 50%, 100%")):
        planned(routed(facts_of(1)))
    with pytest.raises(Refused, match=why.format("5%, 100%")):
        planned(routed(facts_of(3, Limits(canary_share=5))))


def test_the_canary_is_the_gateway_with_far_fewer_sessions() -> None:
    upgraded, states, known_good = facts_of(4)
    states["gw-3"] = state("gw-3", sessions=2)
    assert planned((upgraded, states, known_good)).waves[0].gateways == ("gw-3",)


def test_in_a_large_fleet_too_the_canary_has_few_sessions() -> None:
    upgraded, states, known_good = facts_of(200, groups=3)
    states["gw-77"] = state("gw-77", sessions=2)
    assert planned((upgraded, states, known_good)).waves[0].gateways == ("gw-77",)


def test_a_gateway_whose_sessions_are_unknown_goes_last_and_is_not_what_others_are_compared_with() -> None:
    upgraded, states, known_good = facts_of(4)
    states["gw-1"] = state("gw-1", sessions=None)
    plan = planned((upgraded, states, known_good))
    assert plan.waves[1].gateways[-1] == "gw-1"
    assert plan.waves[-1].gateways != ("gw-1",)


def test_the_release_decides_between_equals_so_that_each_begins_elsewhere() -> None:
    canaries = {planned(facts_of(8), to=release(f"2.{n}.0")).waves[0].gateways for n in range(30)}
    assert len(canaries) > 3


def test_a_canary_is_never_alone_in_its_group_when_another_has_a_neighbour() -> None:
    lonely, other, third = gateway("gw-1", group="west"), gateway("gw-2"), gateway("gw-3")
    states = {
        "gw-1": state("gw-1", sessions=0),
        "gw-2": state("gw-2", sessions=5),
        "gw-3": state("gw-3", sessions=50),
    }
    plan = planned((fleet(lonely, other, third), states, dict.fromkeys(states, OLD)))
    assert plan.waves[0].gateways == ("gw-2",)


def test_a_dead_gateway_is_neither_a_canary_nor_anybody_to_compare_with() -> None:
    upgraded, states, known_good = facts_of(3)
    states["gw-2"] = state("gw-2", sessions=0, life=InstanceState.FAILED)
    plan = planned((upgraded, states, known_good))
    assert plan.waves[0].gateways != ("gw-2",)
    assert not plan.waves[0].compared_with_itself
    states["gw-3"] = states["gw-2"].model_copy(update={"gateway": "gw-3"})
    alone = planned((upgraded, states, known_good)).waves[0]
    assert (alone.gateways, alone.compared_with_itself) == (("gw-1",), True)


def test_a_thousand_gateways_are_planned_in_growing_waves() -> None:
    plan = planned(facts_of(1000, none_held(steps=("1", "5%", "25%", "100%"), draining=1000)))
    assert sizes(plan) == [1, 49, 200, 750]


def test_a_wave_too_large_for_its_leases_is_refused_with_the_size_that_fits() -> None:
    limits = Limits(steps=("100%",), draining=20_000)
    with pytest.raises(Refused, match=r"at most 10\d{3} fit into one wave; add steps, or lower"):
        planned(facts_of(12_000, limits), Strategy.ROLLING)
