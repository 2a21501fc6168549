"""Who may start now: within every limit, at any moment of any run."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Limits
from policies.model.plan import Plan, Progress, Strategy
from policies.planning.batches import LARGEST, batches, next_batch
from policies.planning.capacity import waits_for_capacity
from tests.unit.fleets import OLD, Facts, any_facts, facts_of, fleet, gateway, planned, some_plan, state

strategies = st.sampled_from(Strategy)


class Host:
    """The facts of a rollout as hosts would report them; `progress` reads them, nothing is remembered."""

    def __init__(self, plan: Plan, chance: Random) -> None:
        self.plan = plan
        self.chance = chance
        self.stage: dict[str, str] = {}
        self.starts: Counter[str] = Counter()
        self.passed = 0

    def progress(self) -> Progress:
        def at(stage: str) -> tuple[str, ...]:
            return tuple(name for name, found in self.stage.items() if found == stage)

        return Progress(
            passed=self.passed,
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
    host, limits, kills = Host(plan, chance), facts[0].limits, 20
    for _ in range(200):
        batch = next_batch(plan, host.progress())
        if kills and chance.random() < 0.3:
            kills -= 1
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
def test_10_nobody_starts_before_the_wave_before_has_passed(facts: Facts, strategy: Strategy) -> None:
    if plan := some_plan(facts, strategy):
        everyone = [name for wave in plan.waves for name in wave.gateways]
        for passed, wave in enumerate(plan.waves):
            switched = tuple(name for w in plan.waves[: passed + 1] for name in w.gateways)
            assert next_batch(plan, Progress(passed=passed, switched=switched)) == ()
            assert set(next_batch(plan, Progress(passed=passed), among=everyone)) <= set(wave.gateways)
        assert next_batch(plan, Progress(passed=len(plan.waves))) == ()


def test_nobody_starts_once_more_have_failed_than_may() -> None:
    limits = Limits(steps=("1", "100%"), holdout="0", switching=50, switching_per_domain=50)
    plan = planned(facts_of(41, limits))
    wave = plan.waves[1].gateways
    assert len(wave) == 40
    assert len(next_batch(plan, Progress(passed=1, failed=wave[:2]))) == 38
    assert next_batch(plan, Progress(passed=1, failed=wave[:3])) == ()


def test_old_instances_of_every_wave_count_where_the_fleet_says_how_many_may_drain() -> None:
    plan = planned(facts_of(9, Limits(draining=4, switching=9, switching_per_domain=9)))
    earlier = plan.waves[0].gateways + plan.waves[1].gateways
    assert len(next_batch(plan, Progress(passed=2, draining=earlier))) == 4 - len(earlier)
    assert len(next_batch(plan, Progress(passed=2, switched=earlier))) == 4


def test_a_gateway_compared_with_itself_waits_until_it_has_room_for_both_instances() -> None:
    busy = fleet(*(gateway(f"gw-{n}", capacity=100) for n in (1, 2)), limits=Limits(switching_per_domain=2))
    states = {g.name: state(g.name, sessions=10) for g in busy.gateways}
    plan = planned((busy, states, dict.fromkeys(states, OLD)), Strategy.BLUE_GREEN)
    assert set(next_batch(plan, Progress())) == {"gw-1", "gw-2"}
    assert next_batch(plan, Progress(sessions={"gw-1": 90})) == ("gw-2",)
    assert next_batch(plan, Progress(sessions={"gw-1": None})) == ("gw-2",)


@given(st.integers(1, 400), st.integers(1, 60))
def test_batches_hold_the_whole_wave_once_and_are_as_few_and_as_even_as_may_be(
    count: int, domains: int
) -> None:
    members = [gateway(f"gw-{n}", domain=f"rack-{n % domains}") for n in range(count)]
    made = fleet(*members, limits=Limits(steps=("100%",), holdout="0", draining=1000))
    states = {g.name: state(g.name) for g in members}
    plan = planned((made, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    cut = batches(plan, plan.waves[0])
    assert sorted(name for batch in cut for name in batch) == sorted(plan.waves[0].gateways)
    assert max(map(len, cut)) <= LARGEST
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert len(cut) == -(-count // LARGEST)


def test_a_batch_has_gateways_of_as_many_domains_as_it_can() -> None:
    members = [gateway(f"gw-{n}", domain=f"rack-{n // 50}") for n in range(100)]
    made = fleet(*members, limits=Limits(steps=("100%",), holdout="0", draining=1000))
    states = {g.name: state(g.name) for g in members}
    plan = planned((made, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    for batch in batches(plan, plan.waves[0]):
        assert Counter(plan.fleet.gateway(name).domain for name in batch) == {"rack-0": 25, "rack-1": 25}
