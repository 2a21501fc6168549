"""Hostile texts in everything that people and daemons can write, on every page, in a real browser."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

from orchestrator.page.live import REGIONS
from orchestrator.page.render import part
from orchestrator.service.planning import PlanView
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.approval import Approved, Required
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.people import Via
from policies.model.plan import ReleaseRef, Strategy
from policies.model.report import GatewayProgress
from policies.model.status import Event
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.model.windows import Frozen, KeptFreeze
from policies.status.told import Told
from tests.service.every_page import every_page
from tests.service.page import SHELL, Patient, link_of, log_in, page_of

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "elsewhere": "<img src=https://evil.example/seen>",
    "attribute": '" autofocus onfocus=alert(1) onmouseover=alert(1) x="',
    "quote": "' autofocus onfocus='alert(1)",
    "end": "</pre></textarea></title></style></script><svg onload=alert(1)>",
    "comment": "<!-- --!> <![CDATA[",
    "address": "javascript:alert(1)",
    "template": "{{ 7*7 }}{% raw %}${7*7}#{7*7}",
    "htmx": '<a hx-get="/audit" hx-trigger="load" hx-swap="outerHTML" hx-on:htmx:load="alert(1)">now</a>',
    "stream": '<div sse-connect="/fleets/core/live" sse-swap="orders" hx-ext="sse">',
    "refresh": '<meta http-equiv=refresh content="0;url=https://evil.example">',
    "base": "<base href=https://evil.example>",
    "frame": "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "style": "<style>*{display:none}</style>",
    "form": "</form><form action=https://evil.example><button>Hold</button>",
    "event": "x\n\nevent: orders\ndata: <b id=forged>forged</b>\n\n",
    "return": "x\r\rid: 7\revent: orders\rdata: <b id=forged>forged</b>\r\r",
    "separators": "\u2028\u2029\x85\x0b\x0c",
    "direction": "\u202e\u2066dlof\u2069 \u200f",
    "terminal": "\x1b[2J\x1b]0;title\x07\x08",
    "nothing": "\x00\ufeff\u200b\ufffe",
    "family": "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈",
    "marks": "Z" + "\u0337\u0322" * 200,
    "entity": "&lt;b&gt; &#60;b&#62; &quot",
    "wide": "W" * 3000,
}
ALL = " ".join(HOSTILE.values())
SEEN = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt; &#60;b&#62;")
"""What has to be read on a page that shows such a text."""

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
NAIVE = AT.replace(tzinfo=None)
DIGEST = digest_of(b"release")
PLAN = digest_of(b"plan")


def hostile(ledger: Ledger) -> str:
    """Have a ledger in which every text is hostile; return the change that is under way."""
    release = ReleaseRef(
        digest=DIGEST, product="ocserv", version=HOSTILE["image"] + HOSTILE["script"], executable=DIGEST
    )
    manifest = json.dumps({"changelog": ALL})
    signers = (ALL, HOSTILE["script"])
    ledger.add_release(release, source=ALL, signers=signers, manifest_json=manifest, person=ALL)
    ended = opened(ledger, "first")
    told(ledger, ended, 0, Event(at=AT, sentence=ALL))
    ledger.close_change(ChangeEnding(change=ended, outcome=Outcome.ROLLED_BACK, sentence=ALL))
    ledger.yank(DIGEST, ALL, ALL)
    change = opened(ledger, "second")
    told(ledger, change, 0, Event(at=AT, sentence=ALL))
    ledger.record_verdict(change, 1, decision(), AT)
    ledger.record_states("edge", [], {"edge-1": ALL})
    ledger.set_quarantine(Quarantine(fleet="edge", gateway="edge-1", reason=ALL, person=ALL, since=AT))
    ledger.make_enrolment("edge", "edge-1", ALL)
    ledger.revoke_certificates("edge", "edge-2", ALL, ALL)
    span = Frozen(begins=NAIVE, ends=NAIVE + timedelta(days=1), tz="UTC", what=HOSTILE["script"])
    ledger.add_freeze(
        KeptFreeze.model_construct(
            fleet="edge", name="hostile", spans=(span,), reason=ALL, person="ana", at=AT
        )
    )
    ledger.offer_chat_link("secret", "chat.example.org", HOSTILE["script"], ALL, timedelta(hours=1))
    ledger.link_chat("secret", "root", None, None, timedelta(days=1))
    ledger.audit(ALL, Via.CHAT, ALL, ALL, {"reason": ALL, ALL: [ALL]})
    ledger.audit("ana", Via.WEB, "long", "line", {"reason": "W" * 100_000})
    return change


def opened(ledger: Ledger, key: str) -> str:
    opening = ChangeOpening(
        key=key,
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by=ALL,
        reason=ALL,
        release=HOSTILE["script"],
        release_digest=DIGEST,
    )
    return ledger.open_change(opening)


def told(ledger: Ledger, change: str, number: int, event: Event) -> None:
    """Have the change say hostile things of itself."""
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason=ALL)
    said = {
        "name": change,
        "phase": Phase.HELD,
        "wave": 1,
        "gateways": {"edge-1": GatewayProgress(gateway="edge-1", wave=1, state=ALL, release=ALL)},
        "counts": {1: {ALL: 1}},
        "aside": {"edge-1": ALL, ALL: ALL},
        "decision": decision(),
        "holds": {ALL: ALL},
        "short": (ALL,),
        "untested": {"edge-1": ALL},
        "not_back": {"edge-1": ALL},
    }
    ledger.record_story(order, Told.model_validate(said), number, [event])


def decision() -> Decision:
    reading = GateReading(gate=ALL, verdict=GateVerdict.CONFLICTING, reason=ALL, numbers={ALL: 0.3})
    return Decision(action=Action.HOLD, verdict=GateVerdict.CONFLICTING, reason=ALL, readings=(reading,))


def hostile_plan() -> PlanView:
    return PlanView.model_construct(
        digest=PLAN,
        fleet="edge",
        release=DIGEST,
        version=ALL,
        strategy=Strategy.ROLLING,
        waves=(1,),
        sentences=(ALL,),
        left_alone=(),
        left_alone_count=0,
        signers=(ALL,),
        changelog=ALL,
        known_good={ALL: 1},
        predictions=(),
        proofs=(),
        warnings=(ALL,),
        approved=Approved(required=Required(count=1, reason=ALL)),
        offers=(),
    )


@dataclass
class Watched:
    """A browser's page, and all that went wrong on it."""

    page: Page
    place: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda asked: self._asked(asked.url))
        self.page.on(
            "console",
            lambda said: self.wrong.append(said.text) if said.type in {"error", "warning"} else None,
        )

    async def _dialog(self, dialog: object) -> None:
        self.wrong.append("something ran and opened a dialog")

    def _asked(self, url: str) -> None:
        if not url.startswith(self.place):
            self.wrong.append(f"asked elsewhere: {url}")

    async def fits(self) -> None:
        """Fail if what is shown is wider than the window."""
        wide = await self.page.evaluate(
            """() => {
                const most = document.documentElement.clientWidth;
                if (document.documentElement.scrollWidth <= most) { return []; }
                return [...document.querySelectorAll("body *")]
                    .filter(one => one.getBoundingClientRect().right > most + 1)
                    .slice(0, 5).map(one => one.outerHTML.slice(0, 120));
            }"""
        )
        assert wide == [], f"{self.page.url} is wider than the window: {wide}"


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as programs:
        browser = await programs.chromium.launch(executable_path=SHELL, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def place(service: Service) -> AsyncIterator[str]:
    async with page_of(service, Patient()) as found:
        yield found


@pytest.fixture
async def watched(chromium: Browser, service: Service, place: str) -> AsyncIterator[Watched]:
    """Somebody logged in, in a narrow window."""
    context = await chromium.new_context(viewport={"width": 390, "height": 844})
    page = await context.new_page()
    await page.goto(await link_of(service))
    await page.get_by_role("button", name="Log in as").click()
    await page.wait_for_url(f"{place}/")
    yield Watched(page, place)
    await context.close()


async def test_hostile_texts_are_read_as_texts_on_every_page(
    watched: Watched, ledger: Ledger, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = hostile(ledger)

    async def planned(*_: object) -> PlanView:
        return hostile_plan()

    monkeypatch.setattr(service, "planned", planned)
    monkeypatch.setattr("orchestrator.page.routes.plans.approval_lines", lambda _: [ALL])
    release, plan = DIGEST.removeprefix("sha256:"), PLAN.removeprefix("sha256:")
    filled = {"fleet": "edge", "gateway": "edge-1", "verb": "hold", "change": change}
    pages = every_page(filled | {"release": release, "plan": plan})
    more = ["/changes/edge-1", f"/explain?word={change}"]
    without = {pages[name] for name in ("choose", "drills", "examine", "explain", "follow_ups")}
    for path in [*pages.values(), *more]:
        answer = await watched.page.goto(watched.place + path)
        assert answer is not None
        assert answer.status == 200, path
        await watched.fits()
        read = await watched.page.inner_text("main")
        if path not in without:
            assert SEEN[0] in read, path
        assert "forged" not in [await one.inner_text() for one in await watched.page.query_selector_all("b")]
        assert not await watched.page.query_selector_all("iframe, base, #forged, main style, main script")
        assert watched.wrong == [], path


@pytest.mark.sweep
async def test_what_people_ask_for_comes_back_as_text(watched: Watched) -> None:
    for name, text in HOSTILE.items():
        query = httpx.QueryParams({"word": text[:128]})
        await watched.page.goto(f"{watched.place}/explain?{query}")
        await watched.fits()
        assert not await watched.page.query_selector_all("iframe, base, #forged, main style, main script")
        problem = httpx.QueryParams({"gateway": text, "change": text, "to": text, "hold_of": text})
        await watched.page.goto(f"{watched.place}/fleets/edge/orders/hold?{problem}")
        await watched.fits()
        said = [one for one in watched.wrong if "status of 4" not in one]  # what is refused is no surprise
        assert said == [], name


async def test_hostile_texts_stay_texts_when_they_come_live(watched: Watched, ledger: Ledger) -> None:
    change = hostile(ledger)
    await watched.page.goto(f"{watched.place}/fleets/edge")
    told(ledger, change, 1, Event(at=AT, sentence=f"{ALL} and this is new"))
    await watched.page.get_by_text("and this is new").first.wait_for()
    await watched.fits()
    assert SEEN[0] in await watched.page.inner_text("#story")
    assert not await watched.page.query_selector_all("iframe, base, #forged, main style, main script")
    assert watched.wrong == []


async def test_no_text_makes_an_event_of_its_own(place: str, service: Service, ledger: Ledger) -> None:
    hostile(ledger)
    async with httpx.AsyncClient(base_url=place) as browser:
        await log_in(browser, await link_of(service))
        names: list[str] = []
        async with browser.stream("GET", "/fleets/edge/live") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event:"):
                    names.append(line.removeprefix("event:").strip())
                assert line == "" or line.split(":")[0] in {"event", "data"}, line[:80]
                if len(names) == len(REGIONS):
                    break
    assert names == [*REGIONS]


@pytest.mark.parametrize("text", [*HOSTILE.values(), "\ud800 \udfff"], ids=[*HOSTILE, "surrogates"])
def test_no_region_breaks_on_a_text(text: str) -> None:
    made = part("regions/moment.html", taken=AT, trouble=text)
    assert "\r" not in made
    assert made.encode()
    assert "<script>" not in made
