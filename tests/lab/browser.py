"""People who look at the page of a lab in Debian's own Chromium, and what they saw."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    sync_playwright,
)

from tests.service.system_user import SystemUser

CHROMIUM = "/usr/bin/chromium-headless-shell"
WIDE, NARROW = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)


@dataclass
class Seen:
    """What went wrong in browsers, and where pictures of them are kept."""

    pictures: Path
    refusals: tuple[str, ...] = ()
    """Ends of addresses at which forms are refused on purpose: the console tells of their status."""
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        """Note what the console says."""
        if "status of 4" in message.text and message.location["url"].endswith(self.refusals):
            return
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.page.url if message.page else ''}: {message.text}")

    def look(self, page: Page, name: str) -> None:
        """Keep pictures of the page in both themes and at both widths, and what a screen reader misses."""
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size in (WIDE, NARROW):
                page.set_viewport_size(size)
                page.screenshot(path=self.pictures / f"{name}-{scheme}-{size['width']}.png", full_page=True)
                wider = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
                if wider > 0:
                    self.violations.append(f"{name} at {size['width']}: {wider} pixels too wide")
            found = Axe().run(page)
            for one in found.response["violations"]:
                self.violations.append(f"{name} {scheme}: {one['id']}: {one['nodes'][0]['html']}")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser for the length of the body."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()


def logged_in(
    browser: Browser, seen: Seen, state: Path, uid: int = 0, **options: Any
) -> tuple[BrowserContext, Page]:
    """Return a browser of its own, logged in by a link that this user of the host has asked for."""
    person = SystemUser(state / "lab" / "run" / "penstock.sock", uid)
    status, link = person.ask("POST", "/login/links", {}, secrets.token_hex(8))
    assert status == 201, link
    context = browser.new_context(viewport=WIDE, **options)
    page = context.new_page()
    page.on("console", seen.heard)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(link["url"])
    page.get_by_role("button", name="Log in as").click()
    return context, page
