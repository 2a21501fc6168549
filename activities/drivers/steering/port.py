"""The port of steering: all that an agent, its slots and its exporter need to know of what steers."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from activities.drivers.daemon.port import Dialled, Secret, Wandering
from activities.drivers.steering.homes import Home
from activities.drivers.steering.login_flows import AskUsers, nobody
from activities.steering_table import SteeringTable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Steering
from policies.steering import Promises

Reads = Callable[[Gateway, Path, Mapping[Home, str]], Awaitable[Steering]]
"""Reads a gateway's steering for a process that changes nothing: the gateway, its agent's folder, and the
slot of each home. Unavailable when it cannot be read."""


@dataclass(frozen=True)
class Means:
    """What a gateway's agent has for its steering, beside orders."""

    root: Path
    """The agent's folder."""
    dialled: Sequence[Dialled] = ()
    """Where users begin: the gateway's port by TCP unless given."""
    wandering: Sequence[Wandering] = ()
    """How packets of sessions are told whose users' addresses have changed."""
    mid_session: str = ""
    """What matches a packet that only a live session sends, where its client heeds a refusal."""
    users: AskUsers = nobody
    """Who has a session, and who is just about to have one, where instances have networks of their own."""
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    """What the agent's file names, by name."""
    proxies: Collection[IPv4Address | IPv6Address] = ()
    """Addresses from which many users come, each on a flow of its own: nobody is told by them."""
    hook: Path | None = None
    """The program that steers, where the file names one."""
    certificate: str = "certificate"
    key: str = "key"
    """Which of them are shown to users by what answers them before an instance does."""


class SteeringDriver(SteeringTable, Protocol):
    """What says who gets one gateway's new sessions.

    Whatever was written is read back, and differs from what was wanted only with a Conflict. A trial ends by
    itself with its lease, also when nobody of ours is alive.
    """

    @property
    def promises(self) -> Promises:
        """What users can count on while it steers."""
        ...

    @property
    def permanent(self) -> str | None:
        """The slot that was made permanent last, and is so after a reboot; None before the first."""
        ...

    @property
    def listens(self) -> Collection[int]:
        """The processes of its own that take connections on the users' port."""
        ...

    def take(self, adopted: Slot) -> None:
        """Know the slot of a daemon that is being adopted; Refused where none can be."""
        ...

    async def prime(self) -> Steering:
        """Ensure that it is there, and says what it said before a reboot."""
        ...

    async def refresh(self) -> Steering:
        """Ensure that whoever has a session finds it again; who gets new sessions stays as it is."""
        ...

    async def heal(self) -> bool:
        """Write again what somebody removed or changed; say whether that was so."""
        ...

    async def keep(self) -> None:
        """Heal and refresh for ever, without any order."""
        ...

    async def words(self) -> str:
        """Return what it says in its product's own words, for who looks at a failure."""
        ...

    async def remove(self) -> None:
        """Take it away, whatever that costs: for the end of a lab only."""
        ...
