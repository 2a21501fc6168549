"""Releases on their real path: built, signed by a private signer, served, fetched, verified, unpacked."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.admission import AdmitOrder, ReleaseActivities
from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.trust_files import Trail, compose_releases, evidence_of, load_trust, recompute
from activities.evidence import reverify
from activities.refusals import (
    DownloadFailed,
    PolicyChanged,
    PolicyInvalid,
)
from activities.releases import Releases
from activities.verdicts import refusal
from deploy.lab.releases import LabReleases
from deploy.lab.repository import RepositoryServer
from orchestrator.publishing.folder import add_signature, read_statement
from policies.model.errors import BadInput
from policies.model.refusals import (
    DigestMismatch,
    DowngradeRefused,
    ReplayDetected,
    ScopeMismatch,
    SignatureInvalid,
    SignatureMissing,
    SignerNotAllowed,
    SignerRevoked,
    SubjectMismatch,
    ThresholdNotMet,
    TrustError,
)
from policies.model.verification import Scope
from tests.fakes.hostile import HostileServer, Peer, Request
from tests.fakes.trees import small_tree


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabReleases]:
    root = tmp_path / "repository"
    root.mkdir()
    server = RepositoryServer(("127.0.0.1", 0), root)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield LabReleases(tmp_path / "lab", root, server.url, product="ocserv-gw")
    server.shutdown()
    server.server_close()


@pytest.fixture
def releases(lab: LabReleases, tmp_path: Path) -> Releases:
    return compose_releases(tmp_path / "store", lab.trust_policy, product="ocserv-gw", channel="stable")


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").glob("sha256/**/*") if path.is_file()]


async def test_a_release_signed_by_two_people_is_admitted_and_unpacked(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    tree, template = small_tree(tmp_path)
    digest = lab.publish(tree, template, version="1.3.0", rollback_index=1)
    admitted = await releases.admit(digest, lab.url)
    await releases.unpack(admitted, tmp_path / "gateway")
    assert admitted.signers == (
        "builder: build@lab.penstock.example (https://idp.lab.penstock.example)",
        "release_manager: manager@lab.penstock.example (https://idp.lab.penstock.example)",
    )
    assert (tmp_path / "gateway/root/usr/sbin/ocserv").read_bytes() == (tree / "usr/sbin/ocserv").read_bytes()
    assert (tmp_path / "gateway/config/ocserv.conf.template").read_text() == template.read_text()
    assert (tmp_path / "gateway/root/usr/lib/libexample.so").readlink() == Path("libexample.so.1")
    assert admitted.reference.digest == digest


async def test_what_a_host_fetched_is_in_its_own_record_and_refusals_are_counted(
    lab: LabReleases, tmp_path: Path
) -> None:
    audit = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key")
    store, trust = tmp_path / "store", lab.trust_policy
    releases = compose_releases(
        store, trust, product="ocserv-gw", channel="stable", fetched=audit.record_fetch
    )
    good = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    await releases.admit(good, lab.url)
    bad = lab.publish(*small_tree(tmp_path), version="1.4.0", rollback_index=2, signers=[])
    for _ in range(3):
        with pytest.raises(SignatureMissing):
            await releases.admit(bad, lab.url)
    lines = [json.loads(line)["entry"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["release fetched", "fetched release refused"]
    assert lines[0]["sentence"].startswith(f"1.3.0 {good} from {lab.url}: ")
    assert lines[1]["sentence"].endswith("bytes, SignatureMissing")


async def test_a_tampered_artifact_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    largest = max(
        (lab.root / "blobs").glob("**/*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    content = bytearray(largest.read_bytes())
    content[700] ^= 1
    largest.write_bytes(content)
    with pytest.raises(DigestMismatch):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path) or all(path.name != largest.name for path in stored(tmp_path))


async def test_a_wrong_signer_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    signers = [("mallory@lab.penstock.example", lab.issuer)]
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=signers)
    with pytest.raises(SignerNotAllowed):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)


async def test_a_release_by_a_reusable_workflow_needs_the_repository_that_called_it_in_the_policy(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    """Any repository of the world may call a public workflow, and has its signature then."""
    workflow = "https://ci.example/acme/workflows/.github/workflows/sign.yml@refs/tags/v1"
    caller = "https://ci.example/mallory/anything"
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=[lab.manager])
    statement = read_statement(lab.root, digest)
    bundle = lab.signer.sign(statement, workflow, lab.issuer, source_repository=caller)
    add_signature(lab.root, digest, "sigstore", bundle)
    policy = json.loads(lab.trust_policy.read_text())
    groups = policy["rules"][0]["groups"]
    groups["index"], groups["builder"] = groups["builder"], [groups["builder"][0] | {"identity": workflow}]
    policy["rules"][0]["index_group"] = "index"
    lab.trust_policy.write_text(json.dumps(policy))
    refusal = f"was called by {caller}.*write `source_repository: {caller}`"
    with pytest.raises(SignerNotAllowed, match=refusal):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)
    groups["builder"][0]["source_repository"] = caller
    lab.trust_policy.write_text(json.dumps(policy))
    admitted = await releases.admit(digest, lab.url)
    assert admitted.signers[0] == f"builder: {workflow} ({lab.issuer}, called by {caller})"
    assert {one.source_repository for one in admitted.verification.signatures} == {"", caller}
    releases.promote(digest)
    await releases.require_way_back(admitted.reference)
    del groups["builder"][0]["source_repository"]
    lab.trust_policy.write_text(json.dumps(policy))
    with pytest.raises(SignerNotAllowed, match=refusal):
        await releases.require_way_back(admitted.reference)


async def test_a_missing_bundle_is_refused(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=[])
    with pytest.raises(SignatureMissing):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)


async def test_one_signer_of_two_is_not_enough(lab: LabReleases, releases: Releases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=[lab.builder])
    with pytest.raises(ThresholdNotMet):
        await releases.admit(digest, lab.url)
    assert not stored(tmp_path)


# --- the way back, and what is kept -----------------------------------------------------------


async def test_a_rollback_to_a_promoted_release_needs_no_source_however_often(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    old = lab.publish(*small_tree(tmp_path, marker=b"old"), version="1.2.0", rollback_index=1)
    new = lab.publish(*small_tree(tmp_path, marker=b"new"), version="1.3.0", rollback_index=2)
    for digest in (old, new):
        await releases.admit(digest, lab.url)
        releases.promote(digest)
    states = set()
    for _ in range(100):
        admitted = await releases.admit(old, "http://127.0.0.1:1")
        await releases.unpack(admitted, tmp_path / "gateway")
        states.add((tmp_path / "store/states/ocserv-gw@stable.json").read_bytes())
    assert (tmp_path / "gateway/root/usr/sbin/ocserv").read_bytes().endswith(b"old")
    assert len(states) == 1


async def test_every_older_release_that_was_never_promoted_stays_refused(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    old = [
        lab.publish(*small_tree(tmp_path, marker=b"%d" % index), version=f"1.{index}", rollback_index=index)
        for index in range(1, 4)
    ]
    newest = lab.publish(*small_tree(tmp_path, marker=b"new"), version="2.0", rollback_index=4)
    await releases.admit(old[1], lab.url)
    await releases.admit(newest, lab.url)
    releases.promote(newest)
    for digest in old:
        with pytest.raises(DowngradeRefused):
            await releases.admit(digest, lab.url)


async def test_what_the_ledger_calls_known_good_raises_the_floor_by_itself(
    lab: LabReleases, tmp_path: Path
) -> None:
    known_good: set[str] = set()
    releases = compose_releases(
        tmp_path / "store",
        lab.trust_policy,
        product="ocserv-gw",
        channel="stable",
        promoted=lambda: known_good,
    )
    old, new, other = (
        lab.publish(*small_tree(tmp_path, marker=b"%d" % index), version=f"1.{index}", rollback_index=index)
        for index in (1, 3, 2)
    )
    for digest in (old, new):
        await releases.admit(digest, lab.url)
        known_good.add(digest)
    with pytest.raises(DowngradeRefused):
        await releases.admit(other, lab.url)
    assert (await releases.admit(old, "http://127.0.0.1:1")).reference.version == "1.1"


async def test_a_withdrawal_seen_once_is_not_forgotten_with_an_older_index(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    pointer = lab.root / "channels/ocserv-gw/stable"
    earlier = pointer.read_bytes()
    lab.refresh_index(revoked=[digest[7:]])
    with pytest.raises(SignerRevoked):
        await releases.admit(digest, lab.url)
    pointer.write_bytes(earlier)
    with pytest.raises(ReplayDetected):
        await releases.admit(digest, lab.url)


async def test_garbage_is_collected_but_never_what_a_rollback_needs(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digests = [
        lab.publish(*small_tree(tmp_path, marker=b"%d" % index), version=f"1.{index}", rollback_index=index)
        for index in range(1, 4)
    ]
    for digest in digests:
        await releases.admit(digest, lab.url)
    releases.promote(digests[0])
    removed = releases.collect_garbage([digests[2]])
    assert len(removed) == 1
    assert not releases.collect_garbage([digests[2]])
    await releases.unpack(await releases.admit(digests[0], "http://127.0.0.1:1"), tmp_path / "gateway")
    with pytest.raises(DigestMismatch):
        releases.collect_garbage([f"sha256:{'0' * 64}"])
    assert len(stored(tmp_path)) == 3


async def test_a_blob_altered_in_the_store_is_fetched_again(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    await releases.admit(digest, lab.url)
    for path in stored(tmp_path):
        path.chmod(0o644)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"x")
    await releases.unpack(await releases.admit(digest, lab.url), tmp_path / "gateway")


async def test_a_plan_that_describes_the_release_otherwise_is_refused(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    reference = (await releases.admit(digest, lab.url)).reference
    assert (await releases.admit(reference, lab.url)).reference == reference
    with pytest.raises(SubjectMismatch):
        await releases.admit(reference.model_copy(update={"executable": digest}), lab.url)


async def test_the_orchestrator_says_for_which_fleet_it_asks(lab: LabReleases, tmp_path: Path) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    anybody = compose_releases(tmp_path / "store", lab.trust_policy)
    with pytest.raises(BadInput):
        await anybody.admit(digest, lab.url)
    with pytest.raises(ScopeMismatch):
        await anybody.admit(digest, lab.url, scope=Scope(product="ocserv-gw", channel="canary"))
    assert (await anybody.admit(digest, lab.url, scope=Scope(product="ocserv-gw", channel="stable"))).signers


# --- the step of the engine -----------------------------------------------------------------


async def test_the_step_answers_with_signers_and_reason_and_fails_by_the_verdicts_name(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    good = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    reference = (await releases.admit(good, lab.url)).reference
    order = AdmitOrder(release=reference, source=lab.url, product="ocserv-gw", channel="stable")
    step = ReleaseActivities(releases).admit_release
    admission = await ActivityEnvironment().run(step, order)
    assert admission.release == reference
    assert admission.reason.startswith("signed by builder: ")
    with pytest.raises(ApplicationError) as refused:
        await ActivityEnvironment().run(step, order.model_copy(update={"channel": "canary"}))
    assert (refused.value.type, refused.value.non_retryable) == ("ScopeMismatch", True)
    missing = reference.model_copy(update={"digest": f"sha256:{'0' * 64}"})
    with pytest.raises(ApplicationError) as failed:
        await ActivityEnvironment().run(step, order.model_copy(update={"release": missing}))
    assert (failed.value.type, failed.value.non_retryable) == ("DownloadFailed", False)


# --- old verdicts ---------------------------------------------------------------------------


async def test_every_verdict_is_recomputed_from_its_evidence_alone(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    await releases.admit(digest, lab.url)
    for signers in ([], [lab.builder], [("mallory@lab.example", lab.issuer)]):
        tree = small_tree(tmp_path, marker=str(signers).encode())
        refused = lab.publish(*tree, version="1.4.0", rollback_index=2, signers=signers)
        with pytest.raises(TrustError):
            await releases.admit(refused, lab.url)
    with pytest.raises(DownloadFailed):
        await releases.admit(f"sha256:{'0' * 64}", lab.url)
    lab.trust_policy.unlink()
    evidence = evidence_of(tmp_path / "store")
    lines = Trail(tmp_path / "store/audit.jsonl").read()
    codes = [line.verdict.code for line in lines]
    assert codes == ["Admitted", "SignatureMissing", "ThresholdNotMet", "SignerNotAllowed", "DownloadFailed"]
    assert [recompute(line, evidence) for line in lines] == [*codes[:-1], None]


async def test_an_altered_record_or_evidence_is_noticed(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    for _ in range(3):
        await releases.admit(digest, lab.url)
    path, evidence = tmp_path / "store/audit.jsonl", evidence_of(tmp_path / "store")
    lines = path.read_bytes().splitlines(keepends=True)
    for altered in (
        [lines[0].replace(b"1.3.0", b"1.3.1"), *lines[1:]],
        [lines[0], lines[2]],
        [lines[1], lines[2]],
        [lines[0], b"{}\n", lines[2]],
    ):
        path.write_bytes(b"".join(altered))
        with pytest.raises(DigestMismatch):
            Trail(path).read()
    path.write_bytes(b"".join(lines))
    verification = Trail(path).read()[0]
    assert verification.manifest is not None
    stored_bundle = evidence.path(verification.manifest.signatures[0].content)
    stored_bundle.chmod(0o644)
    stored_bundle.write_bytes(b"{}")
    with pytest.raises(DigestMismatch):
        recompute(verification, evidence)


async def test_a_line_that_a_crash_cut_off_is_ended_by_the_next_one(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    await releases.admit(digest, lab.url)
    path = tmp_path / "store/audit.jsonl"
    whole = path.read_bytes()
    for torn in (whole + whole[:100], whole[:100]):
        path.write_bytes(torn)
        await releases.admit(digest, lab.url)
        assert {line.verdict.code for line in Trail(path).read()} == {"Admitted"}


# --- the policy file ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"rules"', '"rulez"'),
        lambda text: text.replace('"version": 1', '"version": 1, "version": 1'),
        lambda text: text.replace("signer/trusted_root.json", "signer/none.json"),
        lambda text: text.replace('"sha256": "', '"sha256": "00', 1).replace('",', "", 1),
        lambda _: "{",
        lambda _: "- a list",
        lambda _: "when: 2026-01-01",
        lambda _: "!!python/object/apply:os.system [true]",
    ],
    ids=range(9),
)
async def test_a_policy_that_is_not_as_it_must_be_admits_nothing(
    lab: LabReleases, releases: Releases, tmp_path: Path, damage: Callable[[str], str]
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    lab.trust_policy.write_text(damage(lab.trust_policy.read_text()))
    with pytest.raises(PolicyInvalid):
        await releases.admit(digest, lab.url)


def test_a_policy_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match=r"trust\.yaml"):
        load_trust(tmp_path / "trust.yaml")


def test_a_root_that_is_not_the_pinned_one_is_refused(lab: LabReleases) -> None:
    path = lab.signer.trusted_root_path
    path.write_text(path.read_text() + " ")
    with pytest.raises(PolicyInvalid, match="not the file whose sha256"):
        load_trust(lab.trust_policy)


@pytest.mark.parametrize("name", ["ftp://repo.example", "/var/repo", "oci://host", ""])
async def test_a_source_of_an_unknown_kind_is_named(lab: LabReleases, releases: Releases, name: str) -> None:
    with pytest.raises(BadInput):
        await releases.admit(f"sha256:{'0' * 64}", name)


async def test_a_repository_behind_a_token_gets_it_from_its_reference(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    (tmp_path / "token").write_text("a-secret-token")
    (tmp_path / "token").chmod(0o600)
    seen: list[str] = []

    def guarded(request: Request, peer: Peer) -> None:
        seen.append(request.headers.get("authorization", ""))
        file = lab.root / request.path.lstrip("/")
        content = file.read_bytes() if file.is_file() else b""
        peer.head("200 OK" if content else "404 Not Found", Content_Length=len(content))
        peer.send(content)

    with HostileServer(guarded) as server:
        lab.write_policy(allow=[server.url], credentials={server.url: f"file:{tmp_path / 'token'}"})
        await releases.admit(digest, server.url)
    assert set(seen) == {"Bearer a-secret-token"}
    kept = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert not any(b"a-secret-token" in content for content in kept)


async def test_a_verdict_is_not_recomputed_under_another_policy_or_without_evidence(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    verification = (await releases.admit(digest, lab.url)).verification
    evidence, trust = evidence_of(tmp_path / "store"), load_trust(lab.trust_policy)
    assert reverify(verification, evidence, trust).admitted
    with pytest.raises(DigestMismatch):
        reverify(verification.model_copy(update={"manifest": None}), evidence, trust)
    with pytest.raises(SignatureMissing):
        raise refusal(reverify(verification.model_copy(update={"index": None}), evidence, trust))
    lab.trust_policy.write_text(lab.trust_policy.read_text() + "\n")
    with pytest.raises(PolicyChanged):
        reverify(verification, evidence, load_trust(lab.trust_policy))


@pytest.mark.parametrize("needed", [True, False])
async def test_a_signature_of_a_kind_the_policy_does_not_know_counts_for_nothing(
    lab: LabReleases, releases: Releases, tmp_path: Path, needed: bool
) -> None:
    signers = [lab.builder] if needed else [lab.builder, lab.manager]
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1, signers=signers)
    add_signature(lab.root, digest, "openpgp", b"signature")
    add_signature(lab.root, digest, "openpgp", b"signature")
    if needed:
        with pytest.raises(SignatureInvalid, match="names no openpgp signer"):
            await releases.admit(digest, lab.url)
    else:
        assert len((await releases.admit(digest, lab.url)).signers) == 2
    listing = (lab.root / "signatures" / digest.replace(":", "/")).with_suffix(".json")
    assert len(json.loads(listing.read_bytes())) == len(signers) + 1


async def test_an_archive_altered_after_admission_is_reported_as_altered(
    lab: LabReleases, releases: Releases, tmp_path: Path
) -> None:
    digest = lab.publish(*small_tree(tmp_path), version="1.3.0", rollback_index=1)
    admitted = await releases.admit(digest, lab.url)
    largest = max(stored(tmp_path), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(b"x" + largest.read_bytes()[1:])
    with pytest.raises(DigestMismatch):
        await releases.unpack(admitted, tmp_path / "gateway")
    assert not (tmp_path / "gateway/root").exists()
