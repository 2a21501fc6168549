"""A reload of credentials: one gateway first, nobody steered, drains and the way back as they were."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from activities.instances import Reloaded
from orchestrator.service import changes
from orchestrator.service.changes import ChangeService
from orchestrator.service.drift import DriftService
from policies import history
from policies.model.adoption import ADOPTED
from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome, Quarantine
from policies.model.command import CommandKind
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.fleet import RemovedUsers
from policies.model.instance import InstanceState
from policies.model.operation import Operation
from tests.fakes.gateway import FakeGateway, FakeSlot
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded, blocked, recording
from tests.workflows.world import (
    OLD,
    Running,
    World,
    fleet_of,
    refusal_of,
    result_of,
    say,
    status_of,
    working,
)

BAD = BadInput("credential users line 3: it was cut off; nothing was changed on gw-1")


async def begun(world: World, *names: str, older: bool = False) -> Running:
    """Start a reload of these gateways in this order, or of all."""
    plan = world.book.record_reload(world.fleet, names or tuple(world.gateways))
    order = ChangeOrder(
        fleet=world.fleet.name,
        kind=ChangeKind.RELOAD,
        plan=plan,
        requested_by="ana",
        reason="ben has left",
        even_if_older=older,
    )
    return await world.run(order)


async def reload(recorded: Recorded, *, unserved: bool = False) -> str | None:
    """Begin a reload as the service does; return its name."""
    fleet = recorded.world.fleet
    plan = await recorded.service.plan_reload(fleet, unserved=unserved)
    return await recorded.service.reload(fleet, plan, "ana", "ben has left")


async def reloaded(world: World, *names: str, older: bool = False) -> ChangeResult:
    return await result_of(await begun(world, *names, older=older))


async def test_every_instance_of_every_gateway_is_reloaded_and_nobody_is_steered(world: World) -> None:
    draining = world.gateways["gw-2"]
    draining.slots["c"].release, draining.slots["c"].state = OLD, InstanceState.RUNNING
    result = await reloaded(world, "gw-3", "gw-1", "gw-2", "gw-4")
    assert (result.outcome, result.touched) == (Outcome.PROMOTED, 4)
    assert result.reason == "4 of 4 gateways use their hosts' present credentials, 4 of them new ones"
    assert world.effects() == {
        "gw-1": ["reload a"],
        "gw-2": ["reload a c"],
        "gw-3": ["reload a"],
        "gw-4": ["reload a"],
    }
    assert all(fake.owner == (0, "") for fake in world.gateways.values())
    newest = world.book.last_change(world.fleet.name)
    assert newest is not None
    assert (newest.kind, newest.release, newest.moved) == (ChangeKind.RELOAD, "credentials", 0)


async def test_a_bad_file_on_the_first_gateway_keeps_all_others_from_it(world: World) -> None:
    world.gateways["gw-1"].fail("reload", BAD)
    result = await reloaded(world)
    assert result.outcome is Outcome.REFUSED
    assert result.reason == (
        f"0 of 4 gateways use their hosts' present credentials, 0 of them new ones; "
        f"gw-1: {BAD}; the others were not asked"
    )
    assert all(fake.effects == [] for fake in world.gateways.values())


@pytest.mark.sweep
async def test_one_gateway_that_is_silent_later_is_named_and_hinders_nobody(world: World) -> None:
    world.gateways["gw-4"].fail("observe", Unavailable("gw-4 does not answer"), times=1000)
    result = await reloaded(world)
    assert (result.outcome, result.touched, set(result.aside)) == (Outcome.HELD, 3, {"gw-4"})
    assert world.gateways["gw-3"].effects == ["reload a"]


async def test_an_instance_that_lets_nobody_in_afterwards_stops_the_reload(world: World) -> None:
    world.gateways["gw-1"].bad_releases.add(OLD.digest)
    result = await reloaded(world)
    assert result.outcome is Outcome.REFUSED
    assert "slot a of gw-1 fails its probe at auth" in result.reason
    assert world.gateways["gw-2"].effects == []


@pytest.mark.sweep
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("state", [InstanceState.STOPPED, InstanceState.FAILED])
async def test_an_instance_that_its_drain_stops_in_mid_reload_is_no_fault_and_one_that_dies_is(
    world: World, monkeypatch: pytest.MonkeyPatch, told: bool, state: InstanceState
) -> None:
    fake = world.gateways["gw-1"]
    draining, reload = fake.slots["c"], fake.reload
    draining.release, draining.state = OLD, InstanceState.RUNNING

    async def ends_beside(operation: Operation, *, older: bool, end_removed: bool = False) -> Reloaded:
        if not told:
            draining.state = state
        done = await reload(operation, older=older, end_removed=end_removed)
        draining.state = state
        return done

    monkeypatch.setattr(fake, "reload", ends_beside)
    result = await reloaded(world)
    assert fake.effects == ["reload a c" if told else "reload a"]
    if state is InstanceState.STOPPED:
        assert (result.outcome, result.touched) == (Outcome.PROMOTED, 4)
    else:
        assert result.outcome is Outcome.REFUSED
        assert "slot c of gw-1 " in result.reason


async def test_what_is_meant_to_be_older_is_said_to_every_host(world: World) -> None:
    await reloaded(world, older=True)
    assert world.gateways["gw-4"].effects == ["reload a older"]


async def test_whoever_needs_the_fleet_stops_a_reload_where_it_is(world: World) -> None:
    world.gateways["gw-2"].fail("reload", Unavailable("gw-2 does not answer"), times=1000)
    running = await begun(world)
    await until(lambda: world.gateways["gw-1"].effects == ["reload a"])
    told = await status_of(running)
    assert (told.version, told.users[:6]) == ("credentials", "nobody")
    assert "is a reload of credentials" in await refusal_of(say(running, CommandKind.HOLD))
    receipt = await say(running, CommandKind.ROLL_BACK, reason="1.3.0 drops calls")
    assert receipt.sentence == "Stopping. Gateways that were not asked keep the credentials they have."
    result = await result_of(running)
    assert (result.outcome, result.reason[:25]) == (Outcome.ABORTED, "on call: 1.3.0 drops call")


@pytest.mark.sweep
async def test_a_fleet_of_several_parts_is_reloaded_whole(server: Engine) -> None:
    large = World.made(await server.client(), fleet_of("large", size=120))
    async with working(large):
        result = await reloaded(large)
    assert (result.outcome, result.touched) == (Outcome.PROMOTED, 120)
    assert all(fake.effects == ["reload a"] for fake in large.gateways.values())


@pytest.mark.sweep
async def test_a_rollback_stops_a_reload_and_takes_the_upgrade_before_it_back(recorded: Recorded) -> None:
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    fleet, gateways = recorded.world.fleet, recorded.world.gateways
    async with blocked(gateways["gw-1"], "reload") as taken:
        assert await reload(recorded) == "edge-3"
        await asyncio.wait_for(taken.wait(), PATIENCE)
        receipt = await recorded.service.roll_back(fleet, "ana", "users call")
    assert receipt.accepted
    await recorded.everybody_on(OLD)
    newest, stopped, *_ = recorded.ledger.history("edge")
    assert (newest.kind, newest.outcome) == (ChangeKind.GO_BACK, Outcome.ROLLED_BACK)
    assert (stopped.name, stopped.kind, stopped.outcome) == ("edge-3", ChangeKind.RELOAD, Outcome.ABORTED)


@pytest.mark.sweep
async def test_a_rollback_behind_a_reload_that_no_worker_stops_does_not_count_as_taken(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "STOPPED_WITHIN", timedelta(seconds=0.1))
    world = World.made(await server.client(), fleet_of("edge"))
    service, plan = ChangeService(world.client, world.book), world.book.record_reload(world.fleet, ("gw-1",))
    await service.reload(world.fleet, world.book.plan_header(plan), "ana", "ben has left")
    with pytest.raises(Unavailable, match="nothing is taken back yet: repeat the rollback"):
        await service.roll_back(world.fleet, "ana", "users call")


@pytest.mark.sweep
async def test_a_reload_ends_neither_the_bake_nor_a_drain_and_reaches_what_drains(recorded: Recorded) -> None:
    fleet, gateways = recorded.world.fleet, recorded.world.gateways
    gateways["gw-1"].login("192.0.2.7")
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    [drain] = [one for one in await recorded.drains.drains(fleet) if one.slots[0].gateway == "gw-1"]
    await reload(recorded)
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    assert gateways["gw-1"].effects[-1] == "reload a b"
    assert await recorded.bakes()
    assert drain.slots[0] in [slot for one in await recorded.drains.drains(fleet) for slot in one.slots]
    gateways["gw-1"].logout("192.0.2.7")
    await until(lambda: gateways["gw-1"].slots["a"].state is InstanceState.STOPPED)


async def test_a_fleet_on_which_nothing_runs_has_nothing_to_reload(server: Engine) -> None:
    async with recording(server, serving=None) as empty:
        with pytest.raises(Refused, match="nothing runs on any gateway of edge"):
            await empty.service.plan_reload(empty.world.fleet)


@pytest.mark.sweep
async def test_only_gateways_whose_hosts_have_other_credentials_are_reloaded_when_told_so(
    recorded: Recorded,
) -> None:
    fleet, gateways = recorded.world.fleet, recorded.world.gateways
    compared = DriftService(recorded.service)
    gateways["gw-2"].unserved = ("certificate", "key")
    found = await compared.drift(fleet)
    assert found.unserved == 1
    [said] = [one for one in found.differences if one.gateway == "gw-2" and "credentials" in one.sentence]
    assert said.sentence.startswith("credentials: certificate, key lie on its host otherwise")
    await reload(recorded, unserved=True)
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    reloaded = [name for name, fake in gateways.items() if "reload a" in fake.effects]
    assert reloaded == ["gw-2"]
    assert (await compared.drift(fleet)).unserved == 0
    with pytest.raises(Refused, match="what runs on edge has what lies on its hosts"):
        await reload(recorded, unserved=True)


async def held_by_silence(recorded: Recorded, *silent: FakeGateway) -> str | None:
    """Reload while these gateways answer nobody, which ends as held; return the reload's name."""
    for fake in silent:
        fake.fail("observe", Unavailable("it does not answer"), times=1000)
    name = await reload(recorded)
    assert (await recorded.service.end_of("edge")).outcome is Outcome.HELD
    return name


