"""B1 (p7): a host whose firewall accepts the users' port alone drops them at the port of a slot.

Each case is read from the tools of a real kernel, in a network namespace of its own. In some of them a user
outside connects: to the users' port, and to it once it is redirected to the port of a slot.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from activities.drivers.runtime.host.filter_listing import read_rules
from activities.drivers.runtime.host.input_filter import drops_users, spares
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


def typed(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, capture_output=True)


def found(
    namespace: str, script: str, redirected: tuple[str, ...] = ("tcp",), serving: str | None = None
) -> list[str]:
    """Return what is found after a script has set the filter up."""
    with inside(namespace):
        typed(script)
        return list(asyncio.run(drops_users(GATEWAY, redirected, serving)))


@dataclass(frozen=True)
class User:
    """A client beside the gateway, by a cable to its eth0."""

    gateway: str
    client: str

    def gets_to(self, port: int) -> bool:
        """Whether TCP to the users' port arrives at that one, to which steering redirects it."""
        if port != GATEWAY.port:
            with inside(self.gateway):
                typed(
                    "nft add table inet penstock; nft 'add chain inet penstock pre { type nat hook "
                    "prerouting priority dstnat - 5; }'; nft flush chain inet penstock pre; "
                    f"nft add rule inet penstock pre tcp dport {GATEWAY.port} redirect to :{port}"
                )
        server = subprocess.Popen(
            ["ip", "netns", "exec", self.gateway, "python3", "-c", _SERVES.format(port)],
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        server.stdout.readline()
        try:
            asks = ["ip", "netns", "exec", self.client, "python3", "-c", _ASKS.format(GATEWAY.port)]
            return subprocess.run(asks, capture_output=True, check=False).returncode == 0
        finally:
            server.kill()
            server.wait()


_SERVES = "import socket\nof = socket.create_server(('0.0.0.0', {}))\nprint(flush=True)\nwhile 1: of.accept()"
_ASKS = "import socket\nsocket.create_connection(('198.18.7.1', {}), 1)"


@pytest.fixture
def user(namespace: str) -> Iterator[User]:
    client = "pst-input-user"
    typed(f"""ip netns add {client}
ip link add eth0 netns {namespace} type veth peer name c0 netns {client}
ip -n {namespace} address add 198.18.7.1/24 dev eth0
ip -n {namespace} link set lo up
ip -n {namespace} link set eth0 up
ip -n {client} address add 198.18.7.9/24 dev c0
ip -n {client} link set c0 up""")
    yield User(namespace, client)
    typed(f"ip netns delete {client}")


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
        "the packet filter of gw-1 accepts TCP port 443 (`tcp dport { 22, 443 } accept`) and drops TCP port "
        "4431 of slot a over IPv4 (`policy drop`, chain input of table filter); accept TCP port 4431 under "
        "the same conditions"
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
        ("  th dport 443 accept\n  ip saddr 192.0.2.0/24 accept\n  ip6 saddr ::/1 accept", {"4431", "4432"}),
        ("  th dport 443 accept\n  limit rate 5/second accept", {"4431", "4432"}),
        ("  udp dport 9 accept", set[str]()),  # users do not come this way at all
    ],
)
def test_a_port_that_takes_all_whom_the_users_port_takes_is_no_obstacle(
    namespace: str, rules: str, left: set[str]
) -> None:
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


HEAD = """iptables-{0} -P INPUT DROP
iptables-{0} -A INPUT -i lo -j ACCEPT
iptables-{0} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"""
PORT = "iptables-{0} -A INPUT -p tcp --dport 443 -j ACCEPT\n"
WAN = """iptables-{0} -A INPUT -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-{0} -A INPUT -i eth0 -p tcp --dport 443 -j ACCEPT
iptables-{0} -A INPUT -i eth0 -j DROP
"""
FLOOD = (
    "  tcp dport 443 ct state new add @flood { ip saddr limit rate over 50/second } drop\n"
    "  tcp dport 443 accept"
)
ZONES = (
    '  iifname vmap { "eth0" : jump wan, "eth1" : accept }\n  iifname != "eth0" accept\n }\n chain wan {\n'
    "  tcp dport 443 accept"
)


def with_set(rules: str) -> str:
    """Return a chain of nftables in a table that has a set of addresses."""
    flood = "set flood { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 65536; }"
    return nft(rules).replace("filter { chain", f"filter {{ {flood}\n chain", 1)


def saved(rules: str, kind: str = "nft") -> str:
    return rules.replace("{0}", kind)


