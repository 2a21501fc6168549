"""Users whom deadlines end come back to log in: never more of them in a minute than the fleet says."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.drains import allowance
from policies.model.drain import DrainLimits
from policies.model.fleet import Limits
from policies.planning.stagger import deadlines
from tests.unit.fleets import gateway

MINUTE = timedelta(minutes=1)
EIGHT = timedelta(hours=8)
counts = st.lists(st.none() | st.integers(0, 400), min_size=1, max_size=60)
paces = st.builds(
    DrainLimits,
    batch=st.integers(1, 20),
    pause=st.sampled_from([7, 10, 30, 45, 90]).map(lambda s: timedelta(seconds=s)),
    forced=st.sampled_from([0, 5, 20, 100]),
    logins_per_minute=st.integers(200, 2000),
)


@given(counts, paces)
def test_in_no_minute_do_all_deadlines_together_end_more_than_the_fleet_allows(
    found: list[int | None], limits: DrainLimits
) -> None:
    assert Limits(drain=limits).drain == limits  # the fleet file would be accepted
    members = {f"gw-{n}": count for n, count in enumerate(found)}
    planned = deadlines([gateway(name, capacity=300) for name in members], members, EIGHT, limits)
    ended: list[tuple[timedelta, int]] = []
    for name, count in members.items():
        left, at = allowance(300 if count is None else count, limits), planned[name]
        while left > 0:  # each batch at its time, as many as may be ended
            ended.append((at, min(limits.batch, left)))
            left, at = left - limits.batch, at + limits.pause
    ended.sort()
    first, within = 0, 0
    for at, count in ended:
        within += count
        while ended[first][0] <= at - MINUTE:
            within -= ended[first][1]
            first += 1
        assert within <= limits.logins_per_minute


@given(counts, paces)
def test_no_deadline_is_earlier_than_the_fleet_promises_and_the_first_is_then(
    found: list[int | None], limits: DrainLimits
) -> None:
    members = {f"gw-{n}": count for n, count in enumerate(found)}
    planned = deadlines([gateway(name) for name in members], members, EIGHT, limits)
    assert planned.keys() == members.keys()
    assert min(planned.values()) == planned["gw-0"] == EIGHT


def test_a_fleet_whose_deadlines_end_nobody_has_one_deadline() -> None:
    members = {f"gw-{n}": 0 for n in range(100)}
    planned = deadlines([gateway(name) for name in members], members, EIGHT, DrainLimits())
    assert {*planned.values()} == {EIGHT}


def test_two_thousand_gateways_are_spread_over_hours_and_not_over_one_minute() -> None:
    members = {f"gw-{n}": 500 for n in range(2000)}  # 100 of each may be ended, at 30 a minute
    planned = deadlines([gateway(name) for name in members], members, EIGHT, DrainLimits())
    spread = max(planned.values()) - EIGHT
    assert spread == timedelta(seconds=99 * 200)  # 20 gateways at a time, 200 s each: 5.5 h
