"""What befalls a gateway that is a node while a release is on trial there, by no order of ours."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from deploy.cluster.lab import ClusterLab
from deploy.kubernetes.chart import NAMESPACE
from deploy.lab.lab import FLEET

DARK = 8.0
"""Seconds without power: longer than the gates want to be sure, shorter than a cluster takes to notice."""

Stranger = Callable[[ClusterLab, str, str], Awaitable[None]]
"""What befalls this gateway, on which the release is on trial in this slot."""


async def unlabels(one: ClusterLab, gateway: str, slot: str) -> None:
    """Take the slot's label from the node, as an administrator may."""
    labels = {f"penstock.dev/{FLEET}.{slot}": None}
    await asyncio.to_thread(
        one.ground.real.plane.admin.merge, f"/api/v1/nodes/{gateway}", {"metadata": {"labels": labels}}
    )


async def loses_power(one: ClusterLab, gateway: str, slot: str) -> None:
    """Cut the node's power, and give it back."""
    one.ground.real.nodes[gateway].lose_power()
    await asyncio.sleep(DARK)
    one.give_power(gateway)


async def deletes_by_force(one: ClusterLab, gateway: str, slot: str) -> None:
    """Delete the slot's pod with no grace."""
    admin = one.ground.real.plane.admin
    selector = f"penstock.dev/fleet={FLEET},penstock.dev/slot={slot}"
    pods = admin.every(
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        labelSelector=selector,
        fieldSelector=f"spec.nodeName={gateway}",
    )
    for pod in pods:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
        admin.ask("DELETE", path, {"gracePeriodSeconds": 0})


async def deletes_the_node(one: ClusterLab, gateway: str, slot: str) -> None:
    """Delete the node's object; its kubelet is started again and registers it without any label of ours."""
    real = one.ground.real
    real.plane.admin.ask("DELETE", f"/api/v1/nodes/{gateway}")
    await asyncio.sleep(1.0)
    real.nodes[gateway].kill("kubelet")
    await asyncio.to_thread(real.wait_ready, gateway)
    labels = {f"penstock.dev/{FLEET}": "true"}
    real.plane.admin.merge(f"/api/v1/nodes/{gateway}", {"metadata": {"labels": labels}})


STRANGERS: Mapping[str, Stranger] = {
    "UNLABELLED": unlabels,
    "DARK": loses_power,
    "FORCED": deletes_by_force,
    "UNREGISTERED": deletes_the_node,
}
"""By the name of their story, in the order in which it is told."""
