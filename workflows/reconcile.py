"""Reconcile: the ring behind guardian and driver; finds changes that nobody looks after and ends them.

It compares facts with facts: what each gateway does now with what the ledger calls its
known-good. The fleet's lock is the proof that somebody looks after it.
"""

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from activities.ledger import LedgerActivities
from policies.known_good import strays
from policies.words.fleet import Fleet
from policies.words.word import Word
from workflows import steps
from workflows.identities import change_of
from workflows.survey import Survey
from workflows.way_back import WayBack, WayBackOrder


class ReconcileResult(Word):
    """What was found, and whether somebody was already looking after it."""

    strays: dict[str, str] = {}
    open_rollouts: tuple[str, ...] = ()
    sentence: str


@workflow.defn(name="Reconcile")
class Reconcile:
    """Runs every minute; does nothing unless a change was left alone."""

    @workflow.run
    async def run(self, fleet: Fleet) -> ReconcileResult:
        """Start the way back of gateways that are not on known-good while no change is under way."""
        known_good = await workflow.execute_activity_method(
            LedgerActivities.read_known_good, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.ASK
        )
        abandoned = await workflow.execute_activity_method(
            LedgerActivities.read_open_rollouts, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.ASK
        )
        survey = await workflow.execute_child_workflow(
            Survey.run, fleet, id=f"{workflow.info().workflow_id}/survey"
        )
        left_alone = strays(survey.states, known_good)
        if not left_alone and not abandoned:
            return ReconcileResult(sentence="every gateway is on its known-good")
        sentence = await self._end(fleet, left_alone)
        return ReconcileResult(strays=left_alone, open_rollouts=abandoned, sentence=sentence)

    @staticmethod
    async def _end(fleet: Fleet, left_alone: dict[str, str]) -> str:
        found = "; ".join(f"{name} {why}" for name, why in sorted(left_alone.items()))
        order = WayBackOrder(
            name=f"{fleet.name}-reconcile",
            fleet=fleet,
            reason=f"nobody looks after this change any more: {found or 'only the ledger is behind'}",
        )
        try:
            await workflow.start_child_workflow(
                WayBack.run,
                order,
                id=change_of(fleet.name),
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError:
            return "a change is under way and looks after them"
        return f"bringing back: {', '.join(sorted(left_alone)) or 'nobody; only the ledger was behind'}"
