"""Make releases: a tree and a configuration template become blobs and one statement to be signed.

The same inputs give the same bytes: archives carry no times, owners or order of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from activities.drivers.daemon.products import ACCOUNTS, DAEMONS, TEMPLATES, USER_FILES
from orchestrator.publishing.image import BuiltImage, require_image_of
from orchestrator.publishing.linking import Root
from orchestrator.publishing.packing import LEFT_OUT, artifact, listed, pack
from orchestrator.publishing.private_keys import keys_in, refuse_keys
from orchestrator.publishing.tree import require_whole
from policies.model.changelog import Changelog
from policies.model.errors import BadInput
from policies.model.refusals import TrustError
from policies.model.release import (
    IMAGE,
    INDEX_PREDICATE,
    RELEASE_PREDICATE,
    STATEMENT_TYPE,
    CurrentRelease,
    ReleaseManifest,
)
from policies.model.value import Digest, digest_of
from policies.trust import strict_json
from policies.trust.statements import parse_release

MOST_NAMED = 5
"""Files of users that a refusal quotes; of the others it has the number."""


@dataclass(frozen=True)
class ReleaseLabels:
    """What a release is called and how it is ordered."""

    product: str
    version: str
    channel: str = "stable"
    rollback_index: int = 1
    serial: int = 1
    daemon: str = "ocserv"
    executable: str = "usr/sbin/ocserv"
    notes: str = ""
    changelog: str = ""
    """What it changes for people, in plain text or Markdown; nothing is said of it when empty."""
    days: int = 90
    platform: str = "linux/amd64"
    follows: tuple[int, int | None] = (0, None)
    """From which rollback indexes it may be reached; None is any later one, and 0 a gateway without any."""
    config_version: int = 1
    reads_config: tuple[int, int] = (1, 1)
    """The first and the last version of configurations that it reads; it writes that of its template."""
    requires_approval_for: tuple[str, ...] = ()
    """`config` and `credentials`: whoever upgrades across such a change needs somebody's approval."""
    drain_at_most: timedelta = timedelta(hours=8)
    """How long sessions of the release before may go on at most."""
    image: str = ""
    """Digest of the image that clusters run it from; none where it is for hosts alone."""
    issued_at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))


@dataclass(frozen=True)
class BuiltRelease:
    """A release before it is signed: the statement, and where each of its blobs lies."""

    statement: bytes
    blobs: dict[Digest, Path]

    @property
    def digest(self) -> Digest:
        """The release's identity: the digest of the exact bytes to be signed."""
        return digest_of(self.statement)


def read_changelog(path: Path) -> str:
    """Return the text of a changelog's file, with the line ends of every system made one.

    Raises:
        BadInput: it is too long, no text, or has characters that show nothing.
    """
    try:
        text = path.read_text("utf-8-sig").strip()
        return TypeAdapter[str](Changelog).validate_python(text)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text; save the file as UTF-8") from error
    except ValidationError as error:
        raise BadInput(f"{path}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def build_release(
    tree: Path,
    template: Path,
    labels: ReleaseLabels,
    blobs: Path,
    *,
    left_out: Sequence[str] = LEFT_OUT,
    compress: bool = False,
    image: BuiltImage | None = None,
) -> BuiltRelease:
    """Return the statement about this tree and template; the blobs are written to the folder `blobs`.

    With an image of the same tree the statement names it, and its blobs are among those of the release.

    Raises:
        BadInput: there is no such daemon; the tree holds something a release cannot carry, a private key,
            or too much for one manifest; it lacks a library; the template lacks what its daemon's driver
            fills; the tree has no such user or group as the template has the daemon run as, or lacks files
            that it names for some users; one of these gives out addresses; or the image is not of this tree.
    """
    if labels.daemon not in DAEMONS:
        raise BadInput(
            f"no daemon is called {labels.daemon}; write --daemon with one of {', '.join(DAEMONS)}"
        )
    listing = listed(tree, left_out)
    _require_platform(tree, listing.paths, labels)
    text = _require_template(template, labels.daemon)
    _require_accounts(tree, text, template, labels.daemon)
    _require_user_files(tree, text, template, labels.daemon)
    blobs.mkdir(parents=True, exist_ok=True)
    packed = pack(listing, blobs / f"{labels.product}-{labels.version}.tar", compress=compress)
    root = packed.artifact | {"platform": labels.platform}
    config = blobs / f"{labels.product}-{labels.version}.conf.template"
    config.write_bytes(template.read_bytes())
    settings = artifact(f"config/{labels.daemon}.conf.template", config, "text/plain", "none")
    labels = replace(labels, image=image.digest) if image else labels
    statement = release_statement(_predicate(labels, [root, settings], settings))
    manifest = _read_again(statement)
    if image:
        require_image_of(manifest, image)
    own = {f"sha256:{root['sha256']}": packed.archive, f"sha256:{settings['sha256']}": config}
    return BuiltRelease(statement, (image.everything(blobs) if image else {}) | own)


