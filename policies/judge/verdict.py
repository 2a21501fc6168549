"""The algebra of verdicts: what all gates say together, and what follows, in one fixed order.

Proof of harm outranks everything but a mistaken identity; unknowns hold; promotion needs
every required gate proven healthy at this very tick. The result names the gate that decided.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from policies.judge.failures import (
    Asides,
    Why,
    aside_for,
    excess,
    excess_of_reboots,
    failed_of,
    leaves_any,
    may_fail_alone,
)
from policies.judge.gates.kind import Response
from policies.model.gates import GatePolicy
from policies.model.verdict import HARM, Action, Cohorts, Decision, GateReading, GateVerdict, Window

SUSPICION = 10.0
"""Evidence of "worse" that stops promotions; at most one equal canary in ten ever shows as much."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Observed time counts only ticks with usable data; wall and blind time count always."""

    observed: timedelta
    wall: timedelta
    blind: timedelta
    extensions: int


@dataclass(frozen=True, slots=True)
class AfterReboots:
    """Gateways whose wave has passed, and which reboots of their hosts have left unwell.

    The release is not back on the `gone`, which show a hard sign at this tick, and on the `not_back`, which
    were set aside for that. The hosts of `twice` have rebooted more than once since the release runs there.
    """

    gone: Collection[str] = ()
    not_back: Collection[str] = ()
    twice: Collection[str] = ()

    @property
    def seen_now(self) -> "AfterReboots":
        """Return those of which this tick shows it."""
        return AfterReboots(gone=self.gone)


def decide(
    policy: GatePolicy,
    window: Window,
    readings: Sequence[GateReading],
    clocks: Clocks,
    responses: Mapping[str, Response],
    aside: Asides,
    cohorts: Cohorts,
    reboots: AfterReboots,
) -> Decision:
    """Return the decision of one tick, before holds are latched.

    `responses` says what each gate may cause; `aside` are the gateways that failed or rebooted by
    themselves, as some of the `cohorts` may.
    """
    failed, rebooted = failed_of(aside), aside_for(aside, Why.REBOOTED)
    alone = may_fail_alone(aside, cohorts)
    blind = _blindness(policy, readings, clocks)
    found = (
        _harm(readings, responses, {*failed, *cohorts.set_aside}, alone=alone)
        or _after_reboots(reboots.seen_now if blind else reboots, failed, cohorts)
        or _doubt(readings, responses, alone=alone)
        or _reboots(rebooted, cohorts)
        or (_nobody_judged(aside, cohorts) if policy.passed else None)
        or blind
        or (_proof(window, readings, clocks, policy.required) if leaves_any(aside, (), cohorts) else None)
        or _patience(window, readings, clocks)
    )
    asks = policy.passed and found.verdict in HARM
    if found.action is Action.HOLD and (asks or clocks.wall >= window.cap):
        found = found.model_copy(update={"action": Action.HOLD_FOR_HUMAN})
    absent = aside_for(aside, Why.ABSENT)
    named = {name: aside[name] for name in (*failed, *absent)}
    own = {name: one.reason for name, one in named.items()}
    since = {name: one.at for name, one in named.items()}
    out = {"failed": failed, "rebooted": rebooted, "absent": absent, "own": own, "since": since}
    return found.model_copy(update={"readings": tuple(readings)} | out)


def _harm(
    readings: Sequence[GateReading],
    responses: Mapping[str, Response],
    failed: Collection[str],
    *,
    alone: bool,
) -> Decision | None:
    """Hard signals first, then proofs; where another executable runs than planned, proofs are not used.

    Hard signs are the release's fault only when more gateways failed than may by themselves.
    """
    mistaken = any(r.gate == "identity" and r.verdict is GateVerdict.CONFLICTING for r in readings)
    for verdict, counts in ((GateVerdict.HARD, not alone), (GateVerdict.UNHEALTHY, not mistaken)):
        for reading in readings if counts else ():
            if reading.verdict is verdict and responses.get(reading.gate) is Response.ROLL_BACK:
                more = f"; {len(failed)} gateways have failed by themselves" if len(failed) > 1 else ""
                return Decision(action=Action.ROLL_BACK, verdict=verdict, reason=reading.reason + more)
    return None


def _doubt(
    readings: Sequence[GateReading], responses: Mapping[str, Response], *, alone: bool
) -> Decision | None:
    """Hold on what conflicts, and on bad answers of gates that may only hold."""
    for verdict in (GateVerdict.CONFLICTING, GateVerdict.HARD, GateVerdict.UNHEALTHY):
        for reading in readings:
            own = alone and responses.get(reading.gate) is Response.ROLL_BACK
            if reading.verdict is verdict and not (verdict is GateVerdict.HARD and own):
                return Decision(action=Action.HOLD, verdict=verdict, reason=reading.reason)
    return None


