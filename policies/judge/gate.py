"""One gate at one tick: what it remembers, and its verdict with the numbers behind it."""

from dataclasses import dataclass
from typing import assert_never

from policies.gates import (
    Alerts,
    Complaints,
    Counted,
    Exceedance,
    Gate,
    GatePolicy,
    GaugeRatio,
    Hard,
    Margin,
    Rate,
    Response,
    Slope,
)
from policies.judge.gauges import leaks, log_ratio, mean_ratio, theil_sen
from policies.judge.hard import is_everybodys
from policies.judge.health import HealthState, health_step, health_value
from policies.judge.placebo import excess_of, placebo_step, stands_out
from policies.judge.sle import (
    Counts,
    Evidence,
    SleState,
    evidence_of,
    past_share,
    proven_worse,
    sle_init,
    sle_step,
)
from policies.judge.tick import Bundle, Sign
from policies.words.verdict import Cohorts, GateReading, GateVerdict
from policies.words.word import Word

MINUTE = 60.0
MOST_POINTS = 64
FEWEST_POINTS = 5
MOST_SLOPE_POINTS = 24
MOST_TRACKED = 16
"""Control gateways whose slopes are followed."""
MOST_RECENT = 20
_SHOWN_CEILING = 1e12


class GateState(Word):
    """What one gate remembers between ticks; each kind uses its own fields."""

    sle: SleState | None = None
    health: HealthState | None = None
    placebo: dict[str, SleState] = {}
    points: tuple[tuple[float, float], ...] = ()
    tracks: dict[str, tuple[tuple[float, float], ...]] = {}


@dataclass(frozen=True, slots=True)
class Bench:
    """What every gate of a window is judged with."""

    policy: GatePolicy
    cohorts: Cohorts
    horizon: int
    started: float

    def memory(self, margin: Margin) -> int:
        """How many scrapes the plain guards look back."""
        return max(1, min(MOST_RECENT, round(margin.over / self.policy.scrape)))

    def alpha_equal(self, share: float) -> float:
        """The gate's part of the error budget in this wave."""
        return self.policy.budget.alpha_equal * share / self.policy.budget.waves


def judge_gate(bench: Bench, gate: Gate, state: GateState, bundle: Bundle) -> tuple[GateState, GateReading]:
    """Fold what the gate saw at this tick and return its verdict; a blind gate only says so."""
    if gate.id not in bundle.blind:
        return _judge(bench, gate, state, bundle)
    if gate.id in bundle.counts:
        state, _ = _judge(bench, gate, state, bundle)
    why = bundle.blind[gate.id]
    return state, GateReading(gate=gate.id, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=why)


def _judge(bench: Bench, gate: Gate, state: GateState, bundle: Bundle) -> tuple[GateState, GateReading]:
    match gate:
        case Rate() | Exceedance() | Complaints():
            return _judge_counted(bench, gate, state, bundle)
        case GaugeRatio():
            return _judge_ratio(bench, gate, state, bundle)
        case Slope():
            return _judge_slope(bench, gate, state, bundle)
        case Hard() | Alerts():
            return state, _judge_signs(bench, gate, bundle)
        case _:
            assert_never(gate)


def response_of(gate: Gate, reading: GateReading) -> Response:
    """Return what this reading may cause; a gauge far beyond its ratio may cause more than the gate."""
    if isinstance(gate, GaugeRatio) and reading.numbers.get("beyond_hard"):
        return Response.ROLL_BACK
    return gate.action


def _judge_counted(
    bench: Bench, gate: Counted, state: GateState, bundle: Bundle
) -> tuple[GateState, GateReading]:
    seen = bundle.counts.get(gate.id)
    sle = state.sle or sle_init(bench.horizon, *bundle.past.get(gate.id, (0, 0)))
    if seen is None:
        return state, _reading(bench, gate, state, sle)
    counts = _sides(seen, bench.cohorts)
    memory = bench.memory(gate.margin)
    share = past_share(sle, gate.margin.delta)
    after = sle_step(sle, counts, gate.margin, memory)
    health = state.health
    if gate.health is not None:
        health = health_step(health or HealthState(), counts, share, gate.health)
    placebo = state.placebo
    if gate.placebo:
        placebo = placebo_step(
            placebo, seen, bench.cohorts.control, gate.margin, horizon=bench.horizon, memory=memory
        )
    moved = GateState(sle=after, health=health, placebo=placebo)
    return moved, _reading(bench, gate, moved, after)


