"""Processes end: a worker by kill -9, a long history by its length, a command line by its exit code."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.service import RPCError

from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service.changes import ChangeService
from orchestrator.settings import Settings
from policies.model.change import ChangeResult, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked
from tests.workflows.world import (
    Running,
    World,
    agent_worker,
    fleet_of,
    in_phase,
    is_heard,
    reconcile,
    refusal_of,
    result_of,
    say,
    status_of,
)
from workflows.watch import watch_of

PROGRESS_WITHIN = 12.0
"""Seconds after a killed worker's successor is ready until its change goes on.

Struck in the middle of a workflow's task it takes the engine 10 s to give the task away; a lost
slice is noticed after 4 s. How long it takes in most cases is measured by tests/chaos.
"""


@asynccontextmanager
async def worker_process(world: World) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker in a process of its own, which shares nothing with the test but engine and ledger."""
    address = world.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.workflows.dying_worker", address, world.client.namespace, world.book.url
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.sweep
async def test_a_worker_killed_in_a_window_changes_nothing_about_its_end(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(minutes=2)))
    async with AsyncExitStack() as stack:
        for fake in world.gateways.values():
            await stack.enter_async_context(agent_worker(world.client, fake))
        async with worker_process(world) as first:
            rollout = await world.start(("gw-1",))
            await until(lambda: _answers(rollout))
            await in_phase(rollout, Phase.OBSERVING)
            first.kill()
            await first.wait()
        watch = world.client.get_workflow_handle(watch_of(f"{rollout.id}/{world.newest}/wave/001"))
        before = (await watch.describe()).history_length
        async with worker_process(world):
            # Loading takes a busy machine seconds; recovery is counted from the first answer.
            await until(lambda: _answers(rollout))
            ready = time.monotonic()

            async def goes_on() -> bool:
                return (await watch.describe()).history_length > before + 3

            await until(goes_on)
            assert time.monotonic() - ready < PROGRESS_WITHIN
            assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.gateways["gw-1"].effects[:4] == ["stage 1.3.0", "start b", "steer b", "keep b"]


@pytest.mark.sweep
async def test_a_worker_killed_while_it_brings_missed_settings_brings_them_once(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge"))
    service, last = ChangeService(world.client, world.book), world.gateways["gw-4"]
    fleet = world.fleet.model_copy(update={"settings": {"dns": ("10.0.0.53",)}})
    change = world.client.get_workflow_handle("change/edge", result_type=ChangeResult)
    async with AsyncExitStack() as stack:
        for fake in world.gateways.values():
            await stack.enter_async_context(agent_worker(world.client, fake))
        async with worker_process(world) as first:
            last.fail("observe", Unavailable("gw-4 does not answer"), times=1000)
            await until(lambda: is_heard(world.client))
            await service.reload(fleet, await service.plan_settings(fleet), "ana", "new name server")
            assert (await service.end_of("edge")).outcome is Outcome.HELD
            last.recover("observe")
            async with blocked(last, "configure") as taken:
                assert "gw-4" in (await reconcile(world)).sentence
                await asyncio.wait_for(taken.wait(), PATIENCE)
                first.kill()
                await first.wait()
        async with worker_process(world):
            assert (await result_of(change)).outcome is Outcome.PROMOTED
    assert [fake.effects for fake in world.gateways.values()] == [["configure dns = 10.0.0.53"]] * 4


@pytest.mark.sweep
async def test_a_wave_watched_for_long_goes_on_with_a_short_history(real: World) -> None:
    real.judge.pace = 0.01
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    watch = real.client.get_workflow_handle(watch_of(f"{rollout.id}/{real.newest}/wave/001"))
    first = (await watch.describe()).run_id

    async def is_another_run() -> bool:
        return (await watch.describe()).run_id != first

    await until(is_another_run, PATIENCE)
    looked = len(real.judge.orders)
    await until(lambda: len(real.judge.orders) > looked + 2)
    assert "sessions have moved" in await refusal_of(say(rollout, CommandKind.ABORT))
    real.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    states = [len(order.state) for order in real.judge.orders]
    assert states == sorted(states)
    assert states[-1] >= len(states) - 2
    assert real.gateways["gw-1"].effects.count("start b") == 1


async def _answers(rollout: Running) -> bool:
    """Say whether a worker is there; until it has loaded, questions come to nothing."""
    try:
        await status_of(rollout)
    except RPCError:
        return False
    return True


@pytest.mark.sweep
async def test_commands_end_with_their_exit_code_every_time(real: World, tmp_path: Path) -> None:
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    (tmp_path / "fleet.yaml").write_text(json.dumps(real.fleet.model_dump(mode="json")))
    path = tmp_path / "penstock.sock"
    environment = {**os.environ, "PENSTOCK_SOCKET": os.fspath(path)}
    installation = await compose(
        Settings(
            temporal_address=real.client.service_client.config.target_host,
            temporal_namespace=real.client.namespace,
            ledger_url=real.book.url,
            fleet=tmp_path / "fleet.yaml",
            people=tmp_path / "people.yaml",
            audit_key=tmp_path / "audit.key",
        )
    )

    async def ask() -> int:
        command = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            "status",
            "edge",
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
        )
        return await command.wait()

    async with serving(installation.service, socket_at(path)):
        for _ in range(2):
            assert await asyncio.gather(*[ask() for _ in range(4)]) == [0, 0, 0, 0]
