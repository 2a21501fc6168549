"""Drills: what a run came to follows from its numbers, and a chart of runs needs no colours."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from deploy.lab import drills as lab_drills
from deploy.lab import synapse
from deploy.lab.drills import PLAYS
from orchestrator.charts.drills import HEIGHT, WIDTH, drill_chart
from orchestrator.words.drills import row_line, run_line
from policies.drills import DRILLS, require_genuine, rows
from policies.model.drill import (
    MOST_STEPS,
    DrillOutcome,
    DrillPast,
    DrillPoint,
    DrillReport,
    DrillRun,
    DrillStanding,
    DrillStep,
)
from policies.model.errors import Conflict, Unavailable, Unknown

BEGAN = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def report(**changed: Any) -> DrillReport:
    said = {
        "name": "crash",
        "began": BEGAN.isoformat(),
        "budget": 30.0,
        "steps": [{"what": "decided", "seconds": 12.0}],
    }
    return DrillReport.model_validate(said | changed)


def past(*reports: DrillReport) -> DrillPast:
    """Return what the ledger would have of these, the newest first."""
    last = reports[0]
    run = DrillRun(report=last, outcome=last.outcome, seconds=last.seconds, person="ada", recorded=last.began)
    points = tuple(
        DrillPoint(
            began=one.began,
            place=one.place,
            seconds=one.seconds,
            budget=one.budget,
            outcome=one.outcome,
            person="ada",
        )
        for one in reports
    )
    return DrillPast(last=run, points=points, count=len(points))


def test_every_drill_that_is_named_is_played() -> None:
    assert set(PLAYS) == set(DRILLS)


class Nowhere:
    """Stands for a lab, its door and its stage, where nothing is built."""

    def __init__(self, *_: object) -> None:
        self.counted = iter(({"lost": 2}, {"lost": 3}))
        self.own_losses = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def open(self) -> "Nowhere":
        return self

    def figures(self) -> dict[str, int]:
        return next(self.counted)


def test_what_goes_wrong_in_the_middle_is_a_result_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def gets_nowhere(_: object) -> list[DrillStep]:
        raise Unavailable("the lease of [b]gw-1[/b]\nnever ended")

    for name in ("lab", "Door", "Stage"):
        monkeypatch.setattr(lab_drills, name, Nowhere)
    monkeypatch.setitem(PLAYS, "crash", gets_nowhere)
    file = tmp_path / "crash.json"
    assert lab_drills.main(["run", "crash", "--json", str(file)]) == 1
    said = json.loads(file.read_text())
    assert said.pop("passed") is False
    kept = DrillReport.model_validate(said)
    assert (kept.outcome, kept.sessions_lost) == (DrillOutcome.FAILED, 1)
    assert kept.failure == "Unavailable: the lease of [b]gw-1[/b] never ended"
    assert "[b]gw-1[/b]" in capsys.readouterr().out, "it is text, also on a terminal"
    require_genuine(kept, datetime.now(UTC))


def test_a_drill_whose_homeserver_is_missing_says_so_in_a_sentence_and_builds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def builds(*_: object) -> Nowhere:
        raise AssertionError("a lab was built")

    monkeypatch.setattr(lab_drills, "lab", builds)
    (tmp_path / "file").touch()
    monkeypatch.setattr(synapse, "FOLDER", tmp_path / "file" / "synapse")
    with pytest.raises(Unavailable, match=r"^Synapse cannot be installed: .*; where there is a network: "):
        lab_drills.main(["run", "rollback-by-chat"])


def steps(*seconds: float) -> tuple[DrillStep, ...]:
    return tuple(DrillStep(what="a step", seconds=one) for one in seconds)


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"steps": steps(30.0)}, DrillOutcome.PASSED),
        ({"steps": steps(30.1)}, DrillOutcome.OVER_BUDGET),
        (
            {"steps": steps(31.0, 3.0)},
            DrillOutcome.OVER_BUDGET,
        ),  # as it happened, not as it was told
        ({"sessions_lost": 1}, DrillOutcome.FAILED),
        ({"failure": "nobody was told"}, DrillOutcome.FAILED),
        ({"steps": ()}, DrillOutcome.FAILED),
    ],
)
def test_what_a_run_came_to_follows_from_its_numbers(changed: Any, outcome: DrillOutcome) -> None:
    assert report(**changed).outcome is outcome


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": [{"what": "x", "seconds": seconds}]}
        for seconds in (-0.1, float("nan"), float("inf"), 86_401, "3", True, None)
    ]
    + [{"steps": [{"what": what, "seconds": 1.0}]} for what in ("", " ", "a\x00", "x" * 201, "\ud800", 7)]
    + [{"steps": [{"what": "x", "seconds": 1.0}] * (MOST_STEPS + 1)}]
    + [{"name": name} for name in ("", "Crash", "../x", "a" * 64, "<b>")]
    + [{"place": place} for place in ("", "my lab", "<b>")]
    + [{"budget": budget} for budget in (0, -1, float("nan"), "30")]
    + [{"sessions_lost": lost} for lost in (-1, 1.5, "some", 10_000_001)]
    + [{"failure": why} for why in ("", "x" * 501, "\x00")]
    + [{"began": began} for began in ("yesterday", "2026-11-01T02:00:00")]
    + [{"passed": True}],
    ids=repr,
)
def test_what_is_no_result_is_refused(changed: Any) -> None:
    with pytest.raises(ValidationError):
        report(**changed)


def test_nobody_passes_with_a_larger_budget_or_a_drill_of_their_own() -> None:
    require_genuine(report(), BEGAN)
    with pytest.raises(Conflict, match="here users have to be safe within 30 s"):
        require_genuine(report(budget=300.0), BEGAN)
    with pytest.raises(Unknown, match="there is no drill easy; there are bad-logins"):
        require_genuine(report(name="easy"), BEGAN)


@pytest.mark.parametrize(
    "began", [BEGAN + timedelta(minutes=6), "1969-12-31T00:00:00Z", "0001-01-01T00:00:00+14:00"]
)
def test_what_began_when_it_cannot_have_begun_is_refused(began: Any) -> None:
    with pytest.raises(Conflict, match="set the clock of the host where it was rehearsed"):
        require_genuine(report(began=began), BEGAN)


def test_what_needs_somebody_stands_first_and_never_is_not_fine() -> None:
    found = rows(
        {
            "crash": past(report()),
            "engine-killed": past(report(name="engine-killed", budget=60.0, failure="it never came back")),
            "disk-full": past(report(name="disk-full", budget=60.0, steps=steps(61.0))),
            "of-long-ago": past(report(name="of-long-ago", sessions_lost=2)),
        }
    )
    assert [row.name for row in found[:2]] == ["engine-killed", "disk-full"]
    assert {row.standing for row in found[2:-2]} == {DrillStanding.NEVER}
    assert [(row.name, row.summary) for row in found[-2:]] == [
        ("crash", DRILLS["crash"].summary),
        ("of-long-ago", ""),
    ]
    lines = {row.name: row_line(row.model_dump(mode="json")) for row in found}
    assert lines["crash"] == "passed: safe after 12.0 s of 30 s, 0 sessions lost"
    assert lines["disk-full"] == "over budget: safe after 61.0 s of 60 s, 0 sessions lost"
    assert lines["bad-logins"] == "never rehearsed: whether users are safe within 60 s is not known"
    assert lines["of-long-ago"] == "failed: the last step after 12.0 s of 30 s, 2 sessions lost"


def test_what_passed_against_another_budget_is_held_against_that_of_now() -> None:
    found = next(row for row in rows({"crash": past(report(budget=60.0, steps=steps(45.0)))}))
    assert (found.name, found.standing) == ("crash", DrillStanding.OVER_BUDGET)
    assert row_line(found.model_dump(mode="json")) == (
        "over budget of now, which is 30 s; then passed: safe after 45.0 s of 60 s, 0 sessions lost"
    )


def points(*found: tuple[DrillOutcome, float | None]) -> list[dict[str, Any]]:
    return [
        {
            "began": (BEGAN + timedelta(days=day)).isoformat(),
            "seconds": seconds,
            "budget": 30.0,
            "outcome": outcome.value,
        }
        for day, (outcome, seconds) in enumerate(found)
    ]


ALL = points((DrillOutcome.PASSED, 12.0), (DrillOutcome.OVER_BUDGET, 40.0), (DrillOutcome.FAILED, None))


def test_each_outcome_has_a_shape_and_a_word_of_its_own() -> None:
    drawn = ET.fromstring(drill_chart("crash", ALL, 30.0))
    marks = {one.get("class"): one.tag for one in drawn if one.find(f"{SVG}title") is not None}
    assert marks == {
        "chart-dot-control": f"{SVG}circle",
        "chart-over": f"{SVG}path",
        "chart-failed": f"{SVG}path",
    }
    said = [one.text for one in drawn.iter(f"{SVG}text")]
    assert {"passed", "over budget", "failed", "budget", "2026-11-01", "2026-11-03"} <= set(said)
    described = drawn.findtext(f"{SVG}desc")
    assert described == (
        "3 runs from 2026-11-01 to 2026-11-03: 1 failed, 1 over budget, 1 passed. "
        "The last one: failed: not seen to be safe within 30 s. Budget now: 30 s."
    )


def test_nothing_in_a_chart_is_markup() -> None:
    ET.fromstring(drill_chart("<b>&\"'</b>\x00", ALL, 30.0))


@given(
    some.lists(
        some.tuples(some.sampled_from(DrillOutcome), some.none() | some.floats(0, 86_400)),
        min_size=1,
        max_size=60,
    ),
    some.floats(0.1, 86_400),
)
def test_every_mark_is_inside_the_picture(found: Any, budget: float) -> None:
    drawn = ET.fromstring(drill_chart("crash", points(*found), budget))
    for circle in drawn.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx", "")) <= WIDTH
        assert 0 <= float(circle.get("cy", "")) <= HEIGHT
    assert len([one for one in drawn if one.find(f"{SVG}title") is not None]) == len(found)


def test_a_line_says_why_and_how_many_were_cut() -> None:
    one = report(failure="Unavailable: nobody answers", steps=(), sessions_lost=1)
    run = {"report": json.loads(one.model_dump_json()), "outcome": one.outcome.value, "seconds": one.seconds}
    assert run_line(run) == (
        "failed: not seen to be safe within 30 s, Unavailable: nobody answers, 1 session lost"
    )
