"""Backtest: past windows, cut out of history scrape by scrape, as if each had been watched live."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from policies.judge.counts import Series
from policies.judge.look import Memory
from policies.judge.observation import read_tick
from policies.judge.reading import Reading
from policies.judge.tick import Tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts

History = Mapping[str, Sequence[Series]]
"""Per selector, its series with every sample of the time in question."""


def readings(policy: GatePolicy, history: History, start: float, end: float) -> Iterator[Reading]:
    """Yield what each tick between start and end would have read."""
    lookback = policy.fresh_within.total_seconds()
    baseline = policy.baseline.total_seconds()
    step = policy.scrape.total_seconds()
    at = start
    while at <= end:
        before = at - baseline
        yield Reading(
            at=at,
            series={name: _cut(series, at - lookback, at) for name, series in history.items()},
            history={name: _cut(history.get(name, ()), before - lookback, before) for name in policy.counters}
            if at == start
            else {},
        )
        at += step


def ticks(policy: GatePolicy, cohorts: Cohorts, history: History, start: float, end: float) -> Iterator[Tick]:
    """Yield what the gates would have seen between start and end."""
    memory = Memory()
    for reading in readings(policy, history, start, end):
        memory, tick = read_tick(policy, cohorts, memory, reading)
        yield tick


def _cut(series: Iterable[Series], after: float, until: float) -> tuple[Series, ...]:
    """Return the samples later than `after` and not later than `until`."""
    found = []
    for one in series:
        first = bisect_right(one.samples, after, key=_time)
        last = bisect_right(one.samples, until, lo=first, key=_time)
        if first < last:
            found.append(Series(one.labels, one.samples[first:last]))
    return tuple(found)


def _time(sample: tuple[float, float]) -> float:
    return sample[0]
