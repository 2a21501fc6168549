"""Waves that have passed are watched with their own failure budget, beside those that are not changed yet."""

import pytest

from policies.model.change import GatewayResult
from policies.model.plan import Strategy
from policies.model.verdict import Cohorts
from policies.planning.cohorts import cohorts_of
from tests.unit.fleets import NOON, facts_of
from tests.unit.fleets import planned as plan_of

PLAN = plan_of(facts_of(12), Strategy.CANARY)
FIRST, SECOND, *_ = [wave.gateways for wave in PLAN.waves]


def result(gateway: str, state: str) -> GatewayResult:
    return GatewayResult(
        gateway=gateway, wave=PLAN.wave_of[gateway], state=state, slot="b", started=1.0, at=NOON
    )


def watched(*results: GatewayResult) -> Cohorts:
    return cohorts_of(PLAN, 0, results, passed=1)


def targets(names: tuple[str, ...]) -> set[str]:
    return {PLAN.fleet.gateway(name).metrics_target for name in names}


@pytest.mark.parametrize("state", ["on trial", "kept", "set aside"])
def test_gateways_of_the_next_wave_are_neither_watched_as_passed_nor_compared_with(state: str) -> None:
    found = watched(*(result(name, "kept") for name in FIRST), *(result(name, state) for name in SECOND))
    assert set(found.canary) == targets(FIRST)
    assert found.control
    assert not targets((*FIRST, *SECOND)) & {*found.control}


def test_a_bake_does_not_judge_a_gateway_that_is_left_out_of_changes() -> None:
    """One that lost its power counted as failed on its release, and went back once it had power again."""
    kept = [result(name, "kept") for name in (*FIRST, *SECOND)]
    dead, *others = (*FIRST, *SECOND)
    found = cohorts_of(PLAN, 0, kept, {dead})
    assert {*found.canary} == {*found.expected} == targets(tuple(others))
    assert {*cohorts_of(PLAN, 0, kept).canary} == targets((dead, *others))


def test_a_gateway_that_is_left_out_while_its_change_goes_on_is_judged_to_the_end_of_that() -> None:
    kept = [result(name, "kept") for name in FIRST]
    assert {*cohorts_of(PLAN, 0, kept, {*FIRST}, passed=1).canary} == targets(FIRST)
    assert {*cohorts_of(PLAN, 1, kept, {*FIRST}).canary} == targets(FIRST)


def test_none_of_a_canary_that_has_passed_may_fail_alone() -> None:
    assert watched(*(result(name, "kept") for name in FIRST)).may_fail == 0


def test_gateways_that_failed_in_their_wave_count_against_what_may_fail_after_it() -> None:
    kept = [result(name, "kept") for name in (*FIRST, *SECOND)]
    budget = cohorts_of(PLAN, 0, kept, passed=2).may_fail
    less = cohorts_of(PLAN, 0, [*kept[:-1], result(SECOND[-1], "set aside")], passed=2).may_fail
    assert (budget, less) == (1, 0)
