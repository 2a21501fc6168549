"""Releases: fetch one from a source, admit it only if the right people signed it, and unpack it.

Nothing gets a verified name before its verdict: statements and signatures are judged in
memory, blobs are hashed while they arrive. What was judged is kept as evidence, so that every
verdict can be recomputed later without the source.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from activities.evidence import ContentStore, keep, recall
from activities.refusals import ArchiveRefused, PolicyChanged, PolicyInvalid, SizeExceeded, in_our_words
from activities.threads import to_its_end
from activities.verdicts import (
    Document,
    Judgement,
    LoadedTrust,
    Question,
    judge,
    needs_index,
    refusal,
    refused,
)
from policies.adoption import is_adopted
from policies.changes import change_between
from policies.model.errors import BadInput, PenstockError
from policies.model.host import Host, Serving
from policies.model.plan import ReleaseRef
from policies.model.refusals import (
    DigestMismatch,
    SignatureInvalid,
    SignatureMissing,
    SignerNotAllowed,
    SignerRevoked,
    SubjectMismatch,
    ThresholdNotMet,
    TrustError,
)
from policies.model.release import Artifact, ReleaseManifest
from policies.model.trust import ApprovalRules, Change, Envelope, TrustPolicy
from policies.model.value import Digest, digest_of
from policies.model.verification import Scope, TrustState, TrustVerdict, Verification
from policies.trust.admission import require_not_given_up, rule_for
from policies.trust.constraints import require_drains, require_follows
from policies.trust.images import Part, named_image, require_image
from policies.trust.statements import parse_release

THIS_HOST = "this host"
"""The source of what is judged as it lies here."""

ABSENT = "absent"
"""The reason of a refusal for which nothing is known but that no signature is kept here."""

SIGNED_ANEW_WITHIN = timedelta(seconds=4)
"""How long signatures are fetched that others may have made since; a host has 10 s to answer."""

LARGEST_BESIDE = 64 << 20
"""Bytes of a layer of an image that lies over its tree: a shell and some links take two million."""

_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)

CREDENTIALS = re.compile(r"//[^/]*@")
"""A name and a password in an address, which no record may hold."""


class ReleaseSource(Protocol):
    """Where releases come from; nothing it says is believed."""

    @property
    def accesses(self) -> Sequence[str]:
        """One line for every request made so far, for the audit record."""
        ...

    async def index(self, product: str, channel: str) -> tuple[bytes, tuple[Envelope, ...]]:
        """Return the channel's index statement and its signatures."""
        ...

    async def manifest(self, digest: Digest) -> bytes:
        """Return the statement of that digest, exactly as it was signed."""
        ...

    async def signatures(self, digest: Digest) -> tuple[Envelope, ...]:
        """Return the signatures that lie beside a statement."""
        ...

    async def blob(self, digest: Digest, size: int) -> None:
        """Have the blob in the content store, hashed while it arrived."""
        ...

    async def image(self, digest: Digest) -> bytes:
        """Return the manifest of the image of that digest, as its registry has it."""
        ...


class StateTable(Protocol):
    """What was seen of each product and channel."""

    def read(self, product: str, channel: str) -> TrustState:
        """Return what was seen so far."""
        ...

    def change(self, product: str, channel: str, step: Callable[[TrustState], TrustState]) -> TrustState:
        """Replace the state atomically."""
        ...


@dataclass(frozen=True)
class Admitted:
    """A release that may run here; its blobs are in the store."""

    manifest: ReleaseManifest
    signers: tuple[str, ...]
    reference: ReleaseRef
    reason: str
    verification: Verification


@dataclass(frozen=True)
class Tools:
    """What releases are handled with, chosen where the program is composed."""

    store: ContentStore
    evidence: ContentStore
    states: StateTable
    trust: Callable[[], LoadedTrust]
    policy_in: Callable[[bytes], TrustPolicy]
    """Reads a trust policy that was kept."""
    trust_of: Callable[[Mapping[str, bytes]], LoadedTrust]
    """Reads a trust policy that was kept, with the files that it names."""
    source: Callable[[str, LoadedTrust], ReleaseSource]
    unpack: Callable[[Iterator[bytes], Artifact, Path], bool]
    inspect: Callable[[Iterator[bytes], Artifact], None]
    furnish: Callable[[Path, Sequence[str]], None]
    beside: Callable[[Sequence[bytes], Artifact], object]
    """Refuses layers of an image that change something of the release's tree."""
    record: Callable[[Verification], None]
    clock: Callable[[], datetime]
    promoted: Callable[[], Collection[Digest]] = tuple
    """What the ledger says is known-good; a host that has no ledger is told by `promote`."""


