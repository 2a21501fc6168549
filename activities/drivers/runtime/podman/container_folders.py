"""The slots of a host whose instances are containers: how one is started, found again and ended.

An instance is the container's main process, as the kernel tells of it: who restarts podman, or kills its
conmon, changes nothing about it. Which process that is was written down when it was started, in the same file
as that of a host's other instances, so whoever only looks and counts asks podman nothing. podman is asked
when something is made or removed, and when what was written down and what is meant do not agree.
"""

import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.port import CONFIG, RUN, Daemon
from activities.drivers.disk import write_whole
from activities.drivers.runtime.host.process import PROC, Alive, digest_of_file, process
from activities.drivers.runtime.host.slot_folders import (
    DAEMON_UMASK,
    OURS,
    SlotFolder,
    SlotFolders,
)
from activities.drivers.runtime.host.versions import Versions
from activities.drivers.runtime.podman.podman import MANIFEST, Container, Podman
from policies.model.errors import Refused
from policies.model.fleet import Gateway, Slot
from policies.model.plan import ReleaseRef
from policies.model.value import Digest
from policies.trust.images import parse_image

STARTED_AS = "org.penstock.start"
"""The label that tells a container of ours from one that somebody else has called like it."""

# podman starts the container, and writes down which process it is only afterwards. Until that is done, the
# slots' lock is held as standard input, also when the agent is killed: whoever comes next waits and finds it.
# What cannot be started is written down as well, so that nobody waits for it; a podman that hangs is ended.
LAUNCH = """
launched=$1 name=$2 podman=$3 within=$4; shift 4
bounded() { timeout --foreground --verbose --kill-after=5 "$within" "$@"; }
ask() { eval bounded "$podman" '"$@"'; }
{
  bounded "$@" > /dev/null && ask start "$name" &&
  pid=$(ask container inspect --format '{{.State.Pid}}' "$name") &&
  cat /proc/sys/kernel/random/boot_id "/proc/$pid/stat" > "$launched.new"
} < /dev/null || echo nothing > "$launched.new"
mv "$launched.new" "$launched"
"""

LAUNCHED_WITHIN = timedelta(seconds=60)
"""How long podman may take for each of the three things that a launch asks, while nobody
else gets in."""


