"""A key that has ended and a stranger's signature keep no host from known-good, and admit nothing new."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pysequoia
import pytest

from activities.drivers.store.states import TrustStates
from activities.drivers.trust_files import Trail, check_trust, evidence_of, recompute
from activities.refusals import PolicyInvalid
from orchestrator.publishing.signing import sign_openpgp
from policies.model.host import Host
from policies.model.plan import ReleaseRef
from policies.model.refusals import (
    SignatureInvalid,
    SignerNotAllowed,
    SignerRevoked,
    TrustError,
    WeakAlgorithm,
)
from policies.model.release import Platform
from policies.model.trust import LAPSED
from policies.model.verification import Signed, TrustState
from tests.fakes.authority import EnterpriseCa
from tests.fakes.openpgp import Crafted, gpg_in
from tests.fakes.stage import CHANNEL, Stage

HERE = Host(platform=Platform(os="linux", arch="amd64"))
AWAY = "http://127.0.0.1:1"
LEAD, MALLORY = "lead@corp.example", "mallory@corp.example"
DAY = timedelta(days=1)
LATER = 2 * DAY
"""When keys of a day have ended, and the channel's index has not."""

Sign = Callable[[], None]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def need(stage: Stage, *signers: dict[str, str], count: int = 1, **pinned: Any) -> None:
    """Have the policy ask for so many of these signers."""

    def change(policy: dict[str, Any]) -> None:
        policy.update(pinned)
        for rule in policy["rules"]:
            rule["groups"]["lead"] = [signer | {"person": str(n)} for n, signer in enumerate(signers)]
            rule["require"] = [{"group": "lead", "count": count}]

    stage.change_policy(change)


def openpgp(stage: Stage, name: str, seconds: int | None = 86400) -> tuple[dict[str, Any], Sign]:
    """Return what the policy pins of a new key, and what signs the release by it."""
    key = pysequoia.Tsk.generate(name, validity_seconds=seconds)
    certificate = key.extract_certificate()
    (stage.lab.trust_policy.parent / f"{name}.asc").write_bytes(bytes(certificate))
    (stage.folder / f"{name}.tsk").write_bytes(bytes(key))
    pinned = {name: {"cert": f"{name}.asc", "fingerprint": certificate.fingerprint.upper()}}

    def sign() -> None:
        signature = sign_openpgp(stage.built.statement, stage.folder / f"{name}.tsk")
        stage.add_signature("openpgp", signature)

    return pinned, sign


def corporate(stage: Stage) -> tuple[dict[str, Any], EnterpriseCa]:
    """Return what the policy pins of a company's authority, and the authority."""
    authority = EnterpriseCa(stage.lab.trust_policy.parent / "corp")
    return {"corp": {"roots": "corp/roots.pem"}}, authority


def sigstore(stage: Stage, person: tuple[str, str]) -> dict[str, str]:
    return {"sigstore": "lab", "identity": person[0], "issuer": person[1]}


def signed_by_lead(stage: Stage, kind: str) -> None:
    """Have the release signed by one key alone, which is good for a day."""
    stage.sign_again()
    if kind == "openpgp":
        pinned, sign = openpgp(stage, "lead")
        need(stage, {"openpgp": "lead"}, openpgp=pinned)
        sign()
    else:
        pinned, authority = corporate(stage)
        need(stage, {"cms": "corp", "identity": LEAD}, cms=pinned)
        stage.add_signature("cms", authority.sign(stage.built.statement, LEAD, ends=DAY))


def signed_by_mallory(stage: Stage) -> None:
    """Add a signature by a certificate of the company, whose holder has no seat."""
    pinned, authority = corporate(stage)
    stage.change_policy(lambda policy: policy.update(cms=pinned))
    stage.add_signature("cms", authority.sign(stage.built.statement, MALLORY, ends=DAY))


async def known_good(stage: Stage) -> ReleaseRef:
    reference = (await stage.admit()).reference
    stage.releases.promote(stage.digest)
    return reference


