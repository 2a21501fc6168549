"""Draining a gateway: what gets no new sessions goes on until its last one has ended, then stops."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.instances import InstanceActivities, SlotOrder
from activities.sessions import DrainOrder, EndOrder, SessionActivities
from policies.words.fleet import Gateway
from policies.words.instance import GatewayState, InstanceState
from policies.words.operation import Operation
from policies.words.word import Name, Word
from workflows import steps
from workflows.failures import code_of, sentence_of

BATCH = 5
"""Sessions ended at once when a deadline is over: their users log in again together."""


class DrainGatewayOrder(Word):
    """Empty and stop whatever on this gateway gets no new sessions."""

    rollout: Name
    epoch: int
    gateway: Gateway
    digest: str
    deadline: timedelta


class DrainResult(Word):
    """Which slots were emptied and stopped, and how many sessions the deadline ended."""

    stopped: tuple[str, ...]
    sessions_ended: int = 0
    superseded: str | None = None
    """Which newer change took over; its own drain goes on where this one ended."""


@workflow.defn(name="Drain")
class Drain:
    """Wait for sessions to end by themselves; only the deadline ends them."""

    @workflow.run
    async def run(self, order: DrainGatewayOrder) -> DrainResult:
        """Return when nothing but the serving instance runs on the gateway."""
        state = await self._observe(order)
        slots = sorted(self._draining(state))
        try:
            ended = await asyncio.gather(*[self._empty_and_stop(order, slot) for slot in slots])
        except ActivityError as error:
            if code_of(error) != "Fenced":
                raise
            return DrainResult(stopped=(), superseded=sentence_of(error))
        return DrainResult(stopped=tuple(slots), sessions_ended=sum(ended))

    async def _observe(self, order: DrainGatewayOrder) -> GatewayState:
        return await workflow.execute_activity_method(
            InstanceActivities.observe_gateway, task_queue=order.gateway.task_queue, **steps.PATIENT
        )

    @staticmethod
    def _draining(state: GatewayState) -> list[str]:
        wanted = {state.steering.serving, state.steering.trial}
        return [
            instance.slot
            for instance in state.instances
            if instance.state is InstanceState.RUNNING and instance.slot not in wanted
        ]

    async def _empty_and_stop(self, order: DrainGatewayOrder, slot: str) -> int:
        """Return how many sessions the deadline ended; whoever slips in meanwhile is waited for again."""
        deadline = workflow.now() + order.deadline
        ended = 0
        while True:
            ended += await self._empty(order, slot, deadline)
            try:
                await workflow.execute_activity_method(
                    InstanceActivities.stop_instance,
                    SlotOrder(operation=self._operation(order, f"stop-{slot}"), slot=slot),
                    task_queue=order.gateway.task_queue,
                    **steps.PATIENT,
                )
            except ActivityError as error:
                if code_of(error) != "Refused":
                    raise
                workflow.logger.info("slot %s is not stopped yet: %s", slot, sentence_of(error))
                await workflow.sleep(steps.NEXT_LOOK)
            else:
                return ended

    async def _empty(self, order: DrainGatewayOrder, slot: str, deadline: datetime) -> int:
        queue = order.gateway.task_queue
        drained = await workflow.execute_activity_method(
            SessionActivities.drain_instance,
            DrainOrder(operation=self._operation(order, f"drain-{slot}"), slot=slot, deadline=deadline),
            task_queue=queue,
            start_to_close_timeout=order.deadline + timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )
        if drained.empty:
            return 0
        return await workflow.execute_activity_method(
            SessionActivities.end_sessions,
            EndOrder(
                operation=self._operation(order, f"end-{slot}"),
                slot=slot,
                batch=BATCH,
                reason="the drain deadline is over",
            ),
            task_queue=queue,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=10),
        )

    @staticmethod
    def _operation(order: DrainGatewayOrder, step: str) -> Operation:
        return Operation(
            rollout=order.rollout,
            epoch=order.epoch,
            gateway=order.gateway.name,
            step=step,
            digest=order.digest,
        )
