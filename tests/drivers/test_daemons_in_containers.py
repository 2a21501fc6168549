"""Gateways whose daemon runs in a container: each form is refused with the reason and what to do."""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Daemon, Dialled
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.programs import start
from activities.drivers.runtime.host.translated import read_saved, sent_elsewhere
from policies.model.errors import Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, built_openvpn, lab, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, gateway, operation
from tests.drivers.openvpn_lab import OpenVpnLab
from tests.drivers.unprepared import Unprepared

pytestmark = ON_A_REAL_GATEWAY

DIALLED = (Dialled("tcp", 443),)
WHAT_TO_DO = "what runs in a container is not adopted: when its last user has left, stop it there"
A_ROOT_OF_ITS_OWN = """set -e
mount -t tmpfs tmpfs /mnt
for one in /*; do
    [ "$one" = /mnt ] && continue
    if [ -L "$one" ]; then cp -a "$one" /mnt; elif [ -d "$one" ]; then
        mkdir "/mnt$one"; mount --rbind "$one" "/mnt$one"; fi
done
exec chroot /mnt "$@"
"""
LISTENS = "import socket, time; s = socket.create_server(('', 443)); print(flush=True); time.sleep(60)"
PYTHON = Path(sys.executable).resolve()


def nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def published(rule: str, more: str = "") -> None:
    """Load the table of a runtime that publishes ports, with one rule."""
    chain = "type nat hook prerouting priority -100; policy accept;"
    nft(f"table inet runtime {{\n{more}\nchain publish {{ {chain}\n{rule}\n}}\n}}\n")


async def refusal(lab: GatewayLab) -> str:  # noqa: F811
    """Return why what serves is not adopted; a first release is refused on the same host, too."""
    [why] = (await lab.adoption.examine()).obstacles
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    with pytest.raises(Refused, match="gw-1 serves already"):
        await lab.slots.start(operation("start", digest=release.digest), release)
    return why


@pytest.mark.parametrize(
    ("rule", "more", "to"),
    [
        ("tcp dport 443 dnat ip to 10.88.0.2:443", "", "10.88.0.2:443"),
        ("ip daddr 10.77.0.0/24 tcp dport { 80, 400-500 } dnat ip to 10.88.0.2", "", "10.88.0.2"),
        ("dnat ip to tcp dport map { 443 : 10.88.0.2 . 8443 }", "", "10.88.0.2:8443"),
        (
            "dnat ip to tcp dport map @ports",
            "map ports { type inet_service : ipv4_addr; elements = { 443 : 10.88.0.2 } }",
            "10.88.0.2",
        ),
        (
            "tcp dport @ports dnat ip6 to [fd88::2]:443",
            "set ports { type inet_service; elements = { 443 } }",
            "[fd88::2]:443",
        ),
    ],
)
async def test_a_port_that_is_sent_to_a_container_by_a_rule_alone_is_refused_with_the_rule(
    lab: GatewayLab,  # noqa: F811
    rule: str,
    more: str,
    to: str,
) -> None:
    published(rule, more)
    why = await refusal(lab)
    assert f"port 443 of gw-1 is sent to {to} by chain publish of table inet runtime: {WHAT_TO_DO}" in why


@pytest.mark.sweep
@pytest.mark.parametrize(
    "rule",
    [
        "tcp dport 8443 dnat ip to 10.88.0.2:443",
        "udp dport 443 dnat ip to 10.88.0.2:443",
        "meta l4proto udp th dport 443 dnat ip to 10.88.0.2:443",
        "ip daddr 10.77.0.9 tcp dport 443 dnat ip to 10.88.0.2:443",
        "tcp dport != 443 dnat ip to 10.88.0.2",
        "dnat ip to tcp dport map { 80 : 10.88.0.2 }",
        "tcp dport 443 counter accept",
    ],
)
async def test_a_rule_for_others_than_the_gateways_users_is_in_nobodys_way(
    lab: GatewayLab,  # noqa: F811
    rule: str,
) -> None:
    published(rule)
    assert await sent_elsewhere(lab.gateway, DIALLED) is None
    daemon = Unprepared(lab)
    assert (await lab.adoption.examine()).pid == daemon.process.pid


