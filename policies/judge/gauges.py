"""Gauges and slopes: too much CPU, memory or descriptors on the canary, compared with control.

Samples of a gauge follow each other closely, so no honest test per sample exists; what is
asked is persistence: the mean of log(canary / median control) over minutes, and for leaks the
Theil-Sen slope (median of all pairwise slopes; Sen 1968) on one-minute points.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import exp, log
from statistics import median

Point = tuple[float, float]
TIMES_LARGEST = 1.0
TIMES_MEDIAN = 3.0


def log_ratio(values: Mapping[str, float], canary: Sequence[str], control: Sequence[str]) -> float | None:
    """Return log of the worst canary's value over control's median; None when either is missing."""
    mine = [values[i] for i in canary if values.get(i, 0.0) > 0]
    theirs = [values[i] for i in control if values.get(i, 0.0) > 0]
    if not mine or not theirs:
        return None
    return log(max(mine) / median(theirs))


def mean_ratio(points: Sequence[Point], over: float) -> float | None:
    """Return the mean ratio of the last `over` seconds; None while they are not yet covered."""
    if not points or points[-1][0] - points[0][0] < over * 0.9:
        return None
    recent = [value for at, value in points if at > points[-1][0] - over]
    return exp(sum(recent) / len(recent)) if recent else None


def theil_sen(points: Sequence[Point]) -> float:
    """Return the median slope per second over all pairs of points."""
    slopes = [(v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2) if t2 > t1]
    return median(slopes) if slopes else 0.0


def leaks(canary: float, controls: Sequence[float], floor: float) -> bool:
    """Whether the canary's slope is more than any control's, thrice the median one's, and the floor."""
    others = [abs(slope) for slope in controls]
    if not others:
        return canary > floor
    return canary > max(TIMES_LARGEST * max(others), TIMES_MEDIAN * median(others), floor)
