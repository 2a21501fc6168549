"""The slots of a node: folders that its pods mount, and the pods that are found running by them.

A slot's folder has what its pod needs from the node: `conf`, mounted as its configuration, `run` with a
folder for each pod by its uid, and `log`, to which the pod appends what its daemon says. Nothing here
starts or ends a pod. Which one is to be believed is what the cluster has proved, and is kept in `state.json`.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.port import Daemon
from activities.drivers.disk import write_whole
from activities.drivers.runtime.host.process import Alive
from activities.drivers.runtime.host.reloads import different
from activities.drivers.runtime.host.slot_folders import OURS, SlotFolder, SlotFolders
from activities.drivers.runtime.host.versions import Versions
from activities.drivers.runtime.pods.place import PodPlace
from activities.drivers.runtime.pods.pod import CONTROL, UID, Pod, pod_at
from policies.model.errors import BadInput
from policies.model.fleet import Gateway, Slot
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef

LONGEST_SOCKET = 107
"""Bytes that a socket's path may have (unix(7))."""
UID_LETTERS = 36
FORGOTTEN_AFTER = timedelta(hours=1)
"""A pod's folder is there some time before its daemon is; one that is older and silent is left over."""


class PodFolder(SlotFolder):
    """One slot's folder on a node, and the pod in it."""

    def __init__(self, gateway: Gateway, slot: Slot, root: Path, versions: Versions) -> None:
        """Make what a pod mounts from the node, so that it is there and is ours before any pod is.

        Raises:
            BadInput: The agent's root is so long that no pod's socket could be reached.
        """
        super().__init__(gateway, slot, root, versions)
        path = self.path / "run" / ("0" * UID_LETTERS) / CONTROL
        if len(os.fsencode(path)) > LONGEST_SOCKET:
            raise BadInput(
                f"{path} is longer than the {LONGEST_SOCKET} bytes of a socket's path: choose a shorter root"
            )
        self.log.touch(OURS)
        self.log.chmod(OURS)

    @property
    def proven(self) -> str | None:
        """The uid of the pod that the cluster has proved to run what this slot was given."""
        found = self.state.get("placed")
        return str(found["instance"]) if found else None

    @property
    def placed(self) -> str:
        """The uid of that pod as long as it is wanted here, whether it runs or not."""
        return (self.proven or "") if self.state.get("wanted") else ""

    @property
    def chroot(self) -> PodPlace:
        """The folders of the pod that runs; without one those that it would have."""
        running = self.process()
        run = self.path / "run" / running.uid if running else self.path / "run"
        root = (self.path / "current").resolve() / "root"
        return PodPlace(self._gateway, self.slot, root, self.path / "conf", run)

    def process(self) -> Pod | None:
        """Return the proven pod while it runs; else any that does, which is told and never believed.

        Raises:
            Unavailable: The kernel does not say who listens.
        """
        found = [pod for folder in self._of_pods() if (pod := pod_at(folder)) is not None]
        release, proven = self.release, self.proven
        believed = next((pod for pod in found if release is not None and pod.uid == proven), None)
        if believed is None or release is None:
            return next(iter(found), None)
        return Pod(
            believed.uid, believed.socket, believed.inode, believed.made, believed.boot, release.executable
        )

    @property
    def start(self) -> bytes:
        """Which start of which pod runs here; empty where none does."""
        running = self.process()
        return running.name.encode() if running else b""

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come up here any more: of a pod only its cluster knows."""
        return False

    def prove(self, release: ReleaseRef, placed: Placed) -> None:
        """Write down for good that exactly this pod is meant to run here, and that its image was compared."""
        state = {
            "release": release.model_dump(mode="json"),
            "wanted": True,
            "placed": {"instance": placed.instance, "image": placed.image},
        }
        write_whole(self.path / "state.json", json.dumps(state))

    def has_config_of(self, release: ReleaseRef) -> bool:
        """Whether a pod that starts now finds a config of exactly this release."""
        return self.release == release and any((self.path / "conf").iterdir())

    def forget_ended(self) -> None:
        """Remove what pods have left that ended long ago; no cluster removes these folders."""
        for folder in list(self._of_pods()):
            silent = time.time() - folder.stat().st_mtime
            if silent > FORGOTTEN_AFTER.total_seconds() and pod_at(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _of_pods(self) -> Iterator[Path]:
        for entry in os.scandir(self.path / "run"):
            if UID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)

    def _replace_config(self, new: Path) -> None:
        """Put the config in place; one that says the same stays, since a pod may be mounting it."""
        there = self.path / "conf"
        if different(new, there) or different(there, new):
            super()._replace_config(new)
        else:
            shutil.rmtree(new)


class PodFolders(SlotFolders):
    """All slots of one node, and the pods in them now."""

    sees_processes = False
    signed_words = (
        "its node runs the image that was signed, by its cluster's word; files are not looked at in a pod"
    )

    def __init__(self, gateway: Gateway, root: Path, daemon: Daemon) -> None:
        self._pods: dict[str, PodFolder] = {}
        super().__init__(gateway, root, daemon)

    def _folder_of(self, slot: Slot) -> PodFolder:
        return self._pods.setdefault(slot.name, PodFolder(self.gateway, slot, self.root, self.versions))

    @property
    def adopted(self) -> None:
        """Nothing is adopted on a node."""
        return

    def pod(self, slot: str) -> PodFolder:
        """Return the slot's folder; BadInput when the gateway has no such slot."""
        self.of(slot)
        return self._pods[slot]

    def is_proven(self, slot: str) -> bool:
        """Whether what runs in the slot is what its cluster proved."""
        running = self.pod(slot).process()
        return running is not None and running.executable is not None

    def unsigned_file(
        self,
        folder: SlotFolder,  # noqa: ARG002 - a pod is proven as a whole
        running: Alive,
        release: ReleaseRef,
    ) -> str | None:
        """Return what runs there instead of the proven pod, None for that one."""
        if running.executable == release.executable:
            return None
        return f"pod {running.name.partition('.')[0]}, which its cluster did not prove,"
