"""One rule of nft in a table of iptables: iptables-save writes it without its set, or none of the table.

Seen with iptables 1.8.9: `insert rule ip filter INPUT ip saddr @bad drop` became `-A INPUT -j DROP`. No user
seemed to get in, so nothing was compared, and steered users were dropped.
"""

import pytest

from tests.drivers import test_tunnel_rules as tunnels
from tests.drivers.test_input_filter import MISSING, User, dropped, found, namespace, user  # noqa: F401

pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

INPUT = """iptables-nft -P INPUT DROP
iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables-nft -A INPUT -p tcp -m multiport --dports {} -j ACCEPT
"""
BLOCKED = "nft 'add set ip filter bad { type ipv4_addr; }; insert rule ip filter INPUT ip saddr @bad drop'"
HIDING = "nft insert rule ip filter INPUT 'ct state vmap { invalid : drop }'"
OPEN = "22,443,4431,4432"


@pytest.mark.parametrize(
    "rule",
    [
        BLOCKED,
        "nft insert rule ip filter INPUT 'ip saddr { 203.0.113.0/24, 192.0.2.7 } drop'",
        "nft insert rule ip filter INPUT 'iifname { docker0, wg0 } counter drop'",
    ],
)
def test_a_block_list_of_nft_hides_no_rule_of_iptables(user: User, rule: str) -> None:  # noqa: F811
    said = dropped(found(user.gateway, INPUT.format("22,443") + rule))
    assert {("TCP", port, "IPv4") for port in ("4431", "4432")} == said
    assert user.gets_to(443)
    assert not user.gets_to(4431)


@pytest.mark.parametrize("rule", ["true", BLOCKED])
def test_open_ports_beside_a_block_list_are_no_obstacle(namespace: str, rule: str) -> None:  # noqa: F811
    assert found(namespace, INPUT.format(OPEN) + rule) == []


def test_a_set_of_nft_in_a_table_of_iptables_hides_no_pool(namespace: str) -> None:  # noqa: F811
    script = (
        "iptables-nft -P FORWARD DROP\niptables-nft -A FORWARD -m conntrack --ctstate RELATED -j ACCEPT\n"
        "nft add rule ip filter FORWARD 'ip saddr { 10.8.0.0/24 } accept'"
    )
    [said] = tunnels.found(namespace, script)
    assert said.startswith("`ip saddr 10.8.0.0/24 accept` (nftables, chain FORWARD of table ip filter)")


def test_a_chain_that_iptables_cannot_write_is_named_with_the_rule_that_hides_it(
    namespace: str,  # noqa: F811
) -> None:
    """The advice to open ports was given for a host whose ports are open."""
    [said] = found(namespace, INPUT.format(OPEN) + HIDING)
    assert said == (
        "iptables-nft-save cannot write chain INPUT of table filter because of `ct state vmap { invalid : "
        "drop }`, so it is not known what its other rules do with users; write these with iptables or in "
        "another table"
    )


def test_other_chains_of_that_table_are_read(namespace: str) -> None:  # noqa: F811
    script = INPUT.format(OPEN) + HIDING.replace("INPUT", "FORWARD")
    assert found(namespace, f"iptables-nft -N of; iptables-nft -A FORWARD -j of\n{script}") == []
