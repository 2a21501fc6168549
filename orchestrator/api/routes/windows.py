"""Windows and freezes of a fleet: when waves may start, and what people freeze."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, Field, model_validator
from starlette.responses import Response

from orchestrator.api.once import Once
from orchestrator.api.routes.commands import Why
from orchestrator.api.routes.fleets import Fleet
from orchestrator.api.who import Asking, Serving
from orchestrator.service.windows import Checked, Windows
from policies.model.value import Name, Value
from policies.model.windows import Freeze, KeptFreeze, Local
from policies.model.zones import Place

router = APIRouter(tags=["windows"])

MOST_CHARACTERS = 100_000
"""Of a calendar that is sent; a larger one lies beside the fleet's file."""

FreezeName = Annotated[Name, Path(description="a freeze's name")]


class FreezeAsked(Value):
    """A time that is to be frozen."""

    name: Name
    begins: Local
    ends: Local
    tz: Place
    reason: Why

    @model_validator(mode="after")
    def _ends_later(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError(f"it ends at {self.ends}, not after {self.begins}; write the later time last")
        return self


class CalendarAsked(Value):
    """A calendar whose events are to be frozen."""

    name: Name
    calendar: str = Field(min_length=1, max_length=MOST_CHARACTERS, description="in the form of RFC 5545")
    tz: Place
    reason: Why


class RemovalAsked(Value):
    """Why a freeze is removed."""

    reason: Why


class Removed(Value):
    """A freeze that is no more."""

    name: Name


@router.get("/fleets/{fleet}/windows")
async def windows(fleet: Fleet, caller: Asking, service: Serving) -> Windows:
    """Say when waves of the fleet may start: now, and from now on; what is frozen, and by whom."""
    return await service.windows.of(caller, fleet)


@router.get("/fleets/{fleet}/windows/check")
async def check(
    fleet: Fleet,
    caller: Asking,
    service: Serving,
    at: Annotated[AwareDatetime | None, Query(description="the moment, now without one")] = None,
) -> Checked:
    """Say whether waves of the fleet may start at a moment."""
    moment: datetime | None = at
    return await service.windows.check(caller, fleet, moment)


@router.post("/fleets/{fleet}/windows/freezes", status_code=201, response_model=KeptFreeze)
async def add(fleet: Fleet, asked: FreezeAsked, once: Once) -> Response:
    """Freeze a time; a change that is under way holds at its next safe point."""

    async def work() -> KeptFreeze:
        freeze = Freeze(name=asked.name, begins=asked.begins, ends=asked.ends, tz=asked.tz)
        return await once.service.windows.add(once.caller, fleet, freeze, asked.reason)

    return await once.answer(work, 201)


@router.post("/fleets/{fleet}/windows/freezes/import", status_code=201, response_model=KeptFreeze)
async def import_calendar(fleet: Fleet, asked: CalendarAsked, once: Once) -> Response:
    """Freeze the events of a calendar, of the next 400 days."""

    async def work() -> KeptFreeze:
        freeze = Freeze(name=asked.name, ics=f"{asked.name}.ics", tz=asked.tz)
        return await once.service.windows.add(once.caller, fleet, freeze, asked.reason, asked.calendar)

    return await once.answer(work, 201)


@router.post("/fleets/{fleet}/windows/freezes/{name}/remove", response_model=Removed)
async def remove(fleet: Fleet, name: FreezeName, asked: RemovalAsked, once: Once) -> Response:
    """Freeze the fleet no more then; freezes of the fleet's file are removed there."""

    async def work() -> Removed:
        await once.service.windows.remove(once.caller, fleet, name, asked.reason)
        return Removed(name=name)

    return await once.answer(work)
