"""Schedules of drills on spare gateways: they wake a workflow, and decide nothing."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError

from orchestrator.engine.schedules import LOOK, end_schedule
from orchestrator.engine.sealing import sealing_keys
from orchestrator.engine.task_timeout import task_within
from policies.model.fleet import Fleet
from workflows.spare_drill import SpareDrill, SpareDrillOrder
from workflows.steps import CONTROL_QUEUE

WAKES_EVERY = timedelta(minutes=15)
"""A window is hours long; whoever is due in it hears of it within this time."""

_log = logging.getLogger(__name__)


def drill_of(fleet: str) -> str:
    """Return the id of the fleet's schedule of drills."""
    return f"drill/{fleet}"


async def have_drills(client: Client, fleet: Fleet) -> bool:
    """Ensure a schedule for a fleet that names spare gateways, and none for others; return whether it has."""
    if fleet.drills is None:
        await end_drills(client, fleet.name)
        return False
    try:
        await client.create_schedule(drill_of(fleet.name), _schedule(fleet))
    except ScheduleAlreadyRunningError:
        return True
    return True


async def end_drills(client: Client, fleet: str) -> None:
    """Ensure that nothing wakes drills of the fleet."""
    await end_schedule(client, drill_of(fleet))


async def keep_drilling(client: Client, fleets: Callable[[], Iterable[Fleet]]) -> None:
    """Ensure every fleet's schedule for as long as this runs, also after the engine has lost its database.

    What the engine keeps of a schedule is sealed anew when the keys change.
    """
    told: dict[str, object] = {}
    while True:
        try:
            found = {fleet.name: fleet for fleet in await asyncio.to_thread(fleets)}
            for name in told.keys() - found.keys():
                await end_drills(client, name)
                del told[name]
            for name, fleet in found.items():
                wanted = (fleet.drills is None, sealing_keys(client.data_converter))
                if told.get(name, wanted) != wanted:
                    await end_drills(client, name)
                if fleet.drills is not None or told.get(name) != wanted:
                    await have_drills(client, fleet)
                told[name] = wanted
        except RPCError as error:
            _log.warning("the engine does not answer (%s); asked again in %s", error.message, LOOK)
        await asyncio.sleep(LOOK.total_seconds())


def _schedule(fleet: Fleet) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            SpareDrill.run,
            SpareDrillOrder(fleet=fleet.name),
            id=drill_of(fleet.name),
            task_queue=CONTROL_QUEUE,
            execution_timeout=timedelta(minutes=5),
            task_timeout=task_within(fleet),
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=WAKES_EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=WAKES_EVERY),
    )
