"""What the doctor says of known-good releases that no host with this trust policy would start again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from activities.files import FleetFiles
from orchestrator.processes.composition import compose
from orchestrator.service.doctor import Finding, Health
from orchestrator.service.releases import ReleaseService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.plan import ReleaseRef
from tests.activities.test_known_good_in_time import signed_by_lead
from tests.activities.test_ways_back import lead_leaves
from tests.fakes.stage import Stage
from tests.service.conftest import installed
from tests.service.test_doctor import SEES_ALL

GATEWAYS = ("edge-1", "edge-9")


@dataclass
class House:
    """An installation whose fleet runs a release that it has added to its ledger."""

    stage: Stage
    service: Service
    releases: ReleaseService
    ledger: Ledger
    release: ReleaseRef

    def promote(self, release: ReleaseRef, *gateways: str) -> None:
        """Have gateways go back to the release from now on."""
        opening = ChangeOpening(
            key=release.version + str(len(gateways)),
            fleet="edge",
            kind=ChangeKind.INSTALL,
            requested_by="ada",
            reason="first",
            release=release.version,
            release_digest=release.digest,
        )
        name = self.ledger.open_change(opening)
        releases = dict.fromkeys(gateways or GATEWAYS, release)
        self.ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=name, releases=releases))
        ending = ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="every gateway answers")
        self.ledger.close_change(ending)

    async def add(self) -> None:
        """Add the release anew, as `penstock release add` does."""
        fleet = FleetFiles(self.stage.folder.parent / "house/fleets").all()["edge"]
        await self.releases.add(fleet, self.release.digest, "ana")

    async def finds(self) -> dict[str, Finding]:
        """Return what the doctor finds, by what it is about."""
        return {one.about: one for one in await self.service.examine(SEES_ALL)}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "stage").mkdir()
    (tmp_path / "house").mkdir()
    with Stage(tmp_path / "stage", product="ocserv") as stage:
        signed_by_lead(stage, "openpgp")
        release = (await stage.admit()).reference
        settings = installed(tmp_path / "house")
        more = {"trust": stage.lab.trust_policy, "store": stage.folder / "store", "source": stage.server.url}
        composed = await compose(settings.model_copy(update=more))
        composed.ledger.add_release(release, source=stage.server.url, signers=("lead",), manifest_json="{}")
        house = House(stage, composed.service, composed.releases, composed.ledger, release)
        house.promote(release)
        yield house


async def test_a_known_good_that_would_start_again_is_well(house: House) -> None:
    found = await house.finds()
    assert found["edge: known-good"].health is Health.WELL
    assert "too few" not in found["signers"].sentence


async def test_a_known_good_whose_signer_has_left_is_wrong_and_so_are_the_signers(house: House) -> None:
    """Both said ok, and no host would have started it again."""
    lead_leaves(house.stage)
    found = await house.finds()
    known_good, signers = found["edge: known-good"], found["signers"]
    assert (known_good.health, signers.health) == (Health.WRONG, Health.WRONG)
    assert known_good.sentence.startswith(
        "edge-1, edge-9: ocserv 1.3.0 serves and would not be started again"
    )
    assert "penstock release yank 1.3.0" in known_good.sentence
    assert known_good.mend == "penstock runbook show known-good-lost"
    assert signers.sentence.endswith("have signed what gateways go back to: ocserv 1.3.0 of edge")


async def test_a_known_good_that_was_withdrawn_when_its_signer_left_is_to_be_left_and_not_signed(
    house: House,
) -> None:
    lead_leaves(house.stage)
    house.ledger.yank(house.release.digest, "its signer left", "ana")
    found = await house.finds()
    assert found["edge: known-good"].health is Health.WRONG
    assert "as somebody has decided: plan an upgrade" in found["edge: known-good"].sentence
    assert "too few" not in found["signers"].sentence


async def test_the_doctor_is_content_once_the_release_was_added_with_signatures_of_others(
    house: House,
) -> None:
    lead_leaves(house.stage)
    house.stage.sign_again(house.stage.bundles()[0])
    assert (await house.finds())["edge: known-good"].health is Health.WRONG
    await house.add()
    assert (await house.finds())["edge: known-good"].health is Health.WELL


async def test_gateways_without_a_way_back_are_counted_when_they_are_many(house: House) -> None:
    house.promote(house.release, *[f"edge-{number}" for number in range(1, 400)])
    lead_leaves(house.stage)
    sentence = (await house.finds())["edge: known-good"].sentence
    assert " and 394 more: ocserv 1.3.0 serves" in sentence
    assert sentence.count("ocserv 1.3.0") == 1


async def test_a_known_good_that_was_revoked_is_wrong_and_no_signers_fault(house: House) -> None:
    revoked = {"manifests": [house.release.digest.removeprefix("sha256:")]}
    house.stage.change_policy(lambda policy: policy.update(revoked=revoked))
    found = await house.finds()
    assert found["edge: known-good"].health is Health.WRONG
    assert "plan an upgrade to another release; SignerRevoked: " in found["edge: known-good"].sentence
    assert "too few" not in found["signers"].sentence


async def test_a_known_good_that_was_withdrawn_in_the_ledger_is_to_be_left_soon(house: House) -> None:
    """Hosts start it, as the ledger alone knows of it."""
    house.ledger.yank(house.release.digest, "a hole", "ana")
    known_good = (await house.finds())["edge: known-good"]
    assert known_good.health is Health.DOUBTFUL
    assert "ocserv 1.3.0 was withdrawn; it still serves as a way back" in known_good.sentence


async def test_a_known_good_of_which_no_signature_is_kept_is_not_called_well(house: House) -> None:
    unknown = house.release.model_copy(update={"digest": "sha256:" + "7" * 64, "version": "1.2.9"})
    house.promote(unknown)
    known_good = (await house.finds())["edge: known-good"]
    assert known_good.health is Health.DOUBTFUL
    assert "ocserv 1.2.9 may not start again: its signatures are not kept here" in known_good.sentence
