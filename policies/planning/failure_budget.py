"""Tell gateways that failed by themselves from a release that makes gateways fail.

Machines die, reboot and fall silent without any upgrade: among 2,000 some do on every day. As long as
they are few, each is set aside and named; only more of them than the budget are the release's fault.
"""

from collections.abc import Collection
from fractions import Fraction
from math import floor

from policies.model.fleet import Limits
from policies.model.plan import Plan, Wave
from policies.planning.naming import counted, named


def may_fail(plan: Plan, wave: Wave) -> int:
    """Return how many gateways of the wave may fail before it is the release's fault.

    The share `limits.failures` of the wave, at least one and fewer than all. In the first wave nothing
    speaks for the release yet, so there the share is not rounded up to one: of a canary none may fail.
    """
    share = Fraction(plan.fleet.limits.failures.removesuffix("%")) / 100
    least = 0 if wave.number == 1 else 1
    return min(max(least, floor(share * len(wave.gateways))), len(wave.gateways) - 1)


def may_be_unable(limits: Limits, changing: int) -> int:
    """Return how many gateways may be unable to change at the start: silent, full, without a way back.

    The share of all that change, not rounded up: of a few gateways none may be left out unasked.
    """
    share = Fraction(limits.failures.removesuffix("%")) / 100
    return floor(share * changing)


def is_release_fault(failed: Collection[str], plan: Plan, wave: Wave) -> bool:
    """Whether more gateways of the wave failed, for whatever reason, than may by themselves."""
    return sum(plan.wave_of.get(name) == wave.number for name in {*failed}) > may_fail(plan, wave)


def failures(failed: Collection[str], plan: Plan, wave: Wave) -> str:
    """Return the figures behind `is_release_fault` as a sentence."""
    here = sorted(name for name in {*failed} if plan.wave_of.get(name) == wave.number)
    return (
        f"{len(here)} of {counted(len(wave.gateways), 'gateway')} of wave {wave.number} failed "
        f"({named(here)}), and {may_fail(plan, wave)} may ({plan.fleet.limits.failures})"
    )
