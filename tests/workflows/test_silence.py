"""Silence of penstock's own parts is missing evidence: nothing passes on it, operators are notified (C1)."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.common import RetryPolicy

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.fleet import Automation
from policies.model.plan import Strategy
from policies.model.verdict import Window
from policies.notices.changes import is_blind
from policies.notices.entries import UNWATCHED, WATCHED
from tests.fakes.control import HEALTHY, QUIET, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import Running, World, fleet_of, in_phase, result_of, say, status_of, working
from workflows import steps
from workflows.identities import bake_of
from workflows.watch import watch_of

AWAY = "the ledger does not answer"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are too old after a second, and slices fail at their first try."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=1))
    monkeypatch.setitem(steps.WATCH, "retry_policy", RetryPolicy(maximum_attempts=1))


async def needs(rollout: Running, *said: str) -> None:
    """Wait until the change needs an operator, for these reasons."""

    async def is_so() -> bool:
        asked = (await status_of(rollout)).needs_you or ""
        return all(one in asked for one in said)

    await until(is_so)


def is_written_as_blind(world: World) -> bool:
    """Whether the ledger says that the change is judged without metrics, for which operators are paged."""
    row = world.book.story(world.newest)
    return row is not None and is_blind(row.told)


async def test_a_wave_whose_watch_reads_nothing_is_held_and_paged_until_it_reads_again(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.fails = AWAY
    await needs(rollout, "nothing was read since", AWAY)
    await in_phase(rollout, Phase.HELD)
    await until(lambda: is_written_as_blind(world))
    world.judge.fails = ""
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_wave_whose_watch_does_not_report_is_held_and_nothing_it_said_before_counts(
    world: World,
) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.hangs = True
    await needs(rollout, "the watch over wave 1 has not reported since")
    await in_phase(rollout, Phase.HELD)
    world.judge.hangs = False
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.ROLL_BACK)
    await result_of(rollout)


@pytest.mark.sweep
async def test_while_a_wave_is_silent_others_start_only_where_nobody_is_on_trial(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wave whose first batch had failed alone stood still for ever: there was nothing to read any more."""
    fleet = fleet_of("edge", size=5, lease=timedelta(seconds=15), failures="50%", switching=1)
    world = World.made(await server.client(), fleet)
    slow, fetched = world.gateways["gw-3"], asyncio.Event()
    stage = slow.stage

    async def fetches(*of: Any) -> Any:
        await fetched.wait()
        return await stage(*of)

    def on_trial() -> set[str]:
        return {name for name, fake in world.gateways.items() if fake.trial is not None}

    monkeypatch.setattr(slow, "stage", fetches)
    world.judge.says(HEALTHY, wave=1)
    world.judge.says(UNDECIDED, wave=2)
    async with working(world):
        rollout = await world.start(("gw-1",), ("gw-2", "gw-3", "gw-4", "gw-5"))
        await until(lambda: on_trial() == {"gw-2"})
        world.judge.fails = AWAY
        await needs(rollout, AWAY)
        fetched.set()
        await until(lambda: on_trial() == {"gw-2", "gw-3"})
        await asyncio.sleep(2)  # gw-4 would start at once
        assert on_trial() == {"gw-2", "gw-3"}
        for name in ("gw-2", "gw-3"):
            world.gateways[name].crash(world.gateways[name].trial or "")
        await until(lambda: on_trial() == {"gw-4"})
        world.judge.fails = ""
        world.judge.says(HEALTHY, wave=2)
        result = await result_of(rollout)
    assert (result.outcome, sorted(result.aside)) == (Outcome.PROMOTED, ["gw-2", "gw-3"])


@pytest.mark.sweep
async def test_no_share_of_users_grows_while_nothing_is_read(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=2, lease=timedelta(seconds=15)))
    world.judge.fails = AWAY
    async with working(world):
        rollout = await in_shares(world, (10, 50, 100))
        await needs(rollout, AWAY)
        assert {fake.share for fake in world.gateways.values()} == {10}
        world.judge.fails = ""
        world.judge.says(UNDECIDED)
        await until(lambda: {fake.share for fake in world.gateways.values()} == {50})
        await say(rollout, CommandKind.ROLL_BACK)
        await result_of(rollout)


