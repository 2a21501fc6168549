"""Images without an engine: layers, a config and a manifest as bytes, pushed with three verbs of HTTP.

The same files always give the same image, byte for byte.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from activities.drivers.source.oci import IMAGE_MANIFEST
from policies.model.value import Digest, digest_of

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """One image for this machine's processor."""

    layers: tuple[bytes, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> Digest:
        """What it is pulled by."""
        return digest_of(self.manifest)


def image(
    layers: Sequence[bytes], entrypoint: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> Image:
    """Make an image of these layers, each a tar, the lowest first."""
    packed = tuple(gzip.compress(layer, 1, mtime=0) for layer in layers)
    started = {"Entrypoint": list(entrypoint), "Env": [f"{k}={v}" for k, v in (environment or {}).items()]}
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": started,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": _descriptor(config, CONFIG_TYPE),
        "layers": [_descriptor(layer, LAYER_TYPE) for layer in packed],
    }
    return Image(packed, config, json.dumps(manifest).encode())


def program(file: Path) -> Image:
    """Make an image of one program that needs nothing but itself."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo(file.name)
        entry.size, entry.mode = file.stat().st_size, 0o755
        with file.open("rb") as content:
            tar.addfile(entry, content)
    return image([made.getvalue()], [f"/{file.name}"])


def layer(folder: Path) -> bytes:
    """Return everything below a folder as a tar: times and owners are dropped, modes and links stay."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, str(path.relative_to(folder)))
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return made.getvalue()


def push(registry: str, name: str, made: Image) -> str:
    """Push an image under a name into a registry by its URL; return by what reference a pod pulls exactly it.

    Raises:
        httpx.HTTPError: the registry is not there, or refuses.
    """
    with httpx.Client(base_url=f"{registry}/v2/{name}/", trust_env=False, timeout=60) as client:
        for blob in (made.config, *made.layers):
            _upload(client, blob)
        headers = {"content-type": IMAGE_MANIFEST}
        client.put(f"manifests/{made.digest}", content=made.manifest, headers=headers).raise_for_status()
    return f"{registry.partition('//')[2]}/{name}@{made.digest}"


def _upload(client: httpx.Client, blob: bytes) -> None:
    if client.head(f"blobs/{digest_of(blob)}").is_success:
        return
    begun = client.post("blobs/uploads/")
    begun.raise_for_status()
    place = client.base_url.join(begun.headers["location"]).copy_merge_params({"digest": digest_of(blob)})
    headers = {"content-type": "application/octet-stream"}
    client.put(place, content=blob, headers=headers).raise_for_status()


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
