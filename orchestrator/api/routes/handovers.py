"""Hand-overs: one person asks another to take a fleet, who says whether they have it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.once import Once
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Asking, Serving
from policies.model.handover import Handover, HandoverEnd, Note
from policies.model.value import Value

router = APIRouter(tags=["handovers"])

MOST_HANDOVERS = 200


class HandoverAsked(Value):
    """Who is to take a fleet, and what they ought to know."""

    to: Annotated[str, Field(min_length=1, max_length=63)]
    note: Note = ""


class HandoverAnswer(Value):
    """What becomes of the hand-over that is open."""

    end: Annotated[
        HandoverEnd, Field(description="accepted or declined by who is asked, withdrawn by who asks")
    ]


class HandoverList(Value):
    """The fleet's hand-overs, the newest first."""

    handovers: tuple[Handover, ...]


@router.get("/fleets/{fleet}/handovers")
async def handovers(
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=MOST_HANDOVERS, description="so many at most")] = 50,
) -> HandoverList:
    """List who handed the fleet over to whom, and how long that took."""
    return HandoverList(handovers=await service.handovers.listed(caller, fleet, limit))


@router.post("/fleets/{fleet}/handovers", response_model=Handover, status_code=201)
async def begin(fleet: Fleet, asked: HandoverAsked, once: Once) -> Response:
    """Ask somebody to take the fleet; until they accept they are not on duty."""

    async def work() -> Handover:
        return await once.service.handovers.begin(once.caller, fleet, asked.to, asked.note, once.key)

    return await once.answer(work, 201)


@router.post("/fleets/{fleet}/handovers/answer", response_model=Handover)
async def answer(fleet: Fleet, said: HandoverAnswer, once: Once) -> Response:
    """Accept, decline or withdraw the hand-over that is open."""

    async def work() -> Handover:
        return await once.service.handovers.end(once.caller, fleet, said.end)

    return await once.answer(work)
