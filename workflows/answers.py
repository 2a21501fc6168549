"""What a gateway answers, or its cluster: it may be old, broken or taken over, and harms nobody else.

The engine decodes a result while it applies it to the workflow, and an answer that cannot be decoded
there stops all the gateways that the workflow looks after. So answers come as they are and are read here.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, get_type_hints

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    TimeoutError,  # noqa: A004 - the engine's, of a step
)

from policies.model.errors import BadInput
from policies.model.fleet import GatewayRef
from policies.model.instance import GatewayState
from workflows import steps
from workflows.failures import OF_A_CLUSTER

MOST_BYTES = 512 * 1024
"""Bytes that an answer may have: a piece of a snapshot takes 350 KiB at most, and the engine takes 2 MiB.

What is longer is not even read: one that is passed on would be more than the engine takes with others.
"""

CHECKED = b"json/plain"
"""The only encoding whose converter checks a value against the type of the step's answer."""

LATE = timedelta(seconds=15)
"""How much later than its time the end of a step is seen where neither the engine nor the worker was away."""

T = TypeVar("T")
GatewayStep = Callable[..., Awaitable[T]]


async def answer_of(gateway: GatewayRef, step: GatewayStep[T], patience: steps.Options, *order: object) -> T:
    """Ask the gateway's agent for a step and return its answer.

    A step whose time was over only while the engine or this worker was away is asked for once more: the
    agent may not have had the chance to answer.

    Raises:
        ActivityError: The step failed, or its answer is too long, cannot be read or speaks of another
            gateway (`BadAnswer`).
    """
    asked = workflow.now()
    try:
        raw = await _ask(gateway, step, patience, *order)
    except ActivityError as error:
        if not _is_late(error, workflow.now() - asked, patience):
            raise
        raw = await _ask(gateway, step, patience, *order)
    return read_answer(gateway, step, raw)


def _ask(
    gateway: GatewayRef, step: GatewayStep[T], patience: steps.Options, *order: object
) -> workflow.ActivityHandle[RawValue]:
    return workflow.start_activity(
        step.__name__,
        args=order,
        task_queue=gateway.task_queue,
        activity_id=steps.own_id(),
        result_type=RawValue,
        **patience,
    )


def _is_late(error: ActivityError, took: timedelta, patience: steps.Options) -> bool:
    """Return whether the step's time was over long before anybody could see it."""
    within = patience.get("schedule_to_close_timeout")
    return isinstance(error.cause, TimeoutError) and within is not None and took > within + LATE


def read_answer(gateway: GatewayRef, step: GatewayStep[T], raw: RawValue | None) -> T:
    """Return what the gateway answered to the step; raise as `answer_of` does."""
    name = step.__name__
    whose, what = f"its {'cluster' if name in OF_A_CLUSTER else 'agent'}'s answer", name.replace("_", " ")
    if raw is not None and raw.payload.ByteSize() > MOST_BYTES:
        raise bad_answer(name, f"{whose} is longer than any ({what})")
    try:
        answer: T = _read(step, raw)
    except BadInput as refused:
        raise bad_answer(name, f"{whose} cannot be read ({what}): {refused}") from None
    except Exception:  # noqa: BLE001 - whatever an answer does to its decoder is the gateway's fault
        raise bad_answer(name, f"{whose} cannot be read ({what})") from None
    state = getattr(answer, "state", answer)
    if isinstance(state, GatewayState) and state.gateway != gateway.name:
        raise bad_answer(name, f"its agent answers as {state.gateway}")
    return answer


def _read(step: GatewayStep[T], raw: RawValue | None) -> T:
    if raw is None:
        raise ValueError("no answer")
    found: T = workflow.payload_converter().from_payload(raw.payload, _answered_by(step))
    if raw.payload.metadata["encoding"] != CHECKED:  # bytes and nothing come as they are, of whatever type
        raise ValueError("no model")
    return found


@cache
def _answered_by(step: Callable[..., Any]) -> Any:
    """Return the type of the step's answer, with the bounds that it has."""
    return get_type_hints(step, include_extras=True)["return"]


def bad_answer(step: str, sentence: str, code: str = "BadAnswer") -> ActivityError:
    """Return the error of a step that was answered otherwise than it can be, or than it has to be."""
    error = ActivityError(
        sentence,
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type=step,
        activity_id="",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    error.__cause__ = ApplicationError(sentence, type=code, non_retryable=True)
    return error
