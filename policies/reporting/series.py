"""Series: what one gate measured over time, taken from verdicts as the ledger keeps them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from policies.model.sample import BAD

MOST_POINTS = 200
"""Points that are drawn; more would be thinner than a line."""
MOST_MARKS = 8
"""Decisions that are marked; one that flaps for days would hide the curve."""
SIDES = ("changed", "control")

Json = Mapping[str, Any]
Numbers = Mapping[str, float]


class Measure(StrEnum):
    """What a gate's numbers are."""

    SHARE = "share"
    """Bad events among events; 0.01 is one in a hundred."""
    RATIO = "ratio"
    """Times the median of control."""
    GROWTH = "growth"
    """Units a minute."""
    GATEWAYS = "gateways"
    """Gateways that show a bad sign."""


TOLD_BY = {
    "canary_total": Measure.SHARE,
    "ratio": Measure.RATIO,
    "canary_per_minute": Measure.GROWTH,
    "canary": Measure.GATEWAYS,
}
"""Which number tells what a gate's numbers are, the first that is there."""

VALUES: dict[Measure, tuple[str, str | None]] = {
    Measure.RATIO: ("ratio", None),
    Measure.GROWTH: ("canary_per_minute", "control_per_minute"),
    Measure.GATEWAYS: ("canary", "control"),
}
"""Which numbers are those of the changed gateways and of control; a share is counted."""

LIMITS = {Measure.SHARE: "limit", Measure.RATIO: "allowed"}
"""Which number is the most that a gate allows."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many events a value rests on, and how many of them were bad."""

    bad: int
    total: int


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one moment (seconds of the epoch); None is not known, never zero."""

    at: float
    wave: int
    changed: float | None
    control: float | None = None
    changed_counts: Counted | None = None
    control_counts: Counted | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision: when it was made (seconds of the epoch), which, and whether it was the last."""

    at: float
    action: str


@dataclass(frozen=True, slots=True)
class GateSeries:
    """One gate over a change.

    `limit` is the value beyond which the changed gateways are too bad where nobody unchanged is left, or
    what the gate allows at most; `margin` is how much worse than control is still allowed.
    """

    gate: str
    measure: Measure
    points: tuple[Point, ...] = ()
    marks: tuple[Mark, ...] = ()
    limit: float | None = None
    margin: float | None = None

    @property
    def compared(self) -> bool:
        """Whether there is a control to compare with."""
        return any(point.control is not None for point in self.points)


def gates_of(rows: Iterable[Json]) -> tuple[str, ...]:
    """Return the gates that measured something, those first whose answer was bad, then as they were asked."""
    order = dict[str, bool]()
    for row in rows:
        for reading in row["decision"]["readings"]:
            if _measure(reading["numbers"]) is not None:
                bad = reading["verdict"] in BAD
                order[reading["gate"]] = order.get(reading["gate"], False) or bad
    return tuple(sorted(order, key=lambda gate: not order[gate]))


def gate_series(rows: Sequence[Json], gate: str, *, margin: float | None = None) -> GateSeries:
    """Return what the gate of that name measured.

    Args:
        rows: Verdicts of a change as JSON (`wave`, `at`, `decision`), in any order.
        gate: The gate's name.
        margin: How much worse than control the gate allows (a difference of shares), where that is known.
    """
    readings = (
        {**reading, "at": row["at"], "wave": row["wave"]}
        for row in rows
        for reading in row["decision"]["readings"]
    )
    decided = [{"at": row["at"], "action": row["decision"]["action"]} for row in rows]
    return series_of(readings, decided, gate, margin=margin)


def series_of(
    samples: Iterable[Json], decided: Iterable[Json], gate: str, *, margin: float | None = None
) -> GateSeries:
    """Return what the gate of that name measured, from samples that a report has.

    Args:
        samples: What gates measured, as JSON (`gate`, `wave`, `at`, `numbers`), in any order.
        decided: What was decided (`at`, `action`), in any order.
        gate: As of `gate_series`.
        margin: As of `gate_series`.
    """
    points, limit, measure = list[Point](), None, Measure.SHARE
    for sample in samples:
        found = _measure(sample["numbers"]) if sample["gate"] == gate else None
        if found is None:
            continue
        measure, allowed = found, _number(sample["numbers"], LIMITS.get(found))
        limit = allowed if allowed is not None else limit
        points.append(_point(sample, measure))
    points.sort(key=lambda point: point.at)
    return GateSeries(gate, measure, tuple(points), _marks_of(decided), limit, _finite(margin))


def _marks_of(decided: Iterable[Json]) -> tuple[Mark, ...]:
    """Return every decision but to go on; of many the first ones and the last."""
    told = (Mark(_seconds(one["at"]), one["action"]) for one in decided if one["action"] != "continue")
    marks = sorted(told, key=lambda mark: mark.at)
    return (*marks[: MOST_MARKS - 1], marks[-1]) if len(marks) > MOST_MARKS else tuple(marks)


def thinned(points: Sequence[Point], marks: Sequence[Mark], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Return at most so many points: both ends, those at decisions, and the extremes of every stretch."""
    if len(points) <= most:
        return tuple(points)
    kept = {0, len(points) - 1}
    for mark in marks:
        at = mark.at
        kept |= {min(range(len(points)), key=lambda index: abs(points[index].at - at))}
    stretches = max(1, (most - len(kept)) // (2 * len(SIDES)))
    length = math.ceil(len(points) / stretches)
    for begin in range(0, len(points), length):
        stretch = range(begin, min(begin + length, len(points)))
        for side in SIDES:
            known = [(getattr(points[index], side), index) for index in stretch]
            known = [(value, index) for value, index in known if value is not None]
            kept |= {min(known)[1], max(known)[1]} if known else set()
    return tuple(points[index] for index in sorted(kept))


def _measure(numbers: Numbers) -> Measure | None:
    """Return what a reading's numbers are, by the first that it has; None when they say nothing."""
    return next((measure for name, measure in TOLD_BY.items() if _number(numbers, name) is not None), None)


def _point(sample: Json, measure: Measure) -> Point:
    at, wave, numbers = _seconds(sample["at"]), sample["wave"], sample["numbers"]
    if measure is Measure.SHARE:
        changed, control = _counted(numbers, "canary"), _counted(numbers, "control")
        return Point(at, wave, _share(changed), _share(control), changed, control)
    changed_by, control_by = VALUES[measure]
    return Point(at, wave, _number(numbers, changed_by), _number(numbers, control_by))


def _counted(numbers: Numbers, side: str) -> Counted | None:
    total, bad = _number(numbers, f"{side}_total"), _number(numbers, f"{side}_bad")
    return None if total is None or bad is None else Counted(round(bad), round(total))


def _share(counted: Counted | None) -> float | None:
    return counted.bad / counted.total if counted is not None and counted.total > 0 else None


def _number(numbers: Numbers, name: str | None) -> float | None:
    return _finite(numbers.get(name)) if name is not None else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
