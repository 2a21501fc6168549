"""B1 (p7): a host whose firewall accepts the users' port alone drops them at the port of a slot.

Each case is read from the tools of a real kernel, in a network namespace of its own.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from activities.drivers.runtime.host.input_filter import drops_users
from deploy.lab.namespaces import inside
from policies.model.fleet import Gateway, Slot

TOOLS = ("nft", "iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

GATEWAY = Gateway(
    name="gw-1",
    port=443,
    addresses=(IPv4Address("198.18.7.1"), IPv6Address("2001:db8::1")),
    slots=tuple(
        Slot(name=name, port=port, device=f"vpn{name}", pool4=IPv4Network(f"10.1.{port - 4431}.0/24"))
        for name, port in (("a", 4431), ("b", 4432))
    ),
)
NFTABLES = """table inet filter { chain input { type filter hook input priority filter; policy drop;
  ct state established,related accept
  iif lo accept
  meta l4proto { icmp, ipv6-icmp } accept
"""
IPTABLES = """
{0} -P INPUT DROP
{0} -A INPUT -i lo -j ACCEPT
{0} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A INPUT -p icmp -j ACCEPT
{0} -N users
{0} -A INPUT -j users
{0} -A users -p tcp -m multiport --dports 22,443 -j ACCEPT
{0} -A users -p udp --dport 443 -j ACCEPT
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = "pst-input"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def found(namespace: str, script: str, redirected: tuple[str, ...] = ("tcp",)) -> list[str]:
    """Return what is found after a script has set the filter up."""
    with inside(namespace):
        subprocess.run(["sh", "-ec", script], check=True, capture_output=True)
        return list(asyncio.run(drops_users(GATEWAY, redirected)))


def nft(rules: str) -> str:
    return f"nft -f - <<'END'\n{NFTABLES}{rules}\n }}\n}}\nEND"


def dropped(sentences: list[str]) -> set[tuple[str, str, str]]:
    """Return protocol, port and family of each."""
    return {
        (words[words.index("drops") + 1], words[words.index("slot") - 2], words[words.index("over") + 1])
        for words in (one.split() for one in sentences)
    }


EVERY = {
    (protocol, port, family)
    for protocol in ("TCP", "UDP")
    for port in ("4431", "4432")
    for family in ("IPv4", "IPv6")
}


def test_a_chain_of_nftables_that_accepts_the_users_port_alone_drops_every_slot(namespace: str) -> None:
    """B1: before the trial a user was answered, on trial timed out, and the host's own probe passed."""
    sentences = found(namespace, nft("  tcp dport { 22, 443 } accept\n  udp dport 443 accept"))
    assert dropped(sentences) == EVERY
    assert sentences[0] == (
        "the packet filter of gw-1 accepts TCP port 443 and drops TCP port 4431 of slot a over IPv4 "
        "(nftables table inet filter, chain input); accept TCP port 4431 from your users"
    )


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_iptables_of_either_kernel_interface_is_followed_into_its_chains(namespace: str, kind: str) -> None:
    """B1: ufw's way; nft(8) does not show what `-m multiport` asks."""
    four = IPTABLES.format(f"iptables-{kind}")
    six = IPTABLES.format(f"ip6tables-{kind}").replace("-p icmp", "-p icmpv6")
    assert dropped(found(namespace, four)) == {one for one in EVERY if one[2] == "IPv4"}
    assert dropped(found(namespace, six)) == EVERY


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("  tcp dport { 443, 4431-4432 } accept\n  udp dport { 443, 4431, 4432 } accept", set[str]()),
        ("  th dport 443 accept\n  th dport 4431 accept", {"4432"}),
        ("  th dport { 443, 4400-4499 } jump users\n }\n chain users {\n counter accept", set[str]()),
        ("  th dport vmap { 443 : accept, 4432 : accept }", {"4431"}),
        ("  accept", set[str]()),
        ("  ct state vmap { established : accept, invalid : drop, new : accept }", set[str]()),
        ("  th dport 443 accept\n  ip saddr 192.0.2.0/24 accept\n  ip6 saddr ::/1 accept", set[str]()),
        ("  th dport 443 accept\n  limit rate 5/second accept", set[str]()),
        ("  udp dport 9 accept", set[str]()),  # users do not come this way at all
    ],
)
def test_what_may_pass_is_no_obstacle(namespace: str, rules: str, left: set[str]) -> None:
    assert {port for _, port, _ in dropped(found(namespace, nft(rules)))} == left


def test_a_set_of_ports_is_read_and_a_later_chain_may_drop_what_an_earlier_one_accepts(
    namespace: str,
) -> None:
    script = """nft -f - <<'END'
table inet one { set ports { type inet_service; flags interval; elements = { 443, 4430-4440 }; }
 chain input { type filter hook input priority 0; policy drop; th dport @ports accept; }
}
table ip two { chain late { type filter hook input priority 10; policy accept; tcp dport 4432 drop; }
}
END"""
    assert dropped(found(namespace, script)) == {("TCP", "4432", "IPv4")}


def test_a_filter_that_accepts_what_was_redirected_drops_only_what_is_not(namespace: str) -> None:
    """firewalld accepts every packet that has been translated; each instance announces its own UDP port."""
    script = nft("  ct status dnat accept\n  th dport 443 accept")
    assert dropped(found(namespace, script)) == {one for one in EVERY if one[0] == "UDP"}
    assert dropped(found(namespace, script, ("tcp", "udp"))) == set()


def test_a_host_without_any_filter_drops_nobody(namespace: str) -> None:
    assert found(namespace, "true") == []


def test_the_table_of_ports_in_the_document_has_the_slots_ports() -> None:
    """B1: docs/install.md did not name them."""
    table = [line for line in Path("docs/install.md").read_text().splitlines() if line.startswith("| users ")]
    assert any("4431" in line and "4432" in line and "UDP" in line for line in table)
