"""What would have changed a verdict: the least difference in what was counted, found by the rule itself.

The evidence depends on the order in which events came, so what was different is put into the recent scrapes
and these are folded once more; nothing is estimated. Where that cannot be done, nothing is said.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from math import ceil

from policies.judge.failures import Why, aside_for, excess, not_started
from policies.judge.gates.counted import Counted
from policies.judge.gates.kind import GateState, Response, Setup
from policies.judge.health import Health, HealthState, health_step
from policies.judge.sle import Counts, SleState, baseline_share, sle_rewound, sle_step
from policies.judge.tick import Tick
from policies.judge.window import WindowState
from policies.model.gates import GatePolicy
from policies.model.verdict import (
    Action,
    Against,
    Cohorts,
    Decision,
    Differing,
    GateReading,
    GateVerdict,
    Otherwise,
    Window,
)

MOST_EVENTS = 1_000_000
"""More events than this are as good as never."""
_BAD = {GateVerdict.UNHEALTHY, GateVerdict.CONFLICTING}
Rows = Sequence[tuple[int, int, int, int]]


def explained(
    policy: GatePolicy, window: Window, cohorts: Cohorts, state: WindowState, decision: Decision
) -> Decision:
    """Return the decision with what would have changed it; `state` is the one that it was made in."""
    setup = Setup(
        cohorts=cohorts,
        scrape=policy.scrape,
        horizon=ceil(window.cap / policy.scrape),
        started=state.started if state.started is not None else state.last,
        waves=policy.budget.waves,
        each_wave=policy.budget.each_wave,
        overall=policy.budget.overall,
    )
    gates = {gate.id: gate for gate in policy.gates}
    found: list[Otherwise] = []
    for reading in decision.readings:
        gate, counted = gates.get(reading.gate), state.gates.get(reading.gate)
        if isinstance(gate, Counted) and counted is not None and reading.against is not None:
            found += of_counted(setup, gate, counted, reading)
        elif gate is not None and gate.response(reading) is Response.ROLL_BACK:
            not_back = {*aside_for(state.aside, Why.NOT_BACK), *not_started(state.reboots)}
            found += _of_hard(cohorts, decision, reading, not_back)
    return decision.model_copy(update={"otherwise": tuple(found)})


def of_counted(setup: Setup, gate: Counted, state: GateState, reading: GateReading) -> Iterator[Otherwise]:
    """Yield what would have changed the verdict of a gate that counts."""
    recount = Recount.of(setup, gate, state) if reading.against is Against.CONTROL else None
    if recount is not None and recount.verdict(0) is not reading.verdict:
        recount = None  # what is folded again must first say the same again
    if reading.verdict in _BAD and recount is not None:
        yield from recount.least(Differing.FEWER_BAD, lambda verdict: verdict is not reading.verdict)
    elif reading.verdict is GateVerdict.HEALTHY and recount is not None:
        yield from recount.least(Differing.MORE_BAD, lambda verdict: verdict is not reading.verdict)
    elif reading.verdict is GateVerdict.NOT_ENOUGH_DATA:
        yield from _more_good(setup, gate, state)
        if recount is not None:
            yield from recount.least(Differing.MORE_BAD, lambda verdict: verdict in _BAD)


class Recount:
    """The recent scrapes of a gate that compares with control, to be folded again with other counts."""

    def __init__(self, setup: Setup, gate: Counted, state: GateState, before: SleState) -> None:
        self._setup, self._gate, self._state, self._before = setup, gate, state, before
        self._rows: Rows = state.sle.recent if state.sle is not None else ()
        self._all_rows: Rows = state.overall.recent if state.overall is not None else ()
        self._all_before = sle_rewound(state.overall, gate.margin) if state.overall is not None else None

    @classmethod
    def of(cls, setup: Setup, gate: Counted, state: GateState) -> "Recount | None":
        """Return it, None where nothing was folded or it cannot be undone."""
        before = sle_rewound(state.sle, gate.margin) if state.sle is not None else None
        unknown = state.overall is not None and sle_rewound(state.overall, gate.margin) is None
        return None if before is None or unknown else cls(setup, gate, state, before)

    def verdict(self, more_bad: int) -> GateVerdict:
        """Return what the gate would say with so many more bad events, fewer where that is negative."""
        return self._gate.said(self._setup, self.state(more_bad)).verdict

    def state(self, more_bad: int) -> GateState:
        """Return what the gate would remember with so many more bad events, fewer where that is negative."""
        rows, gate = with_bad(self._rows, more_bad), self._gate
        memory = gate.memory(self._setup.scrape)
        update: dict[str, object] = {"sle": _folded(self._before, rows, gate, memory)}
        if self._all_before is not None:
            update["overall"] = _folded(self._all_before, self._among_all(rows), gate, memory)
        if self._state.health is not None and gate.health is not None:
            update["health"] = self._proof(rows, self._state.health, gate.health)
        return self._state.model_copy(update=update)

    def least(self, differing: Differing, changes: Callable[[GateVerdict], bool]) -> Iterator[Otherwise]:
        """Yield the least number of events that changes the verdict, if any does."""
        sign = -1 if differing is Differing.FEWER_BAD else 1
        most = sum(bad if sign < 0 else total - bad for total, bad, _, _ in self._rows)
        count = _least(lambda number: changes(self.verdict(sign * number)), most)
        if count is not None:
            then = self.verdict(sign * count)
            yield Otherwise(gate=self._gate.id, differing=differing, count=count, then=then)

    def _among_all(self, rows: Rows) -> Rows:
        """Return the scrapes of all changed gateways with the same events different as in the wave's own."""
        kept, same = len(self._all_rows) - len(rows), []
        for (total, bad, control, control_bad), old, new in zip(
            self._all_rows[max(0, kept) :], self._rows[max(0, -kept) :], rows[max(0, -kept) :], strict=True
        ):
            same.append((total, bad - old[1] + new[1], control, control_bad))
        return (*self._all_rows[: max(0, kept)], *same)

    def _proof(self, rows: Rows, health: HealthState, asked: Health) -> HealthState:
        """Return the proof of health with what the recent scrapes said replaced."""
        sle, margin = self._before, self._gate.margin
        was, now = HealthState(), HealthState()
        for old, new in zip(self._rows, rows, strict=True):
            share = baseline_share(sle, margin.delta)
            was = health_step(was, Counts(*old), share, asked)
            now = health_step(now, Counts(*new), share, asked)
            sle = sle_step(sle, Counts(*new), margin, len(rows))
        return HealthState(
            conditional=health.conditional - was.conditional + now.conditional,
            counted=health.counted - was.counted + now.counted,
            bad=health.bad - was.bad + now.bad,
        )


