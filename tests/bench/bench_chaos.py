"""Chaos: rollouts struck at every step boundary, each judged by what is true on the hosts afterwards."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.lab.faults import Fault
from deploy.lab.lab import lab
from tests.chaos.cases import Case, Run
from tests.chaos.deck import SCOUTS, Deck
from tests.chaos.runs import Chaos, shape

SCOUTED = 3


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Make the runs, print a line for each and the table; 1 when one of them was not as it must be."""
    parser = argparse.ArgumentParser(prog="bench chaos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, help="as many as there are boundaries, unless given")
    chosen = parser.parse_args(arguments)
    runs = asyncio.run(_runs(chosen.seed, chosen.runs))
    figures = summary(runs)
    print(table(figures))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    bad = figures["unsafe_endings"] + figures["duplicate_effects"] + figures["sessions_lost"]
    return 1 if bad else 0


async def _runs(seed: int, count: int | None) -> list[Run]:
    async with lab(_say, shape()) as built:
        chaos = Chaos(built, (await built.session.service()).client)
        await chaos.open()
        deck = Deck([await _scouted(chaos, case) for case in SCOUTS])
        cases = deck.deal(seed, deck.size if count is None else count)
        _say(f"{deck.size} boundaries to strike at, {len(cases)} runs, seed {seed}")
        return [await _told(chaos, case) for case in cases]


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


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of all runs that were struck, and by kind of fault."""
    struck = [run for run in runs if run.struck]
    return _figures(struck) | {
        "not_met": len(runs) - len(struck),
        "boundaries": len({(run.case.direction, run.case.boundary) for run in struck}),
        "by_fault": {
            fault.value: _figures([run for run in struck if run.case.fault is fault]) for fault in Fault
        },
    }


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "unsafe_endings": sum(bool(run.unsafe) for run in runs),
        "duplicate_effects": sum(len(run.doubled) for run in runs),
        "sessions_lost": sum(len(run.lost) for run in runs),
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
    """Return the figures by kind of fault, and the sum of all."""
    heads = {"runs": 6, "unsafe": 8, "twice": 7, "lost": 6, "resume p50": 12, "p95": 7, "max": 7}
    heads |= {"once ready p95": 16}
    lines = [f"{'fault':15}" + "".join(f"{head:>{width}}" for head, width in heads.items())]
    for name, row in [*figures["by_fault"].items(), ("all", figures)]:
        resume = "".join(
            f"{row['resume_seconds'].get(key, float('nan')):>{width}.1f}"
            for key, width in (("p50", 12), ("p95", 7), ("max", 7))
        )
        lines.append(
            f"{name:15}{row['runs']:>6}{row['unsafe_endings']:>8}{row['duplicate_effects']:>7}"
            f"{row['sessions_lost']:>6}{resume}"
            f"{row['resume_seconds_once_ready'].get('p95', float('nan')):>16.1f}"
        )
    lines.append(f"{figures['boundaries']} boundaries were struck; {figures['not_met']} runs met none")
    return "\n".join(lines)


def _say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)
