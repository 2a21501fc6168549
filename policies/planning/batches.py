"""Say which gateways of the current wave may start now, and which ones are carried by one batch."""

from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from math import ceil

from policies.model.plan import Plan, Progress, Wave
from policies.planning.capacity import crowded, waits_for_capacity
from policies.planning.failure_budget import is_release_fault

LARGEST = 50
"""Gateways of one batch: what one workflow carries without a long history or a large payload."""


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
    count = ceil(len(names) / LARGEST)
    cuts = [len(names) * number // count for number in range(count + 1)]
    return tuple(tuple(names[begin:end]) for begin, end in pairwise(cuts))


def next_batch(plan: Plan, progress: Progress, among: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the gateways that may start switching now, within every limit; often none.

    Only the first wave that has not passed may start anybody, nobody starts once more have failed
    than may, and a gateway that has started never starts again.

    Args:
        plan: Whose limits hold, over the whole fleet.
        progress: Facts of the whole fleet, live.
        among: The batch that asks; without one, the whole wave. Time and memory grow with this and
            with what the progress names, never with the fleet.
    """
    if progress.passed >= len(plan.waves):
        return ()
    wave, limits = plan.waves[progress.passed], plan.fleet.limits
    if progress.failed and is_release_fault(progress.failed, plan, wave):
        return ()
    started = {*progress.switching, *progress.draining, *progress.switched, *progress.failed}
    room = min(
        limits.switching - len(progress.switching),
        limits.draining - len({*progress.switching, *progress.draining}),
    )
    in_domain = Counter(plan.fleet.gateway(name).domain for name in progress.switching)
    short: dict[str, bool] = {}
    batch: list[str] = []
    for name in wave.gateways if among is None else among:
        if len(batch) >= room:
            break
        if plan.wave_of.get(name) != wave.number:
            continue
        gateway = plan.fleet.gateway(name)
        if name in started or in_domain[gateway.domain] >= limits.switching_per_domain:
            continue
        if gateway.group not in short:
            short[gateway.group] = waits_for_capacity(plan, progress, gateway.group) is not None
        sessions = progress.sessions.get(name, plan.sessions.get(name))
        cramped = wave.compared_with_itself and crowded(gateway, sessions, limits.headroom)
        if not short[gateway.group] and not cramped:
            in_domain[gateway.domain] += 1
            batch.append(name)
    return tuple(batch)
