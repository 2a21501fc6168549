"""Booted hosts are hosts: users, reboots and power cuts on them are as they are anywhere."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import credentials
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.pings import ANSWER_WITHIN
from deploy.lab.topology import Topology
from deploy.lab.traffic import Settings, Users
from tests.hosts import ocserv
from tests.hosts.host import Host
from tests.lab.network import network
from tests.patience import PATIENCE, wait_until

PREFIX = "pstb-"
USERS = 20
"""Of each host: the first is idle, the last dials IPv6."""
HOSTS = 3
pytestmark = [pytest.mark.lab, pytest.mark.sweep]


class Fleet:
    """Booted hosts beside each other, and their users."""

    def __init__(self, topology: Topology, hosts: list[Host], users: Users) -> None:
        self.topology, self.hosts, self.users = topology, hosts, users

    def seen(self, host: Host) -> list[dict[str, Any]]:
        return [user for user in self.users.view()["users"] if user["gateway"] == host.name]

    def sessions_lost(self, host: Host) -> list[int]:
        return [user["lost"] for user in self.seen(host)]

    def evidence(self, host: Host) -> str:
        """What became of its users' pings, and what the host says: for whoever asks why some are lost."""
        pings = "\n".join(f"{user['name']}: {user['lost']} lost, {user['pings']}" for user in self.seen(host))
        asked = (
            ("ip", "-4", "address"),
            ("ip", "-4", "route"),
            ("sysctl", "net.ipv4.ip_forward"),
            ("nft", "list", "ruleset"),
            ("journalctl", "--boot", "--no-pager", "--lines", "200"),
        )
        return "\n".join((host.name, pings, *(host.run(*words).out for words in asked)))

    @contextlib.contextmanager
    def unharmed(self, *hosts: Host) -> Iterator[None]:
        """Require that their users lose neither a session nor a ping meanwhile, whatever they lost before."""
        before = {host.name: self._lost(host) for host in hosts}
        yield
        time.sleep(ANSWER_WITHIN + 1)  # a ping of now is lost or answered
        lost = {host.name: self._lost(host) - before[host.name] for host in hosts}
        print(*(self.evidence(host) for host in hosts if lost[host.name]), sep="\n\n")
        assert lost == dict.fromkeys(lost, 0)

    def _lost(self, host: Host) -> int:
        return sum(user["lost"] + user["pings"]["lost"] for user in self.seen(host))


@pytest.fixture(scope="module")
def fleet(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    scratch = tmp_path_factory.mktemp("fleet")
    with (
        network(PREFIX, gateways=HOSTS, sites=HOSTS * USERS) as topology,
        contextlib.ExitStack() as opened,
    ):
        given = credentials.issue(topology, scratch / "credentials", LabOcserv(), people=0)
        places = topology.gateways
        hosts = [opened.enter_context(Host(place, topology, image, scratch)) for place in places]
        for number, host in enumerate(hosts, 1):
            ocserv.set_up(host, given, number)
            host.power_on()
        for host in hosts:
            host.wait_until_booted()
        users = Users(Settings.of(topology, given, scratch / "users", dial6=USERS, idle=USERS))
        users.start()
        try:
            users.wait_until_up(PATIENCE)
            yield Fleet(topology, hosts, users)
        finally:
            users.process.stop()


def test_three_hosts_beside_each_other_serve_their_users_without_a_lost_ping(fleet: Fleet) -> None:
    before = fleet.users.view()["totals"]["pings"]["sent"]
    with fleet.unharmed(*fleet.hosts):
        wait_until(lambda: fleet.users.view()["totals"]["pings"]["sent"] > before + 2000)
    for host in fleet.hosts:
        assert ocserv.sessions(host) == sorted(user["name"] for user in fleet.seen(host))
        assert len(fleet.seen(host)) == USERS
        groups = host.run("cat", f"/proc/{host.wait_for(ocserv.UNIT)}/cgroup").out.splitlines()
        assert f"0::/system.slice/{ocserv.UNIT}" in groups
    silent = [user["name"] for user in fleet.users.view()["users"] if not user["pings"]["sent"]]
    assert len(silent) == HOSTS


def test_a_reboot_loses_the_sessions_of_its_own_host_and_no_others(fleet: Fleet) -> None:
    rebooted, *untouched = fleet.hosts
    rebooted.put("/var/lib/kept", "kept")
    boot, lost = rebooted.boot_id(), fleet.sessions_lost(rebooted)
    rebooted.run("nft", "add", "table", "inet", "forgotten")
    with fleet.unharmed(*untouched):
        rebooted.reboot()
        assert rebooted.boot_id() != boot
        assert rebooted.run("cat", "/var/lib/kept").out == "kept"
        assert rebooted.run("nft", "list", "tables").out == ""
        wait_until(lambda: fleet.sessions_lost(rebooted) == [before + 1 for before in lost])
        fleet.users.wait_until_up(PATIENCE)


def test_a_host_whose_power_is_cut_is_silent_until_it_has_power_again(fleet: Fleet) -> None:
    *untouched, cut = fleet.hosts
    boot, lost = cut.boot_id(), fleet.sessions_lost(cut)
    cut.put("/etc/written-before", "the cut")
    reached = ["ip", "netns", "exec", fleet.topology.hub.namespace, "ping", "-c1", "-W1", cut.place.address4]
    with fleet.unharmed(*untouched):
        cut.cut_power()
        assert subprocess.run(reached, stdout=subprocess.DEVNULL, check=False).returncode == 1
        cut.boot()
        assert cut.boot_id() != boot
        assert cut.run("cat", "/etc/written-before").out == "the cut"
        wait_until(lambda: fleet.sessions_lost(cut) == [before + 1 for before in lost])
        fleet.users.wait_until_up(PATIENCE)
