"""podman, as far as one gateway needs it: images by digest from folders of our own, containers by name.

Nothing of the host's own podman is used but its programs: images, containers, locks and configuration lie in
a store of the gateway's own. So nobody's `podman system prune` removes the way back, no unit of podman's
starts or updates an instance, and no short name and no registry is ever asked. A person looks into the store
with the two variables that `environment` names.

A container stays in its agent's control group, as a host's other instances do (`--cgroups=disabled`): the
unit's limits and its list of devices hold for it, and neither version nor manager of control groups matters.
Of the two runtimes of Debian 12 only crun does that.
"""

import json
import resource
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from activities.drivers.disk import ensure_whole
from activities.drivers.programs import Completed, run
from policies.model.errors import Unavailable
from policies.model.value import Digest, digest_of
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST, parse_image

MANIFEST = "manifest.json"
"""The name of an image's manifest in the folder with its blobs."""
TUN = Path("/dev/net/tun")
RUNTIME = "crun"
CAPABILITIES = ("NET_ADMIN", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "KILL")
"""For tunnels and routes, for giving up rights, for its sockets whoever owns them, and for its workers."""
LOW_PORTS = "NET_BIND_SERVICE"
LAST_LOW_PORT = 1023
VOLATILE = Path("/run/penstock-podman")
"""Where podman remembers what a reboot ends: it must be empty after one."""
PROCESSES = 2**15
"""podman lowers its own limit to this (4.3.1), and raises it for a container only with CAP_SYS_RESOURCE."""
ASK = timedelta(seconds=20)
COPY = timedelta(minutes=5)
_ONLY_FROM_FOLDERS = {
    "default": [{"type": "reject"}],
    "transports": {"oci": {"": [{"type": "insecureAcceptAnything"}]}},
}
"""Signatures are verified before anything lies in such a folder, by the trust policy of the fleet."""


@dataclass(frozen=True)
class Container:
    """What podman says of a container."""

    id: str
    image: Digest
    """The digest of the manifest of the image that it was made of."""
    labels: Mapping[str, str]
    pid: int | None
    """The number of its main process on the host, None when it does not run."""


