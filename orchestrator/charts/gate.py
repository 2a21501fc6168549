"""The chart of one gate: changed gateways against control, what is allowed, and when was decided what.

The text has no style of its own: colours come from the classes that `charts.css` knows, so that light and
dark pages, printed ones and such whose policy forbids inline styles draw it alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby

from orchestrator.charts.drawing import LETTER, SMALL, path, picture, plain, steps, written
from policies.reporting.series import Counted, GateSeries, Mark, Measure, Point, thinned

WIDTH, HEIGHT = 480.0, 284.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 468.0, 92.0, 246.0
"""Of the plot within the picture; above it are the legend and the decisions, beside and below the axes."""
HEADROOM = 1.12
FEWEST_SECONDS = 1.0

_UNITS = {
    Measure.SHARE: "bad events",
    Measure.RATIO: "times control's median",
    Measure.GROWTH: "growth a minute",
    Measure.GATEWAYS: "gateways with the sign",
}


def gate_chart(series: GateSeries) -> str:
    """Return the chart as SVG, to be put into a page as it is."""
    points = thinned(series.points, series.marks)
    name = plain(series.gate)
    if not points:
        return picture(name, "No reading of this gate has a number.", [_empty()], (WIDTH, HEIGHT))
    frame = _Frame.of(points, series)
    parts = [
        *_legend(series),
        *_axes(frame, series.measure),
        *_allowed(frame, points, series),
        *_curve(frame, points, "control"),
        *_curve(frame, points, "changed"),
        *_marks(frame, series.marks),
    ]
    return picture(f"{name}: {_UNITS[series.measure]}", _described(series), parts, (WIDTH, HEIGHT))


def stylesheet() -> str:
    """Return the style sheet of all charts; it takes its colours from custom properties of the page."""
    return files("orchestrator.charts").joinpath("charts.css").read_text()


@dataclass(frozen=True, slots=True)
class _Frame:
    """Which moments and values the plot shows."""

    begin: float
    end: float
    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[Point], series: GateSeries) -> "_Frame":
        times = [point.at for point in points] + [mark.at for mark in series.marks]
        begin, end = min(times), max(times)
        if end - begin < FEWEST_SECONDS:
            begin, end = begin - FEWEST_SECONDS / 2, end + FEWEST_SECONDS / 2
        values = [value for point in points for value in (point.changed, point.control) if value is not None]
        values += [point.control + series.margin for point in points if _has_margin(point, series)]  # type: ignore[operator]
        values += [series.limit] if series.limit is not None else []
        low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
        least = {Measure.SHARE: 0.01, Measure.GATEWAYS: 1.0}.get(series.measure, 0.1)
        top = max(low + (high - low) * HEADROOM, low + least)
        return cls(begin, end, low, min(top, 1.0) if series.measure is Measure.SHARE else top)

    def x(self, at: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, (at - self.begin) / (self.end - self.begin)))

    def y(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, part))


def _empty() -> str:
    return written(WIDTH / 2, HEIGHT / 2, "no reading with a number", "chart-text", anchor="middle")


def _legend(series: GateSeries) -> Iterator[str]:
    """Yield a line for each curve: how it is drawn, and what it says at the end."""
    last = series.points[-1]
    sides = [("changed", "changed", last.changed, last.changed_counts)]
    if series.compared:
        sides.append(("control", "control", last.control, last.control_counts))
    for row, (curve, name, value, counts) in enumerate(sides):
        y = 20.0 + 22 * row
        yield f'<path class="chart-{curve}" d="M4 {y - 5:g}H34"/>'
        yield written(42, y, f"{name} {_valued(value, series.measure)}{_counts(counts)}", "chart-text")
    y = 20.0 + 22 * len(sides)
    if series.margin is not None and series.compared:
        allowed, drawn = f"control and {_valued(series.margin, series.measure)}", "margin"
    elif series.limit is not None:
        allowed, drawn = f"at most {_valued(series.limit, series.measure)}", "limit"
    else:
        return
    box = f"M4 {y - 11:g}H34V{y + 1:g}H4Z" if drawn == "margin" else f"M4 {y - 5:g}H34"
    yield f'<path class="chart-{drawn}" d="{box}"/>'
    yield written(42, y, f"allowed: {allowed}", "chart-faint", SMALL)


def _axes(frame: _Frame, measure: Measure) -> Iterator[str]:
    for value in steps(frame.low, frame.high):
        y = frame.y(value)
        yield f'<path class="chart-grid" d="M{LEFT:g} {y:.1f}H{RIGHT:g}"/>'
        yield written(LEFT - 6, y + 4, _valued(value, measure), "chart-faint", SMALL, "end")
    for at, anchor in ((frame.begin, "start"), ((frame.begin + frame.end) / 2, "middle"), (frame.end, "end")):
        yield f'<path class="chart-grid" d="M{frame.x(at):.1f} {BOTTOM:g}v5"/>'
        yield written(frame.x(at), BOTTOM + 18, _clock(at), "chart-faint", SMALL, anchor)
    yield written(RIGHT, BOTTOM + 34, f"{_day(frame.begin)} UTC", "chart-faint", SMALL, "end")


def _allowed(frame: _Frame, points: Sequence[Point], series: GateSeries) -> Iterator[str]:
    """Yield the band above control that the margin allows, or the line of the limit."""
    if series.margin is not None and series.compared:
        for stretch in _stretches([point for point in points if _has_margin(point, series)], "control"):
            lower = [(frame.x(at), frame.y(value)) for at, value in stretch]
            upper = [(frame.x(at), frame.y(value + series.margin)) for at, value in reversed(stretch)]
            yield f'<path class="chart-margin" d="{path([*lower, *upper])}Z"/>'
    elif series.limit is not None:
        y = frame.y(series.limit)
        yield f'<path class="chart-limit" d="M{LEFT:g} {y:.1f}H{RIGHT:g}"/>'


def _curve(frame: _Frame, points: Sequence[Point], side: str) -> Iterator[str]:
    """Yield a curve, broken between waves and where nothing is known; a lonely point is a dot."""
    for stretch in _stretches(points, side):
        places = [(frame.x(at), frame.y(value)) for at, value in stretch]
        if len(places) > 1:
            yield f'<path class="chart-{side}" d="{path(places)}"/>'
        x, y = places[-1]
        yield f'<circle class="chart-dot-{side}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _stretches(points: Sequence[Point], side: str) -> Iterator[list[tuple[float, float]]]:
    for (_, known), stretch in groupby(points, lambda point: (point.wave, getattr(point, side) is not None)):
        if known:
            yield [(point.at, getattr(point, side)) for point in stretch]


def _marks(frame: _Frame, marks: Sequence[Mark]) -> Iterator[str]:
    """Yield a line for each decision; those have their words beside it that have room, the last one first."""
    taken: list[tuple[float, float]] = []
    for index, mark in enumerate(reversed(marks)):
        x, said = frame.x(mark.at), mark.action.replace("_", " ")
        kind = "chart-decision" if index == 0 else "chart-mark"
        yield (
            f'<path class="{kind}" d="M{x:.1f} {TOP - 6:g}V{BOTTOM:g}">'
            f"<title>{plain(said)} {_clock(mark.at)} UTC</title></path>"
        )
        words = f"{said[:24]} {_clock(mark.at)}"
        wide = len(words) * SMALL * LETTER
        begin = x + 4 if x + 4 + wide <= WIDTH else x - 4 - wide
        if begin >= 0 and all(begin > right or begin + wide < left for left, right in taken):
            taken.append((begin, begin + wide))
            anchor, at = ("start", x + 4) if begin > x else ("end", x - 4)
            yield written(at, TOP - 6, words, "chart-decided", SMALL, anchor)


def _has_margin(point: Point, series: GateSeries) -> bool:
    return series.margin is not None and point.control is not None


def _described(series: GateSeries) -> str:
    """Return the chart in sentences, for whoever hears it."""
    first, last = series.points[0], series.points[-1]
    said = [
        f"From {_clock(first.at)} to {_clock(last.at)} UTC on {_day(first.at)}.",
        f"Changed at the end: {_valued(last.changed, series.measure)}{_counts(last.changed_counts)}.",
    ]
    if series.compared:
        said.append(f"Control: {_valued(last.control, series.measure)}{_counts(last.control_counts)}.")
    if series.limit is not None:
        said.append(f"Allowed at most: {_valued(series.limit, series.measure)}.")
    said += [f"Decision: {mark.action.replace('_', ' ')} at {_clock(mark.at)} UTC." for mark in series.marks]
    return plain(" ".join(said))


def _valued(value: float | None, measure: Measure) -> str:
    if value is None:
        return "not known"
    match measure:
        case Measure.SHARE:
            return f"{100 * value:.1f} %" if abs(value) < 1 else f"{100 * value:.0f} %"
        case Measure.GATEWAYS:
            return f"{value:g}"
        case Measure.RATIO | Measure.GROWTH:
            return f"{value:.3g}"


def _counts(counts: Counted | None) -> str:
    return f" ({counts.bad} of {counts.total})" if counts is not None else ""


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
