"""What one tick must read, said before anything is read: one pure answer for every source of metrics."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf

from policies.judge.counts import Series
from policies.judge.gates.complaints import Complaints
from policies.judge.gates.exceedance import Exceedance
from policies.judge.gates.hard import Hard
from policies.judge.gates.tickets import Tickets
from policies.judge.look import Memory
from policies.judge.tick import Offence
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts

BASELINE_PARTS = (1, 2, 4, 8)
"""The baseline is halved until Prometheus remembers that time; a young one remembers little."""
MOST_OFFENDERS = 500
"""Gateways whose signs are read in full; where there are more, their names add nothing."""
LONGEST_UNWATCHED = timedelta(hours=1)
"""How far back a filter looks for changes after nobody watched; of a sample, values are remembered."""
_LARGEST = 1e5
"""Bounds from which on a label may be written in more ways than one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What to ask.

    Of `instances`, `presence` is read before all else: whatever a scrape brought is then complete
    in the reads that follow. `lookbacks` says how far back each selector is read, `asked` which
    selector to ask in its place: of a histogram only the buckets that are compared. `history` are
    the selectors to read once more, of who tells what was `before`, and one of `ages` ago: the
    first that is remembered. `offences` filter who of all others is to be read as well, `signs` is
    what. `complaints` and `tickets` ask for them, `confirm` for probes of changed gateways that were
    not reached.
    """

    instances: tuple[str, ...]
    before: tuple[str, ...]
    presence: Mapping[str, timedelta]
    lookbacks: Mapping[str, timedelta]
    asked: Mapping[str, str]
    history: Mapping[str, timedelta]
    ages: tuple[timedelta, ...]
    offences: tuple[Offence, ...]
    signs: Mapping[str, timedelta]
    complaints: bool
    confirm: bool
    tickets: bool = False


def what_to_read(policy: GatePolicy, cohorts: Cohorts, memory: Memory, at: float) -> Needs:
    """Return what the next tick needs, read at `at`, given what the ones before have left to know."""
    control = tuple(cohorts.beside.get(instance, instance) for instance in cohorts.control)
    instances = tuple(dict.fromkeys((*cohorts.canary, *cohorts.changed_before, *control)))
    always = (policy.presence, policy.identity.value, policy.boot.value)
    lookbacks = dict.fromkeys(always, policy.fresh_within)
    signs = {policy.presence: policy.fresh_within}
    offences = []
    unwatched = timedelta(seconds=at - memory.counted) if memory.based else timedelta(0)
    since_last = policy.fresh_within + min(unwatched, LONGEST_UNWATCHED)
    for gate in policy.gates:
        needed = max(policy.fresh_within, gate.lookback(policy.scrape))
        for selector in gate.selectors:
            lookbacks[selector] = max(needed, lookbacks.get(selector, needed))
        needed = max(needed, since_last) if gate.changing else needed
        offence = gate.offence(needed)
        if offence is not None and cohorts.beyond:
            offences.append(offence)
            signs |= {name: max(needed, signs.get(name, needed)) for name in gate.selectors}
    return Needs(
        instances=instances,
        before=control or instances,
        presence={policy.presence: lookbacks.pop(policy.presence)},
        lookbacks=lookbacks,
        asked=_buckets(policy, memory) if memory.based else {},
        history={} if memory.based else dict.fromkeys(sorted(policy.counters), policy.fresh_within),
        ages=tuple(policy.baseline / part for part in BASELINE_PARTS),
        offences=tuple(offences),
        signs=signs,
        complaints=any(isinstance(gate, Complaints) for gate in policy.gates),
        confirm=any(isinstance(gate, Hard) and gate.confirm for gate in policy.gates),
        tickets=any(isinstance(gate, Tickets) for gate in policy.gates),
    )


def _buckets(policy: GatePolicy, memory: Memory) -> dict[str, str]:
    """Return, for each histogram, the selector of the buckets whose bounds were frozen."""
    bounds: dict[str, set[float]] = {}
    for gate in policy.gates:
        if isinstance(gate, Exceedance):
            bounds.setdefault(gate.histogram, {inf}).add(memory.bounds.get(gate.id, inf))
    return {
        selector: selector.replace("$cohort", f'le=~"{"|".join(map(_label, sorted(some)))}",$cohort')
        for selector, some in bounds.items()
        if max(some - {inf}, default=0.0) < _LARGEST
    }


def _label(bound: float) -> str:
    """Return the expression for a bound as Prometheus and its clients write it, with a zero or without."""
    return "\\\\+Inf" if bound == inf else f"{bound:g}".replace(".", "\\\\.") + "(\\\\.0)?"


def offending(found: Collection[str], cohorts: Cohorts) -> tuple[str, ...]:
    """Return who of the filtered is to be read: changed gateways outside the sample."""
    return tuple(sorted(set(found) & set(cohorts.beyond)))[:MOST_OFFENDERS]


def unreached(cohorts: Cohorts, presence: Sequence[Series]) -> tuple[str, ...]:
    """Return the changed gateways that could not be scraped."""
    down = {one.instance for one in presence if one.samples[-1][1] == 0}
    return tuple(sorted(down & cohorts.changed))
