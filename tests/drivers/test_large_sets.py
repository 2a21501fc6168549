"""Hosts with lists of attackers or countries: the check before an upgrade answers in time, or names the list.

CrowdSec's bouncer has 24,000 addresses and more in a set of nftables; eight countries are 12,000 networks.
"""

import asyncio
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from activities.drivers.daemon.port import Dialled
from activities.drivers.runtime.host import filter_listing, input_filter, tunnel_rules
from activities.drivers.runtime.host.input_filter import drops_users
from activities.drivers.runtime.host.translated import sent_elsewhere
from activities.drivers.runtime.host.tunnel_rules import planes_of, uncovered
from deploy.lab.namespaces import inside
from policies.model.errors import Unavailable
from tests.drivers.test_input_filter import GATEWAY
from tests.drivers.test_tunnel_rules import DEVICES, NEW, OLD

TOOLS = ("nft", "iptables-nft", "ipset")
MISSING = next((f"{name} is not installed here" for name in TOOLS if not shutil.which(name)), None)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]
IN_PROPORTION = 8
"""At most so many times as long takes what is four times as much: its square takes 16 times as long."""


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Seconds of a core are measured, so a busy machine has all the time that it needs."""
    for module in (tunnel_rules, input_filter):
        monkeypatch.setattr(module, "COMPARED_WITHIN", timedelta(minutes=1))
    monkeypatch.setattr(filter_listing, "READ_WITHIN", timedelta(minutes=1))
    name = "pst-large"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


EMPTIED = """
nft flush ruleset
ipset destroy
ip link delete tun0
ip link delete tun1
"""


def checked(namespace: str, script: str) -> tuple[list[str], float]:
    """Return what the check before an upgrade finds, and the seconds of a core that it takes."""
    with inside(namespace):
        subprocess.run(["sh", "-e"], input=DEVICES + script, text=True, check=True, capture_output=True)
        begun = time.process_time()
        found = [*asyncio.run(drops_users(GATEWAY, {"tcp"}))]
        found += asyncio.run(uncovered(asyncio.run(planes_of((OLD, NEW))), ("adopted",), ("a",)))
        return found, time.process_time() - begun


def grows(namespace: str, scripts: Sequence[str]) -> None:
    """Check two hosts, of which the second has four times as much: nothing is found, in proportion."""
    spent = list[float]()
    for script in scripts:
        found, seconds = checked(namespace, script)
        assert found == []
        spent.append(seconds)
        with inside(namespace):
            subprocess.run(["sh", "-ec", EMPTIED], check=True, capture_output=True)
    assert spent[1] < IN_PROPORTION * spent[0], spent


def strangers(many: int, length: int = 32) -> list[str]:
    of = random.Random(7)
    numbers = of.sample(range(11 << 24 >> 32 - length, 223 << 24 >> 32 - length), many)
    return [f"{'.'.join(map(str, (one << 32 - length).to_bytes(4)))}/{length}" for one in numbers]


def of_nft(elements: list[str], rule: str, kind: str = "ipv4_addr", policy: str = "accept") -> str:
    return (
        f"nft -f - <<'END'\ntable inet site {{\n set listed {{ type {kind}; flags interval; auto-merge\n"
        f"  elements = {{ {', '.join(elements)} }}\n }}\n"
        f" chain in {{ type filter hook input priority -5; policy accept; ip saddr @listed drop\n }}\n"
        f" chain base {{ type filter hook forward priority -5; policy {policy}; {rule}\n }}\n}}\nEND\n"
    )


def test_a_hundred_thousand_addresses_of_nftables_take_time_in_proportion(namespace: str) -> None:
    rule = "ip saddr @listed drop\nip daddr @listed drop"
    grows(namespace, [of_nft(strangers(many), rule) for many in (25_000, 100_000)])


def countries(many: int) -> str:
    """Return twelve sets of ipset with so many networks together, and rules that drop these."""
    networks, script = strangers(many, 24), ""
    for number in range(12):
        adds = "\n".join(f"add cc{number} {one}" for one in networks[number::12])
        script += f"ipset create cc{number} hash:net\nipset restore <<'END'\n{adds}\nEND\n"
        for side in ("src", "dst"):
            script += f"iptables-nft -A FORWARD -m set --match-set cc{number} {side} -j DROP\n"
    return script


def test_a_dozen_countries_of_ipset_take_time_in_proportion(namespace: str) -> None:
    grows(namespace, [countries(9_000), countries(36_000)])


@pytest.mark.parametrize(("pool", "alike"), [("10.8.0.0/24", False), ("10.8.0.0/15", True)])
def test_the_pool_that_a_large_list_has_is_found_in_it(namespace: str, pool: str, alike: bool) -> None:
    listed = [*strangers(5000), pool]
    script = of_nft(listed, "ip saddr @listed accept\nct state established accept", policy="drop")
    found, _ = checked(namespace, script.replace("chain in {", "chain in { return;"))
    named = [one for one in found if "ip saddr @listed accept` (nftables, chain base" in one]
    assert bool(named) is not alike, found


def dropping(many: int) -> str:
    """Return so many rules of iptables, each of which drops one address."""
    rules = "\n".join(f"-A FORWARD -s {one} -j DROP" for one in strangers(many))
    return f"iptables-nft-restore <<'END'\n*filter\n:FORWARD ACCEPT [0:0]\n{rules}\nCOMMIT\nEND\n"


@pytest.mark.sweep
def test_four_thousand_rules_of_their_own_take_time_in_proportion(namespace: str) -> None:
    grows(namespace, [dropping(1000), dropping(4000)])


def of_a_cluster(many: int) -> str:
    """Return the chains of kube-proxy for so many services."""
    services = range(many)
    goes = ", ".join(f"10.96.{one // 250}.{one % 250} . tcp . 443 : goto s{one}" for one in services)
    chains = "\n".join(
        f"chain s{one} {{ ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000\n"
        " numgen random mod 2 vmap { 0 : goto one, 1 : goto one }\n }"
        for one in services
    )
    return f"""nft -f - <<'END'
