"""The demo as a stranger runs it, and what must not be left when it is stopped at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import preflight
from deploy.lab.__main__ import USUAL, Asked, parse
from deploy.lab.topology import Claim
from orchestrator.exit_code import ExitCode
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER
from tests.sampled import sampled

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

HOME = Path(__file__).parents[2]
BACK_WITHIN = 5.0
"""Seconds on a machine that has other things to do; alone it is under one, which the demo prints."""


def demo(*arguments: str, state: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.lab", *arguments],
        cwd=HOME,
        env={**os.environ, "PENSTOCK_STATE": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    fail_if_hindered(process.wait(), said)
    raise AssertionError(f"{words!r} was never said:\n{said}")


def ended(process: subprocess.Popen[str], timeout: float) -> str:
    """Wait for the demo's end and return what it said."""
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:  # whatever comes next has its own lab
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        pytest.fail(f"it did not end within {timeout:g} s, and said last:\n{said[-6000:]}", pytrace=False)
    fail_if_hindered(process.returncode, said)
    return said


def fail_if_hindered(code: int, said: str) -> None:
    """A demo that met another lab has said who that is: this says nothing about the demo."""
    if code == ExitCode.CONFLICT:
        pytest.fail(f"hindered: {said.strip().splitlines()[-1]}", pytrace=False)


def stories(folder: Path) -> dict[str, Any]:
    """What the demo wrote into the folder, by the name of the story."""
    document = json.loads((folder / "out.json").read_text())
    return {story["name"]: story for story in document["stories"]}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The usual demo."""
    return demonstrated(tmp_path_factory.mktemp("demo"), *USUAL)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Blue-green that fails at its first share, then one taken back after the switch."""
    return demonstrated(tmp_path_factory.mktemp("green"), "bad-green", "green-back")


def demonstrated(folder: Path, *scenarios: str) -> dict[str, Any]:
    """Run the demo with these stories, and return what it wrote of them."""
    words = [word for name in scenarios for word in ("--scenario", name)]
    with nothing_is_left():
        process = demo(*words, "--json", str(folder / "out.json"), state=own_state(folder / "state"))
        said = ended(process, HANGS_AFTER - 100)
    assert process.returncode == 0, said
    return stories(folder)


def test_the_usual_demo_tells_of_a_clean_upgrade_and_of_logins_that_fail() -> None:
    assert parse([]) == Asked(("clean", "bad-auth"), "host", "ocserv", "nftables", None)


def test_nobody_loses_a_session_or_a_ping_in_an_upgrade_or_a_rollback(told: dict[str, Any]) -> None:
    for name in ("clean", "bad-auth"):
        assert told[name]["sessions"] == {"before": 24, "after": 24, "lost": 0}, told[name]
        assert told[name]["pings"]["lost"] == 0
        assert told[name]["pings"]["sent"] >= 1000


def test_a_clean_upgrade_ends_with_one_running_digest_on_every_gateway(told: dict[str, Any]) -> None:
    clean = told["clean"]
    assert (clean["outcome"], clean["exit"]) == ("promoted", 0)
    assert len(clean["gateways"]) == 4
    assert len({gateway["running_digest"] for gateway in clean["gateways"]}) == 1
    assert len({gateway["release"] for gateway in clean["gateways"]}) == 1


def test_a_signed_release_on_which_logins_fail_is_rolled_back_by_itself(told: dict[str, Any]) -> None:
    bad = told["bad-auth"]
    assert (bad["outcome"], bad["exit"]) == ("rolled_back", 3)
    assert bad["decision"]["verdict"] == "unhealthy"
    assert bad["decision"]["readings"]["connect-success"]["canary_bad"] > 0
    assert bad["gateways"] == told["clean"]["gateways"]
    assert bad["seconds"]["fault_to_decision"] > 0


