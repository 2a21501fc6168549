"""A sample of chaos, and the rings that need nobody: on one real lab, judged by what its hosts show."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import preflight
from tests.chaos.rings import LEASE
from tests.house.leftovers import nothing_is_left

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(420),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of everything, played once in a process of its own."""
    file = tmp_path_factory.mktemp("chaos") / "told.json"
    with nothing_is_left("psr-"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.play", file],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert file.exists(), done.stdout + done.stderr
    return json.loads(file.read_text())


def test_every_run_of_the_sample_was_struck_where_it_was_to_be(told: dict[str, Any]) -> None:
    assert [run["case"] for run in told["runs"] if not run["met"]] == []


def test_a_struck_rollout_ends_promoted_or_on_known_good_as_it_was_to(told: dict[str, Any]) -> None:
    assert {run["case"]: run["unsafe"] for run in told["runs"] if run["unsafe"]} == {}


def test_a_struck_step_has_one_effect(told: dict[str, Any]) -> None:
    assert {run["case"]: run["doubled"] for run in told["runs"] if run["doubled"]} == {}


def test_no_accident_of_the_control_plane_costs_a_session(told: dict[str, Any]) -> None:
    assert {run["case"]: run["lost"] for run in told["runs"] if run["lost"]} == {}
    assert told["lost_in_the_rings"] == 0


@pytest.mark.parametrize("what", ["cut off", "agent frozen", "agent killed"])
def test_the_kernel_itself_sends_new_sessions_back_at_the_end_of_the_lease(
    told: dict[str, Any], what: str
) -> None:
    ring = told["rings"][what]
    assert ring["seconds"] <= LEASE.total_seconds() + 1
    assert ring["on_known_good"]


@pytest.mark.parametrize("what", ["cut off", "agent frozen", "agent killed"])
def test_who_logs_in_after_the_lease_lands_on_known_good(told: dict[str, Any], what: str) -> None:
    on_known_good, on_trial = told["rings"][what]["logins"]
    assert on_known_good > 0
    assert on_trial == 0


@pytest.mark.parametrize("what", ["change and wave terminated", "engine's database deleted"])
def test_a_change_that_nobody_looks_after_is_ended_within_ninety_seconds(
    told: dict[str, Any], what: str
) -> None:
    ring = told["rings"][what]
    assert ring["seconds"] <= 90
    assert ring["on_known_good"]


def test_after_all_that_the_next_rollout_is_like_any_other(told: dict[str, Any]) -> None:
    assert told["after"] == []