table ip kube-proxy {{
 chain one {{ meta l4proto tcp dnat to 10.244.0.3:6443; }}
 {chains}
 map services {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {goes} }}; }}
 chain pre {{ type nat hook prerouting priority dstnat; ip daddr . meta l4proto . th dport vmap @services; }}
 chain post {{ type nat hook postrouting priority srcnat; meta mark & 0x4000 == 0x4000 masquerade; }}
}}
END
"""


@pytest.mark.sweep
def test_two_thousand_services_of_a_cluster_take_time_in_proportion(namespace: str) -> None:
    """Before, it took longer with the square of their number: kube-proxy has a chain for each in one map."""
    grows(namespace, [of_a_cluster(500), of_a_cluster(2000)])


def test_a_list_with_too_many_pairs_for_users_is_named(namespace: str) -> None:
    pairs = [f"10.8.0.{host} . {port}" for host in range(256) for port in range(1000, 1020)]
    script = of_nft(pairs, "ip saddr . tcp dport @listed accept", "ipv4_addr . inet_service")
    with pytest.raises(
        Unavailable,
        match=r"^a rule of chain base of table inet site asks for 5120 elements of set listed of table inet "
        r"site; at most 4096 are compared$",
    ):
        checked(namespace, script.replace("auto-merge", "").replace("ip saddr @listed drop", "accept"))


def test_rules_that_take_too_long_to_compare_are_named_by_their_chain(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the check was not answered in time, and the operator was asked whether the agent runs."""
    monkeypatch.setattr(tunnel_rules, "COMPARED_WITHIN", timedelta(0))
    with pytest.raises(Unavailable, match=r"^chain FORWARD of table ip filter cannot be compared within"):
        checked(namespace, "iptables-nft -A FORWARD -s 10.8.0.0/24 -j DROP")


async def _asked_before_an_adoption() -> tuple[float, float]:
    """Return the seconds of a core that the question takes, and the longest part of them without the loop."""
    longest = 0.0

    async def ticks() -> None:
        nonlocal longest
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.process_time() - last), time.process_time()

    ticking = asyncio.create_task(ticks())
    await asyncio.sleep(0)
    begun = time.process_time()
    assert await sent_elsewhere(GATEWAY, (Dialled("tcp", 443), Dialled("udp", 443))) is None
    taken = time.process_time() - begun
    await asyncio.sleep(0.01)
    ticking.cancel()
    return taken, longest


def test_where_users_ports_are_sent_takes_time_in_proportion_to_the_rules_and_the_loop_goes_on(
    namespace: str,
) -> None:
    """Before, 8000 rules took six seconds before an adoption, and the agent answered nothing meanwhile."""
    spent = dict[int, tuple[float, float]]()
    for many in (2000, 8000):
        rules = "".join(f"-A FORWARD -s {one} -j DROP\n" for one in strangers(many))
        text = f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n"
        with inside(namespace):
            subprocess.run(["iptables-nft-restore"], input=text, text=True, check=True)
            spent[many] = asyncio.run(_asked_before_an_adoption())
    assert spent[8000][0] < IN_PROPORTION * spent[2000][0], spent
    assert spent[8000][1] < spent[8000][0] / 2, spent
