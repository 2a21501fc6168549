"""Changes: one of them, under way or long ended, with every decision's evidence."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.api.disconnects import while_connected
from orchestrator.api.routes.changes import ChangeName
from orchestrator.api.who import Serving
from orchestrator.page.forms import Sent, new_key, with_form
from orchestrator.page.live import lookout_of
from orchestrator.page.render import Judged
from orchestrator.page.session import Looking
from orchestrator.service.background import ANSWERS
from orchestrator.service.service import Service
from policies.model.people import Caller

router = APIRouter()

FORMS = ("cause", "follow-up")
"""What people write down about a change, each in a form of its own."""


@router.get("/changes/{change}")
async def change(request: Request, change: ChangeName, caller: Looking, service: Serving) -> Response:
    """Show what a change did, to whom, why, and what was decided on which numbers."""
    return await shown(request, change, caller, service)


async def shown(
    request: Request, change: str, caller: Caller, service: Service, form: str = "", sent: Sent | None = None
) -> Response:
    """Return the page of a change; with the form of that name as it was sent, where it was refused."""
    found = await service.change(caller, change)
    lookout, evidence = lookout_of(request), await service.evidence(caller, change)
    afterwards = await service.reports.afterwards(caller, change)

    def page(judged: Judged | None) -> Response:
        dumped = found.model_dump(mode="json")
        known = {
            "record": dumped["record"],
            "change": dumped["status"],
            "signals": dumped["signals"],
            "judged": judged,
            "cause": afterwards.cause,
            "follow_ups": afterwards.follow_ups,
            "form": form,
            "keys": {one: sent.key if sent and one == form else new_key() for one in FORMS},
        }
        return with_form(request, "change.html", sent or Sent(), **known)

    if sent is not None:  # what was typed comes back, however many pages the caller has under way
        return await asyncio.to_thread(page, lookout.known(evidence.change.name))
    await while_connected(request, lookout.judged(caller, change))
    # what was read is in memory once: requests that wait for their page hold none of it
    return await while_connected(request, ANSWERS.run(lambda: page(lookout.read(evidence)), caller.person))
