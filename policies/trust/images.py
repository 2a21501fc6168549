"""Decide whether a container image is the one of a release: its manifest by digest, its first layer the tree.

Format: https://github.com/opencontainers/image-spec/blob/main/manifest.md. Whoever signed the release signed
the digest of the image's manifest; that its first layer is the very archive which hosts unpack is compared
here, so that a gateway runs the same bytes whatever starts it.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from policies.model.refusals import DoesNotFit, ManifestInvalid, SubjectMismatch
from policies.model.release import ReleaseManifest
from policies.model.value import Digest, Value
from policies.trust import strict_json
from policies.trust.statements import require_digest

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
LAYERS = {
    "tar": "application/vnd.oci.image.layer.v1.tar",
    "tar.gz": "application/vnd.oci.image.layer.v1.tar+gzip",
}
"""What registries call a tree's archive, by how it is unpacked."""
MOST_LAYERS = 16


class Part(Value):
    """A blob that an image is made of: neither its bytes nor an address to have it from are in here."""

    media_type: str = Field(alias="mediaType", max_length=127)
    digest: Digest
    size: int = Field(ge=0)


class Image(Value):
    """An image as its manifest describes it."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] = Field(alias="mediaType")
    config: Part
    """What a node is told about it: its program, its labels and what its layers unpack to."""
    layers: Annotated[tuple[Part, ...], Field(min_length=1, max_length=MOST_LAYERS)]
    """What it is made of; a later one lies over those before it."""
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)


def parse_image(content: bytes) -> Image:
    """Return the image that these bytes describe.

    Raises:
        ManifestInvalid: they are not strictly an image's manifest; an index of several images is none.
    """
    try:
        return Image.model_validate(strict_json.loads(content))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ManifestInvalid(
            f"the image's manifest is invalid: {where}: {problem['msg']}", reason="image"
        ) from error


def named_image(manifest: ReleaseManifest) -> Digest:
    """Return the digest of the release's image.

    Raises:
        DoesNotFit: it names none, so neither a cluster nor podman can run it.
    """
    if manifest.image_digest is None:
        raise DoesNotFit(
            f"{manifest.version} names no image, and containers are made of nothing else; build the release "
            "with --image, and have it signed again",
            reason="image",
        )
    return manifest.image_digest


def require_image(content: bytes, manifest: ReleaseManifest) -> Image:
    """Return what the release's image is made of, `content` being the manifest that a registry has for it.

    Raises:
        DoesNotFit: the release names no image.
        DigestMismatch: the bytes are not the image that its signers named.
        ManifestInvalid: they are no image's manifest.
        SubjectMismatch: its first layer is not the tree of this release.
    """
    require_digest(content, named_image(manifest), f"the image of {manifest.version}")
    image = parse_image(content)
    tree, first = manifest.tree, image.layers[0]
    expected = (tree.digest, tree.size, LAYERS[tree.unpack]) if tree else ("", 0, "")
    if (first.digest, first.size, first.media_type) != expected:
        raise SubjectMismatch(
            f"the image of {manifest.version} has {first.digest} as its first layer, and the release's tree "
            f"is {expected[0] or 'none'}; build the image of this tree, and have the release signed again"
        )
    return image
