"""What one tick must read, said before anything is read: one pure answer for every source of metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from policies.gates import GatePolicy
from policies.judge.counts import Series
from policies.judge.observation import Memory
from policies.words.verdict import Cohorts

BASELINE_PARTS = (1, 2, 4, 8)
"""The baseline is halved until Prometheus remembers that time; a young one remembers little."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What to ask.

    Of `instances`, `presence` is read before all else: whatever a scrape brought is then complete
    in the reads that follow. `lookbacks` says how far back each selector is read. `history` are
    the selectors to read once more, of who tells what was `before`, and one of `ages` ago: the
    first that is remembered. `complaints` asks for them, `confirm` for probes of changed gateways
    that were not reached.
    """

    instances: tuple[str, ...]
    before: tuple[str, ...]
    presence: Mapping[str, timedelta]
    lookbacks: Mapping[str, timedelta]
    history: Mapping[str, timedelta]
    ages: tuple[timedelta, ...]
    complaints: bool
    confirm: bool


def what_to_read(policy: GatePolicy, cohorts: Cohorts, memory: Memory) -> Needs:
    """Return what the next tick needs, given what the ones before have left to know."""
    instances = (*cohorts.canary, *cohorts.changed_before, *cohorts.control)
    always = (policy.presence, policy.identity.value, policy.boot.value)
    lookbacks = dict.fromkeys(always, policy.fresh_within)
    for gate in policy.gates:
        needed = max(policy.fresh_within, gate.lookback(policy.scrape))
        for selector in gate.selectors:
            lookbacks[selector] = max(needed, lookbacks.get(selector, needed))
    return Needs(
        instances=instances,
        before=cohorts.control or instances,
        presence={policy.presence: lookbacks.pop(policy.presence)},
        lookbacks=lookbacks,
        history={} if memory.based else dict.fromkeys(sorted(policy.counters), policy.fresh_within),
        ages=tuple(policy.baseline / part for part in BASELINE_PARTS),
        complaints=any(gate.hears_complaints for gate in policy.gates),
        confirm=any(gate.wants_probe for gate in policy.gates),
    )


def unreached(cohorts: Cohorts, presence: Sequence[Series]) -> tuple[str, ...]:
    """Return the changed gateways that could not be scraped."""
    down = {one.instance for one in presence if one.samples[-1][1] == 0}
    return tuple(sorted(down & cohorts.changed))
