"""All steps that a cluster takes for gateways which are nodes of it, and what its answers have to be."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping

from temporalio.exceptions import ActivityError

from activities.placement import (
    LookOrder,
    PlacementActivities,
    PlaceOrder,
    Prepared,
    PrepareOrder,
    RemoveOrder,
)
from policies.model.fleet import GatewayRef
from policies.model.operation import Operation
from policies.model.placement import NodeLook, Placed, Placement
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Name
from workflows import steps
from workflows.answers import answer_of, bad_answer

NOWHERE: Mapping[Name, ReleaseRef] = {}
"""Of nobody it is asked what it goes back to."""


class ClusterSteps:
    """What the cluster does for one gateway."""

    def __init__(self, gateway: GatewayRef, cluster: GatewayRef, place: Placement) -> None:
        self.cluster = cluster
        self.at = place
        self._gateway = gateway.name

    @classmethod
    def of(cls, gateway: GatewayRef) -> "ClusterSteps | None":
        """Return the steps of the gateway's cluster; None where its own host starts its instances."""
        place, cluster = gateway.placement, gateway.cluster
        return cls(gateway, cluster, place) if place is not None and cluster is not None else None

    async def prepare(self, operation: Operation, release: ReleaseRef, source: str) -> Prepared:
        """Have a slot of the whole cluster hold the release, before any node is given it."""
        order = PrepareOrder(
            operation=operation.model_copy(update={"gateway": self.cluster.name}),
            release=release,
            source=source,
        )
        prepared = await answer_of(self.cluster, PlacementActivities.prepare_slot, steps.PREPARE, order)
        if prepared.cluster != self.cluster.name:
            raise bad_answer("prepare_slot", f"cluster {self.cluster.name} answers as {prepared.cluster}")
        return prepared

    async def place(self, operation: Operation, prepared: Prepared) -> Placed:
        """Start the instance of the prepared slot on the gateway's node."""
        order = PlaceOrder(operation=operation, node=self.at.node, slot=prepared.slot, image=prepared.image)
        placed = await answer_of(self.cluster, PlacementActivities.place_instance, steps.PLACE, order)
        if (placed.gateway, placed.slot, placed.image) != (self._gateway, prepared.slot, prepared.image):
            said = f"{placed.image} in slot {placed.slot} of {placed.gateway}"
            wanted = f"{prepared.image} in slot {prepared.slot} of {self._gateway}"
            raise bad_answer("place_instance", f"its cluster has started {said}, and was asked for {wanted}")
        return placed

    async def remove(self, operation: Operation, slot: str) -> None:
        """End the instance of the slot on the gateway's node, which its agent has found unused."""
        order = RemoveOrder(operation=operation, node=self.at.node, slot=slot)
        removed = await answer_of(self.cluster, PlacementActivities.remove_instance, steps.REMOVE, order)
        if (removed.gateway, removed.slot) != (self._gateway, slot):
            said = f"slot {removed.slot} of {removed.gateway}"
            raise bad_answer("remove_instance", f"its cluster speaks of {said}, not of slot {slot}")
        if not removed.gone:
            why = f": {removed.why}" if removed.why else ""
            raise bad_answer(
                "remove_instance", f"slot {slot} is told to end and has not ended{why}", "Unavailable"
            )

    async def look(self) -> NodeLook:
        """Return what the cluster says of the gateway's node."""
        return (await look_at(self.cluster, {self._gateway: self.at.node}))[self._gateway]


async def look_at(
    cluster: GatewayRef, nodes: dict[Name, str], back: Mapping[Name, ReleaseRef] = NOWHERE, source: str = ""
) -> dict[Name, NodeLook]:
    """Return what the cluster says of the nodes of these gateways, each by its gateway's name."""
    back = {name: release for name, release in back.items() if name in nodes}
    order = LookOrder(cluster=cluster.name, nodes=nodes, back=back, source=source)
    looks = await answer_of(cluster, PlacementActivities.look_at_nodes, steps.LOOK_AT_NODES, order)
    if sorted(look.gateway for look in looks) != sorted(nodes):
        raise bad_answer(
            "look_at_nodes", f"cluster {cluster.name} speaks of other gateways than it was asked for"
        )
    return {look.gateway: look for look in looks}


async def look_at_all(
    gateways: Iterable[GatewayRef], back: Mapping[Name, ReleaseRef] = NOWHERE, source: str = ""
) -> dict[Name, NodeLook | ActivityError]:
    """Return what clusters say of these gateways' nodes, or why one says nothing; hosts have none.

    With what gateways go `back` to also whether that would start again, by what the source has of it.
    """
    clusters: dict[Name, dict[Name, str]] = defaultdict(dict)
    asked: dict[Name, GatewayRef] = {}
    for gateway in gateways:
        if (on := ClusterSteps.of(gateway)) is not None:
            asked[on.cluster.name] = on.cluster
            clusters[on.cluster.name][gateway.name] = on.at.node
    if not asked:
        return {}
    found = await asyncio.gather(
        *[look_at(asked[name], nodes, back, source) for name, nodes in clusters.items()],
        return_exceptions=True,
    )
    said: dict[Name, NodeLook | ActivityError] = {}
    for nodes, looks in zip(clusters.values(), found, strict=True):
        if isinstance(looks, ActivityError):
            said |= dict.fromkeys(nodes, looks)
        elif isinstance(looks, BaseException):
            raise looks
        else:
            said |= looks
    return said


class PreparedSlots:
    """The slot of each cluster that holds a release: asked for once, by whoever needs it first."""

    def __init__(self) -> None:
        self._asked: dict[tuple[Name, Digest], asyncio.Task[Prepared]] = {}

    async def of(
        self, cluster: ClusterSteps | None, operation: Operation, release: ReleaseRef, source: str
    ) -> Prepared | None:
        """Return the slot, None where a host starts its instances; whoever failed before asks again.

        Raises:
            ActivityError: The cluster does not have it.
        """
        if cluster is None:
            return None
        key = (cluster.cluster.name, release.digest)
        asked = self._asked.get(key)
        if asked is None or (asked.done() and (asked.cancelled() or asked.exception())):
            asked = self._asked[key] = asyncio.create_task(cluster.prepare(operation, release, source))
        return await asyncio.shield(asked)
