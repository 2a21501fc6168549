"""What went wrong, as the sentence an operator reads, and the errors that workflows raise themselves."""

from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    TimeoutError,  # noqa: A004 - the engine's, of a step
)


def sentence_of(error: BaseException) -> str:
    """Return the innermost cause's sentence: an ActivityError itself only says that one failed."""
    cause: BaseException = error
    step = "it"
    while isinstance(cause, ActivityError | ChildWorkflowError | TimeoutError) and cause.cause is not None:
        step = cause.activity_type.replace("_", " ") if isinstance(cause, ActivityError) else step
        cause = cause.cause
    if isinstance(cause, TimeoutError):
        return f"no answer in time ({step}); is the agent running, and does it reach the engine?"
    if isinstance(cause, FailureError):
        return cause.message or type(cause).__name__
    return str(cause) or type(cause).__name__


def code_of(error: BaseException) -> str:
    """Return the stable name of the innermost cause."""
    cause: BaseException = error
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    return (cause.type or "") if isinstance(cause, ApplicationError) else type(cause).__name__


def stopped(sentence: str) -> ApplicationError:
    """Return the error with which a workflow stops going forward; never retried."""
    return ApplicationError(sentence, type="Stopped", non_retryable=True)
