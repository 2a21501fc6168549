"""Chains at a device see packets as they come from the wire: a slot has a port of its own there.

The kernel of each case is real, and a user outside sends UDP to the users' port and to the slot's.
"""

import subprocess

import pytest

from deploy.lab.namespaces import inside
from tests.drivers.test_input_filter import MISSING, User, found, namespace, typed, user  # noqa: F401

pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

_ECHO = (
    "import socket\nof = socket.socket(type=socket.SOCK_DGRAM)\nof.bind(('0.0.0.0', {}))\nprint(flush=True)\n"
    "while 1: of.sendto(*of.recvfrom(9))"
)
_ASKS = (
    "import socket\nof = socket.socket(type=socket.SOCK_DGRAM)\nof.settimeout(1)\n"
    "of.sendto(b'x', ('198.18.7.1', {}))\nof.recv(9)"
)
CHAIN = """nft -f - <<'END'
table {0} ddos {{ chain at {{ type filter hook {1} device {2} priority -500; policy accept;
  {3}
 }}
}}
END"""
FLOOD = "meta l4proto udp udp {} != {{ 443, 53 }} drop"


def is_answered(user: User, port: int) -> bool:  # noqa: F811
    """Whether UDP to that port of the gateway is answered."""
    python = ["python3", "-c"]
    serves = ["ip", "netns", "exec", user.gateway, *python, _ECHO.format(port)]
    with subprocess.Popen(serves, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        asks = ["ip", "netns", "exec", user.client, *python, _ASKS.format(port)]
        answered = subprocess.run(asks, capture_output=True, check=False).returncode == 0
        server.kill()
    return answered


@pytest.mark.parametrize(
    ("family", "hook", "field"),
    [("netdev", "ingress", "dport"), ("inet", "ingress", "dport"), ("netdev", "egress", "sport")],
)
def test_a_chain_at_the_device_that_lets_in_the_users_port_alone_is_named(
    user: User,  # noqa: F811
    family: str,
    hook: str,
    field: str,
) -> None:
    said = found(user.gateway, CHAIN.format(family, hook, "eth0", FLOOD.format(field)))
    assert is_answered(user, 443)
    assert not is_answered(user, 4431)
    assert [one for one in said if "UDP port 4431" in one and "chain at of table" in one]


def test_a_chain_at_the_device_is_read_for_tcp_where_users_are_sent_to_the_slots_own_port(
    namespace: str,  # noqa: F811
) -> None:
    """Steering by `redirect` sends users there; the kernel's steering moves them behind the chain."""
    typed_for_eth0 = "ip link add eth0 type veth peer name eth1\n"
    rules = CHAIN.format("netdev", "ingress", "eth0", "tcp dport != { 22, 443 } tcp flags syn drop")
    said = found(namespace, typed_for_eth0 + rules, redirected=())
    assert [one for one in said if "TCP port 4431" in one]
    with inside(namespace):
        typed("nft delete table netdev ddos; ip link delete eth0")
    assert found(namespace, typed_for_eth0 + rules) == []


@pytest.mark.parametrize(
    ("device", "rules"),
    [
        ("eth0", "meta l4proto udp udp dport != { 443, 53, 4431, 4432 } drop"),
        ("eth0", "ip saddr 203.0.113.0/24 drop"),
        ("other", "drop"),
    ],
)
def test_a_chain_at_a_device_that_treats_all_ports_alike_is_no_obstacle(
    user: User,  # noqa: F811
    device: str,
    rules: str,
) -> None:
    script = "ip link add other type veth peer name inner\n" + CHAIN.format(
        "netdev", "ingress", device, rules
    )
    assert found(user.gateway, script) == []
    assert is_answered(user, 4431)


def test_a_chain_of_another_device_hides_no_rule(user: User) -> None:  # noqa: F811
    script = "ip link add other type veth peer name inner\n"
    script += CHAIN.format("netdev", "ingress", "other", "drop") + "\n"
    script += CHAIN.format("inet", "ingress", "eth0", FLOOD.format("dport"))
    assert [one for one in found(user.gateway, script) if "UDP port 4431" in one]
