"""Signed releases on two real nodes with live users: there, there again while all crashes, and back.

`python -m tests.cluster.upgrading` tells what became of each change as a line of JSON: how it ended, what the
users lost meanwhile, and which image each node says that it runs for new users.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from deploy.cluster.control_plane import API
from deploy.cluster.lab import NAMESPACE, NODES, ClusterLab, cluster_lab
from deploy.cluster.node import SERVICES
from orchestrator.processes.process import leave
from policies.model.change import Phase
from policies.model.plan import ReleaseRef, Strategy

PREFIX = "pstu-"
SHAPE = replace(NODES, prefix=PREFIX, folder="lab-upgrading")
_LOOK = 0.2
_DOWN = 2.0
"""Seconds that the API server is away."""

Meanwhile = Callable[[ClusterLab], Awaitable[None]]


async def nothing(one: ClusterLab) -> None:
    """Let the change go on."""


async def everything_crashes(one: ClusterLab) -> None:
    """Kill containerd, kubelet and kube-proxy of each node and the API server, all of which come back."""
    for node in one.ground.real.nodes.values():
        for service in SERVICES:
            node.kill(service)
    plane = one.ground.real.plane
    plane.kill(API)
    await asyncio.sleep(_DOWN)
    await asyncio.to_thread(plane.start_again, API)


async def changed(one: ClusterLab, release: ReleaseRef, meanwhile: Meanwhile) -> dict[str, Any]:
    """Roll a release out by canary; return what became of it, and what the users saw."""
    lab, before = one.lab, one.lab.figures()
    await lab.start(await lab.plan(release, Strategy.CANARY), "the nodes' own test")
    while (await lab.status()).phase not in (Phase.OBSERVING, Phase.ENDED):  # noqa: ASYNC110 - it is elsewhere
        await asyncio.sleep(_LOOK)
    await meanwhile(one)
    result, after = await lab.result(), lab.figures()
    states = (await lab.states()).values()
    return {
        "outcome": result.outcome,
        "reason": result.reason,
        "lost": after["lost"] - before["lost"],
        "pings": after["pings"]["sent"] - before["pings"]["sent"],
        "pings_lost": after["pings"]["lost"] - before["pings"]["lost"],
        "up": after["up"],
        "running": sorted({state.serving.executable for state in states if state.serving}),
        "images": sorted(images_of(one)),
    }


def images_of(one: ClusterLab) -> set[str]:
    """Return the images that the nodes report of their gateways' pods."""
    pods = one.ground.real.plane.admin.every(f"/api/v1/namespaces/{NAMESPACE}/pods")
    return {status["imageID"] for pod in pods for status in pod["status"].get("containerStatuses", [])}


async def main() -> None:
    """Change the lab's fleet to the newer release while all crashes, then to the faulty one."""
    async with cluster_lab(print, SHAPE) as one:
        lab = one.lab
        print("FIRST", json.dumps({"up": lab.figures()["up"], "images": sorted(images_of(one))}), flush=True)
        print("NEWER", json.dumps(await changed(one, lab.newer, everything_crashes)), flush=True)
        print("FAULTY", json.dumps(await changed(one, lab.faulty, nothing)), flush=True)
        print(
            "NAMES", json.dumps({"newer": lab.newer.executable, "users": len(lab.topology.sites)}), flush=True
        )


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
