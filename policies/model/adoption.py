"""Adoption: a daemon that serves a gateway by itself, as it was found, and as a change takes it over."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from policies.model.instance import LAST_PID
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.value import Count, Message, Name, Sentence, Value

ADOPTED = "adopted"
"""The slot of a daemon that was adopted: it has the users' own port, and no release can be put there."""

MARK = "+adopted"
"""How the version of what was adopted ends, wherever it is shown: no signature says what it is."""

MOST_LINES = 64
"""Lines of a configuration that an answer names."""


class OwnLine(Message):
    """A line of a daemon's own configuration that the release after it would be without, and why."""

    number: int = Field(ge=1, le=1_000_000)
    key: Sentence
    reason: Sentence

    def __str__(self) -> str:
        """Return it as people read it: where it is, what it says, and why it stays behind."""
        return f"line {self.number}, {self.key}: {self.reason}"


class FreeSlot(Message):
    """A slot that a gateway could have beside its own daemon, as the files of fleet and agent write it."""

    name: Name
    port: int = Field(ge=1, le=65535)
    device: Sentence
    pool4: Sentence
    pool6: Sentence = ""


class FoundDaemon(Message):
    """What serves a gateway without us; `obstacles` say why it cannot be adopted, and nothing else may.

    `release` names what runs by its executable's digest: it was verified by nobody. `slots` are what its
    own configuration would make of the gateway, for the files of the fleet and of the agent; `pools` are
    its own, and behind them those of some of its users, the widest first. `unit` is empty where no unit of
    the host's started it.
    """

    gateway: Name
    obstacles: tuple[Sentence, ...] = Field(default=(), max_length=MOST_LINES)
    pid: int | None = Field(default=None, ge=1, le=LAST_PID)
    release: ReleaseRef | None = None
    config: Sentence = ""
    unit: Sentence = ""
    sessions: Count | None = None
    pools: tuple[IPv4Network | IPv6Network, ...] = Field(default=(), max_length=MOST_LINES)
    slots: tuple[FreeSlot, ...] = Field(default=(), max_length=MOST_LINES)
    left_behind: tuple[OwnLine, ...] = Field(default=(), max_length=MOST_LINES)
    probe: Sentence = Field(
        default="",
        description="why the probe's user gets no tunnel of it; empty where one was tried and worked",
    )


class AdoptOrder(Message):
    """Which lines of its configuration may stay behind, by their keys: the next release has its own way."""

    operation: Operation
    without: tuple[Sentence, ...] = ()


class Adopted(Message):
    """A gateway whose own daemon is its first instance now; nobody was moved and nothing restarted.

    `sessions` is how many it had a moment before.
    """

    gateway: Name
    release: ReleaseRef
    sessions: Count
    config: Sentence = ""
    unit: Sentence = ""
    changed: bool


class Examined(Value):
    """What serves each gateway that answered, and why the others are silent."""

    found: tuple[FoundDaemon, ...] = ()
    silent: dict[str, str] = {}
