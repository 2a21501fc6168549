"""Gateways that are left out by name, and how they come back into the fleet."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from orchestrator.service.standing import standing_of
from policies.model.change import NOT_ASKED, PENSTOCK, ChangeKind, Outcome, Phase, Quarantine
from policies.model.command import CommandKind
from policies.model.errors import BadInput, Conflict, Refused, Unavailable
from policies.model.instance import GatewayState
from policies.model.offer import Verb
from policies.model.plan import Strategy
from policies.model.plan_part import MOST_MEMBERS
from policies.model.status import ChangeStatus
from policies.model.value import digest_of
from policies.returns import waits
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded, blocked
from tests.workflows.test_settings import with_settings
from tests.workflows.world import (
    GATES,
    NEW,
    OLD,
    Running,
    World,
    fleet_of,
    in_phase,
    result_of,
    say,
    status_of,
    waiting_for,
    working,
)
from workflows import steps


def service_of(world: World) -> QuarantineService:
    return QuarantineService(ChangeService(world.client, world.book))


async def observed(world: World) -> Running:
    """Start an upgrade of the first gateway and wait until it is on trial."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    return rollout


async def test_a_plan_leaves_a_gateway_in_quarantine_alone_and_names_it(world: World) -> None:
    quarantine = service_of(world)
    said = await quarantine.leave_out(world.fleet, ("gw-2",), "ana", "its disk is ill")
    assert "until somebody returns it" in said
    assert "already" in await quarantine.leave_out(world.fleet, ("gw-2",), "ana", "its disk is ill")
    plan = await quarantine.service.plan(world.fleet, NEW, Strategy.CANARY, GATES, digest_of(b"trust"))
    assert {skip.gateway: skip.reason for skip in plan.skipped} == {"gw-2": "in quarantine: its disk is ill"}
    assert "gw-2" not in {name for wave in plan.waves for name in wave.gateways}


async def test_a_gateway_is_taken_in_again_only_once_it_is_seen_on_its_known_good(world: World) -> None:
    quarantine = service_of(world)
    await quarantine.leave_out(world.fleet, ("gw-2",), "ana", "its disk is ill")
    world.gateways["gw-2"].serve(NEW)
    returned = await quarantine.take_in(world.fleet, ("gw-2",), "ben", "new disk")
    assert returned.sentence == (
        "gw-2 stays in quarantine: it runs a release that is not its known-good 1.1.6; "
        "penstock brings it back within minutes, and returns the gateway by itself."
    )
    [left_out] = world.book.quarantined(world.fleet.name)
    assert (left_out.gateway, left_out.person) == ("gw-2", PENSTOCK)
    world.gateways["gw-2"].serve(OLD)
    returned = await quarantine.take_in(world.fleet, ("gw-2",), "ben", "new disk")
    assert returned.sentence == "gw-2 was seen on its known-good and takes part in changes again."
    assert world.book.quarantined(world.fleet.name) == ()
    with pytest.raises(Conflict, match="not in quarantine"):
        await quarantine.take_in(world.fleet, ("gw-2",), "ben", "new disk")


async def test_a_gateway_that_penstock_has_tried_for_hours_is_tried_within_a_minute_once_it_is_returned(
    world: World,
) -> None:
    quarantine, now = service_of(world), datetime.now(UTC)
    row = Quarantine(fleet="edge", gateway="gw-2", reason="refuses", person=PENSTOCK, since=now)
    world.book.set_quarantine(row)
    for number in range(1, 10):
        world.book.record_tries("edge", {"gw-2": True}, f"edge-{number}")
    world.gateways["gw-2"].serve(NEW)
    in_a_minute = now + timedelta(minutes=1, seconds=30)
    assert waits(world.book.quarantined("edge")[0], world.book.returns("edge")["gw-2"], in_a_minute)
    returned = await quarantine.take_in(world.fleet, ("gw-2",), "ben", "new disk")
    assert "penstock brings it back within minutes" in returned.sentence
    assert world.book.returns("edge") == {}
    assert not waits(world.book.quarantined("edge")[0], None, in_a_minute)


