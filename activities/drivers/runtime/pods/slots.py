"""Instances that a cluster starts and ends on a node: the agent prepares, takes what was proved, and steers.

Each step of a host is here, too, with another way where a pod needs one. The agent has no right in the
cluster and sees no process of a pod: it asks the daemon at its socket, and takes the word of the cluster's
own driver for what a pod runs, by the pod's uid. A pod that nobody proved is counted, and trusted by nobody.
"""

import asyncio

from activities.drivers.runtime.host.journal import exclusive
from activities.drivers.runtime.host.slots import HostSlots
from activities.drivers.runtime.pods.pod import UID
from activities.drivers.runtime.pods.pod_folders import PodFolder, PodFolders
from activities.instances import Staged, Started
from policies.adoption import is_adopted
from policies.model.drain import Uncounted
from policies.model.errors import BadInput, Refused
from policies.model.instance import GatewayState, InstanceState
from policies.model.operation import Operation
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef


class PodSlots(HostSlots):
    """The slots of one node, in whose network namespace this process lives."""

    _folders: PodFolders

    async def stage(
        self, operation: Operation, release: ReleaseRef, source: str, slot: str | None = None
    ) -> Staged:
        """Ensure that the release is on the node, and its config where a pod of this slot finds it.

        Its config is tested with the release's own daemon, started by the release's own loader: a chroot
        would need more rights than an agent on a node has.

        Raises:
            BadInput: when no slot is named.
            Refused: when a pod of another release runs in the slot, or the slot gets new sessions and this
                is not its release; when the config test says no; when it would be the gateway's first
                instance, and the node serves already or uses a slot's pool.
        """
        if slot is None:
            raise BadInput(
                f"{self._gateway.name} is a node: say in which slot its cluster is going to start it"
            )
        folder = self._folders.pod(slot)
        staged = await self._laid_out(operation, release, source)
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.admit(operation)
            await self._refuse_unless_empty()
            laid = await self._lay_config(folder, release)
            self._journal.finish(operation, {"slot": slot, "config": folder.config})
        return staged.model_copy(update={"changed": staged.changed or laid})

    async def _lay_config(self, folder: PodFolder, release: ReleaseRef) -> bool:
        """Ensure that the slot has a config of the release; one that a pod reads is left as it is."""
        running, before = folder.process(), folder.release
        if running is not None and folder.has_config_of(release):
            return False
        where = f"slot {folder.slot.name} of {self._gateway.name}"
        if running is not None:
            raise Refused(f"{where} is in use: pod {running.uid} runs there; its cluster has to end it first")
        steering = await self._table.read()
        if before != release and folder.slot.name in (steering.serving, steering.trial):
            raise Refused(
                f"{where} gets new sessions; steer them elsewhere before another release is put there"
            )
        had = folder.config if folder.has_config_of(release) else None
        await asyncio.to_thread(self._assign, folder, release)
        self._require_own_addresses(folder, release)
        await self._verified(folder, release)
        await asyncio.to_thread(folder.forget_ended)
        return folder.config != had

    async def start(self, operation: Operation, release: ReleaseRef, placed: Placed | None = None) -> Started:
        """Ensure that the placed pod is the slot's instance and takes logins; a second call changes nothing.

        Raises:
            BadInput: when it was not placed by a cluster, not on this gateway, or not staged here.
            TrustError: when it may not be started any more: withdrawn, below the floor, or not for this host.
            Refused: when the slot's config is of another release, or the image that runs is not the one
                that the manifest names.
            Unavailable: when the pod takes no logins in time; a repeat goes on waiting for it.
        """
        placed = self._require_placed(release, placed)
        folder = self._folders.pod(placed.slot)
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.admit(operation)
            changed = folder.proven != placed.instance or folder.release != release
            if changed:
                await self._may_start(release)
                self._require_signed(folder, release, placed)
                self._journal.check(operation)
                folder.prove(release, placed)
            return await self._started(operation, folder, release, changed=changed)

    def _require_placed(self, release: ReleaseRef, placed: Placed | None) -> Placed:
        name = self._gateway.name
        if is_adopted(release):
            raise Refused(f"{release.product} {release.version} was adopted, and a node starts only releases")
        if placed is None:
            raise BadInput(f"{name} is a node: its cluster starts {release.product} {release.version} there")
        if placed.gateway != name or UID.fullmatch(placed.instance) is None:
            raise BadInput(f"pod {placed.instance} of {placed.gateway} is none of {name}")
        return placed

    def _require_signed(self, folder: PodFolder, release: ReleaseRef, placed: Placed) -> None:
        """Return if what runs there was proven to be the release's image, with a config of that release."""
        where, what = f"slot {placed.slot} of {self._gateway.name}", f"{release.product} {release.version}"
        if not folder.has_config_of(release):
            raise Refused(f"{where} has no config of {what}; stage it there first")
        signed = self._folders.versions.manifest(release.digest).image_digest
        if signed is None:
            raise Refused(
                f"{what} names no image in its manifest, so no cluster can run it; publish it with one"
            )
        if placed.image != signed:
            raise Refused(
                f"pod {placed.instance} in {where} runs image {placed.image} and {what} is {signed}"
            )

    async def stop(
        self, operation: Operation, slot: str, uncounted: Uncounted = Uncounted.NONE
    ) -> GatewayState:
        """Write down that the pod may end: it has no sessions and gets no new ones. Its cluster ends it.

        Raises:
            Refused: as on a host.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.admit(operation)
            folder = self._folders.pod(slot)
            changed = bool(folder.state.get("wanted"))
            if folder.process() is not None:
                await self._let_go(folder, uncounted)
                self._journal.check(operation)
            folder.want_nothing()
            self._journal.finish(operation, {"stopped": slot})
            return (await self.observe()).model_copy(update={"changed": changed})

    async def resume(self) -> GatewayState:
        """Return what is true: nothing is started here, and a pod that was proven is known by its uid.

        A kubelet starts the same pod again after a reboot, with the same uid and image.
        """
        return await self.observe()

    def _way_back(self, state: GatewayState) -> list[str]:
        """A gateway that serves must do so with what was proven, and have that still on disk, whole."""
        serving = state.steering.serving
        found = state.instance(serving) if serving else None
        if found is None or found.executable is not None or found.state is not InstanceState.RUNNING:
            return super()._way_back(state)
        which = f"the pod that serves in slot {found.slot} of {self._gateway.name}"
        return [f"{which} is not the one that its cluster proved: go back to the known-good, which proves it"]
