"""Whole rollouts, simulated: twenty gateways in steps of 1, 25 % and 100 %, judged by the product's own fold.

No engine and no metrics: per scrape of 15 s each gateway has a Poisson number of first attempts, 30 a
minute on average, of which each fails by chance; the sums of the wave's gateways, of those changed before
and of the unchanged go through `fold_tick` with the shipped policy's required gate, and what is compared
over all waves goes on from window to window. A window ends with its decision; one that would wait for a
person ends the rollout as held. Switching takes no time: nothing is observed meanwhile.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from activities.files import load
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick, next_window
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts
from tests.bench.judge_bars import bar
from tests.bench.judge_traces import HEALTHY, SCRAPE, Ints

POLICY = Path(__file__).parents[2] / "deploy" / "prometheus" / "gates.yaml"
GATE = "connect-success"
SEED = 20261121
GATEWAYS, PER_MINUTE = 20, 30
STEPS = (1, 5, 20)
HELD_OUT = (1, 5, 19, 20)
OUTAGE_SCRAPES = 40
ROLLOUTS, CHUNK = 2_000, 100
Report = dict[str, Any]
"""The JSON's object `fleet`."""


@dataclass(frozen=True)
class Course:
    """What goes wrong in a rollout: the share of bad logins on changed gateways, from which wave on."""

    name: str
    promise: str
    bad: float = 1 - HEALTHY
    from_wave: int = 1
    outage: float = 0.0
    steps: tuple[int, ...] = STEPS


COURSES = (
    Course("late", "fails 12 % from the second wave on", bad=0.12, from_wave=2),
    Course("late_held_out", "the same with a hold-out", bad=0.12, from_wave=2, steps=HELD_OUT),
    Course("subtle", ".985 becomes .95 wherever it runs", bad=0.05),
    Course("false", "nothing is wrong"),
    Course("false_held_out", "the same with a hold-out", steps=HELD_OUT),
    Course("outage", "30 % fail everywhere for ten minutes, in some wave", outage=0.30),
)


@dataclass(frozen=True)
class FleetJob:
    """Some rollouts of one course."""

    course: Course
    runs: int
    seed: int


@dataclass(frozen=True)
class End:
    """How a rollout ended: promoted, turned round or held, in which wave, after how many seconds watched."""

    how: str
    wave: int
    seconds: float


def _jobs(part: int) -> Iterator[FleetJob]:
    """Yield the work; every piece has its own seed."""
    seed = SEED
    for course in COURSES:
        runs = ROLLOUTS // part
        for start in range(0, runs, CHUNK):
            seed += 1
            yield FleetJob(course, min(CHUNK, runs - start), seed)


def _run(job: FleetJob) -> list[End]:
    """Return how each rollout of the job ended."""
    random = np.random.default_rng(job.seed)
    policy = load(POLICY, GatePolicy)
    gate = next(gate for gate in policy.gates if gate.id == GATE)
    alone = gate.model_copy(update={"placebo": False})  # the sums of a side are one gateway here
    policy = policy.model_copy(update={"gates": (alone,), "min_controls": 1})
    return [_rollout(policy.over_waves(len(job.course.steps)), job.course, random) for _ in range(job.runs)]


def _rollout(policy: GatePolicy, course: Course, random: np.random.Generator) -> End:
    state, before, seconds = WindowState(), 0, 0.0
    struck = int(random.integers(1, len(course.steps) + 1)) if course.outage else 0
    for wave, upto in enumerate(course.steps, start=1):
        sides = {"canary": upto - before, "before": before, "control": GATEWAYS - upto}
        state, action = _window(policy, course, sides, wave, next_window(state), random, struck == wave)
        seconds += state.wall
        if action is Action.ROLL_BACK:
            return End("turned round", wave, seconds)
        if action is not Action.PROMOTE:
            return End("held", wave, seconds)
        before = upto
    return End("promoted", len(course.steps), seconds)


def _window(
    policy: GatePolicy,
    course: Course,
    sides: dict[str, int],
    wave: int,
    state: WindowState,
    random: np.random.Generator,
    struck: bool,
) -> tuple[WindowState, Action]:
    cohorts = Cohorts(
        canary=("canary",),
        changed_before=("before",) if sides["before"] else (),
        control=("control",) if sides["control"] else (),
    )
    scrapes = ceil(policy.window.cap / policy.scrape) + 1
    counts = {side: _counts(course, side, n, wave, scrapes, random) for side, n in sides.items() if n}
    if struck:
        _strike(counts, course.outage, random)
    hour = int(policy.baseline.total_seconds() / 60) * PER_MINUTE * sides["control"]
    baseline = {GATE: (hour, int(random.binomial(hour, 1 - HEALTHY)))} if hour else {}
    action = Action.CONTINUE
    for scrape in range(scrapes):
        row = {side: (int(total[scrape]), int(bad[scrape])) for side, (total, bad) in counts.items()}
        tick = Tick(at=1_000.0 + SCRAPE * scrape, counts={GATE: row}, baseline=baseline)
        state, decision = fold_tick(policy, policy.window, cohorts, state, tick)
        action = decision.action
        if action in {Action.PROMOTE, Action.ROLL_BACK, Action.HOLD_FOR_HUMAN}:
            break
    return state, action


