"""The page as somebody sees it: served at a port of this host, with somebody logged in."""

import dataclasses
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from orchestrator.api.limits import Kind, Limits
from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.service import Service

SHELL = "/usr/bin/chromium-headless-shell"


class Patient(Limits):
    """Lets everybody ask as often as they like: what is tried here are the answers."""

    def take(self, who: str, kind: Kind) -> None:
        """Take nothing."""


@asynccontextmanager
async def page_of(
    service: Service, limits: Limits | None = None, runbooks: Runbooks = named_only
) -> AsyncIterator[str]:
    """Answer at a free port for the length of the body; give its address."""
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    place = f"http://127.0.0.1:{at.getsockname()[1]}"
    service.page_logins = dataclasses.replace(service.page_logins, page=place)
    async with serving(service, at, limits=limits, runbooks=runbooks):
        yield place


async def link_of(service: Service) -> str:
    """Return a link that logs in whoever runs the tests."""
    caller = service.people.at_the_socket(os.getuid())
    return (await service.page_logins.make_link(caller, os.getuid())).url


async def log_in(browser: httpx.AsyncClient, link: str) -> None:
    """Log in by a link, as a browser does it."""
    entered = await browser.post(link, headers=own(browser))
    assert entered.status_code == 303, entered.text


def own(browser: httpx.AsyncClient) -> dict[str, str]:
    """Return what a browser says of a form of the page's own."""
    return {"Origin": str(browser.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}


async def word_of(browser: httpx.AsyncClient) -> str:
    """Return the word that forms of this login carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await browser.get("/")).text)
    assert found is not None
    return found[1]
