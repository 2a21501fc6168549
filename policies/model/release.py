"""A release: the signed manifest that names every byte of it, and the index of a channel's current ones."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from policies.model.changelog import Changelog
from policies.model.plan import ReleaseRef
from policies.model.tree_path import TreePath, place_of
from policies.model.value import Digest, Name, Value, twice

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
RELEASE_PREDICATE = "https://penstock.dev/gateway-release/v1"
INDEX_PREDICATE = "https://penstock.dev/channel-index/v1"

LONGEST_LIFE = timedelta(days=180)
LONGEST_INDEX_LIFE = timedelta(days=7)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""64 lower-case hex digits: the only form of a digest inside signed documents."""


class SignedWord(Value):
    """A word inside a signed document: nothing is converted, nothing unknown is passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReleaseFile(SignedWord):
    """One regular file of a release's tree."""

    path: TreePath
    """Where it lies in the tree, without a leading slash."""
    sha256: Sha256
    """Digest of its content."""
    size: int = Field(ge=0)
    """Its bytes."""
    mode: int = Field(ge=0, le=0o777, description="permission bits; set-id bits do not fit")


class ReleaseLink(SignedWord):
    """One symbolic link of a release's tree; it leads to a place inside the tree."""

    path: TreePath
    """Where it lies in the tree."""
    target: str = Field(min_length=1, max_length=240)
    """Where it leads, relative to its own folder."""

    @model_validator(mode="after")
    def _is_relative(self) -> "ReleaseLink":
        if not self.target.isascii() or not self.target.isprintable() or self.target.startswith("/"):
            raise ValueError(f"link {self.path} has target {self.target!r}, which is not relative and plain")
        return self


class Artifact(SignedWord):
    """Bytes of a release: an archive of its tree, or one file laid down under its own name."""

    name: TreePath
    """How it is called beside the manifest."""
    sha256: Sha256
    """Digest of its bytes, by which it is fetched."""
    size: int = Field(ge=0)
    """Its bytes."""
    media_type: str = Field(min_length=1, max_length=127)
    """What it is, as registries name it."""
    platform: str = Field(default="linux/amd64", pattern=r"^[a-z0-9]+/[a-z0-9]+$")
    """What its programs run on."""
    unpack: Literal["none", "tar", "tar.gz"] = "none"
    """How it is unpacked; `none` is a single file."""
    files: tuple[ReleaseFile, ...] = ()
    """Every file of an archive."""
    links: tuple[ReleaseLink, ...] = ()
    """Every symbolic link of an archive."""

    @property
    def digest(self) -> Digest:
        """The digest in the form code compares."""
        return f"sha256:{self.sha256}"

    @model_validator(mode="after")
    def _paths_are_one_tree(self) -> "Artifact":
        if (self.unpack == "none") != (not self.files):
            raise ValueError(f"artifact {self.name}: an archive lists its files, a single file lists none")
        if self.unpack == "none" and self.links:
            raise ValueError(f"artifact {self.name}: a single file has no links")
        paths = [*(file.path for file in self.files), *(link.path for link in self.links)]
        _refuse_twins(paths, f"artifact {self.name}")
        _refuse_below_leaves(paths, f"artifact {self.name}")
        links = {link.path: link.target for link in self.links}
        for path in links:
            place_of(path, links)
        return self


IMAGE = "image"
"""What the subject of a release's statement that is its image is called; then no artifact is."""
RESERVED = frozenset({"root", "manifest.json", ".complete"})
"""Names beside a release's single files that a host gives away itself."""


class Daemon(SignedWord):
    """What the release runs: the product's name and its executable inside the tree."""

    kind: Name
    """The product's driver, such as `ocserv`."""
    executable: TreePath
    """Its program in the tree."""


class Platform(SignedWord):
    """An operating system and processor the release runs on."""

    os: str = Field(pattern=r"^[a-z0-9]+$")
    """Such as `linux`."""
    arch: str = Field(pattern=r"^[a-z0-9]+$")
    """Such as `amd64`."""

    def __str__(self) -> str:
        return f"{self.os}/{self.arch}"


class ConfigSchema(SignedWord):
    """The configuration the release reads: the digest of its template, and its version."""

    sha256: Sha256
    """Digest of the template."""
    size: int = Field(ge=0)
    """Its bytes."""
    version: int = Field(ge=1)
    """Its version, which grows when older releases could not read it."""