async def started_later(stage: Stage, reference: ReleaseRef, after: timedelta = 400 * DAY) -> None:
    """Have the release start, and be staged without its source, on a host whose agent was started anew."""
    stage.time = datetime.now(UTC) + after
    await stage.compose().reconsider(reference, host=HERE)
    await stage.compose().admit(reference, AWAY, host=HERE)


def state(stage: Stage) -> TrustState:
    return TrustStates(stage.folder / "store/states").read(stage.product, CHANNEL)


def kept(stage: Stage) -> Signed:
    return state(stage).admitted[stage.digest]


@pytest.mark.parametrize("kind", ["openpgp", "cms"])
async def test_known_good_starts_though_the_key_that_signed_it_has_ended(stage: Stage, kind: str) -> None:
    signed_by_lead(stage, kind)
    reference = await known_good(stage)
    admitted_at = kept(stage).admitted_at
    await started_later(stage, reference)
    assert kept(stage).admitted_at == admitted_at, "the first time counts, however often it was asked since"
    lines = Trail(stage.folder / "store/audit.jsonl").read()
    assert [recompute(line, evidence_of(stage.folder / "store")) for line in lines] == ["Admitted"] * 3


@pytest.mark.parametrize("kind", ["openpgp", "cms"])
async def test_a_release_that_a_host_stored_starts_though_its_signers_key_has_ended_since(
    stage: Stage, kind: str
) -> None:
    signed_by_lead(stage, kind)
    reference = (await stage.admit()).reference
    stage.time = datetime.now(UTC) + LATER
    await stage.compose().reconsider(reference, host=HERE)


@pytest.mark.parametrize("kind", ["openpgp", "cms"])
async def test_an_ended_key_admits_nothing_new(stage: Stage, kind: str) -> None:
    signed_by_lead(stage, kind)
    stage.time = datetime.now(UTC) + LATER
    with pytest.raises(SignatureInvalid) as refused:
        await stage.admit()
    assert refused.value.reason == LAPSED


@pytest.mark.parametrize("kind", ["openpgp", "cms"])
async def test_a_release_that_was_only_staged_is_admitted_anew_by_todays_time(
    stage: Stage, kind: str
) -> None:
    signed_by_lead(stage, kind)
    await stage.admit()
    stage.time = datetime.now(UTC) + LATER
    with pytest.raises(SignatureInvalid) as refused:
        await stage.admit()
    assert refused.value.reason == LAPSED


@pytest.mark.parametrize("extended", [1, 2])
@pytest.mark.parametrize("made", [("ed25519", "sign", "5y"), ()], ids=["releases.md", "install.md"])
async def test_a_release_is_admitted_and_started_after_its_signers_key_was_extended_as_documented(
    stage: Stage, tmp_path: Path, made: tuple[str, ...], extended: int
) -> None:
    """docs/releases.md, "When a key ends": on hosts that have admitted the release, and on new ones."""
    with gpg_in(tmp_path / "gnupg") as gpg:
        gpg("--quick-generate-key", "ana@vpn.example", *made)
        certificate = stage.lab.trust_policy.parent / "ana.asc"
        certificate.write_bytes(gpg("--armor", "--export", "ana@vpn.example"))
        stage.sign_again()
        pinned = {"ana": {"cert": "ana.asc", "fingerprint": gpg.fingerprint}}
        need(stage, {"openpgp": "ana"}, openpgp=pinned)
        stage.add_signature("openpgp", gpg("--armor", "--detach-sign", content=stage.built.statement))
        reference = await known_good(stage)
        await started_later(stage, reference, DAY)
        for time in range(extended):
            at = datetime.now(UTC) + (2 + time) * DAY
            gpg("--quick-set-expire", gpg.fingerprint, "5y", at=at)
            with certificate.open("ab") as file:
                file.write(gpg("--armor", "--export", "ana@vpn.example"))
    stage.change_policy(lambda policy: None)
    await started_later(stage, reference, 5 * DAY)
    shutil.rmtree(stage.folder / "store")
    assert (await stage.compose().admit(reference, stage.server.url, host=HERE)).signers


