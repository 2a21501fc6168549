import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.workflows.engine import SHARED, Engine, Engines
from tests.workflows.recorded import Recorded, recording
from tests.workflows.skipping import skipping
from tests.workflows.watch import under_watch
from tests.workflows.world import World, fleet_of, working
from workflows import steps

LEASE = timedelta(seconds=15)
"""Renewed every five seconds, which a test can wait for, and no busy machine lets it lapse."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test here ends at once when a server it leans on dies."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        test = item.obj

        @functools.wraps(test)
        async def watched_test(*arguments: object, **named: object) -> None:
            await under_watch(test(*arguments, **named))

        item.obj = watched_test


@pytest.fixture(autouse=True)
def quick_paces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that only time brings come as often as a test can wait for, where time is not skipped."""
    monkeypatch.setattr("activities.sessions.POLL", timedelta(milliseconds=20))
    monkeypatch.setattr("activities.facts.RECENT", timedelta(0))
    if "environment" in request.fixturenames:
        return
    monkeypatch.setattr(steps, "HELD_PACE", timedelta(seconds=0.5))
    monkeypatch.setattr(steps, "NEXT_LOOK", timedelta(seconds=1))
    monkeypatch.setattr(steps, "PLACED_LATE", timedelta(seconds=0.5))
    monkeypatch.setattr(steps, "NEXT_CAPACITY", timedelta(seconds=0.5))
    monkeypatch.setattr(steps, "LAST_CAPACITY", timedelta(seconds=2))
    for asking in (steps.SURVEY, steps.LOOK, steps.LOOK_AT_NODES, steps.CONFIRM, steps.GO_BACK):
        monkeypatch.setitem(asking, "schedule_to_close_timeout", timedelta(seconds=5))


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The engines of this process; every module that imports this fixture has one of its own, of the same."""
    yield SHARED
    SHARED.close()


@pytest.fixture
def server(engines: Engines) -> Engine:
    """A real server; it is the same for all tests while it lives."""
    return engines.living()


@pytest.fixture
async def world(server: Engine) -> AsyncIterator[World]:
    """A fleet in a namespace of its own, under workflows that load quickly."""
    async with working(World.made(await server.client(), fleet_of("edge", lease=LEASE))) as made:
        yield made


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server that skips time, for what takes hours; nothing there may be cancelled while it runs."""
    async with skipping() as started:
        yield started


@pytest.fixture
async def real(server: Engine) -> AsyncIterator[World]:
    """The same with a judge that takes longer for each look."""
    world = World.made(await server.client(), fleet_of("edge", lease=LEASE))
    world.judge.pace = 0.3
    async with working(world):
        yield world


@pytest.fixture
async def recorded(server: Engine) -> AsyncIterator[Recorded]:
    """The world on the real server, with the service before it."""
    async with recording(server) as started:
        yield started
