"""Steps of the control plane: how each is asked for, said once."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.plans import PartQuery, PlanActivities
from policies.model.plan_part import Part, PartKey
from policies.model.value import Digest
from workflows import steps
from workflows.failures import sentence_of

E = TypeVar("E")
T = TypeVar("T")
Step = Callable[[Any, E], Awaitable[T]]


async def ask(step: Step[E, T], entry: E, patience: steps.Options = steps.NOTE) -> T:
    """Return the step's answer; ActivityError when there is none in that time."""
    return await workflow.execute_activity_method(
        step, entry, task_queue=steps.CONTROL_QUEUE, activity_id=steps.own_id(), **patience
    )


async def record(step: Step[E, T], entry: E) -> T:
    """Return the step's answer, tried until there is one."""
    return await ask(step, entry, steps.RECORD)


async def note(step: Step[E, T], entry: E, what: str) -> bool:
    """Write something down that nothing depends on; return whether it was written."""
    try:
        await ask(step, entry)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("%s not written to the ledger: %s", what, sentence_of(error))
        return False
    return True


async def read_part(plan: Digest, key: PartKey) -> Part:
    """Return one part of a plan."""
    return await record(PlanActivities.read_part, PartQuery(plan=plan, key=key))
