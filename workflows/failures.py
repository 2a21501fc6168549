"""What went wrong, as the sentence an operator reads, and the errors that workflows raise themselves."""

from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    ServerError,
    TimeoutError,  # noqa: A004 - the engine's, of a step
)

from activities.placement import PlacementActivities
from policies.model.instance import NO_ANSWER
from policies.model.value import sentence

_WRAPPERS = (ActivityError, ChildWorkflowError, ServerError)
"""Of these only the cause says what went wrong; what is too long for the engine comes in a ServerError."""

OF_A_CLUSTER = frozenset(vars(PlacementActivities))
"""Steps of clusters by name; the others are those of gateways' agents."""

OF_A_STEP, OF_A_WORKFLOW = 500, 2_000
"""Characters that a sentence may have: a workflow's may name many gateways."""


def sentence_of(error: BaseException) -> str:
    """Return the innermost cause's sentence in a line: an ActivityError itself only says that one failed."""
    cause: BaseException = error
    step = "it"
    while isinstance(cause, (*_WRAPPERS, TimeoutError)) and cause.cause is not None:
        step = cause.activity_type if isinstance(cause, ActivityError) else step
        cause = cause.cause
    if isinstance(cause, TimeoutError):
        who, what = "cluster's driver" if step in OF_A_CLUSTER else "agent", step.replace("_", " ")
        return f"{NO_ANSWER} ({what}); is the {who} running, and does it reach the engine?"
    said = cause.message if isinstance(cause, FailureError) else str(cause)
    most = OF_A_STEP if isinstance(error, ActivityError) else OF_A_WORKFLOW
    return sentence(said, most) or type(cause).__name__


def code_of(error: BaseException) -> str:
    """Return the stable name of the innermost cause."""
    cause: BaseException = error
    while isinstance(cause, _WRAPPERS) and cause.cause is not None:
        cause = cause.cause
    return (cause.type or "") if isinstance(cause, ApplicationError) else type(cause).__name__


def stopped(sentence: str) -> ApplicationError:
    """Return the error with which a workflow stops going forward; never retried."""
    return ApplicationError(sentence, type="Stopped", non_retryable=True)