@pytest.mark.sweep
def test_nobody_loses_a_session_or_a_ping_in_blue_green(green: dict[str, Any]) -> None:
    for story in (green["bad-green"], green["green-back"]):
        assert story["sessions"] == {"before": 24, "after": 24, "lost": 0}, story
        assert story["pings"]["lost"] == 0


@pytest.mark.sweep
def test_green_that_fails_at_its_first_share_goes_back(green: dict[str, Any]) -> None:
    bad = green["bad-green"]
    assert (bad["outcome"], bad["decision"]["verdict"]) == ("rolled_back", "unhealthy")
    assert bad["decision"]["readings"]["connect-success"]["control_total"] > 0
    assert bad["seconds"]["decision_to_steered"] < BACK_WITHIN


@pytest.mark.sweep
def test_green_is_taken_back_after_the_switch(green: dict[str, Any]) -> None:
    back = green["green-back"]
    assert back["outcome"] == "rolled_back"
    assert back["gateways"] == green["bad-green"]["gateways"]
    assert 0 < back["seconds"]["decision_to_steered"] < BACK_WITHIN


def test_two_people_signed_what_ran(told: dict[str, Any]) -> None:
    roles = [signer.partition(":")[0] for signer in told["clean"]["signers"]]
    assert roles == ["builder", "release_manager"]


@pytest.mark.sweep
def test_ctrl_c_in_the_middle_of_a_wave_leaves_nothing(tmp_path: Path) -> None:
    with nothing_is_left():
        process = demo("--scenario", "clean", state=own_state(tmp_path / "state"))
        said_until(process, "on trial")
        process.send_signal(signal.SIGINT)
        said = ended(process, 240)
    assert process.returncode == 130, said


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the next demo said and told after one was killed, of a release that was changed after signing."""
    folder = tmp_path_factory.mktemp("following")
    state = own_state(folder / "state")
    with nothing_is_left():
        killed = demo("--scenario", "clean", state=state)
        said_until(killed, "users are connected")
        killed.kill()
        killed.wait()
        time.sleep(1)
        process = demo("--scenario", "bad-signature", "--json", str(folder / "out.json"), state=state)
        said = ended(process, 240)
    assert process.returncode == 5, said
    return said, stories(folder)


@pytest.mark.sweep
def test_what_a_killed_demo_leaves_is_cleared_away_by_the_next(following: tuple[str, dict[str, Any]]) -> None:
    said, _ = following
    assert "cleared away what an earlier lab left" in said


@pytest.mark.sweep
def test_a_release_changed_after_signing_is_refused_and_touches_nothing(
    following: tuple[str, dict[str, Any]],
) -> None:
    _, told = following
    story = told["bad-signature"]
    assert (story["outcome"], story["exit"], story["sessions"]["lost"]) == ("refused", 5, 0)
    assert "DigestMismatch" in story["decision"]["reason"]


def test_a_demo_beside_another_lab_names_its_process_and_touches_nothing(tmp_path: Path) -> None:
    with Claim():
        process = demo(state=tmp_path / "state")
        said, _ = process.communicate(timeout=30)
    assert process.returncode == ExitCode.CONFLICT
    command = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    assert f"another lab is running on this machine (pid {os.getpid()}: {command[:40]}" in said
    with pytest.raises(pytest.fail.Exception, match=rf"hindered: .*pid {os.getpid()}\b"):
        fail_if_hindered(process.returncode, said)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    sampled(
        [
            (
                ("--scenario", "sunny"),
                "there is no scenario 'sunny'; there are clean, bad-auth, bad-signature",
            ),
            (("--json", "/no/such/folder/out.json"), "its folder does not exist"),
            (("--runtime", "docker"), "there is no runtime 'docker'; there are host, podman, kubernetes"),
            (("--runtime", "kubernetes", "--scenario", "night"), "told on hosts only"),
        ],
        ("--scenario", "sunny"),
    ),
)
def test_bad_words_are_named_and_change_nothing(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    process = demo(*arguments, state=tmp_path / "state")
    said = ended(process, 30)
    assert process.returncode == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "state").exists()
