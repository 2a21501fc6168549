"""Logging in: where people go for it; the only question that needs no answer to who asks."""

import anyio
from fastapi import APIRouter, Request

from orchestrator.api.limits import Kind
from orchestrator.api.who import Serving, limits_of
from orchestrator.service.identity import Login
from policies.model.errors import Unknown
from policies.model.offer import Offer, Verb

router = APIRouter(tags=["login"])


@router.get("/login")
async def login(request: Request, service: Serving) -> Login:
    """Say which identity provider is believed here, and which client to be there."""
    limits_of(request).take(request.client.host if request.client is not None else "", Kind.STRANGER)
    provider = await anyio.to_thread.run_sync(service.people.provider)
    if provider is None:
        asks = Offer(verb=Verb.CREDENTIAL)
        raise Unknown("no identity provider is believed here: use the local socket, or a token", asks)
    return await anyio.to_thread.run_sync(provider.login)
