import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from tests.workflows.engine import Engine, engine
from tests.workflows.world import World, fleet_of, working


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server of the test's own, so that a drain left behind never meets the next test's gateways."""
    server = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, data_converter=pydantic_data_converter
    ) as started:
        yield started


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are polled as often as a test can wait for."""
    monkeypatch.setattr("activities.sessions.POLL", timedelta(milliseconds=20))


@pytest.fixture
async def world(environment: WorkflowEnvironment) -> AsyncIterator[World]:
    fleet = fleet_of(f"edge-{uuid4().hex[:6]}")
    async with working(World.made(environment.client, fleet)) as made:
        yield made


@pytest.fixture(scope="session")
def server() -> Iterator[Engine]:
    """A real development server for what the time-skipping one cannot do."""
    with engine() as started:
        yield started


@pytest.fixture
async def real(server: Engine) -> AsyncIterator[World]:
    """The same world on the real server, where seconds are seconds."""
    fleet = fleet_of("edge", lease=timedelta(seconds=6))
    world = World.made(await server.client(), fleet)
    world.judge.pace = 0.3
    async with working(world):
        yield world
