"""A change of settings: planned by what gateways were given, one gateway first, nobody steered."""

from ipaddress import IPv4Network

import pytest

from policies.adoption import release_of
from policies.model.adoption import ADOPTED
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    KnownGoodBatch,
    Outcome,
)
from policies.model.command import CommandReceipt
from policies.model.errors import BadInput, Conflict, Refused, Unavailable
from policies.model.fleet import Fleet
from policies.model.instance import InstanceState
from policies.model.plan import ReleaseRef
from policies.model.settings import lines_of
from tests.fakes.gateway import FakeSlot
from tests.workflows.recorded import Recorded
from tests.workflows.test_reload import quarantined
from tests.workflows.world import NEW, OLD

DNS = {"dns": ("10.0.0.53",)}


def with_settings(recorded: Recorded, **more: object) -> Fleet:
    return recorded.world.fleet.model_copy(update={"settings": DNS, **more})


async def configured(recorded: Recorded, fleet: Fleet) -> str | None:
    plan = await recorded.service.plan_settings(fleet)
    return await recorded.service.reload(fleet, plan, "ana", "new name server")


async def back(recorded: Recorded) -> CommandReceipt:
    """Ask for a rollback of settings, and wait until whatever that began is over."""
    receipt = await recorded.service.roll_back(recorded.world.fleet, "ana", "users call", settings=True)
    await recorded.nothing_under_way()
    return receipt


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


async def test_a_gateway_that_joins_gets_the_settings_that_the_fleet_is_on(recorded: Recorded) -> None:
    """newcomer 14: it got the release alone, and drift showed it."""
    fleet, joiner = with_settings(recorded), recorded.world.gateways["gw-4"]

    async def joins() -> None:
        joiner.slots = {slot.name: FakeSlot() for slot in joiner.gateway.slots}
        joiner.serving = None
        await recorded.service.install(fleet, OLD, "http://repository", "ana")
        assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED

    await joins()
    assert joiner.settings == ()  # nobody has given them to the others
    await configured(recorded, fleet.model_copy(update={"gateways": fleet.gateways[:3]}))
    await recorded.service.end_of("edge")
    await joins()
    assert lines_of(joiner.settings) == ("dns = 10.0.0.53",)
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


@pytest.mark.sweep
async def test_settings_with_which_nobody_can_log_in_stop_at_the_first_gateway(recorded: Recorded) -> None:
    refused = Refused("slot a of gw-1 failed its probe at auth; everything is as it was before")
    recorded.world.gateways["gw-1"].fail("configure", refused)
    await configured(recorded, with_settings(recorded))
    result = await recorded.service.end_of("edge")
    assert result.outcome is Outcome.REFUSED
    assert "gw-1: slot a of gw-1 failed its probe" in result.reason
    assert all(fake.effects == [] for fake in recorded.world.gateways.values())


@pytest.mark.sweep
async def test_settings_change_while_an_adopted_daemon_drains_which_keeps_its_own_configuration(
    recorded: Recorded,
) -> None:
    """newcomer 5: it was reported as a slot that does not run any more, and the change as failed."""
    for fake in recorded.world.gateways.values():
        fake.slots[ADOPTED] = FakeSlot(state=InstanceState.RUNNING, people=["198.51.100.9"])
    await configured(recorded, with_settings(recorded))
    result = await recorded.service.end_of("edge")
    assert (result.outcome, result.reason) == (
        Outcome.PROMOTED,
        "4 of 4 gateways use the settings of the fleet's file, 4 of them new ones",
    )
    assert all(fake.slots[ADOPTED].people == ["198.51.100.9"] for fake in recorded.world.gateways.values())


def adopted(recorded: Recorded, *names: str) -> None:
    """Have the daemons that were adopted on these gateways serve their users."""
    for name in names:
        fake = recorded.world.gateways[name]
        fake.slots = {ADOPTED: FakeSlot(state=InstanceState.RUNNING, people=["198.51.100.9"])}
        fake.serving = ADOPTED


OWN = (
    "3 gateways (gw-2, gw-3, gw-4) use the adopted daemon's own configuration: change it there, and "
    "run `penstock config start` after the first upgrade"
)


