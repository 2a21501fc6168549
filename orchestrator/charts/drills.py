"""The chart of one drill over time: how long it took each time, against how long it may take.

What each run came to is told by the shape of its mark, so that it can be read without colours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.charts.drawing import SMALL, path, picture, plain, steps, written
from orchestrator.words.drills import STANDINGS, came_to

WIDTH, HEIGHT = 480.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 468.0, 44.0, 148.0
"""Of the plot within the picture; above it is the legend, beside and below it are the axes."""
HEADROOM = 1.15
FEWEST_SECONDS = 1.0

Json = Mapping[str, Any]


def drill_chart(name: str, points: Sequence[Json], budget: float) -> str:
    """Return the chart as SVG, to be put into a page as it is.

    Args:
        name: Which drill.
        points: Its runs, as the API answers them, in any order; at least one.
        budget: Seconds within which users have to be safe now.
    """
    ordered = sorted(points, key=_at)
    frame = _Frame.of(ordered, budget)
    parts = [
        *_legend({point["outcome"] for point in points}),
        *_axes(frame),
        *_budgets(frame, ordered, budget),
        *(_mark(frame, point) for point in ordered),
    ]
    title = plain(f"{name}: seconds until users were safe")
    return picture(title, plain(_described(ordered, budget)), parts, (WIDTH, HEIGHT))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Which moments (seconds of the epoch) the plot shows, and up to how many seconds."""

    begin: float
    end: float
    high: float

    @classmethod
    def of(cls, ordered: Sequence[Json], budget: float) -> "_Frame":
        begin, end = _at(ordered[0]), _at(ordered[-1])
        if end - begin < FEWEST_SECONDS:
            begin, end = begin - FEWEST_SECONDS / 2, end + FEWEST_SECONDS / 2
        values = [budget, *(point["budget"] for point in ordered)]
        values += [point["seconds"] for point in ordered if point["seconds"] is not None]
        return cls(begin, end, HEADROOM * max(values))

    def x(self, at: float) -> float:
        """Return where a moment is; a little space is left at both sides, for whole marks."""
        return LEFT + 8 + (RIGHT - LEFT - 16) * (at - self.begin) / (self.end - self.begin)

    def y(self, seconds: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(1.0, seconds / self.high)


def _legend(outcomes: set[str]) -> Iterator[str]:
    x = 6.0
    for outcome in (one for one in _SHAPES if one in outcomes):
        yield _shape(outcome, x + 6, 15)
        yield written(x + 18, 20, STANDINGS[outcome], "chart-text", SMALL)
        x += 110
    yield f'<path class="chart-limit" d="M{x:g} 15h24"/>'
    yield written(x + 30, 20, "budget", "chart-text", SMALL)


def _axes(frame: _Frame) -> Iterator[str]:
    for value in steps(0, frame.high):
        y = frame.y(value)
        yield f'<path class="chart-grid" d="M{LEFT:g} {y:.1f}H{RIGHT:g}"/>'
        yield written(LEFT - 6, y + 4, f"{value:g} s", "chart-faint", SMALL, "end")
    first, last = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in (frame.begin, frame.end))
    if first != last:
        yield written(LEFT, BOTTOM + 20, first, "chart-faint", SMALL)
    yield written(RIGHT, BOTTOM + 20, last, "chart-faint", SMALL, "end")


def _budgets(frame: _Frame, ordered: Sequence[Json], budget: float) -> Iterator[str]:
    """Yield the line that no run may be above: as it was at each run, and as it is now."""
    places = [(LEFT, frame.y(ordered[0]["budget"]))]
    for point in ordered:
        x, y = frame.x(_at(point)), frame.y(point["budget"])
        places += [(x, places[-1][1]), (x, y)] if y != places[-1][1] else []
    if (now := frame.y(budget)) != places[-1][1]:
        places += [(RIGHT - 4, places[-1][1]), (RIGHT - 4, now)]
    yield f'<path class="chart-limit" d="{path([*places, (RIGHT, places[-1][1])])}"/>'


def _mark(frame: _Frame, point: Json) -> str:
    """Return the mark of a run; one of which nothing was seen stands at the top."""
    seconds = point["seconds"]
    said = f"{point['began'][:10]}: {came_to(point)}"
    y = TOP if seconds is None else frame.y(seconds)
    return _shape(point["outcome"], frame.x(_at(point)), y, said)


_SHAPES = {
    "passed": '<circle class="chart-dot-control" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>',
    "over_budget": '<path class="chart-over" d="M{x:.1f} {y:.1f}m0 -7l7 12h-14z">{title}</path>',
    "failed": '<path class="chart-failed" d="M{x:.1f} {y:.1f}m-5 -5l10 10m0 -10l-10 10">{title}</path>',
}
"""How the mark of a run is drawn: a dot, a triangle, a cross."""


def _shape(outcome: str, x: float, y: float, said: str = "") -> str:
    title = f"<title>{plain(said)}</title>" if said else ""
    return _SHAPES[outcome].format(x=x, y=y, title=title)


def _described(ordered: Sequence[Json], budget: float) -> str:
    """Return the chart in sentences, for whoever hears it."""
    counts = {
        name: sum(point["outcome"] == outcome for point in ordered) for outcome, name in STANDINGS.items()
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    first, last = ordered[0], ordered[-1]
    return (
        f"{len(ordered)} runs from {first['began'][:10]} to {last['began'][:10]}: {said}. "
        f"The last one: {came_to(last)}. "
        f"Budget now: {budget:g} s."
    )


def _at(point: Json) -> float:
    return datetime.fromisoformat(point["began"]).timestamp()
