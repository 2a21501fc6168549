"""The plan: which gateways change in which wave, printed before anything happens and bound by its digest."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

from pydantic import Field

from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.value import Digest, Duration, Message, Name, Value, digest_of
from policies.model.verdict import Window


class Strategy(StrEnum):
    """The ways to make waves."""

    CANARY = "canary"
    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"


class ReleaseRef(Message):
    """A release as a plan names it: by manifest digest, with labels for people."""

    digest: Digest
    product: Name
    version: str = Field(max_length=64)
    executable: Digest = Field(description="the daemon's digest that must be seen running")


class Wave(Value):
    """Gateways that are upgraded and judged together.

    `shares` are what their new instances get of the source addresses, in turn. Below 100 the old
    instance on the same gateway is the control; the verdict falls at the last share below 100.
    """

    number: int = Field(ge=1)
    gateways: tuple[str, ...] = Field(min_length=1)
    holdout: bool = Field(default=False, description="changes after all others, which it was compared with")
    shares: tuple[int, ...] = (100,)
    lease: Duration = timedelta(seconds=120)

    @property
    def compared_with_itself(self) -> bool:
        """Whether the control is the old instance on the same gateways."""
        return self.shares[0] < 100  # noqa: PLR2004 - per cent


class Skipped(Value):
    """A gateway the plan leaves alone, and why."""

    gateway: str
    reason: str
    serves: str = Field(default="", description="the release on which it takes users; empty when not known")
    is_there: bool = Field(default=False, description="whether it takes users on the plan's release already")


class Affected(Value):
    """Whom a plan touches and how long it takes, for people to read before they start it.

    `users` are the sessions counted on gateways that change; `uncounted` names gateways whose
    sessions are unknown, so that a sum never looks complete when it is not. `exposed` is the
    largest number of users on the gateways of one wave: what a bad release could reach before its verdict.
    """

    users: int
    exposed: int
    uncounted: tuple[str, ...]
    expected: timedelta
    longest: timedelta


class Plan(Value):
    """What will happen, to whom, and what everyone goes back to if it fails.

    `sessions` are what was counted when the plan was made: for people to read, and no part of
    what is decided, so that the same decisions have the same digest on a living fleet.
    """

    fleet: Fleet
    release: ReleaseRef
    strategy: Strategy
    waves: tuple[Wave, ...]
    skipped: tuple[Skipped, ...] = ()
    known_good: dict[str, ReleaseRef]
    sessions: dict[str, int | None] = {}
    window: Window
    gates: GatePolicy
    trust_policy: Digest

    @cached_property
    def digest(self) -> str:
        """The identity to which approvals bind: of everything but the counts."""
        return digest_of(self.model_dump_json(exclude={"sessions"}).encode())

    @cached_property
    def wave_of(self) -> Mapping[str, int]:
        """The number of the wave in which each gateway changes."""
        return {name: wave.number for wave in self.waves for name in wave.gateways}
