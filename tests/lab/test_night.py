"""The night as a stranger plays it: nobody types, and in the morning everything is told."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import preflight, synapse
from deploy.lab.synapse import FOLDER
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def homeserver() -> Path:
    why = synapse.why_not_here()
    if why is not None:
        pytest.skip(why)
    return FOLDER


def started(folder: Path, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program of the lab, whose state is in that folder."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=HOME,
        env={**os.environ, "PENSTOCK_STATE": str(folder / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def night(folder: Path) -> subprocess.Popen[str]:
    own_state(folder / "state")
    return started(folder, "deploy.lab", "--scenario", "night", "--json", str(folder / "out.json"))


def said_until(process: subprocess.Popen[str], words: str) -> str:
    """Return what it has said once it has said that."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was never said:\n{said}")


@pytest.fixture(scope="module")
def told(homeserver: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("night")
    with nothing_is_left():
        process = night(folder)
        said, _ = process.communicate(timeout=HANGS_AFTER - 100)
    assert process.returncode == 0, said
    (story,) = json.loads((folder / "out.json").read_text())["stories"]
    found: dict[str, Any] = story
    return found


def test_a_release_on_which_logins_fail_goes_back_at_night_and_nobody_is_cut(told: dict[str, Any]) -> None:
    assert (told["outcome"], told["exit"]) == ("rolled_back", 3)
    assert told["decision"]["verdict"] == "unhealthy"
    assert told["sessions"] == {"before": 24, "after": 24, "lost": 0}
    assert told["pings"]["lost"] == 0


def test_it_waits_for_its_window_and_begins_when_that_opens(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert "lab is closed: next opening" in seen["refused"]
    assert "waiting for its window" in seen["waits"]
    assert "after the window opened" in seen["opened"]


def test_the_thread_of_its_card_tells_the_night_in_its_order(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert len(seen["card"]) > 1
    assert "ROLLED BACK" in seen["card"][-1]
    words = ("is accepted", "waiting for its window", "this is over: waiting for window", "is rolled back")
    missing = [word for word in words if not any(word in post for post in seen["thread"])]
    assert not missing, seen["thread"]
    places = [next(n for n, post in enumerate(seen["thread"]) if word in post) for word in words]
    assert places == sorted(places), seen["thread"]
    told_again = [post for post in seen["thread"] if seen["thread"].count(post) > 1]
    assert len(told_again) <= 2, told_again
    waits_again = [post for post in told_again if "waiting for its window" in post]
    assert told_again == waits_again, "after the hold it waits again, and nothing else is said twice"


def test_the_report_is_written_and_the_page_shows_the_end(told: dict[str, Any]) -> None:
    assert told["seen"]["report"].endswith(".html")
    assert "rolled back" in told["seen"]["page"]


def test_in_the_room_a_colleague_holds_and_who_may_not_is_refused_by_name(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert seen["stranger"].startswith("mallory: this chat account is not linked to a person.")
    assert seen["held"].startswith("ben: ")
    assert seen["others_code"].startswith("ben: only ana can confirm this.")


def test_ctrl_c_while_the_change_waits_leaves_nothing(homeserver: Path, tmp_path: Path) -> None:
    with nothing_is_left():
        process = night(tmp_path)
        said = said_until(process, "waiting for its window")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said + rest


def test_what_a_killed_night_leaves_is_removed_with_the_lab(homeserver: Path, tmp_path: Path) -> None:
    """The homeserver and the chat's process are outside of the lab's networks, by which the rest is found."""
    with nothing_is_left():
        process = night(tmp_path)
        said_until(process, "in the room")
        process.kill()
        process.communicate(timeout=60)
        down = started(tmp_path, "deploy.lab.standing", "down")
        said, _ = down.communicate(timeout=60)
    assert (down.returncode, said) == (0, "The lab is removed.\n")
