"""What a failed test says of the engine."""

from datetime import timedelta

import pytest

from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.hanging import said_when_it_hangs
from tests.workflows.world import World, fleet_of, working


async def test_a_test_that_lasts_too_long_says_what_every_workflow_waits_for(
    server: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=2))
    world.judge.says(UNDECIDED)
    async with working(world):
        await world.start(("gw-1",), ("gw-2",))

        async def is_listed() -> bool:
            running = [one.id async for one in world.client.list_workflows("ExecutionStatus = 'Running'")]
            return {"change/edge", "change/edge/edge-2/wave/001"} <= set(running)

        await until(is_listed)
        said = ""

        def is_said() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "change/edge: " in said and "/wave/001: " in said

        async with said_when_it_hangs(world.client, timedelta()):
            await until(is_said)
    assert "children: change/edge/edge-2/wave/001" in said
    assert "workflow task: attempt" in said
