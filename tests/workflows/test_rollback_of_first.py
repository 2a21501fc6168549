"""A rollback during a first installation or an adoption: one order, one sentence, the right outcome at once."""

import time

import pytest

from policies.model.change import Outcome
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked, recording, soon
from tests.workflows.world import OLD


@pytest.mark.parametrize("step", ["observe", "stage", "start", "probe"])
async def test_a_rollback_ends_a_first_installation_at_once(server: Engine, step: str) -> None:
    async with recording(server, serving=None) as recorded:
        world, service = recorded.world, recorded.service
        async with blocked(world.gateways["gw-1"], step) as taken:
            await service.install(world.fleet, OLD, "http://repository", "ana")
            await soon(taken.wait())
            began = time.monotonic()
            receipt = await service.roll_back(world.fleet, "ben", "it was the wrong fleet")
            took = time.monotonic() - began
            print("TOOK", step, took, receipt, world.serving())
        result = await soon(service.result("edge"))
        print(result.outcome, result.reason, recorded.ledger.known_good("edge").keys())
    assert result.outcome is Outcome.ABORTED
