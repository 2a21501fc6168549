"""Draining a gateway: what gets no new sessions goes on until its last one has ended, then stops.

Nobody is ended because something is unknown; what may be ended, when and why is decided in
`policies.drains`.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as EngineTimeoutError

from activities.instances import InstanceActivities, SlotOrder
from activities.ledger import EventEntry, LedgerActivities
from activities.sessions import DrainOrder, EndOrder, SessionActivities
from policies.drains import mode_of, next_step
from policies.words.drain import (
    DrainEnding,
    DrainExtension,
    DrainFacts,
    DrainLimits,
    DrainMode,
    DrainStatus,
    Loss,
    NextStep,
    Step,
)
from policies.words.fleet import Gateway
from policies.words.instance import GatewayState, InstanceState, Probe
from policies.words.operation import Operation
from policies.words.rollout import CommandReceipt
from policies.words.verdict import Decision
from policies.words.word import Name, Word
from workflows import steps
from workflows.emptying import UNSEEN, Emptying
from workflows.failures import code_of, sentence_of

LOOK_AGAIN = timedelta(minutes=10)
"""How long one wait lasts while a drain is held: sessions that end by themselves end the hold."""


class DrainGatewayOrder(Word):
    """Empty and stop whatever on this gateway gets no new sessions.

    After a rollback `went_back` is true; `decision` is then the verdict on the release `failed`,
    if it was a verdict that sent the gateway back.
    """

    rollout: Name
    epoch: int
    gateway: Gateway
    digest: str
    deadline: timedelta
    limits: DrainLimits = DrainLimits()
    went_back: bool = False
    failed: str | None = None
    decision: Decision | None = None


class DrainResult(Word):
    """Which slots were emptied and stopped, and how sessions ended that did not end by themselves."""

    stopped: tuple[str, ...]
    sessions_ended: int = 0
    lost_crash: int = 0
    lost_reboot: int = 0
    superseded: str | None = None
    """Which newer change took over; its own drain goes on where this one ended."""


@workflow.defn(name="Drain")
class Drain:
    """Wait for sessions to end by themselves; what may end them is broken tunnels, a deadline or a person."""

    @workflow.init
    def __init__(self, order: DrainGatewayOrder) -> None:
        self._order = order
        self._emptying: dict[str, Emptying] = {}
        self._orders: dict[str, tuple[Word, CommandReceipt]] = {}
        self._forced: DrainEnding | None = None

    @workflow.run
    async def run(self, order: DrainGatewayOrder) -> DrainResult:
        """Return when nothing but the serving instance runs on the gateway."""
        state = await self._observe()
        deadline = workflow.now() + order.deadline
        self._emptying = {
            instance.slot: Emptying(instance.slot, instance.release, instance.sessions, deadline)
            for instance in state.instances
            if instance.state is InstanceState.RUNNING
            and instance.slot not in {state.steering.serving, state.steering.trial}
        }
        try:
            await asyncio.gather(
                *[self._empty_and_stop(state, emptying) for _, emptying in sorted(self._emptying.items())]
            )
        except ActivityError as error:
            if code_of(error) != "Fenced":
                raise
            return self._result(superseded=sentence_of(error))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._result()

    def _result(self, superseded: str | None = None) -> DrainResult:
        slots = self._emptying.values()
        return DrainResult(
            stopped=() if superseded else tuple(sorted(self._emptying)),
            sessions_ended=sum(slot.ended for slot in slots),
            lost_crash=sum(slot.lost for slot in slots if slot.loss is Loss.CRASH),
            lost_reboot=sum(slot.lost for slot in slots if slot.loss is Loss.REBOOT),
            superseded=superseded,
        )

    # --- what people ask and say -------------------------------------------------

    @workflow.query(name="status")
    def status(self) -> DrainStatus:
        """Return each slot with its last count, what happens next and why."""
        return DrainStatus(
            gateway=self._order.gateway.name,
            rollout=self._order.rollout,
            slots=tuple(emptying.status() for _, emptying in sorted(self._emptying.items())),
        )

    @workflow.update(name="extend")
    async def extend(self, extension: DrainExtension) -> CommandReceipt:
        """Wait longer, from the deadline or, when that is over, from now."""
        if extension.id in self._orders:
            return self._orders[extension.id][1]
        for emptying in self._emptying.values():
            emptying.deadline = max(emptying.deadline, workflow.now()) + extension.by
        latest = max(emptying.deadline for emptying in self._emptying.values())
        self._forced = None
        sentence = f"The deadline is {latest:%Y-%m-%d %H:%M:%S} UTC now; people are warned before it again."
        return await self._obeyed(extension, "drain extended", sentence)

    @workflow.update(name="end")
    async def end(self, ending: DrainEnding) -> CommandReceipt:
        """End what is left in batches; exempt sessions only when the order names them."""
        if ending.id in self._orders:
            return self._orders[ending.id][1]
        self._forced = ending
        spared = "exempt ones too" if ending.exempt_too else "exempt ones are waited for"
        sentence = f"What is left is ended in batches of {self._order.limits.batch}; {spared}."
        return await self._obeyed(ending, "drain ended by a person", sentence)

    @extend.validator
    def _extension_makes_sense(self, extension: DrainExtension) -> None:
        self._refuse_nonsense(extension.id, extension)

    @end.validator
    def _ending_makes_sense(self, ending: DrainEnding) -> None:
        self._refuse_nonsense(ending.id, ending)

    def _refuse_nonsense(self, order_id: str, order: Word) -> None:
        known = self._orders.get(order_id)
        if known is not None and known[0] != order:
            raise ApplicationError(
                f"order {order_id} was given before with other words", type="Conflict", non_retryable=True
            )
        if not self._emptying:
            sentence = f"{self._order.gateway.name} has not been looked at yet; try again"
            raise ApplicationError(sentence, type="Conflict", non_retryable=True)

    async def _obeyed(
        self, order: DrainExtension | DrainEnding, action: str, sentence: str
    ) -> CommandReceipt:
        receipt = CommandReceipt(id=order.id, accepted=True, sentence=sentence)
        self._orders[order.id] = (order, receipt)
        await self._tell(action, f"{order.reason}: {sentence}", order.id, person=order.person)
        return receipt

    # --- emptying ----------------------------------------------------------------

    async def _empty_and_stop(self, state: GatewayState, emptying: Emptying) -> None:
        """Stop the slot when it is empty; whoever slips in meanwhile is waited for again."""
        if self._order.went_back:
            await self._choose_mode(state, emptying)
        while True:
            await self._empty(emptying)
            try:
                await workflow.execute_activity_method(
                    InstanceActivities.stop_instance,
                    SlotOrder(operation=self._operation(f"stop-{emptying.slot}"), slot=emptying.slot),
                    task_queue=self._order.gateway.task_queue,
                    **steps.PATIENT,
                )
            except ActivityError as error:
                if code_of(error) != "Refused":
                    raise
                workflow.logger.info("slot %s is not stopped yet: %s", emptying.slot, sentence_of(error))
                await workflow.sleep(steps.NEXT_LOOK)
            else:
                return

    async def _empty(self, emptying: Emptying) -> None:
        """Return when the slot was seen empty."""
        await self._wait(emptying, timedelta(0))
        while True:
            told = emptying.step
            emptying.step = step = next_step(self._facts(emptying), self._order.limits)
            match step.step:
                case Step.STOP:
                    if await self._wait(emptying, timedelta(minutes=1)):
                        return
                case Step.WAIT:
                    until = step.until or workflow.now() + LOOK_AGAIN
                    await self._wait(emptying, until - workflow.now())
                case Step.WARN:
                    emptying.warned_for = emptying.deadline
                    key = f"warning {emptying.deadline}"
                    await self._tell_of(emptying, "drain deadline announced", step.reason, key)
                case Step.HOLD:
                    if told != step:
                        await self._tell_of(emptying, "drain held for a person", step.reason, step.reason)
                    await self._wait(emptying, LOOK_AGAIN)
                case Step.END:
                    if told.step is not Step.END:
                        await self._tell_of(
                            emptying, "sessions are being ended", step.reason, f"end {emptying.spent}"
                        )
                    await self._end_batch(emptying, step)

    def _facts(self, emptying: Emptying) -> DrainFacts:
        forced = self._forced
        return DrainFacts(
            look=emptying.look or UNSEEN,
            mode=emptying.mode,
            found=emptying.found,
            ended=emptying.spent,
            now=workflow.now(),
            deadline=emptying.deadline,
            warned=emptying.warned_for == emptying.deadline,
            forced_by=f"{forced.person}: {forced.reason}" if forced else None,
            exempt_too=forced is not None and forced.exempt_too,
        )

    async def _wait(self, emptying: Emptying, within: timedelta) -> bool:
        """Wait for sessions to end and return whether none is left; an order of a person ends the wait."""
        heard = len(self._orders)
        within = max(within, timedelta(0))
        waiting = workflow.start_activity_method(
            SessionActivities.drain_instance,
            DrainOrder(
                operation=self._operation(f"drain-{emptying.slot}"),
                slot=emptying.slot,
                within=within,
                last=emptying.look,
            ),
            task_queue=self._order.gateway.task_queue,
            schedule_to_close_timeout=within + timedelta(minutes=1),
            start_to_close_timeout=within + timedelta(seconds=15),
            heartbeat_timeout=timedelta(seconds=75),
            retry_policy=steps.PATIENT["retry_policy"],
        )
        await workflow.wait_condition(lambda: waiting.done() or len(self._orders) > heard)
        if not waiting.done():
            waiting.cancel()
            with suppress(ActivityError):
                await waiting
            return False
        try:
            drained = await waiting
        except ActivityError as error:
            if not isinstance(error.cause, EngineTimeoutError):
                raise
            # A silent agent: what lives there is unknown now, and its process is remembered.
            known = emptying.look or UNSEEN
            emptying.look = known.model_copy(update={"sessions": None, "exempt": None})
            return False
        emptying.see(drained)
        if drained.lost:
            sentence = f"{drained.lost} sessions ended with their process"
            await self._tell_of(emptying, f"sessions {drained.loss}", sentence, f"lost {drained.look.boot}")
        return drained.empty

    async def _end_batch(self, emptying: Emptying, step: NextStep) -> None:
        """End one batch and pause, so that its users do not all log in with the next one's."""
        look = emptying.look or UNSEEN
        ended = await workflow.execute_activity_method(
            SessionActivities.end_sessions,
            EndOrder(
                operation=self._operation(f"end-{emptying.slot}"),
                slot=emptying.slot,
                leave=step.leave,
                exempt_too=self._forced is not None and self._forced.exempt_too,
                reason=step.reason,
            ),
            task_queue=self._order.gateway.task_queue,
            **steps.PATIENT,
        )
        emptying.spent += (look.sessions or 0) - step.leave
        emptying.ended += ended.ended
        emptying.look = ended.look
        if ended.look.sessions != 0:
            await workflow.sleep(self._order.limits.pause)

    # --- what failed decides -----------------------------------------------------

    async def _choose_mode(self, state: GatewayState, emptying: Emptying) -> None:
        """Probe the instance that was left and the one that serves: broken tunnels are not waited for."""
        serving = state.steering.trial or state.steering.serving
        left = await self._probe(emptying.slot)
        good = await self._probe(serving) if serving else None
        judged = self._order.failed is not None and emptying.release == self._order.failed
        emptying.mode, emptying.mode_reason = mode_of(
            self._order.decision if judged else None, left, good, self._order.limits.tunnel_gates
        )
        if emptying.mode is DrainMode.END:
            await self._tell_of(emptying, "tunnels found broken", emptying.mode_reason, "mode")

    async def _probe(self, slot: str) -> Probe | None:
        """Return what a probe found, None when there is none: no proof of anything."""
        try:
            return await workflow.execute_activity_method(
                InstanceActivities.probe_instance,
                SlotOrder(operation=self._operation(f"probe-{slot}"), slot=slot),
                task_queue=self._order.gateway.task_queue,
                **steps.PROBE,
            )
        except ActivityError as error:
            workflow.logger.info("no probe of slot %s: %s", slot, sentence_of(error))
            return None

    # --- telling -----------------------------------------------------------------

    async def _observe(self) -> GatewayState:
        return await workflow.execute_activity_method(
            InstanceActivities.observe_gateway, task_queue=self._order.gateway.task_queue, **steps.PATIENT
        )

    async def _tell_of(self, emptying: Emptying, action: str, sentence: str, key: str) -> None:
        await self._tell(action, f"slot {emptying.slot}: {sentence}", f"{emptying.slot} {key}")

    async def _tell(self, action: str, sentence: str, key: str, person: str = "penstock") -> None:
        """Have it in the audit record; a drain goes on without."""
        entry = EventEntry(
            action=action,
            subject=f"{self._order.gateway.name}/{self._order.rollout}",
            sentence=sentence,
            key=f"{workflow.info().workflow_id} {action} {key}",
            person=person,
        )
        try:
            await workflow.execute_activity_method(
                LedgerActivities.record_event, entry, task_queue=steps.CONTROL_QUEUE, **steps.ASK
            )
        except ActivityError as error:
            workflow.logger.warning("%s is not in the record: %s", action, sentence_of(error))

    def _operation(self, step: str) -> Operation:
        order = self._order
        return Operation(
            rollout=order.rollout,
            epoch=order.epoch,
            gateway=order.gateway.name,
            step=step,
            digest=order.digest,
        )
