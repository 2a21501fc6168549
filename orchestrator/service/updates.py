"""Giving a workflow a command and waiting for its answer, also while it continues as new."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from policies.model.command import CommandReceipt
from policies.model.errors import Conflict, NotOrdered, Unavailable
from policies.model.offer import Offer
from workflows.commands import Given

ANSWER = timedelta(seconds=5)
"""How long a person waits for an answer before something else is tried."""

SOON = timedelta(seconds=2)
"""How long a command waits for the change's own answer, before it is left with the engine for later."""

RUNS = 3
"""Runs that are asked; a history is cut after hundreds of events, not twice within an answer."""


def silence_of(error: RPCError) -> str:
    """Return in words how the engine did not answer; what its client says of it is for programmers."""
    if error.status is RPCStatusCode.UNAVAILABLE:
        return "the engine cannot be reached"
    if error.status in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
        return "the engine does not answer in time"
    return f"the engine does not answer ({error.status.name.lower().replace('_', ' ')})"


@contextmanager
def engine_answers() -> Iterator[None]:
    """Say in words that the engine does not answer.

    Raises:
        Unavailable: It does not, or not in time.
    """
    try:
        yield
    except RPCError as error:
        raise Unavailable(f"{silence_of(error)}; is it running, and a worker?") from error
    except RuntimeError as error:
        if not is_unconnected(error):
            raise
        raise Unavailable("the engine does not answer; is it running?") from error


def is_unconnected(error: RuntimeError) -> bool:
    """Return whether a client that connects with its first question, as in a list of workflows, could not."""
    return "client connect" in str(error)


@contextmanager
def before_any_order() -> Iterator[None]:
    """Report that nothing is stored where a peer does not answer in the body.

    Raises:
        NotOrdered: A peer does not answer.
    """
    try:
        yield
    except Unavailable as silent:
        raise NotOrdered(str(silent), *silent.offers) from silent


def refusal_in(error: WorkflowUpdateFailedError) -> Conflict:
    """Return the refusal of a workflow with what it says makes sense instead."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return Conflict(str(cause))
    offers = [Offer.model_validate(detail) for detail in cause.details if isinstance(detail, dict)]
    return Conflict(cause.message, *offers)


async def give(
    handle: WorkflowHandle[Any, Any], update: str, command: Given, within: timedelta = SOON
) -> CommandReceipt:
    """Return the workflow's answer; a command that met the end of one run is given to the next.

    The engine answers NOT_FOUND for a run that continued as new before it took the command. The
    command's id is the update's, so that no run carries it out twice.

    Raises:
        WorkflowUpdateFailedError: The command was refused.
        RPCError: NOT_FOUND when no run is under way; anything else when the engine does not answer.
        WorkflowUpdateRPCTimeoutOrCancelledError: No worker answered.
    """
    for _ in range(RUNS):
        try:
            receipt: CommandReceipt = await handle.execute_update(
                update, command, id=command.id, result_type=CommandReceipt, rpc_timeout=within
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            description = await handle.describe(rpc_timeout=SOON)
            if description.status is not WorkflowExecutionStatus.RUNNING:
                raise
        else:
            return receipt
    raise RPCError("every run that was asked had just ended", RPCStatusCode.UNAVAILABLE, b"")
