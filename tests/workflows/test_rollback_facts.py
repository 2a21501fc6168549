"""Rollbacks as operators ask for them: whatever happened before, each gateway gets the right release."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    KnownGoodBatch,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.errors import BadInput, Conflict, Refused, Unavailable
from policies.model.fleet import Fleet
from policies.model.offer import Verb
from policies.model.way_back import RollbackAsked
from tests.fakes.control import CLOSED, HEALTHY, QUIET, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, Recorded, blocked, soon
from tests.workflows.world import NEW, NEXT, OLD, World, began_with, fleet_of, in_phase, reconcile, working
from workflows import change
from workflows.bake import BakeOrder

GATEWAYS = ("gw-1", "gw-2", "gw-3", "gw-4")
FOR_LONG = 10_000


def without(fleet: Fleet, *names: str) -> Fleet:
    """Return the fleet as its file describes it once these gateways were taken out."""
    left = [gateway.model_dump() for gateway in fleet.gateways if gateway.name not in names]
    return Fleet.model_validate(fleet.model_dump() | {"gateways": left})


@pytest.mark.sweep
async def test_a_rollback_that_ends_a_waiting_change_takes_back_the_release_under_it(
    recorded: Recorded,
) -> None:
    """A1, 12: 1.3.0 is bad and 1.4.0 waits: one rollback moved nobody, the next had nothing to do."""
    world = recorded.world
    await recorded.upgrade()
    world.windows.answer = CLOSED
    plan = world.plan(("gw-1",), ("gw-2",), release=NEXT)
    waiting = await recorded.service.start(plan, "http://repository", "bea", "tonight")
    receipt = await recorded.roll_back()
    assert receipt.accepted
    assert receipt.sentence == (
        f"{waiting} has moved no session and ends. Rolling back: 1.3.0, promoted by edge-2, is taken back: "
        "gw-1, gw-2, gw-3, gw-4 will serve 1.1.6."
    )
    assert set(world.serving().values()) == {"1.1.6"}
    assert world.book.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)
    assert not (await recorded.roll_back()).accepted


@pytest.mark.sweep
async def test_a_rollback_by_name_during_a_canary_is_shown_as_the_refusal_that_it_gets(
    recorded: Recorded,
) -> None:
    """H2: it was shown as nothing to do, since the ledger had that release, and then refused for a canary."""
    world, service = recorded.world, recorded.service
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2",))
    await in_phase(service._change("edge"), Phase.OBSERVING)
    with pytest.raises(Conflict, match="takes it to known-good at once") as shown:
        await service.rollback_preview(world.fleet, RollbackAsked(to="1.1.6"), OLD)
    with pytest.raises(Conflict) as refused:
        await service.roll_back(world.fleet, "ana", "users call", to=OLD)
    assert (str(shown.value), shown.value.offers) == (str(refused.value), refused.value.offers)
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


async def test_a_rollback_by_name_and_force_takes_a_canary_back_though_its_known_good_has_that_release(
    recorded: Recorded,
) -> None:
    world, service = recorded.world, recorded.service
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2",))
    await in_phase(service._change("edge"), Phase.OBSERVING)
    receipt = await service.roll_back(world.fleet, "ana", "users call", to=OLD, force=True)
    assert receipt.accepted, receipt.sentence
    await until(lambda: set(world.serving().values()) == {"1.1.6"})


async def test_a_rollback_by_force_that_takes_nothing_back_says_which_change_it_ended(
    recorded: Recorded,
) -> None:
    """It said that there was nothing to do, although a change of settings had hung until then."""
    world, service = recorded.world, recorded.service
    world.gateways["gw-1"].fail("configure", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    fleet = world.fleet.model_copy(update={"settings": {"dns": ("10.0.0.53",)}})
    stuck = await service.reload(fleet, await service.plan_settings(fleet), "bea", "new name server")
    with pytest.raises(Refused, match=r"1\.3\.0 was never known-good here"):
        await service.roll_back(world.fleet, "ana", "it hangs", to=NEW, force=True)
    assert await service.is_under_way("edge")
    nothing = "no promotion can be taken back: gw-1, gw-2, gw-3, gw-4 serve 1.1.6"
    receipt = await service.roll_back(world.fleet, "ana", "it hangs", force=True)
    assert receipt.sentence == f"{stuck} was ended by force. Nothing else is taken back: {nothing}."
    assert receipt.accepted
    await recorded.nothing_under_way()


@pytest.mark.sweep
async def test_the_status_after_a_rollback_is_of_what_it_read_back_and_not_of_an_older_answer(
    recorded: Recorded,
) -> None:
    world, within = recorded.world, timedelta(minutes=5)
    await recorded.upgrade()
    world.look()
    assert recorded.ledger.taking("edge", within)[0] == {NEW.digest: 4}
    late = [fake._state(changed=False) for fake in world.gateways.values()]
    restarted = world.gateways["gw-2"]
    restarted.crash("a")
    assert (await recorded.roll_back()).accepted
    assert recorded.ledger.taking("edge", within)[0] == {OLD.digest: 4}
    recorded.ledger.record_states("edge", late, {})
    assert recorded.ledger.taking("edge", within)[0] == {OLD.digest: 4}


@pytest.mark.sweep
async def test_what_a_rollback_read_back_counts_from_then_and_not_from_when_its_others_were_back(
    recorded: Recorded,
) -> None:
    """A host that went while another one was waited for looked as if it had answered afterwards."""
    world = recorded.world
    await recorded.upgrade()
    async with blocked(world.gateways["gw-2"], "restore") as taken:
        rolling_back = asyncio.create_task(recorded.roll_back())
        await taken.wait()
        await until(partial(_is_told, recorded, "gw-1", "back on known-good"))
        moved = datetime.now(UTC)
    assert (await rolling_back).accepted
    assert recorded.ledger.taking("edge", timedelta(minutes=5))[0] == {OLD.digest: 4}
    assert recorded.ledger.takes("edge")["gw-1"].at < moved


async def _is_told(recorded: Recorded, gateway: str, state: str) -> bool:
    status = await recorded.status()
    return (gateway, state) in {(one.gateway, one.state) for one in status.gateways}


@pytest.mark.sweep
async def test_a_failed_canary_of_the_next_release_hides_no_rollback_of_the_promoted_one(
    recorded: Recorded,
) -> None:
    """A1, 12b."""
    world = recorded.world
    await recorded.upgrade()
    world.judge.says(UNHEALTHY, wave=1)
    assert (await recorded.upgrade(("gw-1",), ("gw-2",), release=NEXT)).outcome is Outcome.ROLLED_BACK
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


RING_1, RING_2, BUT_ONE = ("gw-1", "gw-2"), ("gw-3", "gw-4"), ("gw-1", "gw-3", "gw-4")


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("older", "newer"), [(RING_1, RING_2), (GATEWAYS, BUT_ONE), (GATEWAYS, ("gw-1",))], ids=str
)
async def test_a_gateway_of_an_older_promotion_that_returns_alone_hides_no_newer_promotion(
    recorded: Recorded, older: tuple[str, ...], newer: tuple[str, ...]
) -> None:
    """R1: a rollback had nothing to do, or took healthy gateways a release too far, and 1.4.0 stayed."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    assert (await recorded.upgrade(older)).outcome is Outcome.PROMOTED
    first = world.newest
    world.judge.says(HEALTHY)
    assert (await recorded.upgrade(newer, release=NEXT)).outcome is Outcome.PROMOTED
    second = world.newest
    world.judge.after[first] = QUIET.model_copy(update={"failed": ("gw-2",)})
    await until(lambda: world.serving()["gw-2"] == "1.1.6", SOON)
    await recorded.nothing_under_way()
    receipt = await recorded.roll_back()
    assert f"1.4.0, promoted by {second}, is taken back" in receipt.sentence
    served = {name: "1.3.0" if name in older and name != "gw-2" else "1.1.6" for name in GATEWAYS}
    assert world.serving() == served
    again = await recorded.roll_back()
    assert (again.accepted, world.serving()) == (False, served)


