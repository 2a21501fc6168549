"""A gateway whose instances have networks of their own, on a host with rules for one slot alone.

Packets of users are forwarded twice there: to the instance's address, and out of the tunnel or back into it.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from activities.drivers.programs import run
from activities.drivers.runtime.host.path import GatewayPath
from activities.drivers.runtime.host.tunnel_rules import drops, planes_of, uncovered
from deploy.lab.namespaces import inside
from policies.model.fleet import Slot
from policies.paths import findings_of
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    built_strongswan,
    strongswan,
)
from tests.drivers.gateway_lab import operation
from tests.drivers.strongswan_lab import StrongSwanLab, why_not_here

TOOLS = ("nft", "iptables-nft", "iptables-legacy")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

A, B = (
    Slot(
        name=name,
        port=500,
        device=f"vpn{name}",
        pool4=IPv4Network(f"10.8.{number}.0/24"),
        address=IPv4Address(f"10.255.0.{1 + 2 * number}"),
    )
    for number, name in enumerate("ab")
)
GATEWAY, INSIDE, WORLD = "pst-own", "pst-own-inside", "pst-own-world"


def typed(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, capture_output=True)


@dataclass(frozen=True)
class Host:
    """A gateway with two instances, the world before it, and an inside that is behind it."""

    def found(self, at: str | None = None) -> list[str]:
        """Return what the check before an upgrade from slot a to slot b finds."""
        with inside(GATEWAY):
            return list(asyncio.run(uncovered(asyncio.run(planes_of((A, B), at)), ("a",), ("b",))))

    def dropped(self) -> list[str]:
        """Return which chains drop all packets of users."""
        with inside(GATEWAY):
            return list(drops(asyncio.run(planes_of((A, B)))))

    def gets_out(self, slot: Slot) -> bool:
        """Whether the world answers a packet that comes out of a tunnel of the slot's instance."""
        typed(f"ip -n {GATEWAY} route replace {slot.pool4} via {slot.address}")
        return _pings(_instance(slot), "198.18.7.9", slot.pool4[5])

    def gets_in(self, slot: Slot) -> bool:
        """Whether a packet from the world, which steering sends to the instance, gets there."""
        typed(f"ip -n {WORLD} route replace {slot.address} via 198.18.7.1")
        return _pings(WORLD, str(slot.address), None)


def _instance(slot: Slot) -> str:
    return f"pst-own-{slot.name}"


def _pings(namespace: str, target: str, source: IPv4Address | None) -> bool:
    """Whether one of two pings is answered; the first one finds the neighbours."""
    by = [] if source is None else ["-I", str(source)]
    asks = ["ip", "netns", "exec", namespace, "ping", "-c", "2", "-i", "0.2", "-W", "1", *by, target]
    return subprocess.run(asks, capture_output=True, check=False).returncode == 0


@pytest.fixture
def host() -> Iterator[Host]:
    names = (GATEWAY, INSIDE, WORLD, *map(_instance, (A, B)))
    for name in names:
        typed(f"ip netns add {name}; ip -n {name} link set lo up")
    typed(f"""ip link add eth0 netns {GATEWAY} type veth peer name w0 netns {WORLD}
ip -n {GATEWAY} address add 198.18.7.1/24 dev eth0
ip -n {GATEWAY} link set eth0 up
ip -n {WORLD} address add 198.18.7.9/24 dev w0
ip -n {WORLD} link set w0 up
ip netns exec {GATEWAY} sysctl -qw net.ipv4.ip_forward=1""")
    for slot in (A, B):
        name = _instance(slot)
        typed(f"""ip link add {slot.device} netns {GATEWAY} type veth peer name eth0 netns {name}
ip -n {GATEWAY} address add {slot.host_end}/31 dev {slot.device}
ip -n {GATEWAY} link set {slot.device} up
ip -n {name} address add {slot.address}/31 dev eth0
ip -n {name} address add {slot.pool4[5]}/32 dev lo
ip -n {name} link set eth0 up
ip -n {name} route add default via {slot.host_end}""")
    yield Host()
    for name in names:
        typed(f"ip netns delete {name}")


def rules(text: str, kind: str = "nft", at: str = GATEWAY) -> None:
    """Have these rules of iptables in a network namespace."""
    for line in text.strip().splitlines():
        typed(f"ip netns exec {at} iptables-{kind} {line}")


REPLIES = "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
TO_ALL = "-A FORWARD -o vpn+ -j ACCEPT\n"
OF_A = "-A FORWARD -s 10.8.0.0/24 -j ACCEPT\n-t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE\n"


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_rules_for_the_pool_of_the_slot_that_serves_are_named_until_there_are_such_for_the_new_one(
    host: Host, kind: str
) -> None:
    """Before, nothing left the new slot's tunnels, and doctor called the slots alike."""
    rules(REPLIES + TO_ALL + OF_A, kind)
    assert host.gets_out(A)
    assert not host.gets_out(B), "this is what is named"
    accepts, translates = host.found()
    assert "-s 10.8.0.0/24 -j ACCEPT" in accepts or "ip saddr 10.8.0.0/24" in accepts
    assert "translates addresses of users of slot a (10.8.0.0/24)" in translates
    assert "add one for their pool 10.8.1.0/24 or their device vpnb" in accepts
    rules(OF_A.replace("10.8.0.0/24", "10.8.1.0/24"), kind)
    assert host.gets_out(B)
    assert host.found() == []


