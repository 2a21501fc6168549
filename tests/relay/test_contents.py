"""The relay hands on what agents report so that every worker reads it: known fields, few levels, bounded."""

import secrets
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import (
    RecordActivityTaskHeartbeatRequest,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)

from orchestrator.engine.failures import MOST_OF_A_CAUSE, MOST_OF_A_MESSAGE
from orchestrator.enrolment.names import Certified
from orchestrator.relay.calls import Calls
from orchestrator.relay.contents import MOST_OF_A_TYPE, MOST_OF_ITS_PAYLOADS
from orchestrator.relay.task_tokens import TaskTokens
from tests.workflows.hostile_calls import (
    COMPLETED,
    FAILED,
    cancelled,
    completed,
    nested,
    of_unknown_category,
    plain,
    refused,
    stored_elsewhere,
    with_endless_delay,
    with_unknown_timeout_as_cause,
)

WHOSE = Certified("edge", "gw-3", "abc", datetime.now(UTC), datetime.now(UTC) + timedelta(days=1))
TOKENS = TaskTokens([secrets.token_bytes(32)])
CALLS = Calls("default", TOKENS)
ENDLESS_GROUPS = b"\xfb\x01" * 90 + b"\xfc\x01" * 90
"""A field that nobody knows, with ninety levels of itself in it."""


def handed_on(method: str, sent: bytes) -> bytes:
    marked = RespondActivityTaskFailedRequest(task_token=TOKENS.mark(b"task", WHOSE.task_queue))
    return CALLS.outgoing(method, marked.SerializeToString() + sent, WHOSE).body


def failure_of(failure: Failure, behind: bytes = b"") -> Failure:
    sent = RespondActivityTaskFailedRequest(failure=Failure.FromString(failure.SerializeToString() + behind))
    return RespondActivityTaskFailedRequest.FromString(handed_on(FAILED, sent.SerializeToString())).failure


def result_of(sent: bytes) -> Payloads:
    return RespondActivityTaskCompletedRequest.FromString(handed_on(COMPLETED, sent)).result


def test_an_honest_failure_is_handed_on_as_it_is() -> None:
    honest = refused()
    honest.stack_trace = "in a file"
    honest.application_failure_info.details.payloads.append(plain(b'{"epoch":7}'))
    metadata = {"encoding": b"binary/penstock-sealed", "penstock-key/one": b"wrapped"}
    honest.encoded_attributes.CopyFrom(Payload(metadata=metadata, data=b"sealed"))
    honest.cause.message = "the disk is full"
    honest.cause.application_failure_info.type = "OSError"
    assert failure_of(honest) == honest


def test_a_failure_is_handed_on_with_one_cause_and_as_an_error_of_the_agents_own() -> None:
    for hostile in (nested(95), cancelled(), with_unknown_timeout_as_cause(), with_endless_delay()):
        found = failure_of(hostile)
        assert found.message == hostile.message
        assert not found.cause.HasField("cause")
        for one in (found, found.cause):
            assert one.WhichOneof("failure_info") in ("application_failure_info", None)
            assert not one.application_failure_info.HasField("next_retry_delay")
    assert failure_of(of_unknown_category()) == refused()
    assert RespondActivityTaskFailedRequest.FromString(handed_on(FAILED, b"")).HasField("failure")


def test_a_failure_is_handed_on_no_longer_than_an_honest_one_can_be() -> None:
    long = "\N{SNOWMAN}" * 30_000
    failure = Failure(message=long, stack_trace=long, source=long)
    failure.application_failure_info.type = long
    failure.application_failure_info.details.payloads.append(plain(long.encode()))
    failure.encoded_attributes.data = long.encode()
    failure.cause.message = long
    found = failure_of(failure)
    assert found.message == long[: MOST_OF_A_MESSAGE // 3]
    assert found.cause.message == long[: MOST_OF_A_CAUSE // 3]
    assert found.application_failure_info.type == long[: MOST_OF_A_TYPE // 3]
    assert found.ByteSize() < 4_096 < MOST_OF_ITS_PAYLOADS


def test_fields_that_nobody_knows_are_not_handed_on() -> None:
    assert failure_of(refused(), ENDLESS_GROUPS) == refused()
    payload = plain().SerializeToString() + ENDLESS_GROUPS
    body = completed(Payload.FromString(payload)).SerializeToString()
    assert result_of(body) == Payloads(payloads=[plain()])
    assert b"\xfb\x01" not in handed_on(COMPLETED, body + ENDLESS_GROUPS)


def test_a_result_or_heartbeat_is_one_payload_of_a_known_encoding_or_none() -> None:
    assert result_of(completed(plain(), plain()).SerializeToString()) == Payloads()
    assert result_of(completed(stored_elsewhere()).SerializeToString()) == Payloads(payloads=[plain()])
    for encoding in (b"json/external-storage-reference", b"json/protobuf", b"binary/protobuf"):
        hostile = Payload(metadata={"encoding": encoding, "messageType": b"x"}, data=b"{}")
        hostile.external_payloads.add(size_bytes=1)
        assert result_of(completed(hostile).SerializeToString()) == Payloads(payloads=[Payload(data=b"{}")])
        beat = RecordActivityTaskHeartbeatRequest(details=Payloads(payloads=[hostile]))
        last = RespondActivityTaskCanceledRequest(details=Payloads(payloads=[hostile]))
        for sent in (beat, last):
            method = sent.DESCRIPTOR.name.removesuffix("Request")
            found = type(sent).FromString(handed_on(method, sent.SerializeToString()))
            assert found.details == Payloads(payloads=[Payload(data=b"{}")])
