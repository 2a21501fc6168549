"""Children: how a workflow starts others, waits for many of them, and tells them what happens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

O = TypeVar("O")  # noqa: E741 - an order
T = TypeVar("T")
Run = Callable[[Any, O], Awaitable[T]]

NAMED = 50
"""Gateways of which a result says why they failed; more are counted."""

FINISHED_WITHIN = timedelta(seconds=2)
"""How long a change that is stopped waits for the step that a gateway has begun, to know how it ended."""

PARTS_AT_ONCE = 12
"""Six hundred gateways: at a hundred steps a second each is asked long before its question expires.

What an engine is asked at once it answers in turn, so that of 6,000 steps asked together each task of a
workflow, and each command of a person, waited for most of the others.
"""

TURN_LASTS = timedelta(seconds=8)
"""After which the next part begins, whatever has become of one that has its turn."""


async def guarded(
    run: Run[O, T], order: O, workflow_id: str, *, reports: bool = False
) -> ChildWorkflowHandle[Any, T]:
    """Start a child that is cancelled with this workflow.

    Nobody waits for it then: the fence, not the child's obedience, makes the way back safe. A child that
    `reports` returns what it has done by then, and its handle is done only after that.
    """
    kind = ChildWorkflowCancellationType
    return await workflow.start_child_workflow(
        run,
        order,
        id=workflow_id,
        parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        cancellation_type=kind.WAIT_CANCELLATION_COMPLETED if reports else kind.TRY_CANCEL,
    )


async def ended_of(tasks: Mapping[str, "asyncio.Task[T]"], within: timedelta) -> dict[str, T]:
    """Return what steps under way that are not to be cut short return within that time, by gateway."""
    with suppress(TimeoutError):
        await workflow.wait_condition(lambda: all(task.done() for task in tasks.values()), timeout=within)
    for task in tasks.values():
        task.cancel()
    ended = {name: task for name, task in tasks.items() if task.done() and not task.cancelled()}
    return {name: task.result() for name, task in ended.items() if task.exception() is None}


async def left_behind(run: "Run[O, Any] | str", order: O, workflow_id: str) -> bool:
    """Start a child that outlives this workflow; return False when one of that id runs already."""
    try:
        await workflow.start_child_workflow(
            run,
            order,
            id=workflow_id,
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def in_parts(run: Run[O, T], orders: Mapping[str, O], *, in_turns: bool = False) -> list[T]:
    """Run a child for each order, named after its key; the next begins when one under way has ended.

    Or `in_turns`, when the turn of one is over: who is silent in one part delays nobody of the others.
    """
    turns = asyncio.Semaphore(PARTS_AT_ONCE)

    async def in_turn(name: str, order: O) -> T:
        async with turns:
            child = await workflow.start_child_workflow(
                run,
                order,
                id=f"{workflow.info().workflow_id}/{name}",
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            )
            if not in_turns:
                return await child
            with suppress(TimeoutError):
                await workflow.wait_condition(child.done, timeout=TURN_LASTS)
        return await child

    return await asyncio.gather(*[in_turn(name, order) for name, order in orders.items()])


async def reported_by_parts(run: Run[O, T], orders: Mapping[str, O]) -> list[T]:
    """Run a child for each order, as `in_parts` does; once cancelled return what those that began report."""
    turns = asyncio.Semaphore(PARTS_AT_ONCE)

    async def in_turn(name: str, order: O) -> T:
        async with turns:
            child = f"{workflow.info().workflow_id}/{name}"
            return await (await guarded(run, order, child, reports=True))

    parts = [asyncio.create_task(in_turn(name, order)) for name, order in orders.items()]
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*parts)
    return [part.result() for part in parts if not part.cancelled()]


def merged(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what all parts say of gateways; no gateway is in two of them."""
    return {name: why for part in found for name, why in sorted(part.items())}


def first_named(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what parts say of the first gateways by name: no result grows with the fleet."""
    return dict(sorted(merged(found).items())[:NAMED])


async def tell_all(workflows: Iterable[str], signal: str) -> None:
    """Signal many workflows side by side, in this order: each signal alone takes a step of its own."""
    await asyncio.gather(*[tell(one, signal) for one in workflows])


async def tell(workflow_id: str, signal: str, *arguments: object) -> bool:
    """Signal a workflow; return False where it has just ended, and needs to hear nothing."""
    receiver = workflow.get_external_workflow_handle(workflow_id)
    return await sent(partial(receiver.signal, signal, args=arguments))


async def sent(send: Callable[[], Awaitable[None]]) -> bool:
    """Send a signal; return False where its receiver has just ended, and needs to hear nothing.

    A cancelled caller ends at once, and the signal goes on. The SDK would revoke it, also where its outcome
    has arrived in the same task, and fails or hangs there, now and in each replay: the engine's library has
    forgotten that signal. The caller would go on, too, for it would get the outcome in place of its end.
    """
    begun = False

    async def sending() -> None:
        nonlocal begun
        begun = True
        await send()

    task = asyncio.create_task(sending())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not begun:  # nothing may follow the end of a workflow
            task.cancel()
        raise
    except FailureError:
        return False
    return True