@pytest.mark.sweep
async def test_settings_are_rolled_back_by_name_and_never_in_place_of_the_release(recorded: Recorded) -> None:
    """A1, 12c, newcomer 10: the first rollback undid a banner, the second one had nothing to do."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    banner = world.fleet.model_copy(update={"settings": {"banner": ("hello",)}})
    await service.reload(banner, await service.plan_settings(banner), "bea", "a banner")
    settings = (await service.end_of("edge")).rollout
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}
    assert all(f"take back {settings}" not in fake.effects for fake in world.gateways.values())


@pytest.mark.sweep
async def test_a_rollback_of_settings_leaves_the_release_alone(recorded: Recorded) -> None:
    """Newcomer 10."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    banner = world.fleet.model_copy(update={"settings": {"banner": ("hello",)}})
    await service.reload(banner, await service.plan_settings(banner), "bea", "a banner")
    settings = (await service.end_of("edge")).rollout
    receipt = await service.roll_back(world.fleet, "ana", "nobody asked for it", settings=True)
    await recorded.nothing_under_way()
    assert f"the settings that it had before {settings}; every gateway keeps its release" in receipt.sentence
    assert set(world.serving().values()) == {"1.3.0"}
    assert all(fake.effects[-1] == f"take back {settings}" for fake in world.gateways.values())