async def test_a_key_that_cannot_sign_keeps_no_host_from_what_others_have_signed(stage: Stage) -> None:
    """The policy stays in use: for new releases by others, and for known-good."""
    old = Crafted(hashed_by=2)
    (stage.lab.trust_policy.parent / "old.pgp").write_bytes(old.content())
    pinned = {"old": {"cert": "old.pgp", "fingerprint": old.primary.fingerprint}}
    one = sigstore(stage, stage.lab.builder)
    need(stage, {"openpgp": "old"}, one, openpgp=pinned)
    reference = await known_good(stage)
    await started_later(stage, reference, DAY)
    with pytest.raises(PolicyInvalid, match=r"trust\.yaml: nothing counts that the OpenPGP key old signs: "):
        check_trust(stage.lab.trust_policy)
    stage.sign_again()
    stage.add_signature("openpgp", old.signature(datetime.now(UTC), payload=stage.built.statement))
    shutil.rmtree(stage.folder / "store")
    with pytest.raises(WeakAlgorithm, match="by SHA1 alone"):
        await stage.compose().admit(reference, stage.server.url, host=HERE)


async def test_an_ended_key_of_a_signer_whom_nobody_needs_refuses_no_new_release(stage: Stage) -> None:
    pinned, sign = openpgp(stage, "lead")
    one = sigstore(stage, stage.lab.builder)
    need(stage, {"openpgp": "lead"}, one, openpgp=pinned)
    sign()
    stage.time = datetime.now(UTC) + LATER
    signers = (await stage.admit()).signers
    assert [signer for signer in signers if pinned["lead"]["fingerprint"] in signer] == []


async def test_a_stranger_who_adds_a_signature_that_ends_keeps_no_host_from_its_known_good(
    stage: Stage,
) -> None:
    signed_by_mallory(stage)
    reference = await known_good(stage)
    await started_later(stage, reference)


async def test_a_strangers_signature_is_not_kept_with_a_release(stage: Stage) -> None:
    signed_by_mallory(stage)
    reference = await known_good(stage)
    assert [signature.kind for signature in kept(stage).signatures] == ["sigstore"] * 2
    stage.change_policy(lambda policy: policy.update(revoked={"identities": [MALLORY]}))
    await started_later(stage, reference)


JUNK: dict[str, Callable[[Stage], None]] = {
    "no signature": lambda stage: stage.add_signature("openpgp", b"junk"),
    "no bundle": lambda stage: stage.add_signature("sigstore", b"junk"),
    "no CMS": lambda stage: stage.add_signature("cms", b"junk"),
    "another Sigstore": lambda stage: stage.add_signature(
        "sigstore", stage.signer.sign(b"{}", MALLORY, stage.lab.issuer)
    ),
    "other bytes": lambda stage: stage.add_signature(
        "cms", EnterpriseCa(stage.folder / "other").sign(b"other", MALLORY)
    ),
    "an ended key": signed_by_mallory,
}


@pytest.mark.parametrize("junk", JUNK)
async def test_a_signature_by_nobody_of_the_policy_refuses_no_release_however_broken(
    stage: Stage, junk: str
) -> None:
    JUNK[junk](stage)
    stage.time = datetime.now(UTC) + LATER
    assert len((await stage.admit()).signers) == 2


async def test_a_revoked_stranger_refuses_no_release(stage: Stage) -> None:
    signed_by_mallory(stage)
    stage.change_policy(lambda policy: policy.update(revoked={"identities": [MALLORY]}))
    assert len((await stage.admit()).signers) == 2