class Releases:
    """Admits and unpacks releases on one host; safe to repeat after any crash.

    A host of one fleet has that fleet's scope; the orchestrator has none and is told each time.
    """

    def __init__(self, scope: Scope | None, tools: Tools) -> None:
        self._scope = scope
        self._tools = tools

    @property
    def policy_digest(self) -> Digest:
        """The digest of the trust policy as it lies on disk now."""
        return self._tools.trust().digest

    async def admit(
        self,
        release: ReleaseRef | Digest,
        source: str,
        *,
        scope: Scope | None = None,
        policy: Digest | None = None,
        host: Host | None = None,
    ) -> Admitted:
        """Have the release verified and in the store, or raise why not; one audit line either way.

        Args:
            release: as a plan names it, or its manifest's digest.
            source: where to fetch it from; for a promoted release in the store it may be unreachable.
            scope: the fleet's product and channel, if not this host's own.
            policy: the digest of the trust policy that was agreed on, if one was.
            host: where it is to run, if a host asks: the release must fit what serves there.

        Raises:
            TrustError: the refusal, by the name of its verdict.
            BadInput: what was asked for is no digest, or the source has no such name.
            Unavailable: this host's disk does not take what arrives.
        """
        case = self._case(_digest_of(release), source, scope, host)
        with self._on_record(case):
            await self._judged(case, policy)
            manifest, reference = await self._complete(case, release)
        return self._admitted(case, manifest, reference)

    async def vouch(self, release: ReleaseRef, source: str) -> Admitted:
        """Have the release verified by its statement and signatures alone, or raise why not; one audit line.

        For who names its bytes to others that fetch them by digest, as a cluster's nodes do with an image.

        Raises:
            As `admit` does.
        """
        case = self._case(release.digest, source)
        with self._on_record(case):
            await self._judged(case)
            manifest, reference = _described(case, release)
        return self._admitted(case, manifest, reference)

    async def reconsider(self, release: ReleaseRef, *, host: Host, scope: Scope | None = None) -> Admitted:
        """Judge a release once more that was admitted here before; nothing is fetched.

        What was withdrawn since, by the trust policy or by an index that this host has seen, is refused, and
        so is what fell below the floor or whose channel's index has expired: it is admitted anew by `admit`.
        What is known-good here is held up by a revocation and the security floor alone, and judged by the
        last trust policy that was as it must be when the file is not. Its signatures are judged by the time
        at which they admitted it: a key that has ended since holds up nothing.

        Raises:
            TrustError: the refusal, by the name of its verdict.
        """
        case = self._case(release.digest, THIS_HOST, scope, host)
        state, trust = case.question.state, case.trust
        with self._on_record(case):
            if release.digest not in state.admitted:
                raise SignatureMissing(f"{release.version} was never admitted on this host; stage it first")
            case.document = recall(self._tools.evidence, state.admitted[release.digest])
            if state.index is not None and needs_index(case.question, trust):
                case.index = recall(self._tools.evidence, state.index)
            await self._judge(case)
            manifest, reference = _described(case, release)
        return self._admitted(case, manifest, reference)

    async def require_way_back(
        self, release: ReleaseRef, source: str = "", *, scope: Scope | None = None
    ) -> None:
        """Return if the release, which is known-good, would start again by what is kept of it here.

        Also if somebody has decided that it shall not: see `require_not_given_up`. With a source, signatures
        that others have made since are fetched and kept when those that are here do not do any more; else
        nothing is written down.

        Raises:
            TrustError: It would be refused, by the name of its verdict.
        """
        case = self._case(release.digest, source or THIS_HOST, scope)
        state = case.question.state
        known_good = state.model_copy(update={"promoted": (*state.promoted, release.digest)})
        case.question = replace(case.question, state=known_good)
        if self._given_up(case) is not None:
            return
        try:
            case.document = self._kept(case)
            if case.document is None:
                raise SignatureMissing(f"the signatures of {release.version} are not here", reason=ABSENT)
            await self._judge(case)
        except TrustError as refusal:
            if not source:
                raise
            await self._signed_anew(case, release, refusal)

    async def _signed_anew(self, case: "_Case", release: ReleaseRef, refusal: TrustError) -> None:
        with self._on_record(case):
            try:
                async with asyncio.timeout(SIGNED_ANEW_WITHIN.total_seconds()):
                    await self._judge_signed_anew(case, refusal)
            except TimeoutError:
                raise refusal from None
            manifest, reference = _described(case, release)
        self._admitted(case, manifest, reference)

    def require_not_given_up(self, release: ReleaseRef, *, scope: Scope | None = None) -> None:
        """Return unless somebody has decided that the release starts nowhere any more.

        Raises:
            SignerRevoked: It was withdrawn.
            DowngradeRefused: It is below the security floor.
        """
        if refusal := self._given_up(self._case(release.digest, THIS_HOST, scope)):
            raise refusal

    def _given_up(self, case: "_Case") -> TrustError | None:
        question, manifest = case.question, None
        with contextlib.suppress(DigestMismatch):
            manifest = parse_release(self._tools.evidence.read(question.digest))
        rule = rule_for(case.trust.policy, question.scope.product, question.scope.channel)
        try:
            require_not_given_up(question.digest, manifest, rule, case.trust.policy, question.state)
        except TrustError as refusal:
            return refusal
        return None

    async def unpack(self, admitted: Admitted, into: Path, *, folders: Sequence[str] = ()) -> None:
        """Have the release's tree at `into/root` and its files beside it, exactly as the manifest lists them.

        The tree gets these `folders`, too, for what its host puts there.

        Raises:
            DigestMismatch: the stored bytes were changed since they were admitted.
            ArchiveRefused: an archive holds anything but the listed files.
            Unavailable: the disk does not take them.
        """
        try:
            for artifact in admitted.manifest.artifacts:
                await to_its_end(self._lay_out, artifact, into)
            await to_its_end(self._tools.furnish, into / "root", folders)
        except Exception as error:
            ours = in_our_words(error, f"release {admitted.manifest.version}")
            self._refuse(admitted, ours)
            if ours is error:
                raise
            raise ours from error

    async def image(self, admitted: Admitted, source: str) -> Digest:
        """Return the digest of the release's image, once what the source has under it is the release's own.

        Its first layer is the release's tree, and the later ones change nothing of that. Nodes are told this
        digest and nothing else; what they report running is compared with it. What was compared once on this
        host is not asked for again: the way back needs no source.

        Raises:
            DoesNotFit: the release names no image.
            DigestMismatch: the source has other bytes under the digest of the image, or of a layer.
            ManifestInvalid: what its signers named is no image of one platform.
            SubjectMismatch: the image is of another release's tree.
            ArchiveRefused: a later layer replaces or hides something of the tree.
            DownloadFailed: the source does not have it, or not in time.
        """
        manifest = admitted.manifest
        try:
            named = named_image(manifest)
            with contextlib.suppress(DigestMismatch):  # it was not compared here yet
                require_image(self._tools.evidence.read(named), manifest)
                return named
            await self._compare(manifest, named, self._tools.source(source, self._tools.trust()))
        except Exception as error:
            ours = in_our_words(error, f"the image of {manifest.version}")
            self._refuse(admitted, ours)
            if ours is error:
                raise
            raise ours from error
        return named

    async def image_of(self, release: ReleaseRef, source: str) -> Digest:
        """Return the digest of the image that a cluster may run for this release, both verified.

        Raises what `vouch` and `image` do.
        """
        return await self.image(await self.vouch(release, source), source)

    async def lay_image(self, admitted: Admitted, source: str, into: Path) -> None:
        """Have the release's image in the folder, compared as `image` does: `manifest.json`, and its blobs.

        The blobs lie where the OCI image layout has them, each hashed on its way there. The first layer is
        the archive of the tree that was admitted; the others are small, and fetched by their digest.

        Raises what `image` does, and
            SizeExceeded: a part of it is larger than what completes a tree can be.
            Unavailable: the disk does not take it.
        """
        manifest = admitted.manifest
        named = await self.image(admitted, source)
        try:
            content = self._tools.evidence.read(named)
            image = require_image(content, manifest)
            missing = [
                part
                for part in (image.config, *image.layers)
                if not self._tools.store.has(part.digest, part.size)
            ]
            if missing:
                fetching = self._tools.source(source, self._tools.trust())
                for part in missing:
                    await _fetch(part, fetching, LARGEST_BESIDE if part != image.layers[0] else part.size)
            for part in (image.config, *image.layers):
                blob = f"blobs/sha256/{part.digest.removeprefix('sha256:')}"
                await to_its_end(self._tools.store.install, part.digest, into, blob)
            (into / "manifest.json").write_bytes(content)
        except Exception as error:
            ours = in_our_words(error, f"the image of {manifest.version}")
            self._refuse(admitted, ours)
            if ours is error:
                raise
            raise ours from error

    def known_good(self, *, scope: Scope | None = None) -> tuple[Digest, ...]:
        """Return what was promoted here, the latest last."""
        scope = self._scope_or(scope)
        return self._tools.states.read(scope.product, scope.channel).promoted

    def require_follows(self, release: Digest, before: Collection[ReleaseRef]) -> None:
        """Return if the release may follow each of these, as far as their manifests are on this host.

        Raises:
            DoesNotFit: It may not follow one of them.
            DigestMismatch: The release itself is not on this host.
        """
        manifest = parse_release(self._tools.evidence.read(release))
        for one in sorted(set(before), key=lambda one: one.digest):
            if is_adopted(one):
                require_follows(manifest, Serving.adopted(one))
            elif one.digest != release:
                with contextlib.suppress(DigestMismatch):
                    known = parse_release(self._tools.evidence.read(one.digest))
                    require_follows(manifest, Serving.of(known))

    def require_drains(self, release: Digest, deadline: timedelta) -> None:
        """Return if sessions of the release before may take that long to end.

        Raises:
            DoesNotFit: Its signers want them gone sooner, or given more time.
            DigestMismatch: The release is not on this host.
        """
        require_drains(parse_release(self._tools.evidence.read(release)), deadline)

    def asks_approval_for(self, release: Digest) -> frozenset[str]:
        """Return for which kinds of changes the release's own signers ask for somebody's approval.

        Raises:
            DigestMismatch: The release is not on this host.
        """
        return frozenset(parse_release(self._tools.evidence.read(release)).requires_approval_for)

    @property
    def approval_rules(self) -> ApprovalRules:
        """What the trust policy, as it lies on disk now, asks people to approve."""
        return self._tools.trust().policy.approvals

    def approval_rules_of(self, policy: Digest) -> ApprovalRules:
        """Return what the trust policy of that digest asked people to approve.

        One that is not kept on this host any more asked for as much as one that says nothing.
        """
        try:
            return self._tools.policy_in(self._tools.evidence.read(policy)).approvals
        except (DigestMismatch, PolicyInvalid):
            return ApprovalRules()

    def keep_policy(self) -> None:
        """Have the trust policy, as it lies on disk now, kept by its digest: another one may follow it."""
        trust = self._tools.trust()
        for content in trust.files.values():
            if digest_of(content) == trust.digest:
                self._tools.evidence.put(content)

    def changes(self, release: Digest, before: Collection[Digest]) -> tuple[Change, ...]:
        """Return how the release's configuration differs from that of each of the others.

        Where the manifest of one of them is not on this host, all of the configuration counts as changed.

        Raises:
            DigestMismatch: The release itself is not on this host.
        """
        after = self.template(release)
        return tuple(change_between(release, self._template_before(one), after) for one in sorted({*before}))

    def template(self, release: Digest) -> str:
        """Return the template of the release's configuration.

        Raises:
            DigestMismatch: The release is not on this host.
        """
        return self._template(parse_release(self._tools.evidence.read(release)))

    def _template_before(self, release: Digest) -> str | None:
        try:
            return self.template(release)
        except DigestMismatch:
            return None

    def promote(self, release: Digest, *, scope: Scope | None = None) -> None:
        """Note that the release was promoted: it is known-good, and older ones are refused from now on.

        Raises:
            DigestMismatch: the release was never admitted here.
        """
        self._note_known_good(
            release, parse_release(self._tools.evidence.read(release)).rollback_index, scope
        )

    def keep(self, release: Digest, *, scope: Scope | None = None) -> None:
        """Note that the release is known-good, and refuse nothing that is older for it.

        Raises:
            SignatureMissing: the release was never admitted here; it may have been refused.
        """
        scope = self._scope_or(scope)
        if release not in self._tools.states.read(scope.product, scope.channel).admitted:
            raise SignatureMissing(f"release {release} was never admitted here")
        self._note_known_good(release, 0, scope)

    def _note_known_good(self, release: Digest, floor: int, scope: Scope | None) -> None:
        def noted(state: TrustState) -> TrustState:
            known = (*(digest for digest in state.promoted if digest != release), release)
            return state.model_copy(update={"floor": max(state.floor, floor), "promoted": known})

        scope = self._scope_or(scope)
        self._tools.states.change(scope.product, scope.channel, noted)

    def collect_garbage(
        self, keep: Collection[Digest] = (), *, scope: Scope | None = None
    ) -> tuple[Digest, ...]:
        """Remove artifacts of releases that are neither promoted nor among `keep`; return what went.

        Raises:
            DigestMismatch: a manifest to be kept cannot be read, so nothing was removed.
        """
        scope = self._scope_or(scope)
        state = self._tools.states.read(scope.product, scope.channel)
        manifests = [parse_release(self._tools.evidence.read(digest)) for digest in {*state.promoted, *keep}]
        return self._tools.store.collect(
            {artifact.digest for manifest in manifests for artifact in manifest.artifacts}
        )

    def _template(self, manifest: ReleaseManifest) -> str:
        return self._tools.store.read(f"sha256:{manifest.config_schema.sha256}").decode(errors="replace")

    def _refuse(self, admitted: Admitted, error: PenstockError) -> None:
        """Write an audit line about an admitted release that was refused afterwards."""
        self._tools.record(admitted.verification.model_copy(update={"verdict": refused(error)}))

    def _caught_up(self, scope: Scope) -> TrustState:
        """Return what was seen, after taking over what was promoted since."""
        state = self._tools.states.read(scope.product, scope.channel)
        for digest in set(self._tools.promoted()) & state.admitted.keys() - set(state.promoted):
            self.promote(digest, scope=scope)
        return self._tools.states.read(scope.product, scope.channel)

    def _scope_or(self, scope: Scope | None) -> Scope:
        found = scope or self._scope
        if found is None:
            raise BadInput("for which product and channel a release is asked about was not said")
        return found

    def _trust_in_force(self, digest: Digest, state: TrustState) -> LoadedTrust:
        """Return the trust policy; for what is known-good here, the last good one when the file is not."""
        try:
            return self._tools.trust()
        except PolicyInvalid:
            if digest not in state.promoted or not state.files:
                raise
            evidence = self._tools.evidence
            return self._tools.trust_of({name: evidence.read(kept) for name, kept in state.files.items()})

    @contextlib.contextmanager
    def _on_record(self, case: "_Case") -> Iterator[None]:
        """Write an audit line about whatever ends the block early, and let nothing out in others' words."""
        try:
            yield
        except Exception as error:
            ours = in_our_words(error, case.shown_source)
            try:
                self._write(case, refused(ours))
                self._remember(case, admitted=False)
            except OSError as full:
                raise in_our_words(full, "the audit record") from error
            if ours is error:
                raise
            raise ours from error

    def _case(
        self, digest: Digest, source: str, scope: Scope | None = None, host: Host | None = None
    ) -> "_Case":
        """Return what is to be judged, with what is known of it here so far."""
        scope = self._scope_or(scope)
        state = self._caught_up(scope)
        trust = self._trust_in_force(digest, state)
        return _Case(Question(digest, scope, state, self._tools.clock(), host), trust, source)

    async def _judged(self, case: "_Case", policy: Digest | None = None) -> None:
        """Judge what this host keeps of a promoted release, else what it fetches.

        What is refused for those who signed it may have been signed by others since.
        """
        _require_policy(case.trust, policy)
        case.document = self._kept(case)
        if case.document is not None:
            try:
                await self._judge(case)
            except TrustError as refusal:
                if not _mended_by_signing(refusal):
                    raise
                await self._judge_signed_anew(case, refusal)
        else:
            await self._gather(case)
            await self._judge(case)

    async def _judge_signed_anew(self, case: "_Case", refusal: TrustError) -> None:
        kept, judgement = case.document, case.judgement
        try:
            await self._gather(case)
        except PenstockError:  # the way back needs no source, and the refusal is about what is here
            case.document, case.index, case.judgement = kept, None, judgement
            raise refusal from None
        await self._judge(case)

    def _kept(self, case: "_Case") -> Document | None:
        """Return what this host keeps of a promoted release; None of others, and where it was lost."""
        digest, state = case.question.digest, case.question.state
        if digest in state.promoted and digest in state.admitted:
            with contextlib.suppress(DigestMismatch):
                return recall(self._tools.evidence, state.admitted[digest])
        return None

    def _source(self, case: "_Case") -> ReleaseSource:
        """Return the source, which is opened only when something has to be fetched from it."""
        if case.source is None:
            case.source = self._tools.source(case.name, case.trust)
        return case.source

    async def _gather(self, case: "_Case") -> None:
        """Fetch statement, signatures and index."""
        question, source = case.question, self._source(case)
        payload = await source.manifest(question.digest)
        case.document = Document(payload, await source.signatures(question.digest))
        if needs_index(question, case.trust):
            case.index = Document(*await source.index(question.scope.product, question.scope.channel))

    async def _judge(self, case: "_Case") -> None:
        """Have the verdict in the case; raise it when it is a refusal."""
        assert case.document is not None  # noqa: S101 - gathered
        case.judgement = await asyncio.to_thread(judge, case.question, case.document, case.index, case.trust)
        if not case.judgement.verdict.admitted:
            raise refusal(case.judgement.verdict)

    async def _complete(
        self, case: "_Case", release: ReleaseRef | Digest
    ) -> tuple[ReleaseManifest, ReleaseRef]:
        """Fetch what the manifest names."""
        manifest, reference = _described(case, release)
        for artifact in manifest.artifacts:
            await self._have(artifact, case)
        return manifest, reference

    def _admitted(self, case: "_Case", manifest: ReleaseManifest, reference: ReleaseRef) -> Admitted:
        """Note that the release was admitted, and write its audit line."""
        assert case.judgement is not None  # noqa: S101 - judged
        verdict = case.judgement.verdict
        self._remember(case, admitted=True)
        return Admitted(manifest, verdict.signers, reference, verdict.reason, self._write(case, verdict))

    async def _compare(self, manifest: ReleaseManifest, named: Digest, source: ReleaseSource) -> None:
        """Compare the image with the release, and keep its manifest as the sign that this was done."""
        content = await source.image(named)
        later = require_image(content, manifest).layers[1:]
        for layer in later:
            await _fetch(layer, source, LARGEST_BESIDE)
        found = [self._tools.store.read(layer.digest) for layer in later]
        await to_its_end(self._tools.beside, found, manifest.tree)
        self._tools.evidence.put(content)

    async def _have(self, artifact: Artifact, case: "_Case") -> None:
        """Have the artifact in the store, read to its end once: what cannot be unpacked is not admitted."""
        if self._tools.store.has(artifact.digest, artifact.size):
            with contextlib.suppress(DigestMismatch):  # it was altered where it lay, so it is fetched again
                await to_its_end(self._inspect, artifact)
                return
        await self._source(case).blob(artifact.digest, artifact.size)
        await to_its_end(self._inspect, artifact)

    def _inspect(self, artifact: Artifact) -> None:
        stream = self._tools.store.stream(artifact.digest)
        try:
            self._tools.inspect(stream, artifact)
        except ArchiveRefused:
            _finish(stream)
            self._tools.store.discard(artifact.digest)
            raise

    def _lay_out(self, artifact: Artifact, into: Path) -> None:
        if artifact.unpack == "none":
            self._tools.store.install(artifact.digest, into, artifact.name)
            return
        stream = self._tools.store.stream(artifact.digest)
        try:
            self._tools.unpack(stream, artifact, into / "root")
        except ArchiveRefused:
            _finish(stream)
            raise

    def _write(self, case: "_Case", verdict: TrustVerdict) -> Verification:
        """Keep the evidence and write the audit line; return it."""
        question, evidence = case.question, self._tools.evidence
        judgement = case.judgement or Judgement(verdict)
        manifest = judgement.manifest
        verification = Verification(
            at=question.now,
            scope=question.scope,
            release=question.digest,
            source=case.shown_source,
            verdict=verdict,
            signatures=judgement.signatures,
            version=manifest.version if manifest else "",
            rollback_index=manifest.rollback_index if manifest else None,
            artifacts={artifact.name: artifact.digest for artifact in manifest.artifacts} if manifest else {},
            state=question.state.model_copy(update={"admitted": {}, "files": {}}),
            policy=case.trust.digest,
            files={name: evidence.put(content) for name, content in case.trust.files.items()},
            manifest=keep(evidence, case.document) if case.document else None,
            index=keep(evidence, case.index) if case.index else None,
            host=question.host,
            accesses=tuple(case.source.accesses) if case.source else (),
        )
        self._tools.record(verification)
        return verification

    def _remember(self, case: "_Case", *, admitted: bool) -> None:
        """Note what was seen, so that older indexes are replays and a rollback needs no source.

        An index counts even if the release is refused: it may be the one that withdraws it. Of the signatures
        those that counted are kept: what anybody else adds beside a release has no say in its way back.
        """
        counted = case.judgement.counted if case.judgement else None
        index = case.judgement.index if case.judgement else None
        evidence = self._tools.evidence
        signed = None
        if admitted and counted is not None:
            signed = keep(evidence, replace(counted, admitted_at=counted.admitted_at or case.question.now))
        offered = keep(evidence, case.index) if index is not None and case.index else None
        files = {name: evidence.put(content) for name, content in case.trust.files.items()}

        def seen(state: TrustState) -> TrustState:
            update: dict[str, object] = {}
            if signed is not None:
                update["admitted"] = {**state.admitted, case.question.digest: signed}
                update["files"] = files
            if index is not None:
                if index.serial >= state.index_serial:
                    update["index"] = offered
                withdrawn = (f"sha256:{sha256}" for sha256 in index.revoked)
                update["index_serial"] = max(state.index_serial, index.serial)
                update["seen_at"] = max(state.seen_at or index.issued_at, index.issued_at)
                update["revoked"] = tuple(dict.fromkeys((*state.revoked, *withdrawn)))
                update["security_floor"] = max(state.security_floor, index.security_floor)
            return state.model_copy(update=update)

        scope = case.question.scope
        self._tools.states.change(scope.product, scope.channel, seen)


