"""The storyboard on the page: two people, a real lab with live users, and Debian's own Chromium."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.browser import Seen, browser, logged_in
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played
from tests.lab.test_standing import HOME, Desk

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

NOBODY = 65534
PEOPLE = """\
api_version: penstock/v1
people:
  - {name: alice, system_users: [root], roles: {lab: [operator, auditor]}}
  - {name: bob, system_users: [nobody], roles: {lab: [approver]}}
"""
SOON, LATER = 20_000, 120_000
"""Milliseconds: what is to be seen at once, and what a release takes to be judged."""


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """A lab whose upgrades need a second person; every user of this host reaches its socket."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-page-"))
    folder.chmod(0o711)
    state = own_state(folder)
    desk = Desk(state)
    with nothing_is_left():
        said = desk("up")
        try:
            assert said.returncode == 0, said.stdout + said.stderr
            files = state / "lab" / "run" / "etc"
            (files / "people.yaml").write_text(PEOPLE)
            fleet = (files / "fleet.yaml").read_text()
            (files / "fleet.yaml").write_text(_approved_by_one(fleet))
            yield desk
        finally:
            desk("down")
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def seen() -> Seen:
    """What the browsers met; pictures stay where a run of these tests leaves them."""
    pictures = HOME / ".state" / "page"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    return Seen(pictures, refusals=("/start", "/approve"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def _approved_by_one(fleet: str) -> str:
    return "\n".join("approvals: 1" if line.startswith("approvals:") else line for line in fleet.splitlines())


def _plan(page: Page, version: str) -> None:
    """Go from the fleets to a plan for the release of that version."""
    page.goto(_at(page, "/fleets/lab"))
    page.goto(_at(page, "/fleets/lab/plan"))
    options = page.get_by_label("Release").locator("option")
    value = next(
        str(one.get_attribute("value")) for one in options.all() if f" {version} " in str(one.text_content())
    )
    page.get_by_label("Release").select_option(value)
    page.get_by_role("button", name="Make the plan").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Plan: lab to {version}")


def _at(page: Page, path: str) -> str:
    return "/".join(page.url.split("/")[:3]) + path


def _say(page: Page, reason: str, button: str) -> None:
    page.get_by_label("Reason, kept in the history").fill(reason)
    page.get_by_role("button", name=button).click()


def _show_progress(page: Page) -> None:
    """Read that the plan was started, and go to its change."""
    expect(page.get_by_role("status")).to_contain_text("started: lab to ")
    page.get_by_role("link", name="Show progress").click()


def test_two_people_bring_out_a_bad_release_that_goes_back_by_itself(
    desk: Desk, seen: Seen, chromium: Browser
) -> None:
    _, alice = logged_in(chromium, seen, desk.state)
    _, bob = logged_in(chromium, seen, desk.state, uid=NOBODY)
    seen.look(alice, "fleets")
    alice.get_by_role("link", name="lab", exact=True).click()
    seen.look(alice, "fleet-quiet")
    _plan(alice, "1.3.0+fix1")
    seen.look(alice, "plan")

    _say(alice, "said to be a small fix", "Start this plan")
    expect(alice.get_by_role("alert")).to_contain_text("approve")
    _say(alice, "my own", "Approve for another operator")
    expect(alice.get_by_role("alert")).to_contain_text("alice may not")
    seen.look(alice, "plan-refused")
    plan = alice.url.removesuffix("/approve")

    bob.goto(plan)
    _say(bob, "read it", "Approve for another operator")
    expect(bob.locator("dl")).to_contain_text("approved by bob")

    alice.goto(plan)
    _say(alice, "said to be a small fix", "Start this plan")
    _show_progress(alice)
    expect(alice.locator("#heading")).to_contain_text("observing", timeout=LATER)
    seen.look(alice, "observing")
    expect(alice.locator("#told")).to_contain_text("rolled back", timeout=LATER)
    expect(alice.locator("#gates")).to_contain_text("connect-success")
    expect(alice.locator("#gates svg.chart").first).to_be_visible()
    seen.look(alice, "rolled-back")
    alice.get_by_role("link", name="lab-2").first.click()
    expect(alice.get_by_role("heading", level=1)).to_have_text("lab-2")
    seen.look(alice, "change")
    assert not seen.errors
    assert not seen.violations


def test_a_change_is_rolled_back_by_a_button_with_javascript_and_without(
    desk: Desk, seen: Seen, chromium: Browser
) -> None:
    _, alice = logged_in(chromium, seen, desk.state)
    _, bob = logged_in(chromium, seen, desk.state, uid=NOBODY)
    _, plain = logged_in(chromium, seen, desk.state, java_script_enabled=False)
    for page, reason in ((alice, "users say that something is odd"), (plain, "no script here")):
        _plan(alice, "1.3.0")
        bob.goto(alice.url)
        _say(bob, "go on", "Approve for another operator")
        _say(alice, "the newer one", "Start this plan")
        _show_progress(alice)
        expect(alice.locator("#heading")).to_contain_text("observing", timeout=LATER)
        page.goto(_at(page, "/fleets/lab"))
        page.get_by_role("link", name="Roll back").click()
        if page is alice:
            seen.look(page, "sheet")
        _say(page, reason, "Roll back lab")
        expect(page.get_by_role("status")).to_contain_text("Rolling back")
        if page is alice:
            seen.look(page, "given")
        page.goto(_at(page, "/fleets/lab"))
        expect(alice.locator("#told")).to_contain_text("rolled back", timeout=LATER)
        alice.goto(_at(alice, "/fleets/lab"))
        expect(alice.locator("#story")).to_contain_text(f"alice: roll back ({reason})")
    counts = json.loads(desk("counts").stdout)
    assert (counts["lost"], counts["pings"]["lost"]) == (0, 0)
    assert not seen.errors
    assert not seen.violations


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gateways", "/fleets/lab/gateways"),
        ("gateway", "/fleets/lab/gateways/gw-1"),
        ("certificates", "/fleets/lab/certificates"),
        ("releases", "/releases"),
        ("audit", "/audit"),
        ("doctor", "/doctor"),
        ("explain", "/explain?word=lab-2"),
    ],
)
def test_what_else_there_is_can_be_read_by_everybody(
    desk: Desk, seen: Seen, chromium: Browser, name: str, path: str
) -> None:
    context, alice = logged_in(chromium, seen, desk.state)
    alice.goto(_at(alice, path))
    expect(alice.get_by_role("heading", level=1)).to_be_visible(timeout=SOON)
    seen.look(alice, name)
    context.close()
    assert not seen.errors
    assert not seen.violations


