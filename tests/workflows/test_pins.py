"""Pins under the real workflows: what penstock or a person took back stays out until somebody says more."""

from pathlib import Path

import pytest

from activities.files import FleetFiles
from orchestrator.service.acting import Acting
from orchestrator.service.caller_refusals import CallerRefusals
from orchestrator.service.changes import ChangeService
from orchestrator.service.desired import DesiredService
from orchestrator.service.fleets import Fleets
from orchestrator.service.people import PeopleFile
from orchestrator.store.later import LateEntries
from policies.model.change import PENSTOCK, ChangeKind, Outcome
from policies.model.desired import StartWhen, Upgrade, WishState
from policies.model.plan import ReleaseRef
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.test_bake import CRASHED
from tests.workflows.world import NEW, OLD, World, result_of
from workflows.identities import change_of


@pytest.fixture
def desired(world: World, tmp_path: Path) -> DesiredService:
    for release in (OLD, NEW):
        world.book.add_release(release, source="http://repository", signers=("ana",), manifest_json="{}")
    files = FleetFiles(tmp_path / "fleet.yaml")
    people = PeopleFile(tmp_path / "people.yaml")
    late = LateEntries(tmp_path / "late.jsonl")
    refusals = CallerRefusals(world.book, late)
    acts = Acting(world.book, late, world.book, refusals)
    return DesiredService(Fleets(files, refusals), files, world.book, people, acts)


def state(desired: DesiredService, world: World, release: ReleaseRef) -> WishState:
    wanted = Upgrade(
        kind="Upgrade",
        fleet=world.fleet.name,
        release=release.digest,
        reason="patches",
        start=StartWhen.ON_APPROVAL,
    )
    return desired.wish(world.fleet, wanted).state


@pytest.mark.sweep
async def test_what_went_back_by_itself_is_pinned_and_what_the_fleet_is_on_is_not(
    world: World, desired: DesiredService
) -> None:
    assert state(desired, world, NEW) is WishState.WANTED
    world.judge.says(UNDECIDED, UNHEALTHY)
    assert (await world.upgrade()).outcome is Outcome.ROLLED_BACK
    pin = desired.pins.last(world.fleet.name)
    assert pin is not None
    assert (pin.release, pin.change, pin.by) == (NEW.digest, world.newest, None)
    assert "9 of 10 logins fail" in pin.why
    assert state(desired, world, NEW) is WishState.PINNED
    assert state(desired, world, OLD) is WishState.REACHED
    assert world.book.release_pin(world.fleet.name, pin.change, "ana", "the uplink was at fault")
    assert state(desired, world, NEW) is WishState.WANTED


@pytest.mark.sweep
async def test_what_a_person_took_back_after_its_promotion_is_pinned(
    world: World, desired: DesiredService
) -> None:
    world.judge.says(HEALTHY)
    everybody = tuple(world.gateways)
    assert (await world.upgrade(everybody[:1], everybody[1:])).outcome is Outcome.PROMOTED
    promoted = world.newest
    assert state(desired, world, NEW) is WishState.REACHED
    service = ChangeService(world.client, world.book)
    assert (await service.roll_back(world.fleet, "bert", "calls drop")).accepted
    await result_of(service._change(world.fleet.name))
    pin = desired.pins.last(world.fleet.name)
    assert pin is not None
    assert (pin.change, pin.by) == (promoted, "bert")
    assert "calls drop" in pin.why
    assert state(desired, world, NEW) is WishState.PINNED


async def test_what_the_bake_took_back_is_pinned_and_its_change_does_not_lead_to_that_release(
    world: World, desired: DesiredService
) -> None:
    """newcomer 10: it was written down as a change back to the bad release, so that nothing pinned it."""
    world.judge.says(UNDECIDED, wave=0)
    everybody = tuple(world.gateways)
    assert (await world.upgrade(everybody[:1], everybody[1:])).outcome is Outcome.PROMOTED
    world.judge.says(CRASHED, wave=0)
    (promoted,) = [one.name for one in world.book.history(world.fleet.name) if one.release == NEW.version]
    await until(lambda: set(world.serving().values()) == {OLD.version})
    await result_of(world.client.get_workflow_handle(change_of(world.fleet.name)))
    pin = desired.pins.of(world.fleet.name, NEW.digest)
    assert pin is not None
    assert (pin.change, pin.by) == (promoted, PENSTOCK)
    assert state(desired, world, NEW) is WishState.PINNED
    (newest,) = world.book.history(world.fleet.name, 1)
    assert (newest.kind, newest.release, newest.release_digest) == (ChangeKind.GO_BACK, "known-good", None)


@pytest.mark.sweep
async def test_no_pin_stands_against_a_release_to_which_a_person_took_the_fleet(
    world: World, desired: DesiredService
) -> None:
    world.judge.says(HEALTHY)
    everybody = tuple(world.gateways)
    assert (await world.upgrade(everybody[:1], everybody[1:])).outcome is Outcome.PROMOTED
    service = ChangeService(world.client, world.book)
    assert (await service.roll_back(world.fleet, "bert", "calls drop")).accepted
    await result_of(service._change(world.fleet.name))
    assert state(desired, world, NEW) is WishState.PINNED
    rules = world.fleet.rollback.model_copy(update={"confirm_other_release": False})
    fleet = world.fleet.model_copy(update={"rollback": rules})
    assert (await service.roll_back(fleet, "bert", "1.3.0 was not at fault", to=NEW)).accepted
    assert (await result_of(service._change(world.fleet.name))).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {NEW.version}
    assert state(desired, world, NEW) is WishState.REACHED
    (newest,) = world.book.history(world.fleet.name, 1)
    assert (newest.kind, newest.release_digest) == (ChangeKind.GO_BACK, NEW.digest)
    led = world.book.newest_to(world.fleet.name, NEW.digest)
    assert led is not None
    assert led.name == newest.name
    again = await service.roll_back(fleet, "bert", "calls drop")
    assert not again.accepted
    assert f"took gateways to {NEW.version}, which was named" in again.sentence