@pytest.mark.sweep
async def test_a_gateway_that_was_silent_is_reloaded_when_it_is_back_and_nobody_twice(
    recorded: Recorded,
) -> None:
    away = recorded.world.gateways["gw-4"]
    name = await held_by_silence(recorded, away)
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"
    away.recover("observe")
    found = await recorded.reconcile()
    assert found.sentence == "repeating the last reload of credentials on gw-4, which missed it"
    again = await recorded.service.end_of("edge")
    assert (again.outcome, again.touched) == (Outcome.PROMOTED, 1)
    assert again.rollout != name
    assert [fake.effects for fake in recorded.world.gateways.values()] == [["reload a"]] * 4
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"


@pytest.mark.sweep
async def test_who_goes_again_before_its_reload_is_asked_once_more_and_so_is_who_is_silent_still(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, flapping = recorded.world.gateways["gw-3"], recorded.world.gateways["gw-4"]
    await held_by_silence(recorded, away, flapping)
    flapping.recover("observe")
    flapping.fail("reload", Unavailable("it has just gone again"), times=1000)
    assert "gw-4" in (await recorded.reconcile()).sentence
    assert (await recorded.service.end_of("edge")).outcome is Outcome.REFUSED
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"  # not yet again
    flapping.recover("reload")
    away.recover("observe")
    monkeypatch.setattr(history, "LONGEST_UNTIL_AGAIN", timedelta(0))
    assert {"gw-3", "gw-4"} <= {*(await recorded.reconcile()).sentence.replace(",", "").split()}
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    assert [fake.effects for fake in recorded.world.gateways.values()] == [["reload a"]] * 4
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"


@pytest.mark.sweep
async def test_one_that_refuses_each_time_keeps_no_other_from_its_credentials(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, back = recorded.world.gateways["gw-3"], recorded.world.gateways["gw-4"]
    await held_by_silence(recorded, full, back)
    monkeypatch.setattr(history, "LONGEST_UNTIL_AGAIN", timedelta(0))
    full.fail("reload", Unavailable("no space left on device"), times=1000)
    for fake in (full, back):
        fake.recover("observe")
    for _ in range(2):
        await recorded.reconcile()
        await recorded.nothing_under_way()
    assert back.effects == ["reload a"]


@pytest.mark.sweep
async def test_who_is_to_be_kept_out_at_once_is_out_elsewhere_while_a_gateway_is_silent(
    recorded: Recorded,
) -> None:
    fleet, service, gateways = recorded.world.fleet, recorded.service, recorded.world.gateways
    async with blocked(gateways["gw-4"], "observe", times=range(1, 100)):
        plan = await service.plan_reload(fleet, at_once=True)
        assert [wave.gateways for wave in plan.waves] == [4]
        await service.reload(fleet, plan, "ana", "ben has left")
        await until(lambda: all("reload a" in gateways[name].effects for name in ("gw-1", "gw-2", "gw-3")))
        assert gateways["gw-4"].effects == []
    assert (await service.end_of("edge")).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_sessions_of_whom_a_reload_takes_out_are_ended_where_the_fleet_says_so(
    recorded: Recorded,
) -> None:
    limits = recorded.world.fleet.limits.model_copy(update={"removed_users": RemovedUsers.END})
    fleet, service = recorded.world.fleet.model_copy(update={"limits": limits}), recorded.service
    await service.reload(fleet, await service.plan_reload(fleet), "ana", "ben has left")
    result = await service.end_of("edge")
    assert result.reason.endswith("; 4 sessions of users who were taken out were ended")


@pytest.mark.sweep
async def test_a_reload_says_where_sessions_of_whom_it_takes_out_go_on(recorded: Recorded) -> None:
    """newcomer 14: a removed user stayed logged in at the adopted daemon, and nothing said so."""
    limits = recorded.world.fleet.limits.model_copy(update={"removed_users": RemovedUsers.END})
    fleet, service = recorded.world.fleet.model_copy(update={"limits": limits}), recorded.service
    own = FakeSlot(state=InstanceState.RUNNING, people=["198.51.100.9"])
    recorded.world.gateways["gw-1"].slots[ADOPTED] = own
    recorded.world.gateways["gw-1"].staying = 1
    await service.reload(fleet, await service.plan_reload(fleet), "ana", "ben has left")
    result = await service.end_of("edge")
    said = "; 1 sessions of users who were taken out go on (on adopted daemons, end them there): gw-1: 1"
    assert result.reason.endswith(said)


@pytest.mark.sweep
async def test_a_reload_that_ends_no_session_says_how_many_of_removed_users_go_on_and_where(
    recorded: Recorded,
) -> None:
    """newcomer 14: with the default of `removed_users` nothing was said of whom it keeps."""
    service, gateways = recorded.service, recorded.world.gateways
    gateways["gw-2"].staying, gateways["gw-3"].staying = 2, None
    fleet = recorded.world.fleet
    await service.reload(fleet, await service.plan_reload(fleet), "ana", "ben has left")
    result = await service.end_of("edge")
    said = "; 2 sessions of users who were taken out go on (limits.removed_users is keep): "
    assert result.reason.endswith(f"{said}gw-2: 2; gw-3: not known")


@pytest.mark.sweep
async def test_a_gateway_that_left_the_file_keeps_no_other_from_a_reload_that_it_missed(
    recorded: Recorded,
) -> None:
    """R2: names of an old plan are looked up in today's file."""
    world = recorded.world
    gone, away = world.gateways["gw-3"], world.gateways["gw-4"]
    await held_by_silence(recorded, gone, away)
    left = tuple(gateway for gateway in world.fleet.gateways if gateway.name != "gw-3")
    world.folder.known["edge"] = world.fleet.model_copy(update={"gateways": left})
    away.recover("observe")
    found = await recorded.reconcile()
    assert found.sentence == "repeating the last reload of credentials on gw-4, which missed it"
    again = await recorded.service.end_of("edge")
    assert (again.outcome, again.touched) == (Outcome.PROMOTED, 1)


def quarantined(recorded: Recorded, name: str) -> None:
    since = datetime.now(UTC)
    recorded.ledger.set_quarantine(
        Quarantine(fleet="edge", gateway=name, reason="its disk dies", person="ben", since=since)
    )


async def is_reloaded_once_returned(recorded: Recorded, name: str) -> None:
    """Return the gateway from quarantine, and see that it is asked for the reload, once."""
    assert recorded.world.gateways[name].effects == []
    assert recorded.ledger.clear_quarantine("edge", name, "ben", "new disk")
    await recorded.reconcile()
    await recorded.nothing_under_way()
    assert recorded.world.gateways[name].effects == ["reload a"]
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"


@pytest.mark.sweep
async def test_a_gateway_in_quarantine_while_penstock_repeats_a_reload_is_reloaded_once_it_is_returned(
    recorded: Recorded,
) -> None:
    """Revoked users got in there: the repeat ended well, and with it the search for who had missed it."""
    ill, away = recorded.world.gateways["gw-3"], recorded.world.gateways["gw-4"]
    await held_by_silence(recorded, ill, away)
    quarantined(recorded, "gw-3")
    for fake in (ill, away):
        fake.recover("observe")
    await recorded.reconcile()
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    await is_reloaded_once_returned(recorded, "gw-3")


@pytest.mark.sweep
async def test_a_gateway_in_quarantine_during_a_reload_is_reloaded_once_it_is_returned(
    recorded: Recorded,
) -> None:
    quarantined(recorded, "gw-3")
    await reload(recorded)
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"
    await is_reloaded_once_returned(recorded, "gw-3")


@pytest.mark.sweep
async def test_a_reload_of_what_has_changed_alone_ends_no_search_for_who_missed_the_reload_of_all(
    recorded: Recorded,
) -> None:
    """The timer that serves renewed certificates hid each day that a removed user was still let in."""
    away, renewed = recorded.world.gateways["gw-4"], recorded.world.gateways["gw-2"]
    await held_by_silence(recorded, away)
    renewed.unserved = ("certificate",)
    await reload(recorded, unserved=True)
    assert (await recorded.service.end_of("edge")).outcome is Outcome.PROMOTED
    away.recover("observe")
    await recorded.reconcile()
    await recorded.nothing_under_way()
    assert [fake.effects for fake in recorded.world.gateways.values()] == [
        ["reload a"],
        ["reload a", "reload a"],
        ["reload a"],
        ["reload a"],
    ]


@pytest.mark.sweep
async def test_a_host_that_cannot_keep_that_it_was_reloaded_is_named_and_asked_less_and_less_often(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full: it would be asked again in every minute, for ever."""
    full = recorded.world.gateways["gw-4"]
    monkeypatch.setattr(type(full), "reload_answered", property(lambda one: one.kept, _kept_but_by(full)))
    name = await reload(recorded)
    assert name is not None
    ended = await recorded.service.end_of("edge")
    assert ended.outcome is Outcome.HELD
    assert "gw-4 uses its host's present credentials, but its host cannot note that" in ended.reason
    await recorded.reconcile()
    await recorded.nothing_under_way()
    tries = len(full.effects)
    assert (await recorded.reconcile()).sentence == "every gateway is on its known-good"
    assert len(full.effects) == tries


def _kept_but_by(full: FakeGateway) -> Callable[[FakeGateway, str], None]:
    """Return what notes the last reload on every host but that of this gateway."""

    def keep(one: FakeGateway, change: str) -> None:
        one.kept = "" if one is full else change  # type: ignore[attr-defined]

    FakeGateway.kept = ""  # type: ignore[attr-defined]
    return keep


@pytest.mark.sweep
async def test_bad_credentials_are_taken_back_after_penstock_has_repeated_their_reload(
    recorded: Recorded,
) -> None:
    """One gateway was silent; once penstock had reloaded it, no name took back what the others had got."""
    service, world = recorded.service, recorded.world
    world.gateways["gw-4"].fail("observe", Unavailable("it does not answer"), times=100_000)
    plan = await service.plan_reload(world.fleet)
    name = await service.reload(world.fleet, plan, "ana", "new certificates")
    assert (await service.end_of("edge")).outcome is Outcome.HELD
    world.gateways["gw-4"].recover("observe")
    await recorded.reconcile()
    assert (await service.end_of("edge")).outcome is Outcome.PROMOTED
    repeat = recorded.ledger.history("edge")[0]
    assert (repeat.repeats, world.gateways["gw-4"].reload_answered) == (name, name)
    await service.roll_back(world.fleet, "ana", "no user gets in", of=name)
    assert (await service.end_of("edge")).reason == f"4 of 4 gateways use what they had before {name}"
    again = await service.roll_back(world.fleet, "ana", "no user gets in", of=name)
    assert not again.accepted
