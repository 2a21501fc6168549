"""A release whose workers die in their users' tunnels: real engine, Prometheus, agents and users."""

import json
import shutil
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.dying_tunnels import AFTERWARDS, PREFIX, SHAPE
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not shutil.which("cc"), reason="needs cc"),
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]


@pytest.fixture(scope="module")
def met() -> dict[str, Any]:
    with nothing_is_left(PREFIX):
        done = played("-m", "tests.lab.dying_tunnels")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MET ")]
    found: dict[str, Any] = json.loads(line.removeprefix("MET "))
    print(found)
    return found


def test_a_release_whose_workers_die_at_the_first_packet_of_a_tunnel_is_rolled_back_by_itself(
    met: dict[str, Any],
) -> None:
    """Critical A: it was promoted, since each login counted as good when its tunnel opened."""
    assert (met["outcome"], met["verdict"]) == ("rolled_back", "unhealthy"), met["reason"]
    assert met["serves"] == met["known_good"]
    assert met["broken"] >= met["connect_success"]["canary_bad"] >= 4


def test_users_are_let_in_again_after_it_and_those_with_a_session_have_kept_it(met: dict[str, Any]) -> None:
    assert met["afterwards"].keys() == {"accepted"}, met
    assert met["afterwards"]["accepted"] >= AFTERWARDS
    assert (met["up"], met["lost"]) == (SHAPE.sites, 0)