Drawn = tuple[Ints, Ints]


def _counts(
    course: Course, side: str, gateways: int, wave: int, scrapes: int, random: np.random.Generator
) -> Drawn:
    """Draw what all gateways of a side count at each scrape."""
    total = random.poisson(gateways * PER_MINUTE * SCRAPE / 60, scrapes)
    failing = side != "control" and wave >= course.from_wave
    return total, random.binomial(total, course.bad if failing else 1 - HEALTHY)


def _strike(counts: dict[str, Drawn], outage: float, random: np.random.Generator) -> None:
    """Let everybody fail for a while from some scrape of the first ten minutes on; half of the time the
    scrapes of one side show it one scrape later.
    """
    begins, late = int(random.integers(0, OUTAGE_SCRAPES)), str(random.choice(["control", "canary", "", ""]))
    for side, (total, bad) in counts.items():
        first = begins + (side == late)
        struck = slice(first, first + OUTAGE_SCRAPES)
        bad[struck] = random.binomial(total[struck], outage)


def measure_fleet(workers: Executor, part: int) -> Report:
    """Return how whole rollouts end, `part` being the part of them that is left out."""
    ends: dict[str, list[End]] = {}
    jobs = list(_jobs(part))
    for job, found in zip(jobs, workers.map(_run, jobs), strict=True):
        ends.setdefault(job.course.name, []).extend(found)
    return _report(ends)


def fleet_bars(report: Report) -> Iterator[dict[str, Any]]:
    """Yield the bars on whole rollouts."""
    yield bar(8, "promoted though it fails 12 % from the second wave on", report["late_promoted"], 0)
    yield bar(8, ".95: back before the last wave", report["subtle_turned_round"], 0.95, least=True)
    yield bar(8, "whole rollouts turned round without cause", report["false"], 0.005)
    yield bar(8, "turned round in an outage of all", report["outage"], 0.005)


def _report(ends: dict[str, list[End]]) -> Report:
    """Return the promised shares, and of each course how its rollouts ended."""
    late = [*ends["late"], *ends["late_held_out"]]
    false = [*ends["false"], *ends["false_held_out"]]
    return {
        "rollouts": len(ends["late"]),
        "late_promoted": _share(late, "promoted"),
        "subtle_turned_round": _share(ends["subtle"], "turned round", before=len(STEPS)),
        "false": _share(false, "turned round"),
        "outage": _share(ends["outage"], "turned round"),
        "courses": {course.name: _course(ends[course.name], course.steps) for course in COURSES},
    }


def _course(ends: Sequence[End], steps: Sequence[int]) -> dict[str, float]:
    shares = {how.replace(" ", "_"): _share(ends, how) for how in ("promoted", "turned round", "held")}
    waves = {f"turned_round_in_wave_{wave}": _in_wave(ends, wave) for wave in range(1, len(steps) + 1)}
    return shares | waves | {"watched_p50_s": float(np.median([end.seconds for end in ends]))}


def _in_wave(ends: Sequence[End], wave: int) -> float:
    return sum(end.how == "turned round" and end.wave == wave for end in ends) / len(ends)


def _share(ends: Sequence[End], how: str, before: int | None = None) -> float:
    return sum(end.how == how and (before is None or end.wave < before) for end in ends) / len(ends)


def print_fleet(report: Report) -> None:
    """Print how the rollouts of each course ended."""
    print(f"\n{(__doc__ or '').strip()}\n")
    for course in COURSES:
        found = report["courses"][course.name]
        waves = [f"{found[f'turned_round_in_wave_{n}']:.1%}" for n in range(1, len(course.steps) + 1)]
        ends = f"promoted {found['promoted']:.2%}, turned round {found['turned_round']:.2%}"
        rest = f"(by wave {' / '.join(waves)}), held {found['held']:.2%}"
        print(course.promise.ljust(52), f"{ends} {rest}; watched {found['watched_p50_s']:.0f} s (median)")
