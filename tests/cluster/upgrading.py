"""Signed releases on two real nodes with live users, by every strategy, while nodes and people misbehave.

`python -m tests.cluster.upgrading` tells what became of each change as a line of JSON: how it ended and why,
what the users lost meanwhile, and which release serves new users then. Given names of
stories it tells those alone.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.cluster.control_plane import API
from deploy.cluster.lab import NODES, ClusterLab, cluster_lab
from deploy.cluster.node import SERVICES
from deploy.debian import image
from deploy.debian.__main__ import epoch
from deploy.kubernetes.chart import NAMESPACE
from deploy.lab.lab import LIMITS
from orchestrator.processes.leaving import leave
from orchestrator.publishing.image import BuiltImage
from policies.model.change import Phase
from policies.model.errors import Unavailable
from policies.model.instance import InstanceState
from policies.model.plan import ReleaseRef, Strategy
from tests.cluster.agent_pods import agent_pods, delete_pods, into_pods
from tests.cluster.strangers import STRANGERS, Stranger
from tests.patience import PATIENCE

PREFIX = "pstu-"
DRAIN = timedelta(minutes=30)
"""Longer than all stories together: what is lost before is lost by a change, not by its deadline."""
SHAPE = replace(
    NODES,
    prefix=PREFIX,
    folder="lab-upgrading",
    limits=LIMITS.model_copy(update={"drain_deadline": DRAIN}),
)
PERSON, ORDER = "erika", "seen enough of it"
"""Who orders to go back, and why."""
_LOOK = 0.2
_DOWN = 2.0
"""Seconds that the API server is away."""
_COUNTED = 5.5
"""Seconds until a ping without an answer counts as lost."""

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


async def a_person_goes_back_from_a_crash(one: ClusterLab) -> None:
    """Kill every part while everybody is watched, and order the way back before all is there again."""
    await everything_crashes(one)
    await one.lab.roll_back(PERSON, ORDER)


async def changed(
    one: ClusterLab, release: ReleaseRef, meanwhile: Meanwhile, strategy: Strategy = Strategy.CANARY
) -> dict[str, Any]:
    """Roll a release out; return what became of it, and what the users saw."""
    lab, before, began = one.lab, one.lab.users.view(), time.monotonic()
    await lab.start(await lab.plan(release, strategy), "the nodes' own test")
    while (await lab.status()).phase not in (Phase.OBSERVING, Phase.ENDED):  # noqa: ASYNC110 - it is elsewhere
        await asyncio.sleep(_LOOK)
    await meanwhile(one)
    result = await lab.result()
    status, took = await lab.status(), time.monotonic() - began
    await asyncio.sleep(_COUNTED)
    after = lab.users.view()
    states = (await lab.states()).values()
    return {
        "outcome": result.outcome,
        "reason": result.reason,
        "verdict": result.decision.verdict if result.decision else None,
        "aside": result.aside,
        "story": [event.sentence for event in status.events],
        "took": round(took, 1),
        **_seen(before, after),
        "up": after["totals"]["up"],
        "serving": sorted({str(state.serving.release) for state in states if state.serving}),
        "images": sorted(images_of(one)),
    }


async def befallen(one: ClusterLab, release: ReleaseRef, stranger: Stranger) -> dict[str, Any]:
    """Roll a release out by canary, and have something befall its first gateway while that is watched."""
    hit: list[str] = []

    async def meanwhile(lab: ClusterLab) -> None:
        on_trial = [at for at in (await lab.lab.status()).gateways if at.state == "on trial"]
        if len(on_trial) != 1:
            raise Unavailable(f"one gateway was to be on trial, and there are {on_trial}")
        serving = (await lab.lab.every_state())[on_trial[0].gateway].serving
        if serving is None:
            raise Unavailable(f"{on_trial[0].gateway} says of no instance that it is on trial")
        hit.append(on_trial[0].gateway)
        await stranger(lab, on_trial[0].gateway, serving.slot)

    before = one.lab.users.view()
    told = await changed(one, release, meanwhile)
    await answered_again(one)
    await asyncio.sleep(_COUNTED)  # what is lost here is not the next story's
    after = one.lab.users.view()
    others = {user["name"] for user in after["users"] if user["gateway"] not in hit}
    return {
        **told,
        **_seen(before, after),
        "hit": hit,
        "others": _seen(_only(before, others), _only(after, others)),
        "up": after["totals"]["up"],
    }


async def answered_again(one: ClusterLab) -> None:
    """Return when every user has had an answer since now: a tunnel into a dead gateway looks up for long.

    Raises:
        Unavailable: somebody has none in time.
    """
    users, deadline = one.lab.users, time.monotonic() + PATIENCE
    before = {user["name"]: user["pings"]["answered"] for user in users.view()["users"]}
    while silent := [
        user["name"] for user in users.view()["users"] if user["pings"]["answered"] == before[user["name"]]
    ]:
        if time.monotonic() > deadline:
            raise Unavailable(f"no ping of {', '.join(silent)} is answered within {PATIENCE:g} s")
        await asyncio.sleep(_LOOK)


async def a_new_day(one: ClusterLab) -> None:
    """Have all users log out and in again, and wait until nothing runs any more but what serves them.

    Raises:
        Unavailable: an older instance does not end in time.
    """
    users = one.lab.users
    await asyncio.to_thread(users.come_back, [user["name"] for user in users.view()["users"]])
    await asyncio.to_thread(users.wait_until_up)
    deadline = time.monotonic() + PATIENCE
    while left := [
        f"slot {instance.slot} of {state.gateway}"
        for state in (await one.lab.every_state()).values()
        for instance in state.instances
        if instance.state is InstanceState.RUNNING and instance != state.serving
    ]:
        if time.monotonic() > deadline:
            raise Unavailable(f"not ended {PATIENCE:g} s after its last user left: {', '.join(left)}")
        await asyncio.sleep(_LOOK)


def images_of(one: ClusterLab) -> set[str]:
    """Return the images that the nodes report of their gateways' pods."""
    pods = one.ground.real.plane.admin.every(f"/api/v1/namespaces/{NAMESPACE}/pods")
    return {status["imageID"] for pod in pods for status in pod["status"].get("containerStatuses", [])}