@pytest.mark.sweep
async def test_an_observed_wave_does_not_pass_by_time_while_nothing_is_read(server: Engine) -> None:
    fleet = fleet_of("edge", size=2, lease=timedelta(seconds=15), automation=Automation.OBSERVE)
    world = World.made(await server.client(), fleet)
    world.judge.fails = AWAY
    async with working(world):
        rollout = await in_shares(world, (100,))
        await needs(rollout, AWAY)
        await in_phase(rollout, Phase.HELD)
        world.judge.fails = ""
        world.judge.says(UNDECIDED)
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def in_shares(world: World, shares: tuple[int, ...]) -> Running:
    """Start an upgrade of both gateways by these shares, each of which is watched for an instant at least."""
    order = world.order(("gw-1", "gw-2"))
    plan = world.book.plan(order.plan or "")
    wave = plan.waves[0].model_copy(update={"shares": shares})
    strategy = Strategy.BLUE_GREEN if len(shares) > 1 else Strategy.CANARY
    window = Window(minimum=timedelta(seconds=0.5), nominal=timedelta(seconds=10))
    changed = {"strategy": strategy, "waves": (wave,), "window": window}
    digest = world.book.record_plan(plan.model_copy(update=changed))
    return await world.run(order.model_copy(update={"plan": digest}))


@pytest.mark.sweep
async def test_a_bake_that_reads_nothing_pages_operators_and_does_not_end_in_peace(server: Engine) -> None:
    fleet = fleet_of("edge", size=1, kept=timedelta(seconds=6), lease=timedelta(seconds=15))
    world = World.made(await server.client(), fleet)
    world.judge.says(QUIET, wave=0)
    async with working(world):
        await world.upgrade(("gw-1",))
        await until(lambda: bool(world.judge.bakes))
        world.judge.fails = AWAY
        ended = await result_of(world.client.get_workflow_handle(bake_of("edge")))
    assert (ended["peaceful"], AWAY in ended["reason"]) == (False, True)
    assert actions(world).count(UNWATCHED) == 1


@pytest.mark.sweep
async def test_a_bake_that_reads_again_ends_the_page_that_it_read_nothing(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    world.judge.fails = AWAY
    await until(lambda: UNWATCHED in actions(world))
    world.judge.fails = ""
    await until(lambda: WATCHED in actions(world))


@pytest.mark.sweep
@pytest.mark.parametrize("watched", ["wave", "bake"])
async def test_a_watch_that_is_lost_is_begun_again_and_no_release_is_blamed(
    world: World, watched: str
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    if watched == "wave":
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1",))
        await in_phase(rollout, Phase.OBSERVING)
        await world.client.get_workflow_handle(watch_of(f"change/edge/{world.newest}/wave/001")).terminate()
        looks = len(world.judge.orders)
        await until(lambda: len(world.judge.orders) > looks + 1)
        world.judge.says(HEALTHY)
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        return
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    await world.client.get_workflow_handle(watch_of(bake_of("edge"))).terminate()
    looks = len(world.judge.bakes)
    await until(lambda: len(world.judge.bakes) > looks + 1)


def actions(world: World) -> list[str]:
    """Return what the audit record says happened."""
    return [action for action, _, _ in world.book.events.values()]


@pytest.mark.sweep
@pytest.mark.parametrize("lost", ["its evidence", "the watch"])
async def test_harm_that_operators_decide_about_stays_proposed_when_its_evidence_is_lost(
    server: Engine, lost: str
) -> None:
    """R7: the deployment of another version cannot read the window, or the engine lost the watch."""
    fleet = fleet_of("edge", lease=timedelta(seconds=15), automation=Automation.ASK)
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(UNHEALTHY)
        rollout = await world.start(("gw-1",))
        await needs(rollout, UNHEALTHY.reason)
        looks = len(world.judge.orders)
        world.judge.says(HEALTHY)
        if lost == "the watch":
            await world.client.get_workflow_handle(
                watch_of(f"change/edge/{world.newest}/wave/001")
            ).terminate()
        await until(lambda: len(world.judge.orders) > looks + 1)
        await say(rollout, CommandKind.ROLL_BACK)
        result = await result_of(rollout)
    assert (result.outcome, result.decision) == (Outcome.ROLLED_BACK, UNHEALTHY)
