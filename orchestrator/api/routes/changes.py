"""Changes: one of them, running or ended, and what happened in it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from orchestrator.api.routes.fleets import PAGE, EventPage
from orchestrator.api.who import Asking, Serving
from orchestrator.service.decisions import DecisionRow, DecisionView
from orchestrator.service.telling import ChangeView
from policies.model.value import Name, Value

router = APIRouter(tags=["changes"])

ChangeName = Annotated[Name, Path(description="a change's name")]


Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="a decision, counted from the change's first")]


class DecisionPage(Value):
    """Decisions of a change, the oldest first, and after which number the next page begins."""

    decisions: tuple[DecisionRow, ...]
    after: int


@router.get("/changes/{change}")
async def change(change: ChangeName, caller: Asking, service: Serving) -> ChangeView:
    """Show one change with its five sentences and the last decision's evidence, also long after its end."""
    return await service.change(caller, change)


@router.get("/changes/{change}/events")
async def events(
    change: ChangeName,
    caller: Asking,
    service: Serving,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> EventPage:
    """Give what happened in one change, the oldest first, a page at a time."""
    return EventPage.of(await service.events_of_change(caller, change, after, PAGE), after)


@router.get("/changes/{change}/decisions")
async def decisions(
    change: ChangeName,
    caller: Asking,
    service: Serving,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> DecisionPage:
    """List what the gates of one change decided, the oldest first, a page at a time."""
    rows = await service.decisions(caller, change, after, PAGE)
    return DecisionPage(decisions=rows, after=rows[-1].number if rows else after)


@router.get("/changes/{change}/decisions/{number}")
async def decision(change: ChangeName, number: Number, caller: Asking, service: Serving) -> DecisionView:
    """Show one decision with its readings, the rules that made it, and what would have changed it."""
    return await service.decision(caller, change, number)
