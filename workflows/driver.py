"""The driver: runs a plan's waves in order and, whatever goes wrong, brings back every gateway it touched."""

import asyncio
from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, FailureError
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

from policies.gates import selectors
from policies.words.plan import Wave
from policies.words.change import ChangeOrder, ChangeResult, Outcome
from policies.words.command import Command, CommandKind
from policies.words.verdict import Decision
from policies.words.word import Word
from workflows.compensation import to_the_end
from workflows.failures import sentence_of
from workflows.rollback import Rollback, RollbackOrder
from workflows.wave import WaveOrder, WaveResult, WaveWorkflow


class DriverOrder(Word):
    """A rollout's order, its guardian's id, and the epoch that all its steps carry."""

    order: ChangeOrder
    guardian: str
    epoch: int
    hold: Command | None = None
    """A hold that was given before there was a driver."""


@workflow.defn(name="RolloutDriver")
class RolloutDriver:
    """One wave after the other; a failure, a verdict or a cancellation turns it round."""

    @workflow.init
    def __init__(self, order: DriverOrder) -> None:
        self._order = order.order
        self._guardian = order.guardian
        self._epoch = order.epoch
        self._touched: list[str] = []
        self._hold = order.hold
        self._telling = asyncio.Lock()
        self._wave: ChildWorkflowHandle[Any, WaveResult] | None = None

    @workflow.run
    async def run(self, _: DriverOrder) -> ChangeResult:
        """Return with every gateway on the new release, or every touched one back on its own known-good."""
        result = await self._run_waves()
        await to_the_end(workflow.wait_condition(workflow.all_handlers_finished))
        return result

    async def _run_waves(self) -> ChangeResult:
        decision = None
        try:
            for wave in self._order.plan.waves:
                await workflow.wait_condition(lambda: self._hold is None)
                result = await self._run_wave(wave)
                decision = result.decision
                if not result.passed:
                    return await to_the_end(self._go_back(result.reason, decision))
        except (asyncio.CancelledError, ActivityError, ChildWorkflowError, ApplicationError) as error:
            return await to_the_end(self._go_back(sentence_of(error), decision))
        return self._result(Outcome.PROMOTED, "every wave passed its window", decision)

    @workflow.signal(name="command")
    async def command(self, command: Command) -> None:
        """Take a person's order and hand it to the wave that is under way."""
        if command.kind in {CommandKind.HOLD, CommandKind.RESUME}:
            self._hold = command if command.kind is CommandKind.HOLD else None
        await self._tell_wave(command)

    async def _tell_wave(self, command: Command) -> None:
        """Hand an order on, one after the other: signals sent side by side may arrive in any order."""
        async with self._telling:
            if self._wave is not None:
                # A wave that has just ended hears nothing any more; that must not end the driver.
                with suppress(FailureError):
                    await self._wave.signal(WaveWorkflow.command, command)

    async def _run_wave(self, wave: Wave) -> WaveResult:
        self._touched.extend(wave.gateways)
        self._wave = await workflow.start_child_workflow(
            WaveWorkflow.run,
            WaveOrder(
                rollout=self._order.rollout,
                guardian=self._guardian,
                plan=self._order.plan,
                wave=wave,
                source=self._order.source,
                epoch=self._epoch,
            ),
            id=f"{workflow.info().workflow_id}/wave/{wave.number:03}",
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            # The fence, not the wave's obedience, makes the way back safe: do not wait for it.
            cancellation_type=ChildWorkflowCancellationType.TRY_CANCEL,
        )
        try:
            if self._hold is not None:  # it was given while the wave was being started
                await self._tell_wave(self._hold)
            return await self._wave
        finally:
            self._wave = None

    async def _go_back(self, reason: str, decision: Decision | None) -> ChangeResult:
        plan = self._order.plan
        back = await workflow.execute_child_workflow(
            Rollback.run,
            RollbackOrder(
                rollout=self._order.rollout,
                fleet=plan.fleet,
                targets={name: plan.known_good[name] for name in self._touched},
                reason=reason,
                guardian=self._guardian,
                failed=plan.release.digest,
                decision=decision,
                queries={gate.id: selectors(gate) for gate in plan.gates.gates},
                source=self._order.source,
            ),
            id=f"{workflow.info().workflow_id}/rollback",
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
        return self._result(Outcome.ROLLED_BACK, reason, decision).model_copy(
            update={"steered_back_after": back.took}
        )

    def _result(self, outcome: Outcome, reason: str, decision: Decision | None) -> ChangeResult:
        return ChangeResult(
            rollout=self._order.rollout,
            outcome=outcome,
            reason=reason,
            decision=decision,
            touched=tuple(self._touched),
        )
