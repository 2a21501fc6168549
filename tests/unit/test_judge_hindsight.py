"""Replay, backtest, calibration, prediction, the advisory band, complaints and the bake."""

import json
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from policies.judge.complaints import Complaint, first_complaints, read_complaint, sign
from policies.judge.counts import Series
from policies.judge.gates.kind import Response
from policies.judge.offline.advisory import advise, bands, hour_of_week
from policies.judge.offline.backtest import ticks as ticks_of
from policies.judge.offline.predict import predict
from policies.judge.offline.replay import Placebo, calibrate, calmed, differences, replay
from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.errors import BadInput, NotAllowed
from policies.model.verdict import Action, Against, Cohorts
from tests.unit.judged import (
    CANARY,
    COHORTS,
    CONTROL,
    LOGINS,
    OLD,
    START,
    TARGET,
    counted,
    fold,
    policy,
    series,
)

HARD = {"id": "probe", "kind": "hard", "value": "probe{$cohort}", "fires": {"when": "equals"}}
KEY = b"shared between the desk and us"


def test_a_replay_under_the_same_policy_is_what_happened() -> None:
    ticks = [counted(t, (2, 1), (2, 0)) for t in range(40)]
    gates = policy()
    _, decisions = fold(gates, ticks)
    found = replay(gates, gates.window, COHORTS, ticks)
    assert found is not None
    assert found.decision == next(d for d in decisions if d.action is Action.ROLL_BACK)


def test_a_replay_tells_what_another_policy_would_have_done() -> None:
    ticks = [counted(t, (2, int(t % 3 == 0)), (2, 0)) for t in range(60)]
    strict, gentle = policy(), policy(LOGINS | {"action": "hold"})
    was = replay(strict, strict.window, COHORTS, ticks)
    would = replay(gentle, gentle.window, COHORTS, ticks)
    assert was is not None
    assert would is not None
    assert differences({"r-1": was}, {"r-1": would}) == (("r-1", Action.ROLL_BACK, would.decision.action),)
    assert replay(strict, strict.window, COHORTS, []) is None


def test_a_gate_the_record_does_not_know_promotes_nothing() -> None:
    ticks = [counted(t, (2, 0), (2, 0)) for t in range(60)]
    more = policy(LOGINS, LOGINS | {"id": "latency", "required": False})
    found = replay(more, more.window, COHORTS, ticks)
    assert found is not None
    assert found.decision.action is not Action.PROMOTE


def history(failing_from: float) -> dict[str, tuple[Series, ...]]:
    """Two minutes of Prometheus, in which the canary begins to fail at some second."""
    times = [START + t for t in range(-70, 120)]
    names = (CANARY, *CONTROL)
    good = {n: [(t, 2.0 * (t - START + 70)) for t in times] for n in names}
    bad = [(t, max(0.0, 2 * (t - START - failing_from))) for t in times]
    total = [
        *(series("attempts", n, good[n], outcome="ok") for n in names),
        series("attempts", CANARY, bad, outcome="bad"),
    ]
    return {
        'up{job="vpngw",$cohort}': tuple(series("up", n, [(t, 1.0) for t in times]) for n in names),
        "vpngw_build_info{$cohort}": tuple(
            series("vpngw_build_info", n, [(t, 1.0) for t in times], digest=TARGET if n == CANARY else OLD)
            for n in names
        ),
        "attempts{$cohort}": tuple(total),
        'attempts{outcome="bad",$cohort}': (total[-1],),
    }


def test_a_backtest_finds_the_second_at_which_it_would_have_rolled_back() -> None:
    gates = policy()
    ticks = list(ticks_of(gates, COHORTS, history(failing_from=5), START, START + 60))
    found = replay(gates, gates.window, COHORTS, ticks)
    assert found is not None
    assert found.decision.action is Action.ROLL_BACK
    assert 8 <= found.seconds <= 18
    assert sum(tick.counts["logins"][CANARY][1] for tick in ticks) == 2 * (60 - 5)


def placebo_windows(number: int, bad: float, seed: int) -> list[Placebo]:
    chance = random.Random(seed)

    def events(share: float) -> tuple[int, int]:
        return 4, sum(chance.random() < share for _ in range(4))

    return [
        Placebo(
            COHORTS,
            [
                Tick(
                    at=START + 3600 * n + t,
                    counts={"logins": {CANARY: events(bad), **{k: events(0.02) for k in CONTROL}}},
                )
                for t in range(40)
            ],
        )
        for n in range(number)
    ]


def test_a_calm_gate_may_roll_back_and_one_that_cries_wolf_may_only_hold() -> None:
    (calm,) = calibrate(policy(), placebo_windows(12, bad=0.02, seed=1))
    assert (calm.windows, calm.rollbacks, calm.may_roll_back) == (12, 0, True)
    assert calm.events == 12 * 40 * 4
    assert all(rate == pytest.approx(160 / 39 * 60) for rate in calm.hours.values())
    (wolf,) = calibrate(policy(), placebo_windows(12, bad=0.5, seed=2))
    assert wolf.rollbacks == 12
    assert not wolf.may_roll_back
    assert not calibrate(policy(), [])[0].may_roll_back
    assert calmed(policy(), [calm]) == policy()
    assert calmed(policy(), [wolf]).gates[0].action is Response.HOLD


