"""The page's own name on its host, by which browsers keep its session from other ports."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from orchestrator.processes.api import serving
from orchestrator.processes.composition import page_of
from orchestrator.processes.listening import port_at
from orchestrator.processes.page_name import own_name
from orchestrator.service.service import Service
from orchestrator.settings import Settings
from policies.model.errors import BadInput
from tests.service.page import link_of

NAME = "penstock-0123456789abcdef.localhost"


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    found = at.getsockname()[1]
    service.page_logins = dataclasses.replace(service.page_logins, page=f"http://{NAME}:{found}")
    async with serving(service, at):
        yield found


async def test_a_session_of_the_page_goes_to_no_other_port_of_this_host(port: int, service: Service) -> None:
    """S8: a cookie of 127.0.0.1 goes to every port of it, and any user of the host may listen at one."""
    link = (await link_of(service)).partition("/login/")[2]
    bare = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=bare) as browser:
        sent = await browser.post(f"/login/{link}", headers={"Origin": bare})
        assert (sent.status_code, sent.headers["location"]) == (303, f"http://{NAME}:{port}/login/{link}")
        assert [*browser.cookies] == []
        for path in ("/login", "/login/provider?to=/x", f"/login/{link}"):
            assert (await browser.get(path)).headers["location"] == f"http://{NAME}:{port}{path}"
        named = {"Host": f"{NAME}:{port}", "Origin": f"http://{NAME}:{port}"}
        begun = await browser.post(f"/login/{link}", headers=named)
        assert begun.headers["location"] == "/"
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("penstock=")
        assert "domain" not in cookie.lower()  # so that it is this name's alone
        shown = {"Host": f"{NAME}:{port}", "Cookie": cookie.partition(";")[0]}
        assert "root" in (await browser.get("/", headers=shown)).text


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("127.0.0.1:8787", None),
        ("[::1]:8787", None),
        ("0.0.0.0:8787", "http://localhost:8787"),
        (None, "http://127.0.0.1:8787"),
    ],
)
def test_every_page_at_a_bare_address_of_this_host_has_the_installations_name(
    tmp_path: Path, api: str | None, url: str | None
) -> None:
    """S8: whichever setting names the address."""
    settings = Settings(api_address=api, page_url=url, page_name=tmp_path / "page.name")
    name = own_name(tmp_path / "page.name")
    assert page_of(settings) == f"http://{name}:8787"
    assert own_name(tmp_path / "other.name") != name


def test_a_name_that_was_edited_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """S8: a name of one's own could be that of another program."""
    path = tmp_path / "page.name"
    path.write_text("localhost\n")
    path.chmod(0o600)
    with pytest.raises(BadInput, match="remove it, and restart the API"):
        own_name(path)
