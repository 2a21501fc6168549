"""The bench measures the product: its short path and the whole fold decide at the same scrape."""

import json
from pathlib import Path

import pytest

from activities.files import load
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts
from tests.bench.bench_judge import PAST, POLICY, Ours, _decide, _rows, main
from tests.bench.judge_fleet import COURSES, Course, FleetJob, _run
from tests.bench.judge_traces import HEALTHY, SCRAPE, Scenario, draw

COHORTS = Cohorts(canary=("canary",), control=("control",))


@pytest.mark.parametrize("drop", [0.8, 0.985])
def test_the_bench_and_the_product_decide_at_the_same_scrape(drop: float) -> None:
    shipped = load(POLICY, GatePolicy)
    gates = shipped.model_copy(update={"gates": shipped.gates[:1], "min_controls": 1})
    for rows in _rows(draw(Scenario("x", drop=drop, onset=20), 30, 5, seed=4)):
        how, decided = _decide(Ours.shipped(), rows)
        state = WindowState()
        for number, counts in enumerate(rows):
            seen = {
                "canary": (counts.canary, counts.canary_bad),
                "control": (counts.control, counts.control_bad),
            }
            tick = Tick(
                at=1000.0 + SCRAPE * number,
                counts={"connect-success": seen},
                baseline={"connect-success": (PAST, round(PAST * (1 - HEALTHY)))},
            )
            state, decision = fold_tick(gates, gates.window, COHORTS, state, tick)
            if decision.action in {Action.ROLL_BACK, Action.PROMOTE}:
                break
        assert (decision.action is Action.ROLL_BACK) == (how == "rolled back")
        assert abs(number - decided) <= (0 if how == "rolled back" else 1)


def test_the_benchs_json_has_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "judge.json"
    assert main(report, ["smoke"]) == 0
    found = json.loads(report.read_text())
    assert {"late_promoted", "subtle_turned_round", "false", "outage"} <= set(found["fleet"])
    rules = found["rules"]
    assert set(rules) == {
        "penstock", "Fisher 5m", "Argo 5m/3", "Argo 1m/3", "Flagger 1m/5", "Flagger 1m/10", "Kayenta-like",
    }  # fmt: skip
    wanted = {"false_rollback", "delay_p50_s", "delay_p95_s", "missed", "shared_outage"}
    assert all(wanted <= set(rule) for rule in rules.values())
    assert "drop to 0.80 at 10 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    "course", [one for one in COURSES if one.from_wave > 1], ids=lambda course: course.promise
)
def test_a_release_that_fails_everywhere_from_the_second_wave_on_is_promoted_in_no_rollout(
    course: Course,
) -> None:
    """D4; `./run bench judge` plays two thousand."""
    assert course.bad == 0.12
    assert {end.how for end in _run(FleetJob(course, runs=40, seed=4))} <= {"turned round", "held"}
