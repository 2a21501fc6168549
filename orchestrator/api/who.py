"""Who asks: the user at the local socket, or whoever a bearer token was given to."""

from typing import Annotated

from fastapi import Depends, Request

from orchestrator.api.limits import Kind, Limits
from orchestrator.api.peer import CONNECTION, PeerProtocol, uid_of
from orchestrator.api.problems import NotLoggedIn
from orchestrator.api.turns import TURN
from orchestrator.crowd import crowd_of
from orchestrator.service.service import Service
from policies.model.errors import BadInput, NotAllowed, NotOrdered, Unavailable
from policies.model.offer import Offer, Verb
from policies.model.people import Caller

BEARER = "bearer "


def service_of(request: Request) -> Service:
    """Return the service that this application asks."""
    service: Service = request.app.state.service
    return service


def limits_of(request: Request) -> Limits:
    """Return how often everybody may ask this application."""
    limits: Limits = request.app.state.limits
    return limits


async def _serving(request: Request) -> Service:
    """Return the service; FastAPI hands plain functions to threads that all callers share."""
    return service_of(request)


Serving = Annotated[Service, Depends(_serving)]


async def recognised(request: Request, service: Serving) -> Caller:
    """Return who asks, whatever it is that they ask.

    A token counts before the user at the socket: a program that shows one wants to be nobody else.

    Raises:
        NotLoggedIn: Nobody has said who asks.
        NotAllowed: Whoever it is is not known here.
    """
    caller = await _recognised(request, service)
    known(request, caller)
    request.state.uncharged = caller.person
    return caller


def known(request: Request, caller: Caller) -> None:
    """Note who has the connection: one person's connections are a crowd of their own."""
    state = request.scope.get("state", {})
    connection = state.get(CONNECTION)
    if isinstance(connection, PeerProtocol):
        connection.recognise(caller.person)
    if TURN in state:
        state[TURN]()


def let_go(request: Request) -> None:
    """End the connection at once, whatever is still to be said: nobody takes it."""
    connection = request.scope.get("state", {}).get(CONNECTION)
    if isinstance(connection, PeerProtocol):
        connection.dismiss()


def crowd_asking(request: Request) -> str:
    """Return the crowd that a stranger belongs to; all unknown users of this host are one."""
    connection = request.scope.get("state", {}).get(CONNECTION)
    return connection.origin if isinstance(connection, PeerProtocol) else crowd_of(address_of(request))


def address_of(request: Request) -> str:
    """Return where the caller called from: an address, or the user number at the local socket."""
    return request.client.host if request.client is not None else ""


async def _recognised(request: Request, service: Service) -> Caller:
    limits, address, crowd = limits_of(request), address_of(request), crowd_asking(request)
    shown = request.headers.get("authorization", "")
    if shown.lower().startswith(BEARER):
        secret = shown[len(BEARER) :].strip()
        try:
            return await service.caller_of_token(secret, address)
        except NotAllowed as refused:
            limits.take(crowd, Kind.STRANGER)
            service.note_refused_token(address, refused)
            raise
        except Unavailable as silent:
            limits.take(crowd, Kind.STRANGER)
            raise NotOrdered(str(silent), *silent.offers) from silent
    uid = uid_of(address)
    if uid is None:
        limits.take(crowd, Kind.STRANGER)
        login, sentence = (
            Offer(verb=Verb.LOGIN),
            "say who you are: log in, show a token, or ask at the socket",
        )
        raise NotLoggedIn(sentence, login)
    try:
        found = await service.caller_at_the_socket(uid)
    except (NotAllowed, BadInput):
        if not service.people.is_known(uid):
            limits.take(crowd, Kind.STRANGER)
        raise
    return found.model_copy(update={"address": address})


Recognised = Annotated[Caller, Depends(recognised)]


async def caller_of(request: Request, caller: Recognised) -> Caller:
    """Return who asks a question; TooMany when they ask too many."""
    request.state.uncharged = None
    limits_of(request).take(caller.person, Kind.LOOK)
    return caller


Asking = Annotated[Caller, Depends(caller_of)]


async def changing(request: Request, caller: Recognised) -> Caller:
    """Return who asks for a change, before its body is read as one.

    Raises:
        TooMany: Too many requests of theirs made no sense.
    """
    limits_of(request).require(caller.person, Kind.INVALID)
    return caller


Changing = Annotated[Caller, Depends(changing)]
