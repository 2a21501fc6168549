"""The agent of a node as a process of its own, for tests of what rights it needs; it tells what it found.

`python -m tests.drivers.node_agent FOLDER TAG stage SLOT`, then `… run PLACED` once the pod is there.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from activities.drivers.runtime.host.path import GatewayPath
from activities.snapshots import Evidence
from policies.model.placement import Placed
from tests.drivers.gateway_lab import operation
from tests.drivers.node_lab import NodeLab


async def stage(lab: NodeLab, slot: str) -> dict[str, Any]:
    release = lab.admission.release("1")
    await lab.table.prime()
    staged = await lab.node.stage(operation("stage"), release, "lab", slot)
    return {"changed": staged.changed}


async def run(lab: NodeLab, said: str) -> dict[str, Any]:
    placed, release = Placed.model_validate_json(said), lab.admission.release("1")
    started = await lab.node.start(operation("start"), release, placed)
    probe = await lab.node.probe(placed.slot)
    tests = await lab.node.inspect(operation("inspect"), placed.slot)
    (walked,) = (await GatewayPath(lab.folders, lab.table).walk()).tried
    steering = await lab.table.make_permanent(operation("keep"), placed.slot)
    reloaded = await lab.node.reload(operation("reload"), older=True)
    frozen = await lab.snapshots.freeze(operation("snapshot"), Evidence(reason="a test"))
    again = await lab.node.resume()
    return {
        "executable": started.state.instance(placed.slot).executable,
        "probe": [probe.passed, probe.reason],
        "walked": [walked.let_in, walked.small, walked.full],
        "tests": {one.test: one.measured for one in tests},
        "serving": steering.serving,
        "reloaded": reloaded.slots,
        "frozen": frozen,
        "sessions": again.instance(placed.slot).sessions,
        "preflight": await lab.node.preflight(release),
    }


def rights() -> dict[str, Any]:
    """Return which capabilities this process has, and whether it can write beside its own folder."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in status if line.startswith("CapEff"))
    return {"capabilities": int(effective, 16), "writes": os.access(Path(sys.argv[1]), os.W_OK)}


async def main() -> None:
    folder, tag, step, said = Path(sys.argv[1]), *sys.argv[2:5]
    lab = NodeLab(folder, tag)
    lab.compose()
    found = await (stage if step == "stage" else run)(lab, said)
    print(json.dumps(found | rights()))


if __name__ == "__main__":
    asyncio.run(main())