async def test_a_gateway_is_left_out_while_a_change_is_under_way_and_takes_no_part_in_the_next(
    world: World,
) -> None:
    quarantine, rollout = service_of(world), await observed(world)
    said = await quarantine.leave_out(world.fleet, ("gw-2",), "ana", "its disk is ill")
    assert said == (
        "gw-2 is left out of changes until somebody returns it. The change under way does not begin with it; "
        "what it has begun goes on."
    )
    assert [one.gateway for one in world.book.quarantined(world.fleet.name)] == ["gw-2"]
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def test_a_gateway_that_is_left_out_during_a_change_is_not_touched_by_it_whose_wave_it_is(
    world: World,
) -> None:
    """D1."""
    quarantine = service_of(world)
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3"))
    await in_phase(rollout, Phase.OBSERVING)
    await quarantine.leave_out(world.fleet, ("gw-3",), "ana", "its line card is being replaced")
    world.judge.says(HEALTHY)
    result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED
    assert result.aside == {"gw-3": "in quarantine by ana: its line card is being replaced"}
    assert world.gateways["gw-3"].effects == []
    assert world.book.known_good("edge")["gw-3"] == OLD
    assert world.serving()["gw-2"] == "1.3.0"


@pytest.mark.sweep
async def test_a_change_ends_without_a_dead_gateway_that_is_quarantined_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newcomer 6: nothing else of the wave is left."""
    monkeypatch.setitem(steps.LOOK, "schedule_to_close_timeout", timedelta(seconds=1))
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-2"].fail("observe", Unavailable("no power"), times=10_000)
    world.judge.says(HEALTHY)

    async def waits_for_the_dead() -> bool:
        status = await status_of(rollout)
        offered = [offer.gateway for offer in status.can_do if offer.verb is Verb.QUARANTINE]
        return status.why == "gw-2 does not answer" and offered == ["gw-2"]

    await until(waits_for_the_dead)
    await service_of(world).leave_out(world.fleet, ("gw-2",), "ana", "no power")
    result = await result_of(rollout)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-2"])
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
async def test_who_is_given_up_by_a_person_during_a_rollback_stays_out_until_a_person_takes_it_in(
    world: World,
) -> None:
    quarantine, rollout = service_of(world), await observed(world)
    world.gateways["gw-1"].fail("restore", Refused("gw-1: the disk is full"), times=10_000)
    world.judge.says(UNHEALTHY)
    await waiting_for(rollout, "gw-1")
    await quarantine.leave_out(world.fleet, ("gw-1",), "ana", "its disk is replaced tomorrow")
    assert (await result_of(rollout)).outcome is Outcome.ROLLBACK_INCOMPLETE
    [left_out] = world.book.quarantined(world.fleet.name)
    assert (left_out.gateway, left_out.person) == ("gw-1", "ana")


async def test_only_gateways_of_the_fleet_are_left_out_or_taken_in(world: World) -> None:
    quarantine = service_of(world)
    for ask in (quarantine.leave_out, quarantine.take_in):
        with pytest.raises(BadInput, match="has no gateway gw-99"):
            await ask(world.fleet, ("gw-99",), "ana", "why")


@pytest.mark.sweep
async def test_one_stranger_among_several_gateways_and_none_of_them_is_left_out(world: World) -> None:
    quarantine = service_of(world)
    with pytest.raises(BadInput, match=r"has no gateway gw-98, gw-99$"):
        await quarantine.leave_out(world.fleet, ("gw-1", "gw-98", "gw-99"), "ana", "no power")
    assert world.book.quarantined(world.fleet.name) == ()


@pytest.mark.sweep
async def test_of_several_gateways_that_return_those_that_may_take_part_do_and_the_others_are_named(
    world: World,
) -> None:
    quarantine = service_of(world)
    said = await quarantine.leave_out(world.fleet, ("gw-1", "gw-2", "gw-3"), "ana", "no power")
    assert said == ("3 gateways (gw-1, gw-2, gw-3) are left out of changes until somebody returns them.")
    world.gateways["gw-2"].serve(NEW)
    returned = await quarantine.take_in(world.fleet, ("gw-1", "gw-2", "gw-3", "gw-4"), "ben", "power is back")
    assert returned.sentence.startswith(
        "2 gateways were seen on their known-good and take part in changes again. "
        "1 of 3 stay in quarantine: gw-2: it runs a release that is not"
    )
    assert returned.sentence.endswith(" gw-4 is not in quarantine.")
    assert [*returned.stays] == ["gw-2"]
    assert [one.gateway for one in world.book.quarantined(world.fleet.name)] == ["gw-2"]
    world.gateways["gw-2"].serve(OLD)
    await quarantine.take_in(world.fleet, ("gw-2", "gw-2"), "ben", "power is back")
    assert world.book.quarantined(world.fleet.name) == ()


@pytest.mark.sweep
async def test_who_returns_is_looked_at_after_that_was_asked_for_however_far_apart_the_gateways_are(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=MOST_MEMBERS + 1))
    first, last = world.fleet.gateways[0].name, world.fleet.gateways[-1].name
    observe, answered = world.gateways[first].observe, asyncio.Event()

    async def answers() -> GatewayState:
        found = await observe()
        answered.set()
        return found

    monkeypatch.setattr(world.gateways[first], "observe", answers)
    async with working(world):
        quarantine = service_of(world)
        await quarantine.leave_out(world.fleet, (first, last), "ana", "no power")
        async with blocked(world.gateways[last], "observe") as late:
            looking = asyncio.create_task(quarantine.service.surveys.of(world.fleet))
            await asyncio.gather(late.wait(), answered.wait())
            world.gateways[first].serve(NEW)
            returned = await quarantine.take_in(world.fleet, (first, last), "ana", "power is back")
        await looking
    assert [*returned.stays] == [first]


@pytest.mark.sweep
async def test_whom_nobody_waits_for_any_more_is_left_out_and_no_stranger_is_said_to_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine, rollout = service_of(world), await observed(world)
    told = (await status_of(rollout)).model_copy(update={"waits_for": ("gw-1", "gw-gone")})

    async def as_it_was(_: str) -> ChangeStatus:
        return told

    monkeypatch.setattr(ChangeService, "status", lambda _, fleet: as_it_was(fleet))
    said = await quarantine.leave_out(world.fleet, ("gw-1", "gw-gone"), "ana", "no power")
    assert said == (
        "gw-gone is not waited for any more, and not of edge. gw-1 is left out of changes until somebody "
        "returns it. The change under way does not begin with it; what it has begun goes on."
    )
    assert [one.gateway for one in world.book.quarantined(world.fleet.name)] == ["gw-1"]
    await rollout.terminate("the test has seen it")


@pytest.mark.sweep
async def test_a_fleet_that_was_only_installed_says_what_it_is_on(world: World) -> None:
    world.book.add_release(OLD, source="http://repository", signers=(), manifest_json="{}")
    await ChangeService(world.client, world.book).surveys.of(world.fleet)
    standing = standing_of(world.fleet, world.book)
    assert (standing.versions, standing.taking, standing.gateways) == (("1.1.6",), 4, 4)
    assert [row.kind for row in world.book.history(world.fleet.name)] == [ChangeKind.INSTALL]


# --- a host that refuses the switch --------------------------------------------------------------


@pytest.fixture
def _soon_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has refused a switch after a second."""
    monkeypatch.setitem(steps.SWITCH, "schedule_to_close_timeout", timedelta(seconds=1))