def with_bad(rows: Rows, more_bad: int) -> Rows:
    """Return the scrapes with so many more bad events of the changed side, the newest first.

    So many fewer where the number is negative; never fewer than none or more than there were events.
    """
    changed = []
    for total, bad, control, control_bad in reversed(rows):
        here = max(-bad, more_bad) if more_bad < 0 else min(total - bad, more_bad)
        more_bad -= here
        changed.append((total, bad + here, control, control_bad))
    return tuple(reversed(changed))


def _folded(before: SleState, rows: Rows, gate: Counted, memory: int) -> SleState:
    state = before
    for row in rows:
        state = sle_step(state, Counts(*row), gate.margin, memory)
    return state


def _more_good(setup: Setup, gate: Counted, state: GateState) -> Iterator[Otherwise]:
    """Yield how many good events more, in one more scrape without any on control, prove health.

    Nothing where one event less is no missing proof either: then the scrape alone changes what is recent.
    """
    if gate.health is None or not setup.cohorts.canary:
        return
    canary = setup.cohorts.canary[0]

    def verdict(count: int) -> GateVerdict:
        tick = Tick(at=setup.started, counts={gate.id: {canary: (count, 0)}})
        return gate.judge(setup, state, tick)[1].verdict

    count = _least(lambda number: verdict(number) is GateVerdict.HEALTHY, MOST_EVENTS)
    if count is not None and (count == 1 or verdict(count - 1) is GateVerdict.NOT_ENOUGH_DATA):
        within = _within(count, setup, state)
        then = GateVerdict.HEALTHY
        yield Otherwise(gate=gate.id, differing=Differing.MORE_GOOD, count=count, then=then, within=within)


def _within(count: int, setup: Setup, state: GateState) -> timedelta | None:
    """Return how long so many events take to come as fast as the recent ones, in whole scrapes."""
    rows = state.sle.recent if state.sle is not None else ()
    came = sum(total for total, *_ in rows)
    return ceil(count * len(rows) / came) * setup.scrape if came else None


def _least(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the least number from which on it holds, None when it does not even at `most`."""
    high = 1
    while high < most and not holds(high):
        high = min(2 * high, most)
    if most < 1 or not holds(high):
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _of_hard(
    cohorts: Cohorts, decision: Decision, reading: GateReading, not_back: Collection[str]
) -> Iterator[Otherwise]:
    """Yield how many gateways fewer would have been failing by themselves rather than by the release."""
    fewer = excess(decision.failed, cohorts, not_back)
    if reading.verdict is GateVerdict.HARD and decision.action is Action.ROLL_BACK and fewer > 0:
        then = GateVerdict.HARD
        yield Otherwise(gate=reading.gate, differing=Differing.FEWER_FAILED, count=fewer, then=then)
