"""Logging in: where people go for it, and a link for who is on the orchestrator's host."""

import anyio
from fastapi import APIRouter, Request

from orchestrator.api.limits import Kind
from orchestrator.api.peer import uid_of
from orchestrator.api.who import Asking, Serving, crowd_asking, limits_of
from orchestrator.service.identity import Login
from orchestrator.service.page_logins import LoginLink
from policies.model.errors import Unknown
from policies.model.offer import Offer, Verb

router = APIRouter(tags=["login"])


@router.get("/login")
async def login(request: Request, service: Serving) -> Login:
    """Say which identity provider is believed here, which client to be there, and which scopes to request."""
    limits_of(request).take(crowd_asking(request), Kind.STRANGER)
    provider = await anyio.to_thread.run_sync(service.people.provider)
    if provider is None:
        asks = Offer(verb=Verb.CREDENTIAL)
        raise Unknown("no identity provider is believed here: use the local socket, or a token", asks)
    await provider.ready()
    return await anyio.to_thread.run_sync(provider.login)


@router.post("/login/links", status_code=201)
async def link(request: Request, caller: Asking, service: Serving) -> LoginLink:
    """Make a link that logs whoever asks at the local socket in at the page, once.

    Its answer is kept nowhere: a repeat makes another one.
    """
    limits_of(request).take(caller.person, Kind.CHANGE)
    return await service.page_logins.make_link(caller, uid_of(caller.address))