@pytest.mark.parametrize(
    ("rule", "daemon", "sent"),
    [
        ("meta l4proto { tcp, udp } th dport 443 dnat ip to 10.88.0.2", OpenVpn(), "UDP port 443"),
        ("meta l4proto tcp th dport 443 dnat ip to 10.88.0.2", OpenVpn(), "port 443"),
        ("meta l4proto != udp th dport 443 dnat ip to 10.88.0.2", OpenVpn(), "port 443"),
        ("ip protocol udp th dport 443 dnat ip to 10.88.0.2", OpenVpn(), "UDP port 443"),
        ("dnat ip to udp dport map { 443 : 10.88.0.2 }", OpenVpn(), "UDP port 443"),
        ("sctp dport 443 dnat ip to 10.88.0.2", OpenVpn(), None),
        ("udp dport 4500 dnat ip to 10.88.0.2", StrongSwan(), "UDP port 4500"),
    ],
)
async def test_a_rule_is_read_by_the_transports_of_the_gateways_daemon(
    lab: GatewayLab,  # noqa: F811
    rule: str,
    daemon: Daemon,
    sent: str | None,
) -> None:
    published(rule)
    found = await sent_elsewhere(lab.gateway, daemon.dialled(lab.gateway))
    assert (found and found.partition(" of ")[0]) == sent


SERVES = """
import socket
served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
served.bind(("", 443))
print(flush=True)
while True:
    said, asker = served.recvfrom(99)
    served.sendto(b"container", asker)
"""
ASKS = """
import socket
asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asks.settimeout(2)
asks.sendto(b"x", ("10.77.0.1", 443))
print(asks.recv(99).decode())
"""


@pytest.mark.sweep
async def test_a_host_that_serves_by_udp_from_a_container_is_not_empty_and_its_users_stay_there(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    """Docker without its proxy, Incus, LXD and Kubernetes lead a port into a container by a rule alone."""
    namespace, inside = openvpn.namespace, f"{openvpn.prefix}in"
    batch(f"netns add {inside}")
    batch(
        f"link add inside type veth peer name eth0 netns {inside}\nlink set inside up\n"
        "address add 10.88.0.1/24 dev inside",
        namespace,
    )
    batch(
        "link set eth0 up\naddress add 10.88.0.2/24 dev eth0\nroute add default via 10.88.0.1",
        inside,
    )
    within(namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    serves = await start(
        ["ip", "netns", "exec", inside, os.fspath(PYTHON), "-c", SERVES], stderr=asyncio.subprocess.DEVNULL
    )
    published("udp dport 443 dnat ip to 10.88.0.2:443")
    try:
        assert serves.stdout
        await serves.stdout.readline()
        site, release = f"{openvpn.prefix}c1", openvpn.admission.release("1")
        assert within(site, PYTHON, "-c", ASKS) == "container"
        [why] = [one for one in await openvpn.slots.preflight(release) if "serves already" in one]
        assert "UDP port 443 of gw-1 is sent to 10.88.0.2:443 by chain publish of table inet runtime" in why
        with pytest.raises(Refused, match="gw-1 serves already"):
            await openvpn.running("1")
        assert within(site, PYTHON, "-c", ASKS) == "container"
    finally:
        serves.kill()
        await serves.wait()
        nft("delete table inet runtime")
        batch("link delete inside", namespace)
        batch(f"netns delete {inside}")


def within(namespace: str, *command: str | Path) -> str:
    """Run the command there; return what it prints."""
    said = subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def batch(lines: str, namespace: str | None = None) -> None:
    there = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *there, "-batch", "-"], input=lines, text=True, check=True)


