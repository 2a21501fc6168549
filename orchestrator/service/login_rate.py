"""How busy a fleet is now: the rate of users' first logins, for predicting whether a window can decide."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

from activities.observation import MetricsSource
from policies.judge.counts import Series, fall_without_restart, grown
from policies.judge.whole import is_number
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet

LOOKBACK = timedelta(minutes=10)
MOST_ASKED = 200
"""Gateways whose logins are counted: of a large fleet every n-th, or the answer would grow with it."""

ATTEMPTS = 'vpngw_first_attempts_total{outcome=~".+",$cohort}'


async def attempts_per_minute(source: MetricsSource, fleet: Fleet) -> float | None:
    """Return first logins a minute on an average gateway; None when the metrics do not say."""
    every = ceil(len(fleet.gateways) / MOST_ASKED)
    instances = [gateway.metrics_target for gateway in fleet.gateways[::every]]
    try:
        found = await source.raw(ATTEMPTS, instances, datetime.now(UTC), LOOKBACK)
    except PenstockError:
        return None
    if not all(is_number(one) and fall_without_restart(None, one.samples) is None for one in found):
        return None
    rates = [_per_minute(series) for series in found]
    return sum(rates) / len(instances) if rates else None


def _per_minute(series: Series) -> float:
    """The counter's mean rate over its samples; a restart in between counts from zero."""
    samples = series.samples
    seconds = samples[-1][0] - samples[0][0] if samples else 0
    if seconds <= 0:
        return 0.0
    values = [value for _, value in samples]
    return sum(grown(before, after) for before, after in pairwise(values)) * 60 / seconds
