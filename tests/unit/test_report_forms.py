"""Reports as HTML and Markdown: what people and daemons wrote is text, and nobody is asked for anything."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from markdown_it import MarkdownIt
from playwright.async_api import Browser, async_playwright

from orchestrator.reporting.markdown import code, plain
from orchestrator.reporting.render import as_html, as_markdown, is_final
from orchestrator.words.reports import losses_line, losses_sentence
from policies.model.audit import AuditHead
from policies.model.change import ChangeKind, HistoryRow, Outcome
from policies.model.follow_up import Cause, FollowUp
from policies.model.sample import Sample
from policies.model.status import Event
from policies.model.value import digest_of
from policies.model.verdict import Action, Against, GateReading, GateVerdict
from policies.reporting.report import AuditLine, ChangeReport, DecisionLine, TestLine, Totals, Users
from policies.reporting.split import Moment, Step, split

AT = datetime(2026, 11, 24, 1, 2, tzinfo=UTC)
CHROMIUM = Path("/usr/bin/chromium-headless-shell")
HOSTILE = (
    "two lines\n\x1b[31mred\u202e",
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "</title></svg><svg onload=alert(1)>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% raw %}",
    "[click](javascript:alert(1)) ![x](http://elsewhere.example/x.png)",
    "https://elsewhere.example/?q=1 www.elsewhere.example a@elsewhere.example",
    "<https://elsewhere.example> <a@elsewhere.example>",
    "a | b | c\n| d |\n\n# heading\n---\n> quote",
    "`code` ``two`` **bold** __bold__ ~~gone~~ *it* _it_ $x$ &lt;b&gt; &#60;",
    "- item",
    "1. one",
    "=====",
    "\x1b[31mred\x07 \u202eright to left \x00 \ud800",
    "<!-- comment --><base href=//elsewhere.example>",
    "\\` \\| \\[x](y)",
    "```\nfence",
    "[a]: http://elsewhere.example",
    "x" * 3000,
)
"""What people, daemons and signers can write into reasons, events, log lines and changelogs."""


def report(said: str) -> ChangeReport:
    """Return a report in which this is written wherever anybody's words are."""
    text = said or "nothing"
    numbers = {"canary_bad": 11.0, "canary_total": 150.0, "control_bad": 19.0, "control_total": 1350.0}
    reading = GateReading(
        gate=text, verdict=GateVerdict.UNHEALTHY, reason=text, numbers=numbers, against=Against.CONTROL
    )
    samples = tuple(
        Sample(
            at=AT + timedelta(seconds=15 * tick),
            wave=1,
            gate=text,
            verdict=GateVerdict.UNHEALTHY,
            numbers={**numbers, "canary_bad": float(tick)},
        )
        for tick in range(12)
    )
    return ChangeReport(
        made_at=AT,
        record=HistoryRow(
            name="edge-1",
            number=1,
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by=text,
            reason=text,
            release=text,
            release_digest=digest_of(b"release"),
            began=AT,
            ended=AT,
            outcome=Outcome.ROLLED_BACK,
            sentence=text,
            standing=text,
        ),
        label=text,
        what=text,
        touched=text,
        why=text,
        users=Users(
            gateways=1,
            losses=(AuditLine(at=AT.isoformat(), person=text, what=text, sentence=text),),
            gate=text,
            bad=11,
            total=150,
        ),
        counts={text: 1},
        aside={text: text},
        incomplete={text: text},
        split=split([Step(moment=moment, at=AT, source=text) for moment in Moment]),
        timeline=(Event(at=AT, sentence=text),),
        decisions=(
            DecisionLine(
                at=AT + timedelta(seconds=165),
                wave=1,
                action=Action.ROLL_BACK,
                verdict=GateVerdict.UNHEALTHY,
                reason=text,
                failed=(text,),
            ),
        ),
        decided=1,
        readings=(reading,),
        samples=samples,
        sampled="from the samples in the ledger",
        margins={text: 0.02},
        signers=(text,),
        source=text,
        changelog=text,
        approvals=(AuditLine(at=AT.isoformat(), person=text, what=text, sentence=text),),
        tests=(TestLine(at=AT.isoformat(), gateway=text, sentence=text),),
        audit=AuditHead(seq=4711),
        cause=Cause(change="edge-1", text=text, person=text, at=AT),
        follow_ups=(
            FollowUp(
                change="edge-1",
                number=1,
                fleet="edge",
                text=text,
                owner=text,
                due=date(2026, 11, 30),
                person=text,
                at=AT,
            ),
        ),
        of=Totals(events=1, decisions=1),
    )


