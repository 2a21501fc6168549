"""What the lab offers to upgrade to: two real versions of its daemon, a faulty one and a tampered one."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path

from deploy.lab.daemons.port import LabDaemon
from deploy.lab.processes import Process
from deploy.lab.releases import LabReleases
from deploy.lab.spoiled import Spoiled, SpoiledLater, spoil
from policies.model.plan import ReleaseRef
from policies.trust.statements import parse_release


class Offers:
    """The releases of one lab, built, signed and published; the trees are kept between labs."""

    older: ReleaseRef
    newer: ReleaseRef
    faulty: ReleaseRef
    tampered: ReleaseRef

    def __init__(self, published: LabReleases, daemon: LabDaemon, cache: Path) -> None:
        """Build and publish all four.

        The faulty one is the newer daemon with a config that asks who was let in years ago: everything about
        it is signed and starts, and most people cannot log in.
        """
        self._template = daemon.template
        self._published = published
        self._cache = own = cache / daemon.name
        own.mkdir(parents=True, exist_ok=True)
        older, newer = own / "older", own / "newer"
        older_version = daemon.collect_older(older)
        newer_version = daemon.collect_newer(newer, cache / "packages")
        stale = own / "stale.conf.template"
        stale.write_text(self._template.read_text().replace(*daemon.stale))
        self.older = self._publish(older, self._template, older_version, 1)
        self.newer = self._publish(newer, self._template, newer_version, 2)
        self.faulty = self._publish(newer, stale, f"{newer_version}+fix1", 3)
        other = own / "tampered.conf.template"
        other.write_text(self._template.read_text() + "# the second fix\n")
        self.tampered = self._publish(newer, other, f"{newer_version}+fix2", 4)
        self._tamper_with(self.tampered)

    def index(self, age: timedelta = timedelta(0)) -> None:
        """Publish the index of the channel anew, as one that was issued so long ago."""
        self._published.refresh_index(age=age)

    def equals(self) -> tuple[ReleaseRef, ReleaseRef]:
        """Publish the newer and the faulty one again, as old as the older one.

        Between releases of one age a fleet may go back and forth, as long rows of rollouts do.
        """
        newer, faulty = self.newer.version, self.faulty.version
        return (
            self._publish(self._cache / "newer", self._template, f"{newer}+same", 1),
            self._publish(self._cache / "newer", self._cache / "stale.conf.template", f"{faulty}+same", 1),
        )

    def again(self, name: str) -> ReleaseRef:
        """Publish the newer ocserv once more, under a version of its own and as old as the newer one."""
        return self._publish(self._cache / "newer", self._template, f"{self.newer.version}+{name}", 2)

    def spoiled(self, how: Spoiled | SpoiledLater) -> ReleaseRef:
        """Publish the newer ocserv with a library in it that does harm; signed like the others.

        Raises:
            Unavailable: there is no compiler here.
        """
        tree = self._cache / "spoiled"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(self._cache / "newer", tree, symlinks=True)
        spoil(tree, how)
        return self._publish(
            tree, self._template, f"{self.newer.version}+{how.name.lower().replace('_', '.')}", 2
        )

    def _publish(self, tree: Path, template: Path, version: str, number: int) -> ReleaseRef:
        digest = self._published.publish(tree, template, version=version, rollback_index=number)
        statement = self._published.root / "statements" / digest.replace(":", "/")
        return parse_release(statement.read_bytes()).reference(digest)

    def _tamper_with(self, release: ReleaseRef) -> None:
        """Change one byte of a blob that only this release names."""
        statement = self._published.root / "statements" / release.digest.replace(":", "/")
        manifest = parse_release(statement.read_bytes())
        blob = self._published.root / "blobs" / manifest.artifacts[-1].digest.replace(":", "/")
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        fresh = blob.with_suffix(".changed")
        fresh.write_bytes(content)
        fresh.replace(blob)


def server(published: LabReleases, namespace: str, address: str, port: int, log: Path) -> Process:
    """Return the repository's server, not yet started."""
    command = [sys.executable, "-m", "deploy.lab.repository", "--root", str(published.root)]
    command += ["--address", address, "--port", str(port)]
    return Process(
        "repository",
        command,
        log=log,
        namespace=namespace,
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