@pytest.mark.sweep
@pytest.mark.parametrize("how", ["plain", "named", "by force"])
async def test_a_gateway_that_left_the_file_is_taken_back_by_the_plan_that_had_it(
    recorded: Recorded, how: str
) -> None:
    """A2, 5: every rollback ended in KeyError once a gateway was taken out of fleet.yaml."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    more = {"named": {"to": OLD}, "by force": {"force": True}}.get(how, {})
    fleet = without(world.fleet, "gw-4")
    receipt = await service.roll_back(fleet, "ana", "users call", **more)  # type: ignore[arg-type]
    assert "gw-4 left the fleet's file and goes back if it answers" in receipt.sentence
    await recorded.nothing_under_way()
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_dead_gateway_that_left_the_file_is_named_and_the_rollback_ends_without_it(
    recorded: Recorded,
) -> None:
    """A2: a host died in the upgrade and was taken out of the file; nobody could roll back the others."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    world.gateways["gw-4"].fail("restore", Unavailable("gw-4 does not answer"), times=FOR_LONG)
    await service.roll_back(without(world.fleet, "gw-4"), "ana", "users call")
    result = await soon(service.end_of("edge"))
    assert (result.outcome, result.touched) == (Outcome.ROLLED_BACK, 3)
    assert result.reason == "3 gateways are back; gw-4 left the fleet's file and did not go back"
    assert not world.book.quarantined("edge")


@pytest.mark.sweep
async def test_a_gateway_that_left_the_file_is_taken_back_by_the_next_rollback_once_it_answers(
    recorded: Recorded,
) -> None:
    """The second rollback said that it serves 1.1.6, with nothing to do, while it took users on 1.3.0."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    fleet = without(world.fleet, "gw-4")
    world.gateways["gw-4"].fail("restore", Unavailable("gw-4 does not answer"), times=FOR_LONG)
    await service.roll_back(fleet, "ana", "users call")
    await soon(service.end_of("edge"))
    world.gateways["gw-4"]._failures.clear()
    receipt = await service.roll_back(fleet, "ana", "it answers again")
    assert receipt.accepted
    assert (
        "gw-4 does not say that it is on known-good, and goes there: gw-4 will serve 1.1.6"
        in receipt.sentence
    )
    await recorded.nothing_under_way()
    assert set(world.serving().values()) == {"1.1.6"}
    again = await service.roll_back(fleet, "ana", "to be sure")
    assert not again.accepted


@pytest.mark.sweep
@pytest.mark.parametrize("named", [False, True])
async def test_a_rollback_by_a_ledger_that_is_older_than_its_gateways_says_so(
    recorded: Recorded, named: bool
) -> None:
    """A ledger was restored from before a promotion: it said that all serve 1.1.6, with nothing to do."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    later = "edge-99/0/gw-1/serve/sha256:0"
    states = [await fake.observe() for fake in world.gateways.values()]
    steered = [
        one.model_copy(
            update={
                "epoch": one.epoch + 3_600_000,
                "steering": one.steering.model_copy(update={"generation": later}),
            }
        )
        for one in states
    ]
    await recorded.roll_back()
    await recorded.nothing_under_way()
    world.book.record_states("edge", steered, {})
    with pytest.raises(
        Refused, match="the ledger is older than its gateways: gw-1 was last steered by edge-99"
    ):
        await service.roll_back(world.fleet, "ana", "users call", to=OLD if named else None)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("number", "why"),
    [(99, "of which the ledger knows nothing"), (9_999_999_999, "and there can be no change of that number")],
)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("force", [False, True])
async def test_one_gateway_that_speaks_of_an_unknown_change_stays_and_every_other_goes_back(
    recorded: Recorded, number: int, why: str, named: bool, force: bool
) -> None:
    """R12: the word of one host had every rollback of its fleet refused, also by name and by force."""
    world, service, to = recorded.world, recorded.service, OLD if named else None
    await recorded.upgrade()
    liar = world.gateways["gw-4"]
    liar.serve(OLD, "c")
    liar.generation = f"edge-{number}/1"
    world.look()
    shown = await service.rollback_preview(world.fleet, RollbackAsked(to=OLD.version if named else None), to)
    receipt = await service.roll_back(world.fleet, "ana", "users call", to=to, force=force)
    stays = f"gw-4 stays as it is, since it was last steered by edge-{number}, {why}"
    stays = f"gw-1, gw-2, gw-3 will serve 1.1.6; {stays}"
    assert stays in shown.sentence
    assert stays in receipt.sentence
    assert receipt.accepted
    await recorded.nothing_under_way()
    assert [world.gateways[name].serving for name in ("gw-1", "gw-2", "gw-3")] == ["a"] * 3
    assert liar.generation == f"edge-{number}/1"


