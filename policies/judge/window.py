"""The observation window: ticks folded one by one into evidence, clocks and a decision.

Pure, and exact through JSON: folding after every tick through a stored state gives the same
bytes as folding in one go, so a killed worker changes nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from math import ceil

from policies.judge.failures import (
    Aside,
    Asides,
    Reboots,
    Why,
    as_not_back,
    aside_for,
    excess,
    failed_of,
    leaves_any,
    left_of,
    may_fail_alone,
    may_fail_too,
    not_started,
    reboots_of,
    set_aside,
    since_boots,
    still_aside,
    without_rebooted,
)
from policies.judge.gates.kind import GateState, Response, Setup
from policies.judge.look import Memory
from policies.judge.observation import read_tick, started_again
from policies.judge.reading import Reading
from policies.judge.tick import Tick
from policies.judge.verdict import AfterReboots, Clocks, decide
from policies.model.gates import Gate, GatePolicy
from policies.model.value import Value
from policies.model.verdict import LEASE, Action, Cohorts, Decision, GateReading, GateVerdict, Window
from policies.votes import basis_of_harm

REBOOTS_COUNT = timedelta(hours=4)
"""How long reboots after which gateways are unwell are harm about which operators are asked."""
GOOD_SCRAPES = 4
"""Scrapes without its cause after which a hold clears."""
MOST_SCRAPES_BETWEEN = 2.0
"""Scrapes one tick may add to observed time; more between two ticks was not observed."""


class WindowState(Value):
    """Everything remembered between ticks."""

    started: float | None = None
    last: float = 0.0
    observed: float = 0.0
    ticks: int = 0
    blind_since: float | None = None
    other_since: float | None = None
    extensions: int = 0
    held: Decision | None = None
    good_since: float | None = None
    final: Decision | None = None
    memory: Memory = Memory()
    unseen: dict[str, float] = {}
    silent: dict[str, float] = {}
    """Since when the users' port of a gateway has been silent at every tick."""
    back: dict[str, float] = {}
    """Since when a changed gateway has served what it ran before at every tick."""
    aside: dict[str, Aside] = {}
    reboots: dict[str, Reboots] = {}
    """Of gateways whose wave has passed, one entry each."""
    gates: dict[str, GateState] = {}

    @property
    def wall(self) -> float:
        """Seconds since the first tick, seen or not."""
        return self.last - self.started if self.started is not None else 0.0


class Record(Value):
    """A window as it was watched, kept so that it can be judged again without any metrics."""

    rollout: str
    wave: int
    policy: GatePolicy
    window: Window
    cohorts: Cohorts
    ticks: tuple[Tick, ...] = ()


def restarted(state: WindowState) -> WindowState:
    """Return the state with a window that begins with the next tick; what was counted stays counted."""
    clocks = {"started": None, "observed": 0.0, "extensions": 0, "held": None, "good_since": None}
    return state.model_copy(update=clocks)


def set_back(state: WindowState, at: float) -> WindowState:
    """Return the state for a tick at that time, which may lie before the last: clocks of workers differ.

    Nothing that is remembered lies in the future then, or the window would stand still until that has come.
    Gauges are followed anew.
    """
    if at >= state.last:
        return state

    def by_now(moment: float | None) -> float | None:
        return None if moment is None else min(moment, at)

    return state.model_copy(
        update={
            "started": by_now(state.started),
            "last": at,
            "blind_since": by_now(state.blind_since),
            "other_since": by_now(state.other_since),
            "good_since": by_now(state.good_since),
            "unseen": {name: min(since, at) for name, since in state.unseen.items()},
            "silent": {name: min(since, at) for name, since in state.silent.items()},
            "back": {name: min(since, at) for name, since in state.back.items()},
            "aside": {
                name: one.model_copy(update={"at": min(one.at, at)}) for name, one in state.aside.items()
            },
            "reboots": {
                name: one.model_copy(update={"at": min(one.at, at)}) for name, one in state.reboots.items()
            },
            "memory": state.memory.model_copy(update={"counted": min(state.memory.counted, at)}),
            "gates": {name: _gate_set_back(one, at) for name, one in state.gates.items()},
        }
    )


