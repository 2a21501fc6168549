"""Fleets: all of them, problems first; and one, live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from orchestrator.api.limits import AtOnce
from orchestrator.api.routes.fleets import PING_SECONDS, RECOGNISED_SECONDS, Fleet
from orchestrator.api.who import Serving, let_go
from orchestrator.page.live import lookout_of
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking, recognised
from orchestrator.words.standing import shared_notices
from policies.model.errors import PenstockError

router = APIRouter()

TAKEN_SECONDS = 30.0
"""How long a viewer may take for what is sent: who is slower is let go, and connects again."""

SHOWN_CHANGES = 20


@router.get("/")
async def fleets(request: Request, caller: Looking, service: Serving) -> Response:
    """Show the fleets where whoever looks has a role, those that need somebody first."""
    notices, rows = shared_notices([one.model_dump(mode="json") for one in await service.glances(caller)])
    return rendered(request, "fleets.html", rows=rows, shared=notices)


@router.get("/fleets/{fleet}")
async def fleet(
    request: Request,
    fleet: Fleet,
    caller: Looking,
    service: Serving,
    before: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """Show how a fleet stands, with its change as it goes on."""
    view = await lookout_of(request).view(caller, fleet)
    history = await service.history(caller, fleet, SHOWN_CHANGES, before)
    rows = [row.model_dump(mode="json") for row in history]
    older = rows[-1]["name"] if len(rows) == SHOWN_CHANGES else None
    if before is None:
        rows = rows[1:]  # the newest is shown above, as it goes on
    known = await asyncio.to_thread(view.known)
    return await asyncio.to_thread(
        rendered, request, "fleet.html", fleet=fleet, history=rows, older=older, **known
    )


@router.get("/fleets/{fleet}/live")
async def live(request: Request, fleet: Fleet, caller: Looking, service: Serving) -> Response:
    """Send the parts of the fleet's page whenever they are other ones."""
    await service.require_readable(caller, fleet)
    lookout, streams = lookout_of(request), _streams(request)
    streams.refuse_another(caller.person)

    async def stream() -> AsyncIterator[ServerSentEvent]:
        sent: dict[str, str] = {}
        known_at = anyio.current_time()
        async with aclosing(lookout.regions(caller, fleet)) as looks:
            async for regions in looks:
                for name, markup in regions.items():
                    if sent.get(name) != markup:
                        yield ServerSentEvent(markup, event=name)
                sent = regions
                if anyio.current_time() - known_at >= RECOGNISED_SECONDS:
                    try:
                        again = await recognised(request)
                    except PenstockError:
                        return  # whoever is logged out hears it when they ask again
                    if again.roles(fleet) != caller.roles(fleet):
                        return
                    known_at = anyio.current_time()

    return _Taken(streams.counted(caller.person, stream()), ping=PING_SECONDS, send_timeout=TAKEN_SECONDS)


class _Taken(EventSourceResponse):
    """A stream for whoever takes what it says; the connection of one who does not is ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            let_go(Request(scope))


def _streams(request: Request) -> AtOnce:
    found: AtOnce = request.app.state.streams
    return found
