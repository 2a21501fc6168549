"""What travels between orchestrators and agents of other versions is understood on both sides."""

import json
import time
import types
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import AwareDatetime, BaseModel, ValidationError
from temporalio import activity
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import (
    ActivityFailureInfo,
    ApplicationFailureInfo,
    Failure,
    TimeoutFailureInfo,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, ServerError
from temporalio.testing import ActivityEnvironment

from activities.failures import as_application_errors, epoch_seen
from activities.instances import InstanceActivities, RestoreOrder
from activities.steering import SteeringActivities
from orchestrator.engine.failures import SEALED_MESSAGE, UNREAD
from orchestrator.engine.sealing import data_converter
from policies.model.errors import Unavailable
from policies.model.release_tests import DnsName
from policies.model.value import Message, digest_of
from tests.drivers.gateway_lab import gateway, operation
from tests.fakes.cluster import FakeCluster
from tests.fakes.gateway import FakeGateway
from tests.workflows.hostile_calls import nested, of_unknown_category, with_endless_delay
from tests.workflows.world import OLD, cluster_steps, steps_on
from workflows.failures import code_of, sentence_of

FAKE = FakeGateway(gateway())
STEPS = [*steps_on(FAKE), *cluster_steps(FakeCluster("west", []))]
FIRST = Path(__file__).parent / "first_messages.json"
"""One example of every order and answer as the first agent that ignores unknown fields had them."""
PLAIN: dict[Any, Any] = {
    str: "edge-1",
    int: 2,
    float: 0.5,
    bool: True,
    datetime: datetime(2026, 1, 1, tzinfo=UTC),
    AwareDatetime: datetime(2026, 1, 1, tzinfo=UTC),
    timedelta: timedelta(seconds=90),
    IPv4Address: IPv4Address("192.0.2.1"),
    IPv4Network: IPv4Network("192.0.2.0/24"),
}


HOST = "edge-1.example"
"""The same of names that need a domain."""


def travelling() -> Iterator[tuple[str, Any]]:
    """Yield the name and type of every argument and answer of every step on a gateway or by its cluster."""
    for step in STEPS:
        hints = get_type_hints(step, include_extras=True)
        for name, hint in hints.items():
            yield f"{step.__name__}.{name}", hint


def example(hint: Any) -> Any:
    """Return a value of the type in which nothing is left out: every field, one item of each list."""
    origin, arguments = get_origin(hint), get_args(hint)
    made: Any
    if hint == DnsName:
        made = HOST
    elif origin is typing.Annotated:
        made = digest_of(b"example") if "sha256" in str(arguments[1:]) else example(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        made = example(next(argument for argument in arguments if argument is not type(None)))
    elif origin is tuple:
        every = arguments[:1] if arguments[-1] is ... else arguments
        made = tuple(example(argument) for argument in every)
    elif origin is dict:
        made = {example(arguments[0]): example(arguments[1])}
    elif issubclass(hint, Enum):
        made = next(iter(hint))
    elif issubclass(hint, BaseModel):
        fields = get_type_hints(hint, include_extras=True)
        made = hint(**{name: example(fields[name]) for name in hint.model_fields})
    else:
        made = PLAIN[hint]
    return made


def with_unknown(content: Any) -> Any:
    """Return the JSON with a field that nobody knows in every object of a message."""
    if isinstance(content, list):
        return [with_unknown(item) for item in content]
    if not isinstance(content, dict):
        return content
    grown = {key: with_unknown(value) for key, value in content.items()}
    names = {PLAIN[str], HOST} & content.keys()  # a mapping of names, not a message
    return grown if names else {**grown, "of_a_later_version": {"deep": [1]}}


def received(content: Any, hint: Any) -> Any:
    """Return what the other side's worker makes of it."""
    payload = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(content).encode())
    return pydantic_data_converter.payload_converter.from_payload(payload, hint)


def sent(value: Any) -> Any:
    return json.loads(pydantic_data_converter.payload_converter.to_payload(value).data)


CASES = [pytest.param(hint, id=name) for name, hint in travelling() if hint is not type(None)]


def models(hint: Any) -> Iterator[type[BaseModel]]:
    """Yield every model in the type, at any depth."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
        for part in get_type_hints(hint, include_extras=True).values():
            yield from models(part)
    for argument in get_args(hint):
        yield from models(argument)


@pytest.mark.parametrize("hint", CASES)
def test_fields_of_a_later_version_are_ignored_at_every_depth(hint: Any) -> None:
    value = example(hint)
    assert received(with_unknown(sent(value)), hint) == received(sent(value), hint)


ANSWERS = [
    pytest.param(hint, id=name.removesuffix(".return"))
    for name, hint in travelling()
    if name.endswith(".return") and name != "read_host_record.return"  # nothing is computed of its lines
]

HUGE: dict[type, tuple[Any, ...]] = {
    int: (10**400, -(10**400)),
    float: (1e300, -1e300, float("nan"), float("inf")),
    str: ("x" * 2**20,),
}
TIMES = ("9999-12-31T23:59:59Z", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "P999999999D", "-P9D")


def exaggerated(content: Any) -> Iterator[Any]:
    """Yield the JSON again and again, each time with one thing in it that no gateway can mean."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from ({**content, key: more} for more in exaggerated(value))
    elif isinstance(content, list):
        yield content * 10_000
        yield from ([more] for more in exaggerated(content[0]))
    else:
        yield from HUGE.get(type(content), ())
        is_a_time = isinstance(content, str) and content != PLAIN[str]
        yield from TIMES if is_a_time else ()


def is_taken(content: Any, hint: Any) -> bool:
    """Whether the JSON is an answer as it is: what is cut to a sentence is none."""
    try:
        return len(json.dumps(sent(received(content, hint)))) > len(json.dumps(content)) / 2
    except ValidationError:
        return False


@pytest.mark.sweep
@pytest.mark.parametrize("hint", ANSWERS)
def test_nothing_in_an_answer_is_too_large_to_compute_with(hint: Any) -> None:
    taken = [str(one)[:2000] for one in exaggerated(sent(example(hint))) if is_taken(one, hint)]
    assert taken == []


@pytest.mark.parametrize("hint", CASES)
def test_everything_that_travels_is_a_message(hint: Any) -> None:
    assert [model.__name__ for model in models(hint) if not issubclass(model, Message)] == []


def test_a_step_is_asked_for_by_the_name_of_its_function() -> None:
    """So `answer_of` asks, which takes an answer as it comes."""
    registered = [activity._Definition.must_from_callable(step).name for step in STEPS]
    assert registered == [step.__name__ for step in STEPS]


def test_the_safe_orders_are_among_the_steps() -> None:
    names = {name for name, _ in travelling()}
    assert {"fence_gateway.operation", "end_trial.operation", "restore_gateway.order"} <= names


@pytest.mark.parametrize(("name", "content"), sorted(json.loads(FIRST.read_text()).items()))
def test_what_the_first_agents_and_orchestrators_say_is_still_understood(name: str, content: Any) -> None:
    hints = dict(travelling())
    assert name in hints, f"{name} is gone, and agents still say it"
    received(content, hints[name])


async def test_a_fence_tells_the_orchestrator_the_epoch_that_it_has_to_exceed() -> None:
    fake = FakeGateway(gateway())
    fake.serve(OLD, "a")
    await fake.fence(operation("fence", rollout="other", epoch=77))
    steps: list[tuple[Callable[..., Any], Any]] = [
        (InstanceActivities(fake).restore_gateway, RestoreOrder(operation=operation("back"), release=OLD)),
        (SteeringActivities(fake).end_trial, operation("back")),
    ]
    for step, order in steps:
        with pytest.raises(ApplicationError) as refused:
            await ActivityEnvironment().run(step, order)
        assert (refused.value.type, refused.value.non_retryable) == ("Fenced", True)
        assert "epoch 77" in refused.value.message
        assert epoch_seen(await over_the_engine(refused.value)) == 77
    order = RestoreOrder(operation=operation("back", epoch=78), release=OLD)
    restored = await ActivityEnvironment().run(InstanceActivities(fake).restore_gateway, order)
    assert (restored.back, restored.state.epoch) == (True, 78)


async def over_the_engine(error: ApplicationError) -> ActivityError:
    """Return the error as a workflow meets it: through the failure converter, inside an ActivityError."""
    failure = Failure()
    await pydantic_data_converter.encode_failure(error, failure)
    outer = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="agent",
        activity_type="restore_gateway",
        activity_id="1",
        retry_state=None,
    )
    outer.__cause__ = await pydantic_data_converter.decode_failure(failure)
    return outer


