"""The judge against its peers on the same traces, and whole rollouts; one table and its JSON.

Ours is the product's own code, folded scrape by scrape with the shipped policy
(deploy/prometheus/gates.yaml, gate connect-success). The rivals stand at documented
settings. SLE's settings were chosen on other seeds (0 to 9999 and those of the research);
the seeds here are for publication only.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from math import ceil, exp, inf
from pathlib import Path
from typing import Any

import numpy as np

from activities.files import load
from policies.judge.gates.rate import Rate
from policies.judge.health import Health, HealthState, absolute, health_step, health_value
from policies.judge.sle import Counts, Margin, baseline_share, evidence_of, proven_worse, sle_init, sle_step
from policies.judge.verdict import SUSPICION
from policies.model.gates import GatePolicy
from tests.bench.judge_bars import bar, plain
from tests.bench.judge_fleet import Report, fleet_bars, measure_fleet, print_fleet
from tests.bench.judge_rivals import RIVALS
from tests.bench.judge_traces import HEALTHY, ONSET, SCRAPE, TICKS, Scenario, Traces, draw

OURS = "penstock"
PUBLISHED_SEED = 20261120
POLICY = Path(__file__).parents[2] / "deploy" / "prometheus" / "gates.yaml"
RATES = (6, 30, 120)
RUNS, RUNS_MORE, RUNS_HEALTHY, CHUNK = 500, 1_500, 10_000, 500
PAST = 400
"""Control's events before the window: the most the judge takes from its baseline."""
MINIMUM = 40
"""Scrapes before which nothing is promoted."""

PARTS = {"quick": 10, "smoke": 250}

HEALTHY_RUN = Scenario("healthy")
DROPS = tuple(
    Scenario(f"drop to {drop:.2f} {'at 10 min' if onset else 'from start'}", drop=drop, onset=onset)
    for onset in (0, ONSET)
    for drop in (0.95, 0.90, 0.80, 0.50)
)
OTHERS = (
    Scenario("shared outage .70", shared=0.70),
    Scenario("shared outage, canary a scrape earlier", shared=0.70, skew=1),
    Scenario("control dips 5 points", dip=0.05),
    Scenario("canary's users 0.5 point worse", canary=HEALTHY - 0.005),
    Scenario("canary exactly at the margin", canary=HEALTHY - 0.010),
    Scenario("each gateway its own level", spread=0.4),
    Scenario("failures in clusters, ICC .05", intraclass=0.05),
    Scenario("one client retrying, raw attempts", retry_every=5),
    Scenario("one client retrying, first attempts", retry_every=600),
)
SHARED = ("shared outage .70", "shared outage, canary a scrape earlier")
WITH_BARS = {
    *SHARED,
    "control dips 5 points",
    "canary exactly at the margin",
    "one client retrying, first attempts",
}
WHOLE = (
    Scenario("equal"),
    Scenario("1 point worse", canary=HEALTHY - 0.010),
    Scenario("0.95", canary=0.95),
    Scenario("0.90", canary=0.90),
)
PROOFS = (
    Scenario("worse by the health margin", canary=HEALTHY - 0.03),
    Scenario("equal, all at .985", canary=0.985, control=0.985),
    Scenario("equal, all at .999", canary=0.999, control=0.999),
)
WAYS = ("averaged", "conditional alone", "absolute alone")


@dataclass(frozen=True)
class Ours:
    """The shipped gate and what it is judged with."""

    margin: Margin
    health: Health
    alpha_equal: float
    alpha_margin: float
    horizon: int
    memory: int

    @classmethod
    def shipped(cls) -> "Ours":
        """Read the gate from the policy in deploy/prometheus."""
        policy = load(POLICY, GatePolicy)
        gate = next(g for g in policy.gates if isinstance(g, Rate) and g.id == "connect-success")
        assert gate.health is not None
        return cls(
            margin=gate.margin,
            health=gate.health,
            alpha_equal=policy.budget.alpha_equal * gate.share,
            alpha_margin=policy.budget.alpha_margin,
            horizon=ceil(policy.window.cap / policy.scrape),
            memory=round(gate.margin.over / policy.scrape),
        )


@dataclass(frozen=True)
class Job:
    """Some runs of one scenario at one rate, for one measurement."""

    kind: str
    scenario: Scenario
    rate: int
    runs: int
    seed: int

    @property
    def measured(self) -> str:
        """What is measured, whether rivals ran along or not."""
        return "rollback" if self.kind in {"ours", "all"} else self.kind


