"""Machines that fail by themselves, and releases that make machines fail."""

from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Limits
from policies.model.plan import Plan, Strategy, Wave
from policies.planning.failure_budget import may_fail, may_fail_together
from tests.unit.fleets import facts_of, planned

PLAN = planned(facts_of(2))


def of(size: int, number: int = 2, share: str = "5%") -> tuple[Plan, Wave]:
    """A plan with a wave of so many gateways, as the budget sees it."""
    names = tuple(f"gw-{n}" for n in range(size))
    wave = Wave(number=number, gateways=names)
    fleet = PLAN.fleet.model_copy(update={"limits": Limits(failures=share)})
    return PLAN.model_copy(update={"fleet": fleet, "waves": (wave,)}), wave


shares = st.integers(0, 9999).map(lambda hundredths: f"{hundredths / 100:.2f}%")


@given(st.integers(1, 300), shares, st.integers(1, 3))
def test_never_may_all_fail_of_a_wave_of_several_or_of_a_first_one(
    size: int, share: str, number: int
) -> None:
    one_may = size == 1 and number > 1
    assert (
        may_fail(*of(size, number, share)) == 1 if one_may else 0 <= may_fail(*of(size, number, share)) < size
    )


@given(st.integers(1, 300), st.integers(1, 300), shares, shares, st.integers(1, 3))
def test_a_larger_wave_and_a_larger_share_never_have_a_smaller_budget(
    size: int, more: int, share: str, other: str, number: int
) -> None:
    low, high = sorted((share, other), key=lambda s: float(s[:-1]))
    assert may_fail(*of(size, number, low)) <= may_fail(*of(size, number, high))
    assert may_fail(*of(size, number, low)) <= may_fail(*of(size + more, number, low))


def test_of_a_canary_none_may_fail_whatever_the_share() -> None:
    for limits in (Limits(), Limits(failures="90%")):
        plan = planned(facts_of(10, limits))
        assert may_fail(plan, plan.waves[0]) == 0


def test_in_a_small_first_wave_none_may_fail_and_in_a_later_one_of_the_size_one_may() -> None:
    plan = planned(facts_of(16, Limits(holdout="0")), Strategy.ROLLING)
    assert [may_fail(plan, wave) for wave in plan.waves] == [0, 1, 1, 1]


def test_of_a_hold_out_of_one_gateway_that_one_may_fail() -> None:
    plan = planned(facts_of(12))
    assert (plan.waves[-1].holdout, len(plan.waves[-1].gateways)) == (True, 1)
    assert [may_fail(plan, wave) for wave in plan.waves] == [0, 1, 1, 1]


def test_waves_of_one_gateway_may_together_lose_one_and_not_all() -> None:
    plan, _ = of(1)
    ones = tuple(Wave(number=n, gateways=(f"gw-{n}",)) for n in range(1, 9))
    plan = plan.model_copy(update={"waves": ones})
    assert [may_fail_together(plan, upto) for upto in (0, 1, 2, 3, 8)] == [0, 0, 1, 1, 1]


def test_a_hold_out_of_one_adds_nothing_to_what_waves_of_several_may_lose_together() -> None:
    plan = planned(facts_of(12))
    assert [may_fail_together(plan, upto) for upto in (1, 2, 3, 4)] == [0, 1, 2, 2]


def test_exactly_the_share_may_fail_and_one_more_may_not() -> None:
    assert may_fail(*of(1000, share="0.7%")) == 7  # 0.007 * 1000 is 7.000000000000001 in floating point
    assert may_fail(*of(100, share="29%")) == 29  # and 0.29 * 100 is 28.999999999999996


def test_a_bad_day_of_a_thousand_stays_within_the_budget_and_six_per_cent_dead_do_not() -> None:
    dead, rebooting, silent, refusing = 10, 10, 10, 1
    assert dead + rebooting + silent + refusing <= may_fail(*of(1000)) < 60
