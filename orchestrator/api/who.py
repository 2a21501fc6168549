"""Who asks: the user at the local socket, or whoever a bearer token was given to."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.api.peer import uid_of
from orchestrator.api.problems import NotLoggedIn
from orchestrator.service.service import Service
from policies.model.offer import Offer, Verb
from policies.model.people import Caller

BEARER = "bearer "


def service_of(request: Request) -> Service:
    """Return the service that this application asks."""
    service: Service = request.app.state.service
    return service


async def caller_of(request: Request, service: Annotated[Service, Depends(service_of)]) -> Caller:
    """Return who asks.

    A token counts before the user at the socket: a program that shows one wants to be nobody else.

    Raises:
        NotLoggedIn: Nobody has said who asks.
        NotAllowed: Whoever it is is not known here.
    """
    address = request.client.host if request.client is not None else ""
    shown = request.headers.get("authorization", "")
    if shown.lower().startswith(BEARER):
        return await asyncio.to_thread(service.caller_of_token, shown[len(BEARER) :].strip(), address)
    uid = uid_of(address)
    if uid is None:
        login = Offer(verb=Verb.WHOAMI)
        raise NotLoggedIn("say who you are: a token, or the orchestrator's own socket", login)
    found = await asyncio.to_thread(service.people.at_the_socket, uid)
    return found.model_copy(update={"address": address})


Asking = Annotated[Caller, Depends(caller_of)]
Serving = Annotated[Service, Depends(service_of)]
