"""The guardian of a rollout: takes orders, tells the story, and makes up for whatever ends the driver."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from activities.instances import InstanceActivities
from activities.ledger import KnownGoodEntry, LedgerActivities, VerdictEntry
from activities.normality import NormalityActivities, NormalityOrder, unusual
from activities.releases import AdmitOrder, ReleaseActivities
from policies.drift import way_back_from
from policies.story import Story
from policies.words.change import ChangeOrder, ChangeResult, Outcome, Phase
from policies.words.command import Command, CommandKind, CommandReceipt
from policies.words.report import RestoreReport, WaveReport
from policies.words.status import ChangeStatus
from workflows import steps
from workflows.bake import Bake, BakeOrder
from workflows.compensation import to_the_end
from workflows.drain import Drain, DrainGatewayOrder
from workflows.driver import DriverOrder, RolloutDriver
from workflows.failures import code_of, sentence_of, stopped
from workflows.identities import bake_of, end_bake
from workflows.rollback import Rollback, RollbackOrder

Entry = TypeVar("Entry")


@workflow.defn(name="Rollout")
class Rollout:
    """A rollout from its first check to its last word; its id is the fleet's lock."""

    @workflow.init
    def __init__(self, order: ChangeOrder) -> None:
        self._order = order
        self._plan = order.plan
        self._story = Story(order, workflow.now())
        self._commands: dict[str, tuple[Command, CommandReceipt]] = {}
        self._driver: ChildWorkflowHandle[RolloutDriver, ChangeResult] | None = None
        self._asked_back: Command | None = None
        self._epoch = 0
        self._hold_or_resume: Command | None = None
        self._unwritten: list[VerdictEntry] = []
        self._telling = asyncio.Lock()

    @workflow.run
    async def run(self, order: ChangeOrder) -> ChangeResult:
        """Leave the fleet on the new release, or exactly as it was found."""
        self._epoch = steps.epoch_now()
        await end_bake(self._plan.fleet.name)
        await self._record(LedgerActivities.open_rollout, order)
        writing = asyncio.create_task(self._write_verdicts())
        try:
            await self._admit_release()
            await self._ask_whether_the_hour_is_usual()
            await self._prove_the_way_back()
        except (ActivityError, ApplicationError) as error:
            result = self._result(Outcome.REFUSED, f"{code_of(error)}: {sentence_of(error)}")
        else:
            result = await self._drive()
        result = await to_the_end(self._close(result))
        writing.cancel()
        return result

    async def _close(self, result: ChangeResult) -> ChangeResult:
        """Write down the end; once gateways have changed, no cancellation leaves this half done."""
        if result.outcome is Outcome.PROMOTED and await self._goes_back_after_all(result):
            result = await self._take_back()
        if result.outcome is not Outcome.PROMOTED:
            await self._write_end(result)
        self._story.end(result, workflow.now())
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _goes_back_after_all(self, result: ChangeResult) -> bool:
        """Promote and write it down; return whether somebody asked to go back before the last line."""
        promoting = asyncio.create_task(self._promote(result))
        await workflow.wait_condition(lambda: promoting.done() or self._asked_back is not None)
        if self._asked_back is None:
            await promoting
            return False
        promoting.cancel()
        with suppress(asyncio.CancelledError, FailureError):
            await promoting
        return True

    async def _write_end(self, result: ChangeResult) -> None:
        await workflow.wait_condition(lambda: not self._unwritten)
        await self._record(LedgerActivities.close_rollout, result)

    # --- what people say ---------------------------------------------------------

    @workflow.update(name="command")
    async def command(self, command: Command) -> CommandReceipt:
        """Carry out a person's order once, however often it arrives."""
        return await self._obey(command)

    @command.validator
    def _command_makes_sense(self, command: Command) -> None:
        known = self._commands.get(command.id)
        if known is not None and known[0] != command:
            raise ApplicationError(
                f"command {command.id} was given before with other words", type="Conflict", non_retryable=True
            )
        if known is None and (refusal := self._story.refusal_of(command)):
            raise ApplicationError(refusal, type="Conflict", non_retryable=True)

    @workflow.signal(name="command_fallback")
    async def command_fallback(self, command: Command) -> None:
        """Take the same order by the road that is durable while no worker is up."""
        if self._story.refusal_of(command) is None:
            await self._obey(command)

    async def _obey(self, command: Command) -> CommandReceipt:
        if command.id in self._commands:
            return self._commands[command.id][1]
        under_way_back = self._story.rolls_back
        receipt = CommandReceipt(
            id=command.id, accepted=True, sentence=self._story.hear(command, workflow.now())
        )
        self._commands[command.id] = (command, receipt)
        if command.kind in {CommandKind.ROLL_BACK, CommandKind.ABORT}:
            if not under_way_back:
                self._asked_back = command
            if self._driver is not None:
                self._driver.cancel()
        else:
            if command.kind in {CommandKind.HOLD, CommandKind.RESUME}:
                self._hold_or_resume = command
            await self._tell_driver(command)
        return receipt

    async def _tell_driver(self, command: Command) -> None:
        """Hand an order on, one after the other: signals sent side by side may arrive in any order."""
        async with self._telling:
            if self._driver is not None:
                # A driver that has just ended hears nothing any more; that must not end the guardian.
                with suppress(FailureError):
                    await self._driver.signal(RolloutDriver.command, command)

    @workflow.query(name="status")
    def status(self) -> ChangeStatus:
        """Say what is happening, to how many, why, what comes next and what can be done."""
        return self._story.status()

    # --- what waves and rollbacks report -----------------------------------------

    @workflow.signal(name="report")
    def report(self, report: WaveReport) -> None:
        """Take over what a wave says of itself; its decisions are written down beside whatever they cause."""
        decision = self._story.take(report)
        if decision is not None:
            self._unwritten.append(
                VerdictEntry(rollout=self._order.rollout, wave=report.wave, at=report.at, decision=decision)
            )

    @workflow.signal(name="report_rollback")
    def report_rollback(self, report: RestoreReport) -> None:
        """Take over what a rollback says of itself."""
        self._story.take_rollback(report)

    # --- the runbook -------------------------------------------------------------

    async def _admit_release(self) -> None:
        """Verify who signed the release before any gateway hears of it."""
        admitted = await workflow.execute_activity_method(
            ReleaseActivities.admit_release,
            AdmitOrder(
                release=self._plan.release,
                source=self._order.source,
                product=self._plan.fleet.product,
                channel=self._plan.fleet.channel,
                policy=self._plan.trust_policy,
            ),
            task_queue=steps.CONTROL_QUEUE,
            **steps.CHANGE,
        )
        self._story.note(f"release admitted: {admitted.reason}", workflow.now())

    async def _ask_whether_the_hour_is_usual(self) -> None:
        """Start nothing in a fleet that is already unusual, unless told to; the unknown is only said."""
        fleet = self._plan.fleet
        try:
            advice = await workflow.execute_activity_method(
                NormalityActivities.ask_whether_normal,
                NormalityOrder(
                    gates=self._plan.gates,
                    instances=tuple(gateway.metrics_target for gateway in fleet.gateways),
                    at=workflow.now(),
                ),
                task_queue=steps.CONTROL_QUEUE,
                **steps.STUDY,
            )
        except ActivityError as error:
            unknown = f"nobody could say whether this hour is a usual one: {sentence_of(error)}"
            self._story.note(unknown, workflow.now())
            return
        against = unusual(advice)
        if against and not self._order.even_if_unusual:
            raise stopped("; ".join(against))
        for sentence in against:
            self._story.note(f"started all the same: {sentence}", workflow.now())

    async def _prove_the_way_back(self) -> None:
        """Ask every gateway whether the release fits and its known-good is there to go back to."""
        names = [name for wave in self._plan.waves for name in wave.gateways]
        answers = await asyncio.gather(
            *[
                workflow.execute_activity_method(
                    InstanceActivities.preflight_gateway,
                    self._plan.release,
                    task_queue=self._plan.fleet.gateway(name).task_queue,
                    **steps.ASK,
                )
                for name in names
            ]
        )
        obstacles = [f"{name}: {why}" for name, whys in zip(names, answers, strict=True) for why in whys]
        if obstacles:
            raise stopped("; ".join(obstacles))
        self._story.note(f"{len(names)} gateways can take the release and can go back", workflow.now())

    async def _drive(self) -> ChangeResult:
        if self._asked_back is not None:
            before = self._result(Outcome.ROLLED_BACK, "asked to go back before anything was touched")
            return self._in_the_words_of_whoever_asked(before)
        told = self._hold_or_resume
        try:
            self._driver = await workflow.start_child_workflow(
                RolloutDriver.run,
                DriverOrder(
                    order=self._order,
                    guardian=workflow.info().workflow_id,
                    epoch=self._epoch,
                    hold=told if told is not None and told.kind is CommandKind.HOLD else None,
                ),
                id=f"{workflow.info().workflow_id}/{self._order.rollout}/driver",
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            )
            if self._asked_back is not None:
                self._driver.cancel()
            if self._hold_or_resume is not None and self._hold_or_resume is not told:
                await self._tell_driver(self._hold_or_resume)  # given while the driver was being started
            result = await self._driver_result(self._driver)
        except (ChildWorkflowError, ActivityError) as error:
            result = await to_the_end(self._go_back(sentence_of(error)))
        return self._in_the_words_of_whoever_asked(result)

    async def _driver_result(
        self, driver: ChildWorkflowHandle[RolloutDriver, ChangeResult]
    ) -> ChangeResult:
        """Wait for the driver, which undoes its own work when it is cancelled."""
        waiting = asyncio.ensure_future(driver)
        while True:
            try:
                return await asyncio.shield(waiting)
            except asyncio.CancelledError:
                if waiting.cancelled():
                    raise
                driver.cancel()

    async def _go_back(self, reason: str) -> ChangeResult:
        """Undo what a driver left behind that could not do so itself."""
        touched = sorted({name for wave in self._plan.waves for name in wave.gateways})
        back = await workflow.execute_child_workflow(
            Rollback.run,
            RollbackOrder(
                rollout=self._order.rollout,
                fleet=self._plan.fleet,
                targets={name: self._plan.known_good[name] for name in touched},
                reason=reason,
                guardian=workflow.info().workflow_id,
                failed=self._plan.release.digest,
                source=self._order.source,
            ),
            id=f"{workflow.info().workflow_id}/{self._order.rollout}/rollback",
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
        result = self._result(
            Outcome.ROLLED_BACK, f"the driver ended ({reason}); its gateways were brought back"
        )
        return result.model_copy(update={"touched": back.back, "steered_back_after": back.took})

    def _in_the_words_of_whoever_asked(self, result: ChangeResult) -> ChangeResult:
        asked = self._asked_back
        if asked is None or result.outcome is not Outcome.ROLLED_BACK:
            return result
        aborted = asked.kind is CommandKind.ABORT and not self._story.sessions_moved
        outcome = Outcome.ABORTED if aborted else Outcome.ROLLED_BACK
        return result.model_copy(update={"outcome": outcome, "reason": f"{asked.person}: {asked.reason}"})

    async def _promote(self, result: ChangeResult) -> None:
        """Make the release known-good where it runs, and let the old instances empty by themselves."""
        self._story.enter(Phase.PROMOTING, workflow.now())
        await self._start_the_bake()
        for wave in self._plan.waves:
            for name in wave.gateways:
                entry = KnownGoodEntry(
                    fleet=self._plan.fleet.name,
                    gateway=name,
                    release=self._plan.release,
                    rollout=self._order.rollout,
                )
                await self._record(LedgerActivities.record_known_good, entry)
                await workflow.start_child_workflow(
                    Drain.run,
                    DrainGatewayOrder(
                        rollout=self._order.rollout,
                        epoch=self._epoch,
                        gateway=self._plan.fleet.gateway(name),
                        digest=self._plan.release.digest,
                        deadline=self._plan.fleet.limits.drain_deadline,
                        limits=self._plan.fleet.limits.drain,
                    ),
                    id=f"drain/{name}/{self._order.rollout}/{self._epoch}",
                    parent_close_policy=ParentClosePolicy.ABANDON,
                )
        await self._write_end(result)

    async def _start_the_bake(self) -> None:
        """Watch on for as long as the old release is kept."""
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                Bake.run,
                BakeOrder(rollout=self._order.rollout, plan=self._plan),
                id=bake_of(self._plan.fleet.name),
                parent_close_policy=ParentClosePolicy.ABANDON,
            )

    async def _write_verdicts(self) -> None:
        """Write decisions down as they come; a ledger that is away delays nothing but this."""
        while True:
            await workflow.wait_condition(lambda: bool(self._unwritten))
            await self._record(LedgerActivities.record_verdict, self._unwritten[0])
            del self._unwritten[0]

    async def _take_back(self) -> ChangeResult:
        """Undo a promotion: gateways first; the ledger is told at the same time and never waited for."""
        await end_bake(self._plan.fleet.name)
        recording = asyncio.create_task(self._record_known_good_again())
        result = await self._go_back("asked to go back during its promotion")
        await recording
        return self._in_the_words_of_whoever_asked(result)

    async def _record_known_good_again(self) -> None:
        """Have the ledger call good what was good before; under a name that nothing goes back behind."""
        for name, release in sorted(self._plan.known_good.items()):
            entry = KnownGoodEntry(
                fleet=self._plan.fleet.name,
                gateway=name,
                release=release,
                rollout=way_back_from(self._plan.fleet.name, self._order.rollout),
            )
            await self._record(LedgerActivities.record_known_good, entry)

    async def _record(self, step: Callable[[LedgerActivities, Entry], Awaitable[None]], entry: Entry) -> None:
        await workflow.execute_activity_method(step, entry, task_queue=steps.CONTROL_QUEUE, **steps.RECORD)

    def _result(self, outcome: Outcome, reason: str) -> ChangeResult:
        return ChangeResult(rollout=self._order.rollout, outcome=outcome, reason=reason)
