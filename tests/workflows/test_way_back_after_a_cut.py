"""A way back covers all that its change has moved and promoted, however its history was cut or it ended."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus

from policies.model.change import ChangeRecord, KnownGoodBatch, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.fleet import Automation
from policies.model.report import WatchReport
from tests.fakes.control import CLOSED, CRASHING
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON
from tests.workflows.test_last_look import of_waves
from tests.workflows.world import NEW, OLD, World, reconcile, result_of, working
from workflows.bake import Bake, BakeOrder
from workflows.change import Change, ChangeRun
from workflows.identities import bake_of
from workflows.steps import CONTROL_QUEUE

ORDERED = Command(id="back", kind=CommandKind.ROLL_BACK, person="on call", reason="users call")


async def cut_between_two_parts(server: Engine) -> tuple[World, ChangeRun]:
    """Return a fleet of which the first part is promoted, and the run that promotes the second."""
    world, run = await of_waves(server, [("gw-1", "gw-2"), ("gw-3", "gw-4")])
    cut = run.continued
    assert cut is not None
    world.book.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=cut.name, releases=dict.fromkeys(("gw-1", "gw-2"), NEW))
    )
    told = cut.told.model_copy(update={"promoting": True, "phase": Phase.PROMOTING})
    continued = cut.model_copy(update={"promoted": 1, "told": told})
    return world, run.model_copy(update={"continued": continued})


@pytest.mark.parametrize(
    ("signal", "arguments"),
    [("command_fallback", lambda _: [ORDERED]), ("harm", lambda change: ["daemons crash", change])],
    ids=["a rollback", "harm"],
)
async def test_what_ends_a_promotion_in_the_first_task_after_a_cut_takes_the_promoted_parts_back(
    server: Engine, signal: str, arguments: Callable[[str], list[object]]
) -> None:
    """It ended as rolled back, and reconcile returned the promoted gateways to the bad release."""
    world, run = await cut_between_two_parts(server)
    assert run.continued is not None
    assert run.order.plan is not None
    change = run.continued.name
    async with working(world):
        watch = await world.client.start_workflow(
            Bake.run,
            BakeOrder(
                change=change,
                plan=run.order.plan,
                fleet="edge",
                kept=timedelta(hours=1),
                automation=Automation.ACT,
            ),
            id=bake_of("edge"),
            task_queue=CONTROL_QUEUE,
        )
        running = await world.client.start_workflow(
            Change.run,
            run,
            id="change/edge",
            task_queue=CONTROL_QUEUE,
            start_signal=signal,
            start_signal_args=arguments(change),
        )
        assert (await result_of(running)).outcome is Outcome.ROLLED_BACK
        assert (await watch.describe()).status is not WorkflowExecutionStatus.RUNNING
        assert world.book.known_good("edge") == dict.fromkeys(world.gateways, OLD)
        world.look()
        assert (await reconcile(world)).sentence == "every gateway is on its known-good"
        assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_that_the_engine_cancels_moves_known_good_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gateways went back, known-good did not, and reconcile took them to the bad release again."""
    assert (await world.upgrade()).outcome is Outcome.PROMOTED
    standing, asked, answers = world.book.standing_promotions, threading.Event(), threading.Event()

    def slowly(fleet: str) -> tuple[ChangeRecord, ...]:
        if activity.info().activity_type == "ends_bakes":
            asked.set()
            answers.wait(PATIENCE)
        return standing(fleet)

    monkeypatch.setattr(world.book, "standing_promotions", slowly)
    rollback = await world.go_back("gw-1", "gw-2", "gw-3")
    await until(asked.is_set)
    await rollback.cancel()
    answers.set()
    assert (await result_of(rollback)).outcome is Outcome.ROLLED_BACK
    assert world.book.known_good("edge") == dict.fromkeys(world.gateways, OLD)


async def test_harm_that_is_reported_in_the_first_task_after_a_cut_takes_passed_waves_back(
    server: Engine,
) -> None:
    """It was dropped, since the run had not begun its own watch, which may not find it again."""
    world, run = await of_waves(server, [("gw-1", "gw-2"), ("gw-3", "gw-4")])
    cut = run.continued
    assert cut is not None
    told = cut.told.model_copy(update={"begun": 1})
    world.windows.answer = CLOSED
    async with working(world):
        running = await world.client.start_workflow(
            Change.run,
            ChangeRun(
                order=run.order.model_copy(update={"asks_window": True}),
                continued=cut.model_copy(update={"passed": 1, "told": told}),
            ),
            id="change/edge",
            task_queue=CONTROL_QUEUE,
            start_signal="report_watch",
            start_signal_args=[
                WatchReport(
                    at=datetime.now(UTC),
                    beginning=(2,),
                    number=9,
                    change=cut.name,
                    run="which was cut",
                    decision=CRASHING,
                )
            ],
        )
        await until(lambda: world.serving()["gw-1"] == "1.1.6", SOON)
        result = await result_of(running)
    assert (result.outcome, result.decision) == (Outcome.ROLLED_BACK, CRASHING)