SOME = {
    "the device of the world": saved(WAN),
    "the same by the older interface": saved(WAN, "legacy"),
    "devices of tunnels pass": saved(HEAD + "iptables-{0} -A INPUT -i tun+ -j ACCEPT\n" + PORT),
    "a device inside passes": saved(HEAD + "iptables-{0} -A INPUT -i eth1 -j ACCEPT\n" + PORT, "legacy"),
    "administrators pass": saved(HEAD + "iptables-{0} -A INPUT -s 10.0.0.0/8 -j ACCEPT\n" + PORT),
    "few a second pass": saved(
        HEAD + PORT + "iptables-{0} -A INPUT -m limit --limit 1/hour --limit-burst 1 -d 192.0.2.1 -j ACCEPT"
    ),
    "devices of nftables": nft('  iifname { "eth1", "wg0" } accept\n  tcp dport 443 accept'),
    "zones": nft(ZONES),
    "a bound for each address": with_set(FLOOD),
    "a port of the first packet": nft("  tcp dport 443 accept\n  @th,16,16 443 accept"),
    "programs that listen pass": saved(HEAD + "iptables-{0} -A INPUT -m socket -j ACCEPT\n" + PORT),
    "the port of answers": nft("  meta l4proto tcp ct reply proto-src 443 accept"),
    "another address": nft(
        "  ip daddr 198.18.7.1 tcp dport 443 accept\n  ip daddr 198.18.7.2 tcp dport 4431 accept"
    ),
    "a mark": saved(
        HEAD + "iptables-{0} -A INPUT -p tcp --dport 443 -j MARK --set-mark 1\n"
        "iptables-{0} -A INPUT -m mark --mark 1 -j ACCEPT"
    ),
    "a mark of a NAT chain, which steered users do not meet": saved(
        HEAD + "iptables-{0} -t nat -A PREROUTING -p tcp --dport 443 -j MARK --set-mark 1\n"
        "iptables-{0} -A INPUT -m mark --mark 1 -j ACCEPT"
    ),
    "a mark of nftables": nft("  tcp dport 443 meta mark set 1\n  meta mark 1 accept"),
    "a mark by a map of ports": nft("  meta mark set tcp dport map { 443 : 1 }\n  meta mark 1 accept")
    .replace("input priority filter", "prerouting priority 0")
    .replace("policy drop", "policy accept")
    .replace(
        "meta mark 1 accept", "}\n chain in { type filter hook input priority 0; policy drop; mark 1 accept"
    ),
    "an early input chain": saved("iptables-{0} -t mangle -A INPUT -p tcp --dport 4431 -j DROP", "legacy"),
    "before the input chains": nft("  tcp dport { 443, 4431 } accept")
    + "\nnft 'add table ip early; add chain ip early in { type filter hook prerouting priority 10; }; "
    "add rule ip early in tcp dport 4431 drop'",
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", SOME)
def test_a_rule_that_lets_some_packets_through_hides_no_user_who_is_dropped(user: User, case: str) -> None:
    sentences = found(user.gateway, SOME[case])
    assert user.gets_to(443), "users get in before the upgrade"
    assert not user.gets_to(4431), "and are dropped once steering redirects them to the slot"
    assert [one for one in sentences if "drops TCP port 4431 of slot a over IPv4" in one], sentences


MARKED = "iptables-{0} -t mangle -A OUTPUT -p tcp --sport 443 -j MARK --set-mark 1\n"
BY_MARK = "ip rule add fwmark 1 lookup 100\n"
UPLINK = """ip link add wan1 type veth peer name wan2
ip link set wan1 up
ip link set wan2 up
ip route add 198.18.7.0/24 dev eth0 table 100
ip route replace 198.18.7.0/24 dev wan1
ip route delete 198.18.7.0/24 dev eth0 || true
for name in all eth0; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done
"""
"""The way back to users is in a table of its own; the other one leads elsewhere."""
LED = {
    "by port": "ip rule add ipproto tcp sport 443 lookup 100\n",
    "by some ports": "ip rule add sport 400-500 lookup 100\n",
    "by a mark of iptables": saved(MARKED) + BY_MARK,
    "by a mark of the older interface": saved(MARKED, "legacy") + BY_MARK,
    "by a mark of nftables": BY_MARK
    + "nft 'add table ip way; add chain ip way out { type route hook output priority mangle; }; "
    "add rule ip way out tcp sport 443 meta mark set 1'\n",
    "by a mark that a connection keeps": BY_MARK
    + saved(
        "iptables-{0} -t mangle -A INPUT -p tcp --dport 443 -j CONNMARK --set-mark 1\n"
        "iptables-{0} -t mangle -A OUTPUT -j CONNMARK --restore-mark\n"
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", LED)
def test_replies_that_leave_by_routes_for_the_users_port_alone_are_named(user: User, case: str) -> None:
    sentences = found(user.gateway, LED[case] + UPLINK)
    assert user.gets_to(443), "users get an answer before the upgrade"
    assert not user.gets_to(4431), "and none once steering redirects them to the slot"
    assert [one for one in sentences if "lookup 100` (ip rule) leads replies from TCP port 443" in one]


LED_ALIKE = {
    "by ports": "ip rule add sport 443 lookup 100\nip rule add sport 4400-4499 lookup 100\n",
    "by the address": "ip rule add from 198.18.7.1 lookup 100\n",
    "as all but a tunnel's": "ip rule add not fwmark 51820 lookup 100\n",
    "by marks": saved(MARKED + MARKED.replace("443", "4431:4432")) + BY_MARK,
    "by a mark of what was dialled": BY_MARK
    + saved(
        "iptables-{0} -t mangle -A PREROUTING -p tcp --dport 443 -j CONNMARK --set-mark 1\n"
        "iptables-{0} -t mangle -A OUTPUT -j CONNMARK --restore-mark\n"
    ),
}


@pytest.mark.parametrize("case", LED_ALIKE)
def test_replies_that_leave_by_the_same_routes_are_no_obstacle(user: User, case: str) -> None:
    assert not [one for one in found(user.gateway, LED_ALIKE[case] + UPLINK) if "TCP" in one]
    assert user.gets_to(443)
    assert user.gets_to(4431)


def test_an_address_beside_the_devices_first_with_routes_of_its_own_is_named(user: User) -> None:
    """Redirected packets get the first address of the device, and replies have that address."""
    script = "ip address delete 198.18.7.1/24 dev eth0\nip address add 198.18.7.3/24 dev eth0\n"
    script += "ip address add 198.18.7.1/24 dev eth0\nip rule add from 198.18.7.1 lookup 100\n"
    [said, *_] = found(user.gateway, script)
    assert said == (
        "`from 198.18.7.1 lookup 100` (ip rule) leads replies from TCP port 443 of 198.18.7.1, and not "
        "replies from TCP port 4431 of 198.18.7.3 of slot a over IPv4; have both led, and marked for it, "
        "alike"
    )


ALIKE = {
    "by device": saved(WAN + "iptables-{0} -I INPUT -i eth0 -p tcp --dport 4431:4432 -j ACCEPT"),
    "without the device": saved(WAN + "iptables-{0} -I INPUT -p tcp --dport 4431:4432 -j ACCEPT", "legacy"),
    "by list of addresses": saved(
        HEAD
        + "iptables-{0} -A INPUT ! -s 203.0.113.0/24 -p tcp -m multiport --dports 443,4431,4432 -j ACCEPT"
    ),
    "with a bound of its own each": saved(
        HEAD
        + "".join(
            f"iptables-{{0}} -A INPUT -p tcp --dport {port} -m hashlimit --hashlimit-above 50/sec "
            f"--hashlimit-mode srcip --hashlimit-name at{port} -j DROP\n"
            f"iptables-{{0}} -A INPUT -p tcp --dport {port} -j ACCEPT\n"
            for port in (443, 4431, 4432)
        )
    ),
    "with one bound": with_set(FLOOD.replace("443", "{ 443, 4431, 4432 }")),
    "with the bound at the users' port alone": with_set(FLOOD + "\n  tcp dport 4431-4432 accept"),
    "by zone": nft(ZONES + "\n  tcp dport { 4431, 4432 } accept"),
    "by a port that was dialled": nft("  meta l4proto tcp ct original proto-dst 443 accept"),
    "by an address and a port that were dialled": saved(
        HEAD
        + "iptables-{0} -A INPUT -p tcp -m conntrack --ctorigdst 198.18.7.1 --ctorigdstport 443 -j ACCEPT"
    ),
    "by the older module": saved(
        HEAD
        + "iptables-{0} -A INPUT -p tcp --dport 443 -m comment --comment '-- users --' -m state --state NEW "
        "-j ACCEPT\niptables-{0} -A INPUT -p tcp -m multiport --dports 4431,4432 -m conntrack --ctstate NEW "
        "-m comment --comment '-- slots --' -j ACCEPT"
    ),
    "by the address": nft(
        "  ip daddr . tcp dport { 198.18.7.1 . 443, 198.18.7.1 . 4431-4432 } accept\n  tcp dport > 65000 drop"
    ),
    "as an own user of the host": saved(
        HEAD + "iptables-{0} -A INPUT -m addrtype --dst-type LOCAL -m conntrack --ctstate NEW -j ACCEPT"
    ),
    "by a mark": nft("  tcp dport { 443, 4431, 4432 } meta mark set 1\n  meta mark 1 accept"),
    "by a mark by a map": nft(
        "  meta mark set tcp dport map { 443 : 1, 4431-4432 : 1 }\n  meta mark 1 accept"
    ),
    "by a mark of what was dialled": saved(
        HEAD + "iptables-{0} -t mangle -A PREROUTING -p tcp --dport 443 -j MARK --set-mark 1\n"
        "iptables-{0} -A INPUT -m mark --mark 1 -j ACCEPT"
    ),
    "with a mark of a NAT chain for which no rule asks": saved(
        HEAD + "iptables-{0} -t nat -A PREROUTING -i eth0 -j MARK --set-xmark 0x4000/0x4000\n"
        "iptables-{0} -A INPUT -m mark --mark 0x8000/0x8000 -j DROP\n"
        "iptables-{0} -A INPUT -p tcp -m multiport --dports 443,4431,4432 -j ACCEPT"
    ),
    "in a chain that comes back": saved(
        HEAD + "iptables-{0} -N v\niptables-{0} -A INPUT -p tcp -j v\n"
        "iptables-{0} -A v -s 192.0.2.0/24 -j RETURN\n"
        "iptables-{0} -A v -p tcp -m multiport --dports 443,4431,4432 -j ACCEPT"
    ),
}


SLOTS = "-p tcp -m multiport --dports 443,4431,4432 -j ACCEPT\n"
CLOSED = "-p tcp --dport 1024:65535 -j DROP\n"
ZONE = f"iptables-{{0}} -A INPUT -i eth0 {SLOTS}iptables-{{0}} -A INPUT -i eth0 {CLOSED}"
OTHERS_CLOSED = {
    "behind a rule for the same device": saved(f"{HEAD}{ZONE}iptables-{{0}} -A INPUT -i eth1 {SLOTS}"),
    "the same by the older interface": saved(
        f"{HEAD}{ZONE}iptables-{{0}} -A INPUT -i eth1 {SLOTS}", "legacy"
    ),
    "behind a rule for the same senders": saved(
        f"{HEAD}{ZONE}iptables-{{0}} -A INPUT -s 10.0.0.0/8 -j ACCEPT".replace("-i eth0", "-s 198.18.0.0/15")
    ),
    "behind a rule of nftables for the same device": nft(
        '  iifname "eth0" tcp dport { 443, 4431-4432 } accept\n  iifname "eth0" tcp dport 1024-65535 drop\n'
        '  iifname "eth1" accept'
    ),
    "behind a rule for the slots alone": saved(
        f"{HEAD}iptables-{{0}} -A INPUT -i eth0 -p tcp --dport 4431:4432 -j ACCEPT\n"
        f"iptables-{{0}} -A INPUT -i eth0 {CLOSED}iptables-{{0}} -A INPUT -p tcp -j ACCEPT"
    ),
    "for another device": saved(
        f"{HEAD}iptables-{{0}} -A INPUT -i eth1 {CLOSED}iptables-{{0}} -A INPUT -i eth0 {SLOTS}"
    ),
    "for other devices than the one": saved(
        f"{HEAD}iptables-{{0}} -A INPUT ! -i eth+ {CLOSED}iptables-{{0}} -A INPUT -i eth0 {SLOTS}"
    ),
    "for other senders": nft(
        "  ip saddr { 10.0.0.0/8, 192.168.0.0-192.168.9.255 } tcp dport > 1023 drop\n"
        "  ip saddr 198.18.0.0/15 tcp dport { 443, 4431-4432 } accept"
    ),
    "in a zone that is closed": saved(
        f"{HEAD}iptables-{{0}} -A INPUT -i eth1 -p tcp --sport 137 --dport 1024:65535 -j DROP\n"
        "iptables-{0} -A INPUT -i eth1 -j DROP\niptables-{0} -A INPUT -p tcp -j ACCEPT"
    ),
}


@pytest.mark.parametrize("case", OTHERS_CLOSED)
def test_a_rule_that_drops_no_packet_which_the_users_port_accepts_is_no_obstacle(
    user: User, case: str
) -> None:
    """Before, it was named with the advice to add a rule that was there."""
    sentences = found(user.gateway, OTHERS_CLOSED[case])
    assert user.gets_to(443)
    assert user.gets_to(4431)
    assert [one for one in sentences if "TCP" in one and "IPv4" in one] == []


CLOSED_FOR_THEM = {
    "the device of both": f"iptables-{{0}} -A INPUT -i eth0 {CLOSED}iptables-{{0}} -A INPUT -i eth0 {SLOTS}",
    "a device by its pattern": f"iptables-{{0}} -A INPUT -i eth+ {CLOSED}"
    f"iptables-{{0}} -A INPUT -i eth0 {SLOTS}",
    "all other devices": f"iptables-{{0}} -A INPUT ! -i eth1 {CLOSED}iptables-{{0}} -A INPUT -i eth0 {SLOTS}",
    "a network of theirs": f"iptables-{{0}} -A INPUT -s 198.18.7.0/24 {CLOSED}"
    f"iptables-{{0}} -A INPUT -s 198.18.0.0/15 {SLOTS}",
    "behind a limit": f"iptables-{{0}} -A INPUT -i eth0 -p tcp --dport 4431:4432 -m limit --limit 1/hour "
    f"--limit-burst 1 -d 192.0.2.1 -j ACCEPT\niptables-{{0}} -A INPUT -i eth0 {CLOSED}"
    f"iptables-{{0}} -A INPUT {SLOTS}",
    "behind a limit that is written twice": "iptables-{0} -A INPUT -i eth0 -m limit --limit 1/hour "
    f"--limit-burst 1 -j ACCEPT\niptables-{{0}} -A INPUT -i eth0 -m limit --limit 1/hour {CLOSED}"
    f"iptables-{{0}} -A INPUT {SLOTS}",
    "behind an exception": "iptables-{0} -N zone\niptables-{0} -A INPUT -i eth0 -j zone\n"
    "iptables-{0} -A zone -s 198.18.7.9 -j RETURN\niptables-{0} -A zone -j ACCEPT\n"
    f"iptables-{{0}} -A INPUT -i eth0 {CLOSED}iptables-{{0}} -A INPUT {SLOTS}",
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", CLOSED_FOR_THEM)
def test_a_rule_that_may_drop_packets_which_the_users_port_accepts_is_named(user: User, case: str) -> None:
    sentences = found(user.gateway, saved(HEAD + CLOSED_FOR_THEM[case]))
    user.gets_to(443)  # a limit lets one through
    assert user.gets_to(443)
    assert not user.gets_to(4431)
    assert [one for one in sentences if "drops TCP port 4431 of slot a over IPv4" in one], sentences


@pytest.mark.skipif(shutil.which("ipset") is None, reason="ipset is not installed here")
@pytest.mark.parametrize("kind", ["nft", "legacy"])
class TestSetsOfIpset:
    """Rules of iptables that ask a set for the address of a user, or for the port."""

    def test_ports_for_which_one_set_is_asked_are_alike(self, user: User, kind: str) -> None:
        rule = (
            "iptables-{0} -A INPUT -p tcp -m set --match-set office src -m multiport --dports {1} -j ACCEPT"
        )
        sets = "ipset create office hash:net\nipset add office 198.18.0.0/15\n"
        both = saved(sets + HEAD + rule.replace("{1}", "443,4431,4432"), kind)
        assert [one for one in found(user.gateway, both) if "IPv4" in one] == []
        assert user.gets_to(443)
        assert user.gets_to(4431)

    def test_a_set_that_has_the_users_port_alone_is_named(self, user: User, kind: str) -> None:
        rule = "iptables-{0} -A INPUT -p tcp -m set --match-set open dst -j ACCEPT"
        sets = "ipset create open bitmap:port range 0-65535\nipset add open 443\n"
        assert dropped(found(user.gateway, saved(sets + HEAD + rule, kind))) == {
            ("TCP", "4431", "IPv4"),
            ("TCP", "4432", "IPv4"),
        }
        assert user.gets_to(443)
        assert not user.gets_to(4431)


@pytest.mark.sweep
@pytest.mark.parametrize("case", ALIKE)
def test_ports_that_are_treated_alike_are_no_obstacle_under_conditions_that_are_not_known(
    user: User, case: str
) -> None:
    sentences = found(user.gateway, ALIKE[case])
    assert user.gets_to(443)
    assert user.gets_to(4431)
    assert [one for one in sentences if "TCP" in one and "IPv4" in one] == []


@pytest.mark.parametrize(
    "rule",
    [
        saved(
            HEAD + 'iptables-{0} -A INPUT -p tcp -m u32 --u32 "0>>22&0x3C@0&0xFFFF=443" -j ACCEPT', "legacy"
        ),
        nft("  meta l4proto tcp @th,17,15 443 accept"),
    ],
)
def test_a_rule_that_may_ask_for_the_users_port_and_is_not_evaluated_is_not_known(
    user: User, rule: str
) -> None:
    sentences = found(user.gateway, rule)
    assert user.gets_to(443)
    assert not user.gets_to(4431)
    named = [one for one in sentences if "accepts TCP port 4431 of slot a over IPv4" in one]
    assert [one for one in named if one.startswith("it is not known whether `")], sentences


OPEN = """iptables-{0} -P INPUT DROP
iptables-{0} -A INPUT -i lo -j ACCEPT
iptables-{0} -A INPUT -p tcp -m multiport --dports 443,4431,4432 -m state --state NEW,ESTABLISHED -j ACCEPT
iptables-{0} -A OUTPUT -o lo -j ACCEPT
"""
"""The ports that docs/install.md asks for are open; what the host sends is left to the case."""
CLOSED = OPEN + "iptables-{0} -P OUTPUT DROP\n"


def sends(rules: str, of: str = "type filter hook output priority 0") -> str:
    """Return a chain of nftables for what the host sends, which drops all else."""
    return f"nft -f - <<'END'\ntable inet out {{\n chain out {{ {of}; policy drop;\n{rules}\n }}\n}}\nEND"


REPLIES = {
    "the usual pair of rules": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp --sport 443 -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    ),
    "the same by the older interface": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp --sport 443 -m state --state ESTABLISHED -j ACCEPT", "legacy"
    ),
    "several ports": saved(CLOSED + "iptables-{0} -A OUTPUT -p tcp -m multiport --sports 22,443 -j ACCEPT"),
    "ports of either end": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp -m multiport --ports 22,443 -j ACCEPT"
    ),
    "by device": saved(
        OPEN + "iptables-{0} -A OUTPUT -o eth0 -p tcp --sport 443 -j ACCEPT\n"
        "iptables-{0} -A OUTPUT -o eth0 -j DROP"
    ),
    "an early chain": saved(OPEN + "iptables-{0} -t mangle -A OUTPUT -p tcp --sport 4431:4432 -j DROP"),
    "the last chain": saved(OPEN + "iptables-{0} -t mangle -A POSTROUTING -p tcp --sport 4431 -j DROP"),
    "nftables": sends("  oif lo accept\n  tcp sport 443 ct state established accept"),
    "a route chain of nftables": sends("  tcp sport 443 accept", "type route hook output priority mangle"),
    "a mark": saved(
        CLOSED + "iptables-{0} -t mangle -A OUTPUT -p tcp --sport 443 -j MARK --set-mark 1\n"
        "iptables-{0} -A OUTPUT -m mark --mark 1 -j ACCEPT"
    ),
    "a mark of the connection": saved(
        CLOSED + "iptables-{0} -t mangle -A INPUT -p tcp --dport 443 -j CONNMARK --set-mark 1\n"
        "iptables-{0} -A OUTPUT -m connmark --mark 1 -j ACCEPT"
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", REPLIES)
def test_a_filter_that_lets_out_replies_of_the_users_port_alone_drops_every_slot(
    user: User, case: str
) -> None:
    """Before, only what comes in was compared: users reached the slot, and its replies never left."""
    sentences = found(user.gateway, REPLIES[case])
    assert user.gets_to(443), "users get in before the upgrade"
    assert not user.gets_to(4431), "and no reply reaches them once steering redirects them to the slot"
    [said] = [one for one in sentences if "drops replies from TCP port 4431 of slot a over IPv4" in one]
    assert "accept replies from TCP port 4431 (`--sport 4431` in iptables, `tcp sport 4431` in nft" in said


REPLIED_ALIKE = {
    "every port": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp -m multiport --sports 443,4431,4432 -j ACCEPT", "legacy"
    ),
    "every port of either end": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp -m multiport --ports 443,4431,4432 -j ACCEPT"
    ),
    "what belongs to a connection": saved(
        CLOSED + "iptables-{0} -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    ),
    "the port that was dialled": saved(
        CLOSED + "iptables-{0} -A OUTPUT -p tcp -m conntrack --ctorigdstport 443 --ctdir REPLY -j ACCEPT"
    ),
    "what was redirected": sends("  ct status dnat accept\n  tcp sport 443 accept"),
    "a closed service behind an open port": saved(
        OPEN + "iptables-{0} -A OUTPUT -p tcp --sport 443 -j ACCEPT\n"
        "iptables-{0} -A OUTPUT -p tcp -m multiport --dports 25,135:139,445 -j REJECT\n"
        "iptables-{0} -A OUTPUT -m conntrack --ctstate INVALID -j DROP"
    ),
    "closed high ports of one device": saved(
        CLOSED + "iptables-{0} -A OUTPUT -o eth0 -p tcp -m multiport --sports 443,4431,4432 -j ACCEPT\n"
        "iptables-{0} -A OUTPUT -o eth0 -p tcp --sport 1024:65535 -j DROP\n"
        "iptables-{0} -A OUTPUT -o eth1 -j ACCEPT"
    ),
    "one program": saved(CLOSED + "iptables-{0} -A OUTPUT -m owner --uid-owner 0 -j ACCEPT"),
    "a mark of what was dialled": saved(
        CLOSED + "iptables-{0} -t mangle -A PREROUTING -p tcp --dport 443 -j CONNMARK --set-mark 1\n"
        "iptables-{0} -A OUTPUT -m connmark --mark 1 -j ACCEPT"
    ),
    "a chain behind the translation": sends(
        "  tcp sport 443 accept", "type filter hook postrouting priority 150"
    ),
    "the address and its ports": sends("  ip saddr 198.18.7.1 tcp sport { 443, 4431-4432 } accept"),
    "a bound of its own each": saved(
        OPEN
        + "".join(
            f"iptables-{{0}} -A OUTPUT -p tcp --sport {port} -m hashlimit --hashlimit-above 50/sec "
            f"--hashlimit-mode dstip --hashlimit-name to{port} -j DROP\n"
            for port in (443, 4431, 4432)
        )
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", REPLIED_ALIKE)
def test_replies_that_are_treated_alike_are_no_obstacle(user: User, case: str) -> None:
    sentences = found(user.gateway, REPLIED_ALIKE[case])
    assert user.gets_to(443)
    assert user.gets_to(4431)
    assert [one for one in sentences if "TCP" in one and "IPv4" in one] == []


RAW = OPEN + "iptables-{0} -t raw -A PREROUTING "
STATELESS = RAW.replace("-m state --state NEW,ESTABLISHED ", "")
"""The same without a condition on the state, which packets that are not tracked have not."""
SYNPROXY = """iptables-{0} -t raw -A PREROUTING {1} -p tcp --syn -j CT --notrack
iptables-{0} -A INPUT -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp \\
  --wscale 7 --mss 1460
iptables-{0} -A INPUT -m conntrack --ctstate INVALID -j DROP
sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0 net.ipv4.tcp_syncookies=1 net.ipv4.tcp_timestamps=1
"""
PREROUTING = """nft -f - <<'END'
table inet early {
 chain pre { type filter hook prerouting priority raw; tcp dport 443 {1} notrack
 }
 chain out { type filter hook output priority raw; tcp sport 443 notrack
 }
}
END"""
NOT_TRACKED = {
    "the users' port": saved(
        STATELESS + "-p tcp --dport 443 -j CT --notrack\n"
        "iptables-{0} -t raw -A OUTPUT -p tcp --sport 443 -j CT --notrack"
    ),
    "the same by the older interface": saved(
        STATELESS + "-d 198.18.7.1 -p tcp -m multiport --dports 80,443 -j NOTRACK\n"
        "iptables-{0} -t raw -A OUTPUT -p tcp --sport 443 -j NOTRACK",
        "legacy",
    ),
    "the proxy of handshakes": SYNPROXY.replace("{0}", "nft").replace("{1}", ""),
    "the proxy of handshakes at the device": SYNPROXY.replace("{0}", "legacy").replace(
        "{1}", "-i eth0 ! -s 203.0.113.0/24"
    ),
    "nftables": PREROUTING.replace("{1}", ""),
    "nftables by device": PREROUTING.replace("{1}", 'iifname "eth*" tcp flags & (syn | ack) == syn'),
    "all but some addresses": saved(
        STATELESS + "-s 203.0.113.0/24 -j RETURN\niptables-{0} -t raw -A PREROUTING -j CT --notrack\n"
        "iptables-{0} -t raw -A OUTPUT -p tcp --sport 443 -j CT --notrack"
    ),
    "replies alone": saved(STATELESS + "-j ACCEPT\niptables-{0} -t raw -A OUTPUT -p tcp -j CT --notrack"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", NOT_TRACKED)
def test_a_host_that_does_not_track_users_packets_is_named_since_none_is_steered(
    user: User, case: str
) -> None:
    """Before, each packet was taken for a tracked one: users got in, and after the upgrade none did."""
    sentences = found(user.gateway, NOT_TRACKED[case])
    assert user.gets_to(443), "users get in before the upgrade"
    assert not user.gets_to(4431), "and none is redirected to the slot, or gets a reply from it"
    named = [one for one in sentences if "keeps the kernel from tracking" in one and "over IPv4" in one]
    port = "replies from TCP port 4431" if case == "replies alone" else "TCP port 443"
    assert any(one.startswith("`") and f"; exempt {port} from that rule" in one for one in named), sentences


TRACKED = {
    "another port": SYNPROXY.replace("{0}", "nft").replace("{1}", "-i eth0").replace("--syn", "--dport 80"),
    "another device": saved(RAW + "-i eth1 -j CT --notrack", "legacy"),
    "all but the device": saved(RAW + "! -i eth0 -j CT --notrack"),
    "another address of the host": saved(RAW + "-d 198.18.7.2 -p tcp -j CT --notrack"),
    "a network of the provider": saved(RAW + "-s 10.0.0.0/8 -j CT --notrack"),
    "a list of addresses": nft("  tcp dport { 443, 4431, 4432 } accept")
    + "\nnft 'add chain inet filter pre { type filter hook prerouting priority -300; }; "
    "add set inet filter listed { type ipv4_addr; }; add rule inet filter pre ip saddr @listed notrack'",
    "a mark of another program": saved(RAW + "-m mark --mark 0x200/0xf00 -j CT --notrack"),
    "a flood": saved(
        RAW + "-p tcp --syn -m hashlimit --hashlimit-above 200/sec --hashlimit-name syn -j CT --notrack"
    ),
    "names of services": saved(RAW + "-p udp --dport 53 -j CT --notrack"),
    "what the kernel tracks already": PREROUTING.replace("{1}", "").replace("priority raw", "priority -150"),
    "the old port of a reply": saved(
        RAW + "-j ACCEPT\niptables-{0} -t raw -A OUTPUT -p tcp --sport 443 -j CT --notrack"
    ),
}


@pytest.mark.parametrize("case", TRACKED)
def test_a_rule_that_keeps_others_from_being_tracked_is_no_obstacle(user: User, case: str) -> None:
    sentences = found(user.gateway, TRACKED[case])
    assert user.gets_to(4431)
    assert [one for one in sentences if "TCP" in one and "IPv4" in one] == []


def test_packets_that_are_not_tracked_are_named_where_each_instance_has_a_network_of_its_own(
    namespace: str,
) -> None:
    slots = [
        {"name": name, "port": 500, "device": f"vpn{name}", "pool4": f"10.1.{at}.0/24", "address": address}
        for at, (name, address) in enumerate((("a", "10.255.0.2"), ("b", "10.255.0.6")))
    ]
    gateway = Gateway.model_validate(
        {"name": "gw-1", "daemon": "strongswan", "port": 500, "addresses": ["198.18.7.1"], "slots": slots}
    )
    with inside(namespace):
        typed("iptables-nft -t raw -A PREROUTING -p udp --dport 500 -j CT --notrack")
        [said] = asyncio.run(drops_users(gateway, ("udp",)))
        assert said.startswith("`-A PREROUTING -p udp -m udp --dport 500 -j CT --notrack` (iptables-nft, ta")
        assert asyncio.run(drops_users(gateway, ())) == ()


def test_a_slot_is_compared_with_the_one_that_serves_where_users_port_itself_is_closed(
    namespace: str,
) -> None:
    """Redirected packets never meet the rules for the users' port, so nobody needs to open it."""
    script = nft("  th dport { 22, 4431 } accept")
    assert found(namespace, script) == []
    assert dropped(found(namespace, script, serving="a")) == {one for one in EVERY if one[1] == "4432"}


def test_a_host_without_any_filter_drops_nobody(namespace: str) -> None:
    assert found(namespace, "true") == []


def test_the_table_of_ports_in_the_document_has_the_slots_ports() -> None:
    """B1: docs/install.md did not name them."""
    table = [line for line in Path("docs/install.md").read_text().splitlines() if line.startswith("| users ")]
    assert any("4431" in line and "4432" in line and "UDP" in line for line in table)
    assert any("--sport" in line for line in table), "a host may filter what it sends"


BANS = {
    "of iptables": saved(
        "iptables-{0} -N ban\niptables-{0} -A INPUT -p tcp -m multiport --dports 443 -j ban\n"
        "iptables-{0} -A ban -s 198.18.7.9 -j REJECT\niptables-{0} -A ban -j RETURN",
        "legacy",
    ),
    "of nftables": with_set(
        "  tcp dport 443 ip saddr { 198.18.7.9, 203.0.113.4 } reject\n  tcp dport { 443, 4431, 4432 } accept"
    ),
    "by connections of an address": saved(
        "iptables-{0} -A INPUT -p tcp --dport 443 -m connlimit --connlimit-above 0 -j DROP"
    ),
}


@pytest.mark.parametrize("case", BANS)
def test_a_ban_at_the_users_port_alone_is_named_and_is_no_obstacle(user: User, case: str) -> None:
    assert found(user.gateway, BANS[case]) == []
    with inside(user.gateway):
        named = asyncio.run(spared())
    assert {one.split(" of slot ")[0].rpartition(" port ")[2] for one in named} == {"4431", "4432"}
    assert all("drops some users of TCP port 443 whom no rule drops at TCP port" in one for one in named)
    assert not user.gets_to(443), "the user is banned before the upgrade"
    assert user.gets_to(4431), "and gets in once steering redirects all users to the slot"


FAIL2BAN = """iptables-{0} -N f2b-ocserv
iptables-{0} -A INPUT -p tcp -m multiport --dports 443 -j f2b-ocserv
iptables-{0} -A f2b-ocserv -s 198.18.7.9 -j REJECT
iptables-{0} -A f2b-ocserv -j RETURN
"""
CSF = """iptables-{0} -N DENYIN
iptables-{0} -A INPUT ! -i lo -j DENYIN
iptables-{0} -A DENYIN ! -i lo -s 198.18.7.9 -p tcp --dport 443 -j DROP
iptables-{0} -A DENYIN ! -i lo -s 203.0.113.9 -p tcp -m multiport --dports 443,4431,4432 -j DROP
"""
LIMIT = "iptables-{0} -A INPUT -p tcp -m multiport --dports {1} -m connlimit --connlimit-above 50 -j DROP\n"
BESIDE = {
    "fail2ban beside a limit at every port": FAIL2BAN + LIMIT.replace("{1}", "443,4431,4432"),
    "fail2ban beside a limit of its own each": FAIL2BAN
    + "".join(LIMIT.replace("{1}", port) for port in ("443", "4431", "4432")),
    "fail2ban beside a ban at the slots' ports": FAIL2BAN
    + "iptables-{0} -A INPUT -p tcp -s 203.0.113.9 -m multiport --dports 4431,4432 -j DROP\n",
    "a list of CSF beside a limit at every port": CSF + LIMIT.replace("{1}", "443,4431,4432"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", BESIDE)
def test_a_ban_at_the_users_port_alone_is_named_whatever_else_drops_at_the_slots(
    user: User, case: str, kind: str
) -> None:
    """Before, one rule that drops at a slot's port hid every ban of the chain."""
    found(user.gateway, saved(BESIDE[case], kind))
    with inside(user.gateway):
        named = asyncio.run(spared())
    assert [one.split(" of slot ")[0].rpartition(" port ")[2] for one in named] == ["4431", "4432"], named
    assert all("f2b-ocserv" in one or " 198.18.7.9" in one for one in named), named
    assert not user.gets_to(443), "the user is banned before the upgrade"
    assert user.gets_to(4431), "and gets in once steering redirects all users to the slot"


@pytest.mark.parametrize(
    "rules",
    [
        "  ip saddr { 198.18.7.9 } reject",
        "  meta l4proto tcp ct original proto-dst 443 ip saddr { 198.18.7.9 } reject",
        "  tcp dport { 443, 4431, 4432 } ip saddr { 198.18.7.9 } reject",
    ],
)
def test_a_ban_that_holds_at_every_slot_is_not_named(user: User, rules: str) -> None:
    script = nft(f"{rules}\n  tcp dport {{ 443, 4431, 4432 }} accept")
    assert found(user.gateway, script) == []
    with inside(user.gateway):
        assert asyncio.run(spared()) == ()
    assert not user.gets_to(443)
    assert not user.gets_to(4431)


async def spared() -> tuple[str, ...]:
    return await spares(GATEWAY, ("tcp",), await read_rules())