class ConfigCompatibility(SignedWord):
    """Which configuration versions the release reads, first and last, and which one it writes."""

    reads: tuple[int, int]
    """The first and the last version that it reads."""
    writes: int
    """The version that it writes."""

    def understands(self, version: int) -> bool:
        """Return whether it reads a configuration of that version."""
        first, last = self.reads
        return first <= version <= last

    @model_validator(mode="after")
    def _is_a_range(self) -> "ConfigCompatibility":
        if self.reads[0] > self.reads[1]:
            raise ValueError("reads names the first version after the last")
        return self


class FromVersions(SignedWord):
    """From which rollback indexes this release may be reached; no maximum means any later one.

    A gateway that serves no release yet counts as index 0, which is below that of every release. So does a
    daemon that was adopted, unless its program is this release's own, byte for byte.
    """

    min: int = Field(ge=0)
    """Least rollback index; 0 lets it be the first one."""
    max: int | None = None
    """Last one."""

    def allow(self, rollback_index: int) -> bool:
        """Return whether a gateway may come from the release of that index."""
        return self.min <= rollback_index and (self.max is None or rollback_index <= self.max)


class DrainBounds(SignedWord):
    """How long sessions of the release before may take to end: a fleet's deadline has to lie between."""

    min_seconds: int = Field(ge=0)
    """Shortest deadline that its signers allow."""
    max_seconds: int = Field(ge=0)
    """Longest one."""

    @property
    def least(self) -> timedelta:
        """The shortest deadline of a drain."""
        return timedelta(seconds=self.min_seconds)

    @property
    def most(self) -> timedelta:
        """The longest deadline of a drain."""
        return timedelta(seconds=self.max_seconds)

    @model_validator(mode="after")
    def _has_room(self) -> "DrainBounds":
        if self.min_seconds > self.max_seconds:
            raise ValueError("no deadline of a drain is that long and that short at once")
        return self


class ReleaseManifest(SignedWord):
    """Everything a release is, as its signers saw it (`gateway-release/v1`).

    Only `rollback_index` orders releases; `version` is a label for people.
    """

    product: Name
    """What it is a release of."""
    version: str = Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z][0-9A-Za-z.+~_:-]*$")
    """What people call it."""
    channel: Name
    """For which fleets."""
    rollback_index: int = Field(ge=1)
    """The order of releases; a later one has a higher number."""
    serial: int = Field(ge=1)
    """Unique and growing in its channel."""
    issued_at: AwareDatetime
    """When it was made."""
    expires_at: AwareDatetime
    """Until when it may be admitted, 180 days at most."""
    platforms: tuple[Platform, ...] = Field(min_length=1)
    """What it runs on; one of them has to be the host's."""
    daemon: Daemon
    """What it runs."""
    artifacts: tuple[Artifact, ...] = Field(min_length=1)
    """Every byte of it: one archive, and single files."""
    config_schema: ConfigSchema
    """Its configuration template, which is among the artifacts."""
    config_compat: ConfigCompatibility
    """Which configurations it reads, and which it writes."""
    from_versions: FromVersions
    """From which releases it may be reached."""
    protocol_compat: tuple[Name, ...]
    """The daemons whose clients it serves; its own is among them."""
    drain: DrainBounds
    """How long sessions of the release before may take to end."""
    requires_approval_for: tuple[Literal["config", "credentials"], ...]
    """Changes that need an approval, whatever trust.yaml says."""
    known_good_of: None = Field(default=None, description="reserved: nothing may be said here yet")
    sbom: Sha256 | None = None
    """Digest of its bill of materials."""
    notes: str = Field(default="", max_length=4096)
    """For people."""
    changelog: Changelog = ""
    """What it changes for people; hosts of before refuse a manifest that has one."""
    image: Sha256 | None = None
    """Digest of the manifest of its container image, whose first layer is the release's tree; a cluster runs
    exactly this one, and hosts of before refuse a manifest that has one."""

    @property
    def image_digest(self) -> Digest | None:
        """The digest of its image in the form code compares; None where no cluster can run it."""
        return f"sha256:{self.image}" if self.image else None

    @property
    def subjects(self) -> dict[str, Sha256]:
        """What the statement around it speaks about: its artifacts and its image, by name."""
        named = {artifact.name: artifact.sha256 for artifact in self.artifacts}
        return named | {IMAGE: self.image} if self.image else named

    @property
    def tree(self) -> Artifact | None:
        """The archive of its tree."""
        return next((artifact for artifact in self.artifacts if artifact.unpack != "none"), None)

    @property
    def executable(self) -> ReleaseFile:
        """The daemon's own file."""
        return next(f for a in self.artifacts for f in a.files if f.path == self.daemon.executable)

    def reference(self, digest: Digest) -> ReleaseRef:
        """Return how plans name this release; `digest` is that of the exact signed bytes."""
        executable = f"sha256:{self.executable.sha256}"
        return ReleaseRef(digest=digest, product=self.product, version=self.version, executable=executable)

    @model_validator(mode="after")
    def _is_whole(self) -> "ReleaseManifest":
        _refuse_long_life(self.issued_at, self.expires_at, LONGEST_LIFE)
        named = [artifact.name for artifact in self.artifacts] + [IMAGE] * (self.image is not None)
        _refuse_twins(named, "the manifest")
        _refuse_second_trees(self.artifacts)
        found = [f for artifact in self.artifacts for f in artifact.files if f.path == self.daemon.executable]
        if len(found) != 1:
            raise ValueError(f"the executable {self.daemon.executable} must be listed exactly once")
        if self.config_schema.sha256 not in [artifact.sha256 for artifact in self.artifacts]:
            raise ValueError("the configuration template is not among the artifacts")
        if not self.config_compat.understands(self.config_schema.version):
            raise ValueError("config_compat.reads leaves out the version of the release's own template")
        if self.daemon.kind not in self.protocol_compat:
            raise ValueError("protocol_compat leaves out the release's own daemon")
        return self


