"""The whole story of a spoiled release: real engine, worker, agents and users, and nobody ever meets it."""

import json
import shutil
from typing import Any

import pytest

from deploy.lab import preflight
from deploy.lab.spoiled import Spoiled
from policies.model.release_tests import OF_NAMES, Asked
from tests.house.leftovers import nothing_is_left
from tests.lab.exposure import CANARY, PREFIX, SHAPE
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not shutil.which("cc"), reason="needs cc"),
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

GATEWAYS = {f"gw-{number}" for number in range(1, SHAPE.gateways + 1)}
TAKEN_OUT_WITHIN = 5.0
"""Seconds, on a machine that asks all gateways how they are in `USUAL_LOOK` or less."""

USUAL_LOOK = 0.6
"""Seconds; 0.3 to 0.4 on two idle cores, and at most 0.7 beside 24 busy processes."""

STOPPED_BY = {
    Spoiled.LETS_ANYBODY_IN: {Asked.WRONG_PASSWORD},
    Spoiled.IS_SLOWER: {Asked.THROUGHPUT, Asked.CPU},
    Spoiled.FORWARDS_IN_THE_CLEAR: {Asked.CLEARTEXT},
    Spoiled.LOSES_LARGE_PACKETS: {Asked.FULL_SIZE_LOST},
}


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What became of each release, all of them on one lab."""
    with nothing_is_left(PREFIX):
        done = played("-m", "tests.lab.exposure")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines() if " {" in line]
    return {name: json.loads(body) for name, _, body in lines}


@pytest.mark.parametrize("how", Spoiled, ids=lambda how: how.name)
def test_a_spoiled_release_is_stopped_by_its_test_before_any_user_meets_it(
    told: dict[str, dict[str, Any]], how: Spoiled
) -> None:
    change = told[how.name]
    assert change["outcome"] == "rolled_back", change["reason"]
    assert change["reason"].startswith(f"{CANARY} failed a test before any user: ")
    assert change["exposed"] == {name: [] for name in GATEWAYS}
    assert change["came"] == ["probe"]
    assert change["running"] == [change["older"]]


@pytest.mark.parametrize("how", Spoiled, ids=lambda how: how.name)
def test_the_audit_record_names_the_test_that_failed_with_its_measurement_and_its_limit(
    told: dict[str, dict[str, Any]], how: Spoiled
) -> None:
    change = told[how.name]
    assert {entry["gateway"] for entry in change["tested"]} == {CANARY}
    entry = change["tested"][-1]
    assert entry["exposure"]["outcome"] == "failed"
    failed = [one for one in entry["findings"] if one["outcome"] == "failed"]
    assert {one["test"] for one in failed} >= STOPPED_BY[how]
    for one in failed:
        assert one["measured"] > 0
        assert one["limit"].startswith(("at most", "at least"))
        assert f"{one['test']} (" in change["reason"]
        assert one["limit"] in change["reason"]


def test_a_good_release_passes_the_same_tests_and_is_promoted_to_users(
    told: dict[str, dict[str, Any]],
) -> None:
    change = told["GOOD"]
    assert change["outcome"] == "promoted", change["reason"]
    assert {entry["exposure"]["outcome"] for entry in change["tested"]} == {"passed"}
    assert len(change["tested"]) == len(GATEWAYS) + 1  # and the load, on the canary alone
    of_names = [one for entry in change["tested"] for one in entry["findings"] if one["test"] in OF_NAMES]
    assert [one["said"] for one in of_names] == ["www.example.org asked outside of the tunnel"] * len(
        GATEWAYS
    )
    assert change["running"] == [change["release"]]
    # The witnesses of what the spoiled ones were not given see it here.
    given = {name: set(slots) for name, slots in change["exposed"].items()}
    assert given == {entry["gateway"]: {entry["slot"]} for entry in change["tested"]}
    assert given.keys() == GATEWAYS
    assert len(change["came"]) > 1


@pytest.mark.parametrize("name", [*(how.name for how in Spoiled), "GOOD"])
def test_nobody_loses_a_ping_or_a_session_while_a_release_is_tested(
    told: dict[str, dict[str, Any]], name: str
) -> None:
    change = told[name]
    assert (change["up"], change["lost"]) == (SHAPE.sites, 0)
    assert (change["pings"] > 0, change["pings_lost"]) == (True, 0)


def test_who_is_taken_out_gets_in_nowhere_within_five_seconds_draining_instances_too(
    told: dict[str, dict[str, Any]],
) -> None:
    """The order is `credentials reload --at-once`; each instance is asked at its own port."""
    found = told["TAKEN_OUT"]
    assert found["outcome"] == "promoted", found["reason"]
    assert found["draining"].keys() == GATEWAYS
    assert all(sessions > 0 for sessions in found["draining"].values())
    assert found["came"] == found["others"] == ["accepted"] * 2 * len(GATEWAYS)
    assert {door.partition(" ")[0] for door in found["refused"]} == GATEWAYS
    within = TAKEN_OUT_WITHIN * max(1.0, found["look"] / USUAL_LOOK)
    late = {door: said for door, said in found["refused"].items() if said is None or said >= within}
    assert not late, (found["refused"], found["look"], found["waits"])
    assert found["later"] == ["rejected"] * 2 * len(GATEWAYS)
    assert (found["up"], found["lost"]) == (SHAPE.sites, 0)
