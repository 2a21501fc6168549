"""A plan in parts: a header without gateways, and parts of at most fifty gateways.

Workflows carry the plan's digest and read only the part they work on, so that nothing in the
engine grows with the fleet but the number of parts.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import Field

from policies.words.fleet import Fleet, Gateway, Limits
from policies.words.plan import Plan, ReleaseRef, Strategy
from policies.words.word import Digest, Name, Word

MOST_MEMBERS = 50
"""Gateways of one part: a history of fifty coroutines stays far below 4,096 events (research: temporal.md)."""


class PartKey(Word):
    """Which part of a plan; wave 0 holds the gateways of a change that only goes back."""

    wave: int = Field(ge=0)
    number: int = Field(ge=1)


class Member(Word):
    """One gateway of a part, and the release it goes back to."""

    gateway: Gateway
    back: ReleaseRef


class Part(Word):
    """Gateways that one workflow looks after."""

    key: PartKey
    members: tuple[Member, ...] = Field(min_length=1, max_length=MOST_MEMBERS)


class WaveHeader(Word):
    """A wave without its gateways."""

    number: int
    gateways: int
    parts: int
    may_fail: int = 0
    """Gateways that may fail by themselves before it is the release's fault."""
    lease: timedelta
    shares: tuple[int, ...] = (100,)
    holdout: bool = False

    @property
    def keys(self) -> tuple[PartKey, ...]:
        """The keys of the wave's parts, in order."""
        return tuple(PartKey(wave=self.number, number=number) for number in range(1, self.parts + 1))


class PlanHeader(Word):
    """All of a plan that does not grow with the fleet."""

    digest: Digest
    fleet: Name
    product: Name
    channel: Name
    limits: Limits
    gateways: int
    """Gateways of the fleet, those that the plan leaves alone too."""
    trust_policy: Digest | None = None
    release: ReleaseRef | None = None
    strategy: Strategy | None = None
    waves: tuple[WaveHeader, ...]
    window_minimum: timedelta = timedelta(0)
    window_cap: timedelta = timedelta(0)

    @property
    def changing(self) -> int:
        """How many gateways the plan changes."""
        return sum(wave.gateways for wave in self.waves)

    def wave(self, number: int) -> WaveHeader:
        """Return that wave; KeyError when the plan has none of this number."""
        for wave in self.waves:
            if wave.number == number:
                return wave
        raise KeyError(number)


class PartedPlan(Word):
    """A plan as it is stored: its header, and its parts by wave."""

    header: PlanHeader
    parts: tuple[Part, ...]


def parted(plan: Plan) -> PartedPlan:
    """Return the plan of an upgrade in parts; each part keeps the order in which its wave starts gateways."""
    parts, waves = [], []
    for wave in plan.waves:
        members = [Member(gateway=plan.fleet.gateway(n), back=plan.known_good[n]) for n in wave.gateways]
        of_wave = _parts(wave.number, members)
        parts += of_wave
        waves.append(
            WaveHeader(
                number=wave.number,
                gateways=len(members),
                parts=len(of_wave),
                lease=plan.fleet.limits.lease,
            )
        )
    header = PlanHeader(
        digest=plan.digest,
        fleet=plan.fleet.name,
        product=plan.fleet.product,
        channel=plan.fleet.channel,
        limits=plan.fleet.limits,
        gateways=len(plan.fleet.gateways),
        trust_policy=plan.trust_policy,
        release=plan.release,
        strategy=plan.strategy,
        waves=tuple(waves),
        window_minimum=plan.window.minimum,
        window_cap=plan.window.cap,
    )
    return PartedPlan(header=header, parts=tuple(parts))


def parted_return(digest: Digest, fleet: Fleet, targets: Mapping[str, ReleaseRef]) -> PartedPlan:
    """Return a change that only goes back, in parts: each gateway with the release it goes back to."""
    members = [Member(gateway=fleet.gateway(name), back=back) for name, back in sorted(targets.items())]
    parts = _parts(0, members)
    waves = (
        (WaveHeader(number=0, gateways=len(members), parts=len(parts), lease=fleet.limits.lease),)
        if members
        else ()
    )
    header = PlanHeader(
        digest=digest,
        fleet=fleet.name,
        product=fleet.product,
        channel=fleet.channel,
        limits=fleet.limits,
        gateways=len(fleet.gateways),
        waves=waves,
    )
    return PartedPlan(header=header, parts=tuple(parts))


def _parts(wave: int, members: Sequence[Member]) -> list[Part]:
    return [
        Part(key=PartKey(wave=wave, number=number), members=tuple(members[first : first + MOST_MEMBERS]))
        for number, first in enumerate(range(0, len(members), MOST_MEMBERS), start=1)
    ]
