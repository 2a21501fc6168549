"""Where the slots of a gateway are, by what an instance is there: for all of its processes."""

from collections.abc import Callable, Mapping
from pathlib import Path

from activities.drivers.daemon.port import Daemon
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.podman.container_folders import ContainerFolders
from activities.drivers.runtime.pods.pod_folders import PodFolders
from policies.model.fleet import Gateway

FOLDERS: Mapping[str, Callable[[Gateway, Path, Daemon], SlotFolders]] = {
    "host": SlotFolders,
    "podman": ContainerFolders,
    "kubernetes": PodFolders,
}


def folders_of(gateway: Gateway, root: Path, daemon: Daemon) -> SlotFolders:
    """Return the gateway's slots, which the files of agent and exporter call by the same names."""
    return FOLDERS[gateway.runtime](gateway, root, daemon)
