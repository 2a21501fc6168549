"""What the bench of daemons measures."""

from typing import get_args

import pytest
from pydantic import ValidationError

from policies.model.fleet import CARRIED, Gateway, SteeringKind
from tests.bench.bench_daemons import LEFT_OUT, SETUPS, Setup
from tests.drivers.gateway_lab import gateway
from tests.drivers.strongswan_lab import ike_gateway


def is_offered(daemon: str, runtime: str, steering: str) -> bool:
    plain = ike_gateway() if daemon == "strongswan" else gateway()
    chosen: dict[str, object] = {"daemon": daemon, "runtime": runtime, "steering": steering}
    if runtime == "kubernetes":
        chosen["placement"] = {"cluster": "west", "node": "gw-1"}
    try:
        Gateway.model_validate(plain.model_dump() | chosen)
    except ValidationError as refused:
        return "steering: nftables" not in str(refused)
    return True


def test_every_kind_of_gateway_that_a_fleet_takes_is_measured_or_left_out_with_a_reason() -> None:
    every = [(*pair, steering) for pair in CARRIED for steering in get_args(SteeringKind)]
    offered = {"/".join(kind) for kind in every if is_offered(*kind)}
    assert offered == {setup.name for setup in SETUPS} | set(LEFT_OUT)
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_the_lab_of_a_row_is_of_its_kind(setup: Setup) -> None:
    assert (setup.shape.daemon, setup.shape.steering) == (setup.daemon, setup.steering)