@pytest.mark.parametrize("kind", ["openpgp", "cms", "sigstore"])
async def test_a_broken_signature_in_the_name_of_a_signer_refuses_a_new_release(
    stage: Stage, kind: str
) -> None:
    """What that person signed is not what came, though enough others have signed it."""
    pinned, _ = openpgp(stage, "lead")
    roots, authority = corporate(stage)
    people = [sigstore(stage, person) for person in (stage.lab.builder, stage.lab.manager)]
    signers = [*people, {"openpgp": "lead"}, {"cms": "corp", "identity": LEAD}]
    need(stage, *signers, openpgp=pinned, cms=roots)
    other = stage.built.statement + b" "
    match kind:
        case "openpgp":
            stage.add_signature("openpgp", sign_openpgp(other, stage.folder / "lead.tsk"))
        case "cms":
            stage.add_signature("cms", authority.sign(other, LEAD))
        case _:
            stage.change_bundle(lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="AAAA"))
    with pytest.raises(SignatureInvalid):
        await stage.admit()


async def test_a_signer_who_was_revoked_since_refuses_known_good_also_by_an_ended_key(stage: Stage) -> None:
    pinned, sign = openpgp(stage, "lead")
    need(stage, {"openpgp": "lead"}, sigstore(stage, stage.lab.builder), openpgp=pinned)
    sign()
    reference = await known_good(stage)
    fingerprint = pinned["lead"]["fingerprint"]
    stage.change_policy(lambda policy: policy.update(revoked={"openpgp": [fingerprint]}))
    with pytest.raises(SignerRevoked):
        await started_later(stage, reference)


async def test_a_key_that_revokes_itself_since_refuses_known_good(stage: Stage) -> None:
    pinned, sign = openpgp(stage, "lead")
    need(stage, {"openpgp": "lead"}, sigstore(stage, stage.lab.builder), openpgp=pinned)
    sign()
    reference = await known_good(stage)
    key = pysequoia.Tsk.from_bytes((stage.folder / "lead.tsk").read_bytes())
    certificate = key.extract_certificate()
    revoked = bytes(certificate) + bytes(certificate.revoke(key.certifier()))
    (stage.lab.trust_policy.parent / "lead.asc").write_bytes(revoked)
    with pytest.raises(SignerRevoked):
        await started_later(stage, reference)


async def test_known_good_whose_signers_are_all_gone_from_the_policy_is_refused(stage: Stage) -> None:
    """Today's policy names the signers; the time of the admission is about their keys alone."""
    signed_by_lead(stage, "openpgp")
    reference = await known_good(stage)
    need(stage, sigstore(stage, stage.lab.builder))
    with pytest.raises(SignerNotAllowed):
        await started_later(stage, reference)


async def test_known_good_of_a_revoked_signer_is_mended_by_others_who_sign_it(stage: Stage) -> None:
    """What the host keeps of it was asked for ever, and `release sign --replace` had no effect."""
    signed_by_lead(stage, "cms")
    reference = await known_good(stage)
    need(stage, {"cms": "corp", "identity": LEAD}, sigstore(stage, stage.lab.builder))
    stage.change_policy(lambda policy: policy.update(revoked={"identities": [LEAD]}))
    for source in (stage.server.url, AWAY):
        with pytest.raises(SignerRevoked):
            await stage.releases.admit(reference, source, host=HERE)
    (stage.root / "signatures").joinpath(*stage.digest.split(":")).with_suffix(".json").unlink()
    stage.sign_again(stage.bundles()[0])
    await stage.releases.admit(reference, stage.server.url, host=HERE)
    await stage.compose().reconsider(reference, host=HERE)


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_withdrawn_known_good_is_refused_at_once_and_nothing_is_fetched(
    stage: Stage, revoked: bool
) -> None:
    reference = await known_good(stage)

    def change(policy: dict[str, Any]) -> None:
        policy.update(revoked={"manifests": [stage.digest[7:]]} if revoked else {})
        policy["rules"][0]["security_floor"] = 0 if revoked else 9

    stage.change_policy(change)
    asked = list[str]()
    stage.overrides["/"] = lambda request, peer: asked.append(request.path)
    with pytest.raises(TrustError) as refused:
        await stage.releases.admit(reference, stage.server.url, host=HERE)
    assert refused.value.code == ("SignerRevoked" if revoked else "DowngradeRefused")
    assert asked == []
