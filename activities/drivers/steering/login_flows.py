"""The flows of clients that always send from one port: what they did last must not bind what they do next.

IKE clients send from their own ports 500 and 4500, so the kernel takes the next login for the flow of the
session before and sends it to the same instance, whatever the table says. So a flow to an instance is
forgotten unless it carries a live session, or the rest of a login that is under way. A login's beginning goes
to a port of its own, and nothing is lost with that flow: what the instance answers finds its way.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from activities.drivers.daemon.port import Dialled, Session
from activities.drivers.flows import Flow, flows_to, forget

Sources = frozenset[IPv4Address | IPv6Address]
LoggingIn = Callable[[timedelta], Awaitable[Mapping[str, Sources | None]]]
"""From where somebody logs in right now, for every running instance by slot; None for one that is silent."""


async def nobody(within: timedelta) -> Mapping[str, Sources | None]:
    """Return that nobody logs in."""
    del within
    return {}


@dataclass(frozen=True)
class FlowsSeen:
    """What flows there were, and then who logged in; sessions are asked for after that, so none is missed."""

    flows: Mapping[str, tuple[Flow, ...]]
    logging_in: Mapping[str, Sources | None]


class LoginFlows:
    """The flows to instances in networks of their own; there are none elsewhere."""

    def __init__(
        self, homes: Mapping[str, IPv4Address], dialled: Sequence[Dialled], logging_in: LoggingIn
    ) -> None:
        """Take the address of each slot, where logins begin and go on, and what tells who logs in."""
        self._homes = dict(homes)
        self._begins = dialled[0].port
        self._logging_in = logging_in

    async def logging_in(self, within: timedelta) -> Mapping[str, Sources | None]:
        """Return from where somebody logs in right now, by slot."""
        return await self._logging_in(within) if self._homes else {}

    async def look(self, within: timedelta) -> FlowsSeen:
        """Return what there is before sessions are asked for.

        Raises:
            Unavailable: The kernel does not say.
        """
        if not self._homes:
            return FlowsSeen({}, {})
        found = await flows_to(self._homes.values(), within)
        flows = {slot: found[home] for slot, home in self._homes.items()}
        return FlowsSeen(flows, await self.logging_in(within))

    def forget_stale(self, seen: FlowsSeen, live: Mapping[str, Sequence[Session] | None]) -> None:
        """Have the kernel forget what carries neither a session nor a login.

        Raises:
            Unavailable: The kernel does not do it.
        """
        for slot, flows in seen.flows.items():
            sessions, sources = live.get(slot, ()), seen.logging_in.get(slot, frozenset())
            if flows and sessions is not None and sources is not None:
                stay = {session.source for session in sessions}
                forget(
                    flow
                    for flow in flows
                    if (flow.source, flow.source_port) not in stay
                    and (flow.port == self._begins or flow.source not in sources)
                )