SAVED = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
{rule}
COMMIT
"""


@pytest.mark.parametrize(
    ("rule", "to"),
    [
        ("-A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443", True),
        ("-A DOCKER -p tcp -m multiport --dports 80,443 -j DNAT --to-destination 172.17.0.2", True),
        ("-A DOCKER -d 10.77.0.1/32 -p tcp -m tcp --dport 400:500 -j DNAT --to-destination 172.17.0.2", True),
        ("-A DOCKER -d 10.0.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2", False),
        ("-A DOCKER -p udp -m udp --dport 443 -j DNAT --to-destination 172.17.0.2:443", False),
        ("-A DOCKER -p tcp -m tcp ! --dport 443 -j DNAT --to-destination 172.17.0.2:443", False),
        ("-A DOCKER -p tcp -m tcp --dport 443 -j ACCEPT", False),
    ],
)
async def test_rules_that_iptables_saves_are_read_likewise(rule: str, *, to: bool) -> None:
    found = read_saved(SAVED.format(rule=rule), gateway(), DIALLED)
    assert (found is not None and found.endswith("by chain DOCKER of table nat")) is to


BY_UDP = "-A DOCKER ! -i docker0 -p udp -m udp --dport {} -j DNAT --to-destination 172.17.0.2:{}"


@pytest.mark.parametrize(
    ("daemon", "rule", "port"),
    [
        (OpenVpn(), BY_UDP.format(443, 1194), "UDP port 443"),
        (OpenVpn(), BY_UDP.format(443, 1194).replace("udp", "tcp"), "port 443"),
        (OpenVpn(), BY_UDP.format(443, 1194).replace("-p udp -m udp", "-p 17"), "UDP port 443"),
        (OpenVpn(), BY_UDP.format(443, 1194).replace("-p udp -m udp", "! -p tcp"), "UDP port 443"),
        (OpenVpn(), BY_UDP.format(443, 1194).replace("-p udp -m udp", "-p sctp"), None),
        (StrongSwan(), BY_UDP.format(500, 500), "UDP port 500"),
        (StrongSwan(), BY_UDP.format(4500, 4500), "UDP port 4500"),
        (StrongSwan(), BY_UDP.format(500, 500).replace("udp", "tcp"), None),
        (Ocserv(), BY_UDP.format(443, 443), None),
    ],
)
async def test_a_rule_of_iptables_is_read_by_the_transports_of_the_gateways_daemon(
    daemon: Daemon, rule: str, port: str | None
) -> None:
    users = gateway() if daemon.product != "strongswan" else gateway().model_copy(update={"port": 500})
    found = read_saved(SAVED.format(rule=rule), users, daemon.dialled(users))
    assert (found and found.partition(" of ")[0]) == port


async def test_a_port_that_a_runtimes_program_publishes_is_refused_with_the_program(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    proxy = shutil.copy(PYTHON, tmp_path / "docker-proxy")
    process = await start([os.fspath(proxy), "-c", LISTENS], stderr=asyncio.subprocess.DEVNULL)
    assert process.stdout
    await process.stdout.readline()
    why = await refusal(lab)
    process.kill()
    await process.wait()
    assert f"port 443 of gw-1 is published by docker-proxy (process {process.pid}): {WHAT_TO_DO}" in why


async def test_a_daemon_with_a_root_of_its_own_on_the_hosts_network_is_refused(lab: GatewayLab) -> None:  # noqa: F811
    daemon = Unprepared(lab, within=("unshare", "--mount", "sh", "-c", A_ROOT_OF_ITS_OWN, "sh"))
    why = await refusal(lab)
    assert f"(process {daemon.process.pid}) serves gw-1 and has a root folder of its own: {WHAT_TO_DO}" in why


async def test_a_daemon_with_mounts_of_its_own_as_units_have_them_is_no_containers(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab, within=("unshare", "--mount"))
    await lab.client(1).up()
    found = await lab.adoption.examine()
    assert (found.obstacles, found.pid) == ((), daemon.process.pid)


@contextmanager
def group(name: str, pid: int) -> Iterator[None]:
    """Have the process in a control group of that name, and back where it was."""
    home = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    mounted = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line
    ]
    root = Path(mounted[-1])
    place = root / name
    place.mkdir(parents=True)
    (place / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (root / home.lstrip("/") / "cgroup.procs").write_text(str(pid))
        place.rmdir()


@pytest.mark.parametrize("runtime", ["libpod", "docker"])
async def test_a_daemon_in_the_control_group_of_a_container_is_refused_with_its_name(
    lab: GatewayLab,  # noqa: F811
    runtime: str,
) -> None:
    container = secrets.token_hex(32)  # control groups are the machine's: two runs must not meet in one
    daemon = Unprepared(lab)
    with group(f"{runtime}-{container}.scope", daemon.process.pid):
        why = await refusal(lab)
    assert f"is in the control group of container {container[:12]}: {WHAT_TO_DO}" in why
