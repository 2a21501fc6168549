"""The lab's people notice what people notice, and nothing they counted flatters us."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import credentials, namespaces
from deploy.lab.credentials import Credentials
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.topology import Topology
from deploy.lab.traffic import Logins, Settings, Users
from policies.model.errors import Unavailable
from tests.lab.gateway import plain_gateway
from tests.lab.network import network
from tests.patience import PATIENCE, wait_until

PREFIX = "pstv-"
pytestmark = pytest.mark.lab


class Lab:
    """One gateway and what its users need."""

    def __init__(self, topology: Topology, given: Credentials, gateway: Path, scratch: Path) -> None:
        self.topology, self.credentials, self.gateway, self.scratch = topology, given, gateway, scratch

    def sessions(self) -> list[dict[str, Any]]:
        done = subprocess.run(
            ["occtl", "-s", self.gateway / "occtl", "-j", "show", "users"],
            text=True,
            capture_output=True,
            check=True,
        )
        users: list[dict[str, Any]] = json.loads(done.stdout)
        return users


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    scratch = tmp_path_factory.mktemp("traffic")
    with network(PREFIX, sites=3) as topology:
        given = credentials.issue(topology, scratch / "credentials", LabOcserv(), people=200)
        with plain_gateway(topology.gateways[0], given) as folder:
            yield Lab(topology, given, folder, scratch)


@pytest.fixture
def users(lab: Lab, tmp_path: Path) -> Iterator[Users]:
    long = tmp_path / ("a-checkout-may-be-deep-down/" * 5)
    crowd = Users(Settings.of(lab.topology, lab.credentials, long, dial6=3))
    crowd.start()
    try:
        crowd.wait_until_up(PATIENCE)
        yield crowd
    finally:
        crowd.process.stop()


def test_everybody_has_a_tunnel_over_dtls_and_loses_no_ping(users: Users) -> None:
    wait_until(lambda: users.view()["totals"]["pings"]["answered"] >= 30)
    assert all(user["udp"] for user in users.view()["users"])
    view = users.stop()
    assert (view["totals"]["lost"], view["totals"]["up_at_stop"]) == (0, 3)
    pings = view["totals"]["pings"]
    assert pings["lost"] == 0
    assert pings["sent"] == pings["answered"]


@pytest.mark.sweep
def test_one_user_in_three_came_over_ipv6_as_asked(users: Users, lab: Lab) -> None:
    came_from = {user["Username"]: user["Remote IP"] for user in lab.sessions()}
    assert came_from == {"site-01": "198.18.2.1", "site-02": "198.18.2.2", "site-03": "2001:db8:18::2:3"}


@pytest.mark.sweep
def test_someone_who_goes_home_and_comes_back_has_lost_nothing(users: Users) -> None:
    view = users.come_back(["site-02"])
    (back,) = [user for user in view["users"] if user["name"] == "site-02"]
    assert (back["up"], back["logins"], back["planned_logouts"], back["lost"]) == (True, 2, 1, 0)
    assert view["totals"]["pings"]["lost"] == 0


@pytest.mark.sweep
def test_someone_thrown_out_has_lost_a_session_and_some_pings(users: Users, lab: Lab) -> None:
    victim = lab.sessions()[0]
    subprocess.run(["occtl", "-s", lab.gateway / "occtl", "disconnect", "id", str(victim["ID"])], check=True)
    wait_until(lambda: users.view()["totals"]["lost"] == 1)
    wait_until(lambda: users.view()["totals"]["up"] == 3)
    (seen,) = [user for user in users.view()["users"] if user["lost"]]
    assert seen["name"] == victim["Username"]
    assert seen["last_exit"] == 1
    assert "terminated by server" in seen["last_line"]
    wait_until(lambda: users.view()["totals"]["pings"]["longest_silence"] > 0.5)
    wait_until(lambda: users.view()["totals"]["pings"]["lost"] > 0)


@pytest.mark.sweep
def test_a_session_that_openconnect_could_take_up_again_is_not_lost(users: Users, lab: Lab) -> None:
    os.kill(lab.sessions()[0]["ID"], signal.SIGKILL)
    wait_until(lambda: users.view()["totals"]["reconnects"] == 1)
    view = users.view()
    assert (view["totals"]["lost"], view["totals"]["up"]) == (0, 3)


def test_nobody_outlives_the_process_that_started_them(users: Users, lab: Lab) -> None:
    sites = [site.namespace for site in lab.topology.sites]
    assert len(namespaces.inhabitants(sites)) == 3
    users.process.kill()
    wait_until(lambda: namespaces.inhabitants(sites) == [])


@pytest.mark.sweep
def test_logins_reach_the_gateway_at_the_asked_rate_and_only_typos_are_rejected(
    lab: Lab, tmp_path: Path
) -> None:
    crowd = Logins(Settings.of(lab.topology, lab.credentials, tmp_path, per_second=10.0, mistyped=0.2))
    crowd.start()
    crowd.wait_until_counting()
    time.sleep(5)
    view = crowd.stop()
    accepted, mistyped = view["totals"]["accepted"], view["totals"]["mistyped"]
    assert set(view["totals"]) == {"accepted", "mistyped"}
    assert 35 <= accepted <= 60
    assert 2 <= mistyped <= 25
    rows = [json.loads(line) for line in (tmp_path / "logins.jsonl").read_text().splitlines()]
    assert len(rows) == accepted + mistyped
    assert {row["outcome"] for row in rows if row["mistyped"]} == {"rejected"}
    first = [row["user"] for row in rows if not row["mistyped"]]
    assert len(set(first)) == len(first)


@pytest.mark.sweep
def test_logins_with_tunnels_are_accepted_once_a_ping_came_back_and_leave_no_session(
    lab: Lab, tmp_path: Path
) -> None:
    crowd = Logins(Settings.of(lab.topology, lab.credentials, tmp_path, mistyped=0.0, tunnels=True))
    crowd.start()
    crowd.wait_until_counting()
    wait_until(lambda: crowd.view()["totals"].get("accepted", 0) > 5)
    assert set(crowd.stop()["totals"]) == {"accepted"}
    assert lab.sessions() == []
    rows = [json.loads(line) for line in (tmp_path / "logins.jsonl").read_text().splitlines()]
    assert {row["address"] for row in rows} <= {*lab.topology.load_addresses}


@pytest.mark.sweep
def test_a_gateway_that_is_not_there_is_counted_as_unreachable(lab: Lab, tmp_path: Path) -> None:
    crowd = Logins(Settings.of(lab.topology, lab.credentials, tmp_path, port=444))
    crowd.start()
    crowd.wait_until_counting()
    wait_until(lambda: bool(crowd.view()["totals"]))
    assert set(crowd.stop()["totals"]) == {"unreachable"}


def test_a_crowd_that_dies_before_it_counts_is_named_with_its_last_words(lab: Lab, tmp_path: Path) -> None:
    crowd = Logins(Settings.of(lab.topology, lab.credentials, tmp_path))
    crowd.settings.folder.joinpath("logins.jsonl").mkdir()
    crowd.start()
    with pytest.raises(Unavailable, match=r"the logins have not counted anything yet: .*IsADirectoryError"):
        crowd.wait_until_counting()


@pytest.mark.sweep
def test_users_who_cannot_log_in_are_named_with_what_their_client_said(lab: Lab, tmp_path: Path) -> None:
    crowd = Users(Settings.of(lab.topology, lab.credentials, tmp_path, port=444))
    crowd.start()

    def has_spoken() -> bool:
        with suppress(Unavailable):
            users = crowd.view()["users"]
            return bool(users) and all(user["last_line"] for user in users)
        return False

    try:
        wait_until(has_spoken)
        with pytest.raises(Unavailable, match=r"3 users have no session after 1 s: site-01 says"):
            crowd.wait_until_up(1)
    finally:
        crowd.process.stop()