def document(said: str) -> Any:
    """Return the report as the API answers it; what JSON cannot carry is read by nobody."""
    return report(said.encode(errors="replace").decode()).model_dump(mode="json")


class _Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, frozenset[str]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, frozenset(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> _Tags:
    found = _Tags()
    found.feed(page)
    return found


@pytest.mark.parametrize("said", HOSTILE)
def test_what_anybody_wrote_makes_no_tag_and_no_attribute_in_the_page(said: str) -> None:
    calm, hostile = parsed(as_html(document("calm"))), parsed(as_html(document(said)))
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in calm.tags}
    assert {names for _, names in hostile.tags} == {names for _, names in calm.tags}
    # Charts leave words out that have no room, and draw the same.
    assert [tag for tag, _ in hostile.tags if tag != "text"] == [tag for tag, _ in calm.tags if tag != "text"]
    assert "\x1b" not in hostile.text


@pytest.mark.parametrize("said", HOSTILE)
def test_what_anybody_wrote_is_only_text_in_markdown(said: str) -> None:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    lines = [line for line in document(said)["changelog"].splitlines() if line.strip()]
    calm = reader.render(as_markdown(document("\n".join("calm" for _ in lines))))
    shown = reader.render(as_markdown(document(said)))
    tags = re.findall(r"<[^>]*>", shown)
    without_code = [tag for tag in tags if tag not in {"<code>", "</code>"}]
    assert without_code == re.findall(r"<[^>]*>", calm)
    for bare in (r"(?<!`)https?://", r"(?<![`\w.:/@=?])www\."):
        for line in as_markdown(document(said)).splitlines():
            assert not re.search(bare, re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line))


@pytest.mark.parametrize("said", HOSTILE)
def test_a_line_of_markdown_shows_what_was_written(said: str) -> None:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    shown = parsed(reader.render(plain(said))).text.strip()
    wanted = " ".join(
        "".join(one if one.isprintable() else "\ufffd" for one in " ".join(said.split())).split()
    )
    assert wanted in {shown, shown.replace("\\|", "|")}  # in code a bar has its mark outside of tables, too
    assert "\n" not in plain(said)
    assert "\n" not in code(said)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        await found.close()


needs_a_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium-headless-shell")


@needs_a_browser
async def test_a_page_opened_from_disk_runs_nothing_asks_nobody_and_says_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    page = await (await browser.new_context(offline=True)).new_page()
    heard = list[str]()
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: heard.append(request.url))
    page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
    for number, said in enumerate(HOSTILE):
        path = tmp_path / f"{number}.html"
        path.write_text(as_html(document(said)))
        heard.clear()
        await page.goto(path.as_uri())
        await page.mouse.move(200, 200)
        assert heard == [path.as_uri()], said
        assert "11 of 150" in await page.inner_text("main")


@needs_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_a_page_fits_every_screen_and_every_reader(
    browser: Browser, tmp_path: Path, width: int, scheme: Any
) -> None:
    path = tmp_path / "report.html"
    path.write_text(as_html(document("logins: 11 of 150 bad " + "a-long-name-without-a-place-to-break" * 3)))
    # Only the looking itself goes past the page's own policy.
    context = await browser.new_context(
        bypass_csp=True, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page = await context.new_page()
    await page.goto(path.as_uri())
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_while_old_sessions_last_nobody_says_that_nobody_was_cut() -> None:
    said = document("calm")
    said["users"] |= {"losses": [], "failed": False, "until": None}
    assert losses_line(said) == "0 users cut"
    assert is_final(as_html(said))
    said["final"] = False
    assert "so far: old sessions may still end" in losses_sentence(said)
    assert "while old sessions may still end" in as_markdown(said)
    assert not is_final(as_html(said))
    said["users"]["until"] = "2026-11-24T09:02:00+00:00"
    assert losses_line(said) == "0 users cut so far"
    assert "so far: old sessions may last until 2026-11-24 09:02" in losses_sentence(said)
    assert "so far" in as_html(said)
    said["users"]["failed"] = True
    assert losses_line(said) == "users cut not known"