def _gate_set_back(gate: GateState, at: float) -> GateState:
    spared = {name: min(seen, at) for name, seen in gate.spared.items()}
    return gate.model_copy(update={"levels": {}, "spared": spared})


def silent_since(policy: GatePolicy, state: WindowState, at: float) -> Mapping[str, float]:
    """Return since when users' ports have been silent, as far as a tick at that time may go by it.

    A host may have been back between ticks that lie far apart. Its agent's answer of then says nothing of an
    outage that began later, so its silence begins anew.
    """
    most = policy.blindness.grace.total_seconds() + MOST_SCRAPES_BETWEEN * policy.scrape.total_seconds()
    return set_back(state, at).silent if at - state.last <= most else {}


def fold_reading(
    policy: GatePolicy, window: Window, cohorts: Cohorts, state: WindowState, reading: Reading
) -> tuple[WindowState, Tick, Decision]:
    """Fold one tick as it was read; what the gates saw of it is worth recording."""
    state = set_back(state, reading.at)
    judged = since_boots(cohorts, state.reboots)
    aside = _still_aside(policy, state, judged, reading.absent, reading.at)
    memory, tick = read_tick(policy, left_of(judged, aside), state.memory, reading)
    if policy.passed:
        again = started_again(policy, judged, reading, not_started(state.reboots))
        tick = tick.model_copy(update={"started": again})
    state = state.model_copy(update={"memory": memory})
    after, decision = fold_tick(policy, window, cohorts, state, tick)
    return after, tick, decision


def fold_tick(
    policy: GatePolicy, window: Window, cohorts: Cohorts, state: WindowState, tick: Tick
) -> tuple[WindowState, Decision]:
    """Fold one tick as the gates saw it."""
    state = set_back(state, tick.at)
    reboots = reboots_of(state.reboots, cohorts, tick) if policy.passed else {}
    cohorts = since_boots(cohorts, reboots)
    aside = _still_aside(policy, state, cohorts, tick.absent, tick.at)
    aside = _rebooted(policy, cohorts, aside, reboots, tick)
    setup = Setup(
        cohorts=left_of(cohorts, aside),
        scrape=policy.scrape,
        horizon=ceil(window.cap / policy.scrape),
        started=_started(state, tick),
        waves=policy.budget.waves,
        each_wave=policy.budget.each_wave,
        overall=policy.budget.overall,
        passed=policy.passed,
    )
    gates, readings, responses = {}, [], {}
    for gate in policy.gates:
        gates[gate.id], reading = _judge(setup, gate, state.gates.get(gate.id, GateState()), tick)
        readings.append(reading)
        responses[gate.id] = gate.response(reading)
    hard = _hard(readings, responses, tick)
    gone = {name: why for name, why in hard.items() if name in not_started(reboots)}
    own = {name: why for name, why in hard.items() if name not in gone}
    failing = set_aside(aside, own, Why.FAILED, tick.at)
    if excess({*failed_of(failing), *gone}, cohorts) <= 0:
        failing, gone = set_aside(failing, gone, Why.NOT_BACK, tick.at), {}
    alone = may_fail_alone(failing, cohorts)
    unseen, aside = _unseen(policy, cohorts, state, tick, failing if alone else aside)
    back = _back_on_known_good(cohorts, state, tick, aside)
    identity, other_since, aside = _identity(policy, cohorts, state, tick, aside, back)
    aside = as_not_back(aside, not_started(reboots) - failing.keys())
    readings = [*identity, *readings]
    blind = any(reading.verdict is GateVerdict.METRICS_UNAVAILABLE for reading in readings)
    clocks = _clocks(policy, state, tick, blind=blind, usable=not (blind or back) and other_since is None)
    before = silent_since(policy, state, tick.at)
    silent = {name: before.get(name, tick.at) for name in tick.silent}
    again = {*aside_for(aside, Why.REBOOTED)} & {*tick.started}
    left = {name: one for name, one in aside.items() if name not in again}
    kept = {"gates": gates, "unseen": unseen, "silent": silent, "aside": left, "back": back}
    kept |= {"other_since": other_since, "reboots": reboots}
    state, out = state.model_copy(update=clocks | kept), aside if alone else failing
    lately = tick.at - REBOOTS_COUNT.total_seconds()
    unwell = AfterReboots(
        gone=gone,
        not_back=[name for name in aside_for(out, Why.NOT_BACK) if out[name].at > lately],
        twice=[name for name, one in reboots.items() if one.times > 1 and one.at > lately],
    )
    decision = decide(policy, window, readings, _elapsed(state), responses, out, cohorts, unwell)
    return _latched(policy, window, state, decision)


