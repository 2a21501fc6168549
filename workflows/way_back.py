"""The way back outside of a rollout: holds the fleet's lock while gateways return to an earlier release.

A person takes it after a promotion, with targets; the reconcile ring takes it without, and
then what is astray is looked up again under the lock, so that a change that ended meanwhile
is never undone. Only a person's order can have to wait for a second person, and never its
road to known-good.
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ParentClosePolicy

from activities.ledger import EventEntry, KnownGoodEntry, LedgerActivities
from policies.drift import left_behind, strays
from policies.rollbacks import refusal_of
from policies.way_back import WayBackStory
from policies.words.fleet import Fleet
from policies.words.plan import ReleaseRef
from policies.words.change import ChangeResult, Outcome
from policies.words.command import CommandReceipt
from policies.words.report import RestoreReport
from policies.words.status import ChangeStatus
from policies.words.way_back import Answer, AnswerKind, Confirmation
from policies.words.word import Name, Word
from workflows import steps
from workflows.compensation import to_the_end
from workflows.failures import sentence_of
from workflows.identities import end_bake
from workflows.rollback import Rollback, RollbackOrder, RollbackResult
from workflows.survey import Survey


class WayBackOrder(Word):
    """Which fleet goes back, under which name, and why; without targets whatever is astray does.

    `source` is where a release comes from that is not on a host any more.
    """

    name: Name
    fleet: Fleet
    reason: str
    targets: dict[str, ReleaseRef] | None = None
    requested_by: str = "penstock"
    source: str | None = None
    confirm: Confirmation | None = None


@workflow.defn(name="WayBack")
class WayBack:
    """Gateways first; the ledger is told at the same time and never waited for by them."""

    @workflow.init
    def __init__(self, order: WayBackOrder) -> None:
        self._order = order
        self._story = WayBackStory(order.name, order.fleet.name, order.reason, workflow.now())
        self._waits = order.confirm is not None
        self._answers: dict[str, tuple[Answer, CommandReceipt]] = {}
        self._answer: Answer | None = None

    @workflow.run
    async def run(self, order: WayBackOrder) -> RollbackResult:
        """Return when every target is back and the ledger says so."""
        targets, moved = order.targets, order.targets or {}
        if order.confirm is not None:
            targets = moved = await self._confirmed(order.confirm)
        await end_bake(order.fleet.name)
        if targets is None:
            targets = await self._left_alone(order.fleet)
        result = await to_the_end(self._go_back(targets, moved))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    # --- what people say ---------------------------------------------------------

    @workflow.query(name="status")
    def status(self) -> ChangeStatus:
        """Say what is happening, to how many, why, what comes next and what can be done."""
        return self._story.status()

    @workflow.update(name="answer")
    async def answer(self, answer: Answer) -> CommandReceipt:
        """Take a person's answer once, however often it arrives."""
        if answer.id not in self._answers:
            self._answer, self._waits = answer, False
            self._story.hear(answer, workflow.now())
            sentence = f"{answer.kind.replace('_', ' ').capitalize()}: heard."
            receipt = CommandReceipt(id=answer.id, accepted=True, sentence=sentence)
            self._answers[answer.id] = (answer, receipt)
        return self._answers[answer.id][1]

    @answer.validator
    def _answer_makes_sense(self, answer: Answer) -> None:
        known = self._answers.get(answer.id)
        if known is not None and known[0] == answer:
            return
        confirmation = self._order.confirm
        if known is not None or confirmation is None or not self._waits:
            sentence = f"nothing waits for an answer in {self._order.fleet.name} any more"
        else:
            sentence = refusal_of(answer, confirmation, self._order.requested_by) or ""
        if sentence:
            raise ApplicationError(sentence, type="Conflict", non_retryable=True)

    @workflow.signal(name="report_rollback")
    def report_rollback(self, report: RestoreReport) -> None:
        """Take over what the rollback says of itself."""
        self._story.take(report)

    # --- waiting for a second person ---------------------------------------------

    async def _confirmed(self, confirmation: Confirmation) -> dict[str, ReleaseRef]:
        """Return what the gateways go back to, once a person or the deadline has said so."""
        asked = self._order.targets or {}
        self._story.wait(asked, confirmation, workflow.now())
        telling = asyncio.create_task(
            self._tell(
                "rollback waits for a person",
                f"{self._order.reason}: {confirmation.reason}; answer within {confirmation.within}",
            )
        )
        try:
            await workflow.wait_condition(lambda: not self._waits, timeout=confirmation.within)
        except TimeoutError:
            self._waits = False
            self._story.note("nobody answered in time", workflow.now())
        await telling
        kind = self._answer.kind if self._answer else AnswerKind.KNOWN_GOOD
        said = f"{self._answer.person}: {self._answer.reason}" if self._answer else "nobody answered in time"
        await self._tell(f"rollback answered: {kind.replace('_', ' ')}", said)
        if kind is AnswerKind.APPROVE:
            return asked
        return confirmation.known_good if kind is AnswerKind.KNOWN_GOOD else {}

    async def _tell(self, action: str, sentence: str) -> None:
        """Have it in the audit record; the way back goes on without."""
        entry = EventEntry(
            action=action,
            subject=f"{self._order.fleet.name}/{self._order.name}",
            sentence=sentence,
            key=f"{workflow.info().run_id} {action}",
            person=self._answer.person if self._answer else self._order.requested_by,
        )
        try:
            await workflow.execute_activity_method(
                LedgerActivities.record_event, entry, task_queue=steps.CONTROL_QUEUE, **steps.ASK
            )
        except ActivityError as error:
            workflow.logger.warning("%s is not in the record: %s", action, sentence_of(error))

    # --- going back --------------------------------------------------------------

    async def _go_back(self, targets: dict[str, ReleaseRef], moved: dict[str, ReleaseRef]) -> RollbackResult:
        order = self._order
        self._story.begin(targets, workflow.now())
        # Known-good moves at once, or the reconcile ring would undo this when the lock is free again.
        recording = asyncio.create_task(self._record_known_good(order, moved))
        back = await workflow.execute_child_workflow(
            Rollback.run,
            RollbackOrder(
                rollout=order.name,
                fleet=order.fleet,
                targets=targets,
                reason=order.reason,
                guardian=workflow.info().workflow_id,
                source=order.source,
            ),
            id=f"{workflow.info().workflow_id}/{order.name}/rollback",
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
        await recording
        await self._close_abandoned(order)
        nothing = order.confirm is not None and not targets
        self._story.end(
            Outcome.ABORTED if nothing else Outcome.ROLLED_BACK,
            "given up: nothing was changed" if nothing else f"{len(back.back)} gateways are back",
            workflow.now(),
        )
        return back

    @staticmethod
    async def _left_alone(fleet: Fleet) -> dict[str, ReleaseRef]:
        """Return what is astray, and of a rollout without an end also what it left running beside."""
        known_good = await workflow.execute_activity_method(
            LedgerActivities.read_known_good, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.RECORD
        )
        survey = await workflow.execute_child_workflow(
            Survey.run, fleet, id=f"{workflow.info().workflow_id}/survey/{workflow.info().run_id}"
        )
        abandoned = await workflow.execute_activity_method(
            LedgerActivities.read_open_rollouts, fleet.name, task_queue=steps.CONTROL_QUEUE, **steps.RECORD
        )
        beside = left_behind(survey.states) if abandoned else ()
        found = {*strays(survey.states, known_good), *beside} & known_good.keys()
        return {name: known_good[name] for name in sorted(found)}

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
                ChangeResult(rollout=rollout, outcome=Outcome.ROLLED_BACK, reason=order.reason),
                task_queue=steps.CONTROL_QUEUE,
                **steps.RECORD,
            )
