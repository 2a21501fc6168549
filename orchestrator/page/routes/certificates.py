"""Certificates of a fleet's agents, those that need somebody first."""

from itertools import groupby
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.api.routes.certificates import After
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Serving
from orchestrator.page.render import rendered_aside
from orchestrator.page.session import Looking
from orchestrator.words.certificates import STATES, certificate_line, certificates_line, mended_by

router = APIRouter()

SHOWN_CERTIFICATES = 100


@router.get("/fleets/{fleet}/certificates")
async def certificates(
    request: Request, fleet: Fleet, caller: Looking, service: Serving, after: After = None
) -> Response:
    """Show how the certificates of the fleet's agents stand, a page at a time."""
    found = await service.certificates.of(caller, fleet, after, SHOWN_CERTIFICATES)
    begun = after is not None

    def known() -> dict[str, Any]:
        dumped = found.model_dump(mode="json")
        rows = ((one, certificate_line(one), mended_by(fleet, one)) for one in dumped["certificates"])
        groups = [(state, list(of)) for state, of in groupby(rows, key=lambda row: row[0]["state"])]
        line = certificates_line(dumped)
        return {"found": dumped, "line": line, "groups": groups, "states": STATES, "begun": begun}

    return await rendered_aside(request, "certificates.html", caller, known)
