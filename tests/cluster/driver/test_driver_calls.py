"""What a change costs the API server: calls of the driver, as its audit log counts them."""

import asyncio
import time

import pytest

from deploy.cluster.api import Api
from deploy.cluster.audit import counted
from deploy.cluster.control_plane import ControlPlane
from policies.model.errors import Unavailable
from policies.model.placement import Placed
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import AGENT, Driven, driver, image, order, pods, release

BATCH = 50
MOST_CALLS = 2.4
"""For each gateway: two writes, and a share of what a wave asks."""
MORE_A_SECOND = 1.0
"""A busy machine's pods are looked at for longer; what that costs on an idle one is in the bench."""
MOST_A_SECOND = 50


async def wave(one: Driven, nodes: list[str], number: int, running: dict[str, Placed]) -> None:
    """Have these gateways run a release, and end what they ran before, batch after batch."""
    for first in range(0, len(nodes), BATCH):
        batch = nodes[first : first + BATCH]
        slot = await one.prepare(number, epoch=number, rollout=f"rollout-{number}")
        placing = [one.cluster.place(order(node, number), node, slot, image(number)) for node in batch]
        placed = await asyncio.gather(*placing)
        ending = [
            one.cluster.remove(order(node, number), node, old.slot, None)
            for node in batch
            if (old := running.get(node)) is not None
        ]
        assert all(removed.gone for removed in await asyncio.gather(*ending))
        running |= {found.gateway: found for found in placed}


@pytest.mark.sweep
@pytest.mark.timeout(400)
async def test_a_hundred_gateways_cost_two_writes_each_and_a_share_of_the_looks_fifty_a_second(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    gateways, one = nodes(100), driver(driven)
    running: dict[str, Placed] = {}
    await wave(one, gateways, 1, running)
    place, began = driven.audit.position(), time.monotonic()
    for first, last in ((0, 1), (1, 5), (5, 25), (25, 100)):
        await wave(one, gateways[first:last], 2, running)
    took = time.monotonic() - began
    made = [request for request in driven.audit.since(place) if request.agent == AGENT]
    calls = counted(made)
    print(f"{len(made)} calls in {took:.1f} s: {dict(calls)}")
    assert calls["patch", "nodes"] == 2 * len(gateways)
    assert len(made) <= MOST_CALLS * len(gateways) + MORE_A_SECOND * took
    seconds = sorted(request.at.timestamp() for request in made)
    busiest = max(sum(second <= at < second + 1 for at in seconds) for second in seconds)
    assert busiest <= MOST_A_SECOND
    assert len({found.instance for found in running.values()}) == len(gateways)
    assert {pod["spec"]["containers"][0]["image"][-4:] for pod in pods(admin)} == {image(2)[-4:]}
    assert len(pods(admin)) == len(gateways)


@pytest.mark.sweep
@pytest.mark.timeout(120)
async def test_in_a_fleet_of_many_pages_counts_tell_when_to_list_and_a_list_why_one_is_not_up(
    driven: ControlPlane, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.nodes.PAGE", 10)
    gateways, one = nodes(24), driver(driven, up=8)
    await wave(one, gateways[:12], 1, {})
    place, began = driven.audit.position(), time.monotonic()
    await wave(one, gateways[12:], 1, {})
    took = time.monotonic() - began
    calls = counted(request for request in driven.audit.since(place) if request.agent == AGENT)
    assert calls["list", "pods"] <= 2 + MORE_A_SECOND * took, f"in {took:.1f} s"
    one.vouched.images[release(2).digest] = never_pulled = f"sha256:{'bad0' * 16}"
    slot = await one.prepare(2, epoch=2, rollout="rollout-2")
    placing = [one.cluster.place(order(node, 2), node, slot, never_pulled) for node in gateways]
    for refused in await asyncio.gather(*placing, return_exceptions=True):
        assert isinstance(refused, Unavailable)
        assert "ErrImagePull" in str(refused) or "ImagePullBackOff" in str(refused)
