"""What the judge decides on real bad days, and how soon: rollouts in labs with real gateways and Prometheus.

Several labs share the runs, each with its own gateways, users, control plane and Prometheus.
A fault of a release, or of what all gateways share, gets a rollout of its own. Faults of the
metrics come one after the other while a healthy release is watched, which must hold through
each of them and go on after it.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.lab.bad_days import DOOR_PORT, BadDays, Door
from deploy.lab.lab import Shape, lab
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from policies.model.errors import PenstockError
from tests.bench.live_runs import KINDS, Run, spend

LABS = 2
GATEWAYS = 3


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print one row per kind of bad day; 0 when there were all runs and every decision was right."""
    chosen = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if chosen.lab is not None:
        _be_a_lab(chosen)
    began = time.monotonic()
    runs: list[Run] = []
    with suppress(KeyboardInterrupt):  # what there is by then is worth showing
        asyncio.run(_all_labs(chosen, runs))
    rows = [_row(name, [run for run in runs if run.kind == name]) for name in chosen.kinds]
    console = Console(width=120)
    console.print(_table(rows))
    console.print(f"{len(runs)} runs in {chosen.labs} labs at a time took {time.monotonic() - began:.0f} s")
    for run in runs:
        if not run.right:
            console.print(f"WRONG {run.kind}: {run.action}, {run.verdict}: {run.reason}", markup=False)
    if json_path:
        document = {"kinds": rows, "runs": [run.as_json() for run in runs]}
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(row["right"] == row["runs"] == chosen.runs for row in rows) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench live", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind (20)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no new round after these (60)")
    parser.add_argument("--labs", type=int, default=LABS, help=f"labs at the same time ({LABS})")
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=list(KINDS), help=", ".join(KINDS)
    )
    parser.add_argument("--lab", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.kinds) - set(KINDS))
    if unknown:
        parser.error(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    chosen.labs = max(1, min(chosen.labs, chosen.runs))
    return chosen


# --- all labs -------------------------------------------------------------------


async def _all_labs(chosen: argparse.Namespace, runs: list[Run]) -> None:
    """Start the labs one after the other, since they share what they build; add every run when it is over."""
    labs: list[Process] = []
    listening: list[asyncio.Task[None]] = []
    try:
        for number in range(chosen.labs):
            lab_process = await _start(chosen, number)
            labs.append(lab_process)
            listening.append(asyncio.create_task(_listen(lab_process, runs)))
        await asyncio.gather(*listening)
    finally:
        for process in labs:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()


async def _start(chosen: argparse.Namespace, number: int) -> Process:
    mine = len(range(number, chosen.runs, chosen.labs))
    command = [sys.executable, "-m", "tests.bench", "live", "--lab", str(number)]
    command += ["--runs", str(mine), "--minutes", str(chosen.minutes), "--kinds", ",".join(chosen.kinds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    if process.stdout:
        await process.stdout.readline()  # its first line says that it is built
    return process


async def _listen(process: Process, runs: list[Run]) -> None:
    if process.stdout is not None:
        async for line in process.stdout:
            runs.append(Run(**json.loads(line)))  # noqa: PERF401 - each as it comes


# --- one lab --------------------------------------------------------------------


def _be_a_lab(chosen: argparse.Namespace) -> None:
    """Keep a lab of its own up and tell of its runs on standard output, of itself on standard error."""

    def tell(sentence: str) -> None:
        sys.stderr.write(f"lab {chosen.lab}: {sentence}\n")

    def tell_run(run: Run) -> None:
        print(json.dumps(run.as_json()), flush=True)
        right = "right" if run.right else "WRONG"
        tell(f"{right}: {run.kind}: {run.action} after {run.seconds} s: {run.reason}")

    async def live() -> None:
        shape = Shape(
            prefix=f"psl{chosen.lab}-",
            folder=f"lab-live-{chosen.lab}",
            gateways=GATEWAYS,
            sites=GATEWAYS,
            metrics_port=DOOR_PORT,
        )
        async with lab(tell, shape) as built, Door(built).open() as door:
            print("built", flush=True)
            await spend(built, BadDays(built, door), chosen.kinds, chosen.runs, chosen.minutes, tell_run)

    code = int(ExitCode.DONE)
    try:
        asyncio.run(live())
    except PenstockError as error:
        tell(f"{error.code}: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.DETACHED
    leave(code)


# --- the table ------------------------------------------------------------------


def _row(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    again = [run.back_to_work for run in runs if run.back_to_work is not None]
    return {
        "kind": name,
        "runs": len(runs),
        "right": sum(run.right for run in runs),
        "decisions": dict(Counter(f"{run.action}/{run.verdict}" for run in runs)),
        "seconds": _spread(seconds),
        "back_to_work": _spread(again),
        "sessions_lost": sum(run.sessions_lost for run in runs),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return {"p50": round(cuts[9], 2), "p95": round(cuts[18], 2), "max": max(values)}


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Bad days judged live: seconds from fault to decision", title_justify="left")
    for title in ("kind", "runs", "right", "decision", "p50", "p95", "max", "goes on after"):
        table.add_column(title, no_wrap=title == "kind", overflow="fold")
    for row in rows:
        seconds, again = row["seconds"] or {}, row["back_to_work"] or {}
        table.add_row(
            row["kind"],
            str(row["runs"]),
            str(row["right"]),
            ", ".join(row["decisions"]),
            *(f"{seconds[key]:.1f} s" if seconds else "-" for key in ("p50", "p95", "max")),
            f"{again['p50']:.1f} s" if again else "-",
        )
    return table
