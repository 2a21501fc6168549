"""A world on the real server, and what its people ask of it through the service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import WorkflowExecutionStatus

from orchestrator.service.changes import ChangeService
from orchestrator.service.drains import DrainService
from policies.model.change import ChangeResult
from policies.model.command import CommandReceipt
from policies.model.plan import ReleaseRef
from policies.model.status import ChangeStatus
from tests.fakes.control import ObservedLedger
from tests.fakes.gateway import FakeGateway
from tests.patience import PATIENCE, answered, until
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, OLD, World, fleet_of, reconcile, working
from workflows.reconcile import ReconcileResult

T = TypeVar("T")
SOON = PATIENCE
"""Seconds within which what is promised has happened, on a machine that has other things to do."""


@dataclass
class Recorded:
    """The gateways, and the service that people ask."""

    world: World
    service: ChangeService

    @property
    def ledger(self) -> ObservedLedger:
        return self.world.book

    @property
    def drains(self) -> DrainService:
        return DrainService(self.world.client, self.service)

    async def upgrade(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> ChangeResult:
        """Plan and start an upgrade as the service does, and return how it ended."""
        await self.start(*waves, release=release)
        return await soon(self.service._change("edge").result())

    async def start(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> str:
        plan = self.world.plan(*(waves or (("gw-1",), ("gw-2", "gw-3", "gw-4"))), release=release)
        name = await self.service.start(plan, "http://repository", "release engineer", "new features")
        assert name is not None
        return name

    async def roll_back(self) -> CommandReceipt:
        """Ask to go back, and wait until whatever that began is over."""
        receipt = await self.service.roll_back(self.world.fleet, "ana", "users call")
        await self.nothing_under_way()
        return receipt

    async def reconcile(self) -> ReconcileResult:
        return await reconcile(self.world)

    async def nothing_under_way(self) -> None:
        """Wait until the fleet's lock is free."""
        change = self.world.client.get_workflow_handle("change/edge")

        async def is_over() -> bool:
            return (await change.describe()).status is not WorkflowExecutionStatus.RUNNING

        await until(is_over, SOON)

    async def status(self) -> ChangeStatus:
        """Return what its people are told, by an engine that may be busy."""
        return await answered(lambda: self.service.status("edge"))

    async def bakes(self) -> bool:
        """Whether the last promotion is still watched."""
        bake = await self.world.client.get_workflow_handle("bake/edge").describe()
        return bake.status is WorkflowExecutionStatus.RUNNING

    async def everybody_on(self, release: ReleaseRef) -> None:
        """Wait until every gateway gives its new sessions to the release, and nothing is under way."""
        await until(lambda: set(self.world.serving().values()) == {release.version}, SOON)
        await self.nothing_under_way()


@asynccontextmanager
async def recording(
    server: Engine, *, serving: ReleaseRef | None = OLD, **limits: Any
) -> AsyncIterator[Recorded]:
    """Run a fleet that serves the release, which its ledger knows, on the real server."""
    fleet = fleet_of("edge", lease=timedelta(seconds=30), **limits)
    world = World.made(await server.client(), fleet, serving=serving)
    world.judge.pace = 0.3
    async with working(world):
        yield Recorded(world, ChangeService(world.client, world.book))


async def soon(work: Awaitable[T]) -> T:
    """Return the result of what has to end by itself."""
    async with asyncio.timeout(SOON):
        return await work


@asynccontextmanager
async def blocked(fake: FakeGateway, step: str, times: Sequence[int] = (1,)) -> AsyncIterator[asyncio.Event]:
    """Let these calls of a step of a gateway be taken up and not answered until the block ends.

    The event says that the first of them has been taken up. What it found by then is what it answers.
    """
    taken, released = asyncio.Event(), asyncio.Event()
    original, calls = getattr(fake, step), 0

    async def slow(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        mine = calls in times
        found = await original(*arguments, **more)
        if mine:
            taken.set()
            await released.wait()
        return found

    setattr(fake, step, slow)
    try:
        yield taken
    finally:
        released.set()
        setattr(fake, step, original)
