"""What a release's signers and its channel say counts on every host, when it is staged and when it starts."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.runtime.host.machine import this_platform
from activities.drivers.trust_files import Trail, evidence_of, recompute
from activities.refusals import PolicyInvalid
from policies.adoption import release_of
from policies.model.errors import BadInput, PenstockError
from policies.model.host import Host, Serving
from policies.model.refusals import (
    DoesNotFit,
    DowngradeRefused,
    Expired,
    NotOffered,
    SignatureMissing,
    SignerRevoked,
    TrustError,
)
from policies.model.release import ConfigCompatibility, Platform
from policies.model.value import Digest, digest_of
from tests.fakes.stage import Stage

HERE = Host(platform=Platform(os="linux", arch="amd64"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def after(index: int, *, reads: tuple[int, int] = (1, 1), writes: int = 1) -> Host:
    compat = ConfigCompatibility(reads=reads, writes=writes)
    return HERE.model_copy(
        update={"serving": Serving(version="1.0", rollback_index=index, config_compat=compat)}
    )


async def admitted(stage: Stage, host: Host = HERE) -> Digest:
    await stage.releases.admit(stage.digest, stage.server.url, host=host)
    return stage.digest


async def restarted(stage: Stage, host: Host = HERE) -> None:
    """Ask whether the release may start, as an agent does that has just been started itself."""
    releases = stage.compose()
    reference = (await stage.releases.admit(stage.digest, stage.server.url)).reference
    await releases.reconsider(reference, host=host)


async def test_a_release_for_other_machines_is_not_admitted(stage: Stage) -> None:
    """H2: a release for s390x was admitted and laid out."""
    stage.publish_predicate(platforms=[{"os": "linux", "arch": "s390x"}])
    stage.publish_index(serial=2)
    with pytest.raises(DoesNotFit, match="s390x"):
        await admitted(stage)
    assert not stage.stored()


async def test_an_archive_for_other_machines_is_not_admitted_under_the_right_manifest(stage: Stage) -> None:
    """H2: the platform of each archive counts, too."""
    artifacts = stage.statement["predicate"]["artifacts"]
    stage.publish_predicate(artifacts=[artifacts[0] | {"platform": "linux/arm64"}, *artifacts[1:]])
    stage.publish_index(serial=2)
    with pytest.raises(DoesNotFit, match="arm64"):
        await admitted(stage)


@pytest.mark.parametrize("host", [HERE, after(899), after(901)], ids=["nothing", "older", "newer"])
async def test_a_release_follows_only_what_its_signers_said(stage: Stage, host: Host) -> None:
    """H2: one that is reachable only from index 900 was admitted anywhere."""
    stage.publish_predicate(from_versions={"min": 900, "max": 900})
    stage.publish_index(serial=2)
    with pytest.raises(DoesNotFit):
        await admitted(stage, host)
    await admitted(stage, after(900))


@pytest.mark.parametrize(
    ("bounds", "program", "counts_as"),
    [
        ({"min": 0}, "another", None),
        ({"min": 1}, "another", 0),
        ({"min": 1}, "its own", None),
        ({"min": 900}, "its own", 5),
    ],
)
async def test_what_was_adopted_is_followed_as_nothing_is_unless_it_is_the_releases_very_program(
    stage: Stage, bounds: dict[str, int], program: str, counts_as: int | None
) -> None:
    """The host and whoever plans say the same of it, and name it."""
    stage.publish_predicate(from_versions=bounds, rollback_index=5)
    stage.publish_index(serial=2)
    release = (await stage.admit()).reference
    executable = release.executable if program == "its own" else digest_of(b"another")
    found = release_of(release.product, "1.1.6", executable)
    adopted = HERE.model_copy(update={"serving": Serving.adopted(found)})
    if counts_as is None:
        await admitted(stage, adopted)
        stage.releases.require_follows(release.digest, [found])
        return
    said = rf"and 1\.1\.6\+adopted with {counts_as} serves"
    with pytest.raises(DoesNotFit, match=said):
        await admitted(stage, adopted)
    with pytest.raises(DoesNotFit, match=said):
        stage.releases.require_follows(release.digest, [found])


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        (after(1, reads=(1, 3), writes=2), True),
        (after(1, reads=(1, 3), writes=1), False),
        (after(1, reads=(1, 2), writes=2), False),
    ],
    ids=["both ways", "new cannot read old", "old cannot read new"],
)
async def test_configuration_is_read_both_ways_so_that_there_is_a_way_back(
    stage: Stage, host: Host, fits: bool
) -> None:
    """H2: config_compat was never read."""
    schema = stage.statement["predicate"]["config_schema"] | {"version": 3}
    stage.publish_predicate(config_schema=schema, config_compat={"reads": [2, 3], "writes": 3})
    stage.publish_index(serial=2)
    if fits:
        await admitted(stage, host)
    else:
        with pytest.raises(DoesNotFit, match="way"):
            await admitted(stage, host)


async def test_the_orchestrator_admits_what_some_host_may_run(stage: Stage) -> None:
    """H2: without a host the host's own constraints are left to it."""
    stage.publish_predicate(from_versions={"min": 900})
    stage.publish_index(serial=2)
    await stage.admit()