@dataclass
class Cell:
    """What all runs of one scenario and rate came to, per rule: the scrape of rollback or -1."""

    fired: dict[str, list[int]] = field(default_factory=dict)
    ends: list[tuple[str, int]] = field(default_factory=list)

    def add(self, part: dict[str, Any]) -> None:
        """Take in one job's part."""
        for rule, ticks in part.get("fired", {}).items():
            self.fired.setdefault(rule, []).extend(ticks)
        self.ends.extend(part.get("ends", []))


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print the table, write the JSON, and return 0 when every bar holds.

    `arguments`: `quick` runs a tenth of everything, `smoke` a few of each; neither insists on the bars.
    """
    began = time.monotonic()
    part = PARTS.get(arguments[0] if arguments else "", 1)
    jobs = list(_jobs(part))
    cells: dict[tuple[str, str, int], Cell] = {}
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as workers:
        for job, found in zip(jobs, workers.map(_run, jobs), strict=True):
            cells.setdefault((job.measured, job.scenario.name, job.rate), Cell()).add(found)
        fleet = measure_fleet(workers, part)
    seconds = time.monotonic() - began
    bars = [*_bars(cells), *fleet_bars(fleet)]
    _print_table(cells)
    print_fleet(fleet)
    _print_bars(bars, seconds)
    if json_path is not None:
        json_path.write_text(json.dumps(_report(cells, bars, fleet, seconds), indent=1) + "\n")
    return 0 if part > 1 or all(one["holds"] for one in bars) else 1


def _jobs(part: int) -> Iterator[Job]:
    """Yield the work, long pieces first; every piece has its own seed."""
    wanted = [("ours", HEALTHY_RUN, rate, RUNS_HEALTHY // part) for rate in reversed(RATES)]
    wanted += [("ours", s, rate, RUNS_MORE // part) for s in OTHERS if s.name in WITH_BARS for rate in RATES]
    wanted += [("whole", s, rate, RUNS // part) for s in WHOLE for rate in RATES]
    wanted += [("proof", s, rate, RUNS_MORE // part) for s in PROOFS for rate in RATES]
    wanted += [("all", s, rate, RUNS // part) for s in (HEALTHY_RUN, *DROPS, *OTHERS) for rate in RATES]
    seed = PUBLISHED_SEED
    for kind, scenario, rate, runs in wanted:
        for start in range(0, runs, CHUNK):
            seed += 1
            yield Job(kind, scenario, rate, min(CHUNK, runs - start), seed)


def _run(job: Job) -> dict[str, Any]:
    traces = draw(job.scenario, job.rate, job.runs, job.seed)
    ours = Ours.shipped()
    if job.kind == "whole":
        return {"ends": [_decide(ours, rows) for rows in _rows(traces)]}
    if job.kind == "proof":
        past = (PAST, round(PAST * (1 - job.scenario.control)))
        ways = zip(*(_prove(ours, rows, past) for rows in _rows(traces)), strict=True)
        return {"fired": {way: list(ticks) for way, ticks in zip(WAYS, ways, strict=True)}}
    fired = {OURS: [_fire(ours, rows) for rows in _rows(traces)]}
    if job.kind == "all":
        fired |= {name: rule(traces).tolist() for name, rule in RIVALS.items()}
    return {"fired": fired}


def _rows(traces: Traces) -> Iterator[list[Counts]]:
    """Yield each run as the judge sees it."""
    parts = (traces.canary, traces.canary_bad, traces.control, traces.control_bad)
    for run in zip(*(part.tolist() for part in parts), strict=True):
        yield [Counts(*counts) for counts in zip(*run, strict=True)]


def _fire(ours: Ours, rows: Iterable[Counts]) -> int:
    """Return the scrape at which the canary is rolled back, or -1."""
    state = sle_init(ours.horizon, PAST, round(PAST * (1 - HEALTHY)))
    for tick, counts in enumerate(rows):
        state = sle_step(state, counts, ours.margin, ours.memory)
        if proven_worse(state, ours.margin, ours.alpha_margin, ours.alpha_equal):
            return tick
    return -1


def _decide(ours: Ours, rows: Iterable[Counts]) -> tuple[str, int]:
    """Return how the whole window ends, and when: both proofs, promotion not before the minimum."""
    state, health = sle_init(ours.horizon, PAST, round(PAST * (1 - HEALTHY))), HealthState()
    for tick, counts in enumerate(rows):
        health = health_step(health, counts, baseline_share(state, ours.margin.delta), ours.health)
        state = sle_step(state, counts, ours.margin, ours.memory)
        if proven_worse(state, ours.margin, ours.alpha_margin, ours.alpha_equal):
            return "rolled back", tick
        proven = tick + 1 >= MINIMUM and health_value(health, ours.health) * ours.health.error >= 1
        if proven and evidence_of(state).equal < SUSPICION:
            return "promoted", tick
    return "undecided", TICKS


def _prove(ours: Ours, rows: Iterable[Counts], past: tuple[int, int]) -> tuple[int, int, int]:
    """Return the scrapes at which health is proven, in the product's way and by each half alone, or -1."""
    state, health, first = sle_init(ours.horizon, *past), HealthState(), [-1, -1, -1]
    for tick, counts in enumerate(rows):
        health = health_step(health, counts, baseline_share(state, ours.margin.delta), ours.health)
        state = sle_step(state, counts, ours.margin, ours.memory)
        values = (
            health_value(health, ours.health),
            exp(health.conditional),
            absolute(health, ours.health.delta),
        )
        for way, value in enumerate(values):
            if first[way] < 0 and value * ours.health.error >= 1:
                first[way] = tick
    return first[0], first[1], first[2]