def _still_aside(
    policy: GatePolicy, state: WindowState, cohorts: Cohorts, absent: Collection[str], at: float
) -> dict[str, Aside]:
    """Return who is still set aside; after its wave a reboot explains missing evidence for the grace only."""
    aside = still_aside(state.aside, cohorts, absent)
    return without_rebooted(aside, at - policy.blindness.grace.total_seconds()) if policy.passed else aside


def _rebooted(
    policy: GatePolicy, cohorts: Cohorts, aside: Asides, reboots: Mapping[str, Reboots], tick: Tick
) -> dict[str, Aside]:
    """Return who is set aside, with those whose host has rebooted: after its wave the second one counts."""
    if not policy.passed:
        rebooted = dict.fromkeys(sorted(cohorts.changed & set(tick.rebooted)), "its host has rebooted")
        return set_aside(aside, rebooted, Why.REBOOTED, tick.at)
    now = {name: one.times for name, one in reboots.items() if one.at == tick.at}
    twice = {
        name: f"its host has rebooted {times} times since the release runs there"
        for name, times in now.items()
        if times > 1
    }
    failed = twice if may_fail_too(aside, twice, cohorts) else {}
    aside = set_aside(aside, failed, Why.FAILED, tick.at)
    once = {name: "its host has rebooted" for name in now if name not in failed}
    return set_aside(aside, once, Why.REBOOTED, tick.at)


def _started(state: WindowState, tick: Tick) -> float:
    """Return since when signs count: a window that follows another one misses nothing in between."""
    if state.started is not None:
        return state.started
    return state.last if state.ticks else tick.at


def next_window(state: WindowState) -> WindowState:
    """Return the state in which the next wave's window begins: what is compared over all waves goes on."""
    kept = {gate: one.overall or one.sle for gate, one in state.gates.items()}
    return WindowState(gates={gate: GateState(overall=sle) for gate, sle in kept.items() if sle})


def _hard(readings: Sequence[GateReading], responses: Mapping[str, Response], tick: Tick) -> dict[str, str]:
    """Return the sign on each gateway that failed by itself at this tick: it spares the control."""
    found: dict[str, str] = {}
    for reading in readings:
        if reading.verdict is GateVerdict.HARD and responses[reading.gate] is Response.ROLL_BACK:
            signs = tick.signs.get(reading.gate, {})
            for name in reading.instances:
                lasts = f" for {signs[name].until - signs[name].since:.0f} s" if name in signs else ""
                found.setdefault(name, f"{reading.gate}: it shows the sign{lasts}, and the control does not")
    return found


def _unseen(
    policy: GatePolicy, cohorts: Cohorts, state: WindowState, tick: Tick, aside: dict[str, Aside]
) -> tuple[dict[str, float], dict[str, Aside]]:
    """Return which canaries are unseen since when, and who is set aside.

    Those that metrics do not reach blind the window, unless they are few enough to fail by themselves;
    half the grace decides, so that the window is not held for them.
    """
    unseen = {name: state.unseen.get(name, tick.at) for name in tick.unseen if name not in aside}
    patience = policy.blindness.grace.total_seconds() / 2
    silent = [name for name, since in unseen.items() if tick.at - since >= patience]
    if silent and _may_be_missing(policy, aside, silent, cohorts):
        not_seen = {name: f"its metrics were not seen for {tick.at - unseen[name]:.0f} s" for name in silent}
        absent = {
            name: f"{why}, and neither its agent nor its users' port answers"
            for name, why in not_seen.items()
            if name in tick.absent
        }
        aside = set_aside(aside, absent, Why.ABSENT, tick.at)
        aside = set_aside(aside, not_seen, Why.UNSEEN, tick.at)
    return unseen, aside


