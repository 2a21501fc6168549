"""What a group of gateways can carry while a change is under way."""

from hypothesis import given
from hypothesis import strategies as st

from policies.planning.capacity import sessions_on, shortage, takes_users
from policies.words.instance import InstanceState
from tests.unit.fleets import gateway, state

PAIR = [gateway("gw-1", capacity=100), gateway("gw-2", capacity=100)]


def test_living_gateways_with_room_are_not_short() -> None:
    assert shortage(PAIR, {"gw-1": 80, "gw-2": 80}, out=(), headroom=1.2) is None


def test_exactly_the_headroom_is_enough_and_one_session_more_is_not() -> None:
    five = [gateway("gw-1", capacity=6)]
    assert shortage(five, {"gw-1": 5}, out=(), headroom=1.2) is None
    assert shortage(five, {"gw-1": 6}, out=(), headroom=1.2) is not None


def test_a_gateway_that_takes_no_users_adds_no_capacity_but_its_sessions_count() -> None:
    assert shortage(PAIR, {"gw-1": 50, "gw-2": 50}, out=("gw-2",), headroom=1.2) == (
        "group main can carry 100 sessions and needs 120; gw-2 take no users"
    )


def test_sessions_that_cannot_be_counted_need_all_the_gateway_can_carry() -> None:
    assert shortage(PAIR, {"gw-1": 1, "gw-2": None}, out=(), headroom=2.0) == (
        "group main can carry 200 sessions and needs 202; sessions on gw-2 cannot be counted"
    )


def test_one_group_cannot_lend_its_room_to_another() -> None:
    gateways = [gateway("gw-1", group="east", capacity=10), gateway("gw-2", group="west", capacity=1000)]
    short = shortage(gateways, {"gw-1": 10, "gw-2": 0}, out=(), headroom=1.2)
    assert short == "group east can carry 10 sessions and needs 12"


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 50)), min_size=1, max_size=6))
def test_losing_a_gateway_or_a_count_never_makes_room(rows: list[tuple[int, int | None]]) -> None:
    gateways = [gateway(f"gw-{i}", capacity=capacity) for i, (capacity, _) in enumerate(rows)]
    sessions = {
        g.name: n if n is None else min(n, g.capacity) for g, (_, n) in zip(gateways, rows, strict=True)
    }
    if shortage(gateways, sessions, out=(), headroom=1.2) is not None:
        for lost in gateways:
            assert shortage(gateways, sessions, out=(lost.name,), headroom=1.2) is not None
            assert shortage(gateways, sessions | {lost.name: None}, out=(), headroom=1.2) is not None


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
