"""What an operator steered on a host is a fact, which reconcile never undoes (A5)."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from activities.facts import FactActivities, Strays
from policies.model.change import PENSTOCK, Outcome, Phase, Quarantine
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.operation import BREAK_GLASS
from policies.notices.entries import NOT_TAKEN_BACK, STEERED_BY_HAND, TAKEN_BACK
from policies.planning.cohorts import LEFT_OUT
from policies.rollback import kept_slot
from tests.fakes.control import CRASHING, HEALTHY, OPEN, PASSED, QUIET, UNDECIDED, UNHEALTHY
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.test_failed_alone import away, said, told
from tests.workflows.test_passed_waves import second_wave_that
from tests.workflows.world import NEW, NEXT, OLD, World, in_phase, reconcile, result_of, say, status_of
from workflows import steps
from workflows.restore import RETURN_ENDED


async def steered_back(fake: FakeGateway, ago: float = 0.0) -> None:
    """Do what `penstock agent break-glass --back` did so many seconds ago, while the old instance runs."""
    old = fake.slots["a"]
    old.state, old.release = type(old.state).RUNNING, OLD
    slot = kept_slot(await fake.observe())
    epoch = int((time.time() - ago) * 1000)
    fake.serving, fake.trial, fake.owner = slot, None, (epoch, BREAK_GLASS)


async def test_a_gateway_that_an_operator_steered_back_stays_there_is_quarantined_and_pages(
    world: World,
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"])
    effects = list(world.gateways["gw-1"].effects)
    found = await reconcile(world)
    again = await reconcile(world)
    assert (found.strays, again.strays) == ({}, {})
    assert "left alone" in found.sentence
    assert world.gateways["gw-1"].effects == effects
    assert world.serving()["gw-1"] == "1.1.6"
    [left_out] = world.book.quarantined("edge")
    assert (left_out.gateway, left_out.person) == ("gw-1", BREAK_GLASS)
    assert "break-glass" in left_out.reason
    assert [one for one, _, _ in world.book.events.values()].count(STEERED_BY_HAND) == 1


@pytest.mark.sweep
@pytest.mark.parametrize("word", ["quarantine", "return"])
async def test_what_an_operator_says_while_reconcile_looks_stands_and_nobody_is_paged(
    world: World, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """The row of break-glass replaced it, and ended while the operator still worked on the gateway."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"])
    find, said = FactActivities._find_strays, list[str]()

    def and_then_an_operator(self: FactActivities, fleet: str) -> Strays:
        found = find(self, fleet)
        if found.by_hand and not said:
            said.append(word)
            if word == "return":
                world.book.hand_over("edge", {"gw-1": "returned"}, "ana", "fine again")
            else:
                own = {"reason": "we mend its power", "person": "ana", "since": datetime.now(UTC)}
                world.book.set_quarantine(
                    Quarantine.model_validate({"fleet": "edge", "gateway": "gw-1", **own})
                )
        return found

    monkeypatch.setattr(FactActivities, "_find_strays", and_then_an_operator)
    found = await reconcile(world)
    assert (said, found.strays) == ([word], {})
    [left_out] = world.book.quarantined("edge")
    assert (left_out.person, left_out.handed_over) == (
        ("penstock", True) if word == "return" else ("ana", False)
    )
    assert STEERED_BY_HAND not in [one for one, _, _ in world.book.events.values()]


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_returns_after_break_glass_goes_to_its_known_good(
    world: World,
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"], ago=200)
    # `gateway return` hands it over to penstock, which tries it after a minute.
    handed_over = datetime.now(UTC) - timedelta(seconds=90)
    row = Quarantine(fleet="edge", gateway="gw-1", reason="returned", person=PENSTOCK, since=handed_over)
    world.book.set_quarantine(row.model_copy(update={"handed_over": True}))
    await reconcile(world)
    await until(lambda: world.serving()["gw-1"] == "1.3.0")


@pytest.mark.sweep
async def test_break_glass_that_an_operator_uses_during_a_rollback_wins_over_it(world: World) -> None:
    """R9: the rollback goes on with the other gateways, and names that one."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    fake = world.gateways["gw-1"]
    fake.fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
    rollback = await world.go_back()
    await until(lambda: {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.1.6"})
    fake.owner = (int(time.time() * 1000), BREAK_GLASS)
    fake.recover("restore")
    result = await result_of(rollback)
    assert (result.outcome, list(result.incomplete)) == (Outcome.ROLLBACK_INCOMPLETE, ["gw-1"])
    assert result.incomplete["gw-1"].startswith("an operator steered it by break-glass at ")
    assert world.serving()["gw-1"] == "1.3.0"
    assert fake.owner[1] == BREAK_GLASS


@pytest.mark.sweep
async def test_a_rollback_that_is_asked_for_after_break_glass_takes_that_gateway_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: whatever the clock of its host says."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    fake = world.gateways["gw-1"]
    fake.owner = (int((time.time() + 240) * 1000), BREAK_GLASS)
    monkeypatch.setattr(fake, "now", lambda: datetime.now(UTC) + timedelta(minutes=5))
    result = await result_of(await world.go_back())
    assert (result.outcome, set(world.serving().values())) == (Outcome.ROLLED_BACK, {"1.1.6"})


# Whatever penstock begins by itself leaves that gateway alone and names it.

FAILED = QUIET.model_copy(update={"failed": ("gw-1",)})


def steered_to_new(fake: FakeGateway) -> tuple[list[str], tuple[int, str]]:
    """Do what `penstock agent break-glass --slot` did just now; return what is to stay so."""
    fake.serving, fake.trial = next(name for name, held in fake.slots.items() if held.release == NEW), None
    fake.owner = (int(time.time() * 1000), BREAK_GLASS)
    return list(fake.effects), fake.owner


def as_steered(fake: FakeGateway) -> tuple[list[str], tuple[int, str]]:
    return list(fake.effects), fake.owner


async def promoted(world: World) -> FakeGateway:
    world.judge.says(UNDECIDED, wave=0)
    assert (await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))).outcome is Outcome.PROMOTED
    await until(lambda: bool(world.judge.bakes))
    return world.gateways["gw-1"]


@pytest.mark.sweep
@pytest.mark.parametrize("is_noticed", [False, True])
async def test_a_gateway_that_failed_alone_is_not_taken_back_once_an_operator_steered_it(
    world: World, monkeypatch: pytest.MonkeyPatch, is_noticed: bool
) -> None:
    """R9: the watch over its promotion ordered it within seconds, before reconcile had seen it."""
    monkeypatch.setattr("workflows.failed_alone.REST", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    fake = await promoted(world)
    await steered_back(fake)
    before = as_steered(fake)
    if is_noticed:
        await reconcile(world)
    changes = world.newest
    world.judge.after[changes] = FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    assert "an operator steered it by break-glass at " in said(world, NOT_TAKEN_BACK)
    assert "penstock gateway return edge gw-1 --reason TEXT" in said(world, NOT_TAKEN_BACK)
    assert (as_steered(fake), world.serving()["gw-1"]) == (before, "1.1.6")
    assert (world.newest, world.book.known_good("edge")["gw-1"]) == (changes, NEW)
    found = await reconcile(world)
    assert (found.strays, as_steered(fake)) == ({}, before)


@pytest.mark.sweep
async def test_a_gateway_that_failed_alone_goes_back_once_its_operator_has_returned_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.failed_alone.REST", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    fake = await promoted(world)
    steered_to_new(fake)
    world.judge.after[world.newest] = FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    row = Quarantine(
        fleet="edge", gateway="gw-1", reason="returned", person=PENSTOCK, since=datetime.now(UTC)
    )
    world.book.set_quarantine(row.model_copy(update={"handed_over": True}))
    await until(lambda: world.serving()["gw-1"] == "1.1.6")
    await until(lambda: TAKEN_BACK in told(world))


@pytest.mark.sweep
async def test_harm_after_the_promotion_takes_back_all_but_what_an_operator_steered(world: World) -> None:
    fake = await promoted(world)
    before = steered_to_new(fake)
    world.judge.after[world.newest] = CRASHING
    await until(lambda: world.book.closed[-1].outcome is Outcome.ROLLBACK_INCOMPLETE)
    assert {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.1.6"}
    assert (as_steered(fake), world.serving()["gw-1"]) == (before, "1.3.0")
    assert world.book.known_good("edge")["gw-1"] == OLD  # what an operator returns it to
    await reconcile(world)
    assert "penstock gateway return edge gw-1 --reason TEXT" in said(world, STEERED_BY_HAND)
    assert as_steered(fake) == before


@pytest.mark.sweep
async def test_an_upgrade_that_goes_back_by_itself_leaves_what_an_operator_steered(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING)
    fake = world.gateways["gw-1"]
    before = steered_to_new(fake)
    world.judge.says(UNHEALTHY)
    result = await result_of(rollout)
    assert (result.outcome, list(result.incomplete)) == (Outcome.ROLLBACK_INCOMPLETE, ["gw-1"])
    assert "penstock gateway return edge gw-1 --reason TEXT" in result.incomplete["gw-1"]
    assert (as_steered(fake)[1], world.serving()["gw-1"]) == (before[1], "1.3.0")
    assert world.serving()["gw-2"] == "1.1.6"


@pytest.mark.sweep
async def test_an_upgrade_that_goes_back_takes_a_gateway_for_back_that_its_operator_steered_back(
    world: World,
) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING)
    fake = world.gateways["gw-1"]
    await steered_back(fake)
    before = as_steered(fake)
    world.judge.says(UNHEALTHY)
    result = await result_of(rollout)
    assert (result.outcome, result.incomplete) == (Outcome.ROLLED_BACK, {})
    await until(lambda: "stop b" in world.gateways["gw-2"].effects)
    assert (as_steered(fake), set(world.serving().values())) == (before, {"1.1.6"})


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_after_its_wave_stays_as_an_operator_steered_it(
    world: World,
) -> None:
    """Its restore holds no lock: it gave way, and nothing named the gateway."""
    await second_wave_that(world, "its window")
    fake = world.gateways["gw-1"]
    before = steered_to_new(fake)
    world.judge.says(FAILED, wave=PASSED)
    await until(lambda: RETURN_ENDED in told(world))
    assert "penstock gateway return edge gw-1 --reason TEXT" in said(world, RETURN_ENDED)
    assert (as_steered(fake), world.serving()["gw-1"]) == (before, "1.3.0")


@pytest.mark.sweep
@pytest.mark.parametrize("question", ["its host", "the ledger"])
async def test_a_gateway_gets_no_order_before_it_is_certain_that_no_operator_steered_it(
    world: World, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """One look that was not answered was enough for break-glass to be undone."""
    fake = world.gateways["gw-1"]
    fake.serve(NEW, "b")
    before = steered_to_new(fake)
    if question == "its host":
        fake.fail("observe", Unavailable("gw-1 does not answer"), times=10_000)
    else:
        asked, is_back = away(world, "quarantined", monkeypatch)
    rollback = await world.restore("gw-1")
    if question == "its host":
        await until(lambda: [one.gateway for one in world.book.quarantined("edge")] == ["gw-1"])
        fake.recover("observe")
    else:
        await until(lambda: len(asked) > 1)
        is_back()
    result = await result_of(rollback)
    assert list(result.given_up) == ["gw-1"]
    assert as_steered(fake) == before


@pytest.mark.sweep
async def test_a_gateway_that_penstock_itself_left_out_after_break_glass_was_returned_by_no_operator(
    world: World,
) -> None:
    """A rollback that found its agent silent said so, which was read as an operator's return."""
    fake = world.gateways["gw-1"]
    fake.serve(NEW, "b")
    steered_to_new(fake)
    fake.owner = (fake.owner[0] - 200_000, BREAK_GLASS)
    before = as_steered(fake)
    since = datetime.now(UTC) - timedelta(seconds=90)
    row = Quarantine(fleet="edge", gateway="gw-1", reason="it is silent", person=PENSTOCK, since=since)
    world.book.set_quarantine(row)
    found = await reconcile(world)
    assert (found.strays, as_steered(fake)) == ({}, before)
    assert "left alone" in found.sentence


@pytest.mark.sweep
async def test_an_upgrade_does_not_begin_with_a_gateway_that_an_operator_steered_after_its_plan(
    world: World,
) -> None:
    """It may wait for its window for days; break-glass of the last seconds is in no quarantine yet."""
    fake = await promoted(world)
    order = world.order(("gw-1", "gw-2"), ("gw-3", "gw-4"), release=NEXT)
    await steered_back(fake)
    before = as_steered(fake)
    await result_of(await world.run(order))
    assert (as_steered(fake), world.serving()["gw-1"]) == (before, "1.1.6")
    assert {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.4.0"}


# What an operator steered back after its wave had passed keeps the known-good that it had.


@pytest.mark.sweep
@pytest.mark.parametrize("waits_for", ["its window", "its verdict"])
async def test_a_gateway_that_an_operator_steered_back_after_its_wave_is_left_out_of_the_upgrade(
    world: World, waits_for: str
) -> None:
    running = await second_wave_that(world, waits_for)
    await steered_back(world.gateways["gw-1"])
    owner = world.gateways["gw-1"].owner
    await reconcile(world)

    async def is_left_out() -> bool:
        return "gw-1" in (await status_of(running)).aside

    await until(is_left_out)
    assert (await status_of(running)).aside["gw-1"].startswith("an operator steered it by break-glass at ")
    [row] = world.book.gateways_of(world.newest, LEFT_OUT)
    assert (row.gateway, row.wave) == ("gw-1", 1)
    await reconcile(world)
    assert list((await status_of(running)).aside) == ["gw-1"]
    world.windows.answer = OPEN
    world.judge.says(HEALTHY, wave=2)
    result = await result_of(running)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-1"])
    assert world.book.known_good("edge") == {"gw-1": OLD, "gw-2": NEW, "gw-3": NEW, "gw-4": NEW}
    assert (world.serving()["gw-1"], world.gateways["gw-1"].owner) == ("1.1.6", owner)


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_steered_back_just_before_the_promotion_is_not_promoted(
    world: World,
) -> None:
    """Reconcile has not seen it yet: whoever runs the release is asked before known-good moves."""
    running = await second_wave_that(world, "its verdict")
    await steered_back(world.gateways["gw-1"])
    world.judge.says(HEALTHY, wave=2)
    result = await result_of(running)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-1"])
    assert world.book.known_good("edge") == {"gw-1": OLD, "gw-2": NEW, "gw-3": NEW, "gw-4": NEW}
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_gateway_is_left_out_after_its_wave_only_where_its_host_says_that_it_was_steered(
    world: World,
) -> None:
    """The ledger may know it as it was before the upgrade; and one steered to the release runs that."""
    running = await second_wave_that(world, "its verdict")
    steered_to_new(world.gateways["gw-2"])
    await running.signal("taken_off", args=[world.newest, {"gw-1": 1, "gw-2": 2}])
    world.judge.says(HEALTHY, wave=2)
    result = await result_of(running)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    assert set(world.book.known_good("edge").values()) == {NEW}


@pytest.mark.sweep
async def test_a_first_wave_of_which_nobody_is_left_waits_for_operators_and_says_so(world: World) -> None:
    world.judge.says(UNDECIDED)
    running = await world.start(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await in_phase(running, Phase.OBSERVING)
    await steered_back(world.gateways["gw-1"])
    await in_phase(running, Phase.HELD)
    status = await status_of(running)
    assert status.why.startswith("no gateway of wave 1 runs the release, so nothing shows how it does there")
    assert "gw-1: an operator steered it by break-glass" in status.why
    for person in ("ben", "cleo"):
        await say(running, CommandKind.PROMOTE, person)
    result = await result_of(running)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-1"])
    assert world.book.known_good("edge") == {"gw-1": OLD, "gw-2": NEW, "gw-3": NEW, "gw-4": NEW}


# A gateway is left out for what an operator steered on its host only as long as it is off its known-good.


async def left_out_after_break_glass(world: World) -> FakeGateway:
    """Promote 1.3.0 and steer gw-1 back to 1.1.6 on its host, which reconcile has seen."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"])
    await reconcile(world)
    [row] = world.book.quarantined("edge")
    assert "it runs a release that is not its known-good 1.3.0" in row.reason
    return world.gateways["gw-1"]


def returned_by(world: World) -> list[tuple[str, str]]:
    return [
        (entry.person, entry.subject)
        for entry in world.book.audit_entries()
        if entry.action == "gateway returned"
    ]


@pytest.mark.sweep
async def test_a_rollback_that_takes_a_gateway_along_ends_its_quarantine_for_break_glass(
    world: World,
) -> None:
    """`status` went on asking for the rollback that had just been done, for ever."""
    await left_out_after_break_glass(world)
    result = await result_of(await world.go_back())
    assert (result.outcome, world.book.known_good("edge")["gw-1"]) == (Outcome.ROLLED_BACK, OLD)
    assert world.serving()["gw-1"] == "1.1.6"
    assert world.book.quarantined("edge") == ()
    assert returned_by(world) == [(PENSTOCK, "edge/gw-1")]
    found = await reconcile(world)
    assert (found.strays, world.book.quarantined("edge")) == ({}, ())


@pytest.mark.sweep
async def test_a_gateway_that_its_operator_steers_to_its_known_good_again_takes_part_again(
    world: World,
) -> None:
    fake = await left_out_after_break_glass(world)
    steered_to_new(fake)
    before = as_steered(fake)
    await reconcile(world)
    assert world.book.quarantined("edge") == ()
    assert (returned_by(world), as_steered(fake)) == ([(PENSTOCK, "edge/gw-1")], before)


@pytest.mark.sweep
async def test_a_silent_gateway_stays_left_out_after_break_glass_whatever_it_answered_before(
    world: World,
) -> None:
    """R7: the rollback moves its known-good to what it served, and its host has not answered since."""
    fake = await left_out_after_break_glass(world)
    [row] = world.book.quarantined("edge")
    for step in ("observe", "restore"):
        fake.fail(step, Unavailable("gw-1 does not answer"), times=10_000)
    await world.go_back()
    await until(lambda: {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.1.6"})
    await reconcile(world)
    assert world.book.quarantined("edge") == (row,)
    assert returned_by(world) == []


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_quarantined_after_break_glass_stays_left_out(world: World) -> None:
    fake = await left_out_after_break_glass(world)
    own = Quarantine(fleet="edge", gateway="gw-1", reason="bad disk", person="ana", since=datetime.now(UTC))
    world.book.set_quarantine(own)
    steered_to_new(fake)
    await reconcile(world)
    assert [(one.person, one.reason) for one in world.book.quarantined("edge")] == [("ana", "bad disk")]
