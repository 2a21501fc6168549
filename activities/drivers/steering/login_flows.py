"""The flows of clients that always send from one port: what they did last must not bind what they do next.

IKE clients send from their own ports 500 and 4500, so the kernel takes the next login for the flow of the
session before and sends it to the same instance, whatever the table says. So a flow to an instance is
forgotten unless it carries a live session, or the rest of a login that is under way. A login's beginning goes
to a port of its own, and nothing is lost with that flow: what the instance answers finds its way. The same
goes for a flow that an instance began: a goodbye that was sent when its session's flow was forgotten already
would have the next login taken for its answer.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from activities.drivers.daemon.port import Dialled, Session, Users
from activities.drivers.flows import Flow, Flows, flows_of, forget

Sources = frozenset[IPv4Address | IPv6Address]
AskUsers = Callable[[timedelta], Awaitable[Mapping[str, Users | None]]]
"""Asks who is there, of one look at every running instance, by slot; None for one that is silent."""


async def nobody(within: timedelta) -> Mapping[str, Users | None]:
    """Return that nothing runs."""
    del within
    return {}


@dataclass(frozen=True)
class FlowsSeen:
    """What flows there were, and then who was there, by one look: of a large gateway it takes a second."""

    flows: Mapping[str, Flows]
    users: Mapping[str, Users | None]

    @property
    def live(self) -> Mapping[str, tuple[Session, ...] | None]:
        """The sessions of every running instance by slot; None for one that is silent."""
        return {slot: None if users is None else users.sessions for slot, users in self.users.items()}


class LoginFlows:
    """The flows to instances in networks of their own; there are none elsewhere."""

    def __init__(self, homes: Mapping[str, IPv4Address], dialled: Sequence[Dialled], users: AskUsers) -> None:
        """Take the address of each slot, where logins begin and go on, and what tells who is there."""
        self._homes = dict(homes)
        self._begins = dialled[0].port
        self._ports = frozenset(one.port for one in dialled)
        self._users = users

    async def logging_in(self, within: timedelta) -> Mapping[str, Sources | None]:
        """Return from where somebody logs in right now, by slot."""
        users = await self._users(within) if self._homes else {}
        return {slot: None if found is None else found.logging_in for slot, found in users.items()}

    async def look(self, within: timedelta) -> FlowsSeen | None:
        """Return the flows and then who is there, None where nobody's flows are looked at.

        Raises:
            Unavailable: The kernel does not say.
        """
        if not self._homes:
            return None
        found = await flows_of(self._homes.values(), within)
        flows = {slot: found[home] for slot, home in self._homes.items()}
        return FlowsSeen(flows, await self._users(within))

    def forget_stale(self, seen: FlowsSeen) -> None:
        """Have the kernel forget what carries neither a session nor a login.

        Raises:
            Unavailable: The kernel does not do it.
        """
        for slot, flows in seen.flows.items():
            users = seen.users.get(slot, Users(()))
            if any(flows) and users is not None:
                forget(self._stale(flows, users))

    def _stale(self, flows: Flows, users: Users) -> Iterator[Flow]:
        stay = {session.source for session in users.sessions}
        for flow in flows.sent:
            begins = flow.port == self._begins
            if (flow.source, flow.source_port) not in stay and (
                begins or flow.source not in users.logging_in
            ):
                yield flow
        for flow in flows.begun:
            if (
                flow.source_port in self._ports
                and (flow.to, flow.port) not in stay
                and flow.to not in users.logging_in
            ):
                yield flow
