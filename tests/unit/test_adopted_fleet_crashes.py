"""In an adopted fleet, gateways that crash after their wave take the release back by themselves."""

from datetime import timedelta

import pytest

from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.adoption import MARK
from policies.model.change import GatewayResult
from policies.model.plan import Plan, Strategy
from policies.model.verdict import Action, Cohorts
from policies.planning.cohorts import KEPT, cohorts_of
from tests.unit.fleets import NOON, facts_of, planned
from tests.unit.judged import START
from tests.unit.test_judge_failures import GATES

BAKE = GATES.baking(timedelta(hours=24))


def plan_of(*, adopted: bool) -> Plan:
    plan = planned(facts_of(24), Strategy.CANARY)
    mark = MARK if adopted else ""
    known = {n: one.model_copy(update={"version": one.version + mark}) for n, one in plan.known_good.items()}
    return plan.model_copy(update={"known_good": known})


def after(plan: Plan, waves: int, *, passed: int, left_out: frozenset[str] = frozenset()) -> Cohorts:
    """Return what is watched once so many waves are kept; all of them were promoted where `passed` is 0."""
    rows = [
        GatewayResult(gateway=name, wave=1, state=KEPT, slot="b", started=1.0, at=NOON)
        for wave in plan.waves[:waves]
        for name in wave.gateways
    ]
    return cohorts_of(plan, 0, rows, left_out, passed=passed)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_release_that_crashes_after_its_wave_goes_back_by_itself_while_gateways_are_unchanged(
    adopted: bool,
) -> None:
    """An adopted fleet waited for operators with most of its gateways unchanged and well."""
    plan = plan_of(adopted=adopted)
    cohorts = after(plan, 2, passed=2)
    unchanged = sum(len(wave.gateways) for wave in plan.waves[2:])
    assert (len(cohorts.control), cohorts.unchanged) == (0 if adopted else unchanged, unchanged)
    state, action = WindowState(), None
    for at in range(6):
        signs = {name: Sign(since=START + at, until=START + at) for name in cohorts.canary if at >= 3}
        seen = (START + at,) * len(cohorts.control or cohorts.canary)
        tick = Tick(at=START + at, signs={"restarted": signs}, seen={"restarted": seen})
        state, decision = fold_tick(BAKE, BAKE.window, cohorts, state, tick)
        action = decision.action
    assert action is Action.ROLL_BACK


def test_no_gateway_is_unchanged_once_all_are_promoted_or_in_quarantine() -> None:
    plan = plan_of(adopted=True)
    assert after(plan, len(plan.waves), passed=0).unchanged == 0
    others = frozenset(name for wave in plan.waves[2:] for name in wave.gateways)
    assert after(plan, 2, passed=2, left_out=others).unchanged == 0
