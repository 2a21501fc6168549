"""What steers a gateway: which pairs are refused, what a plan says, what files say of it."""

import pytest
from pydantic import ValidationError

from policies.drift import described_by, disagreements
from policies.model.fleet import Fleet, Gateway
from policies.steering import promised
from tests.unit.fleets import fleet, gateway


def steered(by: str, name: str = "gw-1", /, **more: object) -> Gateway:
    return Gateway.model_validate(gateway(name).model_dump() | {"steering": by} | more)


def named(slot: str, where: str, by: str = "redirect") -> Gateway:
    slots = [one.model_dump() for one in gateway("gw-1").slots]
    return steered(by, slots=[one | {"users_at": where} if one["name"] == slot else one for one in slots])


def test_a_file_that_names_no_steering_is_written_and_told_as_before() -> None:
    plain = gateway("gw-1")
    assert plain.steering == "nftables"
    assert "steering" not in plain.model_dump_json()
    assert "users_at" not in plain.model_dump_json()
    assert described_by(plain) == described_by(steered("nftables"))


@pytest.mark.parametrize(
    ("daemon", "by"),
    [("openvpn", "redirect"), ("openvpn", "haproxy"), ("openvpn", "hook")],
)
def test_a_pair_that_nothing_carries_is_refused_with_the_reason(daemon: str, by: str) -> None:
    with pytest.raises(
        ValidationError,
        match=f"{by} steers ocserv only yet: {daemon} was not tried with it; write steering: nftables",
    ):
        steered(by, daemon=daemon)


def test_on_a_node_only_the_kernel_steers() -> None:
    node = {"runtime": "kubernetes", "placement": {"cluster": "berlin", "node": "worker-1"}}
    assert steered("nftables", **node).runtime == "kubernetes"
    for by in ("redirect", "haproxy", "hook"):
        with pytest.raises(
            ValidationError, match=f"{by} does not steer to instances of runtime kubernetes yet"
        ):
            steered(by, **node)


@pytest.mark.parametrize("where", ["b.example.org", "b.example.org:8443", "192.0.2.7", "[fd00::7]:4432"])
def test_a_slot_has_a_name_or_address_of_its_own_with_a_redirect_only(where: str) -> None:
    assert named("b", where).slots[1].users_at == where
    with pytest.raises(
        ValidationError, match="by a redirect or a hook only; write steering: redirect or hook"
    ):
        named("b", where, by="nftables")


@pytest.mark.parametrize("where", ["", "b.example.org/path", "user@b", "b:0", "fd00::7", "b b", "-b", "b\nc"])
def test_what_is_no_place_is_refused(where: str) -> None:
    with pytest.raises(ValidationError, match="users_at"):
        named("b", where)


def test_a_plan_says_what_the_steering_of_the_gateways_that_change_promises() -> None:
    both = fleet(gateway("gw-1"), gateway("gw-2"), steered("redirect", "gw-3"))
    (only,) = promised(both, ["gw-1"])
    assert only == (
        "Steering by nftables: who changes networks while an instance drains logs in again, unless a packet "
        "over UDP tells of it."
    )
    first, second = promised(both, ["gw-1", "gw-2", "gw-3"])
    assert first.startswith("Steering by nftables on gw-1, gw-2: who changes networks")
    assert second == (
        "Steering by redirect on gw-3: who changes networks while an instance drains keeps the session; the "
        "end of HAProxy costs new logins only."
    )


def test_a_plan_says_of_each_daemon_what_becomes_of_its_users_who_change_networks() -> None:
    of_openvpn = steered("nftables", "gw-2", daemon="openvpn", port=1194)
    slots = [
        one.model_dump() | {"port": 500, "address": f"10.255.0.{2 * at + 1}"}
        for at, one in enumerate(gateway("gw-3").slots)
    ]
    of_strongswan = steered("nftables", "gw-3", daemon="strongswan", port=500, slots=slots)
    described = Fleet(name="edge", product="edge", gateways=(of_openvpn, of_strongswan))
    silent, kept = promised(described, ["gw-2", "gw-3"])
    assert kept == (
        "Steering by nftables on gw-2: who changes networks while an instance drains keeps the session."
    )
    assert silent == (
        "Steering by nftables on gw-3: who changes address keeps the session; who gets another address or "
        "port from a NAT stays without answers until the client notices."
    )


def test_a_plan_says_what_the_hook_of_a_gateway_can_do() -> None:
    more = {"hook_can": ("lease",)}
    both = fleet(steered("hook", "gw-1"), steered("hook", "gw-2", **more))
    (plain,) = promised(both, ["gw-1"])
    assert plain == (
        "Steering by hook: where users come back to is what the hook steers to say; a trial lasts while its "
        "agent is dead."
    )
    able, _ = promised(both, ["gw-1", "gw-2"])
    assert able == (
        "Steering by hook on gw-2: where users come back to is what the hook steers to say; a trial ends "
        "with its lease by itself, and gets all new users or none."
    )


def test_what_a_hook_can_do_is_said_of_hooks_only_and_compared() -> None:
    with pytest.raises(ValidationError, match="hook_can is of a program that steers, and redirect does"):
        steered("redirect", hook_can=("lease",))
    plain, able = steered("hook"), steered("hook", hook_can=("lease",))
    assert "hook_can" not in plain.model_dump_json()
    assert disagreements(able, described_by(plain)) == (
        "hook_can: fleet.yaml says lease, its agent's file no",
    )


def test_files_that_name_other_steerings_or_places_disagree() -> None:
    assert disagreements(steered("redirect"), described_by(steered("haproxy"))) == (
        "steering: fleet.yaml says redirect, its agent's file haproxy",
    )
    assert disagreements(named("b", "[fd00::7]:4432"), described_by(steered("redirect"))) == (
        "users of slot b: fleet.yaml says [fd00::7]:4432, its agent's file no",
    )
