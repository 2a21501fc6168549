"""Instances that a cluster starts and ends for its gateways: prepare a slot, place it on a node, remove it.

A gateway's own agent still does everything else: it verifies the release, lays out the config of the slot,
probes, steers, counts and drains. The cluster's driver is asked before an instance is there, and when it is
empty.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import Field
from temporalio import activity

from activities.liveness import answering
from policies.model.operation import Operation
from policies.model.placement import NodeLook, NodeName, Placed
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Message, Name, Sentence, Token

MOST_LOOKED_AT = 50
"""Gateways of one look: as many as a batch has."""


class PrepareOrder(Message):
    """Have one slot of the whole cluster hold this release, verified, before any node is given it.

    The operation names the cluster in place of a gateway.
    """

    operation: Operation
    release: ReleaseRef
    source: str


class Prepared(Message):
    """The slot whose instances are of this release wherever they are placed, and its image by digest."""

    cluster: Name
    slot: Name
    image: Digest
    changed: bool


class PlaceOrder(Message):
    """Start the instance of a prepared slot on the gateway's node, beside whatever runs there."""

    operation: Operation
    node: NodeName
    slot: Name
    image: Digest


class RemoveOrder(Message):
    """End the instance of a slot on the gateway's node, which nobody uses any more."""

    operation: Operation
    node: NodeName
    slot: Name
    instance: Token | None = Field(
        default=None, description="exactly this one; None where it is not known, as after a crash"
    )


class Removed(Message):
    """What became of an instance that was to be ended."""

    gateway: Name
    slot: Name
    gone: bool
    """False where it was told to end and still does, as while its last users are there: ask once more."""
    changed: bool
    why: Sentence = ""
    """What the cluster says of one that is not gone, or of another one that has taken its place."""


class LookOrder(Message):
    """Look at the nodes of these gateways, each by its own name."""

    cluster: Name
    nodes: dict[Name, NodeName] = Field(max_length=MOST_LOOKED_AT)
    back: dict[Name, ReleaseRef] = Field(
        default={},
        max_length=MOST_LOOKED_AT,
        exclude_if=lambda back: not back,
        description="what gateways go back to, of which it is asked whether it would start again",
    )
    source: str = Field(default="", exclude_if=lambda source: not source)
    """Where signatures that others have made since may be."""


Looks = Annotated[tuple[NodeLook, ...], Field(max_length=MOST_LOOKED_AT)]
"""One look for each gateway that was asked for."""


class Cluster(Protocol):
    """What starts and ends instances on nodes."""

    async def prepare(self, operation: Operation, release: ReleaseRef, source: str) -> Prepared:
        """Verify the release and have a slot hold its image, which no node is told to run yet.

        Raises:
            TrustError: nobody who may has signed it, or it has no image.
            Refused: every slot is in use by another release somewhere; drains have to end first.
        """
        ...

    async def place(self, operation: Operation, node: str, slot: str, image: Digest) -> Placed:
        """Ensure that the slot's instance runs on the node, with exactly this image.

        Raises:
            Fenced: a newer change owns the gateway.
            Refused: the node is cordoned, not ours or not there, or the slot holds another image by now.
            Unavailable: it is not up in time, said why; a repeat goes on waiting for it.
        """
        ...

    async def remove(self, operation: Operation, node: str, slot: str, instance: str | None) -> Removed:
        """Ensure that the slot's instance on the node is told to end, and wait until it is gone.

        Raises:
            Fenced: a newer change owns the gateway.
        """
        ...

    async def look(
        self, nodes: Mapping[str, str], back: Mapping[str, ReleaseRef] | None = None, source: str = ""
    ) -> Sequence[NodeLook]:
        """Return what is true of these gateways' nodes now; nothing is changed.

        Of gateways with a release to go `back` to also why the cluster would not prepare that again.
        """
        ...


class PlacementActivities:
    """Steps of a cluster; safe to repeat after any crash."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @activity.defn(name="prepare_slot")
    async def prepare_slot(self, order: PrepareOrder) -> Prepared:
        """Ensure that one slot of the cluster holds the release."""
        async with answering():
            return await self._cluster.prepare(order.operation, order.release, order.source)

    @activity.defn(name="place_instance")
    async def place_instance(self, order: PlaceOrder) -> Placed:
        """Ensure that the slot's instance runs on the node."""
        async with answering():
            return await self._cluster.place(order.operation, order.node, order.slot, order.image)

    @activity.defn(name="remove_instance")
    async def remove_instance(self, order: RemoveOrder) -> Removed:
        """Ensure that the slot's instance is gone from the node."""
        async with answering():
            return await self._cluster.remove(order.operation, order.node, order.slot, order.instance)

    @activity.defn(name="look_at_nodes")
    async def look_at_nodes(self, order: LookOrder) -> Looks:
        """Return what is true of these gateways' nodes now."""
        async with answering():
            return tuple(await self._cluster.look(order.nodes, order.back, order.source))
