"""Adoption as a change: what serves by itself becomes known-good, is upgraded from, and is gone back to."""

import threading

import pytest

from policies.adoption import release_of
from policies.model.adoption import ADOPTED, Examined
from policies.model.change import ChangeEnding, ChangeKind, ChangeOrder, ChangeResult, Outcome
from policies.model.command import CommandKind
from policies.model.errors import Refused, Unavailable
from policies.model.fleet import GatewayRef
from policies.model.instance import InstanceState
from policies.model.value import digest_of
from tests.fakes.gateway import FakeSlot
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, OLD, World, fleet_of, result_of, say, working
from workflows.adopt import Examine, ExamineOrder
from workflows.steps import CONTROL_QUEUE

FOUND = release_of("ocserv", "1.1.6", digest_of(b"their own ocserv"))
USERS = ("192.0.2.1", "192.0.2.2")


async def serving_by_themselves(server: Engine) -> World:
    """Return a fleet whose gateways serve two users each without us."""
    world = World.made(await server.client(), fleet_of("edge", size=2), serving=None)
    for fake in world.gateways.values():
        fake.unprepared = FakeSlot(FOUND, InstanceState.RUNNING, fake.now(), list(USERS))
    return world


def adoption(world: World, *names: str) -> ChangeOrder:
    """Return the order to adopt these gateways, or all."""
    return ChangeOrder(
        fleet=world.fleet.name,
        kind=ChangeKind.ADOPT,
        plan=world.book.record_adoption(world.fleet, names or tuple(world.gateways)),
        reason="adoption",
    )


async def adopt(world: World, *names: str) -> ChangeResult:
    return await result_of(await world.run(adoption(world, *names)))


async def test_what_serves_is_known_good_as_it_runs_and_the_record_says_that_nobody_signed_it(
    server: Engine,
) -> None:
    async with working(await serving_by_themselves(server)) as world:
        result = await adopt(world)
        assert (result.outcome, result.touched) == (Outcome.PROMOTED, 2)
        assert result.reason == "2 gateways with 4 sessions were adopted as they ran"
        assert world.book.known_good("edge") == dict.fromkeys(world.gateways, FOUND)
        assert all(fake.lost == [] and fake.serving == ADOPTED for fake in world.gateways.values())
        told = [entry for entry in world.book.events.values() if entry[0] == "gateway adopted"]
        assert [subject for _, subject, _ in told] == ["edge/gw-1", "edge/gw-2"]
        unsigned = f"no signature says what it is: its executable is {FOUND.executable}"
        assert all(unsigned in str(body) for _, _, body in told)


async def test_a_gateway_that_refuses_is_named_and_a_repeat_completes_the_adoption(
    server: Engine,
) -> None:
    async with working(await serving_by_themselves(server)) as world:
        world.gateways["gw-2"].fail("adopt", Refused("gw-2 has two daemons"))
        result = await adopt(world)
        assert (result.outcome, result.aside) == (Outcome.HELD, {"gw-2": "gw-2 has two daemons"})
        assert world.book.known_good("edge") == {"gw-1": FOUND}
        assert (await adopt(world)).outcome is Outcome.PROMOTED
        assert world.book.known_good("edge") == dict.fromkeys(world.gateways, FOUND)
        assert [fake.effects for fake in world.gateways.values()] == [["adopt 1.1.6+adopted"]] * 2


async def test_a_rollback_that_arrives_while_an_adoption_writes_its_end_leaves_it_adopted(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed: what an adoption puts in place was taken back as an upgrade is, without any release."""
    async with working(await serving_by_themselves(server)) as world:
        close, closing, goes_on = world.book.close_change, threading.Event(), threading.Event()

        def slowly(ending: ChangeEnding) -> None:
            closing.set()
            goes_on.wait(PATIENCE)
            close(ending)

        monkeypatch.setattr(world.book, "close_change", slowly)
        running = await world.run(adoption(world))
        await until(closing.is_set)
        await say(running, CommandKind.ROLL_BACK)
        goes_on.set()
        assert (await result_of(running)).outcome is Outcome.PROMOTED
        assert world.book.known_good("edge") == dict.fromkeys(world.gateways, FOUND)


@pytest.mark.sweep
async def test_of_many_that_refuse_the_first_are_named_and_the_others_counted(server: Engine) -> None:
    large = World.made(await server.client(), fleet_of("large", size=120), serving=None)
    for fake in large.gateways.values():
        fake.fail("adopt", Refused(f"{fake.gateway.name}: {'two daemons ' * 30}"))
    async with working(large):
        result = await adopt(large)
    assert (result.outcome, len(result.aside)) == (Outcome.REFUSED, 50)
    assert result.reason.endswith("; and 70 more")


@pytest.mark.sweep
async def test_a_lying_agent_has_no_signed_release_written_down_as_what_it_found_running(
    server: Engine,
) -> None:
    async with working(await serving_by_themselves(server)) as world:
        thief = world.gateways["gw-2"].unprepared
        assert thief is not None
        thief.release = NEW
        result = await adopt(world)
        said = f"{NEW.product} {NEW.version}"
        told = f"its agent calls what it found {said}, which is no name of what is adopted"
        assert (result.outcome, result.aside) == (Outcome.HELD, {"gw-2": told})
        assert world.book.known_good("edge") == {"gw-1": FOUND}


async def test_only_the_gateways_that_are_named_are_adopted(server: Engine) -> None:
    async with working(await serving_by_themselves(server)) as world:
        await adopt(world, "gw-2")
        assert world.book.known_good("edge") == {"gw-2": FOUND}
        assert world.gateways["gw-1"].effects == []


@pytest.mark.sweep
async def test_an_upgrade_from_what_was_adopted_leaves_its_users_and_goes_back_to_it(
    server: Engine,
) -> None:
    async with working(await serving_by_themselves(server)) as world:
        await adopt(world)
        world.look()
        world.gateways["gw-1"].bad_releases.add(OLD.digest)
        result = await world.upgrade(("gw-1",), ("gw-2",), release=OLD)
        assert result.outcome is Outcome.ROLLED_BACK
        await until(lambda: set(world.serving().values()) == {FOUND.version})
        assert [fake.slots[ADOPTED].people for fake in world.gateways.values()] == [list(USERS)] * 2
        world.gateways["gw-1"].bad_releases.clear()
        assert (await world.upgrade(("gw-1",), ("gw-2",), release=OLD)).outcome is Outcome.PROMOTED
        assert all(fake.lost == [] for fake in world.gateways.values())
        assert world.book.known_good("edge") == dict.fromkeys(world.gateways, OLD)


@pytest.mark.sweep
async def test_what_serves_is_told_before_anything_is_adopted_and_silence_is_named(
    server: Engine,
) -> None:
    async with working(await serving_by_themselves(server)) as world:
        world.gateways["gw-2"].fail("examine", Unavailable("gw-2 does not answer"), times=10_000)
        found: Examined = await world.client.execute_workflow(
            Examine.run,
            ExamineOrder(gateways=tuple(GatewayRef.model_validate(_named(g)) for g in world.fleet.gateways)),
            id="examine/edge",
            task_queue=CONTROL_QUEUE,
        )
        assert [(one.gateway, one.release, one.sessions) for one in found.found] == [("gw-1", FOUND, 2)]
        assert found.silent == {"gw-2": "gw-2 does not answer"}
        assert all(fake.effects == [] for fake in world.gateways.values())


def _named(gateway: GatewayRef) -> dict[str, object]:
    return {field: getattr(gateway, field) for field in GatewayRef.model_fields}
