"""Play a sample of chaos and the outer rings on one lab: `python -m tests.chaos.play FILE`.

A process of its own: a lab lives in a network namespace, and the threads of whoever ran
before are in another one.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.lab.faults import Fault
from deploy.lab.lab import lab
from orchestrator.processes.leaving import leave
from policies.model.plan import Strategy
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.deck import TURN
from tests.chaos.rings import Rings
from tests.chaos.runs import Chaos, shape
from tests.chaos.watching import BEGUN, DONE, UNDER_WAY, Boundary

SAMPLE = (
    Case(
        Direction.FORWARDS,
        Strategy.CANARY,
        Fault.WORKER_KILLED,
        Boundary("batch 1", "start_instance", UNDER_WAY),
    ),
    Case(Direction.FORWARDS, Strategy.ROLLING, Fault.ENGINE_KILLED, Boundary("change", "child Wave", DONE)),
    Case(
        Direction.FORWARDS, Strategy.CANARY, Fault.AGENT_KILLED, Boundary("batch 2", "make_permanent", BEGUN)
    ),
    Case(
        Direction.JUDGED_BACK,
        Strategy.CANARY,
        Fault.WORKER_FROZEN,
        Boundary("watch 1", "watch_wave", UNDER_WAY),
    ),
    Case(
        Direction.ASKED_BACK,
        Strategy.ROLLING,
        Fault.AGENT_KILLED,
        Boundary("restore", "restore_gateway", UNDER_WAY),
        TURN,
    ),
    Case(
        Direction.TAKEN_BACK,
        Strategy.BLUE_GREEN,
        Fault.ENGINE_KILLED,
        Boundary("restore", "restore_gateway", BEGUN),
    ),
)


async def _told(chaos: Chaos, case: Case) -> Run:
    run = await chaos.run(case)
    print(f"{case}: {run.outcome}, {run.took:.1f} s", *run.unsafe, *run.doubled, *run.lost, flush=True)
    return run


async def play() -> dict[str, Any]:
    """Return what came of every run and every ring."""
    async with lab(print, shape(prefix="psr-", folder="lab-rings")) as built:
        chaos = Chaos(built, built.installation.changes.client)
        await chaos.open()
        runs = [await _told(chaos, case) for case in SAMPLE]
        rings = Rings(chaos)
        lost = built.users.view()["totals"]["lost"]
        returned = [*await rings.leases(), await rings.terminated(), await rings.engine_lost()]
        after = await chaos.run(Case(Direction.FORWARDS, Strategy.CANARY))
        return {
            "runs": [
                {
                    "case": str(run.case),
                    "met": run.struck is not None,
                    "unsafe": run.unsafe,
                    "doubled": run.doubled,
                    "lost": run.lost,
                    "resumed": run.resumed,
                }
                for run in runs
            ],
            "rings": {ring.what: asdict(ring) for ring in returned},
            "lost_in_the_rings": built.users.view()["totals"]["lost"] - lost,
            "after": after.unsafe,
        }


if __name__ == "__main__":
    told = asyncio.run(play())
    Path(sys.argv[1]).write_text(json.dumps(told, indent=2) + "\n")
    leave(0)
