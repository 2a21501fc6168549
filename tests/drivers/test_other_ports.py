"""A host that leads a second port of its own to the users' port, for networks that let only that one out.

`-t nat -A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 1194`: its users would stay at the adopted one.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from activities.drivers.daemon.port import Dialled
from activities.drivers.programs import run
from activities.drivers.runtime.host.other_ports import other_ways
from deploy.lab.namespaces import inside
from policies.model.errors import Refused
from policies.model.fleet import Gateway, Slot
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import OpenVpnLab
from tests.drivers.openvpn_lab import why_not_here as why_no_openvpn
from tests.drivers.test_openvpn_adopted import Unprepared, before_us
from tests.sampled import sampled

TOOLS = ("nft", "iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]
GATEWAY = Gateway(
    name="gw-1",
    port=443,
    addresses=(IPv4Address("198.18.7.1"),),
    slots=tuple(
        Slot(name=name, port=port, device=f"vpn{name}", pool4=IPv4Network(f"10.1.{port - 4431}.0/24"))
        for name, port in (("a", 4431), ("b", 4432))
    ),
)
UDP = (Dialled("udp", 443),)
ADDRESSES = """
ip link add wan0 type veth peer name wan1
ip address add 198.18.7.1/24 dev wan0
ip address add 198.18.7.2/24 dev wan0
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = "pst-other"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def found(namespace: str, script: str) -> list[str]:
    with inside(namespace):
        subprocess.run(["sh", "-ec", ADDRESSES + script], check=True, capture_output=True)
        return list(asyncio.run(other_ways(GATEWAY, UDP)))


def nft(rule: str, hook: str = "prerouting") -> str:
    return (
        "nft -f - <<'END'\ntable inet site {\n set ports { type inet_service; elements = { 53, 80 }; }\n"
        f" chain base {{ type nat hook {hook} priority -100;\n{rule}\n }}\n}}\nEND"
    )


LEADS = [
    "udp dport 53 redirect to :443",
    "udp dport { 53, 443 } redirect to :443",
    "udp dport @ports redirect to :443",
    "udp dport 1-65535 redirect to :443",
    "meta l4proto { tcp, udp } th dport 53 redirect to :443",
    "meta l4proto udp redirect to :udp dport map { 53 : 443 }",
    "udp dport 53 dnat ip to 198.18.7.1:443",
    "udp dport 53 dnat ip to ip daddr map { 198.18.7.1 : 198.18.7.1 . 443 }",
    "ip daddr 198.18.7.2 udp dport 443 dnat ip to 198.18.7.1",
    "ip daddr 198.18.7.2 udp dport 443 redirect to :443",
    "udp dport 53 jump more\n }\n chain more {\n meta l4proto udp redirect to :443",
]


@pytest.mark.parametrize("rule", LEADS)
def test_a_rule_of_nftables_that_leads_another_port_to_the_users_is_named(namespace: str, rule: str) -> None:
    [said] = found(namespace, nft(rule))
    assert "443" in said.split("`")[1] or "198.18.7.1" in said.split("`")[1]
    assert "to UDP port 443 of gw-1; no new instance gets them" in said


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize(
    "rule",
    [
        "-p udp --dport 53 -j REDIRECT --to-ports 443",
        "-p udp -m multiport --dports 53,443 -m comment --comment 'let out' -j REDIRECT --to-ports 443",
        "-p udp -d 198.18.7.1 --dport 53 -j DNAT --to-destination 198.18.7.1:443",
        "-p udp -d 198.18.7.2 --dport 443 -j DNAT --to-destination 198.18.7.1",
        "-i wan0 -p udp ! --dport 443 -j REDIRECT --to-ports 443",
    ],
)
def test_a_rule_of_iptables_that_leads_another_port_to_the_users_is_named(
    namespace: str, rule: str, kind: str
) -> None:
    [said] = found(namespace, f"iptables-{kind} -t nat -A PREROUTING {rule}")
    assert said.startswith("`-A PREROUTING ")
    assert f"(iptables-{kind}, table nat) leads users of another port or address to UDP port 443" in said


@pytest.mark.parametrize(
    "script",
    [
        "true",
        nft("udp dport 443 redirect to :443"),
        nft("tcp dport 53 redirect to :443"),
        nft("udp dport 53 redirect to :5353"),
        nft("udp dport 53 dnat ip to 203.0.113.9:443"),
        nft("udp dport 53 redirect to :443", "output"),
        nft("ip daddr 198.18.7.1 udp dport 443 dnat ip to 198.18.7.1:443"),
        "iptables-nft -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:443",
        "iptables-legacy -t nat -A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 443",
    ],
)
def test_a_rule_that_leads_nobody_else_to_the_users_port_is_in_nobodys_way(
    namespace: str, script: str
) -> None:
    assert found(namespace, script) == []


RULES = {
    "nft": nft("udp dport 53 redirect to :443"),
    "iptables": "iptables -t nat -A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 443",
}


class TestOnARealGateway:
    """The same with a daemon that serves, and its adoption."""

    pytestmark = [
        *ON_A_REAL_GATEWAY,
        pytest.mark.skipif(why_no_openvpn() is not None, reason=why_no_openvpn() or ""),
    ]

    @pytest.mark.parametrize("kind", sampled(list(RULES), "nft"))
    async def test_a_daemon_with_users_of_a_second_port_is_refused_until_its_rule_is_gone(
        self,
        openvpn: OpenVpnLab,  # noqa: F811
        kind: str,
    ) -> None:
        await before_us(openvpn)
        Unprepared(openvpn)
        assert (await run(["sh", "-ec", RULES[kind]])).status == 0
        await openvpn.table.prime()
        [said] = (await openvpn.adoption.examine()).obstacles
        assert "53" in said.split("`")[1]
        assert "leads users of another port or address to UDP port 443 of gw-1" in said
        with pytest.raises(Refused, match="leads users of another port"):
            await openvpn.adoption.adopt(operation("adopt"), ())
        assert openvpn.folders.adopted is None

        gone = (
            ["nft", "delete", "table", "inet", "site"] if kind == "nft" else ["iptables", "-t", "nat", "-F"]
        )
        assert (await run(gone)).status == 0
        assert (await openvpn.adoption.examine()).obstacles == ()
        assert (await openvpn.adoption.adopt(operation("adopt"), ())).changed

    async def test_a_rule_for_a_second_port_that_came_after_the_adoption_is_in_the_way_of_an_upgrade(
        self,
        openvpn: OpenVpnLab,  # noqa: F811
    ) -> None:
        await before_us(openvpn)
        Unprepared(openvpn)
        await openvpn.table.prime()
        await openvpn.adoption.adopt(operation("adopt"), ())
        assert (await run(["sh", "-ec", RULES["nft"]])).status == 0
        reasons = await openvpn.slots.preflight(openvpn.admission.release("1"))
        assert [one for one in reasons if "udp dport 53 redirect to :443" in one], reasons
        assert (await run(["nft", "delete", "table", "inet", "site"])).status == 0