@pytest.mark.sweep
@pytest.mark.parametrize("way_out", ["force", "quarantine", "file"])
async def test_hosts_that_make_a_ledger_look_older_leave_an_operator_ways_to_roll_the_others_back(
    recorded: Recorded, way_out: str
) -> None:
    """Of four gateways two are many enough that the ledger may be an older copy."""
    world, service, fleet = recorded.world, recorded.service, recorded.world.fleet
    await recorded.upgrade()
    for name in ("gw-3", "gw-4"):
        world.gateways[name].serve(OLD, "c")
        world.gateways[name].generation = "edge-99/1"
    world.look()
    with pytest.raises(Refused, match=r"older than its gateways: gw-3 was .* and 1 more were") as refused:
        await service.roll_back(fleet, "ana", "users call")
    assert [(one.verb, one.force) for one in refused.value.offers] == [
        (Verb.REBUILD, False),
        (Verb.ROLL_BACK, True),
    ]
    if way_out == "quarantine":
        lies = {"reason": "lies", "person": "ana", "since": datetime.now(UTC)}
        world.book.set_quarantine(Quarantine(fleet="edge", gateway="gw-4", **lies))
    elif way_out == "file":
        fleet = without(fleet, "gw-4")
    receipt = await service.roll_back(fleet, "ana", "users call", force=way_out == "force")
    assert "gw-1, gw-2 will serve 1.1.6; gw-3, gw-4 stay as they are" in receipt.sentence
    await recorded.nothing_under_way()
    assert [world.serving()[name] for name in ("gw-1", "gw-2")] == ["1.1.6"] * 2


@pytest.mark.sweep
async def test_a_gateway_that_no_plan_ever_had_is_named_and_stays(recorded: Recorded) -> None:
    """A2, R2: absence is a sentence, never an error."""
    world, service = recorded.world, recorded.service
    await recorded.upgrade()
    for kind, release in ((ChangeKind.INSTALL, OLD), (ChangeKind.UPGRADE, NEW)):
        opening = ChangeOpening(
            key=release.version,
            fleet="edge",
            kind=kind,
            requested_by="ana",
            reason="r",
            release=release.version,
        )
        name = world.book.open_change(opening)
        world.book.record_known_good_batch(
            KnownGoodBatch(fleet="edge", change=name, releases={"gw-9": release})
        )
        world.book.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="promoted"))
    receipt = await service.roll_back(world.fleet, "ana", "users call")
    assert "gw-9 is in neither the fleet's file nor a plan and stays as it is" in receipt.sentence
    await recorded.nothing_under_way()
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_gateway_that_left_the_file_keeps_reconcile_from_nobody(server: Engine) -> None:
    """A3, 4: reconcile held the fleet's lock for half an hour, and every rollback was refused."""
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15)))
    for name in ("gw-1", "gw-2"):
        world.gateways[name].serve(NEW, "b")
    world.look()
    world.folder.known["edge"] = without(world.fleet, "gw-1")
    async with working(world):
        found = await reconcile(world)
        assert found.strays.keys() == {"gw-2"}
        await until(lambda: world.serving()["gw-2"] == "1.1.6")
        assert world.serving()["gw-1"] == "1.3.0"


