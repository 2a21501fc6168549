"""A change of settings: planned by what gateways were given, one gateway first, nobody steered."""

import pytest

from policies.model.change import ChangeKind, Outcome
from policies.model.errors import BadInput, Conflict, Refused
from policies.model.fleet import Fleet
from tests.workflows.recorded import Recorded
from tests.workflows.world import NEW

DNS = {"dns": ("10.0.0.53",)}


def with_settings(recorded: Recorded, **more: object) -> Fleet:
    return recorded.world.fleet.model_copy(update={"settings": DNS, **more})


async def configured(recorded: Recorded, fleet: Fleet) -> str | None:
    plan = await recorded.service.plan_settings(fleet)
    return await recorded.service.reload(fleet, plan, "ana", "new name server")


async def test_every_gateway_gets_its_settings_and_nobody_is_steered(recorded: Recorded) -> None:
    own = {gateway.name: gateway for gateway in recorded.world.fleet.gateways}
    special = own["gw-2"].model_copy(update={"settings": {"dns": ("10.2.0.53",), "banner": ("hello",)}})
    fleet = with_settings(recorded, gateways=tuple((own | {"gw-2": special}).values()))
    plan = await recorded.service.plan_settings(fleet)
    assert (plan.settings, plan.waves[0].gateways) == (("banner", "dns"), 1)
    assert [line for line in plan.differences if "gw-2" in line or "banner" in line] == [
        "gw-2:",
        "  + banner = hello",
    ]
    name = await recorded.service.reload(fleet, plan, "ana", "new name server")
    result = await recorded.service.end_of("edge")
    assert (result.rollout, result.outcome) == (name, Outcome.PROMOTED)
    assert result.reason == "4 of 4 gateways use the settings of the fleet's file, 4 of them new ones"
    gateways = recorded.world.gateways
    assert gateways["gw-1"].effects == ["configure dns = 10.0.0.53"]
    assert gateways["gw-2"].effects == ["configure banner = hello; dns = 10.2.0.53"]
    newest, *_ = recorded.ledger.history("edge")
    assert (newest.kind, newest.release, newest.moved) == (ChangeKind.CONFIGURE, "settings", 0)
    with pytest.raises(Refused, match="the gateways of edge have these settings already"):
        await recorded.service.plan_settings(fleet)


async def test_a_plan_stays_the_same_while_users_come_and_go(recorded: Recorded) -> None:
    fleet = with_settings(recorded)
    before = await recorded.service.plan_settings(fleet)
    recorded.world.gateways["gw-1"].login("192.0.2.7")
    assert (await recorded.service.plan_settings(fleet)).digest == before.digest
    other = fleet.model_copy(update={"settings": {"dns": ("10.0.0.54",)}})
    assert (await recorded.service.plan_settings(other)).digest != before.digest


async def test_a_setting_that_no_fleet_may_have_is_refused_before_any_gateway_is_asked(
    recorded: Recorded,
) -> None:
    with pytest.raises(BadInput, match="tcp-port belongs into the template of a release"):
        await recorded.service.plan_settings(with_settings(recorded, settings={"tcp-port": ("443",)}))


async def test_settings_with_which_nobody_can_log_in_stop_at_the_first_gateway(recorded: Recorded) -> None:
    refused = Refused("slot a of gw-1 failed its probe at auth; everything is as it was before")
    recorded.world.gateways["gw-1"].fail("configure", refused)
    await configured(recorded, with_settings(recorded))
    result = await recorded.service.end_of("edge")
    assert result.outcome is Outcome.REFUSED
    assert "gw-1: slot a of gw-1 failed its probe" in result.reason
    assert all(fake.effects == [] for fake in recorded.world.gateways.values())


async def test_a_rollback_puts_back_what_was_before_the_settings_and_twice_is_once(
    recorded: Recorded,
) -> None:
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    name = await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    receipt = await recorded.roll_back()
    assert receipt.accepted
    gateways = recorded.world.gateways.values()
    assert all(fake.effects[-1] == f"take back {name}" and not fake.settings for fake in gateways)
    newest, taken, *_ = recorded.ledger.history("edge")
    assert (newest.kind, newest.outcome, newest.cause) == (ChangeKind.CONFIGURE, Outcome.ROLLED_BACK, name)
    assert newest.sentence == f"4 of 4 gateways use what they had before {name}"
    assert taken.standing == f"promoted, taken back by {newest.name}"
    again = await recorded.roll_back()
    assert (again.accepted, again.sentence) == (
        False,
        f"Nothing to do: {newest.name} took {name} back already.",
    )
    await recorded.everybody_on(NEW)


async def test_a_reload_of_credentials_is_taken_back_by_its_name_alone(recorded: Recorded) -> None:
    fleet, service = recorded.world.fleet, recorded.service
    for _ in range(2):
        name = await service.reload(fleet, await service.plan_reload(fleet), "ana", "ben has left")
        await service.end_of("edge")
    before = f"{fleet.name}-{int(str(name).rpartition('-')[2]) - 1}"
    with pytest.raises(Conflict, match=f"{before} is not the last reload any more"):
        await service.roll_back(fleet, "ana", "nobody gets in", of=before)
    receipt = await service.roll_back(fleet, "ana", "nobody gets in", of=name)
    assert (await service.end_of("edge")).outcome is Outcome.ROLLED_BACK
    assert "what it had before" in receipt.sentence
    assert recorded.ledger.history("edge")[0].cause == name


async def test_a_gateway_that_did_not_get_back_is_asked_again_by_the_next_rollback(
    recorded: Recorded,
) -> None:
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    recorded.world.gateways["gw-4"].fail("take_back", Refused("gw-4: nft says no"))
    await recorded.roll_back()
    assert recorded.ledger.history("edge")[0].outcome is Outcome.HELD
    assert (await recorded.roll_back()).accepted
    assert recorded.ledger.history("edge")[0].outcome is Outcome.ROLLED_BACK
    assert recorded.world.gateways["gw-4"].settings == ()
