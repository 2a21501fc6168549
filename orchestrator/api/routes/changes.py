"""Changes: one of them, running or ended, and what happened in it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from orchestrator.api.routes.fleets import PAGE, EventPage
from orchestrator.api.who import Asking, Serving
from orchestrator.service.service import ChangeView
from policies.model.value import Name

router = APIRouter(tags=["changes"])

ChangeName = Annotated[Name, Path(description="a change's name")]


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
