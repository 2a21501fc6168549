"""The planner's promises, as examples and as properties of any fleet.

The numbered properties are the invariants of the planner that apply to a fleet as `fleet.yaml`
knows it; the sixth (two gateways that are each other's spare) is kept by giving both one domain,
and those of running plans (4, 5, 9, 10, 11) are in `test_batches.py`.
"""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model.errors import Refused
from policies.model.fleet import Limits
from policies.model.instance import InstanceState
from policies.model.plan import Plan, Strategy
from policies.model.value import digest_of
from policies.planning.batches import batches, next_to_start
from policies.planning.capacity import load_of, waits_for_capacity
from tests.unit.fleets import (
    NEW,
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

strategies = st.sampled_from(Strategy)


@given(any_facts(), strategies)
def test_1_every_gateway_is_in_exactly_one_wave_or_skipped_with_a_reason(
    facts: Facts, strategy: Strategy
) -> None:
    if plan := some_plan(facts, strategy):
        named = [name for wave in plan.waves for name in wave.gateways]
        named += [skip.gateway for skip in plan.skipped]
        assert sorted(named) == sorted(g.name for g in facts[0].gateways)
        assert all(skip.reason for skip in plan.skipped)
        assert set(plan.known_good) == {name for wave in plan.waves for name in wave.gateways}
        assert [wave.number for wave in plan.waves] == list(range(1, len(plan.waves) + 1))


@given(any_facts(), strategies, st.randoms(use_true_random=False))
def test_2_the_same_facts_in_another_order_have_the_same_digest(
    facts: Facts, strategy: Strategy, chance: Random
) -> None:
    upgraded, states, known_good = facts
    shuffled = upgraded.model_copy(
        update={"gateways": tuple(chance.sample(upgraded.gateways, len(upgraded.gateways)))}
    )
    other = (
        shuffled,
        dict(chance.sample(sorted(states.items()), len(states))),
        dict(chance.sample(sorted(known_good.items()), len(known_good))),
    )
    first, second = some_plan(facts, strategy), some_plan(other, strategy)
    assert (first and first.digest) == (second and second.digest)


@given(
    st.lists(st.tuples(st.integers(4, 15), st.integers(4, 15)), min_size=2, max_size=12),
    strategies,
    st.integers(1, 3),
)
def test_users_who_come_and_go_do_not_change_the_digest(
    counts: list[tuple[int, int]], strategy: Strategy, groups: int
) -> None:
    upgraded, states, known_good = facts_of(len(counts), groups=groups)
    earlier = {name: state(name, sessions=n) for name, (n, _) in zip(states, counts, strict=True)}
    later = {name: state(name, sessions=n) for name, (_, n) in zip(states, counts, strict=True)}
    before = planned((upgraded, earlier, known_good), strategy)
    after = planned((upgraded, later, known_good), strategy)
    assert before.waves == after.waves
    assert before.digest == after.digest
    assert after.sessions == {name: n for name, (_, n) in zip(states, counts, strict=True)}


def test_five_plans_of_one_state_have_one_digest_and_another_decision_has_another() -> None:
    facts = facts_of(8)
    assert len({planned(facts).digest for _ in range(5)}) == 1
    others = [
        planned(facts, Strategy.ROLLING),
        planned(facts, to=release("1.5.0")),
        planned(facts_of(8, Limits(failures="6%"))),
        planned(facts_of(8, Limits(automation="ask"))),
        planned(facts_of(9)),
        planned((facts[0], facts[1], facts[2] | {"gw-1": release("1.2.0")})),
        planned((facts[0], {n: s for n, s in facts[1].items() if n != "gw-1"}, facts[2])),
    ]
    assert len({planned(facts).digest, *(other.digest for other in others)}) == 1 + len(others)


@given(any_facts(), strategies)
def test_7_planning_again_after_success_leaves_nothing_to_do(facts: Facts, strategy: Strategy) -> None:
    upgraded, states, known_good = facts
    if plan := some_plan(facts, strategy):
        changed = {name: state(name, on=NEW) for wave in plan.waves for name in wave.gateways}
        again = (upgraded, states | changed, known_good)
        stuck = {s.gateway for s in plan.skipped if not s.reason.startswith("already on")}
        if stuck:
            with pytest.raises(Refused):
                planned(again, strategy)
        else:
            assert planned(again, strategy).waves == ()


@given(any_facts(), strategies)
def test_8_a_silent_gateway_is_never_in_a_wave_and_always_named(facts: Facts, strategy: Strategy) -> None:
    if plan := some_plan(facts, strategy):
        silent = {g.name for g in facts[0].gateways} - set(facts[1])
        assert silent == {s.gateway for s in plan.skipped if s.reason.startswith("silent")}


@given(any_facts(), strategies)
def test_12_each_gateway_goes_back_to_its_own_known_good(facts: Facts, strategy: Strategy) -> None:
    upgraded, states, known_good = facts
    own = {name: release(f"1.{number}.0") for number, name in enumerate(sorted(known_good))}
    if plan := some_plan((upgraded, states, own), strategy):
        assert plan.known_good == {name: own[name] for wave in plan.waves for name in wave.gateways}


def test_a_release_of_another_product_is_refused() -> None:
    with pytest.raises(Refused, match="fleet edge runs ocserv; plan a release of it, not of openvpn"):
        planned(facts_of(3), to=NEW.model_copy(update={"product": "openvpn"}))


def test_a_fleet_without_any_known_good_is_refused() -> None:
    upgraded, states, _ = facts_of(3)
    with pytest.raises(Refused, match="no known-good release to go back to"):
        planned((upgraded, states, {}))


def test_a_group_short_of_capacity_is_refused_with_its_figures() -> None:
    small = fleet(gateway("gw-1", capacity=10), gateway("gw-2", capacity=10))
    states = {name: state(name, sessions=10) for name in ("gw-1", "gw-2")}
    with pytest.raises(Refused, match="group main can carry 20 sessions and needs 24"):
        planned((small, states, dict.fromkeys(states, OLD)))


def test_a_group_in_which_nobody_changes_may_be_short() -> None:
    both = fleet(gateway("gw-1"), gateway("gw-2"), gateway("gw-3", group="west", capacity=10))
    states = {"gw-1": state("gw-1"), "gw-2": state("gw-2"), "gw-3": state("gw-3", on=NEW, sessions=10)}
    assert planned((both, states, dict.fromkeys(states, OLD))).waves


def test_blue_green_is_refused_where_one_gateway_alone_could_not_carry_its_users() -> None:
    uneven = fleet(gateway("gw-1", capacity=10), gateway("gw-2", capacity=1000))
    states = {name: state(name, sessions=9) for name in ("gw-1", "gw-2")}
    facts = (uneven, states, dict.fromkeys(states, OLD))
    assert planned(facts, Strategy.ROLLING).waves
    with pytest.raises(Refused, match="gateway gw-1 has room for 10 sessions in each instance and needs 11"):
        planned(facts, Strategy.BLUE_GREEN)


def test_a_gateway_on_trial_or_with_another_executable_is_not_yet_on_the_release() -> None:
    upgraded, states, known_good = facts_of(3)
    impostor = NEW.model_copy(update={"executable": digest_of(b"something else")})
    states["gw-1"] = state("gw-1", on=NEW, trial="a", serving="b")
    states["gw-2"] = state("gw-2", on=impostor)
    states["gw-3"] = state("gw-3", on=NEW)
    plan = planned((upgraded, states, known_good), Strategy.ROLLING)
    assert [skip.gateway for skip in plan.skipped] == ["gw-3"]


def test_a_plan_keeps_its_digest_through_json() -> None:
    plan = planned(facts_of(4))
    assert Plan.model_validate_json(plan.model_dump_json()).digest == plan.digest


def test_a_changed_copy_of_a_plan_has_a_digest_and_figures_of_its_own() -> None:
    plan = planned(facts_of(4))
    before = (plan.digest, plan.wave_of)
    other = plan.model_copy(update={"waves": plan.waves[:1], "sessions": dict.fromkeys(plan.sessions, 7)})
    assert other.digest != before[0]
    assert other.wave_of != before[1]


def test_the_budget_of_errors_is_shared_out_over_the_waves() -> None:
    plan = planned(facts_of(16))
    assert plan.gates.budget.waves == len(plan.waves)


@pytest.mark.sweep
def test_of_ten_thousand_gateways_each_is_in_one_batch_that_starts_at_once() -> None:
    """How long it takes is measured by `./run bench fleet` (`plan_s`)."""
    limits = Limits(draining=10_000, switching=200, switching_per_domain=5)
    upgraded, states, known_good = facts_of(10_000, limits, groups=20)
    plan = planned((upgraded, states, known_good))
    cut = [batches(plan, wave) for wave in plan.waves]
    loads = {name: load_of(state) for name, state in states.items()}
    for part in [part for parts in cut for part in parts]:
        assert not waits_for_capacity(plan, part, loads)
        waiting = [plan.fleet.gateway(name) for name in part]
        assert next_to_start(waiting, (), (), at_once=50, per_domain=50) == part
    assert sorted(name for parts in cut for part in parts for name in part) == sorted(states)


def test_a_dead_fleet_cannot_show_anything_by_a_canary() -> None:
    upgraded, states, known_good = facts_of(2)
    upgraded = upgraded.model_copy(update={"limits": Limits(headroom=1.0)})
    dead = {name: state(name, sessions=0, life=InstanceState.FAILED) for name in states}
    with pytest.raises(Refused, match="no gateway that could change takes users now"):
        planned((upgraded, dead, known_good))
    assert planned((upgraded, dead, known_good), Strategy.ROLLING).waves
