"""The demo with containers, as a stranger runs it: the same two stories, with podman on every gateway."""

import json
from typing import Any

import pytest

from activities.drivers.runtime.podman.podman import VOLATILE
from deploy.lab import preflight
from deploy.lab.__main__ import USUAL
from tests.drivers.podman_lab import why_not_here
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.test_demo import demo, ended

NO_CONTAINERS = why_not_here()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.timeout(420),
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.skipif(NO_CONTAINERS is not None, reason=NO_CONTAINERS or ""),
]


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `./run demo --runtime podman` wrote of each of its stories."""
    folder = tmp_path_factory.mktemp("demo")
    with nothing_is_left():
        report = ("--json", str(folder / "out.json"))
        process = demo("--runtime", "podman", *report, state=own_state(folder / "state"))
        said = ended(process, 400)
    assert process.returncode == 0, said
    assert not VOLATILE.exists()
    document = json.loads((folder / "out.json").read_text())
    return {story["name"]: story for story in document["stories"]}


@pytest.mark.parametrize("name", USUAL)
def test_nobody_loses_a_session_or_a_ping(demonstrated: dict[str, Any], name: str) -> None:
    told = demonstrated[name]
    assert told["sessions"] == {"before": 24, "after": 24, "lost": 0}
    assert told["pings"]["sent"] > 100
    assert told["pings"]["lost"] == 0


def test_the_release_is_promoted_and_the_faulty_one_goes_back(demonstrated: dict[str, Any]) -> None:
    assert demonstrated["clean"]["outcome"] == "promoted"
    assert demonstrated["bad-auth"]["outcome"] == "rolled_back"
    assert demonstrated["bad-auth"]["decision"]["verdict"] == "unhealthy"