def _after_reboots(reboots: AfterReboots, failed: Sequence[str], cohorts: Cohorts) -> Decision | None:
    """Name harm when more gateways than may fail have failed, are unwell after a reboot, or reboot again."""
    gone = sorted({*reboots.gone, *reboots.not_back})
    named = gone or sorted(reboots.twice)
    if not named or excess({*failed, *gone, *reboots.twice}, cohorts) <= 0:
        return None
    hosts = f"the host of {named[0]} has" if len(named) == 1 else f"the hosts of {len(named)} gateways have"
    what = "rebooted, and the release does not run there since"
    what = what if gone else "rebooted more than once since the release runs there"
    reason = f"{hosts} {what}{f', {named[0]} among them' if len(named) > 1 else ''}"
    return Decision(action=Action.HOLD, verdict=GateVerdict.UNHEALTHY, reason=reason)


def _nobody_judged(aside: Asides, cohorts: Cohorts) -> Decision | None:
    """Hold when nothing is known of any changed gateway: its host has rebooted, or it is absent."""
    unknown = aside_for(aside, Why.REBOOTED, Why.ABSENT)
    if not unknown or cohorts.changed - aside.keys():
        return None
    reason = f"no changed gateway is judged now: {unknown[0]}: {aside[unknown[0]].reason}"
    return Decision(action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=reason)


def _reboots(rebooted: Sequence[str], cohorts: Cohorts) -> Decision | None:
    """Hold when so many hosts reboot that it may be the release after all."""
    if excess_of_reboots(rebooted, cohorts) <= 0:
        return None
    reason = f"the hosts of {len(rebooted)} changed gateways have rebooted, {rebooted[0]} among them"
    return Decision(action=Action.HOLD, verdict=GateVerdict.CONFLICTING, reason=reason)


def _blindness(policy: GatePolicy, readings: Sequence[GateReading], clocks: Clocks) -> Decision | None:
    """Bear missing evidence for the grace, then hold, then ask a person."""
    blind = next((r for r in readings if r.verdict is GateVerdict.METRICS_UNAVAILABLE), None)
    if blind is None or clocks.blind <= policy.blindness.grace:
        return None
    verdict = GateVerdict.METRICS_UNAVAILABLE
    reason = f"{blind.reason}; nothing seen for {_spoken(clocks.blind)}"
    action = Action.HOLD_FOR_HUMAN if clocks.blind > policy.blindness.cap else Action.HOLD
    return Decision(action=action, verdict=verdict, reason=reason)


def _proof(
    window: Window, readings: Sequence[GateReading], clocks: Clocks, required: Sequence[str]
) -> Decision | None:
    """Promote after the minimum, when what is required is proven now and nothing is blind or suspected."""
    if clocks.observed < window.minimum or not required:
        return None
    healthy = [r for r in readings if r.verdict is GateVerdict.HEALTHY]
    blind = any(r.verdict is GateVerdict.METRICS_UNAVAILABLE for r in readings)
    kinds = ("evidence_worse", "evidence_worse_overall")
    suspected = any(r.numbers.get(kind, 0.0) >= SUSPICION for r in readings for kind in kinds)
    if blind or suspected or not set(required) <= {r.gate for r in healthy}:
        return None
    reason = "; ".join(r.reason for r in healthy if r.gate in required)
    return Decision(action=Action.PROMOTE, verdict=GateVerdict.HEALTHY, reason=reason)


def _patience(window: Window, readings: Sequence[GateReading], clocks: Clocks) -> Decision:
    """Go on until the nominal end, extend until the cap, then ask a person."""
    order = (GateVerdict.METRICS_UNAVAILABLE, GateVerdict.NOT_ENOUGH_DATA, GateVerdict.HEALTHY)
    worst = next((r for verdict in order for r in readings if r.verdict is verdict), None)
    reason = worst.reason if worst else "no gate has anything to say"
    verdict = worst.verdict if worst else GateVerdict.NOT_ENOUGH_DATA
    if clocks.wall >= window.cap:
        reason = f"no proof within {_spoken(window.cap)}: {reason}"
        return Decision(action=Action.HOLD_FOR_HUMAN, verdict=verdict, reason=reason)
    ends = window.nominal + clocks.extensions * window.extension
    if window.extension and clocks.observed >= ends:
        longer = min(window.extension, window.cap - clocks.wall)
        reason = f"no proof within {_spoken(ends)}, watching {_spoken(longer)} longer: {reason}"
        return Decision(action=Action.EXTEND, verdict=verdict, reason=reason)
    return Decision(action=Action.CONTINUE, verdict=verdict, reason=reason)


def _spoken(length: timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - two minutes