def _sides(seen: dict[str, tuple[int, int]], cohorts: Cohorts) -> Counts:
    def total(instances: tuple[str, ...], part: int) -> int:
        return sum(seen.get(instance, (0, 0))[part] for instance in instances)

    return Counts(
        total(cohorts.canary, 0),
        total(cohorts.canary, 1),
        total(cohorts.control, 0),
        total(cohorts.control, 1),
    )


def _reading(bench: Bench, gate: Counted, state: GateState, sle: SleState) -> GateReading:
    evidence = evidence_of(sle)
    alpha_equal, alpha_margin = bench.alpha_equal(gate.share), bench.policy.budget.alpha_margin
    proof = health_value(state.health, gate.health) if state.health and gate.health else 0.0
    needed = 1 / gate.health.error if gate.health else 0.0
    numbers = {
        "canary_total": evidence.canary_total,
        "canary_bad": evidence.canary_bad,
        "control_total": evidence.control_total,
        "control_bad": round(evidence.control_share * evidence.control_total),
        "excess": round(evidence.excess, 6),
        "evidence_worse": _shown(evidence.equal),
        "evidence_worse_needed": round(1 / alpha_equal, 6),
        "evidence_margin": _shown(evidence.margin),
        "evidence_margin_needed": round(1 / alpha_margin, 6),
        "evidence_healthy": _shown(proof),
        "evidence_healthy_needed": needed,
    }
    seen = (
        f"{gate.id}: {evidence.canary_bad} of {evidence.canary_total} bad on the canary, "
        f"{numbers['control_bad']:.0f} of {evidence.control_total} on control"
    )
    if proven_worse(sle, gate.margin, alpha_margin, alpha_equal):
        verdict, more = _crossed(bench, gate, state, evidence)
    elif gate.health is not None and evidence.control_share > gate.health.calm:
        verdict, more = GateVerdict.NOT_ENOUGH_DATA, "control fails as well, so nothing is proven"
    elif gate.health is not None and proof >= needed:
        verdict, more = GateVerdict.HEALTHY, "proven not worse"
    else:
        verdict, more = GateVerdict.NOT_ENOUGH_DATA, "neither worse nor healthy is proven yet"
    return GateReading(gate=gate.id, verdict=verdict, reason=f"{seen}; {more}", numbers=numbers)


def _crossed(bench: Bench, gate: Counted, state: GateState, evidence: Evidence) -> tuple[GateVerdict, str]:
    """Return unhealthy, or conflicting when control gateways cross as well."""
    excesses = {instance: excess_of(sle) for instance, sle in state.placebo.items()}
    crossed = [
        instance
        for instance, sle in state.placebo.items()
        if proven_worse(sle, gate.margin, bench.policy.budget.alpha_margin, bench.alpha_equal(gate.share))
    ]
    if crossed and not stands_out(evidence.excess, excesses):
        return GateVerdict.CONFLICTING, f"but control gateway {crossed[0]} stands out from its peers as well"
    return GateVerdict.UNHEALTHY, f"worse by {100 * evidence.excess:.1f} points, proven"


def _shown(value: float) -> float:
    return float(f"{min(value, _SHOWN_CEILING):.6g}")


