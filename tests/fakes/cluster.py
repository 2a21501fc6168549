"""A cluster in memory: slots that hold an image, nodes that are told to run some, and what befalls them.

It is told what it runs on by the fake gateways that are its nodes: what it places on one of them is an
instance there, and what it removes takes the instance's people with it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from activities.placement import Prepared, Removed
from policies.model.errors import Fenced, PenstockError, Refused, Unavailable
from policies.model.fleet import Gateway
from policies.model.instance import InstanceState
from policies.model.operation import Operation
from policies.model.placement import NodeLook, Placed, Placement
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.fakes.gateway import FakeGateway, FakeSlot


def image_of(release: ReleaseRef) -> str:
    """Return the digest of the image that the release's manifest names."""
    return digest_of(f"{release.version} image".encode())


@dataclass
class FakeNode:
    """One node: whose gateway it is, which slots it is told to run, and what its cluster says of it."""

    gateway: FakeGateway
    told: set[str] = field(default_factory=set)
    there: bool = True
    ready: bool = True
    cordoned: bool = False
    strange: tuple[str, ...] = ()
    instead: dict[str, str] = field(default_factory=dict)
    """What is there by now in place of what was placed in a slot."""
    epoch: int = 0
    """Of the change that wrote to it last."""


class FakeCluster:
    """One cluster; tests speak to it through its port, and as whoever else has rights there."""

    def __init__(self, name: str, gateways: Sequence[FakeGateway]) -> None:
        self.name = name
        self.nodes = {place_of(fake.gateway).node: FakeNode(fake) for fake in gateways}
        self.slots: dict[str, ReleaseRef | None] = {
            slot.name: None for fake in gateways for slot in fake.gateway.slots
        }
        """What each slot's instances are of, wherever they are placed."""
        self.no_way_back = ""
        """Why what its nodes go back to would not be prepared again."""
        self.effects: list[str] = []
        """What was changed for the whole cluster, oldest first: `prepare b` …"""
        self.lies: dict[str, dict[str, object]] = {}
        """Fields of the next answers, by step, that are not what is true."""
        self._failures: dict[str, list[PenstockError]] = defaultdict(list)
        self._uids = count(1)

    # --- what tests do to it -------------------------------------------------------

    def serve(self, release: ReleaseRef) -> None:
        """Let the release run on every node for months, as after an installation."""
        slot = next(iter(self.slots))
        self.slots[slot] = release
        for node in self.nodes.values():
            node.told.add(slot)
            node.gateway.serve(release, slot)
            node.gateway.slots[slot].instance = self._uid()

    def fail(self, step: str, error: PenstockError, times: int = 1) -> None:
        """Let the next calls of that method raise the error instead."""
        self._failures[step] += [error] * times

    def recover(self, step: str) -> None:
        """Let the calls of that method work again."""
        self._failures[step].clear()

    def unlabel(self, gateway: str, slot: str) -> None:
        """Take the slot from the node as a stranger does: whoever is there is cut."""
        node = self.node_of(gateway)
        node.told.discard(slot)
        node.gateway.crash(slot)
        node.gateway.slots[slot] = FakeSlot()
        node.strange = (f"node {gateway} was to run slot {slot} and is not told so any more",)

    def delete(self, gateway: str, slot: str) -> None:
        """Delete the instance in the slot by force, as a stranger does: whoever is there is cut."""
        node = self.node_of(gateway)
        node.gateway.crash(slot)
        node.instead[slot] = self._uid()

    def node_of(self, gateway: str) -> FakeNode:
        """Return the node that is this gateway."""
        return next(node for node in self.nodes.values() if node.gateway.gateway.name == gateway)

    # --- Cluster -------------------------------------------------------------------

    async def prepare(self, operation: Operation, release: ReleaseRef, source: str) -> Prepared:
        """Have the first slot that no node is told to run hold the release, unless one does."""
        self._maybe_fail("prepare")
        holding = next((slot for slot, held in self.slots.items() if held == release), None)
        free = [slot for slot in self.slots if not any(slot in node.told for node in self.nodes.values())]
        if holding is None and not free:
            raise Refused("every slot is in use by another release; drains have to end first")
        slot = holding or free[0]
        self.slots[slot] = release
        if holding is None:
            self.effects.append(f"prepare {slot}")
        answer = Prepared(cluster=self.name, slot=slot, image=image_of(release), changed=holding is None)
        return answer.model_copy(update=self.lies.get("prepare"))

    async def place(self, operation: Operation, node: str, slot: str, image: str) -> Placed:
        """Run the slot's instance on the node, whose agent has laid out its config."""
        self._maybe_fail("place")
        at, release = self._begin(operation, node), self.slots[slot]
        if release is None or image_of(release) != image:
            raise Refused(f"slot {slot} holds another image by now")
        if not at.there or (at.cordoned and slot not in at.told):
            raise Refused(f"node {node} is cordoned or not there")
        if not at.ready:
            raise Unavailable(f"node {node} is not ready")
        changed = slot not in at.told or at.epoch != operation.epoch
        at.told.add(slot)
        at.epoch = operation.epoch
        fake = at.gateway
        if fake.laid_out.get(slot) != release.digest:
            raise Unavailable(f"nothing is up in slot {slot} of {node}")
        if fake.slots[slot].state is not InstanceState.RUNNING:
            fake.slots[slot] = FakeSlot(
                state=InstanceState.RUNNING, started_at=fake.now(), instance=self._uid(), image=release
            )
            fake.effects.append(f"place {slot}")
        answer = Placed(
            gateway=fake.gateway.name,
            slot=slot,
            instance=fake.slots[slot].instance,
            image=image,
            changed=changed,
        )
        return answer.model_copy(update=self.lies.get("place"))

    async def remove(self, operation: Operation, node: str, slot: str, instance: str | None) -> Removed:
        """Take the slot from the node; people who are still there lose their session."""
        self._maybe_fail("remove")
        at = self._begin(operation, node)
        fake, changed = at.gateway, slot in at.told
        at.told.discard(slot)
        if changed:
            at.epoch = operation.epoch
            fake.lost += fake.slots[slot].people
            fake.slots[slot] = FakeSlot()
            fake.effects.append(f"remove {slot}")
        answer = Removed(gateway=fake.gateway.name, slot=slot, gone=True, changed=changed)
        return answer.model_copy(update=self.lies.get("remove"))

    async def look(
        self, nodes: Mapping[str, str], back: Mapping[str, ReleaseRef] | None = None, source: str = ""
    ) -> tuple[NodeLook, ...]:
        """Return what is true of these nodes, and whether what they go back to would be prepared again."""
        self._maybe_fail("look")
        looks = {gateway: self._look(gateway, node) for gateway, node in nodes.items()}
        asked = {"no_way_back": self.no_way_back}
        return tuple(
            look.model_copy(update=asked) if gateway in (back or {}) else look
            for gateway, look in looks.items()
        )

    # --- inside --------------------------------------------------------------------

    def _look(self, gateway: str, node: str) -> NodeLook:
        at = self.nodes[node]
        answer = NodeLook(
            gateway=gateway,
            there=at.there,
            ready=at.ready,
            cordoned=at.cordoned,
            slots=tuple(sorted(at.told)),
            instances={
                slot: at.instead.get(slot, uid)
                for slot in at.told
                if (uid := at.gateway.slots[slot].instance)
            },
            strange=at.strange,
            boot=at.gateway.boot,
        )
        return answer.model_copy(update=self.lies.get("look"))

    def _begin(self, operation: Operation, node: str) -> FakeNode:
        """Return the node, unless a newer change has written to it; of the same epoch either may."""
        at = self.nodes[node]
        if operation.epoch < at.epoch:
            raise Fenced(f"node {node} belongs to a change of epoch {at.epoch}", at.epoch)
        return at

    def _maybe_fail(self, step: str) -> None:
        if self._failures[step]:
            raise self._failures[step].pop(0).with_traceback(None)

    def _uid(self) -> str:
        return f"{self.name}-{next(self._uids)}"


def place_of(gateway: Gateway) -> Placement:
    """Return where a gateway that has a placement is."""
    assert gateway.placement is not None
    return gateway.placement
