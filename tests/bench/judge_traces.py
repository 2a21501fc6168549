"""Traces for the judge's bench: one canary and nine controls, scraped every 15 s, drawn from a seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TICKS = 120
"""Scrapes in a window of 30 minutes."""
SCRAPE = 15
CONTROLS = 9
HEALTHY = 0.985
ONSET = 40
"""Ten minutes in."""
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Traces:
    """Counts per run and scrape; `onset` is the scrape from which the canary is bad, if it ever is."""

    canary: Ints
    canary_bad: Ints
    control: Ints
    control_bad: Ints
    onset: int = 0


@dataclass(frozen=True)
class Scenario:
    """One kind of trace; `drop` is the canary's success after `onset`."""

    name: str
    drop: float | None = None
    onset: int = 0
    canary: float = HEALTHY
    control: float = HEALTHY
    shared: float | None = None
    skew: int = 0
    dip: float = 0.0
    spread: float = 0.0
    intraclass: float = 0.0
    retry_every: int = 0


def draw(scenario: Scenario, rate: int, runs: int, seed: int) -> Traces:
    """Draw `runs` windows at `rate` first attempts a minute on the canary."""
    random = np.random.default_rng(seed)
    canary = random.poisson(rate * SCRAPE / 60, (runs, TICKS))
    control = random.poisson(CONTROLS * rate * SCRAPE / 60, (runs, TICKS))
    bad_canary, bad_control = _shares(scenario, random, runs)
    canary_bad = random.binomial(canary, bad_canary)
    control_bad = random.binomial(control, bad_control)
    if scenario.retry_every:
        times = np.arange(TICKS * SCRAPE) % scenario.retry_every == 0
        retries = times.reshape(TICKS, SCRAPE).sum(axis=1)
        canary, canary_bad = canary + retries, canary_bad + retries
    return Traces(canary, canary_bad, control, control_bad, scenario.onset)


def _shares(scenario: Scenario, random: np.random.Generator, runs: int) -> tuple[Floats, Floats]:
    """Return the share of bad events on each side, per run and scrape."""
    canary = np.full((runs, TICKS), 1 - scenario.canary)
    control = np.full((runs, TICKS), 1 - scenario.control)
    if scenario.drop is not None:
        canary[:, scenario.onset :] = 1 - scenario.drop
    if scenario.shared is not None:
        canary[:, ONSET - scenario.skew : 2 * ONSET - scenario.skew] = 1 - scenario.shared
        control[:, ONSET : 2 * ONSET] = 1 - scenario.shared
    if scenario.dip:
        control[:, ONSET : ONSET + 20] += scenario.dip
    if scenario.spread:
        levels = _logit(1 - HEALTHY) + random.normal(0, scenario.spread, (runs, CONTROLS + 1))
        shares = 1 / (1 + np.exp(-levels))
        canary[:] = shares[:, :1]
        control[:] = shares[:, 1:].mean(axis=1, keepdims=True)
    if scenario.intraclass:
        canary = _clustered(random, canary, scenario.intraclass)
        gateways = [_clustered(random, control, scenario.intraclass) for _ in range(CONTROLS)]
        control = np.mean(gateways, axis=0)
    return canary, control


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _clustered(random: np.random.Generator, shares: Floats, intraclass: float) -> Floats:
    """Return one gateway's shares, varying from scrape to scrape: beta with this intraclass correlation."""
    size = 1 / intraclass - 1
    return np.asarray(random.beta(shares * size, (1 - shares) * size))
