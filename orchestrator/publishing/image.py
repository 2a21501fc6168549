"""Make a release's container image without an engine: its first layer is the signed tree, byte for byte.

A second layer brings what a host would do beside the tree: its links, the places that config and sockets are
mounted to, and a static shell, by which a pod waits for its last session before it ends. An image lies in a
folder of the OCI layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.drivers.daemon.products import DAEMONS, daemon_of
from activities.drivers.runtime.host.chroot import MOUNT_POINTS
from activities.drivers.store.layers import require_beside
from orchestrator.publishing import layers
from orchestrator.publishing.layers import Entry, Layer
from orchestrator.publishing.linking import Root
from orchestrator.publishing.packing import LEFT_OUT, Listing, listed, pack
from orchestrator.publishing.private_keys import keys_in, refuse_keys
from policies.model.errors import BadInput
from policies.model.refusals import TrustError
from policies.model.release import ReleaseManifest
from policies.model.value import Digest, digest_of
from policies.trust import strict_json
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST, parse_image, require_image

IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
SHELL = "usr/bin/busybox"
APPLETS = (
    "cat",
    "false",
    "grep",
    "head",
    "id",
    "kill",
    "ls",
    "ps",
    "sed",
    "sh",
    "sleep",
    "test",
    "true",
    "wc",
)
"""What the shell is called by: enough to ask, to wait and to look around."""
FOLDERS = (*MOUNT_POINTS, "run", "etc", "var", "var/tmp")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
COMMANDS = {kind: daemon_of(kind).command for kind in DAEMONS}
"""How each daemon is started, whatever runs it."""
CONFIGS = {kind: f"etc/penstock/{kind}.conf" for kind in DAEMONS}
"""Where each daemon finds its configuration."""


@dataclass(frozen=True)
class ImageLabels:
    """What an image says of itself."""

    product: str
    version: str
    platform: str = "linux/amd64"


@dataclass(frozen=True)
class BuiltImage:
    """An image: its manifest, and where each of its blobs lies."""

    manifest: bytes
    blobs: Mapping[Digest, Path]

    @property
    def digest(self) -> Digest:
        """Its identity: what a node is told to run and reports running."""
        return digest_of(self.manifest)

    def everything(self, into: Path) -> dict[Digest, Path]:
        """Return its blobs and its manifest, which is written to the folder."""
        place = into / f"{self.digest.removeprefix('sha256:')}.json"
        place.write_bytes(self.manifest)
        return {**self.blobs, self.digest: place}


def build_image(
    tree: Path,
    busybox: Path,
    labels: ImageLabels,
    blobs: Path,
    *,
    daemon: str = "ocserv",
    config: Path | None = None,
    left_out: Sequence[str] = LEFT_OUT,
    compress: bool = False,
) -> BuiltImage:
    """Return the image of a release's tree; its blobs are written to the folder `blobs`.

    `busybox` is the static program. `config` lies where the daemon finds it, for pods that nobody mounts
    another one to.

    Raises:
        BadInput: the tree holds something a release cannot carry, or something where an image needs a
            folder; the configuration has a private key; or nobody knows how the daemon is started.
    """
    if daemon not in COMMANDS:
        raise BadInput(f"how {daemon} is started is not known; known are {', '.join(COMMANDS)}")
    blobs.mkdir(parents=True, exist_ok=True)
    listing = listed(tree, left_out)
    packed = pack(listing, blobs / f"{labels.product}-{labels.version}.tar", compress=compress)
    given = {CONFIGS[daemon]: _without_keys(config)} if config else {}
    beside = layers.write(_beside(listing, busybox, given), blobs)
    return assemble([layers.existing(packed.archive), beside], COMMANDS[daemon](), labels, blobs)


def assemble(
    made: Sequence[Layer], command: Sequence[str], labels: ImageLabels, blobs: Path, **more: Any
) -> BuiltImage:
    """Return the image of these layers, the first one lowest, that runs this command; `more` is config."""
    system, _, processor = labels.platform.partition("/")
    runs = {
        "Entrypoint": list(command),
        "Env": [f"PATH={PATH}"],
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": labels.product,
            "org.opencontainers.image.version": labels.version,
        },
    }
    unpacked = {"type": "layers", "diff_ids": [layer.unpacked for layer in made]}
    config = {"os": system, "architecture": processor, "config": runs | more, "rootfs": unpacked}
    content = strict_json.dumps(config)
    place = blobs / f"{digest_of(content).removeprefix('sha256:')}.json"
    place.write_bytes(content)
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": {"mediaType": IMAGE_CONFIG, "digest": digest_of(content), "size": len(content)},
        "layers": [
            {"mediaType": one.media_type, "digest": one.digest, "size": one.path.stat().st_size}
            for one in made
        ],
    }
    found = {digest_of(content): place} | {layer.digest: layer.path for layer in made}
    return BuiltImage(strict_json.dumps(manifest), found)


def require_image_of(manifest: ReleaseManifest, image: BuiltImage) -> None:
    """Return if the image is this release's: its tree, what completes it, and no program but the shell's.

    Raises:
        BadInput: it is of another tree or version, changes something of the tree, or has more programs.
    """
    tree = manifest.tree
    try:
        _, *later = require_image(image.manifest, manifest).layers
        assert tree is not None  # noqa: S101 - compared with the first layer
        with_shell = require_beside([image.blobs[one.digest].read_bytes() for one in later], tree)
    except TrustError as error:
        raise BadInput(f"the image is not of this release: {error}") from error
    if more := sorted(with_shell - {SHELL}):
        raise BadInput(f"the image has programs that the release does not list: {', '.join(more)}")
    said = _labels(image)
    if said != (manifest.product, manifest.version):
        raise BadInput(
            f"the image calls itself {' '.join(said)}, and the release is {manifest.product} "
            f"{manifest.version}; build the image again"
        )


def shell_in(root: Path) -> Path:
    """Return the static shell among unpacked packages.

    Raises:
        BadInput: none of them has it.
    """
    found = Root(root)
    if not found.has(SHELL):
        raise BadInput(f"{root} has no {SHELL}; name the package that has it: busybox-static")
    asked = found.asked(SHELL)
    if asked is None or asked.loader is not None:
        raise BadInput(f"{SHELL} of {root} is not static; name the package that has one: busybox-static")
    return root / found.place(SHELL)


def write_layout(image: BuiltImage, folder: Path) -> None:
    """Write the image to a folder in the OCI layout, which must not be there or be empty.

    Raises:
        BadInput: there is something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is there already; name a folder that is not, or remove it")
    place = folder / "blobs" / "sha256"
    place.mkdir(parents=True, exist_ok=True)
    for digest, path in image.blobs.items():
        shutil.copyfile(path, place / digest.removeprefix("sha256:"))
    (place / image.digest.removeprefix("sha256:")).write_bytes(image.manifest)
    listed = {"mediaType": IMAGE_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [listed]}
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(strict_json.dumps(index))


