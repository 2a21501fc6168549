"""A way back ends a dead upgrade only where it brings back every gateway that the upgrade changed (R1).

An upgrade is dead when its workflow is gone and its row in the ledger has no end. A gateway of it that does
not answer may serve its release: silence is never evidence that a gateway is back.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from orchestrator.service.quarantine import QuarantineService
from policies.model.change import Outcome, Phase
from policies.model.errors import Unavailable
from tests.fakes.control import CRASHING, HEALTHY, QUIET, UNDECIDED
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded
from tests.workflows.test_incomplete_ends_completed import a_minute_passes
from tests.workflows.test_relapses import let_pass
from tests.workflows.test_rollback_facts import GATEWAYS, not_watched, promotion_that_died
from tests.workflows.test_way_back_holds_nothing_up import only_waits_for
from tests.workflows.world import NEXT, OLD, in_phase, result_of
from workflows import steps

LONG = 10_000
"""Calls that a silent gateway does not answer."""

GW_2_FAILED = QUIET.model_copy(update={"failed": ("gw-2",)})


async def dead_upgrade(recorded: Recorded) -> str:
    """Promote 1.3.0 on two gateways, bring 1.4.0 to a third one, and have the engine lose that upgrade."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    await recorded.upgrade(("gw-1", "gw-2"))
    await until(lambda: bool(world.judge.bakes))
    world.judge.says(HEALTHY, wave=1)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-3",), ("gw-4",), release=NEXT)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    name = world.newest
    await rollout.terminate("the engine lost it")
    return name


async def gateway_fails_alone(recorded: Recorded) -> None:
    """Have gw-2 fail by itself on the release that was promoted there, and return once it is back."""
    recorded.world.judge.after["edge-2"] = GW_2_FAILED
    await until(lambda: recorded.world.serving()["gw-2"] == "1.1.6", SOON)
    await recorded.nothing_under_way()


async def harm_is_found(recorded: Recorded) -> None:
    """Have the bake find harm in what was promoted, and return once that is taken back."""
    recorded.world.judge.after["edge-2"] = CRASHING
    await until(lambda: recorded.world.serving()["gw-1"] == "1.1.6", SOON)
    await recorded.nothing_under_way()


async def operator_returns_one(recorded: Recorded) -> None:
    """Have an operator take a gateway back of which the dead upgrade has nothing."""
    await result_of(await recorded.world.go_back("gw-2"))


