"""Drills: which failures were rehearsed when, and whether users were safe in time."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from orchestrator.api.who import Serving
from orchestrator.charts.drills import drill_chart
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking
from orchestrator.words.drills import STANDINGS, came_to, row_line

router = APIRouter()

LISTED = 10
"""Runs of a drill that are listed; its chart has more of them."""

LOOKS = {"failed": "wrong", "over_budget": "wrong", "never": "doubtful", "passed": "well"}
"""How what a drill stands at is coloured, beside its word: as the doctor colours findings."""


@router.get("/drills")
async def drills(request: Request, caller: Looking, service: Serving) -> Response:
    """Show how it stands with each drill, what needs somebody first."""
    rows = [row.model_dump(mode="json") for row in await service.drills.standings(caller)]
    for row in rows:
        if (past := row["past"]) is not None:
            chart = drill_chart(row["name"], past["points"], row["budget"])
            row["chart"] = Markup(chart)  # noqa: S704 - escaped there
        row["line"] = row_line(row)
    return rendered(
        request, "drills.html", rows=rows, listed=LISTED, looks=LOOKS, standings=STANDINGS, came_to=came_to
    )
