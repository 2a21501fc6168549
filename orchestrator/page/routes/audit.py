"""The audit record: who did what."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from orchestrator.api.who import Serving
from orchestrator.page.render import rendered_aside
from orchestrator.page.session import Looking

router = APIRouter()

SHOWN_ENTRIES = 100


@router.get("/audit")
async def audit(
    request: Request,
    caller: Looking,
    service: Serving,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """Show who did what, the newest first, a page at a time."""
    found = await service.audit.newest_entries(caller, before, SHOWN_ENTRIES)

    def known() -> dict[str, Any]:
        rows = [row.model_dump(mode="json") for row in found]
        return {"rows": rows, "more": len(rows) == SHOWN_ENTRIES}

    return await rendered_aside(request, "audit.html", caller, known)
