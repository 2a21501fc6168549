"""The stage on which releases are attacked: a real release, a real signer, a server that may turn hostile."""

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from activities.drivers.trust_files import Trail, compose_releases
from activities.releases import Admitted, Releases
from deploy.lab.releases import LabReleases
from deploy.lab.signer import LabSigner
from orchestrator.publishing.builder import ReleaseLabels, build_release, index_statement, release_statement
from orchestrator.publishing.folder import add_signature, offer, place, publish
from policies.model.release import CurrentRelease
from policies.model.value import Digest, digest_of
from tests.fakes.hostile import HostileServer, Peer, Request, Script, blob_server
from tests.fakes.trees import small_tree

PRODUCT, CHANNEL = "ocserv-gw", "stable"


class Stage:
    """A good release, published; attacks change something and then ask for it."""

    def __init__(self, folder: Path, product: str = PRODUCT) -> None:
        self.folder, self.product = folder, product
        self.root = folder / "repository"
        self.overrides: dict[str, Script] = {}
        """Answers instead of the repository's own, by the beginning of the path."""
        self.time: datetime | None = None
        self.server = HostileServer(self._serve)
        self.policy_digest: Digest | None = None
        """The trust policy agreed on; None when nothing was agreed on."""

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.lab = LabReleases(self.folder / "lab", self.root, self.server.url, product=self.product)
        self.signer: LabSigner = self.lab.signer
        tree, self.template = small_tree(self.folder)
        labels = ReleaseLabels(product=self.product, version="1.3.0", rollback_index=5, serial=5)
        self.built = build_release(tree, self.template, labels, self.folder / "blobs")
        self.statement: dict[str, Any] = json.loads(self.built.statement)
        self.digest = self.lab.publish_built(self.built, 5)
        self.index_serial = 1
        self.releases = self.compose()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(*error)

    def compose(self) -> Releases:
        """Return releases over the stage's store, as a restarted worker would."""
        return compose_releases(
            self.folder / "store",
            self.lab.trust_policy,
            product=self.product,
            channel=CHANNEL,
            clock=lambda: self.time or datetime.now(UTC),
        )

    # --- what attacks change ---------------------------------------------------------

    def change_policy(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite trust.yaml."""
        policy = json.loads(self.lab.trust_policy.read_text())
        change(policy)
        self.lab.trust_policy.write_text(json.dumps(policy))

    def change_trusted_root(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite the Sigstore instance's trusted root, and pin it again."""
        root = self.signer.trusted_root()
        change(root)
        self.signer.trusted_root_path.write_text(json.dumps(root))
        sha256 = digest_of(self.signer.trusted_root_path.read_bytes())[7:]
        self.change_policy(lambda policy: policy["trust_roots"]["lab"].update(sha256=sha256))

    def bundles(self, statement: bytes | None = None) -> list[bytes]:
        """Return good bundles of the two people over these bytes."""
        payload = self.built.statement if statement is None else statement
        return [self.signer.sign(payload, *person) for person in (self.lab.builder, self.lab.manager)]

    def sign_again(self, *signatures: bytes, kind: str = "sigstore") -> None:
        """Have exactly these signatures beside the release."""
        publish(self.root, self.built.statement, [(kind, signature) for signature in signatures], {})

    def change_bundle(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Alter the builder's bundle."""
        first, second = self.bundles()
        bundle = json.loads(first)
        change(bundle)
        self.sign_again(json.dumps(bundle).encode(), second)

    def publish_statement(self, payload: bytes, signatures: list[bytes] | None = None) -> None:
        """Ask for this statement instead, signed by both people unless given otherwise."""
        bundles = self.bundles(payload) if signatures is None else signatures
        publish(self.root, payload, [("sigstore", bundle) for bundle in bundles], {})
        self.digest = digest_of(payload)

    def publish_changed(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Ask for a release whose whole statement was altered before both people signed it."""
        statement = copy.deepcopy(self.statement)
        change(statement)
        self.publish_statement(json.dumps(statement).encode())

    def publish_predicate(self, **fields: object) -> None:
        """Ask for a release with other fields, signed by both people."""
        self.publish_statement(release_statement(self.statement["predicate"] | fields))

    def publish_archive(self, archive: bytes, unpack: str = "tar") -> None:
        """Ask for a release whose tree is this archive, signed by both people."""
        path = self.folder / "archive"
        path.write_bytes(archive)
        predicate = copy.deepcopy(self.statement["predicate"])
        root = predicate["artifacts"][0]
        root |= {"sha256": digest_of(archive)[7:], "size": len(archive), "unpack": unpack}
        payload = release_statement(predicate)
        publish(self.root, payload, [], {digest_of(archive): path})
        self.publish_statement(payload)
        self.publish_index(serial=2)

    def publish_index(
        self, *, serial: int, issued_at: datetime | None = None, rollback_index: int = 5, **more: Any
    ) -> None:
        """Offer another channel index, signed by the builder, with the release alone."""
        current = [CurrentRelease(manifest_sha256=self.digest[7:], rollback_index=rollback_index)]
        now = (issued_at or datetime.now(UTC)).replace(microsecond=0)
        more = {"product": self.product, "channel": CHANNEL} | more
        statement = index_statement(current=current, serial=serial, issued_at=now, **more)
        usual, self.signer.now = self.signer.now, lambda: now
        bundle = self.signer.sign(statement, *self.lab.builder)
        self.signer.now = usual
        publish(self.root, statement, [("sigstore", bundle)], {})
        offer(self.root, self.product, CHANNEL, digest_of(statement))

    def add_signature(self, kind: str, content: bytes, token: bytes | None = None) -> None:
        """Add a signature beside the release."""
        add_signature(self.root, self.built.digest, kind, content, token)

    def tree_blob(self) -> Path:
        """Return the repository's file of the release's tree."""
        return place(self.root, "blobs", f"sha256:{self.statement['predicate']['artifacts'][0]['sha256']}")

    # --- what is seen afterwards -----------------------------------------------------

    async def outcome(self, step: "Callable[[Stage], Awaitable[object]] | None" = None) -> str:
        """Ask for the release, or take the step; return the verdict's name."""
        try:
            await (step(self) if step else self.admit_and_unpack())
        except Exception as refusal:  # noqa: BLE001 - its name is what is judged
            return getattr(refusal, "code", type(refusal).__name__)
        return "Admitted"

    async def admit(self) -> Admitted:
        """Ask for the release."""
        return await self.releases.admit(self.digest, self.server.url, policy=self.policy_digest)

    async def admit_and_unpack(self) -> None:
        """Ask for the release and install it."""
        await self.releases.unpack(await self.admit(), self.folder / "gateway")

    def verdicts(self) -> list[str]:
        """Return the verdicts of the audit record, in order; raises if the record is broken."""
        path = self.folder / "store" / "audit.jsonl"
        return [line.verdict.code for line in Trail(path).read()] if path.exists() else []

    def stored(self) -> list[Path]:
        """Return every file with a verified name."""
        return [path for path in (self.folder / "store" / "sha256").glob("**/*") if path.is_file()]

    def installed(self) -> list[Path]:
        """Return every file on the gateway."""
        return [path for path in (self.folder / "gateway").glob("**/*") if path.is_file()]

    def _serve(self, request: Request, peer: Peer) -> None:
        for path, script in self.overrides.items():
            if request.path.startswith(path):
                script(request, peer)
                return
        file = self.root / request.path.lstrip("/")
        if file.is_file():
            blob_server(file.read_bytes(), f'"{file.stat().st_mtime_ns}"')(replace(request, number=0), peer)
        else:
            peer.head("404 Not Found", Content_Length=0)


def run(step: Awaitable[object]) -> None:
    """Wait for a step from ordinary code."""

    async def wait() -> None:
        await step

    asyncio.run(wait())
