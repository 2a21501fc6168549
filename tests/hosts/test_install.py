"""docs/install.md, typed word for word on booted hosts: a live gateway is adopted, unnoticed."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.lab import credentials
from deploy.lab.pings import ANSWER_WITHIN
from deploy.lab.traffic import Settings, Users
from tests.hosts import ocserv
from tests.hosts.host import Ended, Host
from tests.hosts.install_document import CONTROL, GATEWAY, Step, steps
from tests.lab.network import network

PREFIX = "psti-"
DIST = Path(__file__).parents[2] / "dist"
PACKAGES = {CONTROL: "penstock_*_amd64.deb", GATEWAY: "penstock-agent_*_amd64.deb"}
AGENT = "penstock-agent.service"
USERS = 6
SAYS = {
    "penstock whoami": "root",
    "penstock check /etc/penstock/agent.yaml": "/etc/penstock/agent.yaml  ok",
    "penstock sessions edge": "runs nothing of penstock's",
    "penstock doctor": "1 fleets are described as they must",
    "penstock fleet adopt edge gw-1 --dry-run": f"started by {ocserv.UNIT}, {USERS} sessions",
    "penstock fleet adopt edge gw-1": f"1 gateways with {USERS} sessions were adopted as they ran",
}
"""What a person looks for in the answer, as the document says."""
ADOPTED = ["gw-1", "adopted", "running", "yes", f"{USERS}"]
"""What `penstock sessions` says of a gateway whose daemon was adopted with all its users."""
PATIENCE = 30.0
"""Seconds for which a person types a command again that does not say what it should."""
pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(600)]


class Hosts:
    """A control host, and a gateway that serves users already; what was typed on them so far."""

    def __init__(self, control: Host, gateway: Host, users: Users) -> None:
        self.control, self.gateway, self.users = control, gateway, users
        self.typed: dict[str, Ended] = {}

    def follow(self, step: Step) -> None:
        """Do one step, as a person would who has these addresses and no others."""
        host = self.control if step.host == CONTROL else self.gateway
        ours = {"192.0.2.11": self.gateway.place.address4, "2001:db8::11": self.gateway.place.address6}
        if step.file:
            content = step.content
            for said, meant in ours.items():
                content = content.replace(said, meant)
            host.put(step.file, content)
            return
        token = self.typed["penstock gateway enrol edge gw-1"].out if "agent enrol" in step.command else ""
        print(f"{host.name}# {step.command}", flush=True)
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = host.run(
                "sh", "-c", f"cd /root && {step.command}", stdin=token, within=180, may_fail=True
            )
            print(ended.out, ended.err, flush=True)
            if SAYS.get(step.command, "") in ended.out or time.monotonic() > deadline:
                break
            time.sleep(1)
        assert ended.code in step.codes, (step, ended)
        assert SAYS.get(step.command, "") in ended.out, (step, ended)
        self.typed[step.command] = ended


def packages() -> dict[str, Path]:
    """The two packages, by host; skip where nobody has made them."""
    made = {host: list(DIST.glob(pattern)) for host, pattern in PACKAGES.items()}
    if missing := [PACKAGES[host] for host, files in made.items() if len(files) != 1]:
        pytest.skip(f"{DIST} has not one of each of {', '.join(missing)}: make them with `./run package`")
    return {host: file for host, (file,) in made.items()}


@pytest.fixture(scope="module")
def hosts(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    scratch = tmp_path_factory.mktemp("install")
    debs = packages()
    with network(PREFIX, gateways=2, sites=USERS) as topology, contextlib.ExitStack() as opened:
        given = credentials.issue(topology, scratch / "credentials", people=0)
        at_gateway, at_control = topology.gateways
        gateway = opened.enter_context(Host(at_gateway, topology, image, scratch))
        control = opened.enter_context(Host(at_control, topology, image, scratch, name=CONTROL))
        ocserv.set_up(gateway, given, 1)
        for name, host in ((CONTROL, control), (GATEWAY, gateway)):
            shutil.copy(debs[name], host.disk / "root")
            host.put("/etc/apt/apt.conf.d/50yes", 'APT::Get::Assume-Yes "true";\n')
            host.put("/etc/hosts", f"127.0.0.1 localhost\n{at_control.address4} control.example\n")
            host.power_on()
        for host in (control, gateway):
            host.wait_until_booted()
        gateway.put("/etc/penstock/vpn-authority.pem", given.authority.read_bytes())
        crowd = replace(Settings.of(topology, given, scratch / "users", dial6=USERS, idle=USERS), gateways=1)
        users = Users(crowd)
        users.start()
        try:
            users.wait_until_up()
            yield Hosts(control, gateway, users)
        finally:
            users.process.stop()


def counted(hosts: Hosts) -> list[str]:
    """What `penstock sessions` says of the gateway, once it has answered."""
    deadline = time.monotonic() + PATIENCE
    while True:
        said = hosts.control.run("penstock", "sessions", "edge", may_fail=True).out.splitlines()
        if "silent" not in "".join(said) and len(said) > 1:
            return said[1].split()
        assert time.monotonic() < deadline, said
        time.sleep(1)


def harm(hosts: Hosts) -> int:
    """How many sessions and pings the users have lost so far, those under way included."""
    time.sleep(ANSWER_WITHIN + 1)
    totals = hosts.users.view()["totals"]
    lost: int = totals["lost"] + totals["pings"]["lost"]
    return lost


def test_what_the_document_has_people_type_adopts_a_live_gateway_and_no_user_notices(hosts: Hosts) -> None:
    serves = hosts.gateway.wait_for(ocserv.UNIT)
    for step in steps():
        if step.file == "/etc/penstock/agent.yaml":
            trust = (hosts.control.disk / "etc/penstock/trust.yaml").read_text()
            hosts.gateway.put("/etc/penstock/trust.yaml", trust)
        hosts.follow(step)
    assert hosts.gateway.wait_for(ocserv.UNIT) == serves
    assert counted(hosts) == ADOPTED
    assert harm(hosts) == 0


def test_the_gateway_answers_again_when_its_control_host_has_lost_power_for_a_while(hosts: Hosts) -> None:
    hosts.control.cut_power()
    hosts.control.boot()
    assert counted(hosts) == ADOPTED
    assert harm(hosts) == 0


def test_the_agents_restart_and_reinstallation_leave_the_gateway_serving(hosts: Hosts) -> None:
    serves, agent = hosts.gateway.wait_for(ocserv.UNIT), hosts.gateway.wait_for(AGENT)
    hosts.gateway.run("systemctl", "restart", AGENT)
    restarted = hosts.gateway.wait_for(AGENT)
    hosts.gateway.run("sh", "-c", "apt-get install --reinstall /root/penstock-agent_*_amd64.deb", within=180)
    assert len({agent, restarted, hosts.gateway.wait_for(AGENT)}) == 3
    assert counted(hosts) == ADOPTED
    assert hosts.gateway.wait_for(ocserv.UNIT) == serves
    assert harm(hosts) == 0


def test_after_a_reboot_the_gateways_own_unit_serves_and_it_is_adopted_once_more(hosts: Hosts) -> None:
    hosts.gateway.reboot()
    hosts.users.wait_until_up()
    hosts.follow(Step(CONTROL, "penstock fleet adopt edge gw-1"))
    assert counted(hosts) == ADOPTED
    before = harm(hosts)
    assert harm(hosts) == before


def test_an_agent_that_is_removed_leaves_the_gateway_serving_and_can_come_back(hosts: Hosts) -> None:
    serves, before = hosts.gateway.wait_for(ocserv.UNIT), harm(hosts)
    hosts.gateway.run("apt-get", "remove", "penstock-agent", within=180)
    assert hosts.gateway.run("systemctl", "is-active", AGENT, may_fail=True).out.strip() == "inactive"
    assert hosts.gateway.run("cat", "/etc/penstock/agent.pem").out
    assert hosts.gateway.wait_for(ocserv.UNIT) == serves
    assert hosts.users.view()["totals"]["up"] == USERS
    assert harm(hosts) == before
