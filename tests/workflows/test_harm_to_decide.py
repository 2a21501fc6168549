"""Harm that was measured after a promotion keeps the next upgrade from beginning until it is decided."""

from collections.abc import Awaitable

import pytest

from activities.undecided_harm import undecided_harm
from policies.model.change import ChangeKind, Outcome
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict, Refused
from policies.model.people import Via
from policies.model.verdict import GateReading, GateVerdict
from tests.fakes.control import MEASURED, OPEN, UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded, recording
from tests.workflows.test_bake import change_that_waits
from tests.workflows.world import NEXT, OLD, result_of


def accepting(recorded: Recorded) -> Command:
    """Return the order that accepts the harm which is shown now."""
    (one,) = undecided_harm(recorded.ledger, "edge")
    asked = {"id": one.hold_of, "person": "ana", "reason": "known", "hold_of": one.hold_of}
    return Command(kind=CommandKind.RESUME, **asked)


async def harmed(recorded: Recorded, *gateways: str) -> str:
    """Have a promotion of which harm is measured, about which operators were asked; return its name."""
    recorded.world.judge.says(UNDECIDED, wave=0)
    assert (await recorded.upgrade(gateways)).outcome is Outcome.PROMOTED
    recorded.world.judge.says(MEASURED, wave=0)
    await told(recorded, MEASURED.reason)
    return recorded.world.newest


async def told(recorded: Recorded, reason: str) -> None:
    """Wait until the ledger has that operators were asked about this harm last."""
    await until(lambda: any(reason in one.harm for one in undecided_harm(recorded.ledger, "edge")))


async def refused(order: Awaitable[object]) -> str:
    with pytest.raises(Refused) as found:
        await order
    return str(found.value)


def names_all(sentence: str, promoted: str) -> bool:
    """Return whether the refusal names the harm, the promoted change and both answers."""
    answers = "penstock rollback edge", f"penstock resume edge --hold-of {promoted}.harm-"
    return all(said in sentence for said in (MEASURED.reason, promoted, *answers))


@pytest.mark.parametrize("next_one", [("gw-1", "gw-2"), ("gw-3",)], ids=["the same", "another ring"])
async def test_no_upgrade_starts_over_harm_that_no_operator_has_decided_about(
    server: Engine, next_one: tuple[str, ...]
) -> None:
    async with recording(server) as recorded:
        promoted = await harmed(recorded, "gw-1", "gw-2")
        why = await refused(recorded.start(next_one, release=NEXT))
        assert names_all(why, promoted), why
        assert recorded.world.newest == promoted
        assert await recorded.bakes()


async def test_an_upgrade_that_waits_ends_when_harm_is_measured_and_touches_nothing(server: Engine) -> None:
    async with recording(server) as recorded:
        world = recorded.world
        world.judge.says(UNDECIDED, wave=0)
        assert (await recorded.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
        promoted = world.newest
        waiting = await change_that_waits(world, "its window")
        world.judge.says(MEASURED, wave=0)
        await told(recorded, MEASURED.reason)
        world.windows.answer = OPEN
        result = await result_of(waiting)
        assert result.outcome is Outcome.REFUSED
        assert names_all(result.reason, promoted), result.reason
        assert not any(NEXT.version in one for one in world.gateways["gw-1"].effects)


@pytest.mark.sweep
async def test_a_rollback_begins_over_harm_and_the_next_upgrade_after_it(server: Engine) -> None:
    async with recording(server) as recorded:
        await harmed(recorded, "gw-1", "gw-2")
        await recorded.roll_back()
        await recorded.everybody_on(OLD)
        assert (await recorded.upgrade(("gw-3",), release=NEXT)).outcome is Outcome.PROMOTED


async def test_an_upgrade_starts_once_an_operator_has_accepted_the_harm_until_another_gate_shows_some(
    server: Engine,
) -> None:
    async with recording(server) as recorded:
        world = recorded.world
        promoted = await harmed(recorded, "gw-1", "gw-2")
        order = accepting(recorded)
        receipt = await recorded.service.accept_harm("edge", order, Via.CLI)
        assert MEASURED.reason in receipt.sentence
        assert (receipt.accepted, receipt.change) == (True, promoted)
        with pytest.raises(Conflict, match="no harm after"):
            await recorded.service.accept_harm("edge", order, Via.CLI)
        assert (await recorded.upgrade(("gw-3",), release=NEXT)).outcome is Outcome.PROMOTED
        tunnels = GateReading(gate="tunnels", verdict=GateVerdict.UNHEALTHY, reason="5 of 6 tunnels are dead")
        world.judge.says(
            MEASURED.model_copy(update={"reason": tunnels.reason, "readings": (tunnels,)}), wave=0
        )
        await told(recorded, tunnels.reason)
        assert tunnels.reason in await refused(recorded.start(("gw-4",), release=NEXT))


async def test_a_repeated_request_is_answered_with_its_upgrade_although_harm_was_measured_since(
    server: Engine,
) -> None:
    async with recording(server) as recorded:
        world, key = recorded.world, "one request"
        world.judge.says(UNDECIDED, wave=0)
        plan = world.plan(("gw-1",))
        asked_for = plan, "http://repository", "release engineer", "new features"
        name = await recorded.service.start(*asked_for, key=key)
        await recorded.nothing_under_way()
        world.judge.says(MEASURED, wave=0)
        await told(recorded, MEASURED.reason)
        assert await recorded.service.start(*asked_for, key=key) == name
        assert recorded.ledger.change(world.newest).kind is ChangeKind.UPGRADE