def _require_platform(tree: Path, files: Sequence[str], labels: ReleaseLabels) -> None:
    """Refuse a tree whose programs and modules lack what they load, or run on something else."""
    root = Root(tree)
    linked = {path: asked for path in files if (asked := root.asked(path)) is not None}
    programs = [labels.executable, *(path for path, asked in linked.items() if asked.loader is not None)]
    closure = root.closure(programs, linked)
    require_whole(closure, tree)
    processor = labels.platform.partition("/")[2]
    if other := closure.processors - {processor}:
        raise BadInput(f"{tree} has programs for {min(other)}, and the release is for {labels.platform}")


def _require_template(template: Path, daemon: str) -> str:
    content = template.read_bytes()
    refuse_keys(keys_in(content, str(template)))
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{template} is not UTF-8 text; save the file as UTF-8") from error
    if daemon in TEMPLATES:
        TEMPLATES[daemon](text, str(template))
    return text


def _require_accounts(tree: Path, text: str, template: Path, daemon: str) -> None:
    """Refuse a user or group that the daemon would not find in its root; accounts of hosts do not count."""
    if daemon not in ACCOUNTS:
        return
    wanted = ACCOUNTS[daemon](text)
    for (key, names), kind, path in (
        (wanted.users, "user", "etc/passwd"),
        (wanted.groups, "group", "etc/group"),
    ):
        there = _names_in(tree / path)
        if missing := [name for name in names if name not in there]:
            raise BadInput(
                f"{template}: {key} names {kind} {missing[-1]}, and {path} of {tree} has only "
                f"{', '.join(there) or 'nothing'}; write one of these, or add {missing[-1]} to that file"
            )


def _require_user_files(tree: Path, text: str, template: Path, daemon: str) -> None:
    """Refuse files for single users and groups that give out addresses: each slot has pools of its own.

    One that is not in the tree would be read by nobody before users meet it.
    """
    if daemon not in USER_FILES:
        return
    named_in, addresses_in = USER_FILES[daemon]
    root, wrong = Root(tree), list[str]()
    for one in named_in(text):
        if "$" in one.path or not (tree / root.place(one.path)).exists():
            raise BadInput(
                f"{template}: line {one.number}: {one.key} names {one.path}, which is not in {tree}; put it "
                "there, and write its path in the tree"
            )
        for path in root.files(one.path):
            said = addresses_in((tree / path).read_text(errors="replace"))
            wrong += [f"{path}: {', '.join(said)}"] if said else []
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} files more" if len(wrong) > MOST_NAMED else ""
        raise BadInput(f"{tree} has files that give users addresses: {'; '.join(wrong[:MOST_NAMED])}{more}")


