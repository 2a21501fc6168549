"""Waves that have passed are watched with their own failure budget, beside those that are not changed yet."""

import pytest

from policies.judge.failures import excess
from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_reading, fold_tick
from policies.model.change import GatewayResult
from policies.model.fleet import Limits
from policies.model.plan import Strategy
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict
from policies.planning.cohorts import cohorts_of
from policies.planning.failure_budget import may_fail as budget_of
from tests.unit.fleets import NOON, facts_of
from tests.unit.fleets import planned as plan_of
from tests.unit.judged import OLD, START, policy, reading, series
from tests.unit.test_judge_failures import GATES as FAILING

PLAN = plan_of(facts_of(12), Strategy.CANARY)
FIRST, SECOND, THIRD, *_ = [wave.gateways for wave in PLAN.waves]


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
    sick = PLAN.fleet.gateway(SECOND[0]).metrics_target
    now = cohorts_of(PLAN, 0, kept, passed=2)
    before = cohorts_of(PLAN, 0, [*kept[:-1], result(SECOND[-1], "set aside")], passed=2)
    assert (excess((sick,), now), excess((sick,), before)) == (0, 1)


def test_a_gateway_that_fails_alone_after_its_wave_is_counted_once_when_the_ledger_has_it() -> None:
    """With a budget of 4, the third gateway that failed took a good release back."""
    plan = plan_of(facts_of(400, Limits(draining=400)), Strategy.CANARY)
    passed = [name for wave in plan.waves[:2] for name in wave.gateways]
    state, out, decisions = WindowState(started=START - 1, ticks=1), set[str](), list[Decision]()
    may_fail = sum(budget_of(plan, wave) for wave in plan.waves[:2])
    assert may_fail > 1
    for at in range(2 * (may_fail + 1)):
        results = [
            GatewayResult(
                gateway=name,
                wave=plan.wave_of[name],
                state="set aside" if name in out else "kept",
                started=1.0,
                at=NOON,
            )
            for name in passed
        ]
        cohorts = cohorts_of(plan, 0, results, passed=2)
        sick = plan.waves[1].gateways[at // 2]
        signs = {plan.fleet.gateway(sick).metrics_target: Sign(since=START + at, until=START + at)}
        seen = Tick(at=START + at, signs={"restarted": {} if at % 2 else signs})
        state, decision = fold_tick(FAILING, FAILING.window, cohorts, state, seen)
        decisions.append(decision)
        if at % 2:
            out.add(sick)
    first = next(number for number, one in enumerate(decisions) if one.action is Action.ROLL_BACK)
    assert len(decisions[first].failed) == may_fail + 1
    assert f"{may_fail + 1} gateways have failed by themselves" in decisions[first].reason


def test_a_wave_counts_failures_of_earlier_waves_against_what_those_may_lose() -> None:
    """R6: in the hold-out wave of one gateway, one of 399 others took a good release back from all."""
    plan = plan_of(facts_of(400, Limits(draining=400)), Strategy.CANARY)
    last = plan.waves[-1]
    sick, *_ = plan.waves[2].gateways
    results = [
        GatewayResult(
            gateway=name, wave=number, state="on trial" if number == last.number else "kept", at=NOON
        )
        for name, number in plan.wave_of.items()
    ]
    label = plan.fleet.gateway(sick).metrics_target
    found = cohorts_of(plan, last.number, results)
    passed = cohorts_of(plan, 0, results, passed=last.number - 1)
    assert (last.holdout, len(last.gateways), found.may_fail) == (True, 1, 1)
    assert found.may_fail_before == passed.may_fail > 1
    assert excess((label, *found.canary), found) == 0
    without = [one for one in results if one.gateway != sick]
    again = cohorts_of(
        plan, last.number, [*without, GatewayResult(gateway=sick, wave=3, state="set aside", at=NOON)]
    )
    assert again.set_aside == (label,)
    assert max(excess((), again), excess((label,), again)) <= 0


def seen_running(runs: dict[str, str]) -> Decision:
    """Return what the watch over the first wave decides where some gateways run these digests.

    The ledger has no result of the second wave yet: the watch began this slice before its switch.
    """
    gates, state, cohorts = policy(), WindowState(), watched(*(result(name, "kept") for name in FIRST))
    digests = cohorts.expected | {PLAN.fleet.gateway(name).metrics_target: runs[name] for name in runs}
    for second in range(round(gates.fresh_within.total_seconds()) + 2):
        at = START + second
        claims = [
            series("vpngw_build_info", one, [(at, 1.0)], digest=digest) for one, digest in digests.items()
        ]
        found = {
            gates.identity.value: claims,
            gates.presence: [series("up", one, [(at, 1.0)]) for one in digests],
        }
        state, _, decision = fold_reading(gates, gates.window, cohorts, state, reading(at, found))
    return decision


def test_a_gateway_that_the_next_wave_has_just_switched_is_not_mistaken_for_one_that_was_tampered_with() -> (
    None
):
    """The report of a promoted upgrade showed a conflict that its runbook calls a host broken into."""
    assert all(one.gate != "identity" for one in seen_running({SECOND[0]: PLAN.release.executable}).readings)


@pytest.mark.parametrize(("gateway", "digest"), [(SECOND[0], OLD), (THIRD[0], PLAN.release.executable)])
def test_what_no_wave_under_way_puts_on_a_gateway_is_a_conflict_where_waves_have_passed(
    gateway: str, digest: str
) -> None:
    found = seen_running({gateway: digest})
    (identity,) = [one for one in found.readings if one.gate == "identity"]
    assert identity.verdict is GateVerdict.CONFLICTING
    assert f"{PLAN.fleet.gateway(gateway).metrics_target} runs {digest[:19]}" in identity.reason
