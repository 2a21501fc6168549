"""Charts of gates: what they show is what was measured, and nothing in them is markup or style."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestrator.charts.gate import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, gate_chart, stylesheet
from policies.reporting.series import (
    MOST_MARKS,
    MOST_POINTS,
    GateSeries,
    Mark,
    Measure,
    Point,
    gate_series,
    gates_of,
    thinned,
)

BEGAN = datetime(2026, 11, 24, 1, 2, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def row(seconds: int, action: str = "continue", wave: int = 1, **gates: dict[str, float]) -> dict[str, Any]:
    """Return a verdict as the API answers it, with these gates' numbers."""
    readings = [
        {"gate": gate.replace("_", "-"), "verdict": "healthy", "reason": "said", "numbers": numbers}
        for gate, numbers in gates.items()
    ]
    decision = {"action": action, "verdict": "healthy", "reason": "said", "readings": readings}
    return {"wave": wave, "at": (BEGAN + timedelta(seconds=seconds)).isoformat(), "decision": decision}


def counted(bad: float, total: float, others_bad: float = 19, others: float = 1350) -> dict[str, float]:
    return {
        "canary_bad": bad,
        "canary_total": total,
        "control_bad": others_bad,
        "control_total": others,
        "evidence_worse": 1.0,
    }


def texts(chart: str) -> list[str]:
    return [one.text or "" for one in ET.fromstring(chart).iter() if one.tag == f"{SVG}text"]


def test_the_counts_of_the_last_verdict_stand_beside_the_curves_and_the_decision_at_its_line() -> None:
    rows = [row(0, logins=counted(0, 100)), row(105, "roll_back", logins=counted(11, 150))]
    chart = gate_chart(gate_series(rows, "logins", margin=0.02))
    said = texts(chart)
    assert "changed 7.3 % (11 of 150)" in said
    assert "control 1.4 % (19 of 1350)" in said
    assert "allowed: control and 2.0 %" in said
    assert "roll back 01:03:45" in said
    assert "2026-11-24 UTC" in said
    described = ET.fromstring(chart).findtext(f"{SVG}desc") or ""
    assert "7.3 % (11 of 150)" in described
    assert "roll back at 01:03:45 UTC" in described


def test_without_a_control_the_limit_is_a_line_of_its_own() -> None:
    numbers = {"canary_bad": 3.0, "canary_total": 60.0, "limit": 0.05}
    series = gate_series([row(0, logins=numbers), row(15, logins=numbers)], "logins")
    assert not series.compared
    chart = gate_chart(series)
    assert "allowed: at most 5.0 %" in texts(chart)
    assert "chart-limit" in chart
    assert "control" not in chart


@pytest.mark.parametrize(
    ("numbers", "measure"),
    [
        (counted(1, 10), Measure.SHARE),
        ({"ratio": 1.2, "allowed": 1.5, "beyond_hard": 0.0}, Measure.RATIO),
        ({"canary_per_minute": 2.0, "control_per_minute": 0.5}, Measure.GROWTH),
        ({"canary": 1.0, "control": 0.0}, Measure.GATEWAYS),
    ],
)
def test_every_kind_of_gate_has_a_chart_of_its_own_numbers(
    numbers: dict[str, float], measure: Measure
) -> None:
    rows = [row(0, asked=numbers)]
    assert gates_of(rows) == ("asked",)
    assert gate_series(rows, "asked").measure is measure


def test_a_share_of_no_events_is_not_known_and_draws_nothing() -> None:
    series = gate_series([row(0, logins=counted(0, 0))], "logins")
    assert series.points[0].changed is None
    assert "changed not known (0 of 0)" in texts(gate_chart(series))
    assert "chart-dot-changed" not in gate_chart(series)


def test_what_a_gate_could_not_read_is_a_gap_and_no_line_leads_over_it() -> None:
    known, lost = counted(1, 100), counted(0, 0)
    rows = [row(15 * tick, logins=lost if tick == 3 else known) for tick in range(6)]
    drawn = [one for one in _paths(gate_chart(gate_series(rows, "logins"))) if one[0] == "chart-changed"]
    assert [path.count("L") for _, path in drawn[1:]] == [2, 1]  # the first is the legend's


def test_gates_whose_answer_was_bad_come_first() -> None:
    rows = [row(0, calm=counted(0, 10), logins=counted(5, 10)), row(15, silent={})]
    rows[0]["decision"]["readings"][1]["verdict"] = "unhealthy"
    assert gates_of(rows) == ("logins", "calm")


def test_of_decisions_that_flap_the_first_and_the_last_are_marked() -> None:
    rows = [row(15 * number, "hold", logins=counted(0, 10)) for number in range(100)]
    rows.append(row(1500, "roll_back", logins=counted(9, 10)))
    series = gate_series(rows, "logins")
    assert len(series.marks) == MOST_MARKS
    assert series.marks[-1].action == "roll_back"
    assert any(text.startswith("roll back") for text in texts(gate_chart(series)))