async def refusing(world: World, step: str) -> Running:
    """Start an upgrade whose first host refuses that switch, and return it once that is reported."""
    world.gateways["gw-1"].fail(step, Unavailable("the steering table of gw-1 is locked"), times=10_000)
    rollout = await world.start(("gw-1", "gw-2"))

    async def is_told() -> bool:
        status = await status_of(rollout)
        return "the steering table of gw-1 is locked" in (status.needs_you or "")

    await until(is_told)
    return rollout


@pytest.mark.sweep
@pytest.mark.usefixtures("_soon_refused")
@pytest.mark.parametrize("step", ["start_trial", "make_permanent"])
async def test_a_host_that_refuses_the_switch_is_named_and_left_out_by_quarantine(
    world: World, step: str
) -> None:
    """Operators were not told, and could not go on without it."""
    rollout = await refusing(world, step)
    offered = (await status_of(rollout)).can_do
    assert [(one.verb, one.gateway) for one in offered] == [
        (Verb.QUARANTINE, "gw-1"),
        (Verb.HOLD, None),
        (Verb.ROLL_BACK, None),
    ]
    await service_of(world).leave_out(world.fleet, ("gw-1",), "ana", "its table is locked")
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (
        Outcome.PROMOTED,
        {"gw-1": "in quarantine by ana: its table is locked"},
    )
    await until(
        lambda: world.serving() == {"gw-1": "1.1.6", "gw-2": "1.3.0", "gw-3": "1.1.6", "gw-4": "1.1.6"}
    )
    assert world.book.known_good("edge")["gw-1"] == OLD


