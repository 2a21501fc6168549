"""One trace a change over the real API, worker and agents; logs as JSON; collectors that fail."""

import json
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played
from tests.lab.traced import PREFIX

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

TOLD = {
    *("penstock.workflow", "penstock.change", "penstock.fleet", "penstock.gateway"),
    *("penstock.wave", "penstock.step", "penstock.attempt"),
}
"""All that a trace may tell of anything."""

Story = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """What became of each change, and what was heard and logged."""
    folder = own_state(tmp_path_factory.mktemp("state"))
    with nothing_is_left(PREFIX):
        done = played("-m", "tests.lab.traced", state=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines() if " {" in line]
    return {what: json.loads(body) for what, _, body in lines}


def of_the_upgrade(story: Story) -> list[dict[str, Any]]:
    """Return the spans of the trace that the change's own end is in."""
    told = story["HEARD"]
    (trace,) = {
        span["trace"] for span in told["spans"] if span["said"].get("penstock.change") == told["change"]
    }
    return [span for span in told["spans"] if span["trace"] == trace]


def test_a_change_is_one_trace_over_the_processes_of_api_worker_and_agents(story: Story) -> None:
    spans = of_the_upgrade(story)
    by_process = {
        process: {one["name"] for one in spans if one["process"] == process}
        for process in ("api", "worker", "agent")
    }
    assert {span["process"] for span in spans} == by_process.keys()
    assert by_process["api"] == {"ask for a change"}
    assert by_process["worker"] >= {"Change", "Wave", "Batch", "Watch", "record_verdict", "close_change"}
    assert by_process["agent"] >= {"stage_release", "start_instance", "start_trial", "make_permanent"}
    starts = [span["said"] for span in spans if span["name"] == "start_instance"]
    assert {said["penstock.gateway"] for said in starts} == {"gw-1", "gw-2"}
    assert [span["name"] for span in spans if span["name"].startswith("Drain")]
    drains = {span["said"]["penstock.change"] for span in spans if span["name"].startswith("Drain")}
    assert drains == {story["HEARD"]["change"]}


def test_every_span_has_its_parent(story: Story) -> None:
    spans = of_the_upgrade(story)
    name_of = {span["span"]: span["name"] for span in spans}
    begins = [span for span in spans if span["name"].endswith(" begins")]
    begun = {span["parent"]: span["name"].removesuffix(" begins") for span in begins}
    name_of |= {span: name for span, name in begun.items() if span not in name_of}  # what goes on
    roots = [span["name"] for span in spans if not span["parent"]]
    assert roots == ["ask for a change"]
    parents = {
        name: {name_of[span["parent"]] for span in spans if span["name"] == name}
        for name in ("Change", "Wave", "Batch", "start_instance", "start_trial", "record_verdict")
    }
    assert parents == {
        "Change": {"ask for a change"},
        "Wave": {"Change"},
        "Batch": {"Wave"},
        "start_instance": {"Batch"},
        "start_trial": {"Batch"},
        "record_verdict": {"Watch"},
    }
    assert {span["parent"] for span in spans if span["parent"]} <= name_of.keys()


def test_a_trace_tells_names_of_the_fleet_and_nothing_of_people_or_secrets(story: Story) -> None:
    told = story["HEARD"]
    assert {key for span in told["spans"] for key in span["said"]} <= TOLD
    assert told["leaked"] == []


@pytest.mark.parametrize("collector", ["AWAY", "HEARD", "REFUSES", "HANGS"])
def test_a_change_ends_well_whatever_the_collector_does(story: Story, collector: str) -> None:
    change = story[collector]
    assert change["outcome"] == "promoted", change
    assert change.get("code", 0) == 0, change["said"]


@pytest.mark.parametrize("process", ["api", "worker", "agent"])
def test_each_process_logs_json_that_names_the_change_and_its_trace(story: Story, process: str) -> None:
    entries = [json.loads(line) for line in story["LOGGED"][process]]
    told = story["HEARD"]
    mine = [entry for entry in entries if entry.get("change") == told["change"]]
    assert mine
    assert {entry["fleet"] for entry in mine} == {"lab"}
    assert {entry["trace_id"] for entry in mine} == {of_the_upgrade(story)[0]["trace"]}


@pytest.mark.parametrize("process", ["api", "worker", "agent"])
def test_each_process_says_once_that_the_collector_takes_nothing(story: Story, process: str) -> None:
    said = [json.loads(line)["message"] for line in story["LOGGED"][process]]
    takes_nothing = ["takes no traces" in line for line in said if line.startswith("the collector at")]
    assert takes_nothing
    # It fails from the beginning, takes the upgrade, and fails again; each is said once, and in turn.
    assert takes_nothing == [number % 2 == 0 for number in range(len(takes_nothing))]