def test_the_same_series_is_the_same_text_and_fits_into_any_page() -> None:
    rows = [row(15 * tick, logins=counted(tick % 7, 100)) for tick in range(5000)]
    chart = gate_chart(gate_series(rows, "logins", margin=0.02))
    assert chart == gate_chart(gate_series(rows, "logins", margin=0.02))
    assert len(chart) < 16_000


values = some.none() | some.floats(min_value=-1e9, max_value=1e9)
points = some.builds(
    Point, some.floats(0, 4e9), some.integers(0, 3), values, values, some.none(), some.none()
)
series_of_any_kind = some.builds(
    GateSeries,
    some.text(),
    some.sampled_from(Measure),
    some.lists(points, max_size=400).map(
        lambda found: tuple(sorted(found, key=lambda point: point.at)),
    ),
    some.lists(some.builds(Mark, some.floats(0, 4e9), some.text()), max_size=MOST_MARKS).map(tuple),
    values,
    some.none() | some.floats(0, 1e9),
)


@given(series_of_any_kind)
def test_whatever_was_measured_the_chart_is_whole_and_stays_within_its_frame(series: GateSeries) -> None:
    chart = gate_chart(series)
    for element in ET.fromstring(chart).iter():  # no text of anybody's is markup, or it would not parse
        assert element.tag.removeprefix(SVG) in {"svg", "title", "desc", "path", "circle", "text"}
        assert set(element.attrib) <= {*ALLOWED}
        for x, y in _places(element):
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    for kind, path in _paths(chart):
        for x, y in re.findall(r"([0-9.]+) ([0-9.]+)", path) if kind in CURVES and "L" in path else ():
            assert LEFT - 0.1 <= float(x) <= RIGHT + 0.1
            assert TOP - 0.1 <= float(y) <= BOTTOM + 0.1


CURVES = ("chart-changed", "chart-control", "chart-margin")
ALLOWED = ("class", "viewBox", "role", "d", "x", "y", "cx", "cy", "r", "font-size", "text-anchor")
"""Attributes of charts: none of them is a style, a link or a handler."""


def _places(element: ET.Element) -> list[tuple[float, float]]:
    found = [(element.get("x"), element.get("y")), (element.get("cx"), element.get("cy"))]
    return [(float(x), float(y)) for x, y in found if x is not None and y is not None]


def _paths(chart: str) -> list[tuple[str, str]]:
    return [(one.get("class", ""), one.get("d", "")) for one in ET.fromstring(chart).iter(f"{SVG}path")]


@given(some.lists(points, max_size=1500), some.integers(20, 400))
def test_thinning_keeps_both_ends_every_decision_and_the_extremes(found: list[Point], most: int) -> None:
    found.sort(key=lambda point: point.at)
    marks = [Mark(point.at, "hold") for point in found[len(found) // 2 : len(found) // 2 + 1]]
    kept = thinned(found, marks, most)
    assert len(kept) <= most
    assert list(kept) == sorted(kept, key=lambda point: point.at)
    if found:
        assert (kept[0], kept[-1]) == (found[0], found[-1])
        assert {mark.at for mark in marks} <= {point.at for point in kept}
    for side in ("changed", "control"):
        before = [value for point in found if (value := getattr(point, side)) is not None]
        after = [value for point in kept if (value := getattr(point, side)) is not None]
        assert (min(before, default=None), max(before, default=None)) == (
            min(after, default=None),
            max(after, default=None),
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_known(value: float) -> None:
    series = gate_series([row(0, asked={"ratio": value, "allowed": 1.5})], "asked", margin=value)
    assert series.points == ()
    assert series.margin is None
    assert "no reading with a number" in texts(gate_chart(series))


def test_nothing_measured_and_a_single_moment_are_charts_too() -> None:
    assert "no reading with a number" in texts(gate_chart(gate_series([], "logins")))
    assert "chart-dot-changed" in gate_chart(gate_series([row(0, logins=counted(1, 10))], "logins"))
    assert MOST_POINTS == 200


def test_every_class_of_a_chart_is_known_to_its_style_sheet() -> None:
    rows = [row(0, "hold", logins=counted(0, 100)), row(15, "roll_back", logins=counted(11, 150))]
    guarded = [row(0, logins={"canary_bad": 3.0, "canary_total": 60.0, "limit": 0.05})]
    charts = gate_chart(gate_series(rows, "logins", margin=0.02)) + gate_chart(gate_series(guarded, "logins"))
    used = set(re.findall(r'class="([a-z-]+)"', charts))
    assert used <= set(re.findall(r"\.(chart[a-z-]*)", stylesheet()))
