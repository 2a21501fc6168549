"""Orders, deaths and verdicts at bad moments: while gateways switch, while somebody holds."""

from contextlib import suppress

import pytest
from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError

from activities.observation import ObservationSlice
from activities.watching import WatchSlice
from orchestrator.cli.main import app
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.verdict import Action, Decision, GateVerdict
from policies.planning.cohorts import cohorts_of
from tests.fakes.control import AT_CAP, HEALTHY, UNDECIDED, UNHEALTHY, FakeJudge, ObservedLedger
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, Recorded, blocked, soon
from tests.workflows.world import (
    Running,
    World,
    fleet_of,
    in_phase,
    refusal_of,
    result_of,
    say,
    status_of,
    working,
)

DOUBTFUL = Decision(action=Action.HOLD, verdict=GateVerdict.CONFLICTING, reason="control is ill as well")


async def on_trial(world: World, name: str = "gw-1") -> None:
    await until(lambda: world.serving()[name] == "1.3.0", SOON)


# --- while gateways switch -----------------------------------------------------------------


@pytest.mark.sweep
async def test_harm_on_the_first_gateway_of_a_wave_is_found_while_the_others_still_switch(
    real: World,
) -> None:
    """D9."""
    real.judge.says(UNHEALTHY)
    async with blocked(real.gateways["gw-2"], "stage") as staging:
        rollout = await real.start(("gw-1", "gw-2"))
        await soon(staging.wait())
        result = await soon(result_of(rollout))
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "9 of 10 logins fail")
    assert set(real.serving().values()) == {"1.1.6"}
    assert "steer b" not in real.gateways["gw-2"].effects


@pytest.mark.sweep
async def test_harm_is_looked_for_while_a_wave_is_held_in_the_middle_of_its_switching(real: World) -> None:
    """D9."""
    real.judge.says(UNDECIDED)
    second, third = real.gateways["gw-2"], real.gateways["gw-3"]
    async with blocked(second, "stage") as staging, blocked(third, "stage"):
        rollout = await real.start(("gw-1", "gw-2", "gw-3", "gw-4"))
        await soon(staging.wait())
        await on_trial(real)
        await say(rollout, CommandKind.HOLD)
    looked = len(real.judge.orders)
    await until(lambda: len(real.judge.orders) > looked + 2, SOON)
    real.judge.says(UNHEALTHY)
    assert (await soon(result_of(rollout))).outcome is Outcome.ROLLED_BACK
    assert set(real.serving().values()) == {"1.1.6"}
    assert real.gateways["gw-4"].effects == []


async def test_a_hold_says_which_switches_it_does_not_stop_any_more(real: World) -> None:
    """D9."""
    real.judge.says(UNDECIDED)
    async with blocked(real.gateways["gw-2"], "stage") as staging:
        rollout = await real.start(("gw-1", "gw-2", "gw-3", "gw-4"))
        await soon(staging.wait())

        async def is_told() -> bool:
            return any(
                g.state == "staging" for g in (await status_of(rollout)).gateways if g.gateway == "gw-2"
            )

        await until(is_told, SOON)
        receipt = await say(rollout, CommandKind.HOLD)
    assert receipt.sentence.startswith("Held. Gateways that are being switched now are finished")
    await on_trial(real, "gw-2")
    assert (await status_of(rollout)).why == "held by on call: because"


@pytest.mark.sweep
async def test_a_canary_that_dies_while_the_others_switch_gives_them_no_users(real: World) -> None:
    """D9."""
    real.judge.says(UNDECIDED)
    async with blocked(real.gateways["gw-2"], "stage") as staging:
        rollout = await real.start(("gw-1", "gw-2", "gw-3", "gw-4"))
        await soon(staging.wait())
        await on_trial(real)
        real.gateways["gw-1"].crash("b")
        result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason == "the new instance has ended: nothing runs in slot b of gw-1"
    assert result.decision is not None
    assert (result.decision.action, result.decision.verdict) == (Action.ROLL_BACK, GateVerdict.HARD)
    assert "steer b" not in real.gateways["gw-2"].effects
    assert set(real.serving().values()) == {"1.1.6"}


class Comparing(FakeJudge):
    """Remembers with whom each wave is compared, as the real judge is told."""

    def __init__(self, book: ObservedLedger) -> None:
        super().__init__()
        self.compared: dict[int, set[str]] = {}
        self._book = book

    @activity.defn(name="watch_wave")
    async def watch_wave(self, order: WatchSlice) -> ObservationSlice:
        plan = self._book.plan(order.plan)
        cohorts = cohorts_of(plan, order.wave, self._book.gateways_of(order.change))
        names = {member.metrics_target: member.name for member in plan.fleet.gateways}
        if cohorts.canary:
            self.compared.setdefault(order.wave, set()).update(names[one] for one in cohorts.control)
        return await super().watch_wave(order)