@contextmanager
def hanging(world: World, step: str) -> Iterator[list[str]]:
    """Let a question to the ledger never be answered."""
    asked = list[str]()
    original = getattr(world.book, step)

    def hangs(*_: object, **__: object) -> object:
        asked.append(step)
        raise Unavailable("the ledger has gone")

    setattr(world.book, step, hangs)
    try:
        yield asked
    finally:
        setattr(world.book, step, original)


@pytest.mark.sweep
async def test_a_rollback_is_taken_while_single_gateways_return_and_the_ledger_does_not_answer_them(
    recorded: Recorded,
) -> None:
    """A3: such a return was bounded in one of its steps, and refused every rollback while the others hung."""
    world = recorded.world
    await recorded.upgrade()
    lost = world.gateways["gw-1"]
    lost.crash("b")
    lost.serve(OLD, "a")
    with hanging(world, "record_return") as asked:
        assert (await recorded.reconcile()).sentence == "bringing back: gw-1"
        await until(lambda: bool(asked))
        turned = await recorded.service.turn_round("edge", "ana", "users call")
        assert turned.receipt is None
        assert turned.ended == "The return of gateways that strayed ends, and the rollback takes them along."
        await recorded.nothing_under_way()
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_the_return_of_single_gateways_gives_the_lock_back_whatever_does_not_answer(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3: "within a minute" bounds the whole change, the steps of the ledger included."""
    monkeypatch.setattr(change, "ALONE_IN_ALL", timedelta(seconds=2))
    world = recorded.world
    await recorded.upgrade()
    lost = world.gateways["gw-1"]
    lost.crash("b")
    lost.serve(OLD, "a")
    with hanging(world, "record_return") as asked:
        await recorded.reconcile()
        await until(lambda: bool(asked))
        await recorded.nothing_under_way()
    await recorded.reconcile()
    await recorded.everybody_on(NEW)


@pytest.mark.sweep
async def test_a_rollback_takes_single_gateways_that_return_alone_along(recorded: Recorded) -> None:
    """A3: a person heard "ask again then" and had to wait for two minutes."""
    world = recorded.world
    await recorded.upgrade()
    lost = world.gateways["gw-1"]
    lost.crash("b")
    lost.serve(OLD, "a")
    lost.fail("restore", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    await recorded.reconcile()
    receipt = await recorded.service.roll_back(world.fleet, "ana", "users call")
    assert receipt.accepted
    await until(lambda: world.serving()["gw-2"] == "1.1.6", SOON)
    lost.recover("restore")
    await recorded.everybody_on(OLD)


async def promotion_that_died(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, *waves: tuple[str, ...], parts: int
) -> None:
    """Let the engine lose an upgrade, of two waves by default, once so many of its parts are promoted."""
    world, calls = recorded.world, list[object]()
    write = world.book.record_known_good_batch

    def record(batch: KnownGoodBatch) -> int:
        calls.append(batch)
        if len(calls) > parts:
            raise Unavailable("the ledger has gone")
        return write(batch)

    def close(ending: ChangeEnding) -> None:
        calls.append(ending)
        raise Unavailable("the ledger has gone")

    with monkeypatch.context() as broken:
        broken.setattr(world.book, "record_known_good_batch", record)
        broken.setattr(world.book, "close_change", close)
        await recorded.start(*(waves or (("gw-1", "gw-2"), ("gw-3", "gw-4"))))
        await until(lambda: len(calls) > parts)
        await world.client.get_workflow_handle("change/edge").terminate("the engine lost it")


@pytest.mark.sweep
async def test_a_change_that_died_in_the_middle_of_its_promotion_is_taken_back_as_a_whole(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6, 8: half of the fleet stayed on the release, called "rolled back", and no rollback was left."""
    world = recorded.world
    await promotion_that_died(recorded, monkeypatch, parts=1)
    assert set(world.book.known_good("edge").values()) == {OLD, NEW}
    await recorded.reconcile()
    await recorded.everybody_on(OLD)
    assert world.book.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)
    died = world.book.change("edge-2")
    assert (died.outcome, died.taken_back) == (Outcome.ROLLED_BACK, died.moved)
    assert died.sentence == "it ended in the middle; edge-3 brought its gateways back"
    assert not await recorded.bakes()
    assert not (await recorded.roll_back()).accepted


