"""A lab that stays up: tried, broken, mended, and gone without a trace."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import preflight
from orchestrator.exit_code import ExitCode
from orchestrator.settings import Settings, state_folder
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played
from tests.lab.readme_commands import STORY

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

HOME = Path(__file__).parents[2]


class Desk:
    """Somebody who types `./run lab ...`."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return played("-m", "deploy.lab.standing", *arguments, state=self.state)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, str]]:
    """A lab, and what was said when it was up."""
    state = own_state(tmp_path_factory.mktemp("state"))
    (state / "penstock.toml").write_text("# a real installation\n")
    desk = Desk(state)
    with nothing_is_left():
        said = desk("up")
        try:
            assert said.returncode == 0, said.stdout + said.stderr
            yield desk, said.stdout
        finally:
            down = desk("down")
        assert down.returncode == 0, down.stdout + down.stderr
        assert "The lab is removed." in down.stdout
        assert "There was no lab." in desk("down").stdout
    left = sorted(path.name for path in state.iterdir())
    assert left == ["lab", "penstock.toml"]
    assert (state / "penstock.toml").read_text() == "# a real installation\n"


@pytest.mark.sweep
def test_it_says_where_it_is_who_one_is_and_what_to_try(up: tuple[Desk, str]) -> None:
    _, said = up
    assert "penstock.sock" in said
    assert "Login     none needed" in said
    assert said.count("./run lab ") >= 6


@pytest.mark.sweep
def test_whatever_it_keeps_lies_in_a_folder_of_its_own(up: tuple[Desk, str]) -> None:
    desk, _ = up
    own = desk.state / "lab"
    written = tomllib.loads((own / Settings.file.name).read_text())
    kept = [
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, Path) and field.default.is_relative_to(state_folder())
    ]
    assert "audit_late" in kept
    assert [name for name in kept if not Path(written.get(name, "/")).is_relative_to(own)] == []


@pytest.mark.sweep
def test_its_users_count_their_own_sessions_and_pings(up: tuple[Desk, str]) -> None:
    desk, _ = up
    found = json.loads(desk("counts").stdout)
    assert found["up"] == 24
    assert found["lost"] == 0
    assert found["pings"]["lost"] == 0


