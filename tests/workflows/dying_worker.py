"""The orchestrator's worker as a process that a test may kill; its judge remembers only what it is handed."""

import asyncio
import sys

from temporalio import activity
from temporalio.client import Client

from activities.observation import ObservationSlice
from activities.watching import WatchSlice
from orchestrator.engine.sealing import data_converter
from orchestrator.processes.leaving import leave
from tests.fakes.control import HEALTHY, UNDECIDED, FakeJudge, ObservedLedger
from tests.workflows.world import World, control_worker, fleet_of

SLICES = 12
"""Slices after which this judge is convinced, whichever processes saw them."""


class CountingJudge(FakeJudge):
    """Convinced by so many slices, counted in the state that travels with the wave."""

    @activity.defn(name="watch_wave")
    async def watch_wave(self, order: WatchSlice) -> ObservationSlice:
        self.says(HEALTHY if len(order.state) >= SLICES else UNDECIDED, wave=order.wave)
        return await super().watch_wave(order)


async def main(address: str, namespace: str, ledger: str) -> None:
    client = await Client.connect(address, namespace=namespace, data_converter=data_converter(None))
    world = World(client, fleet_of("edge"), {}, judge=CountingJudge(pace=0.3), book=ObservedLedger(ledger))
    async with control_worker(client, world):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    leave(0)
