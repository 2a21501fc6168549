"""Cut a plan into a header and parts, so that nobody has to carry all gateways of a large fleet."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from policies.model.fleet import Fleet, Gateway, GatewayRef
from policies.model.plan import Plan, ReleaseRef
from policies.model.plan_part import MOST_MEMBERS, Member, Part, PartKey, PlanHeader, WaveHeader
from policies.model.settings import Setting
from policies.model.value import Digest, Value, digest_of
from policies.planning.batches import batches
from policies.planning.failure_budget import may_fail
from policies.planning.naming import MOST
from policies.planning.stagger import deadlines

MOST_CHARACTERS = 160_000
"""Of the settings of a part: with its gateways it stays below the 256 KiB from which the engine warns."""


class PartedPlan(Value):
    """A plan as it is stored: its header, and its parts wave after wave."""

    header: PlanHeader
    parts: tuple[Part, ...]


def parted(plan: Plan) -> PartedPlan:
    """Return the plan of an upgrade in parts; the parts of a wave are its batches."""
    waves, parts = [], []
    order = [plan.fleet.gateway(name) for wave in plan.waves for name in wave.gateways]
    limits = plan.fleet.limits
    within = deadlines(order, plan.sessions, limits.drain_deadline, limits.drain)
    for wave in plan.waves:
        of_wave = batches(plan, wave)
        in_domain = Counter(plan.fleet.gateway(name).domain for name in wave.gateways)
        for number, names in enumerate(of_wave, start=1):
            members = [member_of(plan.fleet.gateway(n), plan.known_good[n], within[n]) for n in names]
            parts.append(_part(wave.number, number, members))
        waves.append(
            WaveHeader(
                number=wave.number,
                gateways=len(wave.gateways),
                parts=len(of_wave),
                lease=wave.lease,
                may_fail=may_fail(plan, wave),
                shares=wave.shares,
                holdout=wave.holdout,
                one_after_the_other=max(in_domain.values()) > limits.switching_per_domain,
            )
        )
    left_alone = tuple(skip for skip in plan.skipped if not skip.is_there)
    header = header_of(plan.fleet, plan.digest, waves).model_copy(
        update={
            "left_alone": left_alone[:MOST],
            "left_alone_count": len(left_alone),
            "release": plan.release,
            "strategy": plan.strategy,
            "trust_policy": plan.trust_policy,
            "window_minimum": plan.window.minimum,
            "window_cap": plan.window.cap,
            "tests": plan.fleet.tests,
            "on_window_close": plan.fleet.on_window_close,
        }
    )
    return PartedPlan(header=header, parts=tuple(parts))


def parted_return(
    fleet: Fleet,
    targets: Mapping[str, ReleaseRef],
    departed: Mapping[str, Member] | None = None,
    named: ReleaseRef | None = None,
    drifted: Collection[str] = (),
) -> PartedPlan:
    """Return a plan that only goes back: each gateway to the release given for it.

    Args:
        fleet: As its file describes it now.
        targets: Where each gateway goes.
        departed: Gateways that the file does not have any more, as the last plan had them.
        named: The release that the operator named, None where each gateway goes to its known-good.
        drifted: Gateways that no change took from their known-good.

    Raises:
        Unknown: A gateway is neither in the file nor among those that departed.
    """
    former = departed or {}
    members = [
        former[name].model_copy(
            update={"back": back, "departed": True, "drains_within": None, "settings": None}
        )
        if name in former
        else member_of(fleet.gateway(name), back).model_copy(update={"drifted": name in drifted})
        for name, back in sorted(targets.items())
    ]
    return _single(fleet, members, named)


def parted_first(
    fleet: Fleet, release: ReleaseRef, settings: Mapping[str, tuple[Setting, ...]] = MappingProxyType({})
) -> PartedPlan:
    """Return a plan by which a fleet's empty gateways begin with their first release, and these settings."""
    members = [
        member_of(gateway).model_copy(update={"settings": settings.get(gateway.name)})
        for gateway in fleet.gateways
    ]
    return _single(fleet, members, release)


def parted_adoption(fleet: Fleet, names: Collection[str]) -> PartedPlan:
    """Return a plan by which these gateways keep what serves them as their first known-good."""
    return _single(fleet, [member_of(fleet.gateway(name)) for name in sorted(names)], None)


def _single(fleet: Fleet, members: Sequence[Member], release: ReleaseRef | None) -> PartedPlan:
    parts = in_parts(0, members, most_together(members))
    lease = fleet.limits.lease
    waves = [WaveHeader(number=0, gateways=len(members), parts=len(parts), lease=lease)] if members else []
    content = [fleet.name, release.digest if release else "", *(part.model_dump_json() for part in parts)]
    digest = digest_of("\n".join(content).encode())
    header = header_of(fleet, digest, waves).model_copy(update={"release": release})
    return PartedPlan(header=header, parts=tuple(parts))


def most_together(members: Sequence[Member]) -> int:
    """Return how many members of a plan one part holds: the more settings one of them has, the fewer."""
    largest = max((_characters(member) for member in members), default=0)
    return max(1, min(MOST_MEMBERS, MOST_CHARACTERS // max(1, largest)))


def in_parts(wave: int, members: Sequence[Member], most: int = MOST_MEMBERS) -> list[Part]:
    """Return the members of a wave in parts, in their order."""
    return [
        _part(wave, number, members[first : first + most])
        for number, first in enumerate(range(0, len(members), most), start=1)
    ]


def _characters(member: Member) -> int:
    """Return how long the member's settings are as JSON; three characters stand around each value."""
    return sum(
        len(setting.key) + sum(len(value) + 3 for value in setting.values)
        for setting in member.settings or ()
    )


def header_of(fleet: Fleet, digest: Digest, waves: Sequence[WaveHeader]) -> PlanHeader:
    """Return the header of a plan with these waves that leads to no release."""
    return PlanHeader(
        digest=digest,
        fleet=fleet.name,
        product=fleet.product,
        channel=fleet.channel,
        limits=fleet.limits,
        gateways=len(fleet.gateways),
        waves=tuple(waves),
    )


def _part(wave: int, number: int, members: Sequence[Member]) -> Part:
    return Part(key=PartKey(wave=wave, number=number), members=tuple(members))


def member_of(gateway: Gateway, back: ReleaseRef | None = None, within: timedelta | None = None) -> Member:
    """Return the gateway without its addresses and slots: only its own host needs those."""
    known = {field: getattr(gateway, field) for field in GatewayRef.model_fields}
    return Member.of_valid(
        gateway=GatewayRef.of_valid(**known),
        target=gateway.metrics_target,
        back=back,
        drains_within=within,
        settings=None,
        departed=False,
        drifted=False,
    )
