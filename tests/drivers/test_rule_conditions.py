"""What rules ask of packets: for users of one slot alone, for all alike, or for what is not understood.

A condition that may stand for users of one slot, and is not understood, is never the same for both slots.
What tells no users apart is the same, in whatever way common hosts write it.
"""

import asyncio
import shutil

import pytest

from activities.drivers.runtime.host.input_filter import drops_users
from deploy.lab.namespaces import inside
from tests.drivers.test_input_filter import GATEWAY as PORTS
from tests.drivers.test_unlike_slots import GATEWAY, MISSING, Host, host  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.skipif(shutil.which("ipset") is None, reason="ipset is not installed here"),
]


def nft(rules: str) -> str:
    return (
        "nft -f - <<'END'\ntable inet site {\n chain forward { type filter hook forward priority 0; "
        f"policy drop;\n{rules}\n }}\n}}\nEND"
    )


def saved(rules: str, kind: str = "nft") -> str:
    typed = [f"iptables-{kind} {line}" for line in rules.splitlines()]
    return "\n".join([f"iptables-{kind} -P FORWARD DROP", *typed])


def restored(rules: str, tool: str = "iptables-nft") -> str:
    return f"{tool}-restore <<'END'\n{rules.strip()}\nEND\n"


ANSWERS = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"
OF_A_NETMASK = "ipset create vpn hash:ip netmask 24\nipset add vpn 10.8.0.0\n" + saved(
    f"-A FORWARD -m set --match-set vpn src -j ACCEPT\n{ANSWERS}"
)
EVALUATED = {
    "first sender of nftables": nft("ct original ip saddr 10.8.0.0/24 accept"),
    "first sender of iptables": saved("-A FORWARD -m conntrack --ctorigsrc 10.8.0.0/24 -j ACCEPT"),
    "first sender, the older interface": saved(
        "-A FORWARD -m conntrack --ctorigsrc 10.8.0.0/24 --ctorigdstport 1:65535 -p tcp -j ACCEPT\n"
        "-A FORWARD -m conntrack --ctorigsrc 10.8.0.0/24 -p icmp -j ACCEPT",
        "legacy",
    ),
    "a set with a netmask": OF_A_NETMASK,
}


@pytest.mark.parametrize("case", EVALUATED)
def test_the_old_users_asked_for_in_another_way_are_named_until_the_new_ones_are_asked_for(
    host: Host,  # noqa: F811
    case: str,
) -> None:
    host.has(EVALUATED[case])
    assert host.pings() == [True, False]
    assert host.found() != []
    assert not any("it is not known" in one for one in host.found())
    host.has("nft flush ruleset; iptables-legacy -F; ipset destroy")
    host.has(
        EVALUATED[case]
        .replace("10.8.0.0/24", "10.8.0.0/15")
        .replace("add vpn 10.8.0.0", "add vpn 10.8.0.0\nipset add vpn 10.9.0.0")
    )
    assert host.pings() == [True, True]
    assert host.found() == []


