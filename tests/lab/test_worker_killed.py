"""kill -9 of the orchestrator's worker in the middle of a canary's window, on the real lab."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(200),
]

STORY = """
import asyncio, json, sys, time
from deploy.lab.lab import Shape, lab
from policies.model.plan import Strategy
from policies.model.change import Phase
from orchestrator.processes.process import leave

async def until(built, phase):
    while (await built.status()).phase is not phase:
        await asyncio.sleep(0.2)

async def main():
    async with lab(print, Shape(prefix="pstw-", folder="lab-worker", sites=4)) as built:
        before = built.figures()
        await built.start(await built.plan(built.newer, Strategy.CANARY), "a worker is killed")
        await until(built, Phase.OBSERVING)
        await asyncio.sleep(3)
        built.worker.kill()
        await asyncio.sleep(2)
        built.worker.start()
        await until(built, Phase.ENDED)
        result, after = await built.result(), built.figures()
        running = {s.serving.executable for s in (await built.states()).values() if s.serving}
        print("RESULT", json.dumps({
            "outcome": result.outcome, "reason": result.reason, "lost": after["lost"] - before["lost"],
            "pings_lost": after["pings"]["lost"], "running": sorted(running),
            "newer": built.newer.executable,
        }), flush=True)

asyncio.run(main())
leave(0)
"""


def test_a_rollout_ends_the_same_way_when_its_worker_is_killed_in_the_window(tmp_path: Path) -> None:
    with nothing_is_left("pstw-"):
        done = subprocess.run(
            [sys.executable, "-c", STORY],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PENSTOCK_STATE": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert result, done.stdout + done.stderr
    told = json.loads(result[0].removeprefix("RESULT "))
    assert told["outcome"] == "promoted", told
    assert (told["lost"], told["pings_lost"]) == (0, 0)
    assert told["running"] == [told["newer"]]
