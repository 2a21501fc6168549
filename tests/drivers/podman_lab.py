"""The scratch gateway with podman on it: real images of the daemon of this machine, real containers."""

import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from activities.drivers.daemon.port import Daemon, Secret
from activities.drivers.runtime.host.adoption import HostAdoption
from activities.drivers.runtime.host.own_unit import OwnUnit
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.units import Units
from activities.drivers.runtime.podman.container_folders import ContainerFolder, ContainerFolders
from activities.drivers.runtime.podman.podman import MANIFEST, VOLATILE
from activities.drivers.runtime.podman.slots import ContainerSlots
from activities.releases import Admitted
from orchestrator.publishing.image import BuiltImage, ImageLabels, build_image
from policies.model.release import ReleaseManifest
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission
from tests.fakes.image import small_shell

DEADLY = """#!/bin/sh
[ "$*" != {words} ] || {by}
exec {program} "$@"
"""
"""A podman that does something else when it is asked this."""
KILL = "kill -9 0"
"""It takes the whole launch along; conmon has a session of its own."""
HYBRID = Path("/sys/fs/cgroup/unified")
"""Where a machine has both versions of control groups, which crun refuses (1.8.1)."""
WITHOUT_SECOND_VERSION = f"""#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount {HYBRID} && exec podman "$@"' podman "$@"
"""


def why_not_here() -> str | None:
    """Return why no container can run here, None when one can."""
    missing = [program for program in ("podman", "crun") if shutil.which(program) is None]
    return f"needs {missing[0]}" if missing else None


class ImageAdmission(TreeAdmission):
    """Admits releases whose image is made of their tree, as if both had been signed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.images = folder / "images"
        self.built: dict[str, BuiltImage] = {}

    def image_of(self, version: str) -> BuiltImage:
        if version not in self.built:
            labels = ImageLabels(self.product, version)
            shell = small_shell(self.images / "shell")
            self.built[version] = build_image(self.tree, shell, labels, self.images / version)
        return self.built[version]

    def manifest(self, version: str) -> ReleaseManifest:
        named = self.image_of(version).digest.removeprefix("sha256:")
        return super().manifest(version).model_copy(update={"image": named})

    async def lay_image(self, admitted: Admitted, source: str, into: Path) -> None:
        image = self.image_of(admitted.manifest.version)
        (into / "blobs/sha256").mkdir(parents=True)
        for digest, path in image.blobs.items():
            shutil.copy(path, into / "blobs/sha256" / digest.removeprefix("sha256:"))
        (into / MANIFEST).write_bytes(image.manifest)


class PodmanLab(GatewayLab):
    """The namespaces, files and parts of one gateway whose instances are containers."""

    folders: ContainerFolders
    admission: ImageAdmission

    def podman(self, *words: str) -> str:
        """Ask podman for something, as a person does who was told where the store is."""
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", *self.folders.podman.command(*words)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        return said.stdout

    def restart(self, name: str, pid: int) -> None:
        """Start the container of that process anew, as a person does where it was started.

        Elsewhere podman (4.3.1) does not mount its root again. What it says from then on goes to that person.
        """
        store = replace(self.folders.podman, program="podman")
        command = ["nsenter", f"--target={conmon_of(pid)}", "--mount", "--net"]
        command += store.command("restart", "--time", "0", name)
        none = subprocess.DEVNULL
        subprocess.run(command, check=True, stdin=none, stdout=none, stderr=none)

    def container(self, slot: str) -> ContainerFolder:
        folder = self.folders.container(slot)
        assert folder is not None
        return folder

    def reset(self) -> None:
        self._empty()
        super().reset()

    def clear(self) -> None:
        if hasattr(self, "folders"):
            self._empty()
            with suppress(OSError):  # another lab's may be there
                VOLATILE.rmdir()
        super().clear()

    def _empty(self) -> None:
        """Remove every container; the store itself goes with the gateway's folder."""
        if (self.folders.podman.folder / "containers.conf").exists():
            self.folders.podman.prepare()
            for _ in range(2):
                command = self.folders.podman.command("rm", "--all", "--force", "--time", "0")
                subprocess.run(command, capture_output=True, check=False)
        shutil.rmtree(self.folders.podman.volatile, ignore_errors=True)

    def deadly(self, *words: str, by: str = KILL) -> None:
        """Have whoever asks podman this be killed by SIGKILL, with all that was started together with it."""
        program = self.folder / "deadly"
        program.write_text(DEADLY.format(by=by, words=shlex.quote(" ".join(words)), program=self._program()))
        program.chmod(0o755)
        podman = replace(self.folders.podman, program=str(program))
        self.folders.podman = podman
        for folder in self.folders.containers:
            folder.podman = podman

    def _program(self) -> str:
        if not HYBRID.is_dir():
            return "podman"
        path = self.folder / "podman"
        if not path.exists():
            path.write_text(WITHOUT_SECOND_VERSION)
            path.chmod(0o755)
        return str(path)

    def _made_admission(self) -> TreeAdmission:
        return ImageAdmission(self.folder)

    def _made_folders(self, daemon: Daemon) -> SlotFolders:
        return ContainerFolders(self.gateway, self.root, daemon, self._program())

    def _compose_slots(self, credentials: Mapping[str, Secret]) -> None:
        unit = OwnUnit(Units(), self._note)
        self.adoption = HostAdoption(self.folders, self.journal, self.table, unit, self._note)
        self.slots = ContainerSlots(
            self.folders, self.journal, self.table, self.admission, credentials, self.adoption
        )


def conmon_of(pid: int) -> int:
    """Return podman's own process beside a container's main process: its parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
