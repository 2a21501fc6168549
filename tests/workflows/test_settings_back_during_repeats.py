"""Settings are taken back although penstock itself is bringing them to a gateway that has missed them."""

import asyncio

import pytest

from policies.model.change import ChangeKind
from policies.model.errors import Conflict, Unavailable
from policies.model.way_back import RollbackAsked
from tests.patience import until
from tests.workflows.recorded import Recorded, blocked
from tests.workflows.test_settings import configured, silent, with_settings
from tests.workflows.world import NEW, NEXT


@pytest.mark.sweep
async def test_settings_are_taken_back_while_penstock_brings_them_to_who_missed_them(
    recorded: Recorded,
) -> None:
    """A repeat that reconcile began was refused as if it went forward to a release."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome == "promoted"
    silent(recorded, "gw-4")
    await configured(recorded, with_settings(recorded))
    await service.end_of("edge")
    world.gateways["gw-4"].recover("observe")
    async with blocked(world.gateways["gw-4"], "configure", times=range(1, 100)) as taken:
        found = await recorded.reconcile()
        assert found.sentence.startswith("repeating the last change of settings on gw-4"), found.sentence
        await asyncio.wait_for(taken.wait(), 20)
        said = ""
        try:
            said = (await service.roll_back(world.fleet, "ana", "no names", settings=True)).sentence
        except Conflict as refused:
            said = f"REFUSED: {refused} {[str(one) for one in refused.offers]}"
        shown = await service.rollback_preview(world.fleet, RollbackAsked(), None)
    await recorded.nothing_under_way()
    left = {name for name, fake in world.gateways.items() if fake.settings} - {"gw-4"}
    assert left == set(), f"{said} || the offered one: {shown.sentence}"


@pytest.mark.sweep
async def test_a_rollback_that_ends_such_a_repeat_brings_no_other_gateway_anywhere(
    recorded: Recorded,
) -> None:
    """The repeat was taken for the return of single gateways, and every gateway was brought to known-good."""
    world, service = recorded.world, recorded.service
    silent(recorded, "gw-4")
    await configured(recorded, with_settings(recorded))
    await service.end_of("edge")
    world.gateways["gw-4"].recover("observe")
    async with blocked(world.gateways["gw-4"], "configure", times=range(1, 100)) as taken:
        await recorded.reconcile()
        await asyncio.wait_for(taken.wait(), 20)
        receipt = await service.roll_back(world.fleet, "ana", "users call")
    await recorded.nothing_under_way()
    assert "Nothing else is taken back" in receipt.sentence
    assert ChangeKind.GO_BACK not in {one.kind for one in recorded.ledger.history("edge")}


@pytest.mark.sweep
async def test_a_rollback_by_name_is_taken_while_penstock_returns_a_single_gateway(
    recorded: Recorded,
) -> None:
    """One gateway that refuses kept rollbacks by name from the fleet for most of each minute."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome == "promoted"
    assert (await recorded.upgrade(release=NEXT)).outcome == "promoted"
    world.gateways["gw-3"].crash(world.gateways["gw-3"].target or "")
    world.gateways["gw-3"].fail("restore", Unavailable("gw-3 does not answer"), times=10_000)
    world.look()
    found = await recorded.reconcile()
    assert found.sentence.startswith("bringing back: gw-3"), found.sentence
    await until(lambda: bool(recorded.ledger.open_changes("edge")))
    said = []
    for _ in range(4):
        try:
            said = [(await service.roll_back(world.fleet, "ana", "users call", to=NEW)).sentence]
            break
        except Conflict as refused:
            said.append(f"REFUSED: {refused}")
        await asyncio.sleep(3)
    assert not said[0].startswith("REFUSED"), said
