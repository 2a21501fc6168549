"""Where the fleet's file and an agent's own say different things of a gateway."""

from ipaddress import ip_address, ip_network

import pytest

from policies.drift import described_by, disagreements
from policies.model.fleet import Gateway, Slot
from policies.model.instance import MOST_SLOTS, GatewayState
from tests.unit.fleets import state


def gateway(**changed: object) -> Gateway:
    slots = tuple(
        Slot(
            name=name,
            port=4431 + number,
            device=f"vpn{name}",
            pool4=ip_network(f"10.9.{number}.0/24"),
            pool6=ip_network(f"fd09:{number}::/64"),
        )
        for number, name in enumerate("ab")
    )
    said = {"name": "gw-1", "fleet": "edge", "addresses": (ip_address("192.0.2.1"), ip_address("fd00::1"))}
    return Gateway.model_validate({**said, "slots": slots, **changed})


def answered(file: Gateway) -> GatewayState:
    return state("gw-1").model_copy(update={"described": described_by(file)})


def test_files_that_say_the_same_agree_whatever_only_one_of_them_acts_on() -> None:
    assert disagreements(gateway(capacity=70, group="east"), answered(gateway()).described) == ()


def test_an_agent_that_does_not_tell_disagrees_with_nobody() -> None:
    assert disagreements(gateway(), state("gw-1").described) == ()


B = gateway().slots[1].model_copy(update={"port": 4499, "pool6": None})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"port": 8443}, ["port: fleet.yaml says 443, its agent's file 8443"]),
        (
            {"addresses": (ip_address("192.0.2.1"), ip_address("fd00::2"))},
            [
                "address fd00::1: fleet.yaml says yes, its agent's file no",
                "address fd00::2: fleet.yaml says no, its agent's file yes",
            ],
        ),
        (
            {"management": ip_address("fd00::9")},
            ["management: fleet.yaml says None, port 9500, its agent's file fd00::9, port 9500"],
        ),
        (
            {"runtime": "kubernetes", "placement": {"cluster": "west", "node": "worker-1"}},
            ["placement: fleet.yaml says no, its agent's file node worker-1 of cluster west"],
        ),
        (
            {"slots": (gateway().slots[0], B)},
            [
                (
                    "slot b: fleet.yaml says port 4432, device vpnb, users 10.9.1.0/24 and fd09:1::/64, "
                    "its agent's file port 4499, device vpnb, users 10.9.1.0/24"
                )
            ],
        ),
    ],
)
def test_what_differs_is_named_with_what_each_file_says(changed: dict[str, object], said: list[str]) -> None:
    assert list(disagreements(gateway(), answered(gateway(**changed)).described)) == said


def test_a_gateway_of_containers_and_one_of_processes_disagree_on_the_runtime() -> None:
    contained = gateway(runtime="podman")
    assert disagreements(contained, described_by(gateway())) == (
        "runtime: fleet.yaml says podman, its agent's file no",
    )
    assert disagreements(contained, described_by(contained)) == ()


def test_agents_of_before_which_told_no_runtime_agree_with_files_of_hosts_and_nodes() -> None:
    node = gateway(runtime="kubernetes", placement={"cluster": "west", "node": "worker-1"})
    for one in (gateway(), node):
        assert not [line for line in described_by(one) if line.startswith("runtime")]


def slot(number: int) -> Slot:
    return Slot(
        name=f"s{number}", port=5000 + number, device=f"v{number}", pool4=ip_network(f"10.8.{number}.0/24")
    )


def test_the_most_slots_that_a_gateway_has_fit_into_its_answer() -> None:
    lines = described_by(gateway(slots=tuple(slot(number) for number in range(MOST_SLOTS))))
    answer = answered(gateway()).model_dump() | {"described": lines}
    assert GatewayState.model_validate(answer).described == lines
