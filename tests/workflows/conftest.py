import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.workflows.engine import Engine, Engines
from tests.workflows.recorded import Recorded, recording
from tests.workflows.skipping import skipping
from tests.workflows.watch import under_watch
from tests.workflows.world import QUICK, World, fleet_of, working


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test here ends at once when a server it leans on dies."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        test = item.obj

        @functools.wraps(test)
        async def watched_test(*arguments: object, **named: object) -> None:
            await under_watch(test(*arguments, **named))

        item.obj = watched_test


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server of the test's own, so that a drain left behind never meets the next test's gateways."""
    async with skipping() as started:
        yield started


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are polled as often as a test can wait for."""
    monkeypatch.setattr("activities.sessions.POLL", timedelta(milliseconds=20))


@pytest.fixture
async def world(environment: WorkflowEnvironment) -> AsyncIterator[World]:
    fleet = fleet_of(f"edge-{uuid4().hex[:6]}")
    async with working(World.made(environment.client, fleet), QUICK) as made:
        yield made


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    shared = Engines()
    yield shared
    shared.close()


@pytest.fixture
def server(engines: Engines) -> Engine:
    """A real development server for what the time-skipping one cannot do."""
    return engines.living()


@pytest.fixture
async def real(server: Engine) -> AsyncIterator[World]:
    """The same world on the real server, where seconds are seconds."""
    fleet = fleet_of("edge", lease=timedelta(seconds=6))
    world = World.made(await server.client(), fleet)
    world.judge.pace = 0.3
    async with working(world):
        yield world


@pytest.fixture
async def recorded(server: Engine) -> AsyncIterator[Recorded]:
    """The world on the real server, with the service before it."""
    async with recording(server) as started:
        yield started