async def test_plan_and_end_of_a_change_of_settings_name_the_gateways_of_adopted_daemons(
    recorded: Recorded,
) -> None:
    """The end said "1 of 1 gateways", and the next plan that all gateways had the settings already."""
    adopted(recorded, "gw-2", "gw-3", "gw-4")
    fleet = with_settings(recorded)
    plan = await recorded.service.plan_settings(fleet)
    assert (plan.changing, plan.passed_over) == (1, OWN)
    await recorded.service.reload(fleet, plan, "ana", "new name server")
    result = await recorded.service.end_of("edge")
    assert (result.outcome, result.reason) == (
        Outcome.PROMOTED,
        f"1 of 1 gateways use the settings of the fleet's file, 1 of them new ones; {OWN}",
    )
    assert recorded.ledger.history("edge")[0].sentence == result.reason
    with pytest.raises(Refused) as refused:
        await recorded.service.plan_settings(fleet)
    assert str(refused.value) == (
        f"there is nothing to do: 1 of 4 gateways of edge has these settings already; {OWN}"
    )


async def test_a_silent_gateway_whose_known_good_is_its_own_daemon_is_not_asked_for_settings(
    recorded: Recorded,
) -> None:
    """Its host would keep them for later, and count as one that uses them."""
    own = release_of("ocserv", "1.1.6", OLD.executable)
    one_returns(recorded, "gw-4", own)
    silent(recorded, "gw-4")
    plan = await recorded.service.plan_settings(with_settings(recorded))
    assert (plan.changing, plan.passed_over[:16]) == (3, "1 gateway (gw-4)")


async def test_a_plan_of_settings_names_gateways_in_quarantine_that_lack_them(recorded: Recorded) -> None:
    quarantined(recorded, "gw-3")
    plan = await recorded.service.plan_settings(with_settings(recorded))
    assert plan.changing == 3
    assert plan.passed_over == (
        "1 gateway (gw-3) is in quarantine: return it, and run `penstock config start` again"
    )


@pytest.mark.sweep
async def test_settings_that_a_host_has_taken_before_it_went_silent_are_what_a_rollback_takes_back(
    recorded: Recorded,
) -> None:
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    first = recorded.world.gateways["gw-1"]
    first.fail("probe", Unavailable("its agent is started anew"), times=1000)
    name = await configured(recorded, with_settings(recorded))
    result = await recorded.service.end_of("edge")
    assert result.outcome is Outcome.HELD
    assert "1 of those that failed may use them, too" in result.reason
    assert first.settings
    first.recover("probe")
    await back(recorded)
    newest = recorded.ledger.history("edge")[0]
    assert (newest.kind, newest.cause, first.settings) == (ChangeKind.CONFIGURE, name, ())
    await recorded.everybody_on(NEW)


@pytest.mark.sweep
async def test_a_rollback_puts_back_what_was_before_the_settings_and_twice_is_once(
    recorded: Recorded,
) -> None:
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    name = await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    receipt = await back(recorded)
    assert receipt.accepted
    gateways = recorded.world.gateways.values()
    assert all(fake.effects[-1] == f"take back {name}" and not fake.settings for fake in gateways)
    newest, taken, *_ = recorded.ledger.history("edge")
    assert (newest.kind, newest.outcome, newest.cause) == (ChangeKind.CONFIGURE, Outcome.ROLLED_BACK, name)
    assert newest.sentence == f"4 of 4 gateways use what they had before {name}"
    assert taken.standing == f"promoted, taken back by {newest.name}"
    again = await back(recorded)
    assert (again.accepted, again.sentence) == (
        False,
        f"Nothing to do: {newest.name} took {name} back already.",
    )
    await recorded.everybody_on(NEW)


def one_returns(recorded: Recorded, name: str, release: ReleaseRef = OLD) -> None:
    """Write down that a gateway failed alone and went back to this."""
    ledger = recorded.ledger
    opening = ChangeOpening(
        key=name,
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        requested_by=PENSTOCK,
        reason=f"{name} failed alone",
        release="known-good",
    )
    change = ledger.open_change(opening)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=change, releases={name: release}))
    ledger.close_change(ChangeEnding(change=change, outcome=Outcome.ROLLED_BACK, sentence="it is back"))


