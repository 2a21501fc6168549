"""An agent of containers, killed at a named line: `python -m tests.drivers.dying_container_agent …`."""

from activities.drivers.runtime.podman.container_folders import ContainerFolder
from activities.drivers.runtime.podman.podman import Podman
from activities.drivers.runtime.podman.slots import ContainerSlots
from tests.drivers.dying_agent import LINES, main
from tests.drivers.podman_lab import ImageAdmission, PodmanLab

LINES |= {
    "image laid": (ImageAdmission, "lay_image", "after"),
    "image beside": (ContainerSlots, "_lay_image", "after"),
    "image taken": (Podman, "take", "after"),
    "room made": (ContainerFolder, "make_room", "after"),
    "meant": (ContainerFolder, "launch", "before"),
    "launched": (ContainerFolder, "launch", "after"),
    "cleared": (ContainerFolder, "clear", "before"),
    "unreported removal": (ContainerFolder, "clear", "after"),
}

if __name__ == "__main__":
    main(PodmanLab)
