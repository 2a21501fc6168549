"""Chat accounts: which of them are the person who looks, and the page on which they make one theirs."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.api.limits import Kind
from orchestrator.api.who import Serving, crowd_asking, limits_of
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking, Own, cookie_of
from policies.model.errors import NotAllowed

router = APIRouter()

Link = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{16,64}$")]
Place = Annotated[str, Form(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


@router.get("/chat")
async def accounts(request: Request, caller: Looking, service: Serving) -> Response:
    """List the chat accounts that are whoever looks."""
    return rendered(request, "chat.html", links=await service.chat_links.all(caller), person=caller.person)


@router.get("/chat/link/{link}")
async def meet(request: Request, link: Link, caller: Looking, service: Serving) -> Response:
    """Say which account the address is about and what a yes gives it; to look at it links nothing."""
    try:
        account = await service.chat_links.offered(link)
    except NotAllowed:
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
        raise
    return rendered(request, "chat_link.html", account=account, link=link, person=caller.person)


@router.post("/chat/link/{link}", dependencies=[Own])
async def confirm(request: Request, link: Link, caller: Looking, service: Serving) -> Response:
    """Make the account whoever says yes here."""
    await service.chat_links.confirm(caller, cookie_of(request), link)
    return RedirectResponse("/chat", 303)


@router.post("/chat/unlink", dependencies=[Own])
async def unlink(caller: Looking, service: Serving, workspace: Place, user: Place) -> Response:
    """Ensure that an account is nobody, at once."""
    await service.chat_links.unlink(caller, workspace, user, "unlinked at the page")
    return RedirectResponse("/chat", 303)
