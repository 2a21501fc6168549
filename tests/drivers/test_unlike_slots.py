"""What a kernel does for users of one slot alone is named, and nothing is named once it does so for both.

In each case one user of either slot and a server outside meet the rules in a real kernel.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from activities.drivers.runtime.host.tunnel_rules import planes_of, uncovered
from deploy.lab.namespaces import inside
from tests.drivers.test_tunnel_rules import NEW, OLD

TOOLS = ("nft", "iptables-nft", "iptables-legacy")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

GATEWAY, WORLD = "pst-unlike", "pst-unlike-world"
ENDS = {
    "pst-unlike-old": ("tun0", "10.8.0.1", "10.8.0.2"),
    "pst-unlike-new": ("vpna", "10.9.0.1", "10.9.0.2"),
    WORLD: ("eth0", "192.0.2.1", "192.0.2.9"),
}
USERS = tuple(name for name in ENDS if name != WORLD)
SERVER = """
import socket
of = socket.create_server(("192.0.2.9", 80))
of.settimeout(5)
print(flush=True)
one, peer = of.accept()
print(peer[0], one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
"""
CLIENT = "import socket; socket.create_connection(('192.0.2.9', 80), 2)"


def typed(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, capture_output=True)


@dataclass(frozen=True)
class Host:
    """A gateway with a user behind each of two slots, and a server outside."""

    def has(self, rules: str) -> None:
        """Have these rules."""
        with inside(GATEWAY):
            typed(rules)

    def found(self) -> list[str]:
        """Return what the check before an upgrade from the adopted daemon to slot a finds."""
        with inside(GATEWAY):
            planes = asyncio.run(planes_of((OLD, NEW)))
            return list(asyncio.run(uncovered(planes, ("adopted",), ("a",))))

    def pings(self) -> list[bool]:
        """Return whether a ping of the old user is answered, and one of the new user."""
        return [
            subprocess.run(
                ["ip", "netns", "exec", user, "ping", "-c2", "-i0.2", "-W1", "192.0.2.9"],
                capture_output=True,
                check=False,
            ).returncode
            == 0
            for user in USERS
        ]

    def seen(self) -> list[tuple[str, int]]:
        """Return from where each user's connection comes to the server, and how large its segments are."""
        return [self._seen(user) for user in USERS]

    @staticmethod
    def _seen(user: str) -> tuple[str, int]:
        asks = ["ip", "netns", "exec", WORLD, "python3", "-c", SERVER]
        with subprocess.Popen(asks, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()
            subprocess.run(["ip", "netns", "exec", user, "python3", "-c", CLIENT], check=True)
            address, size = server.stdout.readline().split()
        return address, int(size)


@pytest.fixture
def host() -> Iterator[Host]:
    script = "".join(f"ip netns add {name}; ip -n {name} link set lo up\n" for name in (GATEWAY, *ENDS))
    for name, (device, gateway, own) in ENDS.items():
        script += f"""ip link add {device} netns {GATEWAY} type veth peer name c0 netns {name}
ip -n {GATEWAY} address add {gateway}/24 dev {device}; ip -n {GATEWAY} link set {device} up
ip -n {name} address add {own}/24 dev c0; ip -n {name} link set c0 up
ip -n {name} route add {"10.8.0.0/15" if name == WORLD else "default"} via {gateway}
"""
    script += f"ip -n {GATEWAY} address add 192.0.2.7/24 dev eth0\n"
    typed(f"{script}ip netns exec {GATEWAY} sysctl -qw net.ipv4.ip_forward=1")
    yield Host()
    typed("".join(f"ip netns delete {name}\n" for name in (GATEWAY, *ENDS)))


def of_both(rule: str) -> str:
    """Return the rule of the old slot, and the same for the new one."""
    return rule + "\n" + rule.replace("10.8.0.0", "10.9.0.0").replace("tun0", "vpna")


RAW = """iptables-legacy -t raw -P PREROUTING DROP
iptables-legacy -t raw -A PREROUTING -i tun0 -j ACCEPT
iptables-legacy -t raw -A PREROUTING -i vpna -j ACCEPT"""
LEADS_BACK = {
    "by a routing rule": (
        "ip route add default via 192.0.2.9 table 200; ip rule add iif eth0 lookup 200 pref 100",
        "ip rule add to 10.8.0.0/24 lookup main pref 50",
        "`from all to 10.8.0.0/24 lookup main` (ip rule) routes packets of users of slot adopted",
    ),
    "before it is routed": (
        RAW,
        "iptables-legacy -t raw -A PREROUTING -d 10.8.0.0/24 -j ACCEPT",
        "`-A PREROUTING -d 10.8.0.0/24 -j ACCEPT` (iptables-legacy, table raw) accepts packets of users",
    ),
}


@pytest.mark.parametrize("case", LEADS_BACK)
def test_what_leads_answers_back_to_the_old_users_alone_is_named(host: Host, case: str) -> None:
    others, rule, named = LEADS_BACK[case]
    host.has(f"{others}\n{rule}")
    assert host.pings() == [True, False]
    assert [one for one in host.found() if one.startswith(named)], host.found()
    host.has(of_both(rule).splitlines()[1])
    assert host.pings() == [True, True]
    assert host.found() == []


@pytest.mark.parametrize(
    "rule",
    [
        "iptables-nft -t nat -A POSTROUTING -o tun0 -j MASQUERADE",
        "iptables-nft -t nat -A POSTROUTING -d 10.8.0.0/24 -j MASQUERADE",
        "iptables-nft -t mangle -A POSTROUTING -s 10.8.0.0/24 -d 192.0.2.0/24 -j DROP",
        "iptables-nft -A OUTPUT -o tun0 -j ACCEPT; iptables-nft -P OUTPUT DROP",
        "ip rule add from 10.8.0.0/24 to 10.8.0.0/24 lookup 100",
    ],
)
def test_a_rule_for_packets_to_the_old_users_is_named_until_the_new_ones_have_it(
    host: Host, rule: str
) -> None:
    host.has(rule)
    [said] = host.found()
    assert "users of slot adopted (10.8.0.0/24)" in said
    host.has(of_both(rule).splitlines()[1])
    assert host.found() == []


def test_a_routing_rule_by_outgoing_device_is_no_obstacle_for_no_users_packet_meets_it(host: Host) -> None:
    host.has("ip rule add oif tun0 blackhole pref 10; ip rule add oif vpna blackhole pref 11")
    assert host.pings() == [True, True]
    host.has("ip rule del oif vpna blackhole pref 11")
    assert host.found() == []


CLAMP = "-p tcp -m tcp --tcp-flags SYN,RST SYN -m tcpmss --mss 1361:1536 -j TCPMSS --set-mss 1360"
BY_TWO_TOOLS = f"""iptables-nft -t mangle -A FORWARD -s 10.8.0.0/24 {CLAMP}
iptables-legacy -t mangle -A POSTROUTING -s 10.9.0.0/24 {CLAMP.replace("1360", "1340")}"""
TRACED = """nft -f - <<'END'
table ip site {
 chain forward { type filter hook forward priority -150; ip saddr 10.8.0.0/24 meta nftrace set 1
 }
}
END"""


@pytest.mark.parametrize(
    "rule",
    [
        f"iptables-nft -t mangle -A FORWARD -s 10.8.0.0/24 -o eth0 {CLAMP}",
        f"iptables-legacy -t mangle -A POSTROUTING -s 10.8.0.0/24 {CLAMP}",
        (
            "nft 'add table ip m; add chain ip m f { type filter hook forward priority -150; }; "
            "add rule ip m f ip saddr 10.8.0.0/24 tcp flags syn tcp option maxseg size set 1360'"
        ),
    ],
)
def test_a_smaller_segment_size_for_the_old_users_alone_is_named(host: Host, rule: str) -> None:
    host.has(rule)
    assert [size for _, size in host.seen()] == [1348, 1448]
    [said] = host.found()
    assert "changes packets of users of slot adopted (10.8.0.0/24), and none does so" in said
    host.has(of_both(rule).splitlines()[1])
    assert [size for _, size in host.seen()] == [1348, 1348]
    assert host.found() == []


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize(
    ("rule", "does"),
    [
        ("-A FORWARD -i tun0 -j NFQUEUE --queue-num 3", "queues packets of"),
        ("-A FORWARD -o tun0 -j NFQUEUE --queue-num 3 --queue-bypass", "queues packets of"),
        (
            "-t mangle -A FORWARD -o tun0 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            "changes packets of",
        ),
        (
            "-t mangle -A PREROUTING -i tun0 -p tcp -j TPROXY --on-port 3129 --on-ip 0.0.0.0",
            "changes packets of",
        ),
        ("-t mangle -A PREROUTING -s 10.8.0.0/24 -j DSCP --set-dscp 10", "changes packets of"),
        ("-t raw -A PREROUTING -i tun0 -j CT --notrack", "changes packets of"),
    ],
)
def test_a_rule_that_changes_or_queues_packets_of_the_old_users_alone_is_named(
    host: Host, kind: str, rule: str, does: str
) -> None:
    """Before, a rule without a verdict was none, and users of the new slot were not inspected."""
    rule = f"iptables-{kind} {rule}"
    host.has(rule)
    [said] = host.found()
    assert f"{does} " in said
    assert "users of slot adopted (10.8.0.0/24), and none does so as early" in said
    host.has(of_both(rule).splitlines()[1])
    assert host.found() == []


@pytest.mark.parametrize(
    "rules",
    [
        "iptables-nft -A FORWARD -s 10.8.0.0/24 -j LOG",
        "iptables-nft -A FORWARD -s 10.8.0.0/24 -j NFLOG --nflog-group 1",
        "iptables-nft -A FORWARD -s 10.8.0.0/24",
        "iptables-nft -t mangle -A FORWARD -s 10.8.0.0/24 -j MARK --set-mark 5",
        "iptables-nft -A FORWARD -s 10.8.0.0/15 -j NFQUEUE",
        BY_TWO_TOOLS,
        TRACED,
    ],
)
def test_rules_by_which_users_of_the_new_slot_lose_nothing_are_no_obstacle(host: Host, rules: str) -> None:
    host.has(rules)
    assert host.found() == []


OUT = "iptables-nft -t nat -A POSTROUTING"
SNAT = OUT + " -s {} -o eth0 -j SNAT --to-source {}\n"
MASQUERADE = f"{OUT} -o eth0 -j MASQUERADE\n"
BY_NFTABLES = """nft -f - <<'END'
table ip site {
 chain out { type nat hook postrouting priority 90;
  oifname eth0 snat to ip saddr map { {} : 192.0.2.7 }
 }
}
END"""
OUTSIDE = {
    "by iptables": (
        SNAT.format("10.8.0.0/24", "192.0.2.7") + MASQUERADE,
        ("192.0.2.7", "192.0.2.1"),
        "--to-source 192.0.2.7` (iptables-nft, table nat) translates addresses of users of slot adopted",
    ),
    "by nftables": (
        MASQUERADE + BY_NFTABLES.replace("{}", "10.8.0.0/24"),
        ("192.0.2.7", "192.0.2.1"),
        "(nftables, chain out of table ip site) translates addresses of users of slot adopted",
    ),
    "none to the office": (
        f"{OUT} -s 10.8.0.0/24 -d 192.0.2.0/24 -j ACCEPT\n{MASQUERADE}",
        ("10.8.0.2", "192.0.2.1"),
        "(nftables, chain POSTROUTING of table ip nat) keeps addresses of users of slot adopted",
    ),
    "none at all": (
        f"{OUT} ! -s 10.8.0.0/24 -j MASQUERADE",
        ("10.8.0.2", "192.0.2.1"),
        "translates addresses of users of slot a (10.9.0.0/24), and none does so for users of slot adopted",
    ),
    "none but to the world": (
        f"{OUT} -s 10.8.0.0/24 ! -d 192.0.2.0/24 -j MASQUERADE\n{OUT} -s 10.9.0.0/24 -j MASQUERADE",
        ("10.8.0.2", "192.0.2.1"),
        "translates addresses of users of slot a (10.9.0.0/24), and none does so for users of slot adopted",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_another_address_outside_for_the_new_users_is_named(host: Host, case: str) -> None:
    """Before, every translation counted as the same, and partners locked the users of a new slot out."""
    rules, addresses, named = OUTSIDE[case]
    host.has(rules)
    assert tuple(address for address, _ in host.seen()) == addresses
    [said] = host.found()
    assert named in said


SAME = {
    "by the same rule": (
        SNAT.format("10.8.0.0/24", "192.0.2.7") + SNAT.format("10.9.0.0/24", "192.0.2.7"),
        "192.0.2.7",
    ),
    "by another tool": (
        SNAT.format("10.8.0.0/24", "192.0.2.7") + BY_NFTABLES.replace("{}", "10.9.0.0/24"),
        "192.0.2.7",
    ),
    "that of the device": (SNAT.format("10.8.0.0/24", "192.0.2.1") + MASQUERADE, "192.0.2.1"),
    "by any device": (
        f"{OUT} -s 10.8.0.0/24 -o eth0 -j MASQUERADE\n{OUT} -s 10.9.0.0/24 -j MASQUERADE",
        "192.0.2.1",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_address_outside_is_no_obstacle_by_whatever_rule(host: Host, case: str) -> None:
    rules, address = SAME[case]
    host.has(rules)
    assert [seen for seen, _ in host.seen()] == [address, address]
    assert host.found() == []


@pytest.mark.parametrize(
    ("of_old", "of_new"),
    [
        ("-s 10.8.0.0/24 -j NETMAP --to 10.100.0.0/24", "-s 10.9.0.0/24 -j NETMAP --to 10.101.0.0/24"),
        ("-d 10.8.0.0/24 -j SNAT --to-source 10.8.0.1", "-d 10.9.0.0/24 -j SNAT --to-source 10.9.0.1"),
        ("-d 10.8.0.0/24 -j SNAT --to-source 10.8.0.3", "-d 10.9.0.0/24 -j SNAT --to-source 10.9.0.3"),
    ],
)
def test_an_address_of_each_slots_own_is_no_obstacle(host: Host, of_old: str, of_new: str) -> None:
    host.has(f"{OUT} {of_old}\n{OUT} {of_new}")
    assert host.found() == []


BY_MARK = """ip address add fd00:8::1/64 dev tun0 nodad
nft -f - <<'END'
table inet site {
 map by_pool { type ipv4_addr : mark; flags interval; elements = { {pools} }; }
 map by_device { type ifname : mark; elements = { {devices} }; }
 chain pre { type filter hook prerouting priority mangle; {marks}
 }
 chain forward { type filter hook forward priority 0; policy drop;
  {accepts}
 }
}
END"""
MARKED_OUT = "ct state established,related accept\n meta mark 0x1 accept"
MARKS = {
    "by pool": ("meta mark set ip saddr map @by_pool", MARKED_OUT),
    "by device": ("meta mark set iifname map @by_device", MARKED_OUT),
    "by both": ("meta mark set ip saddr . iifname map { {rows} }", MARKED_OUT),
    "within a calculation": (
        "meta mark set iifname map { {devices} } accept",
        MARKED_OUT.replace("0x1", "& 0xff == 0x1"),
    ),
    "of the connection": ("ct mark set ip saddr map @by_pool; meta mark set ct mark", MARKED_OUT),
    "of the connection, for answers": (
        "ct mark set ip saddr map @by_pool",
        "ip saddr 10.8.0.0/15 accept\n ct mark 0x1 accept",
    ),
}


def by_mark(case: str, *, both: bool) -> str:
    """Return rules that mark users of the old slot by a map, or those of both slots."""
    marks, accepts = MARKS[case]
    pools, devices = ["10.8.0.0/24", "10.9.0.0/24"][: 1 + both], ["tun0", "vpna"][: 1 + both]
    rows = ", ".join(f"{pool} . {device} : 0x1" for pool, device in zip(pools, devices, strict=True))
    return (
        BY_MARK.replace("{marks}", marks)
        .replace("{accepts}", accepts)
        .replace("{pools}", ", ".join(f"{one} : 0x1" for one in pools))
        .replace("{devices}", ", ".join(f"{one} : 0x1" for one in devices))
        .replace("{rows}", rows)
    )


@pytest.mark.sweep
@pytest.mark.parametrize("case", MARKS)
def test_a_mark_that_a_map_gives_to_the_old_users_alone_is_named(host: Host, case: str) -> None:
    """Before, the map was one text, which is the same for users of every slot."""
    host.has(by_mark(case, both=False))
    assert host.pings() == [True, False]
    said, *_ = host.found()
    assert "mark" in said.split("`")[1]
    assert "accepts packets of users of slot adopted (10.8.0.0/24), and none does so" in said


@pytest.mark.parametrize("case", MARKS)
def test_a_mark_that_a_map_gives_to_users_of_both_slots_is_no_obstacle(host: Host, case: str) -> None:
    host.has(by_mark(case, both=True))
    assert host.pings() == [True, True]
    assert host.found() == []


NAT = "iptables-nft -t nat -A PREROUTING"
CLOSED = """iptables-nft -P FORWARD DROP
iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
"""
BY_NAT = {
    "for the first packet": f"{NAT} -s {{}} -j MARK --set-mark 5\n{CLOSED}"
    "iptables-nft -A FORWARD -m mark --mark 5 -j ACCEPT",
    "by the device and the older interface": (
        f"{NAT} -i tun0 -j MARK --set-mark 5\n{CLOSED}iptables-nft -A FORWARD -m mark --mark 5 -j ACCEPT"
    ).replace("-nft", "-legacy"),
    "of the connection": f"{NAT} -s {{}} -j CONNMARK --set-mark 5\n{CLOSED}"
    "iptables-nft -A FORWARD -m connmark --mark 5 -j ACCEPT",
    "that is saved": f"{NAT} -s {{}} ! -d 192.168.104.0/22 -j MARK --set-mark 1\n"
    f"{NAT} -m mark --mark 1 -j CONNMARK --save-mark\n"
    "iptables-nft -A FORWARD -m connmark --mark 1 -j ACCEPT\niptables-nft -A FORWARD -j REJECT",
    "of nftables": "nft add table ip site\n"
    "nft 'add chain ip site pre { type nat hook prerouting priority -100; }'\n"
    f"nft 'add rule ip site pre ip saddr {{}} meta mark set 5'\n{CLOSED}"
    "iptables-nft -A FORWARD -m mark --mark 5 -j ACCEPT",
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", BY_NAT)
def test_a_mark_that_a_nat_chain_gives_to_the_old_users_alone_is_named(host: Host, case: str) -> None:
    """Before, marks were read from chains of filters alone, and the check found nothing."""
    host.has(BY_NAT[case].replace("{}", "10.8.0.0/24"))
    assert host.pings() == [True, False]
    assert any("accepts packets of users of slot adopted (10.8.0.0/24)" in one for one in host.found())
    [first, *_] = (line for line in BY_NAT[case].splitlines() if "{}" in line or "tun0" in line)
    host.has(first.replace("{}", "10.9.0.0/24").replace("tun0", "vpna").replace("-A ", "-I "))
    assert host.pings() == [True, True]
    assert host.found() == []


def test_a_translation_by_a_mark_of_a_nat_chain_is_named_until_the_new_users_have_it(host: Host) -> None:
    mark = f"{NAT} -s {{}} -j MARK --set-mark 5\n"
    host.has(mark.replace("{}", "10.8.0.0/24") + f"{OUT} -m mark --mark 5 -j MASQUERADE")
    assert [address for address, _ in host.seen()] == ["192.0.2.1", "10.9.0.2"]
    [said] = host.found()
    assert "translates addresses of users of slot adopted (10.8.0.0/24), and none does so" in said
    host.has(mark.replace("{}", "10.9.0.0/24"))
    assert [address for address, _ in host.seen()] == ["192.0.2.1", "192.0.2.1"]
    assert host.found() == []


@pytest.mark.parametrize(
    ("table", "mark"), [("nat", "0x100/0x100"), ("mangle", "7"), ("mangle", "0x100/0x100")]
)
def test_a_mark_of_the_old_users_for_which_no_rule_asks_is_no_obstacle(
    host: Host, table: str, mark: str
) -> None:
    """Before, any mark of theirs made each rule that asks for a mark another one."""
    host.has(f"iptables-nft -t {table} -A PREROUTING -s 10.8.0.0/24 -j MARK --set-xmark {mark}")
    host.has("iptables-nft -A FORWARD -m mark --mark 5/0xff -j DROP\niptables-nft -A FORWARD -j ACCEPT")
    assert host.pings() == [True, True]
    assert host.found() == []


TABLES = """nft 'add table ip site; add chain ip site pre { type filter hook prerouting priority mangle; }'
nft 'add rule ip site pre meta mark set ip saddr map { {} }'
ip rule add fwmark 0x1 lookup main pref 50
ip rule add iif vpna blackhole pref 60
ip rule add iif tun0 blackhole pref 61"""


def test_routes_for_a_mark_that_a_map_gives_to_the_old_users_alone_are_named(host: Host) -> None:
    host.has(TABLES.replace("{}", "10.8.0.0/24 : 0x1"))
    assert host.pings() == [True, False]
    named = (
        "`from all fwmark 0x1 lookup main` (ip rule) routes packets of users of slot adopted (10.8.0.0/24)"
    )
    assert [one for one in host.found() if one.startswith(named)], host.found()


def test_another_server_that_a_map_chooses_for_the_new_users_is_named(host: Host) -> None:
    host.has(
        "nft 'add table ip site; add chain ip site pre { type nat hook prerouting priority dstnat; }'\n"
        "nft 'add rule ip site pre udp dport 53 dnat to ip saddr map "
        "{ 10.8.0.0/24 : 192.0.2.9, 10.9.0.0/24 : 192.0.2.8 }'"
    )
    [said] = host.found()
    assert "redirects packets of users of slot adopted (10.8.0.0/24), and none does so as early" in said
