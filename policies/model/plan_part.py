"""A plan in parts: a header without gateways, and parts of at most fifty gateways.

Workflows carry the header and read only the part they work on, so that nothing in the engine
grows with the fleet but the number of parts.
"""

from datetime import timedelta

from pydantic import Field

from policies.model.fleet import GatewayRef, Limits
from policies.model.plan import ReleaseRef, Skipped, Strategy
from policies.model.release_tests import ReleaseTests
from policies.model.settings import Setting
from policies.model.value import Digest, Name, Value
from policies.model.windows import OnWindowClose

MOST_MEMBERS = 50
"""Gateways of one part: the history of fifty coroutines stays far below 4,096 events (temporal.md)."""


class PartKey(Value):
    """Which part of a plan; wave 0 holds the gateways of a plan that only goes back."""

    wave: int = Field(ge=0)
    number: int = Field(ge=1)

    @property
    def path(self) -> str:
        """The part's place in the ids of workflows."""
        return f"{self.wave:03}/{self.number:04}"


class Member(Value):
    """One gateway of a part, and the release it goes back to; None where nothing ran before."""

    gateway: GatewayRef
    target: str = Field(default="", description="its instance label in Prometheus")
    back: ReleaseRef | None = None
    drains_within: timedelta | None = Field(default=None, description="its own deadline among the fleet's")
    settings: tuple[Setting, ...] | None = Field(
        default=None,
        exclude_if=lambda settings: settings is None,
        description="what its instances are to say in place of their release, where the plan changes that",
    )
    departed: bool = Field(
        default=False,
        exclude_if=lambda departed: not departed,
        description="whether the fleet's file has no such gateway any more: it goes back if it answers",
    )
    drifted: bool = Field(
        default=False,
        exclude_if=lambda drifted: not drifted,
        description="whether no change that died took it from its known-good",
    )


class Part(Value):
    """Gateways that one workflow looks after."""

    key: PartKey
    members: tuple[Member, ...] = Field(min_length=1, max_length=MOST_MEMBERS)


class WaveHeader(Value):
    """A wave without its gateways."""

    number: int
    gateways: int
    parts: int
    lease: timedelta
    may_fail: int = Field(default=0, description="gateways that may fail by themselves")
    shares: tuple[int, ...] = (100,)
    holdout: bool = False
    one_after_the_other: bool = False
    """Whether its parts share domains, so that no two of them may switch at once."""

    @property
    def keys(self) -> tuple[PartKey, ...]:
        """The keys of the wave's parts, in order."""
        return tuple(PartKey(wave=self.number, number=number) for number in range(1, self.parts + 1))


class PlanHeader(Value):
    """All of a plan that does not grow with the fleet."""

    digest: Digest
    fleet: Name
    product: Name
    channel: Name
    limits: Limits
    gateways: int = Field(description="gateways of the fleet, those that the plan leaves alone too")
    waves: tuple[WaveHeader, ...]
    release: ReleaseRef | None = Field(default=None, description="None when each goes back to its own")
    strategy: Strategy | None = None
    trust_policy: Digest | None = None
    tests: ReleaseTests | None = Field(default=None, description="what comes before exposure; None for none")
    window_minimum: timedelta = timedelta(0)
    window_cap: timedelta = timedelta(0)
    settings: tuple[str, ...] = Field(
        default=(), exclude_if=lambda keys: not keys, description="keys of settings that the plan changes"
    )
    differences: tuple[str, ...] = Field(
        default=(), exclude_if=lambda said: not said, description="how, for people to read"
    )
    passed_over: str = Field(
        default="",
        exclude_if=lambda said: not said,
        description="gateways that do not get the settings, and why, in a sentence for people to read",
    )
    on_window_close: OnWindowClose = Field(
        default=OnWindowClose.FINISH_WAVE,
        exclude_if=lambda what: what is OnWindowClose.FINISH_WAVE,
        description="what becomes of a wave that is under way when its window closes",
    )
    approvals: int = Field(
        default=0, exclude_if=lambda count: not count, description="people that the fleet's file asks for"
    )
    only_changed: bool = Field(
        default=False,
        exclude_if=lambda only: not only,
        description="of a reload of credentials: only gateways whose hosts had others than what runs there",
    )
    left_alone: tuple[Skipped, ...] = Field(
        default=(),
        exclude_if=lambda skipped: not skipped,
        description="the first gateways that the plan does not bring to its release",
    )
    left_alone_count: int = Field(
        default=0, exclude_if=lambda count: not count, description="how many there are in all"
    )

    @property
    def changing(self) -> int:
        """How many gateways the plan changes."""
        return sum(wave.gateways for wave in self.waves)

    @property
    def keys(self) -> tuple[PartKey, ...]:
        """The keys of all parts, wave after wave."""
        return tuple(key for wave in self.waves for key in wave.keys)

    def wave(self, number: int) -> WaveHeader:
        """Return that wave; KeyError when the plan has none of this number."""
        return {wave.number: wave for wave in self.waves}[number]
