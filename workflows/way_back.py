"""The way back outside of a rollout: holds the fleet's lock while gateways return to a known-good.

A person takes it after a promotion, with targets; the reconcile ring takes it without, and
then what is astray is looked up again under the lock, so that a change that ended meanwhile
is never undone.
"""

import asyncio

from temporalio import workflow
from temporalio.workflow import ParentClosePolicy

from activities.ledger import KnownGoodEntry, LedgerActivities
from policies.known_good import strays
from policies.words.fleet import Fleet
from policies.words.plan import ReleaseRef
from policies.words.rollout import Outcome, RolloutResult
from policies.words.word import Name, Word
from workflows import steps
from workflows.compensation import to_the_end
from workflows.rollback import Rollback, RollbackOrder, RollbackResult
from workflows.survey import Survey


class WayBackOrder(Word):
    """Which fleet goes back, under which name, and why; without targets whatever is astray does."""

    name: Name
    fleet: Fleet
    reason: str
    targets: dict[str, ReleaseRef] | None = None


@workflow.defn(name="WayBack")
class WayBack:
    """Gateways first; the ledger is told at the same time and never waited for by them."""

    @workflow.run
    async def run(self, order: WayBackOrder) -> RollbackResult:
        """Return when every target is back and the ledger says so."""
        return await to_the_end(self._go_back(order))

    async def _go_back(self, order: WayBackOrder) -> RollbackResult:
        targets, moved = order.targets, order.targets or {}
        if targets is None:
            targets = await self._left_alone(order.fleet)
        # Known-good moves at once, or the reconcile ring would undo this when the lock is free again.
        recording = asyncio.create_task(self._record_known_good(order, moved))
        back = await workflow.execute_child_workflow(
            Rollback.run,
            RollbackOrder(rollout=order.name, fleet=order.fleet, targets=targets, reason=order.reason),
            id=f"{workflow.info().workflow_id}/{order.name}/rollback",
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
        await recording
        await self._close_abandoned(order)
        return back

    @staticmethod
    async def _left_alone(fleet: Fleet) -> dict[str, ReleaseRef]:
        known_good = await workflow.execute_activity_method(
            LedgerActivities.read_known_good, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.RECORD
        )
        survey = await workflow.execute_child_workflow(
            Survey.run, fleet, id=f"{workflow.info().workflow_id}/survey/{workflow.info().run_id}"
        )
        return {name: known_good[name] for name in strays(survey.states, known_good)}

    @staticmethod
    async def _record_known_good(order: WayBackOrder, moved: dict[str, ReleaseRef]) -> None:
        for name, release in sorted(moved.items()):
            await workflow.execute_activity_method(
                LedgerActivities.record_known_good,
                KnownGoodEntry(fleet=order.fleet.name, gateway=name, release=release, rollout=order.name),
                task_queue=steps.CONTROL_QUEUE,
                **steps.RECORD,
            )

    @staticmethod
    async def _close_abandoned(order: WayBackOrder) -> None:
        """Give rollouts an end that nobody is left to give them."""
        abandoned = await workflow.execute_activity_method(
            LedgerActivities.read_open_rollouts,
            order.fleet.name,
            task_queue=steps.CONTROL_QUEUE,
            **steps.RECORD,
        )
        for rollout in abandoned:
            await workflow.execute_activity_method(
                LedgerActivities.close_rollout,
                RolloutResult(rollout=rollout, outcome=Outcome.ROLLED_BACK, reason=order.reason),
                task_queue=steps.CONTROL_QUEUE,
                **steps.RECORD,
            )