@pytest.mark.sweep
async def test_the_return_of_one_gateway_and_a_promotion_hide_no_settings_from_their_rollback(
    recorded: Recorded,
) -> None:
    """Hosts give settings to all that they start; the way back was closed by any change of a release."""
    name = await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    one_returns(recorded, "gw-1")
    assert recorded.ledger.history("edge")[0].moved == 1
    receipt = await back(recorded)
    assert f"what runs gets again the settings that it had before {name}" in receipt.sentence
    assert recorded.ledger.history("edge")[0].outcome is Outcome.ROLLED_BACK
    assert all(fake.settings == () for fake in recorded.world.gateways.values())
    assert (await back(recorded)).sentence.startswith("Nothing to do: ")


@pytest.mark.sweep
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
    assert f"the credentials that it had before {name}" in receipt.sentence
    assert recorded.ledger.history("edge")[0].cause == name


@pytest.mark.sweep
async def test_a_gateway_that_did_not_get_back_is_asked_again_by_the_next_rollback(
    recorded: Recorded,
) -> None:
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    recorded.world.gateways["gw-4"].fail("take_back", Refused("gw-4: nft says no"))
    await back(recorded)
    assert recorded.ledger.history("edge")[0].outcome is Outcome.HELD
    assert (await back(recorded)).accepted
    assert recorded.ledger.history("edge")[0].outcome is Outcome.ROLLED_BACK
    assert recorded.world.gateways["gw-4"].settings == ()


def silent(recorded: Recorded, name: str) -> None:
    away = Unavailable(f"{name} does not answer")
    recorded.world.gateways[name].fail("observe", away, times=1000)


WELL = "every gateway is on its known-good"


@pytest.mark.sweep
async def test_who_was_silent_gets_what_the_fleet_is_on_and_not_what_its_file_says_meanwhile(
    recorded: Recorded,
) -> None:
    """The file of the world has no settings: as if somebody had taken them out and started nothing yet."""
    silent(recorded, "gw-4")
    first = await configured(recorded, with_settings(recorded))
    result = await recorded.service.end_of("edge")
    assert (result.outcome, set(result.aside)) == (Outcome.HELD, {"gw-4"})
    assert "gw-4" in result.reason
    assert (await recorded.reconcile()).sentence == WELL
    recorded.world.gateways["gw-4"].recover("observe")
    found = await recorded.reconcile()
    assert found.sentence == "repeating the last change of settings on gw-4, which missed it"
    again = await recorded.service.end_of("edge")
    assert (again.outcome, again.touched) == (Outcome.PROMOTED, 1)
    gateways = recorded.world.gateways.values()
    assert [fake.effects for fake in gateways] == [["configure dns = 10.0.0.53"]] * 4
    assert recorded.ledger.history("edge")[0].repeats == first
    assert (await recorded.reconcile()).sentence == WELL
    await back(recorded)
    assert all(fake.effects[-1] == f"take back {first}" and not fake.settings for fake in gateways)
    _, repeat, taken, *_ = recorded.ledger.history("edge")
    assert {repeat.standing, taken.standing} == {
        f"promoted, taken back by {recorded.world.newest}",
        f"held, taken back by {recorded.world.newest}",
    }
    assert (await recorded.reconcile()).sentence == WELL


@pytest.mark.sweep
async def test_who_was_silent_while_settings_were_taken_back_gets_rid_of_them_when_it_is_back(
    recorded: Recorded,
) -> None:
    name = await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    silent(recorded, "gw-4")
    await back(recorded)
    assert recorded.ledger.history("edge")[0].outcome is Outcome.HELD
    recorded.world.gateways["gw-4"].recover("observe")
    found = await recorded.reconcile()
    assert found.sentence == "repeating the last change of settings on gw-4, which missed it"
    assert (await recorded.service.end_of("edge")).outcome is Outcome.ROLLED_BACK
    assert recorded.world.gateways["gw-4"].effects[-1] == f"take back {name}"
    assert (await recorded.reconcile()).sentence == WELL


