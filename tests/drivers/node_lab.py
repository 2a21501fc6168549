"""A scratch gateway that is a node: its agent, and a stand-in for the kubelet that runs its pods."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from activities.drivers.daemon.port import Daemon, Secret
from activities.drivers.runtime.pods.adoption import NoAdoption
from activities.drivers.runtime.pods.pod_folders import PodFolders
from activities.drivers.runtime.pods.slots import PodSlots
from activities.instances import Staged, Started
from policies.model.drain import Uncounted
from policies.model.errors import Refused
from policies.model.instance import GatewayState
from policies.model.operation import Operation
from policies.model.placement import Placed, Placement
from policies.model.plan import ReleaseRef
from tests.drivers.gateway_lab import GatewayLab
from tests.drivers.kubelet_stand_in import Container, KubeletStandIn

NOBODY = "00000000-0000-4000-8000-000000000000"
"""A uid that no pod has."""


class NodeLab(GatewayLab):
    """The namespaces, files and parts of one node; `placed` is its agent with a cluster around it."""

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        super().__init__(folder, tag, clients)
        self.gateway = self.gateway.model_copy(
            update={"runtime": "kubernetes", "placement": Placement(cluster="berlin", node="gw-1")}
        )
        self.root = folder / "p"
        self.containers: dict[str, Container] = {}
        """What runs there by slot, whichever agent looks at it."""

    def _made_folders(self, daemon: Daemon) -> PodFolders:
        self.pods = PodFolders(self.gateway, self.root, daemon)
        return self.pods

    def _compose_slots(self, credentials: Mapping[str, Secret]) -> None:
        self.nothing_adopted = NoAdoption(self.gateway)
        self.node = PodSlots(
            self.pods, self.journal, self.table, self.admission, credentials, self.nothing_adopted
        )
        self.slots = self.node
        self.kubelet = KubeletStandIn(self.pods, self.admission, self.containers)
        self.placed = PlacedSlots(self)

    def reset(self) -> None:
        """Forget everything but the network, the credentials and the tree."""
        self.containers.clear()
        super().reset()

    async def running(self, version: str, epoch: int = 1) -> str:
        """Ensure that the release is staged, placed and runs; return its slot."""
        return (await self.placed.installed(self.admission.release(version), epoch)).slot


class PlacedSlots:
    """A node's agent between what a cluster does before it and after it, as a change has them do it.

    It offers what an agent of a host does, which needs no cluster.
    """

    def __init__(self, lab: NodeLab) -> None:
        self._lab = lab
        agent = lab.node
        self.observe, self.preflight = agent.observe, agent.preflight
        self.probe, self.inspect = agent.probe, agent.inspect
        self.mirror, self.load = agent.mirror, agent.load
        self.fence, self.restore = agent.fence, agent.restore
        self.reload, self.configure, self.take_back = agent.reload, agent.configure, agent.take_back

    async def installed(self, release: ReleaseRef, epoch: int) -> Started:
        stage = Operation(rollout="r-1", epoch=epoch, gateway="gw-1", step="stage", digest=release.digest)
        await self.stage(stage, release, "lab")
        return await self.start(stage.model_copy(update={"step": "start"}), release)

    async def stage(
        self, operation: Operation, release: ReleaseRef, source: str, slot: str | None = None
    ) -> Staged:
        slot = slot or await self._slot_for(operation, release)
        return await self._lab.node.stage(operation, release, source, slot)

    async def start(self, operation: Operation, release: ReleaseRef, placed: Placed | None = None) -> Started:
        agent, kubelet = self._lab.node, self._lab.kubelet
        if not self._lab.folders.versions.complete(release.digest):
            nothing = Placed(gateway="gw-1", slot="a", instance=NOBODY, image=self._lab.admission.image)
            return await agent.start(operation, release, placed or nothing)
        slot = (await agent.observe()).running(release.digest, release.executable)
        if slot is None:
            slot = await self._slot_for(operation, release)
            await agent.stage(operation.model_copy(update={"step": "restage"}), release, "lab", slot)
        return await agent.start(operation, release, placed or await kubelet.place(slot))

    async def stop(
        self, operation: Operation, slot: str, uncounted: Uncounted = Uncounted.NONE
    ) -> GatewayState:
        stopped = await self._lab.node.stop(operation, slot, uncounted)
        await self._lab.kubelet.remove(slot)
        return (await self._lab.node.observe()).model_copy(update={"changed": stopped.changed})

    async def _slot_for(self, operation: Operation, release: ReleaseRef) -> str:
        """Return the slot that has the release, else one that nobody uses; an empty pod there is ended."""
        agent, folders = self._lab.node, self._lab.pods
        for folder in folders:
            if folder.release == release:
                return folder.slot.name
        state = await agent.observe()
        users = (state.steering.serving, state.steering.trial)
        unused = [one.slot for one in state.instances if one.slot not in users and one.sessions == 0]
        if not unused:
            raise Refused((await agent.preflight(release))[0])
        empty = [slot for slot in unused if folders.of(slot).process() is None]
        if not empty:
            await self.stop(operation.model_copy(update={"step": f"empty {unused[0]}"}), unused[0])
        return (empty or unused)[0]


def freeze(lab: NodeLab, slot: str) -> None:
    """Have the daemon of that pod say nothing any more, alive as it is."""
    os.kill(lab.kubelet.daemon_of(slot), signal.SIGSTOP)