def _judge_ratio(
    bench: Bench, gate: GaugeRatio, state: GateState, bundle: Bundle
) -> tuple[GateState, GateReading]:
    values = bundle.gauges.get(gate.id, {})
    point = log_ratio(values, bench.cohorts.canary, bench.cohorts.control)
    over = gate.over.total_seconds()
    points = state.points
    spacing = over / MOST_POINTS
    if point is not None and (not points or bundle.at - points[-1][0] >= spacing):
        points = (*(p for p in points if p[0] >= bundle.at - over), (bundle.at, point))
    ratio = mean_ratio(points, over)
    largest = max((values.get(i, 0.0) for i in bench.cohorts.canary), default=0.0)
    moved = GateState(points=points)
    if ratio is None or largest <= gate.floor:
        reason = f"{gate.id}: nothing to compare over {over:.0f} s yet"
        return moved, GateReading(gate=gate.id, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
    beyond = gate.ratio_hard is not None and ratio > gate.ratio_hard
    verdict = GateVerdict.UNHEALTHY if ratio > gate.ratio else GateVerdict.HEALTHY
    reason = f"{gate.id}: the canary has {ratio:.2f} times control's median, {gate.ratio:g} allowed"
    numbers = {"ratio": round(ratio, 6), "allowed": gate.ratio, "beyond_hard": float(beyond)}
    return moved, GateReading(gate=gate.id, verdict=verdict, reason=reason, numbers=numbers)


def _judge_slope(
    bench: Bench, gate: Slope, state: GateState, bundle: Bundle
) -> tuple[GateState, GateReading]:
    span = gate.min_span.total_seconds()
    spacing = max(min(MINUTE, span / FEWEST_POINTS), span / (MOST_SLOPE_POINTS - 2))
    followed = {*bench.cohorts.canary, *sorted(bench.cohorts.control)[:MOST_TRACKED]}
    tracks = {
        instance: _tracked(state.tracks.get(instance, ()), (bundle.at - bench.started, value), spacing)
        for instance, value in sorted(bundle.gauges.get(gate.id, {}).items())
        if instance in followed
    }
    moved = GateState(tracks=state.tracks | tracks)
    slopes = {
        instance: theil_sen(track) * MINUTE
        for instance, track in moved.tracks.items()
        if track[-1][0] - track[0][0] >= span * 0.9
    }
    mine = [slopes[i] for i in bench.cohorts.canary if i in slopes]
    controls = [slopes[i] for i in bench.cohorts.control if i in slopes]
    if not mine:
        reason = f"{gate.id}: watched for less than {span / MINUTE:g} min"
        return moved, GateReading(gate=gate.id, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
    worst = max(mine)
    verdict = GateVerdict.UNHEALTHY if leaks(worst, controls, gate.floor_per_minute) else GateVerdict.HEALTHY
    highest = max(controls, default=0.0)
    reason = f"{gate.id}: grows by {worst:.2f} a minute on the canary, at most {highest:.2f} on control"
    numbers = {"canary_per_minute": round(worst, 6), "control_per_minute": round(highest, 6)}
    return moved, GateReading(gate=gate.id, verdict=verdict, reason=reason, numbers=numbers)


def _tracked(
    track: tuple[tuple[float, float], ...], point: tuple[float, float], spacing: float
) -> tuple[tuple[float, float], ...]:
    if track and point[0] - track[-1][0] < spacing:
        return track
    return (*track, point)[-MOST_SLOPE_POINTS:]


def _judge_signs(bench: Bench, gate: Hard | Alerts, bundle: Bundle) -> GateReading:
    signs = _lasting(bench, gate, bundle)
    mine = sorted(i for i in signs if i in bench.cohorts.canary)
    theirs = [i for i in signs if i in bench.cohorts.control]
    numbers = {"canary": float(len(mine)), "control": float(len(theirs))}
    if not mine:
        return GateReading(
            gate=gate.id, verdict=GateVerdict.HEALTHY, reason=f"{gate.id}: no sign", numbers=numbers
        )
    lasted = signs[mine[0]].until - signs[mine[0]].since
    said = f"{gate.id}: on canary {mine[0]} for {lasted:.0f} s"
    if is_everybodys(theirs, bench.cohorts.control):
        verdict, said = GateVerdict.CONFLICTING, f"{said}, and on {len(theirs)} control gateways"
    elif isinstance(gate, Hard) and gate.confirm and not set(mine) & set(bundle.unreachable):
        verdict, said = GateVerdict.METRICS_UNAVAILABLE, f"{said}, but no probe confirms it"
    elif isinstance(gate, Alerts):
        verdict = GateVerdict.UNHEALTHY
    else:
        verdict = GateVerdict.HARD
    return GateReading(gate=gate.id, verdict=verdict, reason=said, numbers=numbers)


def _lasting(bench: Bench, gate: Hard | Alerts, bundle: Bundle) -> dict[str, Sign]:
    """Keep the signs that have lasted long enough, and of changes those since the window began."""
    signs = bundle.signs.get(gate.id, {})
    if isinstance(gate, Alerts):
        return signs
    if gate.fires.when == "changes":
        return {i: sign for i, sign in signs.items() if sign.since > bench.started}
    held = gate.held.total_seconds()
    return {i: sign for i, sign in signs.items() if sign.until - sign.since >= held}
