"""Break-glass on a gateway on trial: an operator did it, so neither silence nor the release is at fault."""

import time

import pytest

from policies.model.change import Outcome, Phase
from policies.model.operation import BREAK_GLASS
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.world import World, in_phase, result_of, status_of


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_takes_back_on_trial_is_left_out_and_the_others_go_on(
    world: World,
) -> None:
    world.judge.says(UNDECIDED)
    running = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await in_phase(running, Phase.OBSERVING)
    fake = world.gateways["gw-1"]
    fake.serving, fake.trial, fake.owner = "a", None, (int(time.time() * 1000) + 1000, BREAK_GLASS)

    async def is_left_out() -> bool:
        return "gw-1" in (await status_of(running)).aside

    await until(is_left_out)
    status = await status_of(running)
    assert status.aside["gw-1"].startswith("an operator steered it by break-glass at ")
    assert "silent" not in status.aside["gw-1"]
    world.judge.says(HEALTHY)
    result = await result_of(running)
    assert result.outcome is Outcome.PROMOTED
    assert {name: world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == dict.fromkeys(
        ("gw-2", "gw-3", "gw-4"), "1.3.0"
    )
    assert fake.serving == "a"
    assert fake.owner[1] == BREAK_GLASS
