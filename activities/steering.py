"""Steering: who gets a gateway's new sessions; live sessions stay where they are."""

from datetime import timedelta

from pydantic import Field
from temporalio import activity

from activities.instances import SlotOrder
from activities.liveness import answering
from activities.steering_table import SteeringTable
from policies.model.instance import Steering
from policies.model.operation import Operation
from policies.model.value import Message, Name


class TrialOrder(Message):
    """Send new sessions to this slot for the length of the lease, unless confirmed again.

    With `renew` only a trial whose lease still lasts is renewed; one that lapsed meanwhile stays
    over. `share` is the percent of source addresses whose new sessions go to the slot; who is
    among them is fixed by the rollout's name, and a larger share keeps everybody of a smaller one.
    """

    operation: Operation
    slot: Name
    lease: timedelta
    renew: bool = False
    share: int = Field(default=100, ge=1, le=100)


class SteeringActivities:
    """Steering steps on one gateway; safe to repeat after any crash."""

    def __init__(self, table: SteeringTable) -> None:
        self._table = table

    @activity.defn(name="start_trial")
    async def start_trial(self, order: TrialOrder) -> Steering:
        """Ensure that new sessions go to the slot while its lease is confirmed."""
        async with answering():
            return await self._table.start_trial(
                order.operation, order.slot, order.lease, renew=order.renew, share=order.share
            )

    @activity.defn(name="make_permanent")
    async def make_permanent(self, order: SlotOrder) -> Steering:
        """Ensure that new sessions go to the slot, with or without anybody alive to confirm it."""
        async with answering():
            return await self._table.make_permanent(order.operation, order.slot)

    @activity.defn(name="end_trial")
    async def end_trial(self, operation: Operation) -> Steering:
        """Ensure that new sessions go to the permanent slot."""
        async with answering():
            return await self._table.end_trial(operation)
