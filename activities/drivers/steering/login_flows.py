"""The flows of logins whose clients send from one port: what they tried last must not bind them.

IKE clients send from their own ports 500 and 4500, so the kernel takes the next login for the flow of the
one before and sends it to the same instance, whatever the table says. A flow that carries no live session is
forgotten: when new sessions go elsewhere, that of a login's beginning at once, and the rest of a login that
has led to nothing a while later, since it may just be under way; when an instance is left, all at once.
Forgetting one is harmless wherever the table still sends its source to the same instance.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import IPv4Address

from activities.drivers.daemon.port import Dialled, Session
from activities.drivers.flows import Flow, flows_to, forget

UNDER_WAY = timedelta(seconds=10)
"""How long a login goes on whose user types nothing."""

Flows = Mapping[str, tuple[Flow, ...]]
"""By slot."""


class LoginFlows:
    """The flows to instances in networks of their own; there are none elsewhere."""

    def __init__(self, homes: Mapping[str, IPv4Address], dialled: Sequence[Dialled]) -> None:
        """Take the address of each slot, and where logins begin."""
        self._homes = dict(homes)
        self._begins = {one.port for one in dialled if not one.stays}
        self._changed = time.monotonic()

    async def read(self) -> Flows:
        """Return what flows there are; it is asked before the sessions are, so that none is missed.

        Raises:
            Unavailable: The kernel does not say.
        """
        if not self._homes:
            return {}
        found = await flows_to(self._homes.values())
        return {slot: found[home] for slot, home in self._homes.items()}

    async def follow_change(self) -> None:
        """Have every login begin anew: who gets new sessions has just changed.

        Raises:
            Unavailable: The kernel does not do it.
        """
        self._changed = time.monotonic()
        for flows in (await self.read()).values():
            forget(flow for flow in flows if flow.port in self._begins)

    def forget_failed(
        self, flows: Flows, live: Mapping[str, Sequence[Session] | None], target: Collection[str | None]
    ) -> None:
        """Forget what leads to instances that get no new sessions, and that no session came of.

        Raises:
            Unavailable: The kernel does not do it.
        """
        if time.monotonic() - self._changed > UNDER_WAY.total_seconds():
            for slot in flows.keys() - set(target):
                forget(_without_session(flows[slot], live.get(slot, ())))

    def forget_left(self, flows: Flows, live: Mapping[str, Sequence[Session] | None], slot: str) -> None:
        """Forget what leads to an instance that is being left, and is no live session.

        Raises:
            Unavailable: The kernel does not do it.
        """
        forget(_without_session(flows.get(slot, ()), live.get(slot, ())))


def _without_session(flows: Sequence[Flow], sessions: Sequence[Session] | None) -> Iterator[Flow]:
    """Yield the flows that are none of these sessions'; none at all where sessions are unknown."""
    if sessions is not None:
        stay = {session.source for session in sessions}
        yield from (flow for flow in flows if (flow.source, flow.source_port) not in stay)
