"""A signed release reaches pods on real nodes and goes back, and users with live tunnels notice nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster import cgroups
from deploy.cluster.lab import NODES
from deploy.cluster.nodes import require
from policies.model.errors import BadInput
from tests.cluster import building
from tests.cluster.strangers import STRANGERS
from tests.cluster.upgrading import ORDER, PERSON, PREFIX
from tests.house.leftovers import nothing_is_left

pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
MANY = 100
"""Pings of all users together in a story of seconds, by far."""


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
            timeout=1140,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not cgroups.leftovers(f"{PREFIX}*")
    lines = [line.partition(" ") for line in done.stdout.splitlines() if " {" in line]
    return {name: json.loads(body) for name, _, body in lines}


def assert_nothing_is_lost(seen: dict[str, Any]) -> None:
    """Require that users pinged all the time, and lost no session and no ping."""
    assert seen["pings"] > MANY
    assert (seen["lost"], seen["pings_lost"]) == (0, 0)


def test_users_log_in_at_pods_of_the_signed_image(cluster_lab: dict[str, dict[str, Any]]) -> None:
    first = cluster_lab["FIRST"]
    assert first["up"] == cluster_lab["NAMES"]["users"]
    assert len(first["images"]) == 1


def test_a_canary_costs_no_ping_though_every_part_of_the_cluster_crashes_meanwhile(
    cluster_lab: dict[str, dict[str, Any]],
) -> None:
    newer = cluster_lab["NEWER"]
    assert newer["outcome"] == "promoted", newer["reason"]
    assert newer["serving"] == [cluster_lab["NAMES"]["newer"]]
    assert len(newer["images"]) == 2, "older pods drain beside the newer ones"
    assert_nothing_is_lost(newer)


def test_a_faulty_release_is_taken_back_and_costs_no_session(cluster_lab: dict[str, dict[str, Any]]) -> None:
    faulty = cluster_lab["FAULTY"]
    assert faulty["outcome"] == "rolled_back", faulty["reason"]
    assert faulty["serving"] == [cluster_lab["NAMES"]["newer"]]
    assert_nothing_is_lost(faulty)


def test_a_rolling_upgrade_costs_no_ping_though_every_part_of_the_cluster_crashes_meanwhile(
    cluster_lab: dict[str, dict[str, Any]],
) -> None:
    rolling = cluster_lab["ROLLING"]
    assert rolling["outcome"] == "promoted", rolling["reason"]
    assert rolling["serving"] == [cluster_lab["NAMES"]["another"]]
    assert_nothing_is_lost(rolling)


def test_blue_green_that_a_person_takes_back_from_a_crashed_cluster_costs_no_session_and_no_ping(
    cluster_lab: dict[str, dict[str, Any]],
) -> None:
    back = cluster_lab["BLUE_GREEN"]
    assert (back["outcome"], back["reason"]) == ("rolled_back", f"{PERSON}: {ORDER}")
    assert back["serving"] == [cluster_lab["NAMES"]["another"]]
    assert_nothing_is_lost(back)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("UNLABELLED", "somebody took slot"),
        ("DARK", "was started anew"),
        ("FORCED", "somebody deleted"),
        ("UNREGISTERED", "it was registered anew, or "),
    ],
)
def test_a_change_says_what_befell_its_node_and_not_that_the_release_has_ended_or_is_worse(
    cluster_lab: dict[str, dict[str, Any]], name: str, told: str
) -> None:
    befallen = cluster_lab[name]
    (hit,) = befallen["hit"]
    reason = befallen["reason"]
    assert hit in reason
    assert told in reason
    assert "the new instance has ended" not in reason
    assert befallen["verdict"] != "unhealthy"
    assert befallen["story"][-1] == f"rolled back: {reason}"


@pytest.mark.parametrize("name", ["UNLABELLED", "FORCED"])
def test_a_pod_on_trial_that_is_taken_away_costs_users_of_the_older_one_beside_it_nothing(
    cluster_lab: dict[str, dict[str, Any]], name: str
) -> None:
    assert_nothing_is_lost(cluster_lab[name])


@pytest.mark.parametrize("name", STRANGERS)
def test_users_of_the_other_node_lose_nothing_and_all_have_a_session_again(
    cluster_lab: dict[str, dict[str, Any]], name: str
) -> None:
    befallen = cluster_lab[name]
    assert befallen["outcome"] == "rolled_back", befallen["reason"]
    assert befallen["serving"] == [cluster_lab["NAMES"]["another"]]
    assert_nothing_is_lost(befallen["others"])
    assert befallen["up"] == cluster_lab["NAMES"]["users"]


def test_agents_as_pods_of_the_chart_do_the_same_and_their_deletion_costs_no_ping(
    cluster_lab: dict[str, dict[str, Any]],
) -> None:
    pods = cluster_lab["PODS"]
    assert pods["agents"] == NODES.gateways
    assert pods["outcome"] == "promoted", pods["reason"]
    assert pods["serving"] == [cluster_lab["NAMES"]["third"]]
    assert_nothing_is_lost(pods)