def test_a_real_drill_is_recorded_and_shown_beside_what_nobody_has_rehearsed(
    desk: Desk, seen: Seen, chromium: Browser
) -> None:
    """Its lab stands beside this one, and its result goes to the API of this one."""
    run = desk.state / "lab" / "run"
    there = {"PENSTOCK_STATE": str(desk.state), "PENSTOCK_SOCKET": str(run / "penstock.sock")}
    with nothing_is_left("psd-"):
        done = played("-m", "orchestrator", "drill", "run", "crash", "--record", more=there)
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # a machine that is busy may be too slow
    assert "Recorded by alice: penstock drill history" in done.stdout, done.stderr
    context, alice = logged_in(chromium, seen, desk.state)
    alice.goto(_at(alice, "/"))
    alice.get_by_role("link", name="Drills").click()
    card = alice.locator("#crash")
    expect(card).to_contain_text("passed: safe after" if done.returncode == 0 else "over budget: safe after")
    expect(card).to_contain_text("recorded by alice")
    expect(card.locator("svg.chart")).to_be_visible()
    expect(alice.locator("#engine-killed")).to_contain_text("never rehearsed")
    card.get_by_text("Steps of the last run").click()
    expect(card).to_contain_text("read back: on known-good")
    seen.look(alice, "drills")
    context.close()
    assert not seen.errors
    assert not seen.violations
