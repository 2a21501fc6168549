"""Observation: what was read, turned into the tick that the gates see.

Counters are folded once per scrape, and only when all of them were read: what is missed
arrives with a later tick. The first fold counts nothing: it is where counting starts, and
where control's baseline and the bound of what is slow are taken.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from policies.judge.counts import Cursor, fold_series, of_this_start, planned
from policies.judge.gates.alerts import Alerts
from policies.judge.look import Baseline, Look, Memory
from policies.judge.reading import Reading
from policies.judge.tick import Finding, Tick
from policies.judge.whole import whole
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts

NEARLY = 0.9
"""Part of a scrape interval after which the next fold is due."""


def read_tick(policy: GatePolicy, cohorts: Cohorts, memory: Memory, reading: Reading) -> tuple[Memory, Tick]:
    """Count, measure and look for signs."""
    reading = _whole(policy, reading, memory.cursor)
    look = Look(
        cohorts=cohorts,
        reading=reading,
        label=policy.identity.label,
        presence=policy.presence,
        counters=policy.counters,
        oldest=reading.at - policy.fresh_within.total_seconds(),
        fewest_controls=policy.min_controls,
        scrapes=_scrapes(policy, memory, reading),
        memory=memory,
    )
    memory, growth = _fold_counters(policy, look, _remember_shown(policy, look, memory))
    look = replace(look, memory=memory, growth=growth)
    found = {gate.id: gate.find(look) for gate in policy.gates}
    reasons = {gate.id: gate.blind(look) for gate in policy.gates}
    # A sign on one changed gateway counts though another cannot be seen.
    blind = {
        gate: why
        for gate, why in reasons.items()
        if why and cohorts.changed.isdisjoint(found[gate].signs or {})
    }
    memory = _remember_signs(look, _remember_values(policy, look, memory), found)
    other, unknown = _identity(policy, look)
    memory, rebooted = _boots(policy, look, memory)
    lost = () if look.unread((policy.presence,)) else cohorts.canary
    return memory, Tick(
        at=reading.at,
        counts={gate: one.counts for gate, one in found.items() if one.counts is not None},
        baseline=memory.baseline,
        gauges={i: one.gauges for i, one in found.items() if one.gauges is not None and i not in blind},
        signs={gate: one.signs for gate, one in found.items() if one.signs is not None},
        seen={gate: one.seen for gate, one in found.items() if one.seen},
        blind=blind | ({"identity": unknown} if unknown else {}),
        other=other,
        unseen=tuple(sorted(i for i in lost if memory.last_reached.get(i, 0.0) < look.oldest)),
        rebooted=rebooted,
        unreachable=tuple(sorted(reading.unreachable)),
        absent=tuple(sorted(reading.absent)),
        silent=tuple(sorted(reading.silent)),
    )


def started_again(
    policy: GatePolicy, cohorts: Cohorts, reading: Reading, names: Collection[str]
) -> tuple[str, ...]:
    """Return which of these changed gateways run the planned executable since they were started."""
    if not names:
        return ()
    oldest = reading.at - policy.fresh_within.total_seconds()
    claims = _whole(policy, reading, {}).series.get(policy.identity.value, ())
    found = of_this_start(planned(claims, cohorts, policy.identity.label), cohorts)
    runs = {one.instance for one in found if one.samples[-1][1] == 1 and one.samples[-1][0] >= oldest}
    return tuple(sorted(runs & {*names}))


def _whole(policy: GatePolicy, reading: Reading, cursor: Cursor) -> Reading:
    """Return the reading without what is no evidence, which it names instead.

    Of the history a gateway with one counter that is no evidence has none: its failures would be there
    without its events.
    """
    listed = {selector for gate in policy.gates if isinstance(gate, Alerts) for selector in gate.selectors}
    apart = policy.fresh_within.total_seconds()
    now = whole(reading.series, policy.presence, listed, policy.counters, cursor, apart)
    before = whole(reading.history, policy.presence, listed, policy.counters, apart=apart)
    lost = {instance for some in before.unsound.values() for instance in some}
    history = {
        name: tuple(one for one in some if one.instance not in lost) for name, some in before.series.items()
    }
    return replace(reading, series=now.series, unsound=now.unsound, history=history)


def _scrapes(policy: GatePolicy, memory: Memory, reading: Reading) -> dict[str, tuple[float, ...]]:
    """Return when each instance was reached, starting with the last time known from before."""
    reached = {
        one.instance: tuple(at for at, value in one.samples if value == 1)
        for one in reading.series.get(policy.presence, ())
    }
    last = {instance: (at,) for instance, at in memory.last_reached.items()}
    return {instance: last.get(instance, ()) + times for instance, times in reached.items() if times}


def _remember_shown(policy: GatePolicy, look: Look, memory: Memory) -> Memory:
    """Keep when each instance was last reached, and when each series that may be missing was last there."""
    shown = dict(memory.last_shown)
    for gate in policy.gates:
        if gate.missable:
            found = of_this_start(look.ours(gate.missable), look.cohorts)
            last = sorted((one.samples[-1][0], one.instance) for one in found)
            shown[gate.id] = shown.get(gate.id, {}) | {instance: at for at, instance in last}
    reached = memory.last_reached | {instance: times[-1] for instance, times in look.scrapes.items()}
    return memory.model_copy(update={"last_reached": reached, "last_shown": shown})


def _remember_values(policy: GatePolicy, look: Look, memory: Memory) -> Memory:
    """Keep the newest value of what may change: the next tick may come later than it looks back."""
    values = dict(memory.last_values)
    for gate in policy.gates:
        if gate.changing:
            newest = {one.key: one.samples[-1] for one in look.ours(gate.changing) if one.samples}
            values[gate.id] = values.get(gate.id, {}) | newest
    return memory.model_copy(update={"last_values": values})


def _remember_signs(look: Look, memory: Memory, found: Mapping[str, Finding]) -> Memory:
    """Keep when a changed gateway last showed each gate's sign."""
    shown = (gate for gate, one in found.items() if not look.cohorts.changed.isdisjoint(one.signs or {}))
    return memory.model_copy(update={"signed": memory.signed | dict.fromkeys(shown, look.reading.at)})


