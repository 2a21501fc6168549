"""A host whose packet filter names the pool or the device of one slot does less for users of another.

Each case is read from the tools of a real kernel, in a network namespace of its own.
"""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

import pytest

from activities.drivers.runtime.host.tunnel_rules import drops, planes_of, uncovered
from deploy.lab.namespaces import inside
from policies.model.errors import Unavailable
from policies.model.fleet import Slot

TOOLS = ("nft", "iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

OLD = Slot(
    name="adopted", port=443, device="tun", pool4=IPv4Network("10.8.0.0/24"), pool6=IPv6Network("fd00:8::/64")
)
NEW = Slot(
    name="a", port=4431, device="vpna", pool4=IPv4Network("10.9.0.0/24"), pool6=IPv6Network("fd00:9::/64")
)
DEVICES = """
ip link add tun0 type veth peer name peer0
ip address add 10.8.0.1/24 dev tun0
ip address add fd00:8::1/64 dev tun0 nodad
ip link add tun1 type veth peer name peer1
ip address add 10.7.0.1/24 dev tun1
"""
"""Those of the daemon that was adopted, and of another one beside it."""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = "pst-tunnel"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def found(namespace: str, script: str) -> list[str]:
    """Return what is found for the new slot after a script has set the filter up."""
    with inside(namespace):
        subprocess.run(["sh", "-ec", DEVICES + script], check=True, capture_output=True)
        planes = asyncio.run(planes_of((OLD, NEW)))
        return list(asyncio.run(uncovered(planes, ("adopted",), ("a",))))


def nft(rules: str, hook: str = "forward") -> str:
    kind = "nat" if hook.endswith("routing") else "filter"
    ends = "accept" if kind == "nat" else "drop"
    return (
        "nft -f - <<'END'\ntable inet site {\n set pools { type ipv4_addr; flags interval; "
        f"elements = {{ 10.8.0.0/24 }}; }}\n chain base {{ type {kind} hook {hook} priority 0; "
        f"policy {ends};\n{rules}\n }}\n}}\nEND"
    )


def saved(rules: str, kind: str) -> str:
    return "\n".join(f"iptables-{kind} {line.strip()}" for line in rules.strip().splitlines())


REPLIES = "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
OF_IPTABLES = {
    "masquerade": ("-t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE", "translates addresses of"),
    "snat": ("-t nat -A POSTROUTING -s 10.8.0.0/24 -j SNAT --to 192.0.2.1", "translates"),
    "forward": (REPLIES + "-A FORWARD -s 10.8.0.0/24 -j ACCEPT", "accepts packets of"),
    "reject at the end": ("-I FORWARD -i tun0 -j ACCEPT\n-A FORWARD -j REJECT", "accepts packets of"),
    "device": (
        "-P FORWARD DROP\n-A FORWARD -i tun+ -o eth0 -m comment --comment 'our users' -j ACCEPT",
        "accepts packets of",
    ),
    "way back": (
        "-P FORWARD DROP\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n-A FORWARD -d 10.8.0.0/24 -j ACCEPT",
        "accepts packets of",
    ),
    "own chain": (
        "-P FORWARD DROP\n-N v\n-A FORWARD -s 10.8.0.0/24 -j v\n-A v -p tcp -j RETURN\n-A v -j ACCEPT",
        "accepts packets of",
    ),
    "all but them": ("-A FORWARD ! -s 10.8.0.0/24 -d 192.0.2.0/24 -j DROP", "drops packets of"),
    "kept apart": ("-A FORWARD -s 10.8.0.0/24 -d 192.0.2.0/24 -j DROP", "drops packets of"),
    "apart from each other": ("-A FORWARD -s 10.8.0.0/24 -d 10.8.0.0/24 -j DROP", "drops packets of"),
    "some users": ("-P FORWARD DROP\n-A FORWARD -s 10.8.0.64/26 -j ACCEPT", "accepts packets of"),
    "names": ("-t nat -A PREROUTING -i tun0 -p udp --dport 53 -j DNAT --to 192.0.2.53", "redirects packets"),
    "host itself": ("-P INPUT DROP\n-A INPUT -i tun0 -j ACCEPT", "accepts packets of"),
    "mark": (
        (
            "-P FORWARD DROP\n-t mangle -A PREROUTING -s 10.8.0.0/24 -j MARK --set-mark 5\n"
            "-A FORWARD -m mark --mark 5 -j ACCEPT"
        ),
        "accepts packets of",
    ),
    "range": ("-P FORWARD DROP\n-A FORWARD -m iprange --src-range 10.8.0.0-10.8.0.255 -j ACCEPT", "accepts"),
}


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", OF_IPTABLES)
def test_a_rule_of_iptables_for_the_old_users_alone_is_named(namespace: str, case: str, kind: str) -> None:
    rules, does = OF_IPTABLES[case]
    sentences = found(namespace, saved(rules, kind))
    assert sentences, "nothing is found"
    assert kind == "nft" or "(iptables-legacy, table " in sentences[0]
    assert re.search("10.8.0|tun|mark", sentences[0].split("`")[1])
    assert does in sentences[0]


def test_a_sentence_has_the_rule_and_what_to_do(namespace: str) -> None:
    rules = saved("-t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE", "nft")
    [said] = found(namespace, rules)
    assert said == (
        "`-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE` (iptables-nft, table nat) "
        "translates addresses of users of slot adopted (10.8.0.0/24), and none does so as early "
        "for users of slot a; add one for their pool 10.9.0.0/24 or their devices vpna*"
    )


@pytest.mark.parametrize(
    ("rules", "hook", "named"),
    [
        (
            "ip saddr 10.8.0.0/24 oifname eth0 counter masquerade",
            "postrouting",
            "ip saddr 10.8.0.0/24 oifname",
        ),
        ("snat ip to ip saddr map { 10.8.0.0/24 : 192.0.2.1 }", "postrouting", "snat ip to ip saddr map"),
        ("ip saddr @pools accept", "forward", "ip saddr @pools accept"),
        ("ip saddr { 10.8.0.0/24, 10.7.0.0/24 } accept", "forward", "ip saddr { 10."),
        ("iifname tun0 accept", "forward", 'iifname "tun0" accept'),
        ('iifname vmap { tun0 : accept, "eth*" : accept }', "forward", "iifname vmap"),
        ("iifname . ip daddr { tun0 . 192.0.2.1 } accept", "forward", "iifname . ip daddr {"),
        ("iifname tun0 jump users\n }\n chain users {\n accept", "forward", 'iifname "tun0" jump users'),
        ("ip6 saddr fd00:8::/64 accept", "forward", "ip6 saddr fd00:8::/64 accept"),
        ("ip daddr 10.8.0.0-10.8.0.255 accept\nip saddr 10.0.0.0/8 accept", "forward", "ip daddr 10.8.0.0"),
    ],
)
def test_a_rule_of_nftables_for_the_old_users_alone_is_named(
    namespace: str, rules: str, hook: str, named: str
) -> None:
    sentences = found(namespace, nft(rules, hook))
    assert [one for one in sentences if f"`{named}" in one], sentences


COVERED = {
    "no rule": "true",
    "both pools": saved(
        "-t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE\n"
        "-t nat -A POSTROUTING -s 10.9.0.0/24 -o eth0 -j MASQUERADE",
        "nft",
    ),
    "one wider pool": saved("-t nat -A POSTROUTING -s 10.8.0.0/15 -o eth0 -j MASQUERADE", "legacy"),
    "any pool": saved("-t nat -A POSTROUTING -o eth0 -j MASQUERADE", "nft"),
    "an open filter": saved("-I FORWARD -s 10.8.0.0/24 -j ACCEPT", "nft"),
    "by its device": nft(
        'iifname tun0 accept\noifname tun0 accept\niifname "vpna*" accept\noifname vpna accept'
    ),
    "by another tool": saved("-t nat -A POSTROUTING -s 10.8.0.0/24 -j MASQUERADE", "nft")
    + "\n"
    + nft("ip saddr 10.9.0.0/24 masquerade", "postrouting"),
    "in another order": saved(
        "-P FORWARD DROP\n-A FORWARD -s 10.8.0.0/24 -p tcp -j ACCEPT\n"
        "-A FORWARD -s 10.8.0.0/24 -p udp -j ACCEPT\n"
        "-A FORWARD -s 10.9.0.0/24 -p udp -j ACCEPT\n-A FORWARD -s 10.9.0.0/24 -p tcp -j ACCEPT",
        "nft",
    ),
    "apart from each other": saved(
        "-A FORWARD -s 10.8.0.0/24 -d 10.8.0.0/24 -j DROP\n-A FORWARD -s 10.9.0.0/24 -d 10.9.0.0/24 -j DROP",
        "legacy",
    ),
    "a device of another daemon": saved("-P FORWARD DROP\n-A FORWARD -i tun1 -j ACCEPT", "nft"),
    "a part of the same place": saved(
        "-P FORWARD DROP\n-A FORWARD -s 10.8.0.64/26 -j ACCEPT\n-A FORWARD -s 10.9.0.64/26 -j ACCEPT", "nft"
    ),
    "a single user": saved("-P FORWARD DROP\n-A FORWARD -s 10.8.0.7 -j ACCEPT", "nft"),
    "the device of a single user": "ip link add tun2 type veth peer name peer2\n"
    "ip address add 10.8.0.1 peer 10.8.0.77 dev tun2\n"
    + saved("-P FORWARD DROP\n-A FORWARD -i tun2 -j ACCEPT", "nft"),
    "networks of containers": saved(
        "-P FORWARD DROP\n-N DOCKER\n-A FORWARD -o docker0 -j DOCKER\n"
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n-A DOCKER -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT\n"
        "-t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n"
        "-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n-A FORWARD -d 10.0.0.0/8 -j ACCEPT",
        "nft",
    ),
    "marks of both pools": saved(
        "-P FORWARD DROP\n-t mangle -A PREROUTING -s 10.8.0.0/15 -j MARK --set-mark 5\n"
        "-A FORWARD -m mark --mark 5 -j ACCEPT",
        "nft",
    ),
    "a mark for which no rule asks": saved("-t mangle -A FORWARD -s 10.8.0.0/24 -j MARK --set-mark 5", "nft"),
    "a list of attackers": saved("-N bans\n-A FORWARD -j bans\n-A bans -s 203.0.113.7 -j DROP", "nft"),
}


@pytest.mark.parametrize("case", COVERED)
def test_what_covers_the_new_users_as_the_old_ones_is_no_obstacle(namespace: str, case: str) -> None:
    assert found(namespace, COVERED[case]) == []


@pytest.mark.parametrize(
    "rule", ["from 10.8.0.0/24 lookup 100", "iif tun0 lookup 100", "from 10.8.0.0/24 blackhole"]
)
def test_a_routing_rule_for_the_old_users_alone_is_named(namespace: str, rule: str) -> None:
    [said] = found(namespace, f"ip rule add {rule}")
    assert "(ip rule) routes packets of users of slot adopted (10.8.0.0/24), and none does so" in said


def test_a_routing_rule_for_a_mark_that_the_old_users_alone_get_is_named(namespace: str) -> None:
    marks = saved("-t mangle -A PREROUTING -s 10.8.0.0/24 -j MARK --set-mark 5", "nft")
    [said] = found(namespace, f"{marks}\nip rule add fwmark 5 lookup 100")
    assert said.startswith(
        "`from all fwmark 0x5 lookup 100` (ip rule) routes packets of users of slot adopted"
    )


@pytest.mark.parametrize(
    "rule", ["from 10.8.0.0/15 lookup 100", "from all fwmark 5 lookup 100", "from 10.7.0.1 lookup 9"]
)
def test_a_routing_rule_that_slots_share_is_no_obstacle(namespace: str, rule: str) -> None:
    assert found(namespace, f"ip rule add {rule}") == []


def test_what_comes_first_for_the_new_users_alone_is_an_obstacle(namespace: str) -> None:
    """Both pools are accepted; the new one stands behind what drops everybody."""
    rules = "-A FORWARD -s 10.8.0.0/24 -j ACCEPT\n-A FORWARD -j DROP\n-A FORWARD -s 10.9.0.0/24 -j ACCEPT"
    [said, *_] = found(namespace, saved(rules, "nft"))
    assert said.startswith(
        "`ip saddr 10.8.0.0/24 accept` (nftables, chain FORWARD of table ip filter) accepts"
    )


def test_rules_that_no_tool_here_can_read_are_not_fine(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name.endswith("-save") else which(name))
    rules = "-P FORWARD DROP\n-A FORWARD -m iprange --src-range 10.8.0.1-10.8.0.255 -j ACCEPT"
    [said, *_] = found(namespace, saved(rules, "nft"))
    assert said.startswith("install iptables-nft-save: ")


def test_a_table_of_the_older_interface_that_cannot_be_read_is_unavailable(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name.endswith("-save") else which(name))
    with pytest.raises(Unavailable, match="iptables-legacy-save is not installed"):
        found(namespace, saved("-P FORWARD DROP", "legacy"))


def dropped(namespace: str, script: str) -> list[str]:
    """Return what drops the old users' packets after a script has set the filter up."""
    with inside(namespace):
        subprocess.run(["sh", "-ec", DEVICES + script], check=True, capture_output=True)
        return list(drops(asyncio.run(planes_of([OLD]))))


FORWARDS = (
    "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A FORWARD {}\n-A FORWARD -i tun+ -j ACCEPT"
)
USUAL = {
    "invalid": "-m conntrack --ctstate INVALID -j DROP",
    "by the older match": "-m state --state INVALID -j DROP",
    "mail": "-p tcp --dport 25 -j REJECT",
    "one server": "-d 192.0.2.9/32 -j DROP",
    "between users": "-i tun+ -o tun+ -d 10.8.0.0/24 -j DROP",
    "too many": "-m limit --limit 5/sec -j DROP",
}


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", USUAL)
def test_a_rule_that_drops_some_packets_is_no_fault_of_the_path(namespace: str, case: str, kind: str) -> None:
    assert dropped(namespace, saved(FORWARDS.format(USUAL[case]), kind)) == []


@pytest.mark.parametrize("rule", ["ct state invalid drop", "ct state { invalid, untracked } drop", "counter"])
def test_a_rule_of_nftables_for_a_state_is_no_fault_of_the_path(namespace: str, rule: str) -> None:
    rules = f"ct state established,related accept\n{rule}\niifname tun0 accept"
    assert dropped(namespace, nft(rules)) == []


@pytest.mark.parametrize(
    ("rules", "versions"),
    [
        ("ct state new drop\naccept", 2),
        ("iifname tun0 drop\naccept", 2),
        ("ip saddr 10.8.0.0/16 drop\naccept", 1),
        ("ct state established,related accept", 2),
        ("ct state vmap { established : accept, new : jump users }\n }\n chain users {\n drop", 2),
        ("ct state new accept", 2),
    ],
)
def test_a_chain_that_drops_all_new_packets_or_all_answers_is_a_fault(
    namespace: str, rules: str, versions: int
) -> None:
    said = dropped(namespace, nft(rules))
    assert len(said) == versions
    assert (
        said[0]
        == "chain base of table site drops all that is forwarded for users of slot adopted (10.8.0.0/24)"
    )


ALLOWED = (
    "ipset create allowed hash:net\nipset add allowed {}\n"
    "iptables-{} -P {} DROP\niptables-{} -A {} -m set --match-set allowed {} -j ACCEPT"
)


@pytest.mark.skipif(shutil.which("ipset") is None, reason="ipset is not installed here")
@pytest.mark.parametrize("kind", ["nft", "legacy"])
class TestSetsOfIpset:
    """Rules of iptables that ask a set for the address of a packet."""

    @pytest.mark.parametrize("network", ["203.0.113.0/24", "10.8.0.0/15", "10.0.0.0/8"])
    def test_a_set_that_has_both_pools_or_none_is_no_obstacle(
        self, namespace: str, network: str, kind: str
    ) -> None:
        assert found(namespace, ALLOWED.format(network, kind, "INPUT", kind, "INPUT", "src")) == []

    @pytest.mark.parametrize(
        ("hook", "side"), [("INPUT", "src"), ("FORWARD", "src"), ("FORWARD", "dst"), ("FORWARD", "src,dst")]
    )
    def test_a_rule_for_a_set_that_has_the_old_pool_alone_is_named(
        self, namespace: str, hook: str, side: str, kind: str
    ) -> None:
        script = ALLOWED.format("10.8.0.0/24", kind, hook, kind, hook, side)
        if "," in side:
            script = script.replace("hash:net", "hash:net,port").replace("8.0.0/24", "8.0.0/24,tcp:443")
        [said] = found(namespace, script)
        assert "--match-set allowed" in said
        assert "accepts packets of users of slot adopted" in said

    def test_a_set_that_cannot_be_read_whole_is_not_known(self, namespace: str, kind: str) -> None:
        script = ALLOWED.format("10.8.0.0/15", kind, "FORWARD", kind, "FORWARD", "src")
        [said] = found(namespace, f"{script}\nipset add allowed 10.9.0.0/24 nomatch")
        assert said.startswith("it is not known whether `")

    def test_a_list_of_strangers_is_no_obstacle(self, namespace: str, kind: str) -> None:
        bans = "ipset create bans hash:ip\n(seq 1 250 | sed 's/^/add bans 203.0.113./') | ipset restore\n"
        assert found(namespace, f"{bans}iptables-{kind} -A FORWARD -m set --match-set bans src -j DROP") == []

    def test_a_set_that_nothing_here_reads_is_for_clients_of_the_host_in_an_input_chain(
        self, namespace: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "ipset" else which(name))
        script = ALLOWED.format("10.8.0.0/15", kind, "INPUT", kind, "INPUT", "src")
        assert found(namespace, script) == []
