"""Counting: raw counter samples in, what happened since the last look out, nothing lost or doubled.

A cursor remembers the last sample folded of every series, so a late or repeated look changes
no sum. A value below its predecessor is a restart and counts from zero; a series that falls without
a restart is no evidence (`policies.judge.whole`) and is not folded. A series that was not
there at an earlier scrape of its target was born since, and counts from zero too; one whose
target was never seen before starts counting at its first sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from math import inf

from policies.model.verdict import Cohorts


@dataclass(frozen=True, slots=True)
class Series:
    """One series as read: labels, and samples (seconds since the epoch, value) in order of time."""

    labels: dict[str, str]
    samples: tuple[tuple[float, float], ...]

    @property
    def key(self) -> str:
        """A short name of the series, the same whatever the order of its labels."""
        labels = "\0".join(f"{name}={self.labels[name]}" for name in sorted(self.labels))
        return blake2b(labels.encode(), digest_size=8).hexdigest()

    @property
    def instance(self) -> str:
        """The target the series was scraped from; empty when the label is missing."""
        return self.labels.get("instance", "")


Cursor = dict[str, tuple[float, float]]
"""Of each series, time and value of the last sample folded; none where the value was zero, to stay small."""

LEFT_BY_RESTART = 0.5
"""Part of its last value that a counter has at most when it is scraped after a restart: it begins at zero."""


def grown(was: float, value: float) -> float:
    """Return by how much a counter grew from one value to the next; a lower one is a restart, from zero."""
    return value - was if value >= was else value


def fall_without_restart(
    before: tuple[float, float] | None, samples: Sequence[tuple[float, float]], apart: float = inf
) -> tuple[float, float] | None:
    """Return both values of the first fall that leaves too much to be a restart; None where there is none.

    A series with the samples of two scrapers falls by a little: each stamps a sample by its own clock and
    before the exporter answers, so the later sample may have been taken earlier.

    Args:
        before: The last sample folded of the series.
        samples: What was read of it, in order of time.
        apart: Seconds. Two samples that are further apart are no two scrapes of one moment. A counter that is
            lower then was restarted, however much it has counted since.
    """
    later = next((one for one in samples if before is not None and one[0] > before[0]), None)
    pairs = [*([(before, later)] if before and later else []), *pairwise(samples)]
    return next(
        (
            (was, value)
            for (then, was), (at, value) in pairs
            if LEFT_BY_RESTART * was < value < was and at - then <= apart
        ),
        None,
    )


def fold_series(
    cursor: Cursor, series: Iterable[Series], scrapes: Mapping[str, tuple[float, ...]]
) -> tuple[Cursor, dict[str, float]]:
    """Return the cursor moved on, and per series what was counted since.

    Args:
        cursor: where the last fold ended.
        series: raw samples, from any time before the cursor to now.
        scrapes: per instance, when its target was seen; later samples wait for the next fold,
            so that all counters of a target are folded up to the same scrape.
    """
    moved, counted = dict(cursor), {}
    for one in series:
        seen = scrapes.get(one.instance, ())
        if not seen:
            continue
        samples = [sample for sample in one.samples if sample[0] <= seen[-1]]
        if not samples:
            continue
        before = cursor.get(one.key)
        if before is None and any(at < samples[0][0] for at in seen):
            before = (seen[0], 0.0)
        total, last = _growth(before, samples)
        counted[one.key] = total
        moved.pop(one.key, None)
        if last[1]:
            moved[one.key] = last
    return moved, counted


def _growth(
    before: tuple[float, float] | None, samples: list[tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """Return what a counter grew by after `before`, and its last sample."""
    last, total = before or samples[0], 0.0
    for at, value in samples:
        if at <= last[0]:
            continue
        total += grown(last[1], value)
        last = (at, value)
    return total, last


def planned(series: Iterable[Series], cohorts: Cohorts, label: str) -> list[Series]:
    """Keep the series of watched instances that come from the executable and the slot planned there."""
    expected = _expected(cohorts)
    return [one for one in series if one.instance in expected and _as_planned(one, cohorts, expected, label)]


def unplanned(series: Iterable[Series], cohorts: Cohorts, label: str) -> list[Series]:
    """Keep the series of changed gateways that come from what ran there before."""
    expected, changed = _expected(cohorts), cohorts.changed
    return [
        one for one in series if one.instance in changed and not _as_planned(one, cohorts, expected, label)
    ]


def of_this_start(series: Iterable[Series], cohorts: Cohorts) -> list[Series]:
    """Keep of each series what it has shown since the instance under judgement was started."""
    kept = []
    for one in series:
        since = cohorts.since.get(one.instance, 0.0)
        samples = tuple(sample for sample in one.samples if sample[0] >= since)
        if samples:
            kept.append(Series(labels=one.labels, samples=samples))
    return kept


def _expected(cohorts: Cohorts) -> dict[str, str | None]:
    """Return what each watched instance must run, None for anything; beyond the sample it is the release."""
    release = next((cohorts.expected[i] for i in cohorts.canary if i in cohorts.expected), None)
    watched = (*cohorts.canary, *cohorts.changed_before, *cohorts.control)
    known = {instance: cohorts.expected.get(instance) for instance in watched}
    return dict.fromkeys(cohorts.beyond, release) | known


def _as_planned(one: Series, cohorts: Cohorts, expected: Mapping[str, str | None], label: str) -> bool:
    slot = cohorts.slots.get(one.instance)
    if slot is not None and one.labels.get("slot", slot) != slot:
        return False
    claimed, planned_there = one.labels.get(label), expected.get(one.instance)
    return claimed is None or planned_there is None or claimed == planned_there