def _names_in(accounts: Path) -> list[str]:
    """Return the names of a file of accounts, in its order."""
    if not accounts.is_file():
        return []
    lines = accounts.read_text(errors="replace").splitlines()
    return [name for line in lines if (name := line.partition(":")[0].strip())]


def release_statement(predicate: dict[str, Any]) -> bytes:
    """Return the statement about a release; its subjects are the manifest's artifacts and its image."""
    subjects = [(artifact["name"], artifact["sha256"]) for artifact in predicate["artifacts"]]
    subjects += [(IMAGE, predicate[IMAGE])] if IMAGE in predicate else []
    return _statement(RELEASE_PREDICATE, subjects, predicate)


def index_statement(
    product: str,
    channel: str,
    current: Sequence[CurrentRelease],
    *,
    serial: int,
    issued_at: datetime,
    days: int = 7,
    revoked: Sequence[str] = (),
    security_floor: int = 0,
) -> bytes:
    """Return the statement that says what a channel offers now."""
    predicate = {
        "product": product,
        "channel": channel,
        "serial": serial,
        "issued_at": issued_at.isoformat(),
        "expires_at": (issued_at + timedelta(days=days)).isoformat(),
        "current": [release.model_dump() for release in current],
        "revoked": list(revoked),
        "security_floor": security_floor,
    }
    names = [release.manifest_sha256 for release in current]
    subjects = [(f"{product}/{channel}/{sha256}", sha256) for sha256 in names]
    return _statement(INDEX_PREDICATE, subjects, predicate)


def _statement(predicate_type: str, subjects: Sequence[tuple[str, str]], predicate: dict[str, Any]) -> bytes:
    return strict_json.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def _predicate(
    labels: ReleaseLabels, artifacts: list[dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    system, _, processor = labels.platform.partition("/")
    least, most = labels.follows
    return {
        "product": labels.product,
        "version": labels.version,
        "channel": labels.channel,
        "rollback_index": labels.rollback_index,
        "serial": labels.serial,
        "issued_at": labels.issued_at.isoformat(),
        "expires_at": (labels.issued_at + timedelta(days=labels.days)).isoformat(),
        "platforms": [{"os": system, "arch": processor}],
        "daemon": {"kind": labels.daemon, "executable": labels.executable},
        "artifacts": artifacts,
        "config_schema": {
            "sha256": settings["sha256"],
            "size": settings["size"],
            "version": labels.config_version,
        },
        "config_compat": {"reads": list(labels.reads_config), "writes": labels.config_version},
        "from_versions": {"min": least, "max": most},
        "protocol_compat": [labels.daemon],
        "drain": {"min_seconds": 0, "max_seconds": int(labels.drain_at_most.total_seconds())},
        "requires_approval_for": list(labels.requires_approval_for),
        "notes": labels.notes,
    } | _optional(labels)


def _optional(labels: ReleaseLabels) -> dict[str, Any]:
    """Return what a manifest leaves out when nothing is said of it: hosts of before refuse the very words."""
    said = {"changelog": labels.changelog, "image": labels.image.removeprefix("sha256:")}
    return {name: value for name, value in said.items() if value}


def _read_again(statement: bytes) -> ReleaseManifest:
    """Return what every host will read; nobody is handed a statement that they would refuse."""
    try:
        json.loads(statement)
        return parse_release(statement)
    except (TrustError, ValidationError) as error:
        if len(statement) > strict_json.MAX_BYTES:
            files = sum(len(one.get("files", ())) for one in json.loads(statement)["predicate"]["artifacts"])
            raise BadInput(
                f"the manifest lists {files} files in {len(statement)} bytes; {strict_json.MAX_BYTES} bytes "
                "are the most, which is some 400 files. Leave out folders that the daemon does not read; of "
                "certificates one bundle such as /etc/ssl/certs/ca-certificates.crt is enough"
            ) from error
        raise BadInput(
            f"the release cannot be described in one manifest: {error}; leave out what nothing runs"
        ) from error
