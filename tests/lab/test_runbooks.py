"""Every page of the runbooks is typed in a lab with its fault, and people see what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.lab import preflight
from deploy.lab.keeper_words import KINDS
from deploy.lab.lab import DEMO
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.runbook_commands import typed_elsewhere
from tests.lab.runbook_pages import FOLDER, PAGES, difference, in_order, prepared, step_of

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(300),
]

HOME = Path(__file__).parents[2]
PREFIX = "psk-"
UP_WITHIN, SAYS_WITHIN, TYPED_WITHIN, LOOK_EVERY = 240.0, 90.0, 120.0, 0.3
TIDY_WITHIN = 120.0
GATEWAYS = DEMO.gateways
PEOPLE = {"ana": (61_001, ["operator", "approver"]), "ben": (61_002, ["approver"])}
"""Who is known in the lab besides root: as which user of the host, and what they may do."""
AS_SOMEBODY = ["--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
"""Another user of the host, who yet finds a lab's files where only root may look."""
PAGES_CANARY = "gw-1"
"""How pages call the gateway that a change begins with."""


class Desk:
    """Whoever has the fleet: types what a page says, and does to the lab what it begins with."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._broken: list[list[str]] = []
        self._mended = False
        """Whether something that was broken has been mended, and may not be back yet."""
        self._canary = PAGES_CANARY
        self._digest = ""
        self._fleet_file = self.state / "lab/run/etc/fleet.yaml"
        self._described: str | None = None
        found = self._run(["penstock", "status", "lab", "-o", "json"], self.state / "lab").stdout
        (self._version,) = json.loads(found)["data"]["standing"]["versions"]
        known = [
            {"name": name, "system_users": [f"uid:{user}"], "roles": {"lab": roles}}
            for name, (user, roles) in PEOPLE.items()
        ]
        file = self._fleet_file.with_name("people.yaml")
        file.write_text(json.dumps({"apiVersion": "penstock/v1", "people": known}))
        file.chmod(0o600)

    def lab(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Do what people do to a lab with `./run lab`."""
        return self._run([sys.executable, "-m", "deploy.lab.standing", *arguments], self.state)

    def types(
        self, command: str, *, on_host: bool = False, person: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Type a line of a page, for the lab's fleet instead of edge; penstock itself as the page has it.

        A page calls the gateway gw-1 that a change begins with, which a plan chooses anew for each release:
        the names of these two change places in what is typed and in what it says.
        """
        line = self._named_here(re.sub(r"\bedge\b", "lab", command))
        agent = self.state / f"lab/run/etc/agents/{self._canary}.yaml"
        line = line.replace("/etc/penstock/agent.yaml", str(agent))
        line = line.replace("/etc/penstock/", f"{self.state}/lab/run/etc/")
        line = line.replace("/var/lib/penstock-orchestrator/ledger.db", f"{self.state}/lab/ledger.db")
        for folder in ("penstock-orchestrator", "penstock-evidence"):
            line = line.replace(f"/var/lib/{folder}/", f"{self.state}/lab/run/")
        line = line.replace("/srv/backup/", f"{self.state}/backup-")
        line = line.replace("gates.yaml", str(HOME / "deploy/prometheus/gates.yaml"))
        line = line.replace("DIGEST", self._digest)
        inside = ["nsenter", f"--net=/run/netns/{PREFIX}{self._canary}"] if on_host else []
        inside += ["setpriv", f"--reuid={PEOPLE[person][0]}", *AS_SOMEBODY] if person else []
        done = self._run([*inside, "sh", "-c", line], self.state / "lab")
        if planned := re.search(r"\bdigest ([0-9a-f]+)", done.stdout):
            self._digest = planned[1]
        done.stdout, done.stderr = self._named_here(done.stdout), self._named_here(done.stderr)
        return done

    def prepare(self, step: str) -> None:
        """Do to the lab what a page says in a comment."""
        word, _, rest = step.partition(" ")
        if word == "break":
            broken = self._named_here(rest).split()
            struck = self.lab("break", *broken)
            assert struck.returncode == 0, struck.stderr
            self._broken.append(broken)
        elif word == "mend":
            mended = self._named_here(rest).split()
            done = self.lab("mend", *mended)
            assert done.returncode == 0, done.stderr
            self._broken.remove(mended)
            self._mended = True
        elif word.endswith("$"):
            command, code = step_of(rest)
            done = self.types(command, person=word[:-1] or None)
            assert done.returncode == code, f"{command}: [exit {done.returncode}]\n{done.stdout}{done.stderr}"
        elif word == "file":
            self._describe(rest)
        else:
            assert word == "until", f"nobody knows how to {step}"
            words, command = rest.split(": ", 1)
            self._until(words, command)
            self._canary = self._first_on_trial() or self._canary

    def tidy(self) -> None:
        """Have the lab as it was: nothing is broken, nothing under way, nobody left out."""
        was_broken, self._mended = bool(self._broken) or self._mended, False
        for broken in reversed(self._broken):
            self.lab("mend", *broken)
        self._broken.clear()
        for name in self.types("penstock window freeze list edge -o name").stdout.split():
            self.types(f'penstock window freeze remove edge --name {name} --reason "the page is over"')
        self._describe_again()  # its rules for ways back, too: nobody else is asked for what follows
        self._canary = PAGES_CANARY
        for kept in self.state.glob("backup-*"):
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
        over = '--reason "the page is over"'
        deadline = time.monotonic() + TIDY_WITHIN
        while time.monotonic() < deadline:
            status = json.loads(self.types("penstock status edge -o json").stdout or "{}").get("data")
            if status is None:
                time.sleep(1)  # the API comes back when what it rests on is there
            elif status["change"]["phase"] != "ended":
                self.types(f"penstock rollback edge {over} --wait --timeout 60s")
            elif out := status["standing"]["quarantined"] | status["standing"]["ejected"]:
                self.types(f"penstock gateway return edge {min(out)} {over}")
            elif status["standing"]["versions"] != [self._version]:
                self.types(f"penstock rollback edge --to {self._version} {over} --wait --timeout 60s")
            elif not was_broken or self._is_whole():
                return
        raise AssertionError(f"the lab is not as it was: {status}")

    def _is_whole(self) -> bool:
        """Whether every gateway answers, and does what it did: agents that were away are back."""
        done = self.types("penstock fleet drift edge")
        return done.returncode == 0 and f"the {GATEWAYS} gateways" in done.stdout

    def _describe(self, said: str) -> None:
        """Have the fleet's file say something besides what it says."""
        before = self._fleet_file.read_text()
        self._described = self._described or before
        fleet = yaml.safe_load(before)
        for key, value in yaml.safe_load(said).items():
            one = fleet.get(key)
            fleet[key] = {**one, **value} if isinstance(one, dict) and isinstance(value, dict) else value
        self._fleet_file.write_text(yaml.safe_dump(fleet, sort_keys=False))

    def _describe_again(self) -> None:
        """Have the fleet's file say what it said before the page."""
        if self._described is not None:
            self._fleet_file.write_text(self._described)
            self._described = None

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


def _typed_through(page: Path, desk: Desk) -> None:
    """Do what the page begins with, type it, and have the lab as it was."""
    try:
        for one in in_order(page):
            if isinstance(one, str):
                desk.prepare(one)
                continue
            if typed_elsewhere(page.stem, one.command, on_host=one.on_host) is not None:
                continue
            done = desk.types(one.command, on_host=one.on_host, person=one.person)
            said = done.stdout or done.stderr  # what it waits for is told beside it
            said = re.sub(r"\blab\b", "edge", said)
            assert done.returncode == one.code, f"{one.command}: [exit {done.returncode}]\n{said}"
            assert (found := difference(one.expected, said)) is None, f"{one.command}: {found}"
    finally:
        desk.tidy()


@pytest.mark.sweep
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_whoever_types_a_page_sees_what_it_says(page: Path, desk: Desk) -> None:
    _typed_through(page, desk)
    assert json.loads(desk.lab("counts").stdout)["lost"] == 0


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("said", "instead", "noticed"),
    [
        ("+ dns = 10.0.0.300", "+ dns = 10.0.0.301", "no line says 'gw-1 settings of"),
        ("[exit 10]\n", "", re.escape("penstock fleet drift edge: [exit 10]")),
    ],
    ids=["line", "code"],
)
def test_a_page_that_says_something_else_than_the_lab_fails(
    said: str, instead: str, noticed: str, desk: Desk, tmp_path: Path
) -> None:
    text = (FOLDER / "settings-stuck.md").read_text()
    assert said in text
    page = tmp_path / "settings-stuck.md"
    page.write_text(text.replace(said, instead, 1))
    with pytest.raises(AssertionError, match=noticed):
        _typed_through(page, desk)


def test_every_fault_that_a_page_begins_with_is_one_that_people_can_have() -> None:
    struck = [
        step.split()[1] for page in PAGES for step in prepared(page) if step.startswith(("break ", "mend "))
    ]
    assert struck
    assert set(struck) <= set(KINDS)
