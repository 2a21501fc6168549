"""A sample of `./run bench live`: the right decision on real bad days, and nothing left of the lab."""

import json
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

KINDS = ("crash", "shared-outage", "prometheus-killed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """One run of each kind, in a lab of their own."""
    document = tmp_path_factory.mktemp("live") / "out.json"
    command = ["-m", "tests.bench", "live", "--runs", "1", "--labs", "1"]
    with nothing_is_left("psl0-"):
        done = played(*command, "--kinds", ",".join(KINDS), "--json", str(document))
    assert done.returncode == 0, done.stdout + done.stderr
    return {run["kind"]: run for run in json.loads(document.read_text())["runs"]}


def test_a_crash_is_rolled_back_within_seconds(runs: dict[str, dict[str, Any]]) -> None:
    assert (runs["crash"]["action"], runs["crash"]["verdict"]) == ("roll_back", "hard")
    assert runs["crash"]["seconds"] < 20


def test_an_outage_of_all_gateways_is_left_to_a_person_with_the_numbers(
    runs: dict[str, dict[str, Any]],
) -> None:
    run = runs["shared-outage"]
    assert run["action"] == "hold_for_human"
    assert run["numbers"]["control_bad"] > 0


def test_a_dead_prometheus_holds_and_a_living_one_lets_the_judge_go_on(
    runs: dict[str, dict[str, Any]],
) -> None:
    run = runs["prometheus-killed"]
    assert (run["action"], run["verdict"]) == ("hold", "metrics_unavailable")
    assert run["back_to_work"] is not None