class CurrentRelease(SignedWord):
    """A release that a channel offers now."""

    manifest_sha256: Sha256
    """Digest of its manifest."""
    rollback_index: int = Field(ge=1)
    """As its manifest has it."""


class ChannelIndex(SignedWord):
    """What a channel offers now (`channel-index/v1`); short-lived, so that nobody can freeze a fleet."""

    product: Name
    """The product whose channel it is."""
    channel: Name
    """The channel."""
    serial: int = Field(ge=1)
    """Growing: an older index is refused where a newer one was seen."""
    issued_at: AwareDatetime
    """When it was made."""
    expires_at: AwareDatetime
    """Until when it counts, seven days at most."""
    current: tuple[CurrentRelease, ...]
    """Every release that may be installed."""
    revoked: tuple[Sha256, ...] = ()
    """Manifests that may not be installed any more."""
    security_floor: int = Field(default=0, ge=0)
    """Rollback index below which nothing is admitted."""

    @model_validator(mode="after")
    def _is_short_lived(self) -> "ChannelIndex":
        _refuse_long_life(self.issued_at, self.expires_at, LONGEST_INDEX_LIFE)
        return self


class ReleaseRow(Value):
    """A release as the ledger knows it."""

    release: ReleaseRef
    source: str
    signers: tuple[str, ...]
    """Whose signatures count now."""
    former_signers: tuple[str, ...] = ()
    """Whose signatures counted before others signed the release anew."""
    added_at: datetime
    added_by: str
    yanked_reason: str | None = None
    changelog: str = ""
    """What its signers say that it changes, where one release is asked for; a list of them leaves it out."""

    @property
    def ever_signed(self) -> tuple[str, ...]:
        """Everyone who has signed it, now or before."""
        return (*self.signers, *self.former_signers)


def _refuse_long_life(issued_at: datetime, expires_at: datetime, longest: timedelta) -> None:
    if not timedelta(0) < expires_at - issued_at <= longest:
        raise ValueError(f"expires_at must be after issued_at, by at most {longest.days} days")


def _refuse_second_trees(artifacts: Iterable[Artifact]) -> None:
    """Refuse what would be written into the one tree of a release, or over what its host writes beside it."""
    alone, archives = list[str](), list[str]()
    for artifact in artifacts:
        (alone if artifact.unpack == "none" else archives).append(artifact.name)
    if len(archives) > 1:
        raise ValueError(f"{' and '.join(archives)} are archives; a release has one tree")
    for name in alone:
        if (top := name.split("/")[0].casefold()) in RESERVED:
            raise ValueError(f"artifact {name}: a single file may not be called {top} or lie below it")
    _refuse_below_leaves(alone, "the manifest")


def _refuse_below_leaves(paths: Iterable[str], where: str) -> None:
    """Refuse paths that need a folder where another one is a file or a link."""
    leaves = set(paths)
    for path in leaves:
        for parent in accumulate(path.split("/")[:-1], "{}/{}".format):
            if parent in leaves:
                raise ValueError(f"{where}: {path} lies below {parent}, which is no folder")


def _refuse_twins(names: Iterable[str], where: str) -> None:
    """Refuse names that are equal, also where upper and lower case mean the same file."""
    if name := twice(name.casefold() for name in names):
        raise ValueError(f"{where} lists {name} twice")
