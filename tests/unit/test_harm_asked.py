"""Operators are asked once about each episode of harm on gateways whose wave has passed."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta

import pytest

from policies.harm_asked import HarmAsked
from policies.judge.tick import Sign, Tick
from policies.judge.window import GOOD_SCRAPES, WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts, Decision, GateReading, GateVerdict
from policies.status.awaited import finds_harm
from tests.unit.judged import START, policy
from tests.unit.test_judge_failures import GATES, NAMES, tick

DAY = timedelta(hours=24)
NOC: dict[str, str] = {"id": "noc-alerts", "kind": "alerts", "value": "ALERTS{$cohort}"}
BAKE = policy(NOC).baking(DAY)
COHORTS = Cohorts(canary=NAMES[:10], control=(), may_fail=1)
RING = COHORTS.model_copy(update={"control": NAMES[10:]})
WATCH, NEXT_WATCH = ("run", (1,)), ("run", (2,))
CLEARED = GOOD_SCRAPES + 1
"""Scrapes after which a hold has cleared and the next decision has shown it."""


def judged(gates: GatePolicy, cohorts: Cohorts, ticks: Iterable[Tick]) -> list[Decision]:
    state, decisions = WindowState(), list[Decision]()
    for one in ticks:
        state, decision = fold_tick(gates, gates.window, cohorts, state, one)
        state = WindowState.model_validate_json(state.model_dump_json())
        decisions.append(Decision.model_validate_json(decision.model_dump_json()))
    return decisions


def alerting(seconds: Collection[int], until: int, cohorts: Cohorts) -> list[Decision]:
    """Return what the judge says, second by second, of an alert that fires on one gateway in these."""
    signs = [
        {NAMES[0]: Sign(since=START + at, until=START + at)} if at in seconds else {} for at in range(until)
    ]
    ticks = (Tick(at=START + at, signs={"noc-alerts": on}) for at, on in enumerate(signs))
    return judged(BAKE, cohorts, ticks)


def questions(decisions: Iterable[Decision], asked: HarmAsked | None = None, watch: object = WATCH) -> int:
    """Return how often operators are asked, by a watch that reports each decision."""
    asked, times = asked or HarmAsked(), 0
    for decision in decisions:
        asked.see(decision, watch)
        if finds_harm(decision) and asked.is_news(decision):
            asked.add(decision)
            times += 1
    return times


def said(**verdicts: GateVerdict) -> Decision:
    """Return what a watch says in which these gates read so."""
    order = (GateVerdict.UNHEALTHY, GateVerdict.METRICS_UNAVAILABLE, GateVerdict.NOT_ENOUGH_DATA)
    worst = next((one for one in order if one in verdicts.values()), GateVerdict.HEALTHY)
    readings = tuple(GateReading(gate=gate, verdict=one, reason=gate) for gate, one in verdicts.items())
    action = Action.HOLD_FOR_HUMAN if worst is GateVerdict.UNHEALTHY else Action.CONTINUE
    return Decision(action=action, verdict=worst, reason="because", readings=readings)


BAD, WELL, FEW, BLIND = (
    GateVerdict.UNHEALTHY,
    GateVerdict.HEALTHY,
    GateVerdict.NOT_ENOUGH_DATA,
    GateVerdict.METRICS_UNAVAILABLE,
)


@pytest.mark.parametrize("cohorts", [COHORTS, RING], ids=["all promoted", "a ring"])
def test_operators_are_not_asked_again_because_harm_has_gone(cohorts: Cohorts) -> None:
    """While the hold cleared no reading had its verdict, and the reason itself counted as another cause."""
    decisions = alerting(range(3, 6), 20, cohorts)
    assert [finds_harm(one) for one in decisions[3 : 6 + GOOD_SCRAPES]] == [
        *[True] * (3 + GOOD_SCRAPES - 1),
        False,
    ]
    assert questions(decisions) == 1


def test_operators_are_asked_about_harm_of_which_only_the_clearing_is_reported() -> None:
    decisions = alerting(range(3, 4), 20, COHORTS)
    assert questions(decisions[4:]) == 1


@pytest.mark.parametrize("cohorts", [COHORTS, RING], ids=["all promoted", "a ring"])
@pytest.mark.parametrize(("pause", "times"), [(1, 1), (GOOD_SCRAPES - 1, 1), (CLEARED, 5), (60, 5)], ids=str)
def test_operators_are_asked_once_for_each_episode_of_harm_that_flaps(
    pause: int, times: int, cohorts: Cohorts
) -> None:
    """An episode ends when the hold has cleared; harm that comes back while it clears is the same one."""
    length = 2 + pause
    seconds = {3 + length * number + at for number in range(5) for at in range(2)}
    assert questions(alerting(seconds, 10 + 5 * length, cohorts)) == times


def test_a_gate_whose_health_is_not_proven_after_its_harm_asks_again_when_that_comes_back() -> None:
    well = dict.fromkeys(NAMES, (20, 0))
    ill = well | dict.fromkeys(NAMES[:10], (20, 10))
    spans = range(60, 80), range(150, 170)
    ticks = [
        tick(at, counts={"logins": ill if any(at in span for span in spans) else well}) for at in range(200)
    ]
    decisions = judged(GATES.baking(DAY), COHORTS, ticks)
    assert {one.verdict for one in decisions[100:150]} == {FEW}
    assert questions(decisions) == 2


def test_a_watch_that_has_just_begun_ends_no_harm_before_it_has_enough_data() -> None:
    """Operators passed the wave against it, or the history was cut: the same harm is no news."""
    asked = HarmAsked()
    asked.add(said(logins=BAD))
    assert questions([said(logins=FEW), said(logins=BAD)], asked, WATCH) == 0
    assert questions([said(logins=FEW), said(logins=BAD)], asked, NEXT_WATCH) == 0
    assert questions([said(logins=FEW), said(logins=BAD)], asked, NEXT_WATCH) == 1


@pytest.mark.parametrize(
    ("between", "times"),
    [
        (said(logins=WELL), 2),
        (said(logins=FEW), 2),
        (said(logins=WELL, pings=BLIND), 2),
        (said(logins=BLIND), 1),
        (said(logins=BLIND, pings=WELL), 1),
        (said(pings=BAD), 2),
        (Decision(action=Action.HOLD, verdict=FEW, reason="no gateway is watched"), 1),
        (Decision(action=Action.HOLD, verdict=BLIND, reason="nothing was read"), 1),
    ],
)
def test_silence_ends_no_harm(between: Decision, times: int) -> None:
    assert questions([said(logins=BAD), between, said(logins=BAD)]) == times


def test_harm_that_comes_back_asks_again_while_that_of_another_gate_lasts() -> None:
    pings = said(logins=WELL, pings=BAD)
    both = said(logins=BAD, pings=BAD)
    assert questions([pings, both, pings, both, both, said(logins=BAD, pings=WELL)]) == 3


def test_gates_that_were_asked_about_one_by_one_are_no_news_together() -> None:
    steps: Sequence[Decision] = (said(logins=BAD), said(logins=BLIND, pings=BAD), said(logins=BAD, pings=BAD))
    assert questions(steps) == 2


def test_operators_are_asked_once_about_hosts_that_reboot_again_and_again() -> None:
    panics = NAMES[:4]
    ticks = [tick(at, rebooted=panics if at in {3, 300} else ()) for at in (*range(5), *range(300, 500))]
    assert questions(judged(GATES.baking(DAY), COHORTS, ticks)) == 1


def test_a_question_that_was_not_written_down_is_asked_again() -> None:
    asked = HarmAsked()
    asked.add(said(logins=BAD, pings=BAD))
    asked.see(said(logins=WELL, pings=BAD), WATCH)
    asked.drop(said(logins=BAD, pings=BAD))
    assert asked.is_news(said(logins=WELL, pings=BAD))