@dataclass
class _Case:
    """A release on its way to a verdict."""

    question: Question
    trust: LoadedTrust
    name: str
    """Of the source, as it was asked for."""
    source: ReleaseSource | None = None
    document: Document | None = None
    index: Document | None = None
    judgement: Judgement | None = None

    @property
    def shown_source(self) -> str:
        """The source's name without what no record may hold."""
        return CREDENTIALS.sub("//", self.name.partition("?")[0])


def _digest_of(release: ReleaseRef | Digest) -> Digest:
    if not isinstance(release, str):
        return release.digest
    try:
        return _DIGEST.validate_python(release)
    except ValidationError as error:
        raise BadInput(
            f"{release[:80]!r} is no digest of a release; write sha256: and its 64 digits"
        ) from error


def _described(case: "_Case", release: ReleaseRef | Digest) -> tuple[ReleaseManifest, ReleaseRef]:
    """Return what was admitted, if it is what the plan says."""
    assert case.judgement is not None  # noqa: S101 - judged
    assert case.judgement.manifest is not None  # noqa: S101 - admitted
    reference = case.judgement.manifest.reference(case.question.digest)
    if isinstance(release, ReleaseRef) and release != reference:
        raise SubjectMismatch(f"the plan describes release {release.digest} otherwise than its manifest does")
    return case.judgement.manifest, reference


def _mended_by_signing(refusal: TrustError) -> bool:
    """Return whether a known-good release that is refused may be admitted once others sign it."""
    signers = (SignatureInvalid, SignatureMissing, SignerNotAllowed, SignerRevoked, ThresholdNotMet)
    return isinstance(refusal, signers) and refusal.reason != "manifest"


async def _fetch(part: Part, source: ReleaseSource, most: int) -> None:
    """Have a part of an image in the store, unless it is larger than such a part can be."""
    if part.size > most:
        raise SizeExceeded(f"{part.digest} of the image has more than {most} bytes")
    await source.blob(part.digest, part.size)


def _finish(stream: Iterator[bytes]) -> None:
    """Read to the end: an archive that was altered is reported as that, and its last piece says so."""
    for _ in stream:
        pass


def _require_policy(trust: LoadedTrust, agreed: Digest | None) -> None:
    if agreed is not None and agreed != trust.digest:
        raise PolicyChanged(f"the trust policy is now {trust.digest}, agreed on was {agreed}; plan again")
