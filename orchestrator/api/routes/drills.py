"""Drills: which failures were rehearsed when, by whom, and whether users were safe in time."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from orchestrator.api.once import Once
from orchestrator.api.who import Asking, Serving
from policies.model.drill import DrillReport, DrillRow, DrillRun
from policies.model.value import Name, Value

router = APIRouter(tags=["drills"])

MOST_RUNS = 200


class Drills(Value):
    """How it stands with each drill, what needs somebody first, and what was rehearsed, the newest first."""

    drills: tuple[DrillRow, ...]
    runs: tuple[DrillRun, ...]


@router.get("/drills")
async def drills(
    caller: Asking,
    service: Serving,
    drill: Annotated[Name | None, Query(description="only the runs of this one")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_RUNS, description="so many runs at most")] = 50,
) -> Drills:
    """Say how it stands with each drill, and list the newest runs."""
    return Drills(
        drills=await service.drills.standings(caller), runs=await service.drills.runs(caller, drill, limit)
    )


@router.post("/drills", response_model=DrillRun, status_code=201)
async def record(report: DrillReport, once: Once) -> Response:
    """Keep what was seen in a drill; what it came to is decided here, by its numbers."""

    async def work() -> DrillRun:
        return await once.service.drills.record(once.caller, report)

    return await once.answer(work, 201)
