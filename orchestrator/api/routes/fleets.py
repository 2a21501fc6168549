"""Fleets: which there are, how each stands, and what happens in it."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from orchestrator.api.disconnects import while_connected
from orchestrator.api.limits import AtOnce
from orchestrator.api.long_answers import answered
from orchestrator.api.texts import LONGEST_RELEASE
from orchestrator.api.who import Asking, Serving, recognised
from orchestrator.service.doctor import Finding
from orchestrator.service.drains import Drains
from orchestrator.service.drift import Drift
from orchestrator.service.service import FleetStatus
from orchestrator.service.surveys import Surveyed
from policies.model.change import HistoryRow
from policies.model.errors import PenstockError
from policies.model.people import Grants
from policies.model.status import EventRow
from policies.model.value import Name, Value
from policies.model.way_back import RollbackAsked, RollbackPreview
from policies.traffic import Traffic

router = APIRouter(tags=["fleets"])

PING_SECONDS = 15
LOOK_SECONDS = 1.0
RECOGNISED_SECONDS = 5.0
"""How long a stream goes on for somebody whose token was revoked meanwhile."""

PAGE = 200

Fleet = Annotated[Name, Path(description="a fleet's name")]


class WhoAmI(Value):
    """How the service recognises whoever asks."""

    person: str
    machine: bool
    roles: Grants


class FleetList(Value):
    """The fleets where whoever asks has a role."""

    fleets: tuple[str, ...]


class History(Value):
    """Changes of a fleet, the newest first, and where the next page begins."""

    changes: tuple[HistoryRow, ...]
    before: str | None = None


class Findings(Value):
    """What a look at the installation has found."""

    findings: tuple[Finding, ...]


class EventPage(Value):
    """Events of a fleet or a change, the oldest first, and after which number the next page begins."""

    events: tuple[EventRow, ...]
    after: int

    @classmethod
    def of(cls, events: tuple[EventRow, ...], after: int) -> "EventPage":
        """Return the page of these events, which come after that number."""
        return cls(events=events, after=events[-1].id if events else after)


@router.get("/whoami")
async def whoami(caller: Asking) -> WhoAmI:
    """Say who asks, and what they are on which fleet."""
    return WhoAmI(person=caller.person, machine=caller.machine, roles=caller.grants)


@router.get("/doctor")
async def examine(caller: Asking, service: Serving) -> Findings:
    """Look at what everything rests on, and say what is well and what is not."""
    return Findings(findings=await service.examine(caller))


@router.get("/fleets")
async def fleets(caller: Asking, service: Serving) -> FleetList:
    """List the fleets where whoever asks has a role."""
    return FleetList(fleets=await service.fleets(caller))


@router.get("/fleets/{fleet}")
async def status(request: Request, fleet: Fleet, caller: Asking, service: Serving) -> FleetStatus:
    """Say what is happening, to how many users, why, what comes next and what can be done."""
    return await while_connected(request, service.status(caller, fleet))


@router.get("/fleets/{fleet}/rollback")
async def rollback_preview(
    request: Request,
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    to: Annotated[str | None, Query(max_length=LONGEST_RELEASE, description="an earlier release")] = None,
    of: Annotated[Name | None, Query(description="a reload or change of settings by name")] = None,
    settings: Annotated[bool, Query(description="the last change of settings, and no release")] = False,
    force: Annotated[bool, Query(description="end the change under way first")] = False,
) -> RollbackPreview:
    """Return which release each gateway will serve after a rollback asked for now; nothing is done."""
    asked = RollbackAsked(to=to, of=of, settings=settings, force=force)
    return await while_connected(request, service.rollback_preview(caller, fleet, asked))


@router.get("/fleets/{fleet}/changes", response_model=History)
async def history(
    request: Request,
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    before: Annotated[str | None, Query(max_length=63, description="a change: only older ones")] = None,
) -> Response:
    """List the fleet's changes and what is left of each today, the newest first."""

    async def find() -> History:
        rows = await service.history(caller, fleet, limit, before)
        return History(changes=rows, before=rows[-1].name if len(rows) == limit else None)

    return await answered(request, caller, find)


@router.get("/fleets/{fleet}/gateways", response_model=Surveyed)
async def gateways(request: Request, fleet: Fleet, caller: Asking, service: Serving) -> Response:
    """Report what runs on every gateway and how many sessions it has, with the time of the survey.

    Callers who may start changes have every gateway asked now. All others share a survey: of 30 s, and of
    100 ms for each gateway where that is longer.
    """
    return await answered(request, caller, partial(service.sessions, caller, fleet))


@router.get("/fleets/{fleet}/traffic")
async def traffic(fleet: Fleet, caller: Asking, service: Serving) -> Traffic:
    """Say how many sessions live on which release, as the fleet's metrics count them."""
    return await service.traffic(caller, fleet)


@router.get("/fleets/{fleet}/drains", response_model=Drains)
async def drains(request: Request, fleet: Fleet, caller: Asking, service: Serving) -> Response:
    """Show what drains, with the counts of the same survey as the list of gateways."""
    return await answered(request, caller, partial(service.drains, caller, fleet))


@router.get("/fleets/{fleet}/drift", response_model=Drift)
async def drift(request: Request, fleet: Fleet, caller: Asking, service: Serving) -> Response:
    """Name where gateways differ from the fleet's file, by the same survey as the list of gateways."""
    return await answered(request, caller, partial(service.drift, caller, fleet))


@router.get(
    "/fleets/{fleet}/events",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request,
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    last_event_id: Annotated[str, Header(max_length=18, pattern=r"^[0-9]*$")] = "",
) -> Response:
    """Give the fleet's events: a page of JSON, or a stream that goes on where the last one was lost."""
    begin = int(last_event_id) if last_event_id else after
    first = await service.events(caller, fleet, begin, PAGE)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return Response(EventPage.of(first, begin).model_dump_json(), media_type="application/json")

    streams: AtOnce = request.app.state.streams
    streams.refuse_another(caller.person)

    async def stream() -> AsyncIterator[ServerSentEvent]:
        found, last, asker, known_at = first, begin, caller, anyio.current_time()
        while True:
            for event in found:
                yield ServerSentEvent(event.model_dump_json(), event="event", id=str(event.id))
                last = event.id
            if len(found) < PAGE:
                await anyio.sleep(LOOK_SECONDS)
            try:
                if anyio.current_time() - known_at >= RECOGNISED_SECONDS:
                    asker, known_at = await recognised(request, service), anyio.current_time()
                found = await service.events(asker, fleet, last, PAGE)
            except PenstockError:
                return  # whoever lost a role or a token hears why when they ask again

    return EventSourceResponse(streams.counted(caller.person, stream()), ping=PING_SECONDS)