def read_layout(folder: Path) -> BuiltImage:
    """Return the one image of a folder in the OCI layout; its blobs stay where they are.

    Raises:
        BadInput: the folder holds no single image, or bytes that are not those of their name.
    """
    place = folder / "blobs" / "sha256"
    try:
        (digest,) = (one["digest"] for one in json.loads((folder / "index.json").read_bytes())["manifests"])
        manifest = (place / digest.removeprefix("sha256:")).read_bytes()
        if "manifests" in json.loads(manifest):
            raise BadInput(
                f"{folder} holds an index of several images, as `docker buildx build` writes one with an "
                "attestation, and a release names one image; make it by `penstock release image`"
            )
        image = parse_image(manifest)
        found = {
            one.digest: place / one.digest.removeprefix("sha256:") for one in (image.config, *image.layers)
        }
        wrong = [one for one, path in found.items() if layers.existing(path).digest != one]
    except (OSError, ValueError, KeyError, TypeError, TrustError) as error:
        raise BadInput(f"{folder} holds no single image in the OCI layout: {error}") from error
    if wrong or digest_of(manifest) != digest:
        raise BadInput(
            f"{folder} holds other bytes than those of {min(wrong, default=digest)}; build it again"
        )
    return BuiltImage(manifest, found)


def _beside(listing: Listing, busybox: Path, given: Mapping[str, bytes]) -> Iterator[Entry]:
    """Yield what completes a tree, in the order of the paths."""
    own = {*listing.paths, *(link["path"] for link in listing.links)}
    for folder in FOLDERS:
        if folder in own:
            raise BadInput(f"the tree has {folder}, which an image needs as a folder; leave it out")
    entries = {folder: Entry(folder, 0o1777 if folder.endswith("tmp") else 0o755) for folder in FOLDERS}
    entries |= {link["path"]: Entry(link["path"], 0o777, target=link["target"]) for link in listing.links}
    applets = {f"usr/bin/{name}": Entry(f"usr/bin/{name}", 0o777, target="busybox") for name in APPLETS}
    entries |= {path: entry for path, entry in applets.items() if path not in own}
    entries[SHELL] = Entry(SHELL, 0o755, busybox)
    entries |= {path: Entry(path, 0o644, content) for path, content in given.items()}
    yield from (entries[path] for path in sorted(entries))


def _without_keys(config: Path) -> bytes:
    content = config.read_bytes()
    refuse_keys(keys_in(content, str(config)))
    return content


def _labels(image: BuiltImage) -> tuple[str, str]:
    """Return what the image calls itself."""
    config = strict_json.loads(image.blobs[parse_image(image.manifest).config.digest].read_bytes())
    said = config.get("config", {}).get("Labels", {})
    title, version = (str(said.get(f"org.opencontainers.image.{name}")) for name in ("title", "version"))
    return title, version
