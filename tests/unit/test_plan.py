"""The planner's promises, as examples and as properties of any fleet.

The numbered properties are the invariants of the planner that apply to a fleet as `fleet.yaml`
knows it; the sixth (two gateways that are each other's spare) is kept by giving both one domain.
"""

from collections import Counter
from datetime import timedelta
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gates import GatePolicy
from policies.planning.plan import affected, next_batch, waits_for_capacity, way_back
from policies.planning.plan import plan as make_plan
from policies.words.errors import Refused
from policies.words.fleet import Fleet, Limits
from policies.words.instance import GatewayState, InstanceState
from policies.words.plan import Plan, Progress, ReleaseRef, Strategy
from policies.words.word import digest_of
from tests.unit.fleets import NEW, OLD, fleet, gateway, release, state

Facts = tuple[Fleet, dict[str, GatewayState], dict[str, ReleaseRef]]


def planned(
    facts: Facts,
    strategy: Strategy = Strategy.CANARY,
    seed: str = "seed",
    to: ReleaseRef = NEW,
) -> Plan:
    upgraded, states, known_good = facts
    return make_plan(
        upgraded,
        states,
        known_good,
        to,
        strategy,
        seed=seed,
        gates=GatePolicy(),
        trust_policy=digest_of(b"trust"),
    )


