"""Replay and calibration: the same fold as live, over ticks that were recorded or never had a canary.

A recorded window folded under another policy says what that policy would have done. Placebo
rollouts, in which a gateway that ran nothing new plays the canary, say how often a gate cries
wolf on this fleet's own traffic.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.judge.gates.counted import Counted
from policies.judge.gates.kind import Response
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.value import Value
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict, Window

MOST_PLACEBO_ROLLBACKS = 0.005
"""Share of placebo windows above which a gate may only hold."""
_FINAL = frozenset({Action.PROMOTE, Action.ROLL_BACK, Action.HOLD_FOR_HUMAN})


class Replayed(Value):
    """How a window ends under a policy: the decision, how long it took, and every change of mind."""

    decision: Decision
    seconds: float
    ticks: int
    changes: tuple[tuple[float, Action], ...] = ()


def replay(policy: GatePolicy, window: Window, cohorts: Cohorts, ticks: Iterable[Tick]) -> Replayed | None:
    """Fold recorded ticks under this policy until it decides for good; None when there are none.

    A gate the record knows nothing about is blind throughout, so that nothing is promoted on it.
    """
    state, decision, changes = WindowState(), None, list[tuple[float, Action]]()
    for tick in ticks:
        state, decision = fold_tick(policy, window, cohorts, state, _complete(policy, tick))
        if not changes or changes[-1][1] is not decision.action:
            changes.append((state.wall, decision.action))
        if decision.action in _FINAL:
            break
    if decision is None:
        return None
    return Replayed(decision=decision, seconds=state.wall, ticks=state.ticks, changes=tuple(changes))


def _complete(policy: GatePolicy, tick: Tick) -> Tick:
    """Say of each gate the record does not know that it could not be seen."""
    known = {*tick.counts, *tick.baseline, *tick.gauges, *tick.signs, *tick.blind}
    lost = {
        gate.id: f"{gate.id} was not recorded"
        for gate in policy.gates
        if isinstance(gate, Counted) and gate.id not in known
    }
    return tick.model_copy(update={"blind": tick.blind | lost}) if lost else tick


@dataclass(frozen=True, slots=True)
class Placebo:
    """One window in which nothing new ran: who played the canary, and what was counted."""

    cohorts: Cohorts
    ticks: Sequence[Tick]


class GateCalibration(Value):
    """What a gate does on this fleet's own traffic when nothing is wrong."""

    gate: str
    windows: int
    rollbacks: int
    proven: int
    events: int
    bad: int
    spread: float
    """Standard deviation of the gateways' own shares of bad events."""
    hours: dict[int, float] = {}
    """Per hour of the day: canary events a minute, from which the decidable margin follows."""

    @property
    def rollback_share(self) -> float:
        """The share of placebo windows this gate would have rolled back."""
        return self.rollbacks / self.windows if self.windows else 0.0

    @property
    def may_roll_back(self) -> bool:
        """Whether the gate is calm enough to roll back by itself."""
        return self.windows > 0 and self.rollback_share <= MOST_PLACEBO_ROLLBACKS


def calibrate(policy: GatePolicy, placebos: Sequence[Placebo]) -> tuple[GateCalibration, ...]:
    """Judge every placebo window, gate by gate as if it were alone, and add up what happened."""
    found = []
    for gate in policy.gates:
        if isinstance(gate, Counted):
            alone = policy.model_copy(update={"gates": (gate,)})
            found.append(_calibrated(alone, gate, placebos))
    return tuple(found)


def calmed(policy: GatePolicy, calibrations: Sequence[GateCalibration]) -> GatePolicy:
    """Return the policy in which a gate that cries wolf on this traffic may only hold."""
    wild = {one.gate for one in calibrations if not one.may_roll_back}
    gates = (
        gate.model_copy(update={"action": Response.HOLD}) if gate.id in wild else gate
        for gate in policy.gates
    )
    return policy.model_copy(update={"gates": tuple(gates)})


def _calibrated(alone: GatePolicy, gate: Counted, placebos: Sequence[Placebo]) -> GateCalibration:
    rollbacks = proven = 0
    totals: dict[str, list[int]] = {}
    hours: dict[int, list[float]] = {}
    for placebo in placebos:
        verdicts = _verdicts(alone, gate.id, placebo)
        rollbacks += GateVerdict.UNHEALTHY in verdicts
        proven += GateVerdict.HEALTHY in verdicts
        _add_up(gate.id, placebo, totals, hours)
    shares = [bad / events for events, bad in totals.values() if events]
    return GateCalibration(
        gate=gate.id,
        windows=len(placebos),
        rollbacks=rollbacks,
        proven=proven,
        events=sum(events for events, _ in totals.values()),
        bad=sum(bad for _, bad in totals.values()),
        spread=_deviation(shares),
        hours={hour: sum(rates) / len(rates) for hour, rates in sorted(hours.items())},
    )


def _verdicts(alone: GatePolicy, gate: str, placebo: Placebo) -> set[GateVerdict]:
    """Return every verdict the gate passed until it would have rolled back."""
    state, seen = WindowState(), set[GateVerdict]()
    for tick in placebo.ticks:
        state, decision = fold_tick(alone, alone.window, placebo.cohorts, state, tick)
        seen |= {reading.verdict for reading in decision.readings if reading.gate == gate}
        if GateVerdict.UNHEALTHY in seen:
            break
    return seen


def _add_up(gate: str, placebo: Placebo, totals: dict[str, list[int]], hours: dict[int, list[float]]) -> None:
    """Add the canary's events of this window to its gateway's sums and to its hour of the day."""
    canary = placebo.cohorts.canary[0]
    rows = [tick.counts.get(gate, {}).get(canary, (0, 0)) for tick in placebo.ticks]
    events, bad = sum(n for n, _ in rows), sum(x for _, x in rows)
    sums = totals.setdefault(canary, [0, 0])
    sums[0] += events
    sums[1] += bad
    if len(placebo.ticks) > 1:
        first, last = placebo.ticks[0].at, placebo.ticks[-1].at
        hours.setdefault(int(first % 86400 // 3600), []).append(events / (last - first) * 60)


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:  # noqa: PLR2004 - one value deviates from nothing
        return 0.0
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def differences(
    old: Mapping[str, Replayed], new: Mapping[str, Replayed]
) -> tuple[tuple[str, Action, Action], ...]:
    """Return the rollouts that end otherwise under another policy: name, before, after."""
    return tuple(
        (name, old[name].decision.action, new[name].decision.action)
        for name in sorted(old.keys() & new.keys())
        if old[name].decision.action is not new[name].decision.action
    )
