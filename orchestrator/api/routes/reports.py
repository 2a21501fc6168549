"""Reports: one change told whole, what its cause was, and what is to be done about it."""

from collections.abc import Callable
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.long_answers import JSON, answered, as_json
from orchestrator.api.once import Once
from orchestrator.api.routes.changes import ChangeName
from orchestrator.api.texts import LONGEST_CAUSE, LONGEST_REASON, TEXT
from orchestrator.api.who import Asking, Serving
from orchestrator.reporting.render import as_html, as_markdown
from orchestrator.service.service import Service
from policies.model.follow_up import Cause, FollowUp
from policies.model.people import Caller, PersonName
from policies.model.value import Name, Value
from policies.reporting.report import ChangeReport

router = APIRouter(tags=["reports"])

Number = Annotated[int, Path(ge=1, le=1000, description="the follow-up's number in its change")]


class Form(StrEnum):
    """How a report is answered."""

    JSON = "json"
    HTML = "html"
    MARKDOWN = "markdown"


MEDIA = {Form.HTML: "text/html", Form.MARKDOWN: "text/markdown"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""What a report may do in a browser: show itself."""


class CauseAsked(Value):
    """What was found to be the cause."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_CAUSE, pattern=TEXT)]


class FollowUpAsked(Value):
    """What is to be done, by whom, until the end of which day."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, pattern=TEXT)]
    owner: PersonName
    due: date


class FollowUps(Value):
    """What is still to be done, what is due first before the others."""

    follow_ups: tuple[FollowUp, ...]


@router.get(
    "/changes/{change}/report",
    response_model=ChangeReport,
    responses={200: {"content": {media: {"schema": {"type": "string"}} for media in MEDIA.values()}}},
)
async def report(
    request: Request,
    change: ChangeName,
    caller: Asking,
    service: Serving,
    form: Annotated[
        Form | None, Query(alias="format", description="in place of what the header Accept says")
    ] = None,
) -> Response:
    """Tell one change whole, good or bad: as JSON, as HTML in one file, or as Markdown."""
    chosen = form or _accepted(request.headers.get("accept", ""))
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return await reported(request, change, caller, service, chosen, {} if chosen is Form.JSON else headers)


async def reported(  # the parts of an answer
    request: Request, change: str, caller: Caller, service: Service, form: Form, headers: dict[str, str]
) -> Response:
    """Return the report in this form, with these headers."""
    work = partial(service.reports.report, caller, change)
    media = MEDIA.get(form, JSON)
    return await answered(request, caller, work, _MAKE[form], media_type=media, headers=headers)


def _html(report: ChangeReport) -> bytes:
    return as_html(report.model_dump(mode="json")).encode()


def _markdown(report: ChangeReport) -> bytes:
    return as_markdown(report.model_dump(mode="json")).encode()


_MAKE: dict[Form, Callable[[ChangeReport], bytes]] = {
    Form.JSON: as_json,
    Form.HTML: _html,
    Form.MARKDOWN: _markdown,
}


def _accepted(accept: str) -> Form:
    """Return the first form that whoever asks names; JSON where none is named."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    forms = {media: form for form, media in MEDIA.items()}
    return next((forms.get(media, Form.JSON) for media in named if media in {*forms, JSON}), Form.JSON)


@router.post("/changes/{change}/cause", response_model=Cause)
async def cause(change: ChangeName, asked: CauseAsked, once: Once) -> Response:
    """Write down what caused the change to end as it did; a later word replaces the one before."""

    async def write() -> Cause:
        return await once.service.reports.write_cause(once.caller, change, asked.text)

    return await once.answer(write)


@router.post("/changes/{change}/follow-ups", response_model=FollowUp, status_code=201)
async def add(change: ChangeName, asked: FollowUpAsked, once: Once) -> Response:
    """Write down what is to be done because of the change; it stays open until somebody says it is done."""

    async def write() -> FollowUp:
        return await once.service.reports.add_follow_up(
            once.caller, change, asked.text, asked.owner, asked.due, once.key
        )

    return await once.answer(write, 201)


@router.post("/changes/{change}/follow-ups/{number}/done", response_model=FollowUp)
async def done(change: ChangeName, number: Number, once: Once) -> Response:
    """Write down that it is done."""

    async def write() -> FollowUp:
        return await once.service.reports.finish_follow_up(once.caller, change, number)

    return await once.answer(write)


@router.get("/follow-ups")
async def follow_ups(
    caller: Asking,
    service: Serving,
    fleet: Annotated[Name | None, Query(description="only those of this fleet")] = None,
) -> FollowUps:
    """List what is still to be done, of every fleet that whoever asks may look at."""
    return FollowUps(follow_ups=await service.reports.follow_ups(caller, fleet))