def _may_be_missing(policy: GatePolicy, aside: Asides, names: Collection[str], cohorts: Cohorts) -> bool:
    """Return whether the window goes on without these gateways; a wave needs one that can be judged."""
    is_judged = policy.passed or leaves_any(aside, names, cohorts)
    return is_judged and may_fail_too(aside, names, cohorts)


def _elapsed(state: WindowState) -> Clocks:
    blind = state.last - state.blind_since if state.blind_since is not None else 0.0
    observed, wall, dark = (timedelta(seconds=seconds) for seconds in (state.observed, state.wall, blind))
    return Clocks(observed=observed, wall=wall, blind=dark, extensions=state.extensions)


def _judge(setup: Setup, gate: Gate, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
    """Let the gate fold what it saw; a blind gate only says so, though what was counted is kept.

    Where a sign was noticed and is not decided yet, it is: who cannot be seen keeps it open no longer.
    """
    if gate.id not in tick.blind or state.unsure:
        return gate.judge(setup, state, tick)
    if gate.id in tick.counts:
        state, _ = gate.judge(setup, state, tick)
    why = tick.blind[gate.id]
    return state, GateReading(gate=gate.id, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=why)


def _back_on_known_good(cohorts: Cohorts, state: WindowState, tick: Tick, aside: Asides) -> dict[str, float]:
    """Return since when changed gateways serve what they ran before: their leases have ended, or not begun.

    One that is committed has no lease. An operator, or we ourselves, have sent it back.
    """
    before = {**cohorts.committed, **cohorts.leased}
    back = (name for name, digest in tick.other.items() if before.get(name) == digest)
    return {name: state.back.get(name, tick.at) for name in back if name not in aside}


def _lapsed(policy: GatePolicy, cohorts: Cohorts, back: Mapping[str, float], tick: Tick) -> list[GateReading]:
    """Return the reading of leases, where known-good serves again; a scrape or two may be behind."""
    if not back:
        return []
    most = policy.fresh_within.total_seconds()
    ended = sorted(name for name, since in back.items() if tick.at - since >= most)
    if not ended:
        reason = f"{min(back)} is not yet seen with what it tries out; known-good serves"
        return [GateReading(gate=LEASE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)]
    more = f", and on {len(ended) - 1} more" if len(ended) > 1 else ""
    why = "its lease ended unconfirmed; known-good serves"
    if ended[0] in cohorts.committed:
        why = "what it ran before the release serves again, although it was committed"
    reason = f"{ended[0]}: {why}{more}"
    return [GateReading(gate=LEASE, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=reason)]


def _identity(
    policy: GatePolicy,
    cohorts: Cohorts,
    state: WindowState,
    tick: Tick,
    aside: dict[str, Aside],
    back: Mapping[str, float],
) -> tuple[list[GateReading], float | None, dict[str, Aside]]:
    """Return identity's readings where it has any, since when that is so, and who is set aside.

    A scrape or two behind a switch is no mistake yet. As many changed gateways as may fail by themselves
    are set aside for it: one that runs something else keeps nobody from proving what the others run. One
    that is back on its known-good makes no mistake: evidence is missing.
    """
    since = state.other_since
    other = {n: digest for n, digest in tick.other.items() if n not in aside and n not in back}
    readings = _lapsed(policy, cohorts, back, tick)
    if "identity" in tick.blind:
        verdict, reason = GateVerdict.METRICS_UNAVAILABLE, tick.blind["identity"]
    elif other:
        since = tick.at if since is None else since
        lasting = tick.at - since >= policy.fresh_within.total_seconds()
        few = other.keys() <= cohorts.changed and _may_be_missing(policy, aside, other, cohorts)
        own = {
            name: f"it runs {digest[:19]}, which the plan did not put there" for name, digest in other.items()
        }
        if lasting and few:
            return readings, None, set_aside(aside, own, Why.MISTAKEN, tick.at)
        verdict = GateVerdict.CONFLICTING if lasting else GateVerdict.NOT_ENOUGH_DATA
        instance, digest = min(other.items())
        reason = f"{instance} runs {digest[:19]}, which is not what the plan put there"
    else:
        return readings, None, aside
    return [GateReading(gate="identity", verdict=verdict, reason=reason), *readings], since, aside


def _clocks(
    policy: GatePolicy, state: WindowState, tick: Tick, *, blind: bool, usable: bool
) -> dict[str, object]:
    """Return the clocks moved on: observed time only when everything asked for was seen."""
    last, most = state.last or tick.at, MOST_SCRAPES_BETWEEN * policy.scrape.total_seconds()
    since = state.blind_since if state.blind_since is not None else last
    return {
        "started": state.started if state.started is not None else tick.at,
        "last": tick.at,
        "observed": state.observed + (min(max(0.0, tick.at - last), most) if usable else 0.0),
        "ticks": state.ticks + 1,
        "blind_since": since if blind else None,
    }


def _latched(
    policy: GatePolicy, window: Window, state: WindowState, decision: Decision
) -> tuple[WindowState, Decision]:
    """Keep a rollback for ever, and a hold until its cause has been absent for four scrapes in a row.

    A hard sign outranks harm that was only measured: in fleets where operators decide about that, it acts.
    """
    if state.final is not None and not _outranks(decision, state.final):
        return state, state.final.model_copy(update=_named(decision))
    if policy.shadow:
        decision = _shadowed(decision)
    if decision.action is Action.ROLL_BACK or (decision.action is Action.HOLD_FOR_HUMAN and policy.shadow):
        return state.model_copy(update={"final": decision}), decision
    if decision.action in {Action.HOLD, Action.HOLD_FOR_HUMAN}:
        bare = decision.model_copy(update={"readings": (), "held_by": basis_of_harm(decision).against})
        return state.model_copy(update={"held": bare, "good_since": None}), decision
    if state.held is not None:
        since = None if state.blind_since is not None else (state.good_since or state.last)
        gone = state.last - since if since is not None else 0.0
        if gone < (GOOD_SCRAPES - 1) * policy.scrape.total_seconds():
            reason = f"{state.held.reason}; the cause is gone for {gone:.0f} s"
            held = state.held.model_copy(update={"reason": reason} | _named(decision))
            return state.model_copy(update={"good_since": since}), held
    state = state.model_copy(update={"held": None, "good_since": None})
    if decision.action is Action.EXTEND:
        state = state.model_copy(update={"extensions": _extensions(window, state)})
    return state, decision


def _outranks(decision: Decision, final: Decision) -> bool:
    hard = decision.action is Action.ROLL_BACK and decision.verdict is GateVerdict.HARD
    return hard and final.verdict is not GateVerdict.HARD


def _named(decision: Decision) -> dict[str, object]:
    """Return what is said anew at every tick, whatever is latched."""
    return {"readings": decision.readings, **decision.set_aside}


def _extensions(window: Window, state: WindowState) -> int:
    """Return how many extensions cover the time observed; one at least is new."""
    over = timedelta(seconds=state.observed) - window.nominal
    return int(over // window.extension) + 1 if window.extension else state.extensions + 1


def _shadowed(decision: Decision) -> Decision:
    """Turn what would be done into what is said: in shadow mode only a person acts."""
    if decision.action in {Action.PROMOTE, Action.ROLL_BACK}:
        reason = f"shadow: would {decision.action.value.replace('_', ' ')}: {decision.reason}"
        return decision.model_copy(update={"action": Action.HOLD_FOR_HUMAN, "reason": reason})
    return decision
