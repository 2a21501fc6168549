"""Steering: who gets a gateway's new sessions; live sessions stay where they are."""

from datetime import timedelta
from typing import Protocol

from pydantic import Field
from temporalio import activity

from activities.instances import SlotOrder
from activities.liveness import answering
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


class SteeringTable(Protocol):
    """The table that decides for one gateway; every change is atomic and read back.

    The implementation pins the source addresses of sessions alive on every other slot
    before it points new sessions elsewhere, so that a reconnect finds its own instance.
    """

    async def read(self) -> Steering:
        """Return the table as the kernel or balancer has it."""
        ...

    async def start_trial(
        self, operation: Operation, slot: str, lease: timedelta, *, renew: bool = False, share: int = 100
    ) -> Steering:
        """Send new sessions of so many percent of addresses to the slot until the lease ends.

        A repeat renews the lease; with `renew` it raises LeaseLapsed and changes nothing when the
        trial has ended already. A slot that serves for good needs no lease and stays as it is.
        """
        ...

    async def make_permanent(self, operation: Operation, slot: str) -> Steering:
        """Send new sessions to the slot with no lease, and end any trial."""
        ...

    async def end_trial(self, operation: Operation) -> Steering:
        """Send new sessions to the permanent slot again at once."""
        ...

    async def leave(self, slot: str) -> Steering:
        """Pin nobody to the slot any more, until it gets new sessions again."""
        ...


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
