"""A rollback of a first installation or an adoption: one order and one sentence, while a step still hangs."""

import pytest

from orchestrator.service.changes import ChangeService
from policies.model.adoption import ADOPTED
from policies.model.change import Outcome
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked, recording, soon
from tests.workflows.test_adoption import FOUND, serving_by_themselves
from tests.workflows.world import OLD, working

NOTHING_ELSE = "Nothing else is taken back: no promotion can be taken back: gw-2, gw-3, gw-4 serve 1.1.6."


@pytest.mark.parametrize("step", ["stage", "start", "probe", "make_permanent"])
async def test_a_rollback_ends_a_first_installation_at_once_and_keeps_what_serves(
    server: Engine, step: str
) -> None:
    """A gateway that serves users by then has its release as known-good: a later rollback finds it."""
    async with recording(server, serving=None) as recorded:
        world, service = recorded.world, recorded.service
        async with blocked(world.gateways["gw-1"], step) as taken:
            await service.install(world.fleet, OLD, "http://repository", "ana")
            await soon(taken.wait())
            others = ("gw-2", "gw-3", "gw-4")
            await until(lambda: {world.serving()[name] for name in others} == {"1.1.6"})
            receipt = await service.roll_back(world.fleet, "ben", "it was the wrong fleet")
        result = await soon(service.result("edge"))
    assert receipt.accepted
    assert receipt.sentence == (
        f"edge-1 ends: gateways that were installed by now keep their release. {NOTHING_ELSE}"
    )
    assert result.outcome is Outcome.ABORTED
    assert result.reason == (
        "ben: it was the wrong fleet; 3 gateways now serve 1.1.6 and keep it; install again for the others"
    )
    assert recorded.ledger.known_good("edge") == dict.fromkeys(others, OLD)


@pytest.mark.sweep
async def test_a_rollback_ends_an_adoption_at_once_and_what_was_adopted_stays_so(server: Engine) -> None:
    async with working(await serving_by_themselves(server)) as world:
        service = ChangeService(world.client, world.book)
        async with blocked(world.gateways["gw-1"], "adopt") as taken:
            await service.adopt(world.fleet, tuple(world.gateways), (), "ana", "adoption")
            await soon(taken.wait())
            await until(lambda: world.gateways["gw-2"].serving == ADOPTED)
            receipt = await service.roll_back(world.fleet, "ben", "it was the wrong fleet")
        result = await soon(service.result("edge"))
        assert receipt.sentence.startswith("edge-1 ends: gateways that were adopted by now stay adopted.")
        assert result.outcome is Outcome.ABORTED
        assert result.reason == (
            "ben: it was the wrong fleet; 1 gateway was adopted and stays so; adopt again for the others"
        )
        assert world.book.known_good("edge") == {"gw-2": FOUND}