@pytest.mark.sweep
async def test_who_missed_two_changes_gets_the_first_after_the_second_was_taken_back(
    recorded: Recorded,
) -> None:
    fleet = with_settings(recorded)
    silent(recorded, "gw-4")
    await configured(recorded, fleet)
    await recorded.service.end_of("edge")
    await configured(recorded, fleet.model_copy(update={"settings": {"dns": ("10.0.0.54",)}}))
    await recorded.service.end_of("edge")
    recorded.world.gateways["gw-4"].recover("observe")
    await back(recorded)
    assert recorded.ledger.history("edge")[0].outcome is Outcome.ROLLED_BACK
    assert recorded.world.gateways["gw-4"].effects == []
    await recorded.reconcile()
    await recorded.service.end_of("edge")
    lines = {setting.lines for fake in recorded.world.gateways.values() for setting in fake.settings}
    assert lines == {("dns = 10.0.0.53",)}
    assert (await recorded.reconcile()).sentence == WELL


@pytest.mark.sweep
async def test_who_refused_settings_is_not_asked_again(recorded: Recorded) -> None:
    recorded.world.gateways["gw-4"].fail("configure", Refused("gw-4: its file allows no dns"))
    await configured(recorded, with_settings(recorded))
    assert (await recorded.service.end_of("edge")).outcome is Outcome.HELD
    assert (await recorded.reconcile()).sentence == WELL


def larger(recorded: Recorded, *names: str) -> Fleet:
    """Return the fleet with slots a of a larger pool; the agents' files of these gateways say so, too."""
    members = []
    for gateway in recorded.world.fleet.gateways:
        number = int(gateway.name[3:])
        first, *others = gateway.slots
        grown = first.model_copy(update={"pool4": IPv4Network(f"10.{100 + number}.0.0/16")})
        members.append(gateway.model_copy(update={"slots": (grown, *others)}))
        recorded.world.gateways[gateway.name].pools["a"] = (IPv4Network(f"10.{100 + number}.0.0/24"),)
        if gateway.name in names:
            recorded.world.gateways[gateway.name].gateway = members[-1]
    return recorded.world.fleet.model_copy(update={"gateways": tuple(members)})


@pytest.mark.sweep
async def test_a_larger_pool_is_planned_and_given_as_settings_are(recorded: Recorded) -> None:
    fleet = larger(recorded, "gw-1", "gw-2", "gw-3", "gw-4")
    plan = await recorded.service.plan_settings(fleet)
    assert plan.settings == ("pool4",)
    assert plan.differences[:3] == (
        "gw-1:",
        "  - pool4 of slot a = 10.101.0.0/24",
        "  + pool4 of slot a = 10.101.0.0/16",
    )
    await recorded.service.reload(fleet, plan, "ana", "more users")
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    assert recorded.world.gateways["gw-3"].pools["a"] == (IPv4Network("10.103.0.0/16"),)
    with pytest.raises(Refused, match="the gateways of edge have these settings already"):
        await recorded.service.plan_settings(fleet)


@pytest.mark.sweep
async def test_a_pool_that_an_agents_file_does_not_have_is_refused_before_any_gateway_is_asked(
    recorded: Recorded,
) -> None:
    fleet = larger(recorded, "gw-1", "gw-2", "gw-3")
    with pytest.raises(
        Refused, match=r"^gw-4: slot a: fleet.yaml says .*, its agent's file .*; have both say"
    ):
        await recorded.service.plan_settings(fleet)
    assert all(fake.effects == [] for fake in recorded.world.gateways.values())


@pytest.mark.sweep
async def test_who_was_in_quarantine_while_penstock_brought_settings_to_others_gets_them_once_returned(
    recorded: Recorded,
) -> None:
    ill, away = recorded.world.gateways["gw-3"], recorded.world.gateways["gw-4"]
    for name in ("gw-3", "gw-4"):
        silent(recorded, name)
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")
    quarantined(recorded, "gw-3")
    for fake in (ill, away):
        fake.recover("observe")
    await recorded.reconcile()
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    assert ill.settings == ()
    assert recorded.ledger.clear_quarantine("edge", "gw-3", "ben", "new disk")
    await recorded.reconcile()
    await recorded.nothing_under_way()
    assert lines_of(ill.settings) == lines_of(away.settings) == ("dns = 10.0.0.53",)
    assert (await recorded.reconcile()).sentence == WELL
