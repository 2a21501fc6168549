"""Reports: one change told whole, what caused it to end as it did, and what is still to be done."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.api.once import once
from orchestrator.api.routes.changes import ChangeName
from orchestrator.api.routes.reports import POLICY, Number, reported
from orchestrator.api.routes.reports import Form as Written
from orchestrator.api.texts import LONGEST_CAUSE, LONGEST_REASON
from orchestrator.api.who import Serving
from orchestrator.page.forms import Key, Sent, Typed, day_in, new_key, owner_in, text_in
from orchestrator.page.render import rendered
from orchestrator.page.routes.changes import shown
from orchestrator.page.session import Looking, Own
from policies.model.errors import PenstockError
from policies.model.value import Value

router = APIRouter()


@router.get("/changes/{change}/report")
async def report(request: Request, change: ChangeName, caller: Looking, service: Serving) -> Response:
    """Show the report in one file, which may show itself and nothing else."""
    headers = {"Content-Security-Policy": POLICY}
    return await reported(request, change, caller, service, Written.HTML, headers)


@router.get("/changes/{change}/report.{form}")
async def file(
    request: Request, form: Written, change: ChangeName, caller: Looking, service: Serving
) -> Response:
    """Give the report as a file to keep."""
    kept = {"Content-Disposition": f'attachment; filename="{change}.{_ENDS[form]}"'}
    return await reported(request, change, caller, service, form, kept | {"Content-Security-Policy": POLICY})


_ENDS = {Written.HTML: "html", Written.MARKDOWN: "md", Written.JSON: "json"}


@router.get("/follow-ups")
async def follow_ups(request: Request, caller: Looking, service: Serving) -> Response:
    """List what is still to be done, what is due first before the others."""
    found = await service.reports.follow_ups(caller)
    today = datetime.now(UTC).date()
    rows = [one.model_dump(mode="json") | {"overdue": one.is_overdue(today)} for one in found]
    return rendered(request, "follow_ups.html", rows=rows, key=new_key())


@router.post("/changes/{change}/cause", dependencies=[Own])
async def cause(
    request: Request, change: ChangeName, caller: Looking, service: Serving, text: Typed, key: Key
) -> Response:
    """Write down what caused the change to end as it did."""

    async def work() -> Value:
        return await service.reports.write_cause(caller, change, text_in(text, "the cause", LONGEST_CAUSE))

    try:
        await once(request, caller, key, text.encode(), work)
    except PenstockError as error:
        return await shown(request, change, caller, service, "cause", Sent(key, {"text": text}, error))
    return RedirectResponse(f"/changes/{change}", 303)


@router.post("/changes/{change}/follow-ups", dependencies=[Own])
async def add(
    request: Request,
    change: ChangeName,
    caller: Looking,
    service: Serving,
    text: Typed,
    owner: Typed,
    due: Typed,
    key: Key,
) -> Response:
    """Write down what is to be done because of the change."""

    async def work() -> Value:
        what = text_in(text, "what is to be done", LONGEST_REASON)
        return await service.reports.add_follow_up(caller, change, what, owner_in(owner), day_in(due), key)

    try:
        await once(request, caller, key, f"{owner}\n{due}\n{text}".encode(), work)
    except PenstockError as error:
        sent = Sent(key, {"text": text, "owner": owner, "due": due}, error)
        return await shown(request, change, caller, service, "follow-up", sent)
    return RedirectResponse(f"/changes/{change}", 303)


@router.post("/changes/{change}/follow-ups/{number}/done", dependencies=[Own])
async def done(
    request: Request, change: ChangeName, number: Number, caller: Looking, service: Serving, key: Key
) -> Response:
    """Write down that it is done."""

    async def work() -> Value:
        return await service.reports.finish_follow_up(caller, change, number)

    await once(request, caller, key, b"", work)
    return RedirectResponse("/follow-ups", 303)
