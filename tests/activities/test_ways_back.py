"""Whether what serves would start again is known before a change, by the real trust tools."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policies.model.host import Host
from policies.model.refusals import SignerNotAllowed, SignerRevoked, ThresholdNotMet, TrustError
from policies.model.release import Platform
from tests.activities.test_known_good_in_time import (
    AWAY,
    LATER,
    known_good,
    need,
    signed_by_lead,
    sigstore,
    state,
)
from tests.fakes.stage import Stage
from tests.patience import PATIENCE

HERE = Host(platform=Platform(os="linux", arch="amd64"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def lead_leaves(stage: Stage) -> None:
    """Have the policy name the builder in the place of the only person who signed."""
    need(stage, sigstore(stage, stage.lab.builder))


async def test_what_a_start_would_refuse_for_its_signers_is_no_way_back(stage: Stage) -> None:
    signed_by_lead(stage, "openpgp")
    release = await known_good(stage)
    await stage.compose().require_way_back(release, AWAY)
    lead_leaves(stage)
    for source in ("", AWAY, stage.server.url):
        with pytest.raises(SignerNotAllowed):
            await stage.compose().require_way_back(release, source)
    with pytest.raises(SignerNotAllowed):
        await stage.compose().reconsider(release, host=HERE)


async def test_a_revoked_signer_and_one_signer_too_few_are_no_way_back(stage: Stage) -> None:
    release = await known_good(stage)
    stage.change_policy(lambda policy: policy.update(revoked={"identities": [stage.lab.manager[0]]}))
    with pytest.raises(SignerRevoked):
        await stage.compose().require_way_back(release, AWAY)
    stage.change_policy(lambda policy: policy.update(revoked={}))
    people = [
        sigstore(stage, person) for person in (stage.lab.builder, ("new@lab.example", "https://issuer"))
    ]
    need(stage, *people, count=2)
    with pytest.raises(ThresholdNotMet):
        await stage.compose().require_way_back(release, AWAY)


async def test_once_others_have_signed_it_there_is_a_way_back_and_it_needs_no_source(stage: Stage) -> None:
    signed_by_lead(stage, "cms")
    release = await known_good(stage)
    lead_leaves(stage)
    stage.sign_again(stage.bundles()[0])
    with pytest.raises(SignerNotAllowed):
        await stage.compose().require_way_back(release, AWAY)
    await stage.compose().require_way_back(release, stage.server.url)
    await stage.compose().require_way_back(release)
    await stage.compose().reconsider(release, host=HERE)
    await stage.compose().admit(release, AWAY, host=HERE)


@pytest.mark.parametrize("revoked", [True, False], ids=["withdrawn", "below the security floor"])
async def test_what_somebody_has_given_up_may_be_left_whoever_signed_it(stage: Stage, revoked: bool) -> None:
    signed_by_lead(stage, "openpgp")
    release = await known_good(stage)
    lead_leaves(stage)

    def give_up(policy: dict[str, Any]) -> None:
        policy.update(revoked={"manifests": [stage.digest[7:]]} if revoked else {})
        policy["rules"][0]["security_floor"] = 0 if revoked else 9

    stage.change_policy(give_up)
    await stage.compose().require_way_back(release, AWAY)
    with pytest.raises(TrustError) as refused:
        stage.compose().require_not_given_up(release)
    assert refused.value.code == ("SignerRevoked" if revoked else "DowngradeRefused")


async def test_asking_writes_nothing_down_while_the_way_back_is_there(stage: Stage) -> None:
    release = await known_good(stage)
    before, verdicts = state(stage), stage.verdicts()
    await stage.compose().require_way_back(release, stage.server.url)
    assert (state(stage), stage.verdicts()) == (before, verdicts)


async def test_an_ended_key_is_no_reason_to_have_no_way_back(stage: Stage) -> None:
    signed_by_lead(stage, "cms")
    release = await known_good(stage)
    stage.time = datetime.now(UTC) + 400 * LATER
    await stage.compose().require_way_back(release, AWAY)


async def test_a_source_that_hangs_holds_no_check_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has ten seconds to answer."""
    signed_by_lead(stage, "openpgp")
    release = await known_good(stage)
    lead_leaves(stage)
    monkeypatch.setattr("activities.releases.SIGNED_ANEW_WITHIN", timedelta(milliseconds=200))
    over, answered = threading.Event(), list[bool]()
    stage.overrides["/"] = lambda request, peer: answered.append(over.wait(PATIENCE))
    with pytest.raises(SignerNotAllowed):
        await stage.compose().require_way_back(release, stage.server.url)
    assert not answered, "it hangs still"
    over.set()