class ContainerFolder(SlotFolder):
    """One slot's folder, and the container in it; `begun` tells the last start that was tried."""

    def __init__(self, gateway: Gateway, slot: Slot, root: Path, versions: Versions, podman: Podman) -> None:
        super().__init__(gateway, slot, root, versions)
        self.podman = podman

    @property
    def name(self) -> str:
        """What podman calls the slot's container."""
        return f"{self._gateway.name}-{self.slot.name}"

    @property
    def image(self) -> Path:
        """The folder with the image of the release that the slot was given."""
        return (self.path / "current").resolve() / "image"

    def launch(self, daemon: Daemon, lock: int) -> "subprocess.Popen[bytes]":
        """Start the container; it outlives its agent, and podman.

        Its output goes straight to the log, without a program of podman's in between.
        """
        with suppress(FileNotFoundError):
            (self.path / "launched").unlink()
        for leftover in (self.path / "run").iterdir():
            leftover.unlink()
        begun = secrets.token_hex(16)
        write_whole(self.path / "begun", begun)
        create = self.podman.creation(
            self.name,
            configuration_of(self.image),
            daemon.command(),
            labels={STARTED_AS: begun},
            mounts={self.path / "conf": str(CONFIG), self.path / "run": str(RUN)},
            port=self.slot.port,
        )
        podman, within = shlex.join(self.podman.command()), f"{LAUNCHED_WITHIN.total_seconds():g}"
        launch = ["sh", "-c", LAUNCH, "launch", str(self.path / "launched"), self.name, podman, within]
        with self.log.open("ab") as log:
            os.fchmod(log.fileno(), OURS)
            return subprocess.Popen(
                [*launch, *create],
                stdin=lock,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=DAEMON_UMASK,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    async def make_room(self) -> None:
        """Ensure that no container has the slot's name; one of ours that does not run is removed.

        Raises:
            Refused: when somebody else's has it, or ours runs.
        """
        found = await self.podman.inspect(self.name)
        if found is None:
            return
        where = f"slot {self.slot.name} of {self._gateway.name}"
        if not self._is_ours(found):
            raise Refused(
                f"the name {self.name} of {where} is taken by container {found.id[:12]} of image "
                f"{found.image}, which penstock did not start: remove or rename it"
            )
        if found.pid is not None and process(found.pid) is not None:
            raise Refused(f"container {found.id[:12]} still runs in {where}")
        await self.podman.remove(found)

    async def settle(self, signed: ReleaseRef | None, image: Digest | None) -> None:
        """Have what is written down agree with podman, after a kill or somebody else's restart.

        A container that we started, of exactly the image that is signed, is found again when it runs though
        its process was not written down. Any other one is not believed. What is not wanted any more and has
        ended is removed.
        """
        if self.process() is not None or not (self.path / "begun").exists():
            return
        found = await self.podman.inspect(self.name)
        if found is None or not self._is_ours(found):
            return
        running = process(found.pid) if found.pid is not None else None
        if running is None:
            if not self.state.get("wanted"):
                await self.podman.remove(found)
                (self.path / "begun").unlink(missing_ok=True)
            return
        if signed is None or (found.image, running.executable) != (image, signed.executable):
            return
        stat = (PROC / str(running.pid) / "stat").read_text()
        write_whole(self.path / "launched", f"{running.boot}\n{stat}")

    async def stranger(self, running: Alive, image: Digest | None) -> str | None:
        """Return what runs here in place of a container of this image that we started; None for that one."""
        found = await self.podman.inspect(self.name)
        if found is None or not self._is_ours(found) or found.pid != running.pid:
            return "a process that is no container of penstock's"
        return None if found.image == image else f"image {found.image}"

    async def clear(self) -> None:
        """Ensure that nothing of an ended container is left."""
        found = await self.podman.inspect(self.name)
        if found is not None and self._is_ours(found):
            await self.podman.remove(found)
        (self.path / "begun").unlink(missing_ok=True)

    def _is_ours(self, found: Container) -> bool:
        try:
            return found.labels.get(STARTED_AS) == (self.path / "begun").read_text()
        except FileNotFoundError:
            return False


class ContainerFolders(SlotFolders):
    """All slots of one gateway, and the containers in them now."""

    sees_processes = False
    signed_words = (
        "the image that runs is the one that was signed, and every file of the release in it is as it was "
        "signed, those that run too"
    )

    def __init__(self, gateway: Gateway, root: Path, daemon: Daemon, program: str = "podman") -> None:
        """Take the folder of the gateway's store, and podman's program."""
        self.podman = Podman(root / "containers", program)
        self._containers: dict[str, ContainerFolder] = {}
        super().__init__(gateway, root, daemon)

    def _folder_of(self, slot: Slot) -> ContainerFolder:
        folder = ContainerFolder(self.gateway, slot, self.root, self.versions, self.podman)
        return self._containers.setdefault(slot.name, folder)

    @property
    def containers(self) -> Iterator[ContainerFolder]:
        """The folders in which containers run: all but that of what was adopted."""
        return iter(self._containers.values())

    def container(self, slot: str) -> ContainerFolder | None:
        """Return the folder of the slot's container, None for what was adopted."""
        return self._containers.get(slot)

    def images(self) -> set[Digest]:
        """Return the images of the versions that are here, as podman calls them."""
        found = self.versions.folder.glob(f"sha256-*/image/{MANIFEST}")
        return {configuration_of(path.parent) for path in found}

    def unsigned_file(self, folder: SlotFolder, running: Alive, release: ReleaseRef) -> str | None:
        """Return the first file that runs, or that the container has of the release, and is not as signed."""
        if (found := super().unsigned_file(folder, running, release)) or running.pid is None:
            return found
        root = PROC / str(running.pid) / "root"
        signed = (file for one in self.versions.manifest(release.digest).artifacts for file in one.files)
        return next(
            (file.path for file in signed if digest_of_file(root / file.path) != f"sha256:{file.sha256}"),
            None,
        )


def configuration_of(image: Path) -> Digest:
    """Return the digest of the configuration of the image in this folder: how podman calls it."""
    return parse_image((image / MANIFEST).read_bytes()).config.digest
