"""`./run picture`: the pictures of the README, of a bad release that goes back in a lab."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme

from orchestrator.cli.screens import fleet_frame
from orchestrator.exit_code import ExitCode

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium-headless-shell"
WIDTH, HEIGHT = 1280, 980
SHARPNESS = 1.5
"""Pixels of a picture for each of the page's, so that it is sharp where it is shown larger or smaller."""
FOREIGN_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""Fonts that Rich has an SVG fetch from another host; a picture asks nobody for anything."""
EVERYBODY_COUNTED = 60_000.0
"""Milliseconds until the exporters of the whole lab have been asked after the rollback."""
COLUMNS = 100
BAD_RELEASE = "1.3.0+fix1"
THEMES: dict[str, TerminalTheme] = {"light": DEFAULT_TERMINAL_THEME, "dark": DIMMED_MONOKAI}


def penstock(*arguments: str, ends: ExitCode = ExitCode.DONE) -> Any:
    """Type a command of the lab's installation, and return its last answer, which is a line of JSON.

    Raises:
        RuntimeError: It ends otherwise than it must.
    """
    done = _lab("penstock", *arguments, "-o", "jsonl")
    if done.returncode != ends:
        raise RuntimeError(f"penstock {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["data"]


@contextmanager
def standing() -> Iterator[None]:
    """Have a lab up for the length of the body."""
    up = _lab("up")
    try:
        if up.returncode:
            raise RuntimeError(f"the lab did not come up: {up.stderr}")
        yield
    finally:
        _lab("down")


def _lab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.lab.standing", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)


def draw_terminal(status: Any) -> None:
    """Write what `penstock status` shows, as SVG."""
    for name, theme in THEMES.items():
        console = Console(record=True, width=COLUMNS, highlight=False, file=StringIO())
        console.print(fleet_frame(status))
        drawn = console.export_svg(title=f"penstock status {status['fleet']}", theme=theme)
        (FOLDER / f"status-{name}.svg").write_text(FOREIGN_FONT.sub("", drawn))


def draw_page(browser: Browser, link: str, fleet: str) -> None:
    """Write what the page of the fleet shows, in both themes."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SHARPNESS)
    page.goto(link)
    page.get_by_role("button", name="Log in as").click()
    page.goto("/".join([*link.split("/")[:3], "fleets", fleet]))
    page.locator("#gates svg.chart").first.wait_for()
    page.get_by_text("Counted on 4 of 4 gateways.").wait_for(timeout=EVERYBODY_COUNTED)
    for name in THEMES:
        page.emulate_media(color_scheme="dark" if name == "dark" else "light")
        page.screenshot(path=FOLDER / f"page-{name}.png")


def main() -> int:
    """Make the pictures; return the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with standing():
        why = ("--reason", "said to be a small fix")
        penstock("upgrade", "start", "--to", BAD_RELEASE, *why, "--wait", ends=ExitCode.ROLLED_BACK)
        status = penstock("status", ends=ExitCode.ROLLED_BACK)
        link = penstock("page")["url"]
        draw_terminal(status)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            draw_page(browser, link, status["fleet"])
            browser.close()
    for path in sorted(FOLDER.iterdir()):
        sys.stdout.write(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1024:.0f} KiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
