"""Gateways that fail by themselves: which are set aside, and when it is the release's fault after all.

A gateway with a hard sign that the control does not show, one that nobody sees any more, or one that runs
something else is set aside and counted; more of them than may fail are the release's fault. One whose host
has rebooted is set aside and not counted: a crash of ours leaves the boot as it was. Nor is one that is
absent: where neither its agent nor its users' port answers, nothing is known of the release. What is set
aside is judged again once it has been started again, and what was absent once it answers.

After its wave has passed no batch starts a gateway again whose host has rebooted: the boot is a start then.
The gateway is judged again once the release runs in that boot, or after a while if it never does. A second
reboot is a failure of its own, as it is in a wave. A gateway on which the release does not run in that boot
fails by itself. Such gateways are never the release's fault by themselves: one rack without power is many of
them. Operators decide where more of them fail than may.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from policies.judge.tick import Tick
from policies.model.value import Value
from policies.model.verdict import Cohorts

FEWEST_REBOOTS = 1
"""Reboots that are tolerated even where no gateway may fail."""


class Why(StrEnum):
    """Why a gateway is set aside."""

    FAILED = "failed"
    UNSEEN = "unseen"
    MISTAKEN = "mistaken"
    """Another executable runs there than the plan put there."""
    REBOOTED = "rebooted"
    ABSENT = "absent"
    """Neither its metrics nor its agent nor its users' port answers."""
    NOT_BACK = "not_back"
    """Its host has rebooted after its wave, and the release does not run there since."""


class Aside(Value):
    """Since when, and why, a gateway is judged no further."""

    at: float
    why: Why
    reason: str = ""
    """The sign on this gateway, in a sentence."""


class Reboots(Value):
    """How often the host of a gateway has rebooted whose wave has passed."""

    at: float
    """When the last reboot was seen."""
    times: int = 1
    listed: bool = True
    """Whether the last tick listed it: a reboot is listed until the boot counts as a start."""
    started: bool = False
    """Whether the release was seen to run in the new boot."""


Asides = Mapping[str, Aside]


def still_aside(aside: Asides, cohorts: Cohorts, absent: Collection[str]) -> dict[str, Aside]:
    """Return those that have not been started again since, and of the absent those that still are."""
    return {
        name: one
        for name, one in aside.items()
        if cohorts.since.get(name, 0.0) <= one.at and (one.why is not Why.ABSENT or name in absent)
    }


def set_aside(aside: Asides, reasons: Mapping[str, str], why: Why, at: float) -> dict[str, Aside]:
    """Return the gateways set aside with these added, each with its reason.

    A reboot explains what looked like a failure.
    """
    added = {}
    for name, reason in reasons.items():
        known = aside.get(name)
        if known is None or (why is Why.REBOOTED and known.why is not Why.REBOOTED):
            added[name] = Aside(at=known.at if known else at, why=why, reason=reason)
    return {**aside, **added}


def reboots_of(known: Mapping[str, Reboots], cohorts: Cohorts, tick: Tick) -> dict[str, Reboots]:
    """Return the reboots of changed gateways since each was started, with those of this tick."""
    found = {
        name: one.model_copy(
            update={"listed": name in tick.rebooted, "started": one.started or name in tick.started}
        )
        for name, one in known.items()
        if name in cohorts.changed and cohorts.since.get(name, 0.0) <= one.at
    }
    for name in sorted(cohorts.changed & {*tick.rebooted}):
        before = found.get(name)
        if before is None or not known[name].listed:
            found[name] = Reboots(at=tick.at, times=before.times + 1 if before is not None else 1)
    return found


def since_boots(cohorts: Cohorts, reboots: Mapping[str, Reboots]) -> Cohorts:
    """Return the cohorts in which the last boot of each host is a start of what runs there."""
    booted = {name: one.at for name, one in reboots.items() if one.at > cohorts.since.get(name, 0.0)}
    return cohorts.model_copy(update={"since": {**cohorts.since, **booted}}) if booted else cohorts


