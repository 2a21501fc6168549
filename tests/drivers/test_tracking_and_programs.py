"""Rules for the daemon's unit, and for zones of connection tracking, treat a slot unlike the users' port."""

import pytest

from tests.drivers.test_input_filter import MISSING, User, found, namespace, user  # noqa: F401

pytestmark = [pytest.mark.lab, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

ZONE = "iptables-nft -t raw -A PREROUTING -i eth0 -j CT --zone 5\n"
PLAIN = "nft 'add table ip z; add chain ip z {0} {{ type filter hook {0} priority raw; }}'\n"
ZONE_BY_NFT = PLAIN.format("prerouting") + "nft add rule ip z prerouting iif eth0 ct zone set 5\n"


def of_tcp4(said: list[str]) -> list[str]:
    return [one for one in said if "TCP" in one and "IPv4" in one]


@pytest.mark.parametrize(
    "rules",
    [ZONE, ZONE_BY_NFT, ZONE + "iptables-nft -t raw -A OUTPUT -p tcp --sport 443 -j CT --zone 5"],
)
def test_a_zone_for_what_comes_in_alone_is_named_since_no_reply_is_translated_back(
    user: User,  # noqa: F811
    rules: str,
) -> None:
    said = of_tcp4(found(user.gateway, rules))
    assert user.gets_to(443)
    assert not user.gets_to(4431)
    assert said
    assert all("set the zone for packets from users and replies" in one for one in said)


@pytest.mark.parametrize(
    "rules",
    [
        ZONE + "iptables-nft -t raw -A OUTPUT -o eth0 -j CT --zone 5",
        ZONE_BY_NFT + PLAIN.format("output") + "nft add rule ip z output oifname eth0 ct zone set 5\n",
        ZONE.replace("eth0", "eth1"),
        ZONE.replace("--zone", "--zone-orig"),
    ],
)
def test_a_zone_both_ways_is_no_obstacle(user: User, rules: str) -> None:  # noqa: F811
    said = found(user.gateway, rules)
    assert user.gets_to(4431)
    assert of_tcp4(said) == []


OUTPUT = "iptables-nft -P OUTPUT DROP\niptables-nft -A OUTPUT {} -j ACCEPT"
SENDS = (
    "nft 'add table ip f; add chain ip f out { type filter hook output priority 0; policy drop; }'\n"
    "nft add rule ip f out "
)


@pytest.mark.parametrize(
    "rules",
    [
        OUTPUT.format("-m owner --uid-owner 65534"),
        OUTPUT.format("-m cgroup --cgroup 1048577"),
        SENDS + "meta skuid 65534 accept",
        SENDS + "meta cgroup 1048577 accept",
    ],
)
def test_a_rule_for_the_unit_of_the_daemon_is_not_known_to_accept_a_slots(
    namespace: str,  # noqa: F811
    rules: str,
) -> None:
    said = found(namespace, rules)
    assert of_tcp4(said)
    assert all(one.startswith("it is not known whether") for one in said)


@pytest.mark.parametrize(
    "rules",
    [
        OUTPUT.format("-m owner --uid-owner 65534") + "\niptables-nft -A OUTPUT -p tcp -j ACCEPT",
        SENDS + "meta skuid 65534 drop\nnft add rule ip f out ct state established accept",
    ],
)
def test_a_rule_for_another_program_is_no_obstacle(namespace: str, rules: str) -> None:  # noqa: F811
    assert of_tcp4(found(namespace, rules)) == []
