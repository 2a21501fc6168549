"""The demo with each other kind of gateways, as a stranger runs it: the same stories, by the same gates."""

import json
import shutil
from typing import Any

import pytest

from activities.drivers.runtime.podman.podman import VOLATILE
from deploy.lab import preflight
from tests.drivers import openvpn_lab, podman_lab, strongswan_lab
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]
NO_HAPROXY = None if shutil.which("haproxy") else "needs haproxy"
KINDS = {
    "--daemon openvpn": openvpn_lab.why_not_here(),
    "--daemon strongswan": strongswan_lab.why_not_here(),
    "--runtime podman": podman_lab.why_not_here(),
    "--steering redirect": NO_HAPROXY,
    "--steering haproxy": NO_HAPROXY,
}
"""Why each of them cannot be shown here, None where it can."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.skipif(why is not None, reason=why or ""))
        for kind, why in KINDS.items()
    ],
)
def told(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Both usual stories, by their names."""
    folder = tmp_path_factory.mktemp("demo")
    report = folder / "out.json"
    with nothing_is_left():
        done = played(
            *("-m", "deploy.lab", *request.param.split(), "--json", str(report)),
            state=own_state(folder / "state"),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not VOLATILE.exists()
    return {story["name"]: story for story in json.loads(report.read_text())["stories"]}


@pytest.mark.parametrize("story", ["clean", "bad-auth"])
def test_nobody_loses_a_session_or_a_ping(told: dict[str, Any], story: str) -> None:
    assert told[story]["sessions"] == {"before": 24, "after": 24, "lost": 0}
    assert told[story]["pings"]["sent"] > 100
    assert told[story]["pings"]["lost"] == 0


def test_a_clean_upgrade_is_promoted_and_a_release_on_which_logins_fail_goes_back_by_itself(
    told: dict[str, Any],
) -> None:
    assert (told["clean"]["outcome"], told["clean"]["exit"]) == ("promoted", 0)
    bad = told["bad-auth"]
    assert (bad["outcome"], bad["decision"]["verdict"]) == ("rolled_back", "unhealthy")
    assert bad["decision"]["readings"]["connect-success"]["canary_bad"] > 0
