"""Versions on a host: releases that were admitted, laid out once, and never changed again."""

import os
import shutil
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from activities.drivers.disk import size_of, sync_folder, sync_tree, write_whole
from activities.drivers.runtime.host.chroot import MOUNT_POINTS
from activities.drivers.runtime.host.process import digest_of_file
from activities.releases import Admitted
from policies.model.errors import Refused
from policies.model.host import Host
from policies.model.plan import ReleaseRef
from policies.model.release import LONGEST_INDEX_LIFE, ReleaseManifest
from policies.model.value import Digest

KEPT_FOR: timedelta = LONGEST_INDEX_LIFE
"""How long a version stays that no slot has: afterwards it has to be admitted anew before it may start."""

KEPT_KNOWN_GOOD = 3
"""How many known-good versions stay, the latest ones, however old they are."""

HALF_LAID = ".new"
"""How the name of a version ends that is being laid out."""


class Admission(Protocol):
    """The trust part's door on this host: nothing is laid out that did not come through it."""

    async def admit(self, release: ReleaseRef, source: str, *, host: Host) -> Admitted:
        """Fetch, verify and store the release; raise a TrustError when it may not be here."""
        ...

    async def reconsider(self, release: ReleaseRef, *, host: Host) -> Admitted:
        """Judge a release again that was admitted here; raise a TrustError when it may not start any more."""
        ...

    async def require_way_back(self, release: ReleaseRef, source: str) -> None:
        """Return if what serves would start again, or was given up; raise a TrustError when it would not."""
        ...

    def known_good(self) -> tuple[Digest, ...]:
        """Return what was promoted here, the latest last."""
        ...

    def collect_garbage(self, keep: Collection[Digest]) -> tuple[Digest, ...]:
        """Remove the stored artifacts of all other releases that are not known-good; return what went."""
        ...

    async def unpack(self, admitted: Admitted, into: Path, *, folders: Sequence[str]) -> None:
        """Lay the archive out in `into`/root, with these folders, and single files beside it."""
        ...

    async def lay_image(self, admitted: Admitted, source: str, into: Path) -> None:
        """Lay the release's image out in `into`: `manifest.json`, and each blob by its digest."""
        ...


class Versions:
    """The folder `versions/`: one folder for each release, complete when `.complete` is there."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "versions"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where the release of that manifest digest is or would be."""
        return self.folder / digest.replace(":", "-")

    def digest(self, path: Path) -> str:
        """Return the manifest digest whose folder this is."""
        return path.name.replace("-", ":", 1)

    def complete(self, digest: str) -> bool:
        """Return whether the release is here in full."""
        return (self.path(digest) / ".complete").is_file()

    def signers(self, digest: str) -> tuple[str, ...]:
        """Return who signed a complete release."""
        return tuple((self.path(digest) / ".complete").read_text().splitlines())

    def manifest(self, digest: str) -> ReleaseManifest:
        """Return the manifest of a complete release."""
        return ReleaseManifest.model_validate_json((self.path(digest) / "manifest.json").read_bytes())

    def manifest_or_none(self, digest: str) -> ReleaseManifest | None:
        """Return the manifest of a release, None where it is not here in full."""
        try:
            return self.manifest(digest)
        except (OSError, ValueError):
            return None

    def template(self, digest: str) -> Path:
        """Return the configuration template of a complete release."""
        manifest = self.manifest(digest)
        wanted = manifest.config_schema.sha256
        name = next(artifact.name for artifact in manifest.artifacts if artifact.sha256 == wanted)
        return self.path(digest) / name

    async def lay_out(self, release: ReleaseRef, admission: Admission, source: str, host: Host) -> bool:
        """Ensure that the admitted release is here, whole; return whether anything had to be done.

        A release that is here already is admitted anew: it may have been revoked since. What a
        crash left is removed first: without `.complete` nothing is trusted.
        """
        admitted = await admission.admit(release, source, host=host)
        if self.complete(release.digest):
            os.utime(self.path(release.digest) / ".complete")
            return False
        target, building = self.path(release.digest), self.folder / f".{release.digest[-16:]}{HALF_LAID}"
        for leftover in (building, target):
            shutil.rmtree(leftover, ignore_errors=True)
        building.mkdir(mode=0o755)
        await admission.unpack(admitted, building, folders=MOUNT_POINTS)
        (building / "manifest.json").write_text(admitted.manifest.model_dump_json())
        self.verify(building, admitted.manifest, release)
        sync_tree(building)
        building.rename(target)
        sync_folder(self.folder)
        write_whole(target / ".complete", "\n".join(admitted.signers) + "\n")
        return True

    def verify(self, version: Path, manifest: ReleaseManifest, release: ReleaseRef) -> None:
        """Compare every file on disk with the manifest.

        Raises:
            Refused: naming the first file that is not what was signed.
        """
        if f"sha256:{manifest.executable.sha256}" != release.executable:
            raise Refused(
                f"{release.product} {release.version}: the plan expects another daemon than the manifest "
                "names; make a new plan"
            )
        for artifact in manifest.artifacts:
            alone = [] if artifact.files else [(version / artifact.name, artifact.sha256)]
            tree = [(version / "root" / file.path, file.sha256) for file in artifact.files]
            for path, signed in (*alone, *tree):
                if digest_of_file(path) != f"sha256:{signed}":
                    raise Refused(
                        f"{release.product} {release.version}: {path.relative_to(version)} on the host is "
                        "not the file that was signed; remove the version and stage it again"
                    )

    def left_by_the_killed(self) -> int:
        """Return the bytes of versions whose laying out was killed, as far as none is laid out now."""
        return sum(size_of(path) for path in self._half_laid())

    def remove_half_laid(self) -> None:
        """Remove what laying out a version leaves when it is killed; for who holds the staging lock."""
        for path in self._half_laid():
            shutil.rmtree(path, ignore_errors=True)

    def _half_laid(self) -> list[Path]:
        return list(self.folder.glob(f".*{HALF_LAID}"))

    def prune(self, keep: Collection[Digest]) -> tuple[Digest, ...]:
        """Remove every version that is not to be kept and that nobody staged lately; return what went."""
        gone = [
            digest
            for digest in map(self.digest, sorted(self.folder.glob("sha256-*")))
            if digest not in keep and not self._lately(digest)
        ]
        for digest in gone:
            # what is not whole is never trusted: a crash in between leaves no version without its files
            (self.path(digest) / ".complete").unlink(missing_ok=True)
            shutil.rmtree(self.path(digest), ignore_errors=True)
        return tuple(gone)

    def _lately(self, digest: Digest) -> bool:
        try:
            staged = (self.path(digest) / ".complete").stat().st_mtime
        except OSError:
            return False
        return time.time() - staged < KEPT_FOR.total_seconds()

    def largest(self) -> int:
        """Return the bytes of the largest version here: what another one will need at most."""
        return max((size_of(path) for path in self.folder.glob("sha256-*")), default=0)