def _fold_counters(policy: GatePolicy, look: Look, memory: Memory) -> tuple[Memory, dict[str, float] | None]:
    """Return what each counter grew by, or None when it is not time, or not all were read."""
    reading, scrapes = look.reading, look.scrapes
    due = reading.at >= memory.counted + NEARLY * policy.scrape.total_seconds()
    if not due or policy.counters & reading.unread.keys():
        return memory, None
    every = {one.key: one for selector in policy.counters for one in reading.series.get(selector, ())}
    ours = planned(every.values(), look.cohorts, look.label)
    foldable = _foldable(look)
    cursor, growth = fold_series(memory.cursor, ours, foldable)
    folded = memory.folded | {instance: scrapes[instance][-1] for instance in foldable}
    memory = memory.model_copy(update={"cursor": cursor, "counted": reading.at, "folded": folded})
    if memory.based:
        return memory, growth
    baseline = Baseline(look.cohorts, look.label, reading, foldable)
    before = {gate.id: gate.before(baseline) for gate in policy.gates}
    started = {
        "based": True,
        "bounds": {gate: bound for gate, (bound, _) in before.items() if bound is not None},
        "baseline": {gate: counts for gate, (_, counts) in before.items() if counts is not None},
    }
    return memory.model_copy(update=started), {}


def _foldable(look: Look) -> dict[str, tuple[float, ...]]:
    """Return when each instance was reached: the last scrape that was folded, and as far back as all is read.

    Presence may be read from further back than counters. A scrape of that time says nothing of whether a
    counter was there, and must not have one that has counted for years be taken for newborn. A gateway with
    one counter that is no evidence waits with all of them.
    """
    folded, lost = look.memory.folded, look.unsound(look.counters)
    return {
        instance: (
            *((folded[instance],) if instance in folded else ()),
            *(at for at in times if at > look.oldest or at == times[-1]),
        )
        for instance, times in look.scrapes.items()
        if instance not in lost
    }


def _boots(policy: GatePolicy, look: Look, memory: Memory) -> tuple[Memory, tuple[str, ...]]:
    """Return which instances' hosts are in another boot than when they were first seen, or started."""
    now: dict[str, tuple[float, str]] = {}
    for one in look.reading.series.get(policy.boot.value, ()):
        claim = (one.samples[-1][0], one.labels.get(policy.boot.label, ""))
        if claim[0] >= look.oldest:
            now[one.instance] = max(claim, now.get(one.instance, claim))
    since = look.cohorts.since
    known = {i: first for i, first in memory.boots.items() if first[0] >= since.get(i, 0.0)}
    other = (i for i, (_, boot) in now.items() if i in known and known[i][1] != boot)
    return memory.model_copy(update={"boots": now | known}), tuple(sorted(other))


def _identity(policy: GatePolicy, look: Look) -> tuple[dict[str, str], str]:
    """Return which instances run something else, and why identity is unknown where it is."""
    selector, label = policy.identity.value, policy.identity.label
    if unread := look.unread((selector,)) or look.unsound_canary((selector,)):
        return {}, unread
    claims: dict[str, list[tuple[float, str]]] = {}
    for one in look.reading.series.get(selector, ()):
        at, value = one.samples[-1]
        if value == 1 and at >= look.oldest:
            claims.setdefault(one.instance, []).append((at, one.labels.get(label, "")))
    other, silent = {}, []
    for instance, expected in look.cohorts.expected.items():
        every, since = claims.get(instance, []), look.cohorts.since.get(instance, 0.0)
        mine = [claim for claim in every if claim[0] >= since]
        if every and not mine:
            continue  # what ran there before this trial says nothing of it
        newest = {digest for at, digest in mine if at == max(mine)[0]}
        if newest and newest.isdisjoint({expected, look.cohorts.switching.get(instance, expected)}):
            other[instance] = min(newest)
        elif not newest and instance in look.cohorts.canary:
            silent.append(instance)
    return other, f"{silent[0]} does not say which executable it runs" if silent else ""
