"""Windows and freezes of a fleet: when waves may start, in its own time and in UTC."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Serving
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking
from orchestrator.words.windows import freeze_rows, opening_rows, window_rows

router = APIRouter()


@router.get("/fleets/{fleet}/windows")
async def windows(request: Request, fleet: Fleet, caller: Looking, service: Serving) -> Response:
    """Show when waves of the fleet may start, and what is frozen by whom."""
    found = (await service.windows.of(caller, fleet)).model_dump(mode="json")
    return rendered(
        request,
        "windows.html",
        found=found,
        windows=window_rows(found),
        openings=opening_rows(found),
        freezes=freeze_rows(found),
    )
