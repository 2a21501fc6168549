"""Push releases from a repository folder into an OCI registry, as the OCI source reads them.

A release's image lies in the same repository by its own digest. The signatures refer to the statement and to
the image, so that whoever admits images to a cluster finds them there.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from activities.drivers.source.challenges import challenges_in, token_in
from activities.drivers.source.oci import SIGNATURE_TYPES, TOKEN_TYPE
from activities.drivers.source.transport import shown
from orchestrator.publishing.folder import offered, place, read_blob, read_statement
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.origin import keeps_secrets, origin_of
from policies.model.refusals import TrustError
from policies.model.release import INDEX_PREDICATE, PAYLOAD_TYPE, ReleaseManifest
from policies.model.value import Digest, digest_of
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST, Image, require_image
from policies.trust.statements import kind_of, parse_index, parse_release

PIECE = 1 << 20
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
DENIED = 401
SECONDS = 60.0
"""How long one request may wait for an answer."""


class Registry:
    """One repository of a registry; `login` is a user and a password with a colon between them."""

    def __init__(
        self, base: str, name: str, *, login: str | None = None, authorities: str | None = None
    ) -> None:
        """Push to that repository; `authorities` are PEM certificates to trust instead of the system's.

        Raises:
            BadInput: everybody on the way would read the login.
        """
        if login and not keeps_secrets(base):
            raise BadInput(f"everybody on the way to {shown(base)} would read the login; use https")
        self.base, self.name = base, name
        self._login = httpx.BasicAuth(*login.split(":", 1)) if login else None
        tls = ssl.create_default_context(cadata=authorities)
        address = f"{base}/v2/{name}/"
        self._client = httpx.Client(base_url=address, trust_env=False, timeout=SECONDS, verify=tls)

    @classmethod
    def of(cls, source: str, *, login: str | None = None, authorities: str | None = None) -> "Registry":
        """Return the repository that a source's name means: oci://host/name, oci+http://host/name.

        Raises:
            BadInput: it means none.
        """
        scheme, _, rest = source.partition("://")
        host, _, name = rest.partition("/")
        base = f"{'https' if scheme == 'oci' else 'http'}://{host}"
        if scheme not in ("oci", "oci+http") or not name or not origin_of(base):
            raise BadInput(f"a registry's repository is oci://host/name, not {shown(source)}")
        return cls(base, name, login=login, authorities=authorities)

    def push(self, folder: Path, digest: Digest) -> list[str]:
        """Push a release or an index, whichever it is; return where it and its image are to be had.

        Raises what `push_release` does.
        """
        statement = read_statement(folder, digest)
        if kind_of(statement) == INDEX_PREDICATE:
            index = parse_index(statement)
            if offered(folder, index.product, index.channel) != digest:
                raise BadInput(f"{digest} is not what {index.product}/{index.channel} offers; push that one")
            self.push_index(folder, index.product, index.channel)
            return [f"{self._shown}:channel-{index.product}-{index.channel}"]
        self.push_release(folder, digest)
        image = parse_release(statement).image_digest
        tag = f"{self._shown}:statement-{digest.removeprefix('sha256:')}"
        return [tag, *([f"{self._shown}@{image}"] if image else [])]

    def push_release(self, folder: Path, digest: Digest) -> Digest:
        """Push a release with its artifacts, image and signatures; return the digest of its own manifest.

        Raises:
            BadInput: the folder lacks a part of it, or its image is another's.
            Refused: the registry does not take it from whoever has this login.
            Unavailable: the registry does not answer, or not as one does.
        """
        statement = read_statement(folder, digest)
        release = parse_release(statement)
        layers = [self._push(statement, PAYLOAD_TYPE)]
        for artifact in release.artifacts:
            self._push_file(folder, artifact.digest)
            layers.append(_descriptor(artifact.digest, artifact.size, artifact.media_type))
        manifest = self._push_manifest(_manifest(layers), f"statement-{digest.removeprefix('sha256:')}")
        self._push_signatures(folder, digest, manifest)
        if release.image_digest is not None:
            self._push_signatures(folder, digest, self._push_image(folder, release))
        return str(manifest["digest"])

    def push_index(self, folder: Path, product: str, channel: str) -> Digest:
        """Push the channel's current index with its signatures; return the digest of its image manifest.

        Raises what `push_release` does.
        """
        digest = offered(folder, product, channel)
        statement = read_statement(folder, digest)
        content = _manifest([self._push(statement, PAYLOAD_TYPE)])
        manifest = self._push_manifest(content, f"channel-{product}-{channel}")
        self._push_signatures(folder, digest, manifest)
        return str(manifest["digest"])

    def push_image(
        self, content: bytes, image: Image, blobs: Mapping[Digest, Path], tag: str | None = None
    ) -> Digest:
        """Push an image by its digest, and by a tag if one is named; raises what `push_release` does."""
        for part in (image.config, *image.layers):
            self._upload(part.digest, part.size, blobs[part.digest])
        self.tag(digest_of(content), content)
        if tag is not None:
            self.tag(tag, content)
        return digest_of(content)

    def tag(self, tag: str, content: bytes, media_type: str = IMAGE_MANIFEST) -> None:
        """Point a tag, or the digest, at a manifest of this content."""
        self._ask("PUT", f"manifests/{tag}", content=content, headers={"content-type": media_type})

    @property
    def _shown(self) -> str:
        return f"{self.base.partition('://')[2]}/{self.name}"

    def _push_image(self, folder: Path, release: ReleaseManifest) -> dict[str, Any]:
        content = read_blob(folder, str(release.image_digest))
        try:
            image = require_image(content, release)
        except TrustError as error:
            raise BadInput(f"{folder}: {error}") from error
        parts = (image.config, *image.layers)
        self.push_image(content, image, {part.digest: place(folder, "blobs", part.digest) for part in parts})
        return _descriptor(digest_of(content), len(content), IMAGE_MANIFEST)

    def _push_signatures(self, folder: Path, digest: Digest, subject: dict[str, Any]) -> None:
        """Push each signature as a referrer, and the fallback tag that lists them all."""
        listed = json.loads(place(folder, "signatures", digest).with_suffix(".json").read_bytes())
        types = {kind.value: media_type for media_type, kind in SIGNATURE_TYPES.items()}
        referrers = []
        for entry in listed:
            media_type = types[entry["kind"]]
            layers = [self._push(read_blob(folder, entry["digest"]), media_type)]
            if "token" in entry:
                layers.append(self._push(read_blob(folder, entry["token"]), TOKEN_TYPE))
            content = _manifest(layers, artifactType=media_type, subject=subject)
            referrers.append(self._push_manifest(content) | {"artifactType": media_type})
        index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": referrers}
        self.tag(str(subject["digest"]).replace(":", "-"), json.dumps(index).encode(), IMAGE_INDEX)

    def _push(self, content: bytes, media_type: str) -> dict[str, Any]:
        self._upload(digest_of(content), len(content), content)
        return _descriptor(digest_of(content), len(content), media_type)

    def _push_file(self, folder: Path, digest: Digest) -> None:
        path = place(folder, "blobs", digest)
        if not path.is_file():
            raise BadInput(f"{folder} lacks the blob {digest}; build the release into it again")
        self._upload(digest, path.stat().st_size, path)

    def _push_manifest(self, content: bytes, tag: str | None = None) -> dict[str, Any]:
        self._upload(digest_of(EMPTY), len(EMPTY), EMPTY)
        self.tag(tag or digest_of(content), content)
        return _descriptor(digest_of(content), len(content), IMAGE_MANIFEST)

    def _upload(self, digest: Digest, size: int, content: bytes | Path) -> None:
        if self._ask("HEAD", f"blobs/{digest}", absent=True).is_success:
            return
        begun = self._ask("POST", "blobs/uploads/")
        place_of = begun.url.join(begun.headers.get("location", "")).copy_merge_params({"digest": digest})
        if origin_of(str(place_of)) != origin_of(self.base):
            raise Refused(f"{shown(self.base)} wants uploads at {shown(str(place_of))}, which is another's")
        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        self._ask("PUT", str(place_of), content=content, headers=headers)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Path | None = None,
        headers: dict[str, str] | None = None,
        absent: bool = False,
    ) -> httpx.Response:
        """Return the answer to a request, logged in if the registry asks for it."""
        try:
            answer = self._send(method, path, content, headers)
            if answer.status_code == DENIED and self._log_in(answer.headers.get("www-authenticate", "")):
                answer = self._send(method, path, content, headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"{shown(self.base)} broke off: {type(error).__name__} {error}") from error
        if answer.status_code in (DENIED, 403):
            raise Refused(f"{shown(self.base)} takes nothing for {self.name} from whoever has this login")
        if not answer.is_success and not (absent and answer.status_code == 404):  # noqa: PLR2004 - HTTP's own
            raise Unavailable(f"{shown(str(answer.url))} answers {answer.status_code} to {method}")
        return answer

    def _send(
        self, method: str, path: str, content: bytes | Path | None, headers: dict[str, str] | None
    ) -> httpx.Response:
        body = None if content is None else _pieces(content)
        sized = {"content-length": str(len(content))} if isinstance(content, bytes) else {}
        return self._client.request(method, path, content=body, headers=sized | (headers or {}))

    def _log_in(self, challenge: str) -> bool:
        """Answer a challenge: https://distribution.github.io/distribution/spec/auth/token/."""
        offered = challenges_in(challenge)
        if offered.takes_password and self._login:
            self._client.auth = self._login
            return True
        if not keeps_secrets(offered.realm):
            return False
        address = offered.token_address(scope=f"repository:{self.name}:pull,push")
        answer = self._client.get(address, auth=self._login or httpx.USE_CLIENT_DEFAULT)
        if not answer.is_success:
            return False
        self._client.headers["authorization"] = f"Bearer {token_in(answer.content)}"
        return True


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
