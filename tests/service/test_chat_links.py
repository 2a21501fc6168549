"""Chat accounts are linked at the page by whoever is logged in, never by an address alone."""

import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.errors import NotAllowed
from tests.service.chat_rooms import USERS, WORKSPACE, with_chat
from tests.service.conftest import PAGE
from tests.service.page import Patient, log_in, page_of

SECRET = "a-secret-of-an-address-in-a-chat"


async def test_to_look_at_an_address_links_nothing_and_a_yes_links_it_to_whoever_says_it_once(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    with_chat(tmp_path)
    hostile = "<script>alert(1)</script>"
    ledger.offer_chat_link(SECRET, WORKSPACE, "@mallory:chat", hostile, timedelta(minutes=5))
    link = await service.page_logins.make_link(service.people.at_the_socket(USERS["ana"]), USERS["ana"])
    async with page_of(service, Patient()) as place, httpx.AsyncClient(base_url=place) as page:
        stranger = await page.get(f"/chat/link/{SECRET}")
        assert stranger.status_code == 303
        await log_in(page, link.url.removeprefix(PAGE))
        asked = await page.get(f"/chat/link/{SECRET}")
        assert asked.status_code == 200, asked.text
        assert "@mallory:chat" in asked.text
        assert hostile not in asked.text
        assert ledger.chat_links() == ()
        elsewhere = {"Origin": "http://other.example.org"}
        word = re.search(r'name="csrf" value="([^"]+)"', asked.text)
        assert word
        own = {"Origin": place}
        for form, headers in (({}, own), ({"csrf": "0" * 64}, own), ({"csrf": word[1]}, elsewhere)):
            refused = await page.post(f"/chat/link/{SECRET}", data=form, headers=headers)
            assert refused.status_code == 403, refused.text
        assert ledger.chat_links() == ()
        done = await page.post(f"/chat/link/{SECRET}", data={"csrf": word[1]}, headers=own)
        assert done.status_code == 303, done.text
        assert service.chat_links.who(WORKSPACE, "@mallory:chat").person == "ana"
        again = await page.post(f"/chat/link/{SECRET}", data={"csrf": word[1]}, headers=own)
        assert again.status_code == 403
        listed = await page.get("/chat")
        assert "@mallory:chat" in listed.text
        ended = {"csrf": word[1], "workspace": WORKSPACE, "user": "@mallory:chat"}
        assert (await page.post("/chat/unlink", data=ended, headers=own)).status_code == 303
    with pytest.raises(NotAllowed):
        service.chat_links.who(WORKSPACE, "@mallory:chat")
