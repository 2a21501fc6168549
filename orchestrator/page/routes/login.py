"""Logging in and out: by a one-time link, or at the identity provider."""

import logging
import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from orchestrator.api.limits import Kind
from orchestrator.api.problems import NotLoggedIn, status_of
from orchestrator.api.who import address_of, crowd_asking, limits_of, service_of
from orchestrator.page import session
from orchestrator.page.render import rendered
from orchestrator.service.identity import error_code
from orchestrator.service.login_attempts import ATTEMPT_LIVES, SECRET, LoginAttempt, new_browser
from orchestrator.service.page_logins import CALLBACK, SESSION_LIVES
from policies.model.errors import NotAllowed, PenstockError, Unavailable

router = APIRouter()
_USED_UP = NotAllowed("this link was opened before, is older than ten minutes or is none; log in again")
_log = logging.getLogger(__name__)

Link = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{16,64}$")]
Wanted = Annotated[str, Query(max_length=200, description="the path to be seen after the login")]
FromProvider = Annotated[str, Query(max_length=4096)]

OWN_PATH = re.compile(r"/(?!login|logout)[A-Za-z0-9][A-Za-z0-9._~%@:/?&=+-]*")
"""A path of the page's own: no other host can begin where a single slash is followed by a letter or digit."""


@router.get("/login")
async def login(request: Request, to: Wanted = "") -> Response:
    """Say how one logs in: to everybody, since an office behind one address would share any bucket."""
    if (place := session.by_its_name(request)) is not None:
        return RedirectResponse(place, 303)
    return await _asked(request, to)


@router.get("/login/provider")
async def go(request: Request, to: Wanted = "") -> Response:
    """Send the browser to the identity provider, which is asked nothing for it."""
    if (place := session.by_its_name(request)) is not None:
        return RedirectResponse(place, 303)
    known = session.browser_of(request)
    browser = known if SECRET.fullmatch(known) else new_browser()
    try:
        sent = await service_of(request).page_logins.sent_to_provider(browser, own_path(to))
    except PenstockError as error:
        return await _asked(request, to, error)
    answer = RedirectResponse(sent, 303)
    session.keep_browser(request, answer, browser, int(ATTEMPT_LIVES.total_seconds()))
    return answer


@router.get(CALLBACK)
async def come_back(
    request: Request,
    state: FromProvider = "",
    code: FromProvider = "",
    error: FromProvider = "",
) -> Response:
    """Log in whom the provider vouches for, in the browser that went there."""
    limits, crowd, to = limits_of(request), crowd_asking(request), ""
    try:
        attempt = LoginAttempt.known(session.browser_of(request), state)
        to = own_path(attempt.to)
        if not code:
            raise NotAllowed(f"the identity provider let nobody in ({error_code(error)}); log in again")
        limits.take(crowd, Kind.LOGIN)  # the provider is asked, and anybody can make up a code
        secret = await service_of(request).page_logins.open_code(attempt, code, address_of(request))
    except PenstockError as refused:
        return await _asked(request, to, refused)
    limits.give_back(crowd, Kind.LOGIN)
    return await _begun(request, secret, to)


@router.get("/login/link/{link}")
async def meet(request: Request, link: Link) -> Response:
    """Ask whoever follows a link whether they mean it: what only looks at links must not use one up."""
    if (place := session.by_its_name(request)) is not None:
        return RedirectResponse(place, 303)
    try:
        person = await _whose(request, link)
    except NotAllowed:
        return await _asked(request, "/", _USED_UP)
    return rendered(request, "login.html", person=person, instead_of=await _person(request))


@router.post("/login/link/{link}")
async def enter(request: Request, link: Link) -> Response:
    """Use the link up and log its person in."""
    if (place := session.by_its_name(request)) is not None:
        return RedirectResponse(place, 303)
    session.require_own_origin(request)
    try:
        await _whose(request, link)
        secret = await service_of(request).page_logins.open_link(link, address_of(request))
    except NotAllowed:
        return await _asked(request, "/", _USED_UP)
    return await _begun(request, secret, "/")


@router.post("/logout", dependencies=[session.Own])
async def leave(request: Request) -> Response:
    """Log out."""
    await session.leave(request)
    answer = RedirectResponse("/login", 303)
    session.forget(request, answer)
    return answer


def own_path(written: str) -> str:
    """Return the path where it is one of the page's own, else that of the first page."""
    return written if OWN_PATH.fullmatch(written) else "/"


async def _asked(request: Request, to: str, trouble: PenstockError | None = None) -> Response:
    """Return the page that says how one logs in, and what went wrong."""
    issuer = None
    try:
        issuer = await service_of(request).page_logins.issuer()
    except PenstockError as error:
        _log.warning("nobody is told how one logs in at the page: %s", error)
        trouble = trouble or Unavailable("nobody can log in at the provider now; penstock's log says why")
    code = 200 if trouble is None else status_of(trouble)
    wanted = {"to": to} if own_path(to) != "/" else {}
    return rendered(
        request, "login.html", code=code, person=None, issuer=issuer, wanted=wanted, trouble=trouble
    )


async def _whose(request: Request, link: str) -> str:
    """Return whom the link logs in; only one that is none counts as a stranger's attempt.

    Raises:
        NotAllowed: It is none.
        TooMany: Too many were none.
    """
    try:
        return await service_of(request).page_logins.whose_link(link)
    except NotAllowed:
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
        raise


async def _begun(request: Request, secret: str, to: str) -> Response:
    """Return the answer that logs the browser in; whoever was logged in there before is so no more."""
    await session.leave(request)
    answer = RedirectResponse(to, 303)
    session.keep(request, answer, secret, int(SESSION_LIVES.total_seconds()))
    return answer


async def _person(request: Request) -> str | None:
    """Return who is logged in already."""
    if not session.cookie_of(request):
        return None
    try:
        return (await session.recognised(request)).person
    except (NotLoggedIn, NotAllowed):
        return None
