"""Cut a wave into batches, and say which gateways of a batch may start next."""

from collections import Counter
from collections.abc import Collection, Container, Iterable
from itertools import pairwise
from math import ceil

from policies.model.fleet import GatewayRef
from policies.model.plan import Plan, Wave
from policies.model.plan_part import MOST_MEMBERS


def batches(plan: Plan, wave: Wave) -> tuple[tuple[str, ...], ...]:
    """Return the wave's gateways in as few batches as may be, of about one size.

    Each batch has gateways of as many domains as possible, so that within it no domain's limit keeps
    the others waiting for longer than it must.
    """
    place: Counter[str] = Counter()
    rows = []
    for index, name in enumerate(wave.gateways):
        domain = plan.fleet.gateway(name).domain
        rows.append((place[domain], index, name))
        place[domain] += 1
    names = [name for _, _, name in sorted(rows)]
    count = ceil(len(names) / MOST_MEMBERS)
    cuts = [len(names) * number // count for number in range(count + 1)]
    return tuple(tuple(names[begin:end]) for begin, end in pairwise(cuts))


def next_to_start(
    waiting: Iterable[GatewayRef],
    switching: Collection[GatewayRef],
    short: Container[str],
    *,
    at_once: int,
    per_domain: int,
) -> tuple[str, ...]:
    """Return who of a batch may start now, in the order in which they wait; often nobody.

    Args:
        waiting: Gateways that have not started yet.
        switching: Those that have started and get no new sessions yet.
        short: Names of those that have to wait for capacity (`waits_for_capacity`).
        at_once: How many may be switching at the same time.
        per_domain: How many of one domain may be.
    """
    in_domain = Counter(gateway.domain for gateway in switching)
    chosen: list[str] = []
    for gateway in waiting:
        if len(switching) + len(chosen) >= at_once:
            break
        if gateway.name not in short and in_domain[gateway.domain] < per_domain:
            in_domain[gateway.domain] += 1
            chosen.append(gateway.name)
    return tuple(chosen)
