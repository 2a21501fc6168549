"""Cut a reload of credentials or settings into waves: one gateway first, then as the fleet's steps say."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

from policies.model.fleet import Fleet, amount
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan_part import Member, Part, PlanHeader, WaveHeader
from policies.model.value import digest_of
from policies.planning.parts import PartedPlan, header_of, in_parts, member_of, most_together
from policies.planning.settings import ALL_INCLUDED, Changing, PassedOver


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


def parted_reload(
    fleet: Fleet, names: tuple[str, ...], *, at_once: bool = False, only_changed: bool = False
) -> PartedPlan:
    """Return a plan by which these gateways, in this order, get their hosts' present credentials.

    All come at once if that is meant: somebody is to be kept out everywhere within seconds. Then it is the
    hosts alone that take back with what nobody can log in. With `only_changed` the plan means these gateways
    alone, and not the whole fleet.
    """
    steps = ("100%",) if at_once else ("1", *fleet.limits.steps)
    members = [member_of(fleet.gateway(name)) for name in names]
    more = {"approvals": fleet.reload_approvals, "only_changed": only_changed}
    return _parted(fleet, members, "credentials", more, steps)


def parted_settings(
    fleet: Fleet, names: tuple[str, ...], changing: Changing, without: PassedOver = ALL_INCLUDED
) -> PartedPlan:
    """Return a plan by which these gateways, in this order, get the settings of the fleet's file.

    Its digest is of who gets what, and not of the order, which follows live counts: what was approved is
    still the same plan when users have come and gone.
    """
    more = {
        "settings": changing.keys,
        "differences": changing.sentences,
        "passed_over": without.sentence,
        "approvals": fleet.approvals,
    }
    members = [_configured(fleet, name) for name in names]
    made = _parted(fleet, members, "settings", more, ("1", *fleet.limits.steps))
    unordered = sorted(member.model_dump_json() for member in members)
    unnamed = made.header.model_copy(update={"digest": ""}).model_dump_json()
    digest = digest_of("\n".join([unnamed, *unordered]).encode())
    return made.model_copy(update={"header": made.header.model_copy(update={"digest": digest})})


def parted_repeat(header: PlanHeader, members: Sequence[Member]) -> PartedPlan:
    """Return a plan by which these members of another plan get what that one had for them, all at once.

    That was looked at on the first gateway then; here one that fails hinders nobody.
    """
    parts = tuple(in_parts(1, members, most_together(members)))
    wave = WaveHeader(
        number=1, gateways=len(members), parts=len(parts), lease=header.limits.lease, may_fail=len(members)
    )
    content = ["again", header.digest, *(part.model_dump_json() for part in parts)]
    digest = digest_of("\n".join(content).encode())
    update = {"digest": digest, "waves": (wave,), "passed_over": ""}
    return PartedPlan(header=header.model_copy(update=update), parts=parts)


def _configured(fleet: Fleet, name: str) -> Member:
    gateway = fleet.gateway(name)
    return member_of(gateway).model_copy(update={"settings": fleet.settings_of(gateway)})


def _parted(
    fleet: Fleet, members: Sequence[Member], what: str, more: Mapping[str, object], steps: tuple[str, ...]
) -> PartedPlan:
    waves, parts, done = list[WaveHeader](), list[Part](), 0
    most = most_together(members)
    for step in steps:
        upto = min(len(members), amount(step, len(members)))
        if upto <= done:
            continue
        number = len(waves) + 1
        of_wave = in_parts(number, members[done:upto], most)
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