@dataclass(frozen=True)
class Figures:
    """One cell's figures: shares of runs, and seconds from onset to rollback."""

    runs: int
    rolled_back: float
    early: float
    missed: float
    p50: float
    p95: float


def _figures(ticks: list[int], onset: int) -> Figures:
    """Return the figures of one rule; rollbacks before the onset are false ones and no delays."""
    fired = np.array(ticks)
    early = (fired >= 0) & (fired < onset)
    after = fired[~early]
    delays = np.sort(np.where(after >= 0, (after - onset + 1) * SCRAPE, np.inf))

    def quantile(part: float) -> float:
        return float(delays[min(len(delays) - 1, ceil(part * len(delays)) - 1)]) if len(delays) else inf

    return Figures(
        runs=len(fired),
        rolled_back=float((fired >= 0).mean()),
        early=float(early.mean()),
        missed=float((after < 0).mean()) if len(after) else 0.0,
        p50=quantile(0.5),
        p95=quantile(0.95),
    )


Cells = dict[tuple[str, str, int], Cell]


def _of(cells: Cells, scenario: Scenario, rate: int, rule: str = OURS, kind: str = "rollback") -> Figures:
    return _figures(cells[kind, scenario.name, rate].fired[rule], scenario.onset)


DELAY_BARS = (
    (3, 30, 0.80, 120, 210), (3, 30, 0.50, 60, 90), (3, 30, 0.90, 300, 630),
    (4, 120, 0.80, 60, 90), (4, 120, 0.90, 120, 195), (4, 6, 0.50, 135, 255), (4, 6, 0.80, 375, 810),
)  # fmt: skip
"""Number of the bar, attempts a minute, success, and the most seconds for p50 and p95."""


def _bars(cells: Cells) -> Iterator[dict[str, Any]]:
    """Yield each bar of the acceptance list that simulations decide, with what was measured."""
    scenario = {s.name: s for s in (*OTHERS, *PROOFS)}
    for rate in RATES:
        yield bar(1, f"false rollback, {rate}/min", _of(cells, HEALTHY_RUN, rate).rolled_back, 0.002)
        margin = _of(cells, scenario["canary exactly at the margin"], rate).rolled_back
        yield bar(2, f"rolled back at the margin, {rate}/min", margin, 0.02)
        proof = _of(cells, PROOFS[0], rate, WAYS[0], "proof")
        yield bar(2, f"healthy at the health margin, {rate}/min", proof.rolled_back, 0.05)
    for number, rate, drop, p50, p95 in DELAY_BARS:
        for one in (s for s in DROPS if s.drop == drop):
            found = _of(cells, one, rate)
            yield bar(number, f"{one.name}, {rate}/min, p50 s", found.p50, p50)
            yield bar(number, f"{one.name}, {rate}/min, p95 s", found.p95, p95)
    for rate in RATES:
        for name in SHARED:
            yield bar(5, f"{name}, {rate}/min", _of(cells, scenario[name], rate).rolled_back, 0.005)
        dip = _of(cells, scenario["control dips 5 points"], rate).rolled_back
        yield bar(5, f"control dips 5 points, {rate}/min", dip, 0.002)
        client = _of(cells, scenario["one client retrying, first attempts"], rate).rolled_back
        yield bar(6, f"one retrying client, {rate}/min", client, 0.005)
        yield bar(7, f"promoted at 0.95, {rate}/min", _ended(cells, "0.95", rate, "promoted"), 0.015)
    yield bar(7, "equal canary promoted, 30/min", _ended(cells, "equal", 30, "promoted"), 0.95, least=True)


