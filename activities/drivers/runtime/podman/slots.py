"""Instances that are containers in the slots of a gateway's host: the steps of a host, with podman's ways.

Who may order, what may start, who gets new sessions, how they are counted and when an instance may end is a
host's. What differs is here: an image beside the tree, a store that takes it, a name that a stranger may
have, and what podman says of a container before anybody is sent to it.
"""

import fcntl
import shutil
from contextlib import suppress
from datetime import timedelta

from activities.drivers.disk import sync_folder, sync_tree
from activities.drivers.runtime.host.journal import exclusive
from activities.drivers.runtime.host.process import Alive
from activities.drivers.runtime.host.slot_folders import PATIENCE, SlotFolder
from activities.drivers.runtime.host.slots import DOWN_WITHIN, HostSlots
from activities.drivers.runtime.podman.container_folders import ContainerFolder, ContainerFolders
from activities.drivers.runtime.podman.podman import describe
from activities.instances import Staged
from activities.refusals import RunningMismatch
from policies.model.errors import PenstockError, Refused
from policies.model.instance import GatewayState
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.value import Digest

HALF_LAID = "image.new"


class ContainerSlots(HostSlots):
    """The slots of one gateway, in whose network namespace this process lives."""

    _folders: ContainerFolders

    async def preflight(
        self, release: ReleaseRef, source: str = "", *, given_up: bool = False
    ) -> tuple[str, ...]:
        """Return every reason why the release cannot be put here; nothing is changed."""
        missing = await self._folders.podman.missing()
        return (*missing, *await super().preflight(release, source, given_up=given_up))

    async def _laid_out(self, operation: Operation, release: ReleaseRef, source: str) -> Staged:
        """Ensure that the release's tree is on the host, and its image in the store of podman.

        The tree is what the config is tested in. The image lies beside it, so that a store that was
        emptied is filled again without the release's source.

        Raises:
            Refused: when this host cannot run containers.
        """
        if lacking := await self._folders.podman.missing():
            raise Refused(f"{self._gateway.name} runs no containers: {lacking[0]}")
        staged = await super()._laid_out(operation, release, source)
        async with exclusive(self._folders.root / "staging.lock"):
            laid = await self._lay_image(release, source)
            taken = await self._folders.podman.take(self._folders.versions.path(release.digest) / "image")
            with suppress(PenstockError):  # what nobody needs any more may be removed by the next one
                await self._folders.podman.keep_only(self._folders.images())
        return staged.model_copy(update={"changed": staged.changed or laid or taken})

    async def _lay_image(self, release: ReleaseRef, source: str) -> bool:
        """Ensure that the image lies beside the tree, whole; return whether it had to be fetched."""
        version = self._folders.versions.path(release.digest)
        if (version / "image").is_dir():
            return False
        admitted = await self._admission.reconsider(release, host=await self._host())
        shutil.rmtree(version / HALF_LAID, ignore_errors=True)
        await self._admission.lay_image(admitted, source, version / HALF_LAID)
        describe(version / HALF_LAID)
        sync_tree(version / HALF_LAID)
        (version / HALF_LAID).rename(version / "image")
        sync_folder(version)
        return True

    async def _verified(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Refuse as a host does; then have the image in the store, and nothing in the container's place."""
        await super()._verified(folder, release)
        if isinstance(folder, ContainerFolder):
            await self._folders.podman.take(folder.image)
            await folder.make_room()

    async def _up(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Wait until the instance takes logins, then compare what runs with what was signed."""
        await super()._up(folder, release)
        running = folder.process()
        if not isinstance(folder, ContainerFolder) or running is None:
            return
        if stranger := await folder.stranger(running, self._image_of(release)):
            await self._end(folder, running)
            raise RunningMismatch(
                f"{stranger} runs in slot {folder.slot.name} of {self._gateway.name} and was not signed for "
                f"{release.product} {release.version}; it was ended before it got a user"
            )

    async def _settle(self) -> None:
        for folder in self._folders.containers:
            # What podman does not say now, or no disk takes, is not known, and so not believed.
            with suppress(PenstockError, OSError):
                await folder.settle(folder.release, self._image_of(folder.release))

    async def _observe(self, patience: timedelta) -> GatewayState:
        """Return what is true now; who is in no hurry looks for containers whose process is not known."""
        if patience >= PATIENCE and any(
            folder.state.get("wanted") and folder.process() is None for folder in self._folders.containers
        ):
            with (self._folders.root / "slots.lock").open("a") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever holds it has looked
                await self._settle()
        return await super()._observe(patience)

    async def _end(self, folder: SlotFolder, running: Alive, politely: timedelta = DOWN_WITHIN) -> None:
        """End exactly this process as a host does; what is left of its container is removed."""
        await super()._end(folder, running, politely)
        if isinstance(folder, ContainerFolder):
            with suppress(PenstockError):  # the next start in this slot removes it
                await folder.clear()

    def _image_of(self, release: ReleaseRef | None) -> Digest | None:
        manifest = self._folders.versions.manifest_or_none(release.digest) if release else None
        return manifest.image_digest if manifest else None
