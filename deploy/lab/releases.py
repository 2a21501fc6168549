"""The lab's releases: built, signed by its two people, indexed and published; and its trust policy."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.lab.signer import LabSigner
from orchestrator.publishing.builder import BuiltRelease, ReleaseLabels, build_release, index_statement
from orchestrator.publishing.folder import offer, publish
from orchestrator.publishing.image import ImageLabels, build_image
from orchestrator.publishing.registry import Registry
from policies.model.release import CurrentRelease
from policies.model.value import Digest

ISSUER = "https://idp.lab.penstock.example"
BUILD = "build@lab.penstock.example"
MANAGER = "manager@lab.penstock.example"

Signer = tuple[str, str]
"""Identity and issuer."""


class LabReleases:
    """Publishes releases of one product and channel into a repository folder served at `url`.

    `folder` keeps the signer's keys, built blobs and `trust.yaml`; fresh folders mean fresh keys. With a
    static `shell` every release has an image, for clusters; with a `registry` all that is published is
    pushed there, too.
    """

    issuer = ISSUER
    builder: Signer = (BUILD, ISSUER)
    manager: Signer = (MANAGER, ISSUER)

    def __init__(
        self,
        folder: Path,
        root: Path,
        url: str,
        *,
        product: str,
        daemon: str = "ocserv",
        executable: str = "usr/sbin/ocserv",
        channel: str = "stable",
        shell: Path | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.folder, self.root, self.url = folder, root, url
        self.product, self.channel = product, channel
        self._daemon, self._executable = daemon, executable
        self._shell, self._registry = shell, registry
        self.signer = LabSigner(folder / "signer")
        self.trust_policy = folder / "trust.yaml"
        self._current: list[CurrentRelease] = []
        self._serial = 0
        self.write_policy()

    def write_policy(
        self, allow: Sequence[str] | None = None, credentials: Mapping[str, str] | None = None
    ) -> None:
        """Write trust.yaml: the builder and the release manager must both sign; one source is allowed."""
        root = self.signer.trusted_root_path
        lab = {"sigstore": "lab", "issuer": ISSUER}
        policy = {
            "version": 1,
            "trust_roots": {
                "lab": {
                    "trusted_root": root.relative_to(self.folder).as_posix(),
                    "sha256": hashlib.sha256(root.read_bytes()).hexdigest(),
                }
            },
            "approvals": {"config": {"count": 0}, "credentials": {"count": 0}},
            "rules": [
                {
                    "product": self.product,
                    "channel": self.channel,
                    "groups": {
                        "builder": [lab | {"identity": BUILD}],
                        "release_manager": [lab | {"identity": MANAGER}],
                    },
                    "require": [{"group": "builder"}, {"group": "release_manager"}],
                    "index_group": "builder",
                }
            ],
            "sources": {
                "allow": list(allow or [self.url]),
                "deadline_s": 120.0,
                "credentials": dict(credentials or {}),
            },
        }
        self.trust_policy.write_text(json.dumps(policy, indent=2))

    def publish(
        self,
        tree: Path,
        template: Path,
        *,
        version: str,
        rollback_index: int,
        signers: Sequence[Signer] | None = None,
        changelog: str = "",
    ) -> Digest:
        """Build, sign and publish a release, and a fresh channel index with it; return its digest."""
        labels = ReleaseLabels(
            product=self.product,
            version=version,
            channel=self.channel,
            rollback_index=rollback_index,
            serial=rollback_index,
            daemon=self._daemon,
            executable=self._executable,
            changelog=changelog,
        )
        blobs, named = self.folder / "blobs", ImageLabels(self.product, version)
        image = build_image(tree, self._shell, named, blobs, daemon=self._daemon) if self._shell else None
        built = build_release(tree, template, labels, blobs, image=image)
        return self.publish_built(built, rollback_index, signers)

    def publish_built(
        self, built: BuiltRelease, rollback_index: int, signers: Sequence[Signer] | None = None
    ) -> Digest:
        """Sign and publish a built release, and a fresh channel index with it; return its digest."""
        people = (self.builder, self.manager) if signers is None else signers
        bundles = [("sigstore", self.signer.sign(built.statement, *person)) for person in people]
        digest = publish(self.root, built.statement, bundles, built.blobs)
        if self._registry:
            self._registry.push(self.root, digest)
        sha256 = digest.removeprefix("sha256:")
        current = CurrentRelease(manifest_sha256=sha256, rollback_index=rollback_index)
        self._current = [*(other for other in self._current if other != current), current]
        self.refresh_index()
        return digest

    def refresh_index(self, revoked: Sequence[str] = (), age: timedelta = timedelta(0)) -> Digest:
        """Publish the channel's index with the next serial, signed by the builder; withdraw some releases.

        It lives for a week from its issue, which was `age` ago.
        """
        self._serial += 1
        issued_at = datetime.now(UTC).replace(microsecond=0) - age
        statement = index_statement(
            self.product,
            self.channel,
            self._current,
            serial=self._serial,
            issued_at=issued_at,
            revoked=revoked,
        )
        bundle = self.signer.sign(statement, *self.builder)
        digest = publish(self.root, statement, [("sigstore", bundle)], {})
        offer(self.root, self.product, self.channel, digest)
        if self._registry:
            self._registry.push(self.root, digest)
        return digest
