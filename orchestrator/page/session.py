"""Who looks at the page: known by a cookie, and a form of theirs by what only their own pages hold.

The cookie is `SameSite=Lax`, so that links from chat and mail find who is logged in. What changes something
needs a form besides: its origin is the page's own, and it carries a word that follows from the session.
"""

import asyncio
import hashlib
import hmac
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from fastapi import Depends, Request, Response

from orchestrator.api.limits import Kind
from orchestrator.api.problems import NotLoggedIn
from orchestrator.api.who import address_of, crowd_asking, known, limits_of, service_of
from orchestrator.crowd import is_this_host
from policies.model.errors import NotAllowed
from policies.model.offer import Offer, Verb
from policies.model.people import Caller

COOKIE = "penstock"
SECURE_COOKIE = "__Host-penstock"
"""A browser takes a cookie of this name from the page itself alone, and by TLS (RFC 6265bis, 4.1.3)."""

BROWSER = "-login"
"""The cookie of that name's end holds the browser's own secret while somebody logs in at the provider."""

FORM = b"penstock form"


def cookie_of(request: Request) -> str:
    """Return the secret of whoever looks, empty for a stranger."""
    return request.cookies.get(_name(request), "")


def keep(request: Request, response: Response, secret: str, seconds: int) -> None:
    """Have the browser keep the session's secret for so long."""
    _set(request, response, _name(request), secret, seconds)


def forget(request: Request, response: Response) -> None:
    """Have the browser forget the session, and every login that it has begun."""
    for name in (_name(request), _name(request) + BROWSER):
        response.delete_cookie(name, path="/", secure=_is_secure(request), httponly=True, samesite="lax")


def browser_of(request: Request) -> str:
    """Return the secret of a browser that has begun to log in at the provider, empty for another."""
    return request.cookies.get(_name(request) + BROWSER, "")


def keep_browser(request: Request, response: Response, secret: str, seconds: int) -> None:
    """Have the browser keep its own secret for so long."""
    _set(request, response, _name(request) + BROWSER, secret, seconds)


async def looking(request: Request) -> Caller:
    """Return who looks.

    Raises:
        NotLoggedIn: Nobody is logged in.
        TooMany: Whoever it is looks too often.
    """
    caller = await recognised(request)
    limits_of(request).take(caller.person, Kind.LOOK)
    return caller


async def recognised(request: Request) -> Caller:
    """Return who looks, however often; NotLoggedIn for a stranger."""
    secret, service = cookie_of(request), service_of(request)
    refused: NotAllowed | None = None
    if secret:
        address = address_of(request)
        try:
            caller = await service.page_logins.caller(secret, address)
        except NotAllowed as error:
            refused = error
        else:
            known(request, caller)
            request.state.caller = caller
            return caller
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
    raise NotLoggedIn(str(refused or "nobody is logged in"), Offer(verb=Verb.LOGIN)) from refused


Looking = Annotated[Caller, Depends(looking)]

Ordering = Annotated[Caller, Depends(recognised)]
"""Who gives an order, which takes of its own bucket: no busy screen keeps its operator from a hold."""


def csrf_of(request: Request) -> str:
    """Return the word that this session's forms carry, empty for a stranger."""
    secret = cookie_of(request)
    return hmac.new(secret.encode(), FORM, hashlib.sha256).hexdigest() if secret else ""


async def require_own_form(request: Request) -> None:
    """Return for a form that a page of ours has sent, in a browser that is logged in.

    Raises:
        NotAllowed: It came from elsewhere, or is of another session.
        TooMany: Strangers send such forms too often.
    """
    require_own_origin(request)
    form = await request.form()
    said, own = form.get("csrf"), csrf_of(request)
    if not own or not isinstance(said, str) or not hmac.compare_digest(said.encode(), own.encode()):
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
        raise NotAllowed("this form is of another login; load the page again")


def require_own_origin(request: Request) -> None:
    """Return for a request that a page of ours has made; NotAllowed for another site's.

    Browsers name the site in `Sec-Fetch-Site` (Fetch Metadata, W3C) or `Origin` (RFC 6454); what names
    neither comes from no browser that anybody should use. Another port or scheme is another origin.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    wrong = ""
    if site is None and origin is None:
        wrong = "nobody says which site has sent this; nothing was done"
    elif (site is not None and site != "same-origin") or (origin is not None and origin not in _own(request)):
        wrong = "another site has sent this; nothing was done"
    if wrong:
        limits_of(request).take(crowd_asking(request), Kind.STRANGER)
        raise NotAllowed(wrong)


def by_its_name(request: Request) -> str | None:
    """Return the request at the page's own name, where it came by an address of this host instead.

    A session that began at 127.0.0.1 would be sent to all of its ports, also those of other users.
    """
    page = urlsplit(service_of(request).page_logins.page or "")
    host = request.url.hostname or ""
    if page.scheme != "http" or not (page.hostname or "").endswith(".localhost"):
        return None
    if host == page.hostname or not (host == "localhost" or is_this_host(host)):
        return None
    asked = urlsplit(str(request.url))
    return urlunsplit((page.scheme, page.netloc, asked.path, asked.query, ""))


def _own(request: Request) -> set[str]:
    """Return the page's own origins: that of the settings, and where this browser has asked."""
    page, host = service_of(request).page_logins.page, request.headers.get("host")
    asked = f"{request.url.scheme}://{host}" if host else ""
    settings = "{0.scheme}://{0.netloc}".format(urlsplit(page)) if page is not None else ""
    return {one.lower() for one in (asked, settings) if one}


Own = Depends(require_own_form)


def _set(request: Request, response: Response, name: str, secret: str, seconds: int) -> None:
    secure = _is_secure(request)
    response.set_cookie(name, secret, seconds, path="/", secure=secure, httponly=True, samesite="lax")


def _is_secure(request: Request) -> bool:
    """Return whether browsers come by TLS: to here, or to what stands before the page."""
    page = service_of(request).page_logins.page
    return request.url.scheme == "https" or (page is not None and page.startswith("https://"))


def _name(request: Request) -> str:
    return SECURE_COOKIE if _is_secure(request) else COOKIE


async def leave(request: Request) -> None:
    """End the session of whoever looks."""
    secret = cookie_of(request)
    if secret:
        await asyncio.shield(service_of(request).page_logins.end(secret))