@pytest.mark.parametrize(
    ("of_a", "of_b"),
    [
        ("-A FORWARD -o vpna -j ACCEPT", "-A FORWARD -o vpnb -j ACCEPT"),
        ("-A FORWARD -d 10.255.0.1 -j ACCEPT", "-A FORWARD -d 10.255.0.3 -j ACCEPT"),
        ("-A FORWARD -d 10.255.0.0/31 -p icmp -j ACCEPT", "-A FORWARD -d 10.255.0.2/31 -p icmp -j ACCEPT"),
    ],
)
def test_rules_for_the_cable_or_the_address_of_one_instance_are_named(
    host: Host, of_a: str, of_b: str
) -> None:
    rules(REPLIES + of_a)
    assert host.gets_in(A)
    assert not host.gets_in(B), "this is what is named"
    [said] = [one for one in host.found() if "10.255.0.3" in one]
    assert "accepts packets of users of slot a (10.255.0.1/32)" in said
    assert "add one for their address 10.255.0.3/32 or their device vpnb" in said
    rules(of_b)
    assert host.gets_in(B)
    assert [one for one in host.found() if "10.255.0.3" in one] == []


def test_slots_that_share_their_rules_are_alike(host: Host) -> None:
    shared = "-A FORWARD -i vpn+ -j ACCEPT\n-t nat -A POSTROUTING -s 10.8.0.0/16 -o eth0 -j MASQUERADE"
    rules(REPLIES + TO_ALL + shared)
    assert host.gets_out(A)
    assert host.gets_out(B)
    assert host.gets_in(B)
    assert host.found() == []
    assert host.dropped() == []


def test_what_the_instance_sends_by_itself_needs_no_translation_of_the_hosts_own(host: Host) -> None:
    """The steering's own rules translate it, and they come first."""
    rules("-t nat -A POSTROUTING -s 10.255.0.0/31 -o eth0 -j MASQUERADE")
    assert host.found() == []


def test_a_chain_that_lets_no_new_packet_to_an_instance_drops_all_of_its_users(host: Host) -> None:
    rules(REPLIES + "-A FORWARD -o vpna -j ACCEPT\n-A FORWARD -i vpn+ -j ACCEPT")
    assert host.gets_in(A)
    assert not host.gets_in(B)
    assert host.dropped() == [
        "chain FORWARD of table filter drops all that is forwarded for users of slot b (10.255.0.3/32)"
    ]


def test_pools_are_compared_in_the_inside_where_the_gateway_has_one(host: Host) -> None:
    """What the tunnels carry never passes through the host there: its rules for pools are no users'."""
    rules(REPLIES + TO_ALL + OF_A + "-A FORWARD -i vpn+ -j ACCEPT")
    assert host.found(INSIDE) == []
    rules("-P FORWARD DROP\n-A FORWARD -s 10.8.0.0/24 -j ACCEPT\n-A FORWARD -o vpn+ -j ACCEPT", at=INSIDE)
    [said] = host.found(INSIDE)
    assert f"in network namespace {INSIDE}) accepts packets of users of slot a (10.8.0.0/24)" in said
    assert "10.8.0.0/24" in said.split("`")[1]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_the_inside_is_read_by_either_kernel_interface(host: Host, kind: str) -> None:
    rules("-t nat -A POSTROUTING -s 10.8.0.0/24 -j MASQUERADE", kind, INSIDE)
    [said] = host.found(INSIDE)
    assert "translates addresses of users of slot a (10.8.0.0/24)" in said


class TestOnARealGateway:
    """The same with charons that serve."""

    pytestmark = [
        *ON_A_REAL_GATEWAY,
        pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
    ]

    async def test_the_check_before_an_upgrade_and_the_path_name_the_rule_for_the_pool_that_serves(
        self,
        strongswan: StrongSwanLab,  # noqa: F811
    ) -> None:
        slot = await strongswan.running("1")
        await strongswan.table.make_permanent(operation("keep"), slot)
        path, release = GatewayPath(strongswan.folders, strongswan.table), strongswan.admission.release("2")
        pools = {one.name: str(one.pool4) for one in strongswan.gateway.slots}
        assert await strongswan.slots.preflight(release) == ()

        async def of_the_rules() -> list[str]:
            return [one.sentence for one in findings_of(await path.walk()) if one.about == "slots' rules"]

        async def typed_for(pool: str, action: str) -> None:
            rule = f"iptables -t nat {action} POSTROUTING -s {pool} -o gone0 -j MASQUERADE"
            assert (await run(rule.split())).status == 0

        await typed_for(pools[slot], "-A")
        try:
            reasons = await strongswan.slots.preflight(release)
            translates = f"translates addresses of users of slot {slot} ({pools[slot]})"
            assert len([one for one in reasons if translates in one]) == len(pools) - 1, reasons
            assert reasons[0] in " ".join(await of_the_rules())
            for pool in pools.values():
                await typed_for(pool, "-A" if pool != pools[slot] else "-C")
            assert await strongswan.slots.preflight(release) == ()
            assert await of_the_rules() == ["the packet filter treats users of all slots alike"]
        finally:
            await run(["iptables", "-t", "nat", "-F"])