async def test_old_sessions_end_when_the_signers_said_and_no_plan_says_otherwise(stage: Stage) -> None:
    """H2: `drain` was signed and never read."""
    stage.publish_predicate(drain={"min_seconds": 600, "max_seconds": 3600})
    stage.publish_index(serial=2)
    await stage.admit()
    for kept in (600, 3600):
        stage.releases.require_drains(stage.digest, timedelta(seconds=kept))
    for refused in (599, 3601):
        with pytest.raises(DoesNotFit, match=r"from 0:10:00 to 1:00:00 to end, and limits\."):
            stage.releases.require_drains(stage.digest, timedelta(seconds=refused))


@pytest.mark.parametrize(
    "changed",
    [
        {"known_good_of": 3},
        {"protocol_compat": ["openvpn"]},
        {"drain": {"min_seconds": 2, "max_seconds": 1}},
    ],
    ids=str,
)
async def test_what_a_manifest_says_and_nobody_obeys_is_refused(
    stage: Stage, changed: dict[str, object]
) -> None:
    """H2: a signed word that has no effect is a promise that nobody keeps."""
    stage.publish_predicate(**changed)
    stage.publish_index(serial=2)
    with pytest.raises(TrustError, match=next(iter(changed))):
        await stage.admit()


async def test_a_release_that_the_channel_does_not_list_is_not_admitted(stage: Stage) -> None:
    """H2: any old signed build at or above the floor was admitted."""
    listed = stage.digest
    stage.publish_predicate(version="1.2.9")
    with pytest.raises(NotOffered):
        await admitted(stage)
    stage.digest = listed
    await admitted(stage)


async def test_a_release_that_was_known_good_here_comes_back_though_no_index_lists_it(stage: Stage) -> None:
    """H2: the way back needs no index, no fit and no source."""
    old = await admitted(stage)
    stage.releases.promote(old)
    reference = (await stage.admit()).reference
    stage.publish_predicate(version="1.3.1", rollback_index=6)
    stage.publish_index(serial=2, rollback_index=6)
    stage.releases.promote(await admitted(stage, after(5)))
    back = after(6, reads=(2, 2), writes=2)
    await stage.releases.admit(old, "http://127.0.0.1:1", host=back)
    await stage.compose().reconsider(reference, host=back)


async def test_a_release_is_asked_about_again_when_it_starts(stage: Stage) -> None:
    """H2: `start` never asked admission again, and put a revoked release into service."""
    await admitted(stage)
    await restarted(stage)
    reference = (await stage.admit()).reference
    stage.change_policy(lambda policy: policy.update(revoked={"manifests": [stage.digest[7:]]}))
    with pytest.raises(SignerRevoked):
        await stage.compose().reconsider(reference, host=HERE)
    stage.releases.promote(stage.digest)
    with pytest.raises(SignerRevoked):
        await stage.compose().reconsider(reference, host=HERE)
    assert stage.verdicts()[-2:] == ["SignerRevoked"] * 2


