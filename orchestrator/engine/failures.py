"""Failures as they travel through the engine: cut so that it keeps them whole, sealed where all else is."""

from contextlib import suppress

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter

MOST_OF_A_MESSAGE, MOST_OF_A_CAUSE, MOST_OF_A_TRACE = 2_000, 500, 500
"""Bytes of what a failure says, of what its cause says, and of the trace of each.

The engine keeps 4 KiB of the last failure of a step that is tried again, and of a longer one only says
that it was too long (`limit.mutableStateActivityFailureSize.error`); the log has the whole trace.
"""

SEALED_MESSAGE = "sealed"
"""What a failure says to whoever has no key."""

UNREAD = (
    "what it says is sealed with a key that is not here: have the agent get its keys anew (penstock agent "
    "renew), or put the key back"
)
"""What is read in the place of words that cannot be opened."""


BAD_ANSWER = "BadAnswer"
"""The type of a failure that cannot be decoded, as of every other bad answer (`workflows/answers.py`)."""


class Failures(DefaultFailureConverter):
    """Writes failures that the engine keeps whole; reads one without what cannot be decoded of it.

    A workflow that cannot read why one gateway failed would look after none of the others any more.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Write the error with the end of its trace; an application failure has its nearest cause only."""
        super().to_failure(exception, payload_converter, failure)
        failure.message = cut(failure.message, slice(MOST_OF_A_MESSAGE))
        failure.stack_trace = cut(failure.stack_trace, slice(-MOST_OF_A_TRACE, None))
        if failure.HasField("application_failure_info") and failure.HasField("cause"):
            failure.cause.message = cut(failure.cause.message, slice(MOST_OF_A_CAUSE))
            failure.cause.ClearField("cause")

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """Return the error without what cannot be decoded of it; raises nothing, whatever an agent sent."""
        sent = Failure()
        sent.CopyFrom(failure)
        if sent.message == SEALED_MESSAGE:
            sent.message = UNREAD  # which gives way to the words where they can be opened
        for read in (sent, _without_details(sent)):
            with suppress(Exception):
                return super().from_failure(read, payload_converter)
        return super().from_failure(_plain(sent), payload_converter)


def _without_details(failure: Failure) -> Failure:
    bare = Failure()
    bare.CopyFrom(failure)
    for info in ("application_failure_info", "canceled_failure_info"):
        if bare.HasField(info):
            getattr(bare, info).ClearField("details")
    if bare.HasField("timeout_failure_info"):
        bare.timeout_failure_info.ClearField("last_heartbeat_details")
    return bare


def _plain(failure: Failure) -> Failure:
    """Return its words as a bad answer, without a cause or anything else that a decoder could refuse."""
    plain = Failure(message=failure.message)
    if failure.HasField("encoded_attributes"):
        plain.encoded_attributes.CopyFrom(failure.encoded_attributes)
    plain.application_failure_info.type = BAD_ANSWER
    plain.application_failure_info.non_retryable = True
    return plain


class SealedFailures(Failures):
    """Puts what a failure and its causes say among what is sealed: users' addresses may be in it."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Write the error with its words as a payload, which the codec seals like every other."""
        Failures().to_failure(exception, payload_converter, failure)
        part = failure
        while True:
            # Of an error that came from elsewhere the words of its causes are among its attributes still.
            if part.message != SEALED_MESSAGE:
                said = {"message": part.message, "stack_trace": part.stack_trace}
                part.encoded_attributes.CopyFrom(payload_converter.to_payloads([said])[0])
                part.message, part.stack_trace = SEALED_MESSAGE, ""
            if not part.HasField("cause"):
                return
            part = part.cause


def cut(text: str, kept: slice) -> str:
    """Return these bytes of the text, without the halves of characters."""
    return text.encode()[kept].decode(errors="ignore")
