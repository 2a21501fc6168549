"""Drills on spare gateways: only in a window, beside no change, on a gateway without users; and kept."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from orchestrator.engine.drill_schedules import drill_of, end_drills, have_drills
from policies.model.change import PENSTOCK, ChangeKind, ChangeOpening
from policies.model.drill import DrillOutcome
from policies.model.errors import Refused
from policies.model.spare import SpareDrills
from tests.workflows.engine import Engine
from tests.workflows.world import World, fleet_of, working
from workflows.spare_drill import SpareDrill, SpareDrillOrder
from workflows.steps import CONTROL_QUEUE


@pytest.fixture
async def spare(server: Engine) -> AsyncIterator[World]:
    """A fleet whose second gateway has no users, in an open window."""
    fleet = fleet_of("edge", size=2).model_copy(update={"drills": SpareDrills(spare=("gw-2",))})
    async with working(World.made(await server.client(), fleet)) as made:
        made.opening.is_open = True
        yield made


async def rehearse(world: World) -> str:
    said: str = await world.client.execute_workflow(
        SpareDrill.run,
        SpareDrillOrder(fleet=world.fleet.name),
        id=f"{drill_of(world.fleet.name)}/{uuid4().hex}",
        task_queue=CONTROL_QUEUE,
    )
    return said


async def test_a_drill_is_rehearsed_once_in_its_window_changes_nothing_and_is_kept(spare: World) -> None:
    before = spare.serving()
    assert await rehearse(spare) == "way-open on gw-2: passed"
    (run,) = spare.book.drill_runs(None, 10)
    assert (run.person, run.report.place, run.outcome) == (PENSTOCK, "edge.gw-2", DrillOutcome.PASSED)
    assert [one.what for one in run.report.steps] == [
        "the gateway answers",
        "a login and pings pass",
        "steering is read back",
    ]
    assert spare.serving() == before
    assert (await rehearse(spare)).startswith("nothing is due: way-open on gw-2 was rehearsed at")
    assert len(spare.book.drill_runs(None, 10)) == 1


async def test_nothing_begins_outside_of_a_window_or_beside_a_change(spare: World) -> None:
    spare.opening.is_open = False
    assert await rehearse(spare) == "way-open on gw-2 is due, and waits for a patch window"
    spare.opening.is_open = True
    opening = ChangeOpening(
        fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", key="1", release="1.4.1"
    )
    change = spare.book.open_change(opening)
    assert await rehearse(spare) == f"way-open on gw-2 is due, and waits for the end of {change}"
    assert spare.book.drill_runs(None, 10) == ()


async def test_a_gateway_with_users_or_an_unknown_count_of_them_is_left_alone(spare: World) -> None:
    gateway = spare.gateways["gw-2"]
    serving = gateway.target
    assert serving is not None
    gateway.uncountable.add(serving)
    assert "has users, or nobody knows" in await rehearse(spare)
    assert spare.book.drill_runs(None, 10) == ()


@pytest.mark.sweep
async def test_a_gateway_that_refuses_is_a_failed_drill_with_its_reason(spare: World) -> None:
    spare.gateways["gw-2"].fail("probe", Refused("no login is possible"))
    assert await rehearse(spare) == "way-open on gw-2: failed"
    (run,) = spare.book.drill_runs(None, 10)
    assert run.report.failure is not None
    assert "no login is possible" in run.report.failure


@pytest.mark.sweep
async def test_the_schedule_stands_while_the_fleet_names_spare_gateways(spare: World) -> None:
    assert await have_drills(spare.client, spare.fleet)
    assert await have_drills(spare.client, spare.fleet)
    handle = spare.client.get_schedule_handle(drill_of("edge"))
    await handle.trigger()
    bare = spare.fleet.model_copy(update={"drills": None})
    assert not await have_drills(spare.client, bare)
    await end_drills(spare.client, "edge")
