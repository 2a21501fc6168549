"""The end of an incomplete rollback: every place that shows it names the gateways that are not back."""

import time

import pytest

from policies.model.change import Outcome
from policies.model.errors import Unavailable
from policies.model.operation import BREAK_GLASS
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.world import World, result_of, status_of


@pytest.mark.sweep
async def test_an_ended_incomplete_rollback_names_the_gateway_that_is_not_back(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    fake = world.gateways["gw-1"]
    fake.fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
    rollback = await world.go_back()
    await until(lambda: {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.1.6"})
    fake.owner = (int(time.time() * 1000), BREAK_GLASS)
    fake.recover("restore")
    result = await result_of(rollback)
    assert (result.outcome, list(result.incomplete)) == (Outcome.ROLLBACK_INCOMPLETE, ["gw-1"])
    status = await status_of(rollback)
    (newest,) = world.book.history("edge", 1)
    why = result.incomplete["gw-1"]
    assert status.incomplete == (f"gw-1: {why}",)
    assert status.what == f"ROLLBACK INCOMPLETE: 3 gateways are back; not back: gw-1: {why}"
    assert {one.gateway: one.state for one in status.gateways}["gw-1"] == "not back"
    assert newest.sentence == f"3 gateways are back; not back: gw-1: {why}"
