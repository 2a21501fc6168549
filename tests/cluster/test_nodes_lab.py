"""A signed release reaches pods on real nodes and goes back, and users with live tunnels notice nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster import cgroups
from deploy.cluster.nodes import require
from policies.model.errors import BadInput
from tests.cluster import building
from tests.cluster.upgrading import PREFIX
from tests.house.leftovers import nothing_is_left

pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster_lab(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """What became of each change, all of them in one lab."""
    building.insist(request)
    try:
        require()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))
    with nothing_is_left(PREFIX):
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster.upgrading"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=840,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not cgroups.leftovers(f"{PREFIX}*")
    lines = [line.partition(" ") for line in done.stdout.splitlines() if " {" in line]
    return {name: json.loads(body) for name, _, body in lines}


def test_users_log_in_at_pods_of_the_signed_image(cluster_lab: dict[str, dict[str, Any]]) -> None:
    first = cluster_lab["FIRST"]
    assert first["up"] == cluster_lab["NAMES"]["users"]
    assert len(first["images"]) == 1


def test_an_upgrade_costs_no_ping_though_every_part_of_the_cluster_crashes_meanwhile(
    cluster_lab: dict[str, dict[str, Any]],
) -> None:
    newer = cluster_lab["NEWER"]
    assert newer["outcome"] == "promoted", newer["reason"]
    assert newer["running"] == [cluster_lab["NAMES"]["newer"]]
    assert len(newer["images"]) == 2, "older pods drain beside the newer ones"
    assert newer["pings"] > 100
    assert (newer["lost"], newer["pings_lost"]) == (0, 0)


def test_a_faulty_release_is_taken_back_and_costs_no_session(cluster_lab: dict[str, dict[str, Any]]) -> None:
    faulty = cluster_lab["FAULTY"]
    assert faulty["outcome"] == "rolled_back", faulty["reason"]
    assert faulty["running"] == [cluster_lab["NAMES"]["newer"]]
    assert (faulty["lost"], faulty["pings_lost"]) == (0, 0)
