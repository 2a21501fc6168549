"""Cut a reload of credentials or settings into waves: one gateway first, then as the fleet's steps say."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor

from policies.model.fleet import Fleet, amount
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan_part import Member, Part, WaveHeader
from policies.model.value import digest_of
from policies.planning.parts import PartedPlan, cut, header_of
from policies.planning.settings import Changing


def running(
    states: Mapping[str, GatewayState], but: frozenset[str], *, unserved: bool = False
) -> tuple[str, ...]:
    """Return the gateways on which something runs, the one with the fewest sessions first.

    Args:
        states: What every gateway that answered is like; one whose sessions are unknown comes last.
        but: Who is left out of changes.
        unserved: Only those whose hosts have other credentials than what runs there.
    """
    found = []
    for name, state in states.items():
        alive = [one for one in state.instances if one.state is InstanceState.RUNNING]
        if alive and name not in but and (state.unserved or not unserved):
            uncounted = any(one.sessions is None for one in alive)
            found.append((uncounted, sum(one.sessions or 0 for one in alive), name))
    return tuple(name for *_, name in sorted(found))


def parted_reload(fleet: Fleet, names: tuple[str, ...], *, at_once: bool = False) -> PartedPlan:
    """Return a plan by which these gateways, in this order, get their hosts' present credentials.

    All after the first one come at once if that is meant: somebody is to be kept out everywhere now.
    """
    steps = ("100%",) if at_once else fleet.limits.steps
    return _parted(fleet, names, "credentials", {"approvals": fleet.reload_approvals}, steps)


def parted_settings(fleet: Fleet, names: tuple[str, ...], changing: Changing) -> PartedPlan:
    """Return a plan by which these gateways, in this order, get the settings of the fleet's file.

    Its digest is of who gets what, and not of the order, which follows live counts: what was approved is
    still the same plan when users have come and gone.
    """
    more = {"settings": changing.keys, "differences": changing.sentences, "approvals": fleet.approvals}
    made = _parted(fleet, names, "settings", more, fleet.limits.steps)
    parts = tuple(
        part.model_copy(update={"members": tuple(_configured(fleet, member) for member in part.members)})
        for part in made.parts
    )
    members = sorted(member.model_dump_json() for part in parts for member in part.members)
    unnamed = made.header.model_copy(update={"digest": ""}).model_dump_json()
    header = made.header.model_copy(update={"digest": digest_of("\n".join([unnamed, *members]).encode())})
    return PartedPlan(header=header, parts=parts)


def _configured(fleet: Fleet, member: Member) -> Member:
    settings = fleet.settings_of(fleet.gateway(member.gateway.name))
    return member.model_copy(update={"settings": settings})


def _parted(
    fleet: Fleet, names: tuple[str, ...], what: str, more: Mapping[str, object], steps: tuple[str, ...]
) -> PartedPlan:
    waves, parts, done = list[WaveHeader](), list[Part](), 0
    for step in ("1", *steps):
        upto = min(len(names), amount(step, len(names)))
        if upto <= done:
            continue
        number = len(waves) + 1
        of_wave = cut(number, [fleet.gateway(name) for name in names[done:upto]])
        waves.append(
            WaveHeader(
                number=number,
                gateways=upto - done,
                parts=len(of_wave),
                lease=fleet.limits.lease,
                may_fail=_may_fail(fleet.limits.failures, upto - done) if waves else 0,
            )
        )
        parts += of_wave
        done = upto
    said = [f"{key}: {value}" for key, value in sorted(more.items()) if value]
    content = [fleet.name, what, *said, *(part.model_dump_json() for part in parts)]
    header = header_of(fleet, digest_of("\n".join(content).encode()), waves).model_copy(update=more)
    return PartedPlan(header=header, parts=tuple(parts))


def _may_fail(failures: str, gateways: int) -> int:
    """Return how many of a wave may fail before no other wave begins: their share, and at least one."""
    return max(1, floor(Fraction(failures.removesuffix("%")) / 100 * gateways))
