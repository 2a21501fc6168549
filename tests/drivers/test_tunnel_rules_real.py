"""A host whose rules name the pool of the daemon that was adopted, as every installer writes them.

`-t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE` and `-A FORWARD -s 10.8.0.0/24 -j ACCEPT`: users
log in at a new slot, its probe passes, and nothing of theirs leaves the gateway.
"""

import subprocess
from collections.abc import Iterator

import pytest

from activities.drivers.programs import run
from activities.drivers.runtime.host.path import GatewayPath
from activities.drivers.runtime.host.slots import HostSlots
from policies.paths import findings_of
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import OpenVpnLab, why_not_here
from tests.drivers.test_openvpn_adopted import Unprepared, before_us
from tests.sampled import sampled

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
BEHIND = (
    "ip netns add pst-behind",
    "ip link add behind0 type veth peer name behind1 netns pst-behind",
    "ip address add 10.55.0.1/24 dev behind0",
    "ip link set behind0 up",
    "ip -n pst-behind address add 10.55.0.2/24 dev behind1",
    "ip -n pst-behind link set behind1 up",
    "sysctl -qw net.ipv4.ip_forward=1",
    "sysctl -qw net.ipv6.conf.all.forwarding=1",
)
RULES = {
    "masquerade": ("iptables -t nat -A POSTROUTING -s {pool} -o behind0 -j MASQUERADE",),
    "forward": (
        "ip -n pst-behind route add 10.90.0.0/16 via 10.55.0.1",
        "iptables -P FORWARD DROP",
        "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "iptables -A FORWARD -s {pool} -j ACCEPT",
    ),
}


@pytest.fixture
def cleared(openvpn: OpenVpnLab) -> Iterator[None]:  # noqa: F811
    """Take the rules away from the gateway behind the test."""
    del openvpn
    yield
    subprocess.run(["ip", "netns", "del", "pst-behind"], check=True)
    subprocess.run(["iptables", "-P", "FORWARD", "ACCEPT"], check=True)
    subprocess.run(["iptables", "-F"], check=True)
    subprocess.run(["iptables", "-t", "nat", "-F"], check=True)


async def reaches_behind(lab: OpenVpnLab, number: int) -> bool:
    """Whether the host behind the gateway answers that user."""
    site = ["ip", "netns", "exec", f"{lab.prefix}c{number}"]
    assert (await run([*site, "ip", "route", "replace", "10.55.0.0/24", "dev", "tun0"])).status == 0
    return (await run([*site, "ping", "-c", "2", "-W", "1", "10.55.0.2"])).status == 0


async def typed(commands: tuple[str, ...], pool: str = "10.90.9.0/24") -> None:
    for command in commands:
        assert (await run(command.format(pool=pool).split())).status == 0, command


async def of_the_rules(lab: OpenVpnLab) -> list[str]:
    path = findings_of(await GatewayPath(lab.folders, lab.table).walk())
    return [one.sentence for one in path if not one.well and one.about == "slots' rules"]


@pytest.mark.sweep
@pytest.mark.usefixtures("cleared")
@pytest.mark.parametrize("kind", sampled(list(RULES), "masquerade"))
async def test_rules_for_the_adopted_pool_alone_are_named_before_an_upgrade_and_in_the_path(
    openvpn: OpenVpnLab,  # noqa: F811
    kind: str,
) -> None:
    rules = RULES[kind]
    await before_us(openvpn)
    await typed((*BEHIND, *rules))
    Unprepared(openvpn)
    await openvpn.client(1).up()
    assert await reaches_behind(openvpn, 1)
    await openvpn.table.prime()
    await openvpn.adoption.adopt(operation("adopt"), ())

    async def obstacles(slots: HostSlots) -> list[str]:
        reasons = await slots.preflight(openvpn.admission.release("1"))
        return [one for one in reasons if "-s 10.90.9.0/24" in one or "ip saddr 10.90.9.0/24" in one]

    named = await obstacles(openvpn.slots)
    assert {f"of slot {slot.name};" in " ".join(named) for slot in openvpn.gateway.slots} == {True}, named
    assert await of_the_rules(openvpn)

    new = await openvpn.running("1")
    await openvpn.table.make_permanent(operation("keep"), new)
    await openvpn.client(2).up()
    assert await openvpn.home_of(2) == new
    assert not await reaches_behind(openvpn, 2), "this is what is named"

    for slot in openvpn.gateway.slots:
        await typed(rules[-1:], str(slot.pool4))
    assert await reaches_behind(openvpn, 2)
    assert await obstacles(openvpn.slots) == []
    assert await of_the_rules(openvpn) == []
