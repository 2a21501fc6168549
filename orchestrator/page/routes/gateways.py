"""Gateways: those of a fleet, and one of them, as they were last looked at."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.routes.gateways import Gateway
from orchestrator.api.who import Serving
from orchestrator.page.render import rendered, rendered_aside
from orchestrator.page.session import Looking

router = APIRouter()

SHOWN_GATEWAYS = 200


@router.get("/fleets/{fleet}/gateways")
async def gateways(
    request: Request,
    fleet: Fleet,
    caller: Looking,
    service: Serving,
    after: Annotated[str, Query(max_length=63, pattern=r"^[a-z0-9.-]*$")] = "",
) -> Response:
    """Show the fleet's gateways as they were last seen, a page at a time."""
    found = await service.gateways(caller, fleet, after, SHOWN_GATEWAYS)
    more = found[-1].gateway if len(found) == SHOWN_GATEWAYS else None

    def known() -> dict[str, Any]:
        return {"fleet": fleet, "rows": [one.model_dump(mode="json") for one in found], "more": more}

    return await rendered_aside(request, "gateways.html", caller, known)


@router.get("/fleets/{fleet}/gateways/{gateway}")
async def gateway(
    request: Request, fleet: Fleet, gateway: Gateway, caller: Looking, service: Serving
) -> Response:
    """Show what one gateway said of itself last, and what can be done with it."""
    found = await service.gateway(caller, fleet, gateway)
    return rendered(request, "gateway.html", fleet=fleet, found=found.model_dump(mode="json"))
