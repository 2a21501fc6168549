"""A test whose server is killed under it, and the next; test_watch.py runs both and reads what is said."""

import os
import signal

from policies.model.change import Outcome, Phase
from tests.fakes.control import UNDECIDED
from tests.workflows.engine import Engine
from tests.workflows.world import World, in_phase, result_of


async def test_the_server_is_killed(server: Engine, world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await result_of(rollout)


async def test_the_next_has_another(world: World) -> None:
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
