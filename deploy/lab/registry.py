"""Push a repository folder's statements into an OCI registry, as the OCI source reads them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from activities.drivers.source.oci import IMAGE_INDEX, IMAGE_MANIFEST, SIGNATURE_TYPES, TOKEN_TYPE
from orchestrator.publishing.folder import place, read_statement
from policies.model.release import PAYLOAD_TYPE
from policies.model.value import Digest, digest_of
from policies.trust.statements import parse_release

PIECE = 1 << 20
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


class Registry:
    """One repository of a registry that takes pushes without a login."""

    def __init__(self, base: str, name: str) -> None:
        self.base, self.name = base, name
        self._client = httpx.Client(base_url=f"{base}/v2/{name}/", trust_env=False, timeout=60)

    def push_release(self, folder: Path, digest: Digest) -> Digest:
        """Push a release with its artifacts and signatures; return the digest of its image manifest."""
        statement = read_statement(folder, digest)
        layers = [self._push(statement, PAYLOAD_TYPE)]
        for artifact in parse_release(statement).artifacts:
            path = place(folder, "blobs", artifact.digest)
            self._upload(artifact.digest, path.stat().st_size, path)
            layers.append(_descriptor(artifact.digest, artifact.size, artifact.media_type))
        manifest = self._push_manifest(_manifest(layers), f"statement-{digest.removeprefix('sha256:')}")
        self._push_signatures(folder, digest, manifest)
        return str(manifest["digest"])

    def push_index(self, folder: Path, product: str, channel: str) -> Digest:
        """Push the channel's current index with its signatures; return the digest of its image manifest."""
        digest = (folder / "channels" / product / channel).read_text()
        statement = read_statement(folder, digest)
        content = _manifest([self._push(statement, PAYLOAD_TYPE)])
        manifest = self._push_manifest(content, f"channel-{product}-{channel}")
        self._push_signatures(folder, digest, manifest)
        return str(manifest["digest"])

    def tag(self, tag: str, content: bytes, media_type: str = IMAGE_MANIFEST) -> None:
        """Point a tag at a manifest of this content."""
        answer = self._client.put(f"manifests/{tag}", content=content, headers={"content-type": media_type})
        answer.raise_for_status()

    def _push_signatures(self, folder: Path, digest: Digest, subject: dict[str, Any]) -> None:
        """Push each signature as a referrer, and the fallback tag that lists them all."""
        listed = json.loads(place(folder, "signatures", digest).with_suffix(".json").read_bytes())
        types = {kind.value: media_type for media_type, kind in SIGNATURE_TYPES.items()}
        referrers = []
        for entry in listed:
            media_type = types[entry["kind"]]
            layers = [self._push(place(folder, "blobs", entry["digest"]).read_bytes(), media_type)]
            if "token" in entry:
                layers.append(self._push(place(folder, "blobs", entry["token"]).read_bytes(), TOKEN_TYPE))
            content = _manifest(layers, artifactType=media_type, subject=subject)
            referrers.append(self._push_manifest(content) | {"artifactType": media_type})
        index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": referrers}
        self.tag(str(subject["digest"]).replace(":", "-"), json.dumps(index).encode(), IMAGE_INDEX)

    def _push(self, content: bytes, media_type: str) -> dict[str, Any]:
        self._upload(digest_of(content), len(content), content)
        return _descriptor(digest_of(content), len(content), media_type)

    def _push_manifest(self, content: bytes, tag: str | None = None) -> dict[str, Any]:
        self._upload(digest_of(EMPTY), len(EMPTY), EMPTY)
        self.tag(tag or digest_of(content), content)
        return _descriptor(digest_of(content), len(content), IMAGE_MANIFEST)

    def _upload(self, digest: Digest, size: int, content: bytes | Path) -> None:
        if self._client.head(f"blobs/{digest}").is_success:
            return
        begun = self._client.post("blobs/uploads/")
        begun.raise_for_status()
        place_of = httpx.URL(self.base).join(begun.headers["location"]).copy_merge_params({"digest": digest})
        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        self._client.put(place_of, content=_pieces(content), headers=headers).raise_for_status()


def _manifest(layers: list[dict[str, Any]], **more: object) -> bytes:
    config = _descriptor(digest_of(EMPTY), len(EMPTY), EMPTY_TYPE)
    manifest = {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": config, "layers": layers}
    return json.dumps(manifest | {"artifactType": PAYLOAD_TYPE} | more).encode()


def _descriptor(digest: Digest, size: int, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _pieces(content: bytes | Path) -> Iterator[bytes]:
    """Yield pieces: httpx sends a single large body in quadratic time."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
