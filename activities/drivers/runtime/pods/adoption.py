"""Adoption on a node: there is none; what a cluster starts, it also ends."""

import asyncio
from collections.abc import Sequence

from activities.drivers.runtime.host.process import Process
from policies.model.adoption import Adopted, FoundDaemon
from policies.model.errors import Refused
from policies.model.fleet import Gateway
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef


class NoAdoption:
    """Says of everything that could be adopted that it cannot."""

    not_again = ""

    def __init__(self, gateway: Gateway) -> None:
        """Take whose agent says so."""
        self._gateway = gateway
        self._why = (
            f"{gateway.name} is a node, on which only pods that its cluster starts serve: nothing is adopted "
            "there; install a release beside what serves, in slots of its own"
        )

    async def examine(self) -> FoundDaemon:
        """Return nothing but what is in the way."""
        return FoundDaemon(gateway=self._gateway.name, obstacles=(self._why,))

    async def adopt(self, operation: Operation, without: Sequence[str]) -> Adopted:  # noqa: ARG002
        """Refuse."""
        raise Refused(self._why)

    async def take_again(self, release: ReleaseRef) -> None:  # noqa: ARG002
        """Refuse."""
        raise Refused(self._why)

    async def end(self, running: Process) -> None:
        """Do nothing: nothing was adopted."""

    async def follow(self) -> None:
        """Do nothing: nothing was adopted."""

    async def keep(self) -> None:
        """Wait for ever: there is nothing to follow."""
        await asyncio.Event().wait()