def _ended(cells: Cells, name: str, rate: int, how: str) -> float:
    ends = cells["whole", name, rate].ends
    return sum(end == how for end, _ in ends) / len(ends)


def _print_table(cells: Cells) -> None:
    """Print the figures: rules side by side, one block per rate."""
    rules = (OURS, *RIVALS)
    print("Delay p50/p95 in seconds, m = missed within 30 min; other rows: share of windows rolled back.")
    for rate in RATES:
        print(f"\n{rate} first attempts a minute".ljust(43) + "".join(rule.rjust(16) for rule in rules))
        for one in (HEALTHY_RUN, *DROPS, *OTHERS):
            shown = [_shown(one, _of(cells, one, rate, rule)) for rule in rules]
            print(one.name.ljust(42) + "".join(text.rjust(16) for text in shown))
        for one in WHOLE:
            ends = [
                f"{how} {_ended(cells, one.name, rate, how):.1%}"
                for how in ("rolled back", "promoted", "undecided")
            ]
            print(f"whole decision, {one.name}".ljust(46) + ", ".join(ends))
        for one in PROOFS:
            ways = [(way, _of(cells, one, rate, way, "proof")) for way in WAYS]
            print(
                f"health proven, {one.name}".ljust(46)
                + ", ".join(f"{way} {_shown(one, f, proof=True)}" for way, f in ways)
            )


def _print_bars(bars: list[dict[str, Any]], seconds: float) -> None:
    print()
    for one in bars:
        sign = "holds" if one["holds"] else "FAILS"
        print(f"bar {one['bar']}  {sign}  {one['name']}: {one['measured']} against {one['limit']}")
    print(f"\n{seconds:.0f} s; seeds from {PUBLISHED_SEED}")


def _shown(scenario: Scenario, found: Figures, *, proof: bool = False) -> str:
    if scenario.drop is None and not proof:
        return f"{found.rolled_back:.2%}"
    p50, p95 = (f"{value:.0f}" if value < inf else "-" for value in (found.p50, found.p95))
    missed = f" m{100 * found.missed:.0f}" if found.missed >= 0.005 else ""
    return f"{p50}/{p95}{missed}"


def _report(cells: Cells, bars: list[dict[str, Any]], fleet: Report, seconds: float) -> dict[str, Any]:
    """Return everything as JSON; `rules` is the short form for 30 a minute and .985 to .80 at 10 min."""
    drop = next(s for s in DROPS if s.drop == 0.80 and s.onset)
    rules = {}
    for rule in (OURS, *RIVALS):
        found = _of(cells, drop, 30, rule)
        rules[rule] = {
            "false_rollback": _of(cells, HEALTHY_RUN, 30, rule).rolled_back,
            "delay_p50_s": plain(found.p50),
            "delay_p95_s": plain(found.p95),
            "missed": found.missed,
            "shared_outage": _of(cells, OTHERS[0], 30, rule).rolled_back,
            "shared_outage_skewed": _of(cells, OTHERS[1], 30, rule).rolled_back,
        }
    all_cells = [
        {"scenario": one.name, "per_minute": rate, "rule": rule, **_flat(_of(cells, one, rate, rule))}
        for one in (HEALTHY_RUN, *DROPS, *OTHERS)
        for rate in RATES
        for rule in (OURS, *RIVALS)
    ]
    return {
        "rules": rules,
        "bars": bars,
        "cells": all_cells,
        "fleet": fleet,
        "seconds": round(seconds, 1),
        "seed": PUBLISHED_SEED,
    }


def _flat(found: Figures) -> dict[str, Any]:
    return {
        "runs": found.runs,
        "rolled_back": found.rolled_back,
        "before_onset": found.early,
        "missed": found.missed,
        "delay_p50_s": plain(found.p50),
        "delay_p95_s": plain(found.p95),
    }


if __name__ == "__main__":
    sys.exit(main(None, sys.argv[1:]))
