"""A gateway's path: what its host measured of the way that users' packets take through it."""

from datetime import datetime

from pydantic import Field

from policies.model.value import Count, Message, Name, Sentence, Value

MOST = 16
"""Of each kind so many are told: a host has few slots, and one rule that drops is enough."""


class TriedTunnel(Message):
    """One session of the probe's user through a slot's own port, and how its packets fared."""

    slot: Name
    let_in: bool = False
    mtu: Count = 0
    small: tuple[Count, Count] = (0, 0)
    """Pings of 120 bytes that were sent, and that came back."""
    full: tuple[Count, Count] = (0, 0)
    """Pings as large as the tunnel takes, which may not be cut into pieces."""
    dns: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """The DNS servers that clients are given; None where the probe of this daemon does not read them."""
    dns_silent: tuple[Sentence, ...] = Field(default=(), max_length=MOST)
    """Those of them that answered nothing through the tunnel."""
    words: Sentence = ""
    """The client's last words, or why there was none."""


class PathFacts(Message):
    """What a host knows of the way through it; None stands for what could not be read."""

    gateway: Name
    running: tuple[Name, ...] = Field(default=(), max_length=MOST)
    """Slots whose instance is alive."""
    ended: tuple[Name, ...] = Field(default=(), max_length=MOST)
    """Slots whose instance is to run, and does not."""
    devices_down: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """Tunnel devices of instances that are there and not up."""
    steered_to: Name | None = None
    """The slot that new sessions go to, None where nothing steers them."""
    steering: bool | None = None
    """Whether the steering table is loaded; None where it cannot be read."""
    steering_unread: Sentence = ""
    """Why it cannot be read."""
    forwards4: bool | None = None
    forwards6: bool | None = None
    """Whether the kernel forwards packets; of IPv6 None where no slot has such a pool."""
    drops: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """Rules and chains of the packet filter that drop what is forwarded."""
    uncovered: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """Rules of the packet filter that name the pool or device of one slot, and not those of another."""
    uncovered_unread: Sentence = ""
    """Why they cannot be compared."""
    spared: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """Bans and limits at the port that users dial that do not hold at the port of a slot."""
    flushes: bool | None = None
    """Whether the rules that nftables.service loads remove all tables first; None where it loads none."""
    translates: bool | None = None
    """Whether any rule translates the addresses of users (NAT, masquerade)."""
    misrouted: tuple[Sentence, ...] | None = Field(default=(), max_length=MOST)
    """Pools whose packets go elsewhere on their way back."""
    tracked: Count | None = None
    trackable: Count | None = None
    """Connections that the kernel tracks, and how many it may."""
    target: Sentence = ""
    """What is pinged through the tunnels."""
    target_is_here: bool = False
    """Whether it is an address of the host itself: then nothing is forwarded to it."""
    tried: tuple[TriedTunnel, ...] = Field(default=(), max_length=MOST)


class PathFinding(Value):
    """One thing that was looked at on the way: how it is, and what to do."""

    about: str
    well: bool
    sentence: str
    mend: str = ""
    tested: bool = True
    """False where the probe of this daemon makes no such test; such a finding counts as no fault."""


class PathWalked(Value):
    """What was found on the way through a gateway, in the order in which packets meet it."""

    fleet: Name
    gateway: Name
    findings: tuple[PathFinding, ...]
    as_of: datetime | None = None
    """When the gateway began to be asked."""