def not_started(reboots: Mapping[str, Reboots]) -> set[str]:
    """Return the gateways on which the release was not seen since their hosts rebooted."""
    return {name for name, one in reboots.items() if not one.started}


def as_not_back(aside: Asides, names: Collection[str]) -> dict[str, Aside]:
    """Return the gateways set aside; those `names` that failed are not back after a reboot."""
    failed = {*failed_of(aside)} & {*names}
    return {**aside, **{name: aside[name].model_copy(update={"why": Why.NOT_BACK}) for name in failed}}


def without_rebooted(aside: Asides, by: float) -> dict[str, Aside]:
    """Return the gateways set aside without those whose reboot was seen by then: these are judged again."""
    return {name: one for name, one in aside.items() if one.why is not Why.REBOOTED or one.at > by}


def left_of(cohorts: Cohorts, aside: Asides) -> Cohorts:
    """Return the cohorts without the gateways set aside."""
    if not aside:
        return cohorts
    sides = {
        side: tuple(name for name in getattr(cohorts, side) if name not in aside)
        for side in ("canary", "changed_before", "beyond")
    }
    expected = {name: digest for name, digest in cohorts.expected.items() if name not in aside}
    # The old instance on a gateway that was set aside is nobody's control any more.
    control = tuple(name for name in cohorts.control if cohorts.beside.get(name) not in aside)
    return cohorts.model_copy(update={**sides, "expected": expected, "control": control})


def may_fail_too(aside: Asides, names: Collection[str], cohorts: Cohorts) -> bool:
    """Whether these gateways may be missing beside those that are absent or have failed by themselves."""
    return excess((*failed_of(aside), *aside_for(aside, Why.ABSENT), *names), cohorts) <= 0


def leaves_any(aside: Asides, names: Collection[str], cohorts: Cohorts) -> bool:
    """Whether any gateway of the wave is judged without these and those set aside."""
    return bool({*cohorts.canary, *cohorts.beyond} - aside.keys() - {*names})


def excess(failed: Collection[str], cohorts: Cohorts, spared: Collection[str] = ()) -> int:
    """Return how many gateways have failed beyond those that may by themselves; at most 0 if none have.

    A gateway that failed now and was set aside before counts once. Gateways that are `spared` do not count.
    One of an earlier wave counts against what all waves may lose together, and not against the wave under
    way.
    """
    return _beyond({*failed, *cohorts.set_aside} - {*spared}, cohorts, 0)


def may_fail_alone(aside: Asides, cohorts: Cohorts) -> bool:
    """Return whether no more gateways have failed than may, without those whose host has rebooted."""
    return excess(failed_of(aside), cohorts, aside_for(aside, Why.NOT_BACK)) <= 0


def excess_of_reboots(rebooted: Collection[str], cohorts: Cohorts) -> int:
    """Return how many hosts have rebooted beyond those that may by themselves; at most 0 if none have."""
    return _beyond({*rebooted}, cohorts, FEWEST_REBOOTS)


def _beyond(names: Collection[str], cohorts: Cohorts, fewest: int) -> int:
    earlier = {*cohorts.changed_before, *cohorts.earlier}
    own = sum(name not in earlier for name in names)
    together = cohorts.may_fail + cohorts.may_fail_before
    return max(own - max(fewest, cohorts.may_fail), len(names) - max(fewest, together))


def failed_of(aside: Asides) -> tuple[str, ...]:
    """Return the gateways that failed by themselves."""
    return aside_for(aside, Why.FAILED, Why.UNSEEN, Why.MISTAKEN, Why.NOT_BACK)


def aside_for(aside: Asides, *reasons: Why) -> tuple[str, ...]:
    """Return the gateways that were set aside for one of these reasons."""
    return tuple(sorted(name for name, one in aside.items() if one.why in reasons))