def test_a_plan_is_told_when_its_traffic_cannot_decide_in_time_and_what_to_change() -> None:
    hour = {"minimum": "10m", "nominal": "20m", "extension": "10m", "cap": "60m"}
    gates = policy(window=hour, scrape="15s", fresh_within="45s")
    (busy,) = predict(gates, 30)
    assert busy.in_time
    assert busy.rollback_after is not None
    narrow = LOGINS | {"health": {"delta": 0.03}}
    (slow,) = predict(policy(narrow, window=hour, scrape="15s", fresh_within="45s"), 6)
    assert not slow.in_time
    assert "widen health.delta" in slow.advice
    (silent,) = predict(gates, 0)
    assert silent.healthy_after is None
    assert "without traffic" in silent.advice


def test_more_traffic_never_decides_later() -> None:
    gates = policy()
    times = [predict(gates, rate)[0].healthy_after for rate in (1, 6, 30, 120, 1000)]
    assert times == sorted((t for t in times if t is not None), reverse=True)


def weeks(number: int, at_hour: Sequence[float]) -> list[tuple[float, float]]:
    return [(START + 7 * 86400 * week, value) for week in range(number) for value in at_hour]


def test_an_unusual_hour_advises_against_starting_and_a_short_history_says_nothing() -> None:
    points = [(at, value + week) for week in range(5) for at, value in [(START + 604800 * week, 100.0)]]
    known = bands(points)
    again = START + 604800 * 6
    assert advise(known, again, 103, "logins").normal is True
    strange = advise(known, again, 300, "logins")
    assert strange.normal is False
    assert "start later" in strange.sentence
    assert advise(known, again + 7200, 300, "logins").normal is None
    assert advise(bands(weeks(3, [1.0])), again, 1, "logins").normal is None


def test_the_week_begins_on_monday() -> None:
    assert hour_of_week(4 * 86400) == 0
    assert hour_of_week(4 * 86400 - 1) == 167


def complaint(user: str = "ab" * 8, at: float = START) -> bytes:
    return json.dumps({"user": user, "gateway": "gw-1", "at": at}).encode()


def test_a_signed_complaint_is_read() -> None:
    body = complaint()
    at = int(START)
    signature = sign(KEY, at, "edge", body)
    assert read_complaint(KEY, "edge", body, str(at), signature, START + 10).gateway == "gw-1"


@pytest.mark.parametrize(
    ("at", "signature", "now"),
    [
        (str(int(START)), "00" * 32, START),
        (str(int(START)), sign(b"another key", int(START), "edge", complaint()), START),
        (str(int(START)), sign(KEY, int(START), "edge", complaint(at=1)), START),
        (str(int(START) + 1), sign(KEY, int(START), "edge", complaint()), START),
        (str(int(START)), sign(KEY, int(START), "edge", complaint()), START + 400),
        (str(int(START)), sign(KEY, int(START), "edge", complaint()), START - 400),
        (str(int(START)), sign(KEY, int(START), "core", complaint()), START),
        ("now", sign(KEY, int(START), "edge", complaint()), START),
        ("9" * 40, "00" * 32, START),
        (str(int(START)), "é", START),
    ],
)
def test_a_complaint_that_is_not_genuine_and_fresh_is_not_taken(at: str, signature: str, now: float) -> None:
    with pytest.raises(NotAllowed):
        read_complaint(KEY, "edge", complaint(), at, signature, now)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"user": "Bob"}', b"\xff", b"{" * 100_000])
def test_a_signed_message_that_is_no_complaint_is_refused(body: bytes) -> None:
    at = int(START)
    with pytest.raises((BadInput, NotAllowed)):
        read_complaint(KEY, "edge", body, str(at), sign(KEY, at, "edge", body), START)


def test_a_user_complains_once_a_window() -> None:
    said = [
        Complaint(user=u * 16, gateway="gw-1", at=at) for u, at in (("a", 10), ("a", 20), ("b", 30), ("c", 5))
    ]
    assert first_complaints(said, started=8, since=8, until=40) == {"gw-1": 2}
    assert first_complaints(said, started=8, since=15, until=40) == {"gw-1": 1}


def test_the_bake_goes_on_watching_asks_operators_and_rolls_back_on_a_hard_sign_only() -> None:
    gates = policy(LOGINS, HARD).baking(timedelta(hours=24))
    broken = [counted(t, (2, 2), (2, 0)) for t in range(30)]
    _, decisions = fold(gates, broken)
    assert decisions[-1].action is Action.HOLD_FOR_HUMAN
    down = {"probe": {CANARY: Sign(since=START, until=START + 30)}}
    _, decisions = fold(gates, [counted(30, (2, 0), (2, 0), signs=down)])
    assert decisions[-1].action is Action.ROLL_BACK


def test_the_bake_of_a_whole_fleet_asks_about_what_is_beyond_the_fleets_own_baseline() -> None:
    gates = policy(LOGINS, HARD).baking(timedelta(hours=1))
    everybody = Cohorts(canary=(CANARY, *CONTROL), control=())
    for bad, expected in ((0, {Action.CONTINUE}), (2, {Action.CONTINUE, Action.HOLD_FOR_HUMAN})):
        state, said = WindowState(), set()
        for t in range(30):
            state, decision = fold_tick(gates, gates.window, everybody, state, counted(t, (2, bad), (2, bad)))
            said.add(decision.action)
        assert said == expected
        assert decision.readings[0].against is Against.GUARD


def test_cohorts_of_a_backtest_may_leave_the_executables_open() -> None:
    gates = policy()
    open_ended = Cohorts(canary=(CANARY,), control=CONTROL)
    ticks = list(ticks_of(gates, open_ended, history(failing_from=1000), START, START + 30))
    assert ticks[-1].other == {}
    assert "identity" not in ticks[-1].blind
