"""A stand-in for a kubelet: it starts and ends ocserv the way a node does with a pod.

A pod has a uid of its own, mounts and pids of its own, its image as its root, the slot's `conf` at
/etc/penstock, the slot's `run/<uid>` at /run/penstock and the slot's `log` for its words; the node's network
and nothing else of it. No scheduler, no cluster and no image store are here: labs with real kubelets have
those.
"""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from activities.drivers.runtime.pods.pod import pod_at
from activities.drivers.runtime.pods.pod_folders import PodFolder, PodFolders
from policies.model.placement import Placed
from tests.drivers.gateway_lab import TreeAdmission
from tests.patience import until

ENDS_WITHIN = 5.0
"""Seconds; a container that ignores SIGTERM is killed after its grace."""

POD = """set -e
root=$1 config=$2 run=$3; shift 3
mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"
mount --bind "$config" "$root/etc/penstock"; mount -o remount,bind,ro "$root/etc/penstock"
mount --bind "$run" "$root/run/penstock"
mount -t tmpfs -o mode=1777,size=16m tmpfs "$root/tmp"
exec chroot "$root" "$@"
"""


@dataclass
class Container:
    """What runs in one pod: its uid stays when it is started again, its process does not."""

    slot: str
    uid: str
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class KubeletStandIn:
    """The pods of one node."""

    def __init__(
        self, folders: PodFolders, admission: TreeAdmission, containers: dict[str, Container]
    ) -> None:
        self._folders = folders
        self._admission = admission
        self.containers = containers

    async def place(self, slot: str) -> Placed:
        """Have a pod run in the slot, as a node that is given its label does; a repeat changes nothing."""
        before = self.containers.get(slot)
        there = before if before is not None and before.alive else self._run(slot, str(uuid4()))
        self.containers[slot] = there
        await self._listens(there)
        return Placed(
            gateway=self._folders.gateway.name,
            slot=slot,
            instance=there.uid,
            image=self._admission.image,
            changed=there is not before,
        )

    async def remove(self, slot: str) -> None:
        """End the pod, as a node does that loses the slot's label: politely, then by force."""
        container = self.containers.pop(slot, None)
        if container is not None:
            await self._end(container)

    async def restart(self, slot: str) -> str:
        """Start the same pod again, as a kubelet does after a crash or a reboot; return its uid."""
        container = self.containers[slot]
        await self._end(container, at_once=True)
        container.process = self._run(slot, container.uid).process
        await self._listens(container)
        return container.uid

    async def lose(self, slot: str) -> None:
        """Have the pod die, and nothing start it again."""
        await self._end(self.containers.pop(slot), at_once=True)

    def daemon_of(self, slot: str) -> int:
        """Return the number of the daemon's main process, as only the node sees it."""
        return self._first(self.containers[slot])

    def _folder(self, slot: str) -> PodFolder:
        return self._folders.pod(slot)

    def _run(self, slot: str, uid: str) -> Container:
        folder = self._folder(slot)
        (folder.path / "run" / uid).mkdir(exist_ok=True)
        place = folder.chroot
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        parts = [str(place.root), str(place.config), str(folder.path / "run" / uid)]
        with folder.log.open("ab") as log:
            process = subprocess.Popen(
                [*enter, "sh", "-c", POD, "pod", *parts, *self._folders.daemon.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Container(slot, uid, process)

    async def _listens(self, container: Container) -> None:
        """Wait until it is ready, as a cluster does before it says where an instance was placed."""
        await self._until(container, listens=True)

    async def _until(self, container: Container, *, listens: bool) -> None:
        """Wait until somebody listens in the pod, or nobody does any more."""
        path = self._folder(container.slot).path / "run" / container.uid

        def is_so() -> bool:
            if (pod_at(path) is not None) is listens:
                return True
            assert container.alive is listens, self._folder(container.slot).last_words()
            return False

        await until(is_so)

    async def _end(self, container: Container, *, at_once: bool = False) -> None:
        """Have the pod's first process end, and with it all others."""
        if container.alive and not at_once:
            os.kill(self._first(container), signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(container.process.wait, ENDS_WITHIN)
        if container.alive:
            container.process.kill()
        await asyncio.to_thread(container.process.wait)
        await self._until(container, listens=False)

    @staticmethod
    def _first(container: Container) -> int:
        outside = container.process.pid
        return int(Path(f"/proc/{outside}/task/{outside}/children").read_text().split()[0])
