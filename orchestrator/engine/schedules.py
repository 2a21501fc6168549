"""Schedules: what the engine does by the clock; made again when the engine has lost them."""

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
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.engine.sealing import sealing_keys
from orchestrator.engine.task_timeout import task_within
from policies.model.fleet import Fleet
from workflows.reconcile import Reconcile, ReconcileOrder
from workflows.steps import CONTROL_QUEUE

PACE = timedelta(seconds=60)
"""Between two looks for changes that were left alone."""

LOOK = timedelta(seconds=20)
"""Between two looks at whether the schedule is still there."""

_log = logging.getLogger(__name__)


def reconcile_of(fleet: str) -> str:
    """Return the id of the fleet's reconcile schedule."""
    return f"reconcile/{fleet}"


async def have_reconcile(client: Client, fleet: Fleet) -> bool:
    """Ensure the fleet's reconcile schedule; return whether it was missing, which makes it run at once."""
    try:
        await client.create_schedule(reconcile_of(fleet.name), _schedule(fleet), trigger_immediately=True)
    except ScheduleAlreadyRunningError:
        return False
    return True


async def end_reconcile(client: Client, fleet: str) -> None:
    """Remove the schedule of a fleet that is described no more."""
    await end_schedule(client, reconcile_of(fleet))


async def end_schedule(client: Client, schedule: str) -> None:
    """Ensure that there is no schedule of that id."""
    try:
        await client.get_schedule_handle(schedule).delete()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def tell_reconcile(client: Client, fleet: Fleet) -> None:
    """Ensure that the schedule knows the fleet as its file describes it now."""
    schedule = client.get_schedule_handle(reconcile_of(fleet.name))
    await schedule.update(lambda _: ScheduleUpdate(schedule=_schedule(fleet)))


async def keep_reconciling(client: Client, fleets: Callable[[], Iterable[Fleet]]) -> None:
    """Ensure every fleet's schedule for as long as this runs, also after the engine has lost its database.

    A fleet whose file goes away is not looked at any more. What the engine keeps of a schedule is sealed
    anew when the keys change, or it could not be opened once the old one is taken away.
    """
    told: dict[str, object] = {}
    while True:
        try:
            found = {fleet.name: fleet for fleet in await asyncio.to_thread(fleets)}
            for name in told.keys() - found.keys():
                await end_reconcile(client, name)
                del told[name]
            for name, fleet in found.items():
                wanted = (len(fleet.gateways), sealing_keys(client.data_converter))
                if not await have_reconcile(client, fleet) and told.get(name) != wanted:
                    await tell_reconcile(client, fleet)
                told[name] = wanted
        except RPCError as error:
            _log.warning("the engine does not answer (%s); asked again in %s", error.message, LOOK)
        await asyncio.sleep(LOOK.total_seconds())


def _schedule(fleet: Fleet) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            Reconcile.run,
            ReconcileOrder(fleet=fleet.name),
            id=reconcile_of(fleet.name),
            task_queue=CONTROL_QUEUE,
            execution_timeout=timedelta(minutes=2),
            task_timeout=task_within(fleet),
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=PACE)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=PACE),
    )