@pytest.mark.sweep
async def test_each_wave_is_compared_with_those_that_have_not_changed_and_with_nobody_else(
    server: Engine,
) -> None:
    """D4."""
    world = World.made(await server.client(), fleet_of("edge"))
    world.judge = judge = Comparing(world.book)
    async with working(world):
        result = await world.upgrade(("gw-1",), ("gw-2",), ("gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED
    waves = {number: judge.compared[number] for number in (1, 2, 3)}
    assert waves == {1: {"gw-2", "gw-3", "gw-4"}, 2: {"gw-3", "gw-4"}, 3: set()}


# --- while somebody holds, and what people say ---------------------------------------------


async def test_no_order_of_others_lifts_a_hold(real: World) -> None:
    """D9."""
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD, "ana")
    real.judge.says(HEALTHY)
    await in_phase(rollout, Phase.HELD)
    others = set(CommandKind) - {
        CommandKind.HOLD,
        CommandKind.RESUME,
        CommandKind.ROLL_BACK,
        CommandKind.ABORT,
    }
    for kind in sorted(others):
        for person in ("ben", "cy"):
            with suppress(WorkflowUpdateFailedError):
                await say(rollout, kind, person)
    looked = len(real.judge.orders)
    await until(lambda: len(real.judge.orders) > looked, SOON)
    assert (await status_of(rollout)).why == "held by ana: because"
    assert "keep b" not in real.gateways["gw-1"].effects
    assert real.gateways["gw-2"].effects == []


@pytest.mark.sweep
async def test_people_are_told_to_ask_whoever_holds_before_they_vote(real: World) -> None:
    """D9."""
    real.judge.says(AT_CAP)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.HOLD, "ana", reason="the helpdesk is busy")
    sentence = await refusal_of(say(rollout, CommandKind.PROMOTE, "ben"))
    assert sentence == "held by ana: the helpdesk is busy; resume it first, then promote"


def test_there_is_no_order_that_only_pretends_to_extend_a_window() -> None:
    """D9."""
    assert "extend" not in {kind.value for kind in CommandKind}
    assert "extend" not in {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]


async def test_whoever_asked_for_a_rollout_does_not_vote_to_pass_it(real: World) -> None:
    """D9."""
    real.judge.says(AT_CAP)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    sentence = await refusal_of(say(rollout, CommandKind.PROMOTE, "release engineer"))
    assert sentence == "release engineer asked for this upgrade; two other people promote it without proof"


@pytest.mark.sweep
async def test_a_vote_without_a_verdict_to_vote_on_is_refused(real: World) -> None:
    """D9."""
    real.judge.pace = 5
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    sentence = await refusal_of(say(rollout, CommandKind.PROMOTE, "ana"))
    assert sentence.startswith("there is no verdict on this wave yet")


@pytest.mark.sweep
async def test_a_vote_to_promote_ends_with_the_verdict_its_person_saw(real: World) -> None:
    """D9, D15."""
    real.judge.says(AT_CAP)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.PROMOTE, "ana")
    real.judge.says(DOUBTFUL)
    await say(rollout, CommandKind.HOLD, "ana")  # whatever is ordered, the wave looks again
    await say(rollout, CommandKind.RESUME, "ana")
    await until(lambda: _sees(rollout, GateVerdict.CONFLICTING), SOON)
    await say(rollout, CommandKind.PROMOTE, "ben")
    looked = len(real.judge.orders)
    await until(lambda: len(real.judge.orders) > looked, SOON)
    assert "keep b" not in real.gateways["gw-1"].effects
    await say(rollout, CommandKind.PROMOTE, "cy")
    assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_what_people_order_of_a_rollout_is_in_the_audit_record(recorded: Recorded) -> None:
    """D15."""
    recorded.world.judge.says(UNDECIDED)
    await recorded.start()
    rollout = recorded.service._change("edge")
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD, "ana", reason="the helpdesk is busy")
    await say(rollout, CommandKind.ROLL_BACK, "ben", reason="users call")
    await soon(result_of(rollout))
    entries = {(entry.person, entry.action) for entry in recorded.ledger.audit_entries()}
    assert {("ana", "hold"), ("ben", "roll back")} <= entries


@pytest.mark.sweep
async def test_an_order_to_resume_lifts_the_hold_of_another_only_by_name(world: World) -> None:
    """D9."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD, "ana", reason="the helpdesk is busy")
    await say(rollout, CommandKind.HOLD, "ben", reason="lunch")
    assert (await status_of(rollout)).why == "held by ana: the helpdesk is busy; ben: lunch"
    sentence = await refusal_of(say(rollout, CommandKind.RESUME, "cy"))
    assert sentence.startswith("held by ana: the helpdesk is busy; ben: lunch; a hold is lifted by its name")
    await say(rollout, CommandKind.RESUME, "ben")
    assert (await status_of(rollout)).why == "held by ana: the helpdesk is busy"
    world.judge.says(HEALTHY)
    await say(rollout, CommandKind.RESUME, "ben", hold_of="ana")
    assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


async def _sees(rollout: Running, verdict: GateVerdict) -> bool:
    decision = (await status_of(rollout)).decision
    return decision is not None and decision.verdict is verdict