@pytest.mark.parametrize(
    "failure",
    [
        Failure(
            message="full",
            application_failure_info=ApplicationFailureInfo(
                type="Refused", details=Payloads(payloads=[Payload(metadata={"encoding": b"x/y"})])
            ),
        ),
        Failure(message="full", encoded_attributes=Payload(metadata={"encoding": b"x/y"})),
        Failure(
            message="full",
            timeout_failure_info=TimeoutFailureInfo(
                last_heartbeat_details=Payloads(
                    payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b"{")]
                )
            ),
        ),
    ],
    ids=["details", "attributes", "heartbeat"],
)
async def test_a_failure_whose_details_cannot_be_decoded_is_read_without_them(failure: Failure) -> None:
    """One agent's failure would stop the workflow that looks after fifty gateways."""
    outer = Failure(
        message="Activity task failed", activity_failure_info=ActivityFailureInfo(), cause=failure
    )
    read = await data_converter(None).decode_failure(outer)
    assert isinstance(read, ActivityError)
    assert isinstance(read.cause, FailureError)
    assert read.cause.message == "full"


@pytest.mark.parametrize(
    "hostile",
    [
        of_unknown_category(),
        with_endless_delay(),
        Failure(message="no room", timeout_failure_info=TimeoutFailureInfo(timeout_type=99)),  # type: ignore[arg-type]
        Failure(message="no room", activity_failure_info=ActivityFailureInfo(retry_state=99)),  # type: ignore[arg-type]
    ],
    ids=["category", "delay", "timeout", "retry state"],
)
async def test_a_failure_that_cannot_be_decoded_is_a_bad_answer(hostile: Failure) -> None:
    hostile.cause.message = "which is not read either"
    outer = Failure(
        message="Activity task failed", activity_failure_info=ActivityFailureInfo(), cause=hostile
    )
    read = await data_converter(None).decode_failure(outer)
    assert isinstance(read, ActivityError)
    assert isinstance(read.cause, ApplicationError)
    assert (read.cause.type, read.cause.non_retryable, read.cause.cause) == ("BadAnswer", True, None)
    assert (sentence_of(read), code_of(read)) == ("no room", "BadAnswer")


