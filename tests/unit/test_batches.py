"""Who may start now: within every limit, at any moment of any run."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import GatewayRef, Limits
from policies.model.plan import Strategy
from policies.model.plan_part import MOST_MEMBERS, Member, Part
from policies.planning.batches import batches, next_to_start
from policies.planning.parts import parted
from tests.unit.fleets import OLD, Facts, any_facts, fleet, gateway, planned, some_plan, state

strategies = st.sampled_from(Strategy)


@given(
    st.lists(st.sampled_from(["rack-1", "rack-2", "rack-3"]), min_size=1, max_size=MOST_MEMBERS),
    st.integers(1, 8),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_4_and_11_any_run_keeps_the_limits_and_ends_with_everyone_started_once(
    domains: list[str], at_once: int, per_domain: int, chance: Random
) -> None:
    batch = {f"gw-{n}": gateway(f"gw-{n}", domain=domain) for n, domain in enumerate(domains)}
    waiting, switching, starts = [*batch], list[str](), Counter[str]()
    while waiting or switching:
        short = {name for name in waiting if switching and chance.random() < 0.3}  # until somebody is done
        chosen = next_to_start(
            [batch[name] for name in waiting],
            [batch[name] for name in switching],
            short,
            at_once=at_once,
            per_domain=per_domain,
        )
        assert not short & {*chosen}
        assert chosen or switching, "nobody starts although nobody is in the way"
        starts.update(chosen)
        switching += chosen
        waiting = [name for name in waiting if name not in chosen]
        assert len(switching) <= at_once
        assert max(Counter(batch[name].domain for name in switching).values()) <= per_domain
        switching.remove(chance.choice(switching))
    assert starts == dict.fromkeys(batch, 1)


def test_whoever_waits_for_capacity_or_for_its_domain_keeps_nobody_else_waiting() -> None:
    first, second = gateway("gw-1", domain="rack-1"), gateway("gw-2", domain="rack-1")
    other = gateway("gw-3", domain="rack-2")
    limits = {"at_once": 2, "per_domain": 1}
    assert next_to_start([first, second, other], [], (), **limits) == ("gw-1", "gw-3")
    assert next_to_start([first, second, other], [], {"gw-1"}, **limits) == ("gw-2", "gw-3")
    assert next_to_start([second, other], [first], (), **limits) == ("gw-3",)
    assert next_to_start([second], [first, other], (), **limits) == ()


@given(any_facts(), strategies)
def test_parts_switch_side_by_side_only_where_no_domain_can_have_more_switching_than_it_may(
    facts: Facts, strategy: Strategy
) -> None:
    if plan := some_plan(facts, strategy):
        for wave, header in zip(plan.waves, parted(plan).header.waves, strict=True):
            busiest = max(Counter(plan.fleet.gateway(name).domain for name in wave.gateways).values())
            assert header.one_after_the_other is (busiest > plan.fleet.limits.switching_per_domain)


@given(any_facts(), strategies)
def test_9_and_10_a_part_of_a_wave_has_gateways_of_that_wave_and_of_no_other(
    facts: Facts, strategy: Strategy
) -> None:
    if plan := some_plan(facts, strategy):
        parts = parted(plan).parts
        for wave in plan.waves:
            mine = [m.gateway.name for part in parts if part.key.wave == wave.number for m in part.members]
            assert sorted(mine) == sorted(wave.gateways)


@given(any_facts(), strategies)
def test_a_part_is_what_whoever_reads_it_again_gets(facts: Facts, strategy: Strategy) -> None:
    """Its members are made without being validated once more; what they lacked would be seen here."""
    if plan := some_plan(facts, strategy):
        for part in parted(plan).parts:
            assert Part.model_validate_json(part.model_dump_json()) == part
            assert all(one == Member(**dict(one)) for one in part.members)
            assert all(one.gateway == GatewayRef(**dict(one.gateway)) for one in part.members)
            assert all(one.__dict__.keys() == Member.model_fields.keys() for one in part.members)
            assert all(one.gateway.__dict__.keys() == GatewayRef.model_fields.keys() for one in part.members)


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
    assert max(map(len, cut)) <= MOST_MEMBERS
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert len(cut) == -(-count // MOST_MEMBERS)


def test_a_batch_has_gateways_of_as_many_domains_as_it_can() -> None:
    members = [gateway(f"gw-{n}", domain=f"rack-{n // 50}") for n in range(100)]
    made = fleet(*members, limits=Limits(steps=("100%",), holdout="0", draining=1000))
    states = {g.name: state(g.name) for g in members}
    plan = planned((made, states, dict.fromkeys(states, OLD)), Strategy.ROLLING)
    for batch in batches(plan, plan.waves[0]):
        assert Counter(plan.fleet.gateway(name).domain for name in batch) == {"rack-0": 25, "rack-1": 25}
