"""Notices: what was sent, what waits, what a sink that asks by itself has not had, and who has a page."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.once import Once
from orchestrator.api.who import Asking, Serving
from policies.model.notice import Delivery, NoticeRow
from policies.model.value import Moment, Name, Value

router = APIRouter(tags=["notices"])

MOST = 500
Sink = Annotated[Name, Path(description="a sink's name in notices.yaml")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="so many at most")]
Key = Annotated[str, Field(min_length=1, max_length=200)]


class SinkView(Value):
    """How one sink takes what it is told."""

    sink: str
    waiting: int = Field(description="notices that are due and were not delivered")
    oldest: Moment | None = Field(default=None, description="since when the first of them waits")
    failing: int = Field(description="those that were tried in vain")
    given_up: int
    error: str = ""


class NoticeList(Value):
    """What was sent and what waits, the newest first, and how the sinks take it."""

    notices: tuple[NoticeRow, ...]
    sinks: tuple[SinkView, ...]


class Outbox(Value):
    """What a sink has not had yet, the oldest first."""

    deliveries: tuple[Delivery, ...]


class Passed(Value):
    """What a sink has had."""

    keys: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MOST, fail_fast=True)]


class PassedOn(Value):
    """How many of them were not known to be delivered."""

    new: int


class Acknowledgement(Value):
    """Which notice somebody has, so that nobody else is woken."""

    key: Key


@router.get("/notices")
async def notices(
    caller: Asking,
    service: Serving,
    limit: Limit = 100,
    undelivered: Annotated[bool, Query(description="only what waits or was given up")] = False,
) -> NoticeList:
    """List what was sent and what waits, of fleets that whoever asks may look at."""
    rows = await service.notices.rows(caller, limit, open_only=undelivered)
    health = await service.notices.sinks(caller)
    sinks = tuple(SinkView(sink=name, **one._asdict()) for name, one in sorted(health.items()))
    return NoticeList(notices=rows, sinks=sinks)


@router.get("/notices/outbox/{sink}")
async def outbox(sink: Sink, caller: Asking, service: Serving, limit: Limit = 100) -> Outbox:
    """Hand over what this sink has not had yet; it is handed over again until it is said to be delivered."""
    return Outbox(deliveries=await service.notices.outbox(caller, sink, limit))


@router.post("/notices/outbox/{sink}/delivered")
async def delivered(sink: Sink, passed: Passed, caller: Asking, service: Serving) -> PassedOn:
    """Take note of what this sink has had; a repeat changes nothing."""
    return PassedOn(new=await service.notices.delivered(caller, sink, passed.keys))


class Tested(Value):
    """What a sink's receiver answered to a test."""

    sink: str
    said: str


@router.post("/notices/sinks/{sink}/test", response_model=Tested)
async def test(sink: Sink, once: Once) -> Response:
    """Tell this sink of a test, and say what its receiver answered."""

    async def work() -> Tested:
        return Tested(sink=sink, said=await once.service.notices.test(once.caller, sink))

    return await once.answer(work)


@router.post("/notices/acknowledge", response_model=NoticeRow)
async def acknowledge(asked: Acknowledgement, once: Once) -> Response:
    """Take note that whoever asks has it: nobody else is woken."""

    async def work() -> NoticeRow:
        return await once.service.notices.acknowledge(once.caller, asked.key)

    return await once.answer(work)
