"""The doctor's findings: what is well in the whole installation, and what is not."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.api.who import Serving
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking
from orchestrator.page.stale_while_revalidate import StaleWhileRevalidate
from orchestrator.service.doctor import Finding
from policies.model.people import EVERY_FLEET

router = APIRouter()

SHOWN_WELL = 40

SHOWN_WAITING = 20
"""Notices that no sink took yet: more have the same cause."""


@router.get("/doctor")
async def examine(request: Request, caller: Looking, service: Serving) -> Response:
    """Say what is well and what is not; of many fleets that takes a while, and the page comes again."""
    examined: StaleWhileRevalidate[tuple[Finding, ...]] = request.app.state.examined
    seen_alike = (await service.fleets(caller), caller.roles(EVERY_FLEET))
    found = await examined.find(seen_alike, partial(service.examine, caller))
    said = [one.model_dump(mode="json") for one in found.value or ()]
    waiting = await service.notices.rows(caller, SHOWN_WAITING, open_only=True)
    notices = [one.model_dump(mode="json") for one in waiting]
    known: dict[str, Any] = {"taken": found.at, "again": found.again, "findings": said, "notices": notices}
    return rendered(request, "doctor.html", shown_well=SHOWN_WELL, **known)
