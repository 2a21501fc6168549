"""Calls of an agent that is taken over: what it reports of its task breaks whoever decodes it carelessly."""

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import (
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)

FAILED, COMPLETED = "RespondActivityTaskFailed", "RespondActivityTaskCompleted"
Reported = RespondActivityTaskFailedRequest | RespondActivityTaskCompletedRequest


def refused() -> Failure:
    """Return the failure of an honest agent."""
    failure = Failure(message="no room")
    failure.application_failure_info.type = "Refused"
    failure.application_failure_info.non_retryable = True
    return failure


def nested(causes: int) -> Failure:
    """Return a failure with so many causes in each other: the engine's client reads a hundred levels."""
    failure = refused()
    inner = failure
    for _ in range(causes):
        inner = inner.cause
    inner.message = "x"
    return failure


def of_unknown_category() -> Failure:
    failure = refused()
    failure.application_failure_info.category = 99  # type: ignore[assignment]
    return failure


def with_unknown_timeout_as_cause() -> Failure:
    failure = refused()
    failure.cause.timeout_failure_info.timeout_type = 99  # type: ignore[assignment]
    return failure


def with_endless_delay() -> Failure:
    failure = refused()
    failure.application_failure_info.next_retry_delay.seconds = 2**62
    return failure


def cancelled() -> Failure:
    """Return what an engine reports of a step that its workflow has cancelled."""
    failure = Failure(message="cancelled")
    failure.canceled_failure_info.SetInParent()
    return failure


def failed(failure: Failure) -> RespondActivityTaskFailedRequest:
    return RespondActivityTaskFailedRequest(failure=failure)


def completed(*payloads: Payload) -> RespondActivityTaskCompletedRequest:
    return RespondActivityTaskCompletedRequest(result=Payloads(payloads=payloads))


def stored_elsewhere() -> Payload:
    """Return a payload that refers to external storage, which penstock has none of."""
    metadata = {"encoding": b"json/plain", "__temporal_external_storage_reference": b"true"}
    return Payload(metadata=metadata, data=b"1")


def plain(value: bytes = b"1") -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=value)