BY_ADDRESS = {
    "a network in a set of addresses": ("hash:ip", "{}.0/24", "src"),
    "a range in a set of addresses": ("hash:ip", "{}.2-{}.254", "src"),
    "a network in a set of addresses and protocols": ("hash:ip,port", "{}.0/24,icmp:8/0", "src,dst"),
    "parts of a network": ("hash:net", "{}.0/25 {}.128/26 {}.192/27 {}.224/27", "src"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", BY_ADDRESS)
def test_a_set_that_has_the_old_pool_address_by_address_is_named_until_it_has_the_new_one(
    host: Host,  # noqa: F811
    case: str,
) -> None:
    """Before, each address was one of a single user, and the new users got no answer."""
    kind, elements, sides = BY_ADDRESS[case]

    def add(pool: str) -> str:
        return "".join(f"ipset add vpn {one.replace('{}', pool)}\n" for one in elements.split())

    rules = saved(f"-A FORWARD -m set --match-set vpn {sides} -j ACCEPT\n{ANSWERS}")
    host.has(f"ipset create vpn {kind}\n{add('10.8.0')}{rules}")
    assert host.pings() == [True, False]
    assert any("accepts packets of users of slot adopted (10.8.0.0/24)" in one for one in host.found())
    host.has(add("10.9.0"))
    assert host.pings() == [True, True]
    assert host.found() == []


RECENT = "-A FORWARD -s {} -m recent --name vpn --set\n-A FORWARD -m recent --name vpn --rcheck -j ACCEPT\n"


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_a_list_of_recent_addresses_that_has_the_old_users_alone_is_named(
    host: Host,  # noqa: F811
    kind: str,
) -> None:
    host.has(saved(f"{RECENT.replace('{}', '10.8.0.0/24')}{ANSWERS}", kind))
    assert host.pings() == [True, False]
    [said] = host.found()
    assert "--name vpn" in said
    assert "accepts packets of users of slot adopted (10.8.0.0/24), and none does so" in said
    host.has(f"iptables-{kind} -I FORWARD -s 10.9.0.0/24 -m recent --name vpn --set")
    assert host.pings() == [True, True]
    assert host.found() == []


LISTS_OF_OTHERS = {
    "for which no rule asks": "-A FORWARD -s 10.8.0.0/24 -m recent --name seen --set\n"
    "-A FORWARD -m recent --name vpn ! --rcheck -j ACCEPT\n"
    "-A FORWARD -s 10.8.0.0/24 -j CONNMARK --set-mark 7\n-A FORWARD -m mark --mark 5 -j DROP",
    "of attackers": "-A FORWARD -i eth0 -m recent --name bad --rcheck -j DROP\n"
    "-A FORWARD -i eth0 -p tcp --dport 23 -m recent --name bad --set -j DROP\n-A FORWARD -j ACCEPT",
    "of exceptions": "-N known\n-A FORWARD -s 10.8.0.0/24 -j CONNMARK --set-mark 7\n-A FORWARD -j known\n"
    "-A known -m recent --name vpn --rcheck -j RETURN\n-A known -j ACCEPT",
}


@pytest.mark.parametrize("case", LISTS_OF_OTHERS)
def test_a_list_of_others_is_no_obstacle(host: Host, case: str) -> None:  # noqa: F811
    host.has(saved(f"{LISTS_OF_OTHERS[case]}\n{ANSWERS}"))
    assert host.pings() == [True, True]
    assert host.found() == []


def test_a_pool_and_all_of_its_users_addresses_are_alike(host: Host) -> None:  # noqa: F811
    host.has(nft(f"ip saddr {{ 10.8.0.0/24, 10.9.0.2-10.9.0.254 }} accept{STATE}"))
    assert host.pings() == [True, True]
    assert host.found() == []


def test_a_set_of_users_who_have_logged_in_is_no_obstacle(host: Host) -> None:  # noqa: F811
    users = "".join(f"ipset add vpn 10.8.0.{number}\n" for number in range(2, 202))
    host.has(
        f"ipset create vpn hash:ip\n{users}"
        + saved(f"-A FORWARD -m set --match-set vpn src -j ACCEPT\n{ANSWERS}")
    )
    assert host.found() == []


STATE = "\nct state established accept"
NOT_KNOWN = {
    "group of devices of nftables": "ip link set tun0 group 7\n" + nft(f"iifgroup 7 accept{STATE}"),
    "group of devices of iptables": "ip link set tun0 group 7\n"
    + saved(f"-A FORWARD -m devgroup --src-group 7 -j ACCEPT\n{ANSWERS}"),
    "bytes of the packet": nft(f"@nh,96,24 0x0a0800 accept{STATE}"),
    "bytes of the packet by u32": saved(
        f'-A FORWARD -m u32 --u32 "12&0xFFFFFF00=0x0A080000" -j ACCEPT\n{ANSWERS}', "legacy"
    ),
    "a part of the address": nft(f"ip saddr & 255.255.0.255 == 10.8.0.2 accept{STATE}"),
    "device of the way back": nft(f"fib saddr oifname tun0 accept{STATE}"),
    "all but a group of devices": "ip link set vpna group 7\n" + nft(f"iifgroup != 7 accept{STATE}"),
    "a rule of nftables in a table of iptables": "ip link set tun0 group 7\niptables-nft -P FORWARD DROP\n"
    f"nft add rule ip filter FORWARD iifgroup 7 accept\niptables-nft {ANSWERS}",
    "a mark for a group of devices": "ip link set tun0 group 7\n"
    + nft(f"iifgroup 7 meta mark set 1\nmeta mark 1 accept{STATE}"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("case", NOT_KNOWN)
def test_what_may_stand_for_the_old_users_and_is_not_evaluated_is_not_known(
    host: Host,  # noqa: F811
    case: str,
) -> None:
    """Before, whatever was not understood was taken for a condition that slots share."""
    host.has(NOT_KNOWN[case])
    assert host.pings() == [True, False]
    assert any(one.startswith("it is not known whether `") for one in host.found()), host.found()


POOLS = """-A FORWARD -i tun+ -j ACCEPT
-A FORWARD -i vpn+ -j ACCEPT"""
DOCKER = f"""*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
:OUTPUT ACCEPT
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -m set --match-set docker-ext dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
{POOLS}
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL --ctorigdst 192.0.2.7 -j DROP
-A DOCKER-USER -j RETURN
COMMIT"""
ONE = "--mask 255.255.255.255 --rsource"
NEW = "-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent"
UFW = f"""*filter
:INPUT DROP
:FORWARD DROP
:ufw-before-input -
:ufw-before-forward -
:ufw-user-input -
:ufw-not-local -
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-not-local -j DROP
{NEW} --set --name DEFAULT {ONE}
{NEW} --update --seconds 30 --hitcount 6 --name DEFAULT {ONE} -j DROP
-A ufw-user-input -p tcp -m multiport --dports 22,443,4431,4432 -m comment --comment "'dapp_VPN'" -j ACCEPT
-A ufw-user-input -p udp -m multiport --dports 443,4431,4432 -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
{POOLS.replace("FORWARD", "ufw-before-forward")}
COMMIT"""
TO_CLUSTER = "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment"
CLUSTER = f"""*mangle
:PREROUTING ACCEPT
-A PREROUTING -p tcp -m socket --transparent -m comment --comment "cilium" -j MARK --set-xmark 0x200/0xf00
COMMIT
*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
:KUBE-SERVICES -
:KUBE-SVC-1 -
:KUBE-SEP-1 -
:KUBE-NODEPORTS -
:KUBE-MARK-MASQ -
:KUBE-POSTROUTING -
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
{TO_CLUSTER} "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-1
-A KUBE-SERVICES -m comment --comment "--- nodeports ---" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SVC-1
-A KUBE-SVC-1 ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-MARK-MASQ
-A KUBE-SVC-1 -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-1 {ONE} -j KUBE-SEP-1
-A KUBE-SVC-1 -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-1
-A KUBE-SVC-1 -j KUBE-SEP-1
-A KUBE-SEP-1 -s 10.244.0.3/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-1 -p tcp -m recent --set --name KUBE-SEP-1 {ONE} -m tcp -j DNAT --to-destination 10.244.0.3:6443
COMMIT
*raw
:PREROUTING ACCEPT
:cali-PREROUTING -
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -i cali+ -m rpfilter --validmark --invert -j DROP
COMMIT
*filter
:FORWARD DROP
:KUBE-FORWARD -
:cali-FORWARD -
-A FORWARD -j cali-FORWARD
-A FORWARD -j KUBE-FORWARD
-A cali-FORWARD -m set --match-set cali40all dst -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-FORWARD -m physdev --physdev-in vnet0 --physdev-is-bridged -j ACCEPT
-A cali-FORWARD -m policy --dir in --pol ipsec --reqid 1 --proto esp -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{POOLS}
COMMIT"""
FIREWALLD = """nft -f - <<'END'
table inet firewalld {
 chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept;
  meta nfproto ipv6 fib saddr . mark . iif oif missing drop
 }
 chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept;
  oifname "eth0" goto nat_POST_public
 }
 chain nat_POST_public { meta nfproto ipv4 oifname != "lo" masquerade
 }
 chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
  ct state { established, related } accept
  ct status dnat accept
  iifname "lo" accept
  iifname "eth0" goto filter_IN_public
  ct state invalid drop
  reject with icmpx admin-prohibited
 }
 chain filter_IN_public {
  tcp dport 22 ct state { new, untracked } accept
  ip6 daddr fe80::/64 udp dport 546 ct state { new, untracked } accept
  tcp dport { 443, 4431-4432 } accept
  udp dport { 443, 4431-4432 } accept
  ct helper "ftp" accept
  meta l4proto { icmp, ipv6-icmp } accept
 }
 chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
  ct state { established, related } accept
  ct status dnat accept
  iifname "lo" accept
  ct state invalid drop
  ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject with icmpv6 addr-unreachable
  tcp flags & (syn | rst) == syn meta mark & 0xff00 == 0x100 limit rate 5/second accept
  rt ipsec exists accept
  meta hour "08:00"-"10:00" ether saddr 02:00:00:00:00:01 accept
  iifname { "tun0", "vpna" } accept
  reject with icmpx admin-prohibited
 }
}
table ip crowdsec { set banned { type ipv4_addr; flags interval; elements = { 203.0.113.0/24, 198.18.9.9 }; }
 chain in { type filter hook input priority -10; policy accept; ip saddr @banned drop; }
 chain forward { type filter hook forward priority -10; policy accept; ip saddr @banned drop; }
}
table ip kube-proxy {
 map affinity { type ipv4_addr : mark; flags dynamic, timeout; timeout 1h; }
 chain one { meta l4proto tcp dnat to 10.244.0.3:6443; }
 chain two { meta l4proto tcp dnat to 10.244.0.4:6443; }
 chain service {
  ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
  update @affinity { ip saddr : meta mark }
  numgen random mod 2 vmap { 0 : goto one, 1 : goto two }
 }
 map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;
  elements = { 10.96.0.1 . tcp . 443 : goto service, 10.96.0.2 . udp . 53 : goto service };
 }
 map no-nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 30080 : goto service }; }
 chain pre { type nat hook prerouting priority dstnat; policy accept;
  ip daddr . meta l4proto . th dport vmap @service-ips
  fib daddr type local meta l4proto . th dport vmap @no-nodeports
 }
 chain post { type nat hook postrouting priority srcnat; policy accept;
  meta mark & 0x4000 == 0x4000 masquerade fully-random
 }
}
END
"""
BANS = """*filter
:INPUT ACCEPT
:f2b-vpn -
-A INPUT -p tcp -m multiport --dports 443,4431,4432 -m comment --comment "-j DROP" -j f2b-vpn
-A INPUT -p tcp --dport 22 -m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr -j DROP
-A INPUT -p tcp -m string --string "--admin" --algo bm --to 65535 -j DROP
-A INPUT -m mac --mac-source 02:00:00:00:00:01 -m time --timestart 08:00:00 --timestop 10:00:00 -j ACCEPT
-A INPUT -p tcp -m hashlimit --hashlimit-upto 9/sec --hashlimit-mode srcip --hashlimit-name x -j ACCEPT
-A INPUT -m socket --transparent -j ACCEPT
-A INPUT -m length --length 0:99 -m ttl --ttl-gt 3 -m dscp --dscp 0x0a -m pkttype --pkt-type unicast -j ACCEPT
-A f2b-vpn -s 203.0.113.7/32 -j REJECT
-A f2b-vpn -j RETURN
COMMIT"""
SETS = (
    "ipset create docker-ext hash:net\nipset create cali40all hash:net\nipset add cali40all 10.244.0.0/16\n"
)
COMMON = {
    "Docker": SETS + restored(DOCKER),
    "Docker, the older interface": SETS + restored(DOCKER, "iptables-legacy"),
    "ufw": restored(UFW),
    "a node of a cluster": SETS + restored(CLUSTER),
    "firewalld, CrowdSec and a node of a cluster by nftables": FIREWALLD,
    "fail2ban and limits": restored(BANS),
}


@pytest.mark.parametrize("case", COMMON)
def test_a_common_host_is_no_obstacle(host: Host, case: str) -> None:  # noqa: F811
    host.has(COMMON[case])
    assert host.pings() == [True, True]
    assert host.found() == []
    with inside(GATEWAY):
        assert [one for one in asyncio.run(drops_users(PORTS, ("tcp", "udp"))) if "IPv4" in one] == []


NEXT = "\n-A FORWARD "
SAME = {
    "the state by either module": "-A FORWARD -s 10.8.0.0/15 -j ACCEPT"
    f"{NEXT}-d 10.8.0.0/24 -m state --state RELATED,ESTABLISHED -j ACCEPT"
    f"{NEXT}-d 10.9.0.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "comments that begin as options do": "-A FORWARD -d 10.8.0.0/15 -j ACCEPT"
    f"{NEXT}-s 10.8.0.0/24 -m comment --comment '--- old ---' -j ACCEPT"
    f"{NEXT}-s 10.9.0.0/24 -m comment --comment=--new-- -j ACCEPT",
    "comments with quotes and targets": "-A FORWARD -d 10.8.0.0/15 -j ACCEPT"
    f"{NEXT}-s 10.8.0.0/24 -m comment --comment 'the \"old\" one: -j DROP' -j ACCEPT"
    f"{NEXT}-s 10.9.0.0/24 -m comment --comment '! -s 192.0.2.9' -j ACCEPT",
    "a port by either module": "-A FORWARD -d 10.8.0.0/15 -j ACCEPT\n-A FORWARD -p icmp -j ACCEPT"
    f"{NEXT}-s 10.8.0.0/24 -p tcp --dport 80 -j ACCEPT"
    f"{NEXT}-s 10.9.0.0/24 -p tcp -m multiport --dports 80 -j ACCEPT",
    "ports of the sender by either module": "-A FORWARD -s 10.8.0.0/15 -j ACCEPT"
    f"{NEXT}-p icmp -j ACCEPT"
    f"{NEXT}-d 10.8.0.0/24 -p tcp --sport 80:81 -j ACCEPT"
    f"{NEXT}-d 10.9.0.0/24 -p tcp -m multiport --sports 80:81 -j ACCEPT",
}


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", SAME)
def test_the_same_rule_written_in_another_way_is_no_obstacle(
    host: Host,  # noqa: F811
    case: str,
    kind: str,
) -> None:
    """Before, a rule was refused that did the same, with the advice to add it."""
    host.has(saved(SAME[case], kind))
    assert host.pings() == [True, True]
    assert len(host.seen()) == len((True, True))
    assert host.found() == []


def test_the_same_rule_by_another_tool_is_no_obstacle(host: Host) -> None:  # noqa: F811
    host.has(
        "iptables-legacy -t nat -A POSTROUTING -s 10.8.0.0/24 -p tcp -m tcp --dport 80 -m state --state NEW "
        "-j MASQUERADE\nnft 'add table ip site; add chain ip site out "
        "{ type nat hook postrouting priority 90; }'\n"
        "nft add rule ip site out ip saddr 10.9.0.0/24 tcp dport 80 ct state new masquerade"
    )
    assert [address for address, _ in host.seen()] == ["192.0.2.1", "192.0.2.1"]
    assert host.found() == []


def test_conditions_that_differ_are_still_named_in_either_modules_words(host: Host) -> None:  # noqa: F811
    host.has(
        saved(
            "-A FORWARD -d 10.8.0.0/15 -j ACCEPT\n-A FORWARD -s 10.8.0.0/24 -p tcp --dport 80 -j ACCEPT\n"
            "-A FORWARD -s 10.9.0.0/24 -p udp -m multiport --dports 80 -j ACCEPT"
        )
    )
    [said] = host.found()
    assert "accepts packets of users of slot adopted (10.8.0.0/24), and none does so as early" in said
