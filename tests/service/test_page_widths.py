"""The page in a real browser, wide and as on a phone: whole words in tables, a button on the first screen."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from orchestrator.page.live import View
from orchestrator.page.render import ENVIRONMENT, STATIC, Judged
from orchestrator.page.runbooks import named_only
from orchestrator.service.service import FleetStatus
from orchestrator.service.standing import Standing
from policies.model.change import Phase
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.release import ReleaseRow
from policies.model.status import ChangeStatus
from policies.model.value import digest_of
from policies.traffic import Traffic
from tests.lab.browser import CHROMIUM, NARROW, WIDE, browser

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no browser here")

AT = datetime(2026, 11, 28, 23, 6, tzinfo=UTC)
WORKFLOW = "https://github.com/example/gateways/.github/workflows/release.yml@refs/tags/v1.3.0"
SIGNERS = (
    f"{WORKFLOW} (https://token.actions.githubusercontent.com)",
    "release@example.org (https://idp.example.org)",
)
BROKEN = """() => {
  const broken = [];
  for (const cell of document.querySelectorAll("th, td")) {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      for (const word of walk.currentNode.data.matchAll(/[A-Za-z]{3,14}/g)) {
        const range = document.createRange();
        range.setStart(walk.currentNode, word.index);
        range.setEnd(walk.currentNode, word.index + word[0].length);
        const tops = new Set([...range.getClientRects()].map((one) => Math.round(one.top)));
        const alone = new RegExp("(^|\\\\s)" + word[0] + "($|[\\\\s,:])").test(walk.currentNode.data);
        if (tops.size > 1 && alone) broken.push(word[0]);
      }
    }
  }
  return broken;
}"""
"""The plain words in cells of tables that stand on two lines."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def opened(chromium: Browser, size: Any, template: str, **known: Any) -> Page:
    """Show a page with its own styles at that size."""
    seen = {"request": None, "caller": {"person": "rita"}, "csrf": "", "faults": {}, "runbooks": named_only}
    document = ENVIRONMENT.get_template(template).render(seen | known)

    def answer(route: Route) -> None:
        path = route.request.url.partition("/static/")[2].partition("?")[0]
        if not path:
            route.fulfill(body=document, content_type="text/html")
        elif (STATIC / path).exists() and path.endswith(".css"):
            route.fulfill(body=(STATIC / path).read_text(), content_type="text/css")
        else:
            route.abort()

    page = chromium.new_page(viewport=size)
    page.route("**/*", answer)
    page.goto("http://penstock/")
    return page


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_plain_word_of_the_releases_is_broken_in_two(chromium: Browser, size: Any) -> None:
    """Screens 18: the last column read `Stat e` and `offer ed` at 1280 pixels."""
    digest = digest_of(b"1.3.0")
    ref = ReleaseRef(digest=digest, product="ocserv", version="1.3.0+fix1", executable=digest)
    row = ReleaseRow(release=ref, source="-", signers=SIGNERS, added_at=AT, added_by="release.engineer")
    withdrawn = row.model_copy(update={"yanked_reason": "CVE-2030-1, replaced by 1.3.1"})
    page = opened(chromium, size, "releases.html", rows=[row, withdrawn])
    assert page.evaluate(BROKEN) == []
    assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.close()


def test_on_a_phone_a_button_is_on_the_first_screen_of_a_fleet_in_trouble(chromium: Browser) -> None:
    """Screens 14: yellow boxes about one silent gateway filled it."""
    change = ChangeStatus(
        rollout="edge-5",
        fleet="edge",
        release="",
        version="1.3.0",
        phase=Phase.ROLLING_BACK,
        what="rolling back: 3 of 4 gateways are on known-good",
        users="1 of 4 gateways; live sessions are never moved",
        why="connect-success: 6 of 8 bad on all changed gateways, 0 of 24 on those not yet changed",
        next="every gateway is tried until it is back",
        can_do=(),
        needs_you="1 gateway is not back: gw-2: no answer in time (restore gateway); is the agent running?",
        waits_for=("gw-2",),
        aside={"gw-2": "it does not answer"},
    )
    standing = Standing(
        fleet="edge",
        versions=("1.1.6",),
        taking=3,
        gateways=4,
        heard=3,
        silent={"gw-2": "its agent does not answer"},
        silent_count=1,
    )
    quarantine = Offer(verb=Verb.QUARANTINE, fleet="edge", gateway="gw-2")
    status = FleetStatus(fleet="edge", change=change, standing=standing, offers=(quarantine,))
    view = View(status, Traffic(unknown="not asked"), Judged(), AT)
    page = opened(chromium, NARROW, "fleet.html", fleet="edge", history=[], older=None, **view.known())
    box = page.locator("#orders a.button").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= NARROW["height"]
    page.close()
