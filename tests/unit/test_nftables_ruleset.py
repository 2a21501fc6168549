"""The steering table in nft's own words, where users are sent to addresses and not to ports."""

import json
from datetime import timedelta
from ipaddress import ip_address, ip_network

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Dialled
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.steering.homes import home_of
from activities.drivers.steering.nftables_ruleset import Ruleset, count_of_rules, parse, transaction
from policies.model.fleet import Gateway, Slot

IKE = (Dialled("udp", 500), Dialled("udp", 4500))
HERE = Gateway(
    name="gw",
    daemon="strongswan",
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    port=500,
    slots=tuple(
        Slot(
            name=name,
            port=500,
            address=ip_address(f"10.255.0.{2 * number + 1}"),
            device=f"ike{name}",
            pool4=ip_network(f"10.9.{number}.0/24"),
        )
        for number, name in enumerate("ab")
    ),
)
A, B = map(home_of, HERE.slots)
USER = ip_address("198.51.100.7")


def written(wanted: Ruleset, before: Ruleset | None = None) -> list[str]:
    return transaction(wanted, before or Ruleset(), HERE, IKE, StrongSwan.wandering).splitlines()


def test_users_of_both_ports_are_sent_to_the_address_of_an_instance_and_by_ipv4_only() -> None:
    rules = [line for line in written(Ruleset(steer=A, generation="r/1")) if line.startswith("add rule")]
    assert (
        "add rule inet penstock prerouting ip daddr { 192.0.2.1 } udp dport 500 dnat ip to ip saddr map @old4"
    ) in rules
    assert [line for line in rules if "map @steer" in line] == [
        (
            "add rule inet penstock prerouting ip daddr { 192.0.2.1 } udp dport "
            f'{port} dnat ip to udp dport map @steer comment "by r/1"'
        )
        for port in (500, 4500)
    ]
    assert not [line for line in written(Ruleset(steer=A)) if "ip6" in line or "redirect" in line]
    assert count_of_rules(Ruleset(steer=A), HERE, IKE, StrongSwan.wandering) == len(rules) == 11


def test_where_users_dial_udp_a_stranger_at_an_instances_own_port_tells_of_nobody_where_they_belong() -> None:
    slots = tuple(
        slot.model_copy(update={"address": None, "port": 4431 + n}) for n, slot in enumerate(HERE.slots)
    )
    gateway = HERE.model_copy(update={"daemon": "openvpn", "port": 1194, "slots": slots})
    draining = Ruleset(steer=4431, draining=(1194, 4432))
    assert "learn" not in [
        word
        for line in transaction(draining, Ruleset(), gateway, OpenVpn().dialled(gateway)).splitlines()
        if line.startswith("add rule")
        for word in line.replace('"', " ").split()
    ]


def test_what_instances_send_by_themselves_leaves_with_the_gateways_address() -> None:
    assert written(Ruleset())[-1] == (
        "add rule inet penstock postrouting ip saddr { 10.255.0.1, 10.255.0.3 } snat ip to 192.0.2.1"
    )


def test_a_trial_and_its_renewal_are_of_both_ports_at_once() -> None:
    lease = timedelta(seconds=30)
    tried = Ruleset(steer=A).on_trial(B, lease)
    elements = f"{{ 500 timeout 30000ms : {B}, 4500 timeout 30000ms : {B} }}"
    assert f"add element inet penstock trial {elements}" in written(tried, Ruleset(steer=A))
    renewed = written(Ruleset(steer=A).on_trial(B, lease, renew=True), tried)
    assert "delete element inet penstock trial { 500, 4500 }" in renewed


def test_a_change_of_the_permanent_instance_is_of_both_ports_at_once() -> None:
    lines = written(Ruleset(steer=B), Ruleset(steer=A))
    assert "flush map inet penstock steer" in lines
    assert f"add element inet penstock steer {{ 500 : {B}, 4500 : {B} }}" in lines


def test_who_is_pinned_is_pinned_to_an_address_and_nobody_is_learned_from_a_port() -> None:
    pinned = written(Ruleset(steer=B).pinning({USER: A}, draining=(A,)))
    assert f"add element inet penstock old4 {{ {USER} timeout 28800s : {A} }}" in pinned
    assert not [line for line in pinned if "update @learned" in line]


def test_a_packet_with_the_number_of_a_session_is_sent_to_it_before_anything_else_is_asked() -> None:
    rules = [line for line in written(Ruleset(steer=A)) if line.startswith("add rule")]
    assert [line.rpartition("4500 ")[2] for line in rules[:2]] == [
        "dnat ip to @th,64,32 map @esp_spi",
        "dnat ip to @th,96,64 map @ike_spi",
    ]
    numbers = {("esp_spi", 0xA17AD981): A, ("ike_spi", 0x13E0DEBDAD378C37): A}
    pinned = Ruleset(steer=B).pinning({}, numbers=numbers)
    assert f"add element inet penstock esp_spi {{ 0xa17ad981 : {A} }}" in written(pinned)
    assert f"add element inet penstock ike_spi {{ 0x13e0debdad378c37 : {A} }}" in written(pinned)
    gone = written(Ruleset(steer=B), pinned)
    assert "delete element inet penstock esp_spi { 0xa17ad981 }" in gone
    assert "delete element inet penstock ike_spi { 0x13e0debdad378c37 }" in gone
    assert not [line for line in written(pinned, pinned) if "element" in line and "spi" in line]


def test_what_nft_lists_is_read_as_it_was_written() -> None:
    listed = [
        {"map": {"name": "steer", "elem": [[500, str(A)], [4500, str(A)]]}},
        {
            "map": {
                "name": "trial",
                "elem": [
                    [{"elem": {"val": port, "timeout": 30, "expires": 12}}, str(B)] for port in (500, 4500)
                ],
            }
        },
        {"map": {"name": "ike_spi", "elem": [[-6810892338065025416, str(A)]]}},
        {"map": {"name": "esp_spi", "elem": [[2709182849, str(B)]]}},
        {"map": {"name": "old4", "elem": [[{"elem": {"val": str(USER), "expires": 9}}, str(A)]]}},
    ]
    found = parse(json.dumps({"nftables": listed}), HERE)
    assert (found.steer, found.trial, found.trial_expires_in) == (A, B, timedelta(seconds=12))
    assert found.old == {USER: A}
    assert found.numbers == {("ike_spi", 0xA17AD98112345678): A, ("esp_spi", 0xA17AD981): B}
