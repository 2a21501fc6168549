"""Reconcile: the ring behind guardian and driver; finds gateways that nobody looks after and brings them back.

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
from workflows.rollback import Rollback, RollbackOrder
from workflows.survey import Survey


class ReconcileResult(Word):
    """What was found, and whether somebody was already looking after it."""

    strays: dict[str, str] = {}
    sentence: str


@workflow.defn(name="Reconcile")
class Reconcile:
    """Runs every minute; does nothing unless a change was left alone."""

    @workflow.run
    async def run(self, fleet: Fleet) -> ReconcileResult:
        """Start a rollback of gateways that are not on known-good while no change is under way."""
        survey = await workflow.execute_child_workflow(
            Survey.run, fleet, id=f"{workflow.info().workflow_id}/survey"
        )
        known_good = await workflow.execute_activity_method(
            LedgerActivities.read_known_good, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.ASK
        )
        left_alone = strays(survey.states, known_good)
        if not left_alone:
            return ReconcileResult(sentence="every gateway is on its known-good")
        order = RollbackOrder(
            rollout=f"{fleet.name}-reconcile",
            fleet=fleet,
            targets={name: known_good[name] for name in left_alone},
            reason="nobody looks after this change any more: "
            + "; ".join(f"{name} {why}" for name, why in sorted(left_alone.items())),
        )
        try:
            await workflow.start_child_workflow(
                Rollback.run,
                order,
                id=f"change/{fleet.name}",
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError:
            return ReconcileResult(strays=left_alone, sentence="a change is under way and looks after them")
        return ReconcileResult(strays=left_alone, sentence=f"brought back: {', '.join(sorted(left_alone))}")
