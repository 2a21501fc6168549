"""Tests whose server is killed under them; tests/workflows/test_watch.py runs them and reads what is said."""

import os
import signal

from policies.words.change import Outcome, Phase
from tests.fakes.control import UNDECIDED
from tests.workflows.engine import Engine
from tests.workflows.skipping import running
from tests.workflows.world import World, in_phase, result_of


async def test_the_real_server_is_killed(server: Engine, real: World) -> None:
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await result_of(rollout)


async def test_the_next_on_a_real_server_has_one(real: World) -> None:
    assert (await real.upgrade(("gw-1",))).outcome is Outcome.PROMOTED


async def test_the_time_skipping_server_is_killed(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    [pid] = running()
    os.kill(pid, signal.SIGKILL)
    await result_of(rollout)


async def test_the_next_on_a_time_skipping_server_has_one(world: World) -> None:
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
