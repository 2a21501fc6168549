"""Tell gateways that failed by themselves from a release that makes gateways fail.

Machines die, reboot and fall silent without any upgrade: among 2,000 some do on every day. As long as
they are few, each is set aside and named; only more of them than the budget are the release's fault.
"""

from fractions import Fraction
from math import floor

from policies.model.fleet import Limits
from policies.model.plan import Plan, Wave


def may_fail(plan: Plan, wave: Wave) -> int:
    """Return how many gateways of the wave may fail before it is the release's fault.

    The share `limits.failures` of the wave, at least one and fewer than all. In the first wave nothing
    speaks for the release yet, so there the share is not rounded up to one: of a canary none may fail.
    The gateway of a later wave of one may: it does not decide for those that have passed. Such a wave is
    held then, since nothing shows how the release does there.
    """
    share = Fraction(plan.fleet.limits.failures.removesuffix("%")) / 100
    least = 0 if wave.number == 1 else 1
    return max(least, min(floor(share * len(wave.gateways)), len(wave.gateways) - 1))


def may_fail_together(plan: Plan, upto: int) -> int:
    """Return how many gateways of the waves up to that one may fail, 0 if it is no wave.

    Waves of one gateway add nothing to the others: each would allow all of its gateways. Beyond the first
    wave one gateway always may.
    """
    several = sum(may_fail(plan, wave) for wave in plan.waves[: max(0, upto)] if len(wave.gateways) > 1)
    return max(several, 1 if upto > 1 else 0)


def may_be_unable(limits: Limits, changing: int) -> int:
    """Return how many gateways may be unable to change at the start: silent, full, without a way back.

    The share of all that change, not rounded up: of a few gateways none may be left out unasked.
    """
    share = Fraction(limits.failures.removesuffix("%")) / 100
    return floor(share * changing)
