"""One tick: what was read from the metrics, turned into what each gate saw on each instance.

The bundle that comes out is all the judge ever needs of a tick; recorded bundles are what
`judge replay` folds again under another policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.gates import (
    Alerts,
    Complaints,
    Counted,
    Exceedance,
    Gate,
    GatePolicy,
    GaugeRatio,
    Hard,
    Rate,
    Slope,
)
from policies.judge.counts import Series, fold_series, of_this_start, planned
from policies.judge.hard import firing_since, gone_since
from policies.judge.past import Past
from policies.judge.reading import COMPLAINTS, Reading
from policies.words.verdict import Cohorts
from policies.words.word import Word

NEARLY = 0.9
"""Part of a scrape interval after which the next fold is due."""


class Sign(Word):
    """A bad sign on one instance, and since when it has lasted."""

    since: float
    until: float


class Bundle(Word):
    """One tick as the gates see it: counts, gauges and signs by gate and instance, or why there are none.

    `counts` holds (events, bad events), of blind gates too: what was counted is evidence even where
    not enough was seen to judge; `other` the executables seen where another was planned.
    """

    at: float
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    past: dict[str, tuple[int, int]] = {}
    gauges: dict[str, dict[str, float]] = {}
    signs: dict[str, dict[str, Sign]] = {}
    blind: dict[str, str] = {}
    other: dict[str, str] = {}
    unreachable: tuple[str, ...] = ()


class Memory(Word):
    """What reading the next tick needs from the ones before."""

    based: bool = False
    counted: float = 0.0
    shown: dict[str, dict[str, float]] = {}
    cursor: dict[str, tuple[float, float]] = {}
    seen: dict[str, float] = {}
    bounds: dict[str, float] = {}
    past: dict[str, tuple[int, int]] = {}


def read_bundle(
    policy: GatePolicy, cohorts: Cohorts, memory: Memory, reading: Reading
) -> tuple[Memory, Bundle]:
    """Count, measure and look for signs.

    Counters are folded once per scrape, and only when all of them were read: what is missed
    arrives with a later tick. The first fold counts nothing: it is where counting starts,
    and where control's past and the bound of what is slow are taken.
    """
    scrapes = _scrapes(policy, memory, reading)
    memory = _remember_shown(policy, cohorts, memory, reading, scrapes)
    counting = counters_of(policy)
    growth: dict[str, float] | None = None
    due = reading.at >= memory.counted + NEARLY * policy.scrape.total_seconds()
    if due and not counting & reading.unread.keys():
        union = {one.key: one for s in counting for one in reading.series.get(s, ())}
        cursor, growth = fold_series(memory.cursor, union.values(), scrapes)
        memory = memory.model_copy(update={"cursor": cursor, "counted": reading.at})
        if not memory.based:
            past = Past(policy, cohorts, reading, scrapes)
            bounds = past.bounds()
            memory = memory.model_copy(update={"based": True, "bounds": bounds, "past": past.shares(bounds)})
            growth = {}
    return memory, _Seeing(policy, cohorts, reading, scrapes, memory, growth).bundle()


def _remember_shown(
    policy: GatePolicy,
    cohorts: Cohorts,
    memory: Memory,
    reading: Reading,
    scrapes: Mapping[str, tuple[float, ...]],
) -> Memory:
    """Keep when each instance was last reached, and when each series that may be missing was last there."""
    shown = dict(memory.shown)
    for gate in policy.gates:
        selector = _may_be_missing(gate)
        if selector:
            found = planned(reading.series.get(selector, ()), cohorts, policy.identity.label)
            mine = of_this_start(found, cohorts)
            last = sorted((one.samples[-1][0], one.instance) for one in mine)
            shown[gate.id] = shown.get(gate.id, {}) | {instance: at for at, instance in last}
    seen = memory.seen | {instance: times[-1] for instance, times in scrapes.items()}
    return memory.model_copy(update={"seen": seen, "shown": shown})


def _may_be_missing(gate: Gate) -> str:
    """Return the selector whose absence must be told apart from never having been there."""
    if isinstance(gate, Hard) and gate.fires.when == "gone":
        return gate.value
    return _promised(gate)[0] if isinstance(gate, Counted) and gate.optional else ""


def watched(policy: GatePolicy, cohorts: Cohorts) -> Cohorts:
    """Return whom to read: every canary, and of a large control evenly spread gateways, always the same."""
    if len(cohorts.control) <= policy.most_controls:
        return cohorts
    everyone = sorted(cohorts.control)
    control = tuple(everyone[n * len(everyone) // policy.most_controls] for n in range(policy.most_controls))
    known = {*cohorts.canary, *control}
    expected = {name: digest for name, digest in cohorts.expected.items() if name in known}
    return cohorts.model_copy(update={"control": control, "expected": expected})


def counters_of(policy: GatePolicy) -> set[str]:
    """Return the selectors of all counters that are folded by difference."""
    return {selector for gate in policy.gates for selector in _counters(gate)}


def _counters(gate: Gate) -> tuple[str, ...]:
    match gate:
        case Rate():
            return (gate.bad, gate.total)
        case Exceedance():
            return (gate.histogram,)
        case _:
            return ()


def _scrapes(policy: GatePolicy, memory: Memory, reading: Reading) -> dict[str, tuple[float, ...]]:
    """Return when each instance was reached, starting with the last time known from before."""
    reached = {
        one.instance: tuple(at for at, value in one.samples if value == 1)
        for one in reading.series.get(policy.presence, ())
    }
    return {
        instance: ((memory.seen[instance],) if instance in memory.seen else ()) + times
        for instance, times in reached.items()
        if times
    }


@dataclass(frozen=True, slots=True)
class _Seeing:
    """One look at one reading, gate by gate."""

    policy: GatePolicy
    cohorts: Cohorts
    reading: Reading
    scrapes: Mapping[str, tuple[float, ...]]
    memory: Memory
    growth: Mapping[str, float] | None

    def bundle(self) -> Bundle:
        """Return what every gate saw; a sign on one canary counts though another cannot be seen."""
        counts, gauges, signs, blind = {}, {}, {}, {}
        for gate in self.policy.gates:
            if isinstance(gate, Hard | Alerts):
                signs[gate.id] = self._signs(gate)
            why = self._blind(gate)
            if why and not signs.get(gate.id, {}).keys() & set(self.cohorts.canary):
                blind[gate.id] = why
            if isinstance(gate, Counted) and self.growth is not None:
                counts[gate.id] = self._counts(gate)
            elif isinstance(gate, GaugeRatio | Slope) and not why:
                gauges[gate.id] = self._gauge(gate)
        other, missing = self._identity()
        if missing:
            blind["identity"] = missing
        return Bundle(
            at=self.reading.at,
            counts=counts,
            past=self.memory.past,
            gauges=gauges,
            signs=signs,
            blind=blind,
            other=other,
            unreachable=tuple(sorted(self.reading.unreachable)),
        )

    def _ours(self, selector: str) -> list[Series]:
        return planned(self.reading.series.get(selector, ()), self.cohorts, self.policy.identity.label)

    def _blind(self, gate: Gate) -> str:
        """Return why this gate cannot be read now; empty when it can."""
        mine = _promised(gate)
        read = {*mine, self.policy.presence, *(counters_of(self.policy) if _counters(gate) else ())}
        read |= {COMPLAINTS} if isinstance(gate, Complaints) else set()
        for selector in sorted(read):
            if selector in self.reading.unread:
                return self.reading.unread[selector]
        if isinstance(gate, Hard) and gate.fires.when == "gone":
            return self._never_shown(gate)
        unexported = isinstance(gate, Counted) and gate.optional and not self.memory.shown[gate.id]
        return "" if unexported or isinstance(gate, Alerts) else self._unfresh(mine)

    def _unfresh(self, promised: Sequence[str]) -> str:
        """Return which series is not fresh on every canary and on enough of control."""
        for selector in promised:
            fresh = self._fresh(selector)
            stale = [instance for instance in self.cohorts.canary if instance not in fresh]
            if stale:
                return f"{selector.partition('{')[0]} has no fresh value from {stale[0]}"
            controls = sum(instance in fresh for instance in self.cohorts.control)
            if controls < min(self.policy.min_controls, len(self.cohorts.control)):
                return f"{selector.partition('{')[0]} is fresh on only {controls} control gateways"
        return ""

    def _never_shown(self, gate: Hard) -> str:
        """A series cannot go that was never there, nor be missed where its target is not reached."""
        oldest = self.reading.at - self.policy.fresh_within.total_seconds()
        for instance in self.cohorts.canary:
            if self.memory.seen.get(instance, 0.0) < oldest:
                return f"{instance} is not reached"
            if instance not in self.memory.shown[gate.id]:
                return f"{gate.value.partition('{')[0]} was never seen on {instance}"
        return ""

    def _fresh(self, selector: str) -> set[str]:
        oldest = self.reading.at - self.policy.fresh_within.total_seconds()
        return {one.instance for one in self._ours(selector) if one.samples and one.samples[-1][0] >= oldest}

    def _counts(self, gate: Rate | Exceedance | Complaints) -> dict[str, tuple[int, int]]:
        """Return events and bad events per instance since the tick before."""
        totals: dict[str, float] = {}
        bads: dict[str, float] = {}
        match gate:
            case Rate():
                self._add(totals, gate.total)
                self._add(bads, gate.bad)
            case Exceedance():
                quick: dict[str, float] = {}
                self._add(quick, gate.histogram, le=self.memory.bounds.get(gate.id))
                self._add(totals, gate.histogram, le=float("inf"))
                totals = {instance: total for instance, total in totals.items() if instance in quick}
                bads = {instance: total - quick[instance] for instance, total in totals.items()}
            case Complaints():
                if COMPLAINTS in self.reading.unread:
                    return {}
                for one in self._ours(gate.total):
                    totals[one.instance] = totals.get(one.instance, 0.0) + one.samples[-1][1]
                bads.update(self.reading.complaints)
        return {
            instance: (round(total), max(0, min(round(bads.get(instance, 0.0)), round(total))))
            for instance, total in sorted(totals.items())
        }

    def _add(self, sums: dict[str, float], selector: str, le: float | None = None) -> None:
        for one in self._ours(selector):
            if "le" not in one.labels or float(one.labels["le"]) == le:
                sums[one.instance] = sums.get(one.instance, 0.0) + (self.growth or {}).get(one.key, 0.0)

    def _gauge(self, gate: GaugeRatio | Slope) -> dict[str, float]:
        """Return the gauge per unit on each instance that has enough units."""
        values: dict[str, float] = {}
        for one in self._ours(gate.value):
            value = one.samples[-1][1]
            if isinstance(gate, GaugeRatio) and gate.counter:
                value = self._rate(one)
            values[one.instance] = values.get(one.instance, 0.0) + value
        if gate.per is None:
            return values
        units: dict[str, float] = {}
        for one in self._ours(gate.per):
            unit = (
                self._rate(one) if isinstance(gate, GaugeRatio) and gate.per_counter else one.samples[-1][1]
            )
            units[one.instance] = units.get(one.instance, 0.0) + unit
        return {i: v / units[i] for i, v in values.items() if units.get(i, 0.0) > gate.min_per}

    def _rate(self, one: Series) -> float:
        (first, low), (last, high) = one.samples[0], one.samples[-1]
        return max(0.0, high - low) / (last - first) if last > first else 0.0

    def _signs(self, gate: Hard | Alerts) -> dict[str, Sign]:
        """Return the instances on which the sign fires, and since when."""
        if isinstance(gate, Hard) and gate.fires.when == "gone":
            shown = self.memory.shown[gate.id]
            lost = {i: gone_since(shown.get(i), times) for i, times in self.scrapes.items()}
            return {i: Sign(since=at, until=self.scrapes[i][-1]) for i, at in lost.items() if at is not None}
        units = (
            {one.instance: one for one in self._ours(gate.per)} if isinstance(gate, Hard) and gate.per else {}
        )
        found = {}
        for one in of_this_start(self._ours(gate.value), self.cohorts):
            divisor = units[one.instance].samples[-1][1] if one.instance in units else 1.0
            fires = gate.fires if isinstance(gate, Hard) else None
            since = firing_since(one.samples, fires, divisor)
            fresh = one.samples[-1][0] >= self.reading.at - self.policy.fresh_within.total_seconds()
            if since is not None and fresh:
                found[one.instance] = Sign(since=since, until=one.samples[-1][0])
        return found

    def _identity(self) -> tuple[dict[str, str], str]:
        """Return which instances run something else, and why identity is unknown where it is."""
        selector, label = self.policy.identity.value, self.policy.identity.label
        if selector in self.reading.unread:
            return {}, self.reading.unread[selector]
        other, unknown = {}, []
        oldest = self.reading.at - self.policy.fresh_within.total_seconds()
        for instance, expected in self.cohorts.expected.items():
            claims = [
                (one.samples[-1][0], one.labels.get(label, ""))
                for one in self.reading.series.get(selector, ())
                if one.instance == instance and one.samples[-1][1] == 1 and one.samples[-1][0] >= oldest
            ]
            newest = {digest for at, digest in claims if at == max(claims)[0]}
            if not newest:
                unknown.append(instance)
            elif expected not in newest:
                other[instance] = min(newest)
        blind = [i for i in unknown if i in self.cohorts.canary]
        return other, f"{blind[0]} does not say which executable it runs" if blind else ""


def _promised(gate: Gate) -> tuple[str, ...]:
    """Return the selectors that must have a value on every canary instance.

    A counter of bad events may be absent until the first one happens; its total may not.
    """
    match gate:
        case Rate() | Complaints():
            return (gate.total,)
        case Exceedance():
            return (gate.histogram,)
        case GaugeRatio() | Slope() | Hard():
            return (gate.value, gate.per) if gate.per else (gate.value,)
        case Alerts():
            return (gate.value,)
