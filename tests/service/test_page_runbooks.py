"""Whatever needs somebody is linked to its runbook on the page, where the site publishes them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx

from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.processes.site_file import SiteFile
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import Quarantine
from tests.service.page import link_of, log_in, page_of
from tests.service.shown import Element, shown

SITE = "apiVersion: penstock/v1\nrunbooks: {}\n"
DOCS = "https://docs.example/penstock/runbooks"


def leave_out(ledger: Ledger, reason: str = "its disk is full") -> None:
    left_out = Quarantine(
        fleet="edge", gateway="edge-1", reason=reason, person="ana", since=datetime.now(UTC)
    )
    ledger.set_quarantine(left_out)


async def looked_at(service: Service, runbooks: Runbooks) -> Element:
    async with (
        page_of(service, runbooks=runbooks) as place,
        httpx.AsyncClient(base_url=place, timeout=60) as browser,
    ):
        await log_in(browser, await link_of(service))
        answer = await browser.get("/fleets/edge")
    assert answer.status_code == httpx.codes.OK, answer.text
    return shown(answer.text)


def links(page: Element, place: str) -> list[tuple[str, str]]:
    """Return the links to that place, each with its text."""
    found = [(one.attributes.get("href", ""), one.text) for one in page.all("a")]
    return [(address, text) for address, text in found if address.startswith(place)]


def needs(page: Element) -> list[str]:
    return [one.text for one in page.all("p", "needs") if "Runbook:" in one.text]


async def test_what_needs_somebody_is_linked_to_its_page_as_the_site_says(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    leave_out(ledger)
    file = tmp_path / "site.yaml"
    await asyncio.to_thread(file.write_text, SITE.format(DOCS))
    page = await looked_at(service, SiteFile(file).address_of)
    assert links(page, DOCS) == [(f"{DOCS}/gateway-unwell.md", "gateway-unwell")]
    named = await looked_at(service, named_only)
    assert links(named, "https:") == []
    assert needs(named) == needs(page) != []
    assert needs(named)[0].endswith("Runbook: gateway-unwell")


async def test_what_a_stranger_calls_a_runbook_is_no_link(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    leave_out(ledger, "Runbook: evil")
    file = tmp_path / "site.yaml"
    await asyncio.to_thread(file.write_text, SITE.format(DOCS))
    page = await looked_at(service, SiteFile(file).address_of)
    assert links(page, DOCS) == [(f"{DOCS}/gateway-unwell.md", "gateway-unwell")]


def test_a_site_file_is_read_again_when_it_changes_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    address = SiteFile(file).address_of
    assert address("held-decide") is None
    file.write_text(SITE.format(DOCS))
    assert address("held-decide") == f"{DOCS}/held-decide.md"
    file.write_text(SITE.format("ftp://docs.example"))
    assert address("held-decide") == f"{DOCS}/held-decide.md"
    file.write_text(SITE.format("https://other.example"))
    assert address("held-decide") == "https://other.example/held-decide.md"
    assert SiteFile(None).address_of("held-decide") is None
