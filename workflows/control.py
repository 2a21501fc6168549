"""Steps of the control plane: how each is asked for, said once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.ledger import EventEntry, LedgerActivities
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


class Notices:
    """Entries of which operators are notified: each is written to its end, in order, whoever is cancelled.

    A notice that is cut off may have been sent, and nobody would settle it.
    """

    def __init__(self) -> None:
        """Write nothing yet."""
        self._turn = asyncio.Lock()
        self._under_way = set[asyncio.Task[bool]]()

    @property
    def are_written(self) -> bool:
        """Whether no entry is being written now: a run that ends before would lose it."""
        return not self._under_way

    async def tell(self, entry: EventEntry) -> bool:
        """Write the entry after those before it; return whether it was written."""
        writing = asyncio.create_task(self._write(entry))
        self._under_way.add(writing)
        writing.add_done_callback(self._under_way.discard)
        return await asyncio.shield(writing)

    async def _write(self, entry: EventEntry) -> bool:
        async with self._turn:
            return await note(LedgerActivities.record_event, entry, entry.action)


async def read_part(plan: Digest, key: PartKey) -> Part:
    """Return one part of a plan."""
    return await record(PlanActivities.read_part, PartQuery(plan=plan, key=key))
