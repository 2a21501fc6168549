"""The demo on a cluster, as a stranger runs it: the same two stories, with pods on two real nodes."""

import json
from typing import Any

import pytest

from deploy.lab.__main__ import USUAL
from tests.cluster import building
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.test_demo import demo, ended

pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def demonstrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `./run demo --runtime kubernetes` wrote of each of its stories."""
    building.insist(request)
    folder = tmp_path_factory.mktemp("demo")
    with nothing_is_left():
        report = ("--json", str(folder / "out.json"))
        process = demo("--runtime", "kubernetes", *report, state=own_state(folder / "state"))
        said = ended(process, 400)
    assert process.returncode == 0, said
    document = json.loads((folder / "out.json").read_text())
    return {story["name"]: story for story in document["stories"]}


@pytest.mark.parametrize("name", USUAL)
def test_nobody_loses_a_session_or_a_ping(demonstrated: dict[str, Any], name: str) -> None:
    told = demonstrated[name]
    assert told["sessions"] == {"before": 8, "after": 8, "lost": 0}
    assert told["pings"]["sent"] > 100
    assert told["pings"]["lost"] == 0


def test_the_release_is_promoted_and_the_faulty_one_goes_back(demonstrated: dict[str, Any]) -> None:
    assert demonstrated["clean"]["outcome"] == "promoted"
    assert demonstrated["bad-auth"]["outcome"] == "rolled_back"
    assert demonstrated["bad-auth"]["decision"]["verdict"] == "unhealthy"


def test_what_runs_in_the_end_is_what_was_promoted(demonstrated: dict[str, Any]) -> None:
    """The digest is that of the signed manifest, and was proven by the image that the kubelet reports."""
    assert demonstrated["bad-auth"]["gateways"] == demonstrated["clean"]["gateways"]
    assert all(gateway["running_digest"] for gateway in demonstrated["clean"]["gateways"])