def facts_of(count: int, limits: Limits | None = None) -> Facts:
    """A fleet of one group and one domain whose gateways all run the old release with ten sessions."""
    names = [f"gw-{number}" for number in range(1, count + 1)]
    made = fleet(*(gateway(name) for name in names), limits=limits)
    return made, {name: state(name) for name in names}, dict.fromkeys(names, OLD)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Fleets of every mood: silent, dead, uncountable, already new, without a way back."""
    steps = st.sampled_from([("1", "25%", "100%"), ("10%", "50%", "100%"), ("2", "3"), ("100%",)])
    limits = Limits(
        steps=draw(steps),
        switching=draw(st.integers(1, 4)),
        switching_per_domain=draw(st.integers(1, 2)),
        draining=draw(st.integers(1, 8)),
        headroom=draw(st.sampled_from([1.0, 1.2, 2.0])),
    )
    gateways, states, known_good = [], {}, {}
    for number in range(draw(st.integers(1, 16))):
        name = f"gw-{number}"
        gateways.append(
            gateway(
                name,
                group=draw(st.sampled_from(["east", "west"])),
                domain=draw(st.sampled_from(["rack-1", "rack-2", "rack-3"])),
                capacity=draw(st.sampled_from([20, 1000])),
            )
        )
        mood = draw(st.sampled_from(["old"] * 8 + ["silent", "new", "dead", "uncounted", "no way back"]))
        if mood != "silent":
            states[name] = state(
                name,
                on=NEW if mood == "new" else OLD,
                sessions=draw(st.integers(0, 20)),
                life=InstanceState.FAILED if mood == "dead" else InstanceState.RUNNING,
                uncounted=mood == "uncounted",
            )
        if mood != "no way back":
            known_good[name] = OLD
    return fleet(*gateways, limits=limits), states, known_good


def some_plan(facts: Facts, strategy: Strategy) -> Plan | None:
    """The plan, or None when the planner refuses: a refusal keeps every promise about waves."""
    try:
        return planned(facts, strategy)
    except Refused:
        return None


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


@given(any_facts())
def test_3_no_wave_reaches_beyond_its_step_and_a_canary_goes_alone(facts: Facts) -> None:
    if (plan := some_plan(facts, Strategy.CANARY)) and plan.waves:
        eligible = sum(len(wave.gateways) for wave in plan.waves)
        allowed = {1, eligible}
        for step in facts[0].limits.steps:
            size = ceil(eligible * int(step[:-1]) / 100) if step.endswith("%") else int(step)
            allowed.add(min(size, eligible))
        reached = [sum(len(w.gateways) for w in plan.waves[: n + 1]) for n in range(len(plan.waves))]
        assert reached[0] == 1
        assert reached[-1] == eligible
        assert allowed <= set(reached)
        assert max(len(wave.gateways) for wave in plan.waves) <= facts[0].limits.draining
        assert len(plan.waves) <= len(allowed) + eligible // facts[0].limits.draining


class Host:
    """The facts of a rollout as hosts would report them; `progress` reads them, nothing is remembered."""

    def __init__(self, plan: Plan, chance: Random) -> None:
        self.plan = plan
        self.chance = chance
        self.stage: dict[str, str] = {}
        self.starts: Counter[str] = Counter()
        self.passed = 0

    def progress(self, *, held: bool = False) -> Progress:
        def at(stage: str) -> tuple[str, ...]:
            return tuple(name for name, found in self.stage.items() if found == stage)

        return Progress(
            passed=self.passed,
            held=held,
            switching=at("switching"),
            draining=at("draining"),
            switched=at("switched"),
        )

    def start(self, batch: tuple[str, ...]) -> None:
        for name in batch:
            self.stage[name] = "switching"
            self.starts[name] += 1

    def move_one_on(self) -> None:
        moving = [name for name, stage in self.stage.items() if stage != "switched"]
        if moving:
            name = self.chance.choice(moving)
            self.stage[name] = {"switching": "draining", "draining": "switched"}[self.stage[name]]
        wave = self.plan.waves[self.passed].gateways if self.passed < len(self.plan.waves) else ()
        if wave and all(self.stage.get(name, "switching") != "switching" for name in wave):
            self.passed += 1


@given(any_facts(), strategies, st.randoms(use_true_random=False))
def test_4_and_11_any_run_keeps_the_limits_and_ends_with_everyone_switched_once(
    facts: Facts, strategy: Strategy, chance: Random
) -> None:
    plan = some_plan(facts, strategy)
    if plan is None:
        return
    host, limits = Host(plan, chance), facts[0].limits
    for _ in range(200):
        batch = next_batch(plan, host.progress())
        if chance.random() < 0.3:
            batch = batch[: chance.randint(0, len(batch))]  # killed in the middle of starting the batch
        host.start(batch)
        now = host.progress()
        assert len(now.switching) <= limits.switching
        assert len(now.switching) + len(now.draining) <= limits.draining
        domains = Counter(plan.fleet.gateway(name).domain for name in now.switching)
        assert max(domains.values(), default=0) <= limits.switching_per_domain
        host.move_one_on()
    assert set(host.starts) == {name for wave in plan.waves for name in wave.gateways}
    assert set(host.starts.values()) <= {1}


@given(any_facts(), strategies)
def test_5_nobody_starts_in_a_group_that_cannot_carry_its_sessions(facts: Facts, strategy: Strategy) -> None:
    if (plan := some_plan(facts, strategy)) and plan.waves:
        everyone = tuple(g.name for g in plan.fleet.gateways)
        full = dict.fromkeys(everyone, 1)
        assert next_batch(plan, Progress(out=everyone, sessions=full)) == ()
        group = plan.fleet.gateway(plan.waves[0].gateways[0]).group
        assert waits_for_capacity(plan, Progress(out=everyone, sessions=full), group)


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


@given(any_facts(), strategies, st.randoms(use_true_random=False))
def test_9_a_gateway_that_drops_out_moves_no_other_into_an_earlier_wave(
    facts: Facts, strategy: Strategy, chance: Random
) -> None:
    if (plan := some_plan(facts, strategy)) and plan.waves:
        passed = chance.randrange(len(plan.waves))
        wave = plan.waves[passed].gateways
        lost = chance.choice(wave)
        batch = next_batch(plan, Progress(passed=passed, failed=(lost,)))
        assert set(batch) <= set(wave) - {lost}


@given(any_facts(), strategies)
def test_10_nobody_starts_before_the_wave_before_has_passed_or_while_held(
    facts: Facts, strategy: Strategy
) -> None:
    if plan := some_plan(facts, strategy):
        for passed, wave in enumerate(plan.waves):
            switched = tuple(name for w in plan.waves[: passed + 1] for name in w.gateways)
            assert next_batch(plan, Progress(passed=passed, switched=switched)) == ()
            assert set(next_batch(plan, Progress(passed=passed))) <= set(wave.gateways)
            assert next_batch(plan, Progress(passed=passed, held=True)) == ()
        assert next_batch(plan, Progress(passed=len(plan.waves))) == ()


@given(any_facts(), strategies, st.randoms(use_true_random=False))
def test_12_the_way_back_reverses_the_waves_and_takes_each_to_its_own_known_good(
    facts: Facts, strategy: Strategy, chance: Random
) -> None:
    upgraded, states, known_good = facts
    own = {name: release(f"1.{number}.0") for number, name in enumerate(sorted(known_good))}
    if plan := some_plan((upgraded, states, own), strategy):
        forwards = [name for wave in plan.waves for name in wave.gateways]
        touched = [name for name in forwards if chance.random() < 0.5]
        back = way_back(plan, touched)
        assert [name for name, _ in back] == touched[::-1]
        assert all(target == own[name] for name, target in back)


def test_a_canary_plan_of_sixteen_goes_one_then_a_quarter_then_everyone() -> None:
    assert [len(wave.gateways) for wave in planned(facts_of(16)).waves] == [1, 3, 12]


def test_no_wave_has_more_gateways_than_may_drain_at_once() -> None:
    plan = planned(facts_of(16, Limits(draining=5)))
    assert [len(wave.gateways) for wave in plan.waves] == [1, 3, 5, 5, 2]


def test_a_rolling_plan_takes_waves_of_one_size() -> None:
    assert [len(w.gateways) for w in planned(facts_of(16), Strategy.ROLLING).waves] == [4, 4, 4, 4]
    assert [len(w.gateways) for w in planned(facts_of(10), Strategy.ROLLING).waves] == [3, 3, 3, 1]
    assert [len(w.gateways) for w in planned(facts_of(4), Strategy.ROLLING).waves] == [1, 1, 1, 1]


def test_a_blue_green_plan_is_a_single_wave() -> None:
    assert [len(w.gateways) for w in planned(facts_of(5), Strategy.BLUE_GREEN).waves] == [5]


def test_the_canary_is_the_gateway_with_the_fewest_sessions() -> None:
    upgraded, states, known_good = facts_of(4)
    states["gw-3"] = state("gw-3", sessions=2)
    assert planned((upgraded, states, known_good)).waves[0].gateways == ("gw-3",)


def test_a_gateway_whose_sessions_are_unknown_goes_last() -> None:
    upgraded, states, known_good = facts_of(4)
    states["gw-1"] = state("gw-1", sessions=None)
    assert planned((upgraded, states, known_good)).waves[-1].gateways[-1] == "gw-1"


def test_the_seed_alone_decides_between_gateways_with_as_many_sessions() -> None:
    canaries = {planned(facts_of(8), seed=str(n)).waves[0].gateways for n in range(30)}
    assert len(canaries) > 3
    assert planned(facts_of(8), seed="x") == planned(facts_of(8), seed="x")


def test_a_canary_is_never_alone_in_its_group() -> None:
    lonely, other, third = gateway("gw-1", group="west"), gateway("gw-2"), gateway("gw-3")
    states = {
        "gw-1": state("gw-1", sessions=0),
        "gw-2": state("gw-2", sessions=5),
        "gw-3": state("gw-3", sessions=9),
    }
    plan = planned((fleet(lonely, other, third), states, dict.fromkeys(states, OLD)))
    assert plan.waves[0].gateways == ("gw-2",)


def test_a_canary_with_nobody_to_compare_is_refused_and_rolling_offered() -> None:
    with pytest.raises(Refused, match=r"second gateway in its group.*rolling"):
        planned(facts_of(1))
    assert planned(facts_of(1), Strategy.ROLLING).waves[0].gateways == ("gw-1",)


def test_a_dead_gateway_is_neither_a_canary_nor_anybody_to_compare_with() -> None:
    upgraded, states, known_good = facts_of(3)
    states["gw-2"] = state("gw-2", sessions=0, life=InstanceState.FAILED)
    assert planned((upgraded, states, known_good)).waves[0].gateways != ("gw-2",)
    states["gw-3"] = states["gw-2"].model_copy(update={"gateway": "gw-3"})
    with pytest.raises(Refused, match="second gateway"):
        planned((upgraded, states, known_good))
    assert len(planned((upgraded, states, known_good), Strategy.ROLLING).waves) == 3


def test_a_fleet_without_any_known_good_is_refused() -> None:
    upgraded, states, _ = facts_of(3)
    with pytest.raises(Refused, match="no known-good release to go back to"):
        planned((upgraded, states, {}))


def test_a_group_short_of_capacity_is_refused_with_its_figures() -> None:
    small = fleet(gateway("gw-1", capacity=10), gateway("gw-2", capacity=10))
    states = {name: state(name, sessions=10) for name in ("gw-1", "gw-2")}
    with pytest.raises(Refused, match="group main can carry 20 sessions and needs 24"):
        planned((small, states, dict.fromkeys(states, OLD)))


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


def test_people_read_whom_a_plan_touches_and_how_long_it_takes() -> None:
    upgraded, states, known_good = facts_of(4, Limits(drain_deadline=timedelta(minutes=30)))
    states["gw-1"] = state("gw-1", sessions=None)
    reach = affected(planned((upgraded, states, known_good)))
    assert (reach.users, reach.exposed, reach.uncounted) == (30, 20, ("gw-1",))
    assert reach.expected == timedelta(minutes=4 + 2 * 20)
    assert reach.longest == timedelta(minutes=40 + 2 * 60 + 30)


def test_a_thousand_gateways_are_planned_in_growing_waves() -> None:
    plan = planned(facts_of(1000, Limits(steps=("1", "5%", "25%", "100%"), draining=1000)))
    assert [len(wave.gateways) for wave in plan.waves] == [1, 49, 200, 750]
