"""The lab's gateways as hosts whose instances are containers of podman, made of the releases' images."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from activities.drivers.runtime.podman.podman import VOLATILE, Podman
from deploy.lab import trees
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.ground import Hosts, Tell
from deploy.lab.topology import Claim, Host, Topology
from policies.model.errors import BadInput
from policies.model.fleet import Fleet, Gateway

HYBRID = Path("/sys/fs/cgroup/unified")
"""Where a machine has both versions of control groups, which crun refuses (1.8.1)."""
PROGRAMS = ("podman", "crun")


class Containers(Hosts):
    """Gateways are hosts with podman: an instance is a container of the release's image."""

    def __init__(self) -> None:
        self._stores: list[Podman] = []
        """Those of the agents, in which their containers are kept."""

    def begin(self, topology: Topology, daemon: LabDaemon) -> tuple[Claim, str]:
        """Check that podman is here, too; see `Hosts.begin`."""
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise BadInput(
                f"programs are missing: `apt-get install --no-install-recommends {' '.join(missing)}`"
            )
        return super().begin(topology, daemon)

    def fetch(self, cache: Path, daemon: LabDaemon) -> None:
        """Fetch the shell of the images, too; see `Hosts.fetch`."""
        super().fetch(cache, daemon)
        self.shell = trees.fetch_shell(cache / "busybox", cache / "packages")

    def gateway(self, described: Gateway) -> Gateway:
        """Return the gateway with instances in containers."""
        return Gateway.model_validate(described.model_dump() | {"runtime": "podman"})

    def start(
        self,
        topology: Topology,
        fleet: Fleet,  # noqa: ARG002 - hosts need nothing of it
        folder: Path,
        tell: Tell,  # noqa: ARG002 - as above
    ) -> None:
        """Forget what an earlier lab's podman remembers of the same stores; nothing has to be started."""
        self._stores = [Podman(self.root(folder, host) / "containers") for host in topology.gateways]
        self._forget()

    def under(self, host: Host) -> Sequence[str]:  # noqa: ARG002 - it is the same for each
        """Return what hides one of both versions of control groups, where a machine has both."""
        if not HYBRID.is_dir():
            return ()
        hide = f'umount {HYBRID} && exec "$@"'
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh")

    def end(self, topology: Topology) -> None:
        """End the containers with all that lives in the lab, and forget podman's stores; see `Hosts.end`."""
        super().end(topology)
        self._forget()

    def _forget(self) -> None:
        for store in self._stores:
            for kept in (store.volatile, store.folder):
                _unmount(kept)
                shutil.rmtree(kept, ignore_errors=True)
        if VOLATILE.is_dir() and not any(VOLATILE.iterdir()):
            VOLATILE.rmdir()


def _unmount(folder: Path) -> None:
    """Unmount what podman may have left mounted below the folder, where this process sees it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    for place in sorted((line.split()[1] for line in mounts), reverse=True):
        if Path(place).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