async def test_a_start_asks_for_floor_fit_and_a_fresh_index_too(stage: Stage) -> None:
    """H2: what a host has seen since a release was staged counts when it starts."""
    reference = (await stage.admit()).reference
    releases = stage.compose()
    with pytest.raises(DoesNotFit):
        await releases.reconsider(reference, host=Host(platform=Platform(os="linux", arch="s390x")))
    stage.time = datetime.now(UTC) + timedelta(days=8)
    with pytest.raises(Expired, match="index"):
        await releases.reconsider(reference, host=HERE)
    stage.time = None
    stage.publish_predicate(version="2.0", rollback_index=9)
    stage.publish_index(serial=2, rollback_index=9)
    stage.releases.promote(await admitted(stage))
    with pytest.raises(DowngradeRefused):
        await releases.reconsider(reference, host=HERE)


async def test_a_release_that_was_never_admitted_here_does_not_start(stage: Stage) -> None:
    """H2: files on the disk alone are no permission."""
    reference = (await stage.admit()).reference
    stranger = reference.model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(SignatureMissing, match="stage it first"):
        await stage.releases.reconsider(stranger, host=HERE)


async def test_the_way_back_starts_under_the_last_good_policy_when_the_file_is_broken(stage: Stage) -> None:
    """H2: a typo in trust.yaml holds up what is new, and no way back."""
    reference = (await stage.admit()).reference
    good = stage.lab.trust_policy.read_text()
    stage.lab.trust_policy.write_text("{")
    with pytest.raises(PolicyInvalid):
        await stage.releases.reconsider(reference, host=HERE)
    stage.releases.promote(stage.digest)
    await stage.releases.reconsider(reference, host=HERE)
    stage.lab.trust_policy.write_text(good)
    stage.change_policy(lambda policy: policy.update(revoked={"manifests": [stage.digest[7:]]}))
    with pytest.raises(SignerRevoked):
        await stage.releases.reconsider(reference, host=HERE)


async def test_what_a_host_decided_is_recomputed_with_what_served_there(stage: Stage) -> None:
    """H2: the evidence of a verdict names the host it was given for."""
    stage.publish_predicate(from_versions={"min": 5, "max": 7})
    stage.publish_index(serial=2)
    await admitted(stage, after(7))
    with pytest.raises(DoesNotFit):
        await admitted(stage, after(8))
    lines = Trail(stage.folder / "store/audit.jsonl").read()
    evidence = evidence_of(stage.folder / "store")
    assert [line.verdict.code for line in lines] == ["Admitted", "DoesNotFit"]
    assert [recompute(line, evidence) for line in lines] == ["Admitted", "DoesNotFit"]


def test_this_machine_has_a_name_that_manifests_use() -> None:
    assert this_platform().os == "linux"
    assert this_platform().arch in {"amd64", "arm64", "riscv64", "s390x", "ppc64le", "arm", "386"}


@pytest.mark.parametrize(
    "digest", ["foo", "sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "SHA256:" + "0" * 64, "../x"]
)
async def test_what_is_no_digest_is_said_to_be_none(stage: Stage, digest: str) -> None:
    """Low: `release verify foo` was a traceback."""
    with pytest.raises(BadInput, match="no digest"):
        await stage.releases.admit(digest, stage.server.url)


@pytest.mark.parametrize(
    "source",
    ["http://[::1", "https://[", "oci://[::1/name", "oci+http://[/x", "http://h:99999/", "ftp://x", "", "x"],
)
async def test_a_source_that_is_no_address_is_refused_in_our_words_and_on_record(
    stage: Stage, source: str
) -> None:
    """Low: the source `http://[::1` was a foreign exception without an audit line."""
    with pytest.raises(PenstockError):
        await stage.releases.admit(stage.digest, source)
    assert len(stage.verdicts()) == 1
