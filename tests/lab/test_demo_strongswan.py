"""The demo with strongSwan on its gateways: the same stories, by the same gates."""

import json
from typing import Any

import pytest

from deploy.lab import preflight
from tests.drivers.strongswan_lab import why_not_here
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
    pytest.mark.timeout(HANGS_AFTER),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Both usual stories, by their names."""
    folder = tmp_path_factory.mktemp("strongswan")
    report = folder / "out.json"
    with nothing_is_left():
        done = played(
            *("-m", "deploy.lab", "--daemon", "strongswan", "--json", str(report)),
            state=own_state(folder / "state"),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return {story["name"]: story for story in json.loads(report.read_text())["stories"]}


@pytest.mark.parametrize("story", ["clean", "bad-auth"])
def test_nobody_loses_a_session_or_a_ping(told: dict[str, dict[str, Any]], story: str) -> None:
    assert told[story]["sessions"] == {"before": 24, "after": 24, "lost": 0}
    assert told[story]["pings"]["sent"] > 500
    assert told[story]["pings"]["lost"] == 0


def test_a_clean_upgrade_is_promoted_and_a_release_on_which_logins_fail_goes_back_by_itself(
    told: dict[str, dict[str, Any]],
) -> None:
    assert (told["clean"]["outcome"], told["clean"]["exit"]) == ("promoted", 0)
    bad = told["bad-auth"]
    assert (bad["outcome"], bad["decision"]["verdict"]) == ("rolled_back", "unhealthy")
    assert bad["decision"]["readings"]["connect-success"]["canary_bad"] > 0
