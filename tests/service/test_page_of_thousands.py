"""Every page of a SIMULATED fleet of thousands in mid-change, as a browser shows it, wide and narrow.

The rows are those of `./run bench page`, which measures them; pictures are kept in `.state/page`.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from deploy.ports import free_port
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from tests.bench import page_fleet
from tests.bench.page_fleet import UnderWay
from tests.bench.simulated_agents import FLEET
from tests.lab.browser import CHROMIUM, WIDE, Seen, browser
from tests.patience import wait_until
from tests.service.every_page import every_page

pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no browser here"),
    pytest.mark.timeout(600),  # every page there is, four times; two minutes on an idle machine
]

GATEWAYS = 2_000
PICTURES = Path(".state/page")


@dataclass(frozen=True)
class Site:
    """Where the page is, who is logged in there, and what it shows."""

    url: str
    session: str
    change: str
    release: str
    plan: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An API process of its own, on a ledger of thousands; its engine is away."""
    folder = tmp_path_factory.mktemp("thousands")
    url = f"sqlite:///{folder / 'ledger.db'}"
    signed = asyncio.run(page_fleet.signed(folder))
    book, planned = Ledger.open(url), page_fleet.plan(GATEWAYS, signed.release)
    page_fleet.write_files(folder, planned.fleet, 1)
    page_fleet.fill(book, planned)
    opening = ChangeOpening(
        key="run", fleet=FLEET, kind=ChangeKind.UPGRADE, requested_by="viewer-000", reason="CVE", release="1"
    )
    change = UnderWay(book, planned, book.open_change(opening))
    change.fill(datetime.now(UTC))
    (session,) = page_fleet.log_in(book, 1)
    address = f"127.0.0.1:{free_port()}"
    given = {
        "PENSTOCK_STATE": str(folder),
        "PENSTOCK_TEMPORAL_ADDRESS": "127.0.0.1:1",
        "PENSTOCK_PROMETHEUS_URL": "http://127.0.0.1:1",
        "PENSTOCK_LEDGER_URL": url,
        "PENSTOCK_FLEET": str(folder / "fleets"),
        "PENSTOCK_PEOPLE": str(folder / "people.yaml"),
        "PENSTOCK_GATES": "deploy/prometheus/gates.yaml",
        "PENSTOCK_STORE": str(signed.store),
        "PENSTOCK_TRUST": str(signed.trust),
        "PENSTOCK_API_ADDRESS": address,
    }
    release = book.releases()[0].release.digest.removeprefix("sha256:")
    process = subprocess.Popen([sys.executable, "-m", "orchestrator.processes.api"], env=os.environ | given)
    try:
        _wait_for(f"http://{address}/login", process)
        plan = planned.digest.removeprefix("sha256:")
        yield Site(f"http://{address}", session, change.name, release, plan)
    finally:
        process.terminate()
        process.wait(20)
        book.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.mark.sweep
def test_every_page_of_thousands_is_read_by_everybody_at_both_widths_in_both_themes(
    site: Site, chromium: Browser
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    seen = Seen(PICTURES)
    context = chromium.new_context(viewport=WIDE)
    context.add_cookies([{"name": "penstock", "value": site.session, "url": site.url}])
    page = context.new_page()
    page.on("console", seen.heard)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    filled = {
        "fleet": FLEET,
        "gateway": "gw-00007",
        "change": site.change,
        "release": site.release,
        "plan": site.plan,
    }
    before, said = f"/changes/{FLEET}-300", f"/explain?word={site.change}"
    more = {"change-before": before, "explained": said}
    more |= {"certificates-after": f"/fleets/{FLEET}/certificates?after=stray:"}
    for name, path in (every_page(filled | {"verb": "hold"}) | more).items():
        answer = page.goto(site.url + path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        seen.look(page, f"thousands-{name}")
    context.close()
    assert seen.violations == []
    assert seen.errors == []


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    with httpx.Client(trust_env=False) as client:

        def answers() -> bool:
            assert process.poll() is None, "the API has ended"
            try:
                return bool(client.get(url))
            except httpx.TransportError:
                return False

        wait_until(answers)
