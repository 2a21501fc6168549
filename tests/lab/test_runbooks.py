"""Every page of the runbooks is typed in a lab with its fault, and people see what it says."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import preflight
from deploy.lab.keeper import KINDS
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.runbook_commands import typed_elsewhere
from tests.lab.runbook_pages import PAGES, Typed, difference, prepared, step_of, typed

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(300),
]

HOME = Path(__file__).parents[2]
PREFIX = "psr-"
UP_WITHIN, SAYS_WITHIN, TYPED_WITHIN, LOOK_EVERY = 240.0, 60.0, 120.0, 0.3
USUAL = {"held-decide", "rollback-incomplete", "agent-silent"}
"""Pages that are typed in the usual tests; the others are in the sweep."""
PAGES_CANARY = "gw-1"
"""How pages call the gateway that a change begins with."""


class Desk:
    """Whoever has the fleet: types what a page says, and does to the lab what it begins with."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._broken: list[list[str]] = []
        self._canary = PAGES_CANARY

    def lab(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Do what people do to a lab with `./run lab`."""
        return self._run([sys.executable, "-m", "deploy.lab.standing", *arguments], self.state)

    def types(self, command: str, *, on_host: bool = False) -> "subprocess.CompletedProcess[str]":
        """Type a line of a page, for the lab's fleet instead of edge; penstock itself as the page has it.

        A page calls the gateway gw-1 that a change begins with, which a plan chooses anew for each release:
        the names of these two change places in what is typed and in what it says.
        """
        line = self._named_here(re.sub(r"\bedge\b", "lab", command))
        agent = self.state / f"lab/run/etc/agents/{self._canary}.yaml"
        line = line.replace("/etc/penstock/agent.yaml", str(agent))
        line = line.replace("/etc/penstock/", f"{self.state}/lab/run/etc/")
        line = line.replace("/srv/backup/", f"{self.state}/backup-")
        line = line.replace("gates.yaml", str(HOME / "deploy/prometheus/gates.yaml"))
        inside = ["nsenter", f"--net=/run/netns/{PREFIX}{self._canary}"] if on_host else []
        done = self._run([*inside, "sh", "-c", line], self.state / "lab")
        done.stdout, done.stderr = self._named_here(done.stdout), self._named_here(done.stderr)
        return done

    def prepare(self, steps: list[str]) -> None:
        """Do what a page begins with."""
        for step in steps:
            word, _, rest = step.partition(" ")
            if word == "break":
                broken = self._named_here(rest).split()
                struck = self.lab("break", *broken)
                assert struck.returncode == 0, struck.stderr
                self._broken.append(broken)
            elif word == "$":
                command, code = step_of(rest)
                done = self.types(command)
                assert done.returncode == code, (
                    f"{command}: [exit {done.returncode}]\n{done.stdout}{done.stderr}"
                )
            else:
                assert word == "until", f"nobody knows how to {step}"
                words, command = rest.split(": ", 1)
                self._until(words, command)
                self._canary = self._first_on_trial() or self._canary

    def tidy(self) -> None:
        """Have the lab as it was: nothing is broken, nothing under way, nobody left out."""
        for broken in reversed(self._broken):
            self.lab("mend", *broken)
        self._broken.clear()
        self._canary = PAGES_CANARY
        deadline = time.monotonic() + SAYS_WITHIN
        while time.monotonic() < deadline:
            status = json.loads(self.types("penstock status edge -o json").stdout or "{}").get("data")
            if status is None:
                time.sleep(1)  # the API comes back when what it rests on is there
            elif status["change"]["phase"] != "ended":
                self.types('penstock rollback edge --reason "the page is over" --wait --timeout 60s')
            elif out := status["standing"]["quarantined"]:
                self.types(f'penstock gateway return edge {min(out)} --reason "the page is over"')
            else:
                return
        raise AssertionError(f"the lab is not as it was: {status}")

    def _named_here(self, text: str) -> str:
        """Return a page's text with this lab's names of gateways, and the other way round."""
        other = {PAGES_CANARY: self._canary, self._canary: PAGES_CANARY}
        return re.sub(r"\bgw-\d+\b", lambda found: other.get(found[0], found[0]), text)

    def _first_on_trial(self) -> str | None:
        """Return the gateway that the change under way has begun with, None where none is on trial."""
        done = self._run(["penstock", "status", "lab", "-o", "json"], self.state / "lab")
        change = (json.loads(done.stdout or "{}").get("data") or {}).get("change") or {}
        rows = change.get("gateways", ())
        return next((row["gateway"] for row in rows if row["state"] == "on trial"), None)

    def _until(self, words: str, command: str) -> None:
        deadline, said = time.monotonic() + SAYS_WITHIN, ""
        while words not in said:
            assert time.monotonic() < deadline, f"{command} never said {words!r}; it said {said}"
            done = self.types(command)
            said = done.stdout + done.stderr
            time.sleep(LOOK_EVERY)  # each look takes a processor from what is waited for

    def _run(self, command: list[str], state: Path) -> "subprocess.CompletedProcess[str]":
        others = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        path = f"{Path(sys.executable).parent}:{others['PATH']}"
        return subprocess.run(
            command,
            cwd=HOME,
            env={**others, "PATH": path, "PENSTOCK_STATE": str(state)},
            capture_output=True,
            text=True,
            timeout=TYPED_WITHIN,
            check=False,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A lab that all pages share, under a prefix of its own: another lab may be up beside it."""
    state = own_state(tmp_path_factory.mktemp("state"))
    folder = state / "lab"
    with nothing_is_left():
        keeper = subprocess.Popen(
            [sys.executable, "-m", "deploy.lab.standing", "keep", "--prefix", PREFIX],
            cwd=HOME,
            env={**os.environ, "PENSTOCK_STATE": str(state)},
            stdout=(folder / "keeper.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        (folder / "keeper.pid").write_text(f"{keeper.pid}\n")
        try:
            _wait_until_up(folder, keeper)
            yield Desk(state)
        finally:
            keeper.terminate()
            keeper.wait(60)


def _wait_until_up(folder: Path, keeper: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + UP_WITHIN
    while True:
        said = (folder / "up.log").read_text() if (folder / "up.log").exists() else ""
        if "\nready: " in said:
            return
        assert keeper.poll() is None, said + (folder / "keeper.log").read_text()
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


def _marked(page: Path) -> object:
    return pytest.param(page, id=page.stem, marks=[] if page.stem in USUAL else [pytest.mark.sweep])


def _here(page: Path) -> list[Typed]:
    """Return the commands of the page that are typed in this lab."""
    return [
        one for one in typed(page) if typed_elsewhere(page.stem, one.command, on_host=one.on_host) is None
    ]


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES])
def test_whoever_types_a_page_sees_what_it_says(page: Path, desk: Desk) -> None:
    try:
        desk.prepare(prepared(page))
        for one in _here(page):
            done = desk.types(one.command, on_host=one.on_host)
            said = re.sub(
                r"\blab\b", "edge", done.stdout or done.stderr
            )  # what it waits for is told beside it
            assert done.returncode == one.code, f"{one.command}: [exit {done.returncode}]\n{said}"
            assert (found := difference(one.expected, said)) is None, f"{one.command}: {found}"
    finally:
        desk.tidy()
    assert json.loads(desk.lab("counts").stdout)["lost"] == 0


def test_every_fault_that_a_page_begins_with_is_one_that_people_can_have() -> None:
    struck = [step.split()[1] for page in PAGES for step in prepared(page) if step.startswith("break ")]
    assert struck
    assert set(struck) <= set(KINDS)