@pytest.mark.sweep
@pytest.mark.usefixtures("_soon_refused")
async def test_a_change_whose_host_refuses_the_switch_is_rolled_back_at_once(world: World) -> None:
    rollout = await refusing(world, "start_trial")
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
@pytest.mark.usefixtures("_soon_refused")
async def test_a_host_that_takes_the_switch_after_all_is_upgraded(world: World) -> None:
    rollout = await refusing(world, "start_trial")
    world.gateways["gw-1"].recover("start_trial")
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
@pytest.mark.parametrize("step", ["configure", "reload"])
async def test_a_gateway_quarantined_during_a_change_of_files_is_not_begun_with(
    recorded: Recorded, step: str
) -> None:
    """The answer to its quarantine says so, and it was changed all the same."""
    gateways, service, fleet = recorded.world.gateways, recorded.service, recorded.world.fleet
    plan = service.plan_reload(fleet) if step == "reload" else service.plan_settings(with_settings(recorded))
    async with blocked(gateways["gw-1"], step) as taken:
        await service.reload(fleet, await plan, "ana", "new files")
        await taken.wait()
        said = await QuarantineService(service).leave_out(fleet, ("gw-3", "gw-4"), "ana", "a disk dies")
    result = await service.end_of("edge")
    assert "The change under way does not begin with them" in said
    assert (gateways["gw-3"].effects, gateways["gw-4"].effects) == ([], []), result.reason
    assert result.outcome is Outcome.HELD
    assert result.reason.startswith("2 of 4 gateways use ")
    assert "gw-3: in quarantine by ana: a disk dies" in result.reason
    assert NOT_ASKED not in result.reason  # they are asked once they are returned


@pytest.mark.sweep
async def test_no_wave_of_settings_begins_before_one_gateway_has_them(recorded: Recorded) -> None:
    """The first one alone is to show that they are good: in quarantine it shows nothing."""
    service, fleet = recorded.service, with_settings(recorded)
    plan = await service.plan_settings(fleet)
    await service_of(recorded.world).leave_out(fleet, ("gw-1",), "ana", "its disk dies")
    await service.reload(fleet, plan, "ana", "new name server")
    result = await service.end_of("edge")
    assert result.outcome is Outcome.REFUSED
    assert result.reason.endswith(NOT_ASKED)
    assert not any(fake.effects for fake in recorded.world.gateways.values())
