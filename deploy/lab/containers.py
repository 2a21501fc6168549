"""The lab whose gateways' instances are containers of podman, each gateway with a store of its own."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from activities.drivers.runtime.podman.podman import RUNTIME, VOLATILE, Podman
from deploy.lab import trees
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.ground import Hosts, Tell
from deploy.lab.lab import stand_ins
from deploy.lab.topology import Claim, Topology
from policies.model.errors import BadInput
from policies.model.fleet import Fleet, Gateway

HYBRID = Path("/sys/fs/cgroup/unified")
"""Where a machine has both versions of control groups, which crun refuses (1.8.1)."""
WITHOUT_SECOND_VERSION = f"""#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount {HYBRID} && exec {{podman}} "$@"' podman "$@"
"""


class Containers(Hosts):
    """Gateways are hosts whose agents have podman run instances."""

    def __init__(self) -> None:
        self._stores: list[Podman] = []

    def begin(self, topology: Topology, daemon: LabDaemon) -> tuple[Claim, str]:
        """Check the machine for containers, too; see `Hosts.begin`."""
        if missing := [program for program in ("podman", RUNTIME) if shutil.which(program) is None]:
            wanted = " ".join(missing)
            raise BadInput(f"programs are missing: `apt-get install --no-install-recommends {wanted}`")
        return super().begin(topology, daemon)

    def fetch(self, cache: Path, daemon: LabDaemon) -> None:
        """Fetch the shell of the images, too; see `Hosts.fetch`."""
        super().fetch(cache, daemon)
        self.shell = trees.fetch_shell(cache / "busybox", cache / "packages")

    def gateway(self, described: Gateway) -> Gateway:
        """Return the gateway as one whose instances are containers."""
        return Gateway.model_validate(described.model_dump() | {"runtime": "podman"})

    def start(self, topology: Topology, fleet: Fleet, folder: Path, tell: Tell) -> None:
        """Forget what podman remembers of an earlier lab's stores; give agents a podman that runs here."""
        del fleet, tell
        for host in topology.gateways:
            program = shutil.which("podman") or "podman"
            if HYBRID.is_dir():
                own = stand_ins(folder, f"agent-{host.name}")
                own.mkdir(parents=True, exist_ok=True)
                (own / "podman").write_text(WITHOUT_SECOND_VERSION.format(podman=program))
                (own / "podman").chmod(0o755)
                program = str(own / "podman")
            store = Podman(self.root(folder, host) / "containers", program)
            shutil.rmtree(store.volatile, ignore_errors=True)
            self._stores.append(store)

    def end(self, topology: Topology) -> None:
        """Remove containers and what podman remembers of them, and then the network."""
        for store in self._stores:
            if (store.folder / "containers.conf").exists():
                command = store.command("rm", "--all", "--force", "--time", "0")
                subprocess.run(command, capture_output=True, check=False)
            shutil.rmtree(store.volatile, ignore_errors=True)
        with suppress(OSError):  # somebody else's may be there
            VOLATILE.rmdir()
        super().end(topology)
