"""Decide how an instance is emptied: whose sessions are waited for, whose may be ended, and when nobody's.

Three promises: a session is never ended because something is unknown, an exempt one is ended
by a person only, and a deadline never ends more than its share.
"""

from collections.abc import Sequence
from datetime import timedelta
from math import ceil

from policies.model.drain import DrainFacts, DrainLimits, DrainMode, Look, Loss, NextStep, Step
from policies.model.instance import Probe
from policies.model.verdict import Decision, GateVerdict

BEYOND_AUTH = ("tunnel", "ping")
"""Stages of a probe at which a login had worked, so that only the tunnel can be at fault."""

_BAD = {GateVerdict.UNHEALTHY, GateVerdict.HARD}


def mode_of(
    decision: Decision | None,
    left: Probe | None,
    good: Probe | None,
    tunnel_gates: Sequence[str],
    instance: str,
) -> tuple[DrainMode, str]:
    """Return what happens to the sessions of an instance its gateway went back from, and why.

    `decision` is the verdict that sent it back, if there was one, of which bad `tunnel_gates` say that
    tunnels carry nothing where they name this `instance`. A probe of what was `left` that passes vetoes;
    without a `good` place, by its own probe, nobody is sent.
    """
    if good is None or not good.passed:
        return DrainMode.WAIT, "no other instance is proven to take them"
    if left is not None and not left.passed and left.stage in BEYOND_AUTH:
        return DrainMode.END, f"its tunnels carry nothing: the probe fails at {left.stage}: {left.reason}"
    if left is not None and left.passed:
        return DrainMode.WAIT, f"its tunnels carry traffic: its own probe passes ({left.reason})"
    for reading in decision.readings if decision else ():
        if reading.gate in tunnel_gates and reading.verdict in _BAD and instance in reading.instances:
            return DrainMode.END_SHARE, f"its tunnels are said to be broken: {reading.gate}: {reading.reason}"
    return DrainMode.WAIT, "its tunnels carry traffic, as far as is known"


def loss_between(before: Look, after: Look) -> Loss | None:
    """Return what took the sessions of the earlier look away, None when their process still runs."""
    if before.process is None or before.sessions == 0 or before.process == after.process:
        return None
    return Loss.REBOOT if before.boot != after.boot else Loss.CRASH


def remembered(before: Look | None, after: Look) -> Look:
    """Return the later look, with the last known count while the same process does not say."""
    if before is None or after.sessions is not None or before.process != after.process:
        return after
    known = {"sessions": before.sessions, "exempt": before.exempt, "resumable": before.resumable}
    return after.model_copy(update=known)


def allowance(found: int, limits: DrainLimits) -> int:
    """Return how many of so many sessions a deadline may end; of a few, at least one unless none may."""
    return ceil(found * limits.forced / 100)


def next_step(facts: DrainFacts, limits: DrainLimits) -> NextStep:
    """Return what the drain does next; who may come back without a login is waited for until the deadline."""
    look, late = facts.look, facts.now >= facts.deadline or facts.mode is DrainMode.END_SHARE
    ending = facts.mode is DrainMode.END or facts.forced_by is not None
    if look.sessions == 0 and (ending or late or not look.resumable):
        return NextStep(step=Step.STOP, reason="its last session has ended")
    if not ending and not late:
        return _before_the_deadline(facts, limits)
    if look.sessions is None or look.exempt is None:
        return NextStep(step=Step.HOLD, reason="its sessions cannot be counted, so nobody is ended")
    spared = 0 if facts.forced_by and facts.exempt_too else look.exempt
    endable = look.sessions - spared
    if endable <= 0:
        return NextStep(step=Step.HOLD, reason=f"only {look.exempt} exempt sessions are left")
    allowed = allowance(facts.found, limits) - facts.ended
    broken = facts.mode is not DrainMode.WAIT
    if not ending and endable > allowed:
        why = "on tunnels that only a verdict calls broken" if broken else "after the deadline"
        may = f"which may end {max(0, allowed)} ({limits.forced:g}%)"
        return NextStep(step=Step.HOLD, reason=f"{endable} of {facts.found} sessions are left {why}, {may}")
    reason = facts.forced_by or ("tunnels are broken" if broken else "the drain deadline is over")
    return NextStep(step=Step.END, reason=reason, leave=look.sessions - min(limits.batch, endable))


def _before_the_deadline(facts: DrainFacts, limits: DrainLimits) -> NextStep:
    if facts.look.sessions == 0:
        reason = f"{facts.look.resumable} sessions whose connection broke may still come back"
        return NextStep(step=Step.WAIT, reason=reason, until=facts.deadline)
    warning_at = facts.deadline - limits.warning
    left = "an unknown number of" if facts.look.sessions is None else str(facts.look.sessions)
    if facts.warned or facts.now < warning_at:
        until = facts.deadline if facts.warned else warning_at
        return NextStep(step=Step.WAIT, reason=f"{left} sessions are waited for", until=until)
    before = timedelta(seconds=round((facts.deadline - facts.now).total_seconds()))
    may_end = max(0, allowance(facts.found, limits) - facts.ended)
    reason = f"{left} sessions are left {before} before the deadline, which may end {may_end}"
    return NextStep(step=Step.WARN, reason=reason)
