"""The bake: after a promotion the gates go on for the kept time; a rollback is still one decision away."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from activities.ledger import LedgerActivities, VerdictEntry
from activities.observation import ObservationActivities, ObservationOrder
from policies.judge.bake import bake_is_over, baking_policy
from policies.words.plan import Plan
from policies.words.verdict import Action, Cohorts, Decision
from policies.words.word import Name, Word
from workflows import steps
from workflows.failures import sentence_of
from workflows.identities import change_of
from workflows.survey import Survey
from workflows.way_back import WayBack, WayBackOrder

SLICE = timedelta(seconds=60)


class BakeOrder(Word):
    """Which promoted plan is watched on; the rest is carried over when the history is cut."""

    rollout: Name
    plan: Plan
    state: str = ""
    slots: dict[str, str] = {}
    since: dict[str, float] = {}


class BakeResult(Word):
    """How the bake ended."""

    peaceful: bool
    reason: str


@workflow.defn(name="Bake")
class Bake:
    """Watches promoted gateways; the next change of the fleet ends it."""

    @workflow.init
    def __init__(self, order: BakeOrder) -> None:
        self._order = order
        self._plan = order.plan
        self._gateways = sorted({name for wave in order.plan.waves for name in wave.gateways})
        kept = order.plan.fleet.limits.kept
        self._gates = baking_policy(order.plan.gates, kept)
        self._slots = dict(order.slots)
        self._since = dict(order.since)
        self._decision: Decision | None = None
        self._ended = False

    @workflow.run
    async def run(self, order: BakeOrder) -> BakeResult:
        """Return when the kept time is over, when the fleet goes back, or when the next change begins."""
        watching = asyncio.create_task(self._watch(order))
        await workflow.wait_condition(lambda: watching.done() or self._ended)
        if not watching.done():
            watching.cancel()
            return BakeResult(peaceful=True, reason="the fleet's next change began")
        return await watching

    @workflow.signal(name="end")
    def end(self) -> None:
        """Let whoever changes the fleet now answer for it."""
        self._ended = True

    async def _watch(self, order: BakeOrder) -> BakeResult:
        state = order.state
        if not self._slots:
            await self._look_what_serves()
        while True:
            watched = await workflow.execute_activity_method(
                ObservationActivities.observe_slice,
                self._observation(state),
                task_queue=steps.CONTROL_QUEUE,
                **steps.WATCH,
            )
            state, decision = watched.state, watched.decision
            await self._note(decision)
            if decision.action is Action.ROLL_BACK:
                return await self._go_back(decision)
            if bake_is_over(decision, watched.wall, self._gates.window):
                return BakeResult(peaceful=True, reason=decision.reason)
            if decision.action is not Action.CONTINUE:
                await workflow.sleep(steps.HELD_FOR_HUMAN_PACE)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(
                    order.model_copy(update={"state": state, "slots": self._slots, "since": self._since})
                )

    async def _look_what_serves(self) -> None:
        survey = await workflow.execute_child_workflow(
            Survey.run, self._plan.fleet, id=f"{workflow.info().workflow_id}/survey"
        )
        for name in self._gateways:
            serving = survey.states[name].serving if name in survey.states else None
            if serving is not None and serving.started_at is not None:
                target = self._plan.fleet.gateway(name).metrics_target
                self._slots[target] = serving.slot
                self._since[target] = serving.started_at.timestamp()

    def _observation(self, state: str) -> ObservationOrder:
        targets = tuple(self._plan.fleet.gateway(name).metrics_target for name in self._gateways)
        expected = dict.fromkeys(targets, self._plan.release.executable)
        return ObservationOrder(
            rollout=self._order.rollout,
            wave=0,
            gates=self._gates,
            cohorts=Cohorts(
                canary=targets, control=(), expected=expected, slots=self._slots, since=self._since
            ),
            window=self._gates.window,
            slice=SLICE,
            state=state,
        )

    async def _note(self, decision: Decision) -> None:
        last, self._decision = self._decision, decision
        if last is None or (last.action, last.verdict) != (decision.action, decision.verdict):
            entry = VerdictEntry(rollout=self._order.rollout, wave=0, at=workflow.now(), decision=decision)
            try:
                await workflow.execute_activity_method(
                    LedgerActivities.record_verdict, entry, task_queue=steps.CONTROL_QUEUE, **steps.ASK
                )
            except ActivityError as error:
                workflow.logger.warning("a verdict of the bake is not in the ledger: %s", sentence_of(error))

    async def _go_back(self, decision: Decision) -> BakeResult:
        order = WayBackOrder(
            name=f"{self._plan.fleet.name}-bake",
            fleet=self._plan.fleet,
            reason=decision.reason,
            targets={name: self._plan.known_good[name] for name in self._gateways},
        )
        while True:
            try:
                await workflow.start_child_workflow(
                    WayBack.run,
                    order,
                    id=change_of(self._plan.fleet.name),
                    parent_close_policy=ParentClosePolicy.ABANDON,
                )
            except WorkflowAlreadyStartedError:
                # The rollout that was promoted may still be writing its last lines; any other change ends us.
                await workflow.sleep(steps.NEXT_ROUND)
            else:
                return BakeResult(peaceful=False, reason=decision.reason)
