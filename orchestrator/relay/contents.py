"""What an agent reports of its task, made anew: a worker that cannot decode it could go on with nothing.

It becomes part of the history of a workflow that looks after fifty gateways. The worker's client ends when a
history has more levels of messages than it reads, and repeats the workflow's task for ever when a payload
refers to external storage or when a result is several payloads. So known fields are copied, and no others.
"""

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure

from orchestrator.engine.failures import MOST_OF_A_CAUSE, MOST_OF_A_MESSAGE, MOST_OF_A_TRACE, cut
from orchestrator.engine.sealing import ENCODING, WRAPPED

ENCODINGS = (b"json/plain", ENCODING)
"""How agents encode their values. Another encoding is dropped, so that nothing reads the payload."""

MOST_OF_A_TYPE = 200
"""Bytes of the name of an error."""

MOST_OF_ITS_PAYLOADS = 16 * 1024
"""Bytes of each payload of a failure; an honest failure has less than 4 KiB in all."""


def value(reported: Payloads) -> Payloads:
    """Return the one payload of a result or a heartbeat; none where there are several."""
    one = reported.payloads if len(reported.payloads) == 1 else ()
    return Payloads(payloads=map(_payload, one))


def failure(reported: Failure) -> Failure:
    """Return the failure as an application error with at most one cause.

    An agent that reports a cancellation or a timeout of the engine's own would end more than its step.
    """
    made = _error(reported, MOST_OF_A_MESSAGE)
    if reported.HasField("cause"):
        made.cause.CopyFrom(_error(reported.cause, MOST_OF_A_CAUSE))
    return made


def _error(reported: Failure, most: int) -> Failure:
    of, made = reported.application_failure_info, Failure()
    made.message = cut(reported.message, slice(most))
    made.stack_trace = cut(reported.stack_trace, slice(-MOST_OF_A_TRACE, None))
    made.application_failure_info.type = cut(of.type, slice(MOST_OF_A_TYPE))
    made.application_failure_info.non_retryable = of.non_retryable
    if reported.HasField("encoded_attributes") and _is_short(reported.encoded_attributes):
        made.encoded_attributes.CopyFrom(_payload(reported.encoded_attributes))
    if of.HasField("details") and _is_short(of.details):
        made.application_failure_info.details.CopyFrom(value(of.details))
    return made


def _payload(reported: Payload) -> Payload:
    kept = {name: reported.metadata[name] for name in reported.metadata if name.startswith(WRAPPED)}
    encoding = reported.metadata.get("encoding", b"")
    return Payload(
        metadata=kept | ({"encoding": encoding} if encoding in ENCODINGS else {}), data=reported.data
    )


def _is_short(reported: Payload | Payloads) -> bool:
    return reported.ByteSize() <= MOST_OF_ITS_PAYLOADS