@pytest.mark.sweep
def test_its_installation_is_asked_as_any_other(up: tuple[Desk, str]) -> None:
    desk, _ = up
    found = json.loads(desk("penstock", "fleet", "show", "-o", "json").stdout)
    assert found["data"]["standing"]["taking"] == 4
    assert json.loads(desk("penstock", "whoami", "-o", "json").stdout)["data"]["person"] == "root"


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "gateway"), [("agent", "gw-2"), ("metrics", ""), ("steering", "gw-1")])
def test_what_is_broken_is_mended(kind: str, gateway: str, up: tuple[Desk, str]) -> None:
    desk, _ = up
    where = [gateway] if gateway else []
    assert desk("mend", kind, *where).returncode == ExitCode.CONFLICT
    broken = desk("break", kind, *where)
    assert broken.returncode == 0, broken.stderr
    again = desk("break", kind, *where)
    assert again.returncode == ExitCode.CONFLICT
    assert f"./run lab mend {kind}" in again.stderr
    mended = desk("mend", kind, *where)
    assert mended.returncode == 0, mended.stderr
    assert json.loads(desk("counts").stdout)["lost"] == 0


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("break", "agent"), "say of which gateway"),
        (("break", "agent", "gw-99"), "say of which gateway"),
        (("break", "engine", "gw-1"), "leave gw-1 out"),
        (("break", "everything"), "invalid choice"),
        (("sideways",), "invalid choice"),
        ((), "required"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_does(
    arguments: tuple[str, ...], said: str, up: tuple[Desk, str]
) -> None:
    desk, _ = up
    refused = desk(*arguments)
    assert refused.returncode == ExitCode.USAGE
    assert said in refused.stderr


@pytest.mark.sweep
def test_there_is_one_lab_at_a_time(up: tuple[Desk, str]) -> None:
    desk, _ = up
    again = desk("up")
    assert again.returncode == ExitCode.CONFLICT
    assert "./run lab down removes it" in again.stderr


@pytest.mark.sweep
def test_it_is_found_and_asked_whatever_installation_the_environment_names(
    up: tuple[Desk, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = up
    monkeypatch.setenv("PENSTOCK_LEDGER_URL", "sqlite:////nowhere/of-another-installation.db")
    monkeypatch.setenv("PENSTOCK_FLEET", "/nowhere/fleet.yaml")
    itself = Desk(desk.state / "lab")  # as people set it to type penstock without ./run lab
    assert json.loads(itself("counts").stdout)["lost"] == 0
    checked = itself("penstock", "check", "-o", "json")
    assert checked.returncode == 0, checked.stdout
    assert all(one["file"].startswith(str(desk.state)) for one in json.loads(checked.stdout)["data"])


def test_without_a_lab_every_verb_says_how_to_get_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for arguments in (("counts",), ("break", "engine"), ("mend", "engine")):
        refused = desk(*arguments)
        assert refused.returncode == ExitCode.CONFLICT
        assert "./run lab up makes one" in refused.stderr


@pytest.mark.sweep
@pytest.mark.timeout(600)  # seventy processes of the command line, one after the other, and windows
def test_the_commands_of_the_readme_do_what_it_says_on_a_live_fleet(
    up: tuple[Desk, str], tmp_path: Path
) -> None:
    desk, greeting = up
    newer = re.search(r"upgrade start --to (\S+)", greeting)
    assert newer is not None, greeting
    found = {"folder": str(tmp_path), "newer": newer[1]}
    for typed in STORY:
        said = desk("penstock", *typed.command.split(" "), *typed.words(found))
        told = f"{typed.command}: {said.returncode}\n{said.stdout}\n{said.stderr}"
        assert said.returncode in typed.codes, told
        assert "Traceback" not in said.stderr, told
        for name, pattern in (typed.remembers or {}).items():
            match = re.search(pattern, said.stdout, re.MULTILINE)
            assert match is not None, told
            found[name] = match[1] or ""
    assert json.loads(desk("counts").stdout)["lost"] == 0


@pytest.mark.sweep
def test_a_file_that_undoes_a_rollback_is_refused_until_a_person_says_so(
    up: tuple[Desk, str], tmp_path: Path
) -> None:
    desk, _ = up
    releases = json.loads(desk("penstock", "release", "list", "-o", "json").stdout)["data"]
    [bad] = [one["release"] for one in releases if one["release"]["version"].endswith("+fix1")]
    lines = (
        "kind: Upgrade",
        "fleet: lab",
        f"release: {bad['digest']}",
        "reason: a fix",
        "start: on-approval",
    )
    (tmp_path / "upgrade.yaml").write_text("\n".join(lines))
    applied = desk("penstock", "apply", str(tmp_path), "--wait")
    assert applied.returncode == ExitCode.ROLLED_BACK, applied.stdout + applied.stderr
    again = desk("penstock", "apply", str(tmp_path))
    assert again.returncode == ExitCode.REFUSED, again.stdout
    assert f"lab is pinned against {bad['version']}: lab-" in again.stderr
    assert "PINNED" in desk("penstock", "status").stdout
    assert bad["digest"] not in _additions(desk("penstock", "diff", str(tmp_path), "--as-patch").stdout)
    said = desk("penstock", "unpin", "--reason", "the authenticator was at fault")
    assert said.returncode == 0, said.stderr
    assert json.loads(desk("counts").stdout)["lost"] == 0


def _additions(patch: str) -> str:
    lines = [line for line in patch.splitlines() if line.startswith("+release: ")]
    assert len(lines) == 1, patch
    return lines[0]