@pytest.mark.sweep
@pytest.mark.parametrize("goes_back", [gateway_fails_alone, harm_is_found, operator_returns_one])
async def test_a_way_back_of_other_gateways_leaves_a_dead_upgrade_to_reconcile(
    recorded: Recorded, goes_back: Callable[[Recorded], Awaitable[None]]
) -> None:
    """The ledger said that the upgrade had its gateways back, and gw-3 served 1.4.0."""
    world = recorded.world
    dead = await dead_upgrade(recorded)
    await goes_back(recorded)
    assert world.book.change(dead).outcome is None
    stays = {name: world.serving()[name] for name in ("gw-1", "gw-2")}
    await recorded.reconcile()
    await until(lambda: world.book.change(dead).outcome is not None, SOON)
    assert world.book.change(dead).sentence == (
        f"it ended in the middle; {world.newest} brought its gateways back"
    )
    assert world.serving() == stays | {"gw-3": "1.1.6", "gw-4": "1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_takes_a_dead_upgrade_back_after_one_gateway_of_another_promotion_failed_alone(
    recorded: Recorded,
) -> None:
    """It took the good 1.3.0 back from gw-1 instead, and gw-3 stayed on 1.4.0."""
    world = recorded.world
    dead = await dead_upgrade(recorded)
    await gateway_fails_alone(recorded)
    receipt = await recorded.roll_back()
    assert f"{dead} has not ended, which is completed first" in receipt.sentence
    assert world.serving() == dict.fromkeys(GATEWAYS, "1.1.6") | {"gw-1": "1.3.0"}
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_half_a_promotion_is_taken_back_as_a_whole_after_one_gateway_of_it_failed_alone(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was closed as incomplete, and gw-1 stayed on the release without a bake."""
    world = recorded.world
    await promotion_that_died(recorded, monkeypatch, parts=1)
    await until(lambda: bool(world.judge.bakes))
    await gateway_fails_alone(recorded)
    assert world.book.change("edge-2").outcome is None
    await recorded.reconcile()
    await recorded.everybody_on(OLD)
    await until(lambda: world.book.change("edge-2").outcome is Outcome.ROLLED_BACK, SOON)
    assert world.book.known_good("edge") == dict.fromkeys(GATEWAYS, OLD)
    await not_watched(recorded)


@pytest.mark.sweep
async def test_a_whole_promotion_stays_after_its_upgrade_died_and_one_gateway_of_it_failed_alone(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gateway that returns alone leaves the others on the release, watched, whoever writes the end."""
    world = recorded.world
    await promotion_that_died(recorded, monkeypatch, parts=2)
    await until(lambda: bool(world.judge.bakes))
    await gateway_fails_alone(recorded)
    await recorded.reconcile()
    await recorded.nothing_under_way()
    died = world.book.change("edge-2")
    assert (died.outcome, died.moved, died.taken_back) == (Outcome.PROMOTED, 4, 1)
    assert died.sentence == "every gateway was promoted to 1.3.0; only its end was not written"
    assert world.serving() == dict.fromkeys(GATEWAYS, "1.3.0") | {"gw-2": "1.1.6"}
    assert await recorded.bakes()


@pytest.fixture
def short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent gateways are asked for a second, and returns of penstock try for two."""
    monkeypatch.setitem(steps.SURVEY, "schedule_to_close_timeout", timedelta(seconds=1))
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=2))


def falls_silent(recorded: Recorded, name: str) -> None:
    """Have a gateway answer no step while its users are served."""
    for step in ("observe", "restore"):
        recorded.world.gateways[name].fail(step, Unavailable(f"{name} does not answer"), times=LONG)


def answers_again(recorded: Recorded, name: str) -> None:
    for step in ("observe", "restore"):
        recorded.world.gateways[name].recover(step)


async def dead_upgrade_with_a_silent_gateway(recorded: Recorded) -> str:
    """Return a dead upgrade of which penstock brought gw-4 back, and tried the silent gw-3 once."""
    world = recorded.world
    dead = await dead_upgrade(recorded)
    falls_silent(recorded, "gw-3")
    await recorded.reconcile()
    await recorded.nothing_under_way()
    await until(lambda: world.book.change("edge-4").outcome is not None, SOON)
    assert world.serving() == dict.fromkeys(("gw-1", "gw-2"), "1.3.0") | {"gw-3": "1.4.0", "gw-4": "1.1.6"}
    return dead


@pytest.mark.sweep
@pytest.mark.usefixtures("short_tries")
async def test_a_rollback_takes_a_dead_upgrade_back_whose_gateway_was_silent_while_the_others_came_back(
    recorded: Recorded,
) -> None:
    """The upgrade was closed as rolled back, and the rollback took 1.3.0 from users in the place of 1.4.0."""
    world = recorded.world
    dead = await dead_upgrade_with_a_silent_gateway(recorded)
    assert world.book.change(dead).outcome is None
    returned = world.book.change("edge-4")
    assert returned.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert "1 gateway is back; not back: gw-3: " in returned.sentence
    answers_again(recorded, "gw-3")
    receipt = await recorded.roll_back()
    assert f"{dead} has not ended, which is completed first" in receipt.sentence
    assert world.serving() == dict.fromkeys(("gw-1", "gw-2"), "1.3.0") | dict.fromkeys(
        ("gw-3", "gw-4"), "1.1.6"
    )
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
@pytest.mark.usefixtures("short_tries")
async def test_a_silent_gateway_of_a_dead_upgrade_is_named_takes_the_lock_once_and_comes_back_once_it_answers(
    recorded: Recorded,
) -> None:
    world = recorded.world
    dead = await dead_upgrade_with_a_silent_gateway(recorded)
    why = f"brought back later: gw-3 has not reported since {dead} changed it; "
    assert (await recorded.reconcile()).sentence.startswith(f"{why}the next try is at ")
    let_pass(world, timedelta(hours=2))
    assert (await recorded.reconcile()).sentence == f"{why}it is brought back once it answers"
    assert (world.newest, world.book.open_changes("edge")) == ("edge-4", (dead,))
    answers_again(recorded, "gw-3")
    assert (await recorded.reconcile()).sentence == "bringing back: gw-3"
    await until(lambda: world.book.change(dead).outcome is not None, SOON)
    assert world.book.change(dead).sentence == (
        f"it ended in the middle; {world.newest} brought its gateways back"
    )
    assert world.serving()["gw-3"] == "1.1.6"


@pytest.mark.sweep
@pytest.mark.usefixtures("short_tries")
async def test_a_dead_upgrade_ends_without_the_silent_gateway_that_an_operator_quarantined_and_names_it(
    recorded: Recorded,
) -> None:
    """What an operator looks after keeps no row open. It was closed as rolled back, and gw-3 served 1.4.0."""
    world = recorded.world
    dead = await dead_upgrade_with_a_silent_gateway(recorded)
    quarantine = QuarantineService(recorded.service)
    await quarantine.leave_out(world.fleet, ("gw-3",), "ana", "its host is gone")
    await recorded.reconcile()
    await until(lambda: world.book.open_changes("edge") == (), SOON)
    ended = world.book.change(dead)
    assert (ended.outcome, world.serving()["gw-3"]) == (Outcome.ROLLBACK_INCOMPLETE, "1.4.0")
    assert ended.sentence.endswith("; not back: gw-3: in quarantine by ana: its host is gone")
    answers_again(recorded, "gw-3")
    await quarantine.take_in(world.fleet, ("gw-3",), "ana", "it has power")
    await a_minute_passes(recorded)
    await recorded.reconcile()
    await until(lambda: world.serving()["gw-3"] == "1.1.6", SOON)
    await recorded.nothing_under_way()
    await recorded.reconcile()
    ended = world.book.change(dead)
    assert ended.outcome is Outcome.ROLLED_BACK
    assert "not back" not in ended.sentence
    assert "; gw-3, gw-4 were brought back since: seen on their known-good at " in ended.sentence


@pytest.mark.sweep
@pytest.mark.usefixtures("short_tries")
async def test_a_rollback_of_a_dead_upgrade_waits_for_its_silent_gateway_and_brings_it_back(
    recorded: Recorded,
) -> None:
    world = recorded.world
    dead = await dead_upgrade_with_a_silent_gateway(recorded)
    receipt = await recorded.service.roll_back(world.fleet, "ana", "users call")
    assert f"{dead} has not ended, which is completed first" in receipt.sentence
    await only_waits_for(recorded, "gw-3")
    assert world.book.change(dead).outcome is None
    answers_again(recorded, "gw-3")
    await recorded.nothing_under_way()
    assert world.serving()["gw-3"] == "1.1.6"
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.3.0"
