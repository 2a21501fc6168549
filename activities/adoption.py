"""Adoption on a gateway's host: describe the daemon that serves by itself, and take it over as it runs."""

from typing import Protocol

from temporalio import activity

from activities.liveness import answering
from policies.model.adoption import Adopted, AdoptOrder, FoundDaemon
from policies.model.operation import Operation


class Adoption(Protocol):
    """What serves one gateway by itself, and the one step that takes it over."""

    async def examine(self) -> FoundDaemon:
        """Return what serves here and what is in the way of adopting it; nothing is changed."""
        ...

    async def adopt(self, operation: Operation, without: tuple[str, ...]) -> Adopted:
        """Make what serves the gateway's first instance; Refused with the first thing in the way."""
        ...


class AdoptionActivities:
    """Steps on one gateway's host; safe to repeat after any crash."""

    def __init__(self, adoption: Adoption) -> None:
        self._adoption = adoption

    @activity.defn(name="examine_gateway")
    async def examine_gateway(self) -> FoundDaemon:
        """Return what serves this gateway without us."""
        async with answering():
            return await self._adoption.examine()

    @activity.defn(name="adopt_gateway")
    async def adopt_gateway(self, order: AdoptOrder) -> Adopted:
        """Ensure that what serves this gateway is its first instance; nobody is moved."""
        async with answering():
            return await self._adoption.adopt(order.operation, order.without)