@pytest.mark.sweep
async def test_a_rollback_of_a_change_that_died_in_its_promotion_takes_every_gateway_back(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6: an operator asks before reconcile has looked."""
    world = recorded.world
    await promotion_that_died(recorded, monkeypatch, parts=1)
    receipt = await recorded.roll_back()
    assert receipt.sentence == (
        "Rolling back: edge-2 has not ended, which is completed first: "
        "gw-1, gw-2, gw-3, gw-4 will serve 1.1.6."
    )
    assert set(world.serving().values()) == {"1.1.6"}
    assert world.book.change("edge-2").outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_change_that_died_once_every_gateway_was_promoted_is_promoted(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6: the end that is written is the one that is true, and a rollback takes it back as any promotion."""
    world = recorded.world
    await promotion_that_died(recorded, monkeypatch, parts=2)
    await recorded.reconcile()
    await recorded.nothing_under_way()
    died = world.book.change("edge-2")
    assert (died.outcome, died.moved, died.taken_back) == (Outcome.PROMOTED, 4, 0)
    assert set(world.serving().values()) == {"1.3.0"}
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_left_out_makes_no_promotion_a_half_one(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: its change died with every other gateway promoted, and all of them were taken back."""
    row = Quarantine(fleet="edge", gateway="gw-3", reason="no power", person="ana", since=datetime.now(UTC))
    recorded.ledger.set_quarantine(row)
    await promotion_that_died(recorded, monkeypatch, parts=2)
    await recorded.reconcile()
    await recorded.nothing_under_way()
    died = recorded.ledger.change("edge-2")
    assert (died.outcome, died.moved, died.taken_back) == (Outcome.PROMOTED, 3, 0)
    assert recorded.world.serving() == dict.fromkeys(GATEWAYS, "1.3.0") | {"gw-3": "1.1.6"}
    assert await recorded.bakes()


@pytest.mark.sweep
async def test_a_change_that_died_before_it_promoted_anything_is_not_watched_and_the_ring_before_it_is(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: its bake went on over nothing, and held the id by which promotions that stand are watched."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    await recorded.upgrade(("gw-1", "gw-2"))
    ring = world.newest
    await promotion_that_died(recorded, monkeypatch, ("gw-3", "gw-4"), parts=0)
    assert await watched_change(recorded) == world.newest != ring
    await recorded.reconcile()
    await until(lambda: world.serving()["gw-3"] == "1.1.6", SOON)
    await recorded.nothing_under_way()
    await not_watched(recorded)
    await recorded.reconcile()
    await until(recorded.bakes, SOON)
    assert await watched_change(recorded) == ring
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
async def test_a_bake_ends_by_itself_once_its_change_has_ended_without_a_promotion(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: it watches what the ledger calls promoted, whoever closed the change and whatever it was told."""
    await promotion_that_died(recorded, monkeypatch, ("gw-1", "gw-2"), parts=0)
    assert await recorded.bakes()
    died = recorded.world.newest
    recorded.ledger.close_change(
        ChangeEnding(change=died, outcome=Outcome.ROLLED_BACK, sentence="it ended in the middle")
    )
    await not_watched(recorded)


@pytest.mark.sweep
async def test_a_promotion_that_the_ledger_refuses_goes_back_and_is_not_watched(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: only the commands of operators ended its bake."""
    write = recorded.ledger.record_known_good_batch

    def refuses(batch: KnownGoodBatch) -> int:
        if batch.back:
            return write(batch)
        raise BadInput(f"{batch.change} is unknown")

    monkeypatch.setattr(recorded.ledger, "record_known_good_batch", refuses)
    assert (await recorded.upgrade()).outcome is Outcome.ROLLED_BACK
    assert set(recorded.world.serving().values()) == {"1.1.6"}
    await not_watched(recorded)


async def watched_change(recorded: Recorded) -> str:
    """Return the change whose promotion is watched."""
    order, _ = await began_with(recorded.world.client, "bake/edge", BakeOrder)
    return order.change


async def not_watched(recorded: Recorded) -> None:
    """Wait until no promotion is watched."""

    async def is_over() -> bool:
        return not await recorded.bakes()

    await until(is_over, SOON)


@pytest.mark.sweep
async def test_a_rollback_that_completes_a_lost_change_waits_for_no_dead_gateway_that_it_never_moved(
    recorded: Recorded,
) -> None:
    """R3: it brings every gateway to its known-good, and all of it waited for one that was dead before."""
    world = recorded.world
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2",))
    await until(lambda: world.serving()["gw-1"] == "1.3.0")
    await world.client.get_workflow_handle("change/edge").terminate("the engine lost it")
    world.gateways["gw-4"].fail("restore", Unavailable("gw-4 does not answer"), times=FOR_LONG)
    receipt = await recorded.roll_back()
    assert "edge-2 has not ended, which is completed first" in receipt.sentence
    assert set(world.serving().values()) == {"1.1.6"}
    back = recorded.ledger.change(world.newest)
    assert back.outcome is Outcome.ROLLED_BACK
    assert "not waited for, since no session had moved there: gw-4: gw-4 does not answer" in back.sentence


@pytest.mark.sweep
async def test_a_rollback_that_completes_a_lost_change_waits_for_each_gateway_that_it_has_moved(
    recorded: Recorded,
) -> None:
    world = recorded.world
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2",))
    await until(lambda: world.serving()["gw-1"] == "1.3.0")
    await world.client.get_workflow_handle("change/edge").terminate("the engine lost it")
    canary = world.gateways["gw-1"]
    canary.fail("restore", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    await recorded.service.roll_back(world.fleet, "ana", "users call")

    async def is_waited_for() -> bool:
        return (await recorded.status()).waits_for == ("gw-1",)

    await until(is_waited_for, SOON)
    canary.recover("restore")
    await recorded.everybody_on(OLD)
    assert recorded.ledger.change(world.newest).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_an_old_promotion_leaves_a_waiting_change_ended_and_says_what_to_name(
    recorded: Recorded,
) -> None:
    """A1: what a rollback did is in its receipt, also when nothing else can be taken back."""
    world = recorded.world
    await recorded.upgrade()
    world.judge.says(UNDECIDED)
    plan = world.plan(("gw-1",), ("gw-2",), release=NEXT)
    world.windows.answer = CLOSED
    waiting = await recorded.service.start(plan, "http://repository", "bea", "tonight")
    limits = world.fleet.limits.model_copy(update={"kept": timedelta(0)})
    fleet = world.fleet.model_copy(update={"limits": limits})
    receipt = await recorded.service.roll_back(fleet, "ana", "users call")
    assert receipt.accepted
    assert receipt.sentence.startswith(
        f"{waiting} has moved no session and ends. Nothing else is taken back:"
    )
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_a_canary_that_an_operator_turns_round_is_all_that_this_rollback_takes_back(
    recorded: Recorded,
) -> None:
    """A1: only a change that has moved no session is passed through to what stands under it."""
    world = recorded.world
    await recorded.upgrade()
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2",), release=NEXT)
    await in_phase(recorded.service._change("edge"), Phase.OBSERVING)
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_one_rollback_passes_through_a_lost_change_that_had_only_waited(recorded: Recorded) -> None:
    """Item 1: 1.3.0 is bad, 1.4.0 waits and the engine loses it: the operator types `rollback` once."""
    world = recorded.world
    await recorded.upgrade()
    world.windows.answer = CLOSED
    waiting = await recorded.start(("gw-1",), ("gw-2",), release=NEXT)
    await world.client.get_workflow_handle("change/edge").terminate("the engine lost it")
    receipt = await recorded.roll_back()
    assert receipt.sentence == (
        f"Rolling back: {waiting} has moved no session and ends; 1.3.0, promoted by edge-2, is taken back: "
        "gw-1, gw-2, gw-3, gw-4 will serve 1.1.6."
    )
    assert set(world.serving().values()) == {"1.1.6"}
    assert world.book.change(waiting).outcome is Outcome.ROLLED_BACK
    assert not (await recorded.roll_back()).accepted
