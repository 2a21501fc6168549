"""What a group of gateways can carry while a change is under way."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Gateway, Limits
from policies.model.instance import InstanceState
from policies.model.plan import Progress, Strategy
from policies.planning.capacity import (
    crowded,
    observed,
    sessions_on,
    shortages,
    takes_users,
    waits_for_capacity,
)
from tests.unit.fleets import Facts, any_facts, fleet, gateway, some_plan, state

PAIR = [gateway("gw-1", capacity=100), gateway("gw-2", capacity=100)]


def short(
    gateways: list[Gateway],
    sessions: Mapping[str, int | None],
    out: tuple[str, ...] = (),
    headroom: float = 1.2,
) -> list[str]:
    return [*shortages(fleet(*gateways, limits=Limits(headroom=headroom)), sessions, out).values()]


def test_living_gateways_with_room_are_not_short() -> None:
    assert short(PAIR, {"gw-1": 80, "gw-2": 80}) == []


def test_exactly_the_headroom_is_enough_and_one_session_more_is_not() -> None:
    six = [gateway("gw-1", capacity=6)]
    assert short(six, {"gw-1": 5}) == []
    assert short(six, {"gw-1": 6}) == ["group main can carry 6 sessions and needs 8"]


def test_a_gateway_that_takes_no_users_adds_no_capacity_but_its_sessions_count() -> None:
    assert short(PAIR, {"gw-1": 50, "gw-2": 50}, out=("gw-2",)) == [
        "group main can carry 100 sessions and needs 120; gw-2 take no users"
    ]


def test_sessions_that_cannot_be_counted_need_all_the_gateway_can_carry() -> None:
    assert short(PAIR, {"gw-1": 1, "gw-2": None}, headroom=2.0) == [
        "group main can carry 200 sessions and needs 202; sessions on gw-2 cannot be counted"
    ]


def test_one_group_cannot_lend_its_room_to_another() -> None:
    gateways = [gateway("gw-1", group="east", capacity=10), gateway("gw-2", group="west", capacity=1000)]
    assert short(gateways, {"gw-1": 10, "gw-2": 0}) == ["group east can carry 10 sessions and needs 12"]


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 50)), min_size=1, max_size=6))
def test_losing_a_gateway_or_a_count_never_makes_room(rows: list[tuple[int, int | None]]) -> None:
    gateways = [gateway(f"gw-{i}", capacity=capacity) for i, (capacity, _) in enumerate(rows)]
    sessions = {
        g.name: n if n is None else min(n, g.capacity) for g, (_, n) in zip(gateways, rows, strict=True)
    }
    if short(gateways, sessions):
        for lost in gateways:
            assert short(gateways, sessions, out=(lost.name,))
            assert short(gateways, sessions | {lost.name: None})


@given(any_facts(), st.sampled_from(Strategy), st.data())
def test_what_is_asked_before_a_batch_is_what_is_true_of_the_whole_fleet(
    facts: Facts, strategy: Strategy, data: st.DataObject
) -> None:
    if plan := some_plan(facts, strategy):
        names = [g.name for g in plan.fleet.gateways]
        out = data.draw(st.lists(st.sampled_from(names), unique=True))
        live = data.draw(st.dictionaries(st.sampled_from(names), st.none() | st.integers(0, 30)))
        whole = shortages(plan.fleet, plan.sessions | live, out)
        progress = Progress(out=tuple(out), sessions=live)
        for group in plan.fleet.groups:
            assert waits_for_capacity(plan, progress, group) == whole.get(group)


def test_what_was_just_read_replaces_what_was_known_of_the_same_gateways_only() -> None:
    before = Progress(out=("gw-1", "gw-9"), sessions={"gw-1": 5, "gw-9": 3})
    now = observed(before, {"gw-1": state("gw-1", sessions=7), "gw-2": None})
    assert now.out == ("gw-2", "gw-9")
    assert now.sessions == {"gw-1": 7, "gw-2": None, "gw-9": 3}


def test_each_of_two_instances_needs_addresses_and_capacity_for_all_users() -> None:
    roomy = gateway("gw-1", capacity=1000)
    assert crowded(roomy, 400, headroom=1.2) is None
    assert crowded(roomy, 500, headroom=1.2) == (
        "gateway gw-1 has room for 509 sessions in each instance and needs 600"
    )
    assert "cannot be counted" in (crowded(roomy, None, headroom=1.0) or "")


def test_sessions_are_counted_over_every_running_instance_of_a_gateway() -> None:
    assert sessions_on(state("gw-1", sessions=7, draining=3)) == 10


def test_one_instance_that_cannot_be_counted_makes_the_gateway_unknown() -> None:
    assert sessions_on(state("gw-1", sessions=7, uncounted=True)) is None
    assert sessions_on(None) is None


def test_a_gateway_takes_users_only_while_its_serving_instance_runs() -> None:
    assert takes_users(state("gw-1"))
    assert not takes_users(state("gw-1", life=InstanceState.FAILED))
    assert not takes_users(state("gw-1", serving=None))
    assert not takes_users(None)