def _only(view: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the view of these users, with totals of what they may lose."""
    users = [user for user in view["users"] if user["name"] in names]
    pings = {what: sum(user["pings"][what] for user in users) for what in ("sent", "lost")}
    return {"users": users, "totals": {"lost": sum(user["lost"] for user in users), "pings": pings}}


def _seen(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Return what users lost between two views of them."""
    old, new = before["totals"], after["totals"]
    return {
        "lost": new["lost"] - old["lost"],
        "pings": new["pings"]["sent"] - old["pings"]["sent"],
        "pings_lost": new["pings"]["lost"] - old["pings"]["lost"],
    }


async def agents_in_pods(one: ClusterLab, made: BuiltImage, release: ReleaseRef) -> dict[str, Any]:
    """Have agents go on as pods of the chart; roll a release out while those are all deleted once."""
    before = one.lab.users.view()
    await into_pods(one, made)
    told = await changed(one, release, delete_pods)
    return {**told, **_seen(before, one.lab.users.view()), "agents": len(agent_pods(one))}


async def main(wanted: list[str]) -> None:
    """Tell the stories in turn: each begins on what the one before has left."""
    with tempfile.TemporaryDirectory(prefix="penstock-agents-") as blobs:
        agents = image.make(Path(blobs), epoch())  # what it is made of comes from outside of the lab
        await _told(wanted, agents)


async def _told(wanted: list[str], agents: BuiltImage) -> None:
    async with cluster_lab(print, SHAPE) as one:
        lab, began = one.lab, time.monotonic()
        another, third = lab.offers.again("second"), lab.offers.again("third")
        for release in (another, third):
            await lab.add(release)

        async def tell(name: str, story: Callable[[], Awaitable[dict[str, Any]]]) -> None:
            if not wanted or name in wanted:
                print(name, json.dumps(await story()), flush=True)
                print(f"{name} ends {time.monotonic() - began:.0f} s after the lab was up", flush=True)

        print("FIRST", json.dumps({"up": lab.figures()["up"], "images": sorted(images_of(one))}), flush=True)
        await tell("NEWER", lambda: changed(one, lab.newer, everything_crashes))
        await tell("FAULTY", lambda: changed(one, lab.faulty, nothing))
        await a_new_day(one)
        await tell("ROLLING", lambda: changed(one, another, everything_crashes, Strategy.ROLLING))
        await a_new_day(one)
        await tell(
            "BLUE_GREEN",
            lambda: changed(one, third, a_person_goes_back_from_a_crash, Strategy.BLUE_GREEN),
        )
        for name, stranger in STRANGERS.items():
            await tell(name, lambda stranger=stranger: befallen(one, third, stranger))  # type: ignore[misc]
        await a_new_day(one)
        await tell("PODS", lambda: agents_in_pods(one, agents, third))
        names = {"newer": lab.newer.digest, "another": another.digest, "third": third.digest}
        print("NAMES", json.dumps({**names, "users": len(lab.topology.sites)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
    leave(0)
