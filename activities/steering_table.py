"""The port of what steers a gateway. Processes that only read it do not load the engine's client."""

from datetime import timedelta
from typing import Protocol

from policies.model.instance import Steering
from policies.model.operation import Operation


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
