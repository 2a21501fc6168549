"""Failures as they travel through the engine: cut so that it keeps them whole, sealed where all else is."""

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


class Failures(DefaultFailureConverter):
    """Writes failures that the engine keeps whole; reads one without details that cannot be decoded.

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
        """Return the error, with its details where they can be decoded."""
        error = self._read(failure, payload_converter)
        if getattr(error, "message", "") != SEALED_MESSAGE:
            return error
        unread = Failure()
        unread.CopyFrom(failure)
        unread.ClearField("encoded_attributes")
        unread.message = UNREAD
        return self._read(unread, payload_converter)

    def _read(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        try:
            return super().from_failure(failure, payload_converter)
        except Exception:  # noqa: BLE001 - whatever the details do to their decoder
            bare = Failure()
            bare.CopyFrom(failure)
            bare.ClearField("encoded_attributes")
            for info in ("application_failure_info", "canceled_failure_info"):
                if bare.HasField(info):
                    getattr(bare, info).ClearField("details")
            if bare.HasField("timeout_failure_info"):
                bare.timeout_failure_info.ClearField("last_heartbeat_details")
            return super().from_failure(bare, payload_converter)


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
