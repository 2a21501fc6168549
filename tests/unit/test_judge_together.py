"""With no gateway left unchanged, a sign that begins on a third of all is decided by operators."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from policies.judge.counts import Series
from policies.judge.window import WindowState, fold_reading, fold_tick
from policies.model.fleet import Automation
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict
from policies.status.awaited import finds_harm, rolls_back_by_itself
from tests.unit.judged import START, reading, series
from tests.unit.test_judge_failures import GATES, NAMES, tick

BAKE = GATES.baking(timedelta(hours=24))
SCRAPE = BAKE.scrape.total_seconds()
HOURS = 10 * 3600
"""Seconds of bake without any sign."""


def promoted(count: int = 20, may_fail: int = 1) -> Cohorts:
    return Cohorts(canary=NAMES[:count], control=(), may_fail=may_fail)


def watch(
    cohorts: Cohorts, signs: Mapping[int, tuple[str, ...]], ticks: int, policy: GatePolicy = BAKE
) -> list[Decision]:
    """Return the decisions of so many ticks, hours after the promotion; signs by tick."""
    state, decisions = WindowState(), []
    quiet = [tick(at) for at in range(3)]
    for one in (*quiet, *(tick(HOURS + at, signs.get(at, ())) for at in range(ticks))):
        state = WindowState.model_validate_json(state.model_dump_json())
        state, decision = fold_tick(policy, policy.window, cohorts, state, one)
        decisions.append(decision)
    return decisions[len(quiet) :]


@pytest.mark.parametrize("count", [7, 20])
def test_a_sign_that_begins_on_a_third_of_all_asks_operators_and_names_no_gateway_as_failed(
    count: int,
) -> None:
    """An outage of the login servers took a good release back from the whole fleet."""
    decisions = watch(promoted(), dict.fromkeys(range(5), NAMES[:count]), 5)
    assert {(one.action, one.verdict) for one in decisions} == {(Action.HOLD_FOR_HUMAN, GateVerdict.HARD)}
    assert {one.failed for one in decisions} == {()}
    assert finds_harm(decisions[-1])
    assert not any(rolls_back_by_itself(decisions[-1], automation) for automation in Automation)
    assert f"and on {count - 1} more of 20 together, with none left unchanged" in decisions[-1].reason


def test_gateways_that_recover_last_of_all_are_not_blamed_for_that() -> None:
    signs = dict.fromkeys(range(3), NAMES) | dict.fromkeys(range(3, 9), NAMES[:4])
    decisions = watch(promoted(), signs, 12)
    assert Action.ROLL_BACK not in {one.action for one in decisions}
    assert {one.failed for one in decisions} == {()}


def test_fewer_than_a_third_and_more_than_may_fail_are_the_releases_fault_as_before() -> None:
    decisions = watch(promoted(), {1: NAMES[:6]}, 2)
    assert [one.action for one in decisions] == [Action.CONTINUE, Action.ROLL_BACK]
    assert decisions[-1].verdict is GateVerdict.HARD


def test_gateways_that_fail_one_after_the_other_are_not_together() -> None:
    decisions = watch(promoted(), {at: (NAMES[at],) for at in range(8)}, 8)
    assert [one.action for one in decisions[:2]] == [Action.CONTINUE, Action.ROLL_BACK]


def test_a_gateway_that_fails_beside_those_that_recover_late_fails_by_itself() -> None:
    signs = dict.fromkeys(range(3), NAMES[:10]) | {3: NAMES[:4], 4: (*NAMES[:4], NAMES[15])}
    decisions = watch(promoted(), signs, 5)
    assert (decisions[-1].action, decisions[-1].failed) == (Action.HOLD_FOR_HUMAN, (NAMES[15],))


def test_of_two_gateways_that_fail_together_the_release_is_taken_back() -> None:
    decisions = watch(promoted(2), {1: NAMES[:2]}, 2)
    assert decisions[-1].action is Action.ROLL_BACK


def test_in_a_wave_without_control_a_sign_on_all_takes_the_release_back_as_before() -> None:
    decisions = watch(promoted(), {1: NAMES}, 2, GATES)
    assert decisions[-1].action is Action.ROLL_BACK


@pytest.mark.parametrize(("restarting", "ends"), [(20, Action.HOLD_FOR_HUMAN), (2, Action.ROLL_BACK)])
def test_a_sign_waits_until_each_gateway_was_seen_since_it_began(restarting: int, ends: Action) -> None:
    """Gateways are not scraped at one moment: the first two of all looked like two of twenty."""
    cohorts, state, actions = promoted(), WindowState(), list[Action]()
    restart = 6.92 * SCRAPE
    for number in range(12):
        at = START + number * SCRAPE
        found: dict[str, list[Series]] = {BAKE.presence: [], "started{$cohort}": []}
        for place, name in enumerate(NAMES):
            scraped = at - SCRAPE * place / len(NAMES)
            started = 900.0 if place < restarting and scraped - START >= restart else 100.0
            found[BAKE.presence].append(series("up", name, [(scraped, 1.0)]))
            found["started{$cohort}"].append(series("started", name, [(scraped, started)]))
        state, _, decision = fold_reading(BAKE, BAKE.window, cohorts, state, reading(at, found))
        actions.append(decision.action)
    assert actions.index(ends) <= 8
    assert {Action.HOLD_FOR_HUMAN, Action.ROLL_BACK} & {*actions} == {ends}
