"""Releases: what may be rolled out, who signed it and what it changes."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.api.routes.plans import ReleaseName
from orchestrator.api.who import Serving
from orchestrator.page.render import rendered, rendered_aside
from orchestrator.page.session import Looking

router = APIRouter()


@router.get("/releases")
async def releases(request: Request, caller: Looking, service: Serving) -> Response:
    """List the releases, the newest first."""
    found = await service.releases(caller)

    def known() -> dict[str, Any]:
        return {"rows": [row.model_dump(mode="json") for row in found]}

    return await rendered_aside(request, "releases.html", caller, known)


@router.get("/releases/{release}")
async def release(request: Request, release: ReleaseName, caller: Looking, service: Serving) -> Response:
    """Show one release with its evidence."""
    row = await service.release(caller, release)
    return rendered(request, "release.html", row=row.model_dump(mode="json"))