async def test_causes_without_end_are_read_in_no_time() -> None:
    """Each of them was read twice for its own, and so for those below it."""
    failure = nested(22)
    for one in causes_of(failure):
        one.message = SEALED_MESSAGE
    began = time.monotonic()
    read = await data_converter(None).decode_failure(failure)
    assert sentence_of(read) == UNREAD
    assert time.monotonic() - began < 5


def causes_of(failure: Failure) -> Iterator[Failure]:
    while failure.HasField("cause"):
        yield failure
        failure = failure.cause


async def test_a_failure_is_kept_whole_by_the_engine_however_deep_it_was() -> None:
    """Of a longer one the engine only says `Failure exceeds size limit.`: nobody learns why a step waits."""

    def dig(depth: int) -> None:
        if depth:
            try:
                dig(depth - 1)
            except Unavailable as error:
                raise Unavailable("gw-3 does not answer: " + "\N{SNOWMAN}" * 10_000) from error
        raise Unavailable("nobody is there")

    with pytest.raises(ApplicationError) as failed, as_application_errors():
        dig(40)
    failure = Failure()
    await data_converter(None).encode_failure(failed.value, failure)
    assert failure.ByteSize() < 4_096
    assert failure.cause.stack_trace.endswith("* 10_000) from error\n")
    read = await data_converter(None).decode_failure(failure)
    assert sentence_of(read).startswith("gw-3 does not answer")


def test_a_failure_that_the_engine_has_cut_still_says_why() -> None:
    """The engine puts what it could keep of an older agent's failure below a sentence of its own."""
    cut = ServerError("Failure exceeds size limit.")
    cut.__cause__ = ApplicationError("gw-3 does not answer", type="Unavailable")
    assert (sentence_of(cut), code_of(cut)) == ("gw-3 does not answer", "Unavailable")


@pytest.mark.parametrize("epoch", [-1, 2**53, 10**30, "77"])
async def test_an_epoch_that_there_cannot_be_is_none(epoch: object) -> None:
    refused = ApplicationError("no", {"epoch": epoch}, type="Fenced")
    assert epoch_seen(await over_the_engine(refused)) is None


def test_other_errors_tell_no_epoch() -> None:
    assert epoch_seen(ApplicationError("no", type="Refused")) is None
    assert epoch_seen(ValueError("no")) is None
    assert epoch_seen(ApplicationError("of an older agent", type="Fenced")) is None