@dataclass(frozen=True)
class Podman:
    """The store of one gateway, and the program that keeps it."""

    folder: Path
    program: str = "podman"

    @property
    def volatile(self) -> Path:
        """Its folder that is empty after a reboot; short, whatever the store's is called."""
        return VOLATILE / digest_of(str(self.folder.resolve()).encode()).removeprefix("sha256:")[:16]

    @property
    def environment(self) -> tuple[str, ...]:
        """The variables by which podman finds this store and nothing else."""
        return (
            f"CONTAINERS_CONF={self.folder / 'containers.conf'}",
            f"CONTAINERS_STORAGE_CONF={self.folder / 'storage.conf'}",
            f"TMPDIR={self.folder / 'partial'}",
        )

    def command(self, *words: str) -> list[str]:
        """Return the command line of podman on this store."""
        return ["env", *self.environment, self.program, *words]

    def prepare(self) -> None:
        """Write what podman reads of this store; a repeat changes nothing."""
        for folder in (self.folder, self.folder / "partial", self.volatile):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = f"""[containers]
log_driver = "passthrough"
netns = "host"
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "{RUNTIME}"
static_dir = "{self.folder / "libpod"}"
volume_path = "{self.folder / "volumes"}"
tmp_dir = "{self.volatile / "libpod"}"
[network]
network_config_dir = "{self.folder / "networks"}"
"""
        storage = f"""[storage]
driver = "overlay"
graphroot = "{self.folder / "storage"}"
runroot = "{self.volatile / "storage"}"
"""
        for name, content in (
            ("containers.conf", settings),
            ("storage.conf", storage),
            ("policy.json", json.dumps(_ONLY_FROM_FOLDERS)),
        ):
            ensure_whole(self.folder / name, content)

    async def missing(self) -> tuple[str, ...]:
        """Return what this host lacks to run containers, each with what to do about it."""
        found = [
            f"{program} is not installed, without which no container is {verb}; apt-get install {program}"
            for program, verb in ((self.program, "made"), (RUNTIME, "run"))
            if shutil.which(program) is None
        ]
        if not TUN.is_char_device():  # noqa: ASYNC240 - it waits for no disk
            found.append(f"{TUN} is no device here, and no tunnel is made without it; modprobe tun")
        if not found:
            try:
                said = await self._run("info", "--format", "{{.Store.GraphDriverName}}")
                if said.status != 0:
                    found.append(f"podman has no usable store in {self.folder}: {said.last_words}")
            except Unavailable as error:
                found.append(f"podman has no usable store in {self.folder}: {error}")
        return tuple(found)

    async def has(self, image: Digest) -> bool:
        """Return whether the store has the image of this configuration, whole."""
        return (await self._run("image", "exists", _id(image))).status == 0

    async def take(self, layout: Path) -> bool:
        """Ensure that the image in this folder is in the store; return whether it had to be copied.

        podman compares every blob with its digest while it copies. No tag counts: a container is made of the
        digest of the image's configuration, which its manifest names. podman makes a tag of the words by
        which the folder is named to it, so it is told its last name alone: not every path is a tag (4.3.1).

        Raises:
            Unavailable: when podman does not take it, as for want of room.
        """
        image = parse_image((layout / MANIFEST).read_bytes())
        if await self.has(image.config.digest):
            return False
        describe(layout)
        policy = ("--signature-policy", str(self.folder / "policy.json"))
        self.prepare()
        pull = self.command("pull", "--quiet", *policy, f"oci:{layout.name}")
        said = await run(["env", "--chdir", str(layout.parent), *pull], within=COPY)
        if said.status != 0 or not await self.has(image.config.digest):
            raise Unavailable(f"podman does not take the image in {layout}: {said.last_words}")
        return True

    async def keep_only(self, images: Collection[Digest]) -> None:
        """Remove every image that is not one of these; one that a container was made of stays."""
        listed = await self._run("images", "--all", "--quiet", "--no-trunc")
        gone = set(listed.out.split()) - set(images)
        if gone:
            await self._run("rmi", *sorted(gone))

    async def inspect(self, name: str) -> Container | None:
        """Return the container of that name, None when there is none.

        Raises:
            Unavailable: when podman does not say.
        """
        said = await self._run("container", "inspect", name)
        if said.status != 0:
            exists = await self._run("container", "exists", name)
            if exists.status == 1:
                return None
            raise Unavailable(f"podman does not say what container {name} is: {said.last_words}")
        try:
            (found,) = json.loads(said.out)
            return Container(
                id=found["Id"],
                image=found["ImageDigest"],
                labels=found["Config"].get("Labels") or {},
                pid=found["State"]["Pid"] or None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"podman says of container {name} what nobody understands: {error}") from error

    async def remove(self, container: Container) -> None:
        """Ensure that this container is gone, whatever state it is in.

        One whose conmon was killed is only found to have ended by the first try, and removed by the second
        (4.3.1).

        Raises:
            Unavailable: when it is still there.
        """
        for _ in range(2):
            said = await self._run("rm", "--force", "--ignore", "--time", "0", container.id)
            if (await self._run("container", "exists", container.id)).status == 1:
                return
        raise Unavailable(f"podman does not remove container {container.id[:12]}: {said.last_words}")

    def creation(
        self,
        name: str,
        image: Digest,
        command: Sequence[str],
        *,
        labels: Mapping[str, str],
        mounts: Mapping[Path, str],
        port: int,
    ) -> list[str]:
        """Return the command line that makes a container of the image whose configuration this is.

        It has its own process numbers and mounts, the host's network, a root that nobody writes to, one
        device, and no right that the daemon does not need.
        """
        rights = (*CAPABILITIES, LOW_PORTS) if port <= LAST_LOW_PORT else CAPABILITIES
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = PROCESSES if processes == resource.RLIM_INFINITY else min(PROCESSES, processes)
        words = ["create", "--name", name, "--pull", "never", "--restart", "no", "--network", "host"]
        words += [
            "--uts",
            "host",
            "--cgroupns",
            "host",
            "--read-only",
            "--read-only-tmpfs",
            "--image-volume",
            "ignore",
        ]
        words += ["--cap-drop", "all", *(word for right in rights for word in ("--cap-add", right))]
        words += ["--security-opt", "no-new-privileges", "--device", str(TUN), "--user", "0:0"]
        words += ["--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={most}:{most}"]
        words += ["--dns", "none", "--no-hosts", "--http-proxy=false", "--workdir", "/"]
        words += [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
        words += [word for outside, path in mounts.items() for word in ("--volume", f"{outside}:{path}")]
        return self.command(*words, "--entrypoint", json.dumps(list(command)), _id(image))

    async def _run(self, *words: str, within: timedelta = ASK) -> Completed:
        self.prepare()
        return await run(self.command(*words), within=within)


def describe(layout: Path) -> None:
    """Write what makes a folder with an image's manifest and blobs one that podman reads.

    Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
    """
    content = (layout / MANIFEST).read_bytes()
    listed = {"mediaType": IMAGE_MANIFEST, "digest": digest_of(content), "size": len(content)}
    index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [listed]}
    blobs = layout / "blobs" / "sha256"
    (blobs / digest_of(content).removeprefix("sha256:")).write_bytes(content)
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _id(image: Digest) -> str:
    """Return how podman calls an image: by the digest of its configuration."""
    return image.removeprefix("sha256:")
