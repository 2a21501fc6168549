"""Chaos: rollouts struck at every step boundary, each judged by what is true on the hosts afterwards."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deploy.lab.faults import Fault
from deploy.lab.lab import lab
from policies.model.plan import Strategy
from tests.chaos.cases import Case, Run
from tests.chaos.deck import SCOUTS, Deck
from tests.chaos.runs import Chaos, shape

SCOUTED = 3
RESUMED_WITHIN = 5.0
"""Seconds in which 95 of 100 runs of each strategy, and of each fault, go on after it."""


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Make the runs, print a line for each and the table; 1 when one of them was not as it must be."""
    parser = argparse.ArgumentParser(prog="bench chaos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, help="as many as it takes to strike everywhere, unless given")
    parser.add_argument(
        "--strategy",
        action="append",
        type=Strategy,
        choices=[*Strategy],
        help="only this one; may be given again",
    )
    chosen = parser.parse_args(arguments)
    runs = asyncio.run(_runs(chosen.seed, chosen.runs, chosen.strategy or [*Strategy]))
    figures = summary(runs)
    print(table(figures))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    bad = figures["unsafe_endings"] + figures["duplicate_effects"] + figures["sessions_lost"]
    return 1 if bad or figures["late"] else 0


async def _runs(seed: int, count: int | None, strategies: Sequence[Strategy]) -> list[Run]:
    async with lab(_say, shape()) as built:
        chaos = Chaos(built, built.installation.changes.client)
        await chaos.open()
        scouts = [await _scouted(chaos, case) for case in SCOUTS if case.strategy in strategies]
        deck = Deck(scouts, strategies)
        cases = deck.deal(seed, deck.round if count is None else count)
        _say(
            f"{deck.size} places to strike at, all of them in {deck.round} runs; {len(cases)} runs, "
            f"seed {seed}, about {_minutes(_as_long_as(scouts, case) for case in cases)} by the runs so far"
        )
        runs: list[Run] = []
        for case in cases:
            runs.append(await _told(chaos, case))
            mean = statistics.mean(run.took for run in runs)
            left = len(cases) - len(runs)
            _say(f"{len(runs)} of {len(cases)} runs are made, the others take {_minutes([mean] * left)}")
        return runs


async def _scouted(chaos: Chaos, case: Case) -> Run:
    """Make a run without a fault until it ends as it should: a busy machine fails some by itself."""
    for _ in range(SCOUTED):
        run = await _told(chaos, case)
        if not run.unsafe:
            break
    return run


async def _told(chaos: Chaos, case: Case) -> Run:
    run = await chaos.run(case)
    faults = [*run.unsafe, *run.doubled, *(f"a session was lost, {words}" for words in run.lost)]
    resumed = "-" if run.resumed is None else f"{run.resumed:.1f} s"
    state = "NOT AS IT MUST BE: " + "; ".join(faults) if faults else run.outcome
    met = "" if run.struck or case.fault is None else " (the boundary was not met)"
    _say(f"{case}: {state}{met}, {run.took:.1f} s, resumed after {resumed}, ready after {run.ready:.1f} s")
    return run


def _as_long_as(scouts: Iterable[Run], case: Case) -> float:
    """Return the seconds that scouts took in the same direction, if possible with the same strategy."""
    took = [run.took for run in scouts if run.case.direction is case.direction]
    same = [
        run.took
        for run in scouts
        if (run.case.direction, run.case.strategy) == (case.direction, case.strategy)
    ]
    return statistics.mean(same or took)


def _minutes(seconds: Iterable[float]) -> str:
    return f"{sum(seconds) / 60:.0f} min"


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of all runs, by strategy, by kind of fault, and by both.

    A run whose boundary was not met is a run all the same; only who was struck resumes. `late`
    names the strategies and faults after which too many runs did not go on in time.
    """
    made = [strategy for strategy in Strategy if any(run.case.strategy is strategy for run in runs)]
    parts = {
        "by_strategy": {
            strategy.value: _with_faults([run for run in runs if run.case.strategy is strategy])
            for strategy in made
        },
        "by_fault": _by_fault(runs),
    }
    rows = [row for part in parts.values() for row in part.items()]
    late = [name for name, row in rows if row["resume_seconds"].get("p95", 0.0) > RESUMED_WITHIN]
    struck = [run for run in runs if run.struck]
    return {
        **_figures(runs),
        "not_met": len(runs) - len(struck),
        "boundaries": len({(run.case.direction, run.case.boundary) for run in struck}),
        "late": late,
        **parts,
    }


def _with_faults(runs: Sequence[Run]) -> dict[str, Any]:
    return _figures(runs) | {"by_fault": _by_fault(runs)}


def _by_fault(runs: Sequence[Run]) -> dict[str, Any]:
    return {fault.value: _figures([run for run in runs if run.case.fault is fault]) for fault in Fault}


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "unsafe_endings": sum(bool(run.unsafe) for run in runs),
        "duplicate_effects": sum(len(run.doubled) for run in runs),
        "sessions_lost": sum(len(run.lost) for run in runs),
        "resumed": sum(run.resumed is not None for run in runs),
        "resume_seconds": _percentiles([run.resumed for run in runs if run.resumed is not None]),
        "resume_seconds_once_ready": _percentiles(
            [max(0.0, run.resumed - run.ready) for run in runs if run.resumed is not None]
        ),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    cuts = statistics.quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 19
    return {"p50": round(cuts[9], 2), "p95": round(cuts[18], 2), "max": round(max(seconds), 2)}


def table(figures: dict[str, Any]) -> str:
    """Return the figures by strategy and kind of fault, and the sums of both."""
    heads = [*_COUNTS.values(), "p50", "p95", "max", "p95 once ready"]
    lines = [f"{'strategy':12}{'fault':14}" + "".join(f"{head:>{len(head) + 3}}" for head in heads)]
    for strategy, row in [*figures["by_strategy"].items(), ("all", figures)]:
        for fault, part in [*row["by_fault"].items(), ("all", row)]:
            cells = "".join(
                f"{cell:>{len(head) + 3}}" for head, cell in zip(heads, _cells(part), strict=True)
            )
            lines.append(f"{strategy:12}{fault:14}{cells}")
    lines.append(f"{figures['boundaries']} boundaries were struck; {figures['not_met']} runs met none")
    late = ", ".join(figures["late"]) or "nowhere"
    lines.append(f"more than 5 of 100 runs took longer than {RESUMED_WITHIN:.0f} s to go on: {late}")
    return "\n".join(lines)


_COUNTS = {
    "runs": "runs",
    "unsafe_endings": "unsafe",
    "duplicate_effects": "doubled",
    "sessions_lost": "lost",
    "resumed": "resumed",
}


def _cells(row: dict[str, Any]) -> list[str]:
    seconds = [row["resume_seconds"].get(key) for key in ("p50", "p95", "max")]
    seconds.append(row["resume_seconds_once_ready"].get("p95"))
    return [str(row[key]) for key in _COUNTS] + ["-" if one is None else f"{one:.1f}" for one in seconds]


def _say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)
