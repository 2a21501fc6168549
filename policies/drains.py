"""Decide how an instance is emptied: whose sessions are waited for, whose may be ended, and when nobody's.

Three promises: a session is never ended because something is unknown, an exempt one is ended
by a person only, and a deadline never ends more than its share. An instance that does not report its
sessions is stopped at its deadline only if the kernel shows that it has no user, else by a person only.
"""

from collections.abc import Sequence
from datetime import timedelta
from math import ceil

from policies.model.drain import (
    DrainFacts,
    DrainLimits,
    DrainMode,
    Look,
    Loss,
    NextStep,
    Silence,
    Step,
    Uncounted,
)
from policies.model.instance import Probe
from policies.model.verdict import Decision, GateVerdict

BEYOND_AUTH = ("tunnel", "ping")
"""Stages of a probe at which a login had worked, so that only the tunnel can be at fault."""

SILENT_FOR = timedelta(minutes=1)
"""How long an instance may report no sessions before that is reported, and an operator may stop it."""

DESERTED_FOR = timedelta(minutes=10)
"""How long a silent instance has to be without any user before its deadline may stop it."""

COUNT_BY_HAND = "count its users on its host, and update penstock to a version that reads the answer"
"""What an operator does about an instance that answers in a form that penstock does not read."""

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


def is_silent(look: Look) -> bool:
    """Return whether the instance has not reported its sessions for long enough to be reported itself."""
    return look.silence is not None and look.silence.lasts >= SILENT_FOR


def may_stop_uncounted(silence: Silence | None, uncounted: Uncounted) -> bool:
    """Return whether an instance that does not return its sessions is one that this order means."""
    if silence is None or silence.lasts < SILENT_FOR:
        return False
    deserted = silence.deserted is not None and silence.deserted >= DESERTED_FOR
    return uncounted is Uncounted.SILENT or (uncounted is Uncounted.DESERTED and deserted)


def next_step(facts: DrainFacts, limits: DrainLimits) -> NextStep:
    """Return what the drain does next; who may come back without a login is waited for until the deadline."""
    look, late = facts.look, facts.now >= facts.deadline or facts.mode is DrainMode.END_SHARE
    ending = facts.mode is DrainMode.END or facts.forced_by is not None
    if look.sessions == 0 and (ending or late or not look.resumable):
        return NextStep(step=Step.STOP, reason="its last session has ended")
    if not ending and not late:
        return _before_the_deadline(facts, limits)
    if look.sessions is None or look.exempt is None:
        return _uncounted(facts)
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


def _uncounted(facts: DrainFacts) -> NextStep:
    """Return what happens to an instance whose sessions are unknown when they would be ended."""
    silence = facts.look.silence
    if not is_silent(facts.look):
        return NextStep(step=Step.HOLD, reason="its sessions cannot be counted, so nobody is ended")
    silent = _silent(facts)
    if facts.forced_by is not None and facts.exempt_too:
        return NextStep(
            step=Step.STOP_UNCOUNTED,
            reason=f"{facts.forced_by}: {silent}; it is stopped with every session that it has",
            uncounted=Uncounted.SILENT,
        )
    if facts.now >= facts.deadline and may_stop_uncounted(silence, Uncounted.DESERTED):
        return NextStep(
            step=Step.STOP_UNCOUNTED,
            reason=f"the drain deadline is over: {silent}, and it has no user by its kernel",
            uncounted=Uncounted.DESERTED,
        )
    return NextStep(step=Step.HOLD, reason=f"{silent}; {_users(silence)}; {_uncounted_ways(facts)}")


def stopped_by_hand(fleet: str | None, gateway: str, slot: str) -> str:
    """Return the command that stops an instance that does not answer, and no other one, and its price."""
    named = f"{fleet} " if fleet else ""
    command = f"penstock drain end {named}--gateway {gateway} --slot {slot} --exempt-too --reason TEXT"
    return f"`{command}` stops it and loses every session that it has"


def uncounted_ending(slots: Sequence[tuple[str, Look]], *, exempt_too: bool) -> str:
    """Return what an order to end what is left means for these slots, whose sessions are unknown."""
    said = list[str]()
    unread = [(slot, look.silence.unread) for slot, look in slots if look.silence and look.silence.unread]
    if silent := ", ".join(slot for slot, look in slots if not (look.silence and look.silence.unread)):
        stopped = "stopped, and every session that it has is lost"
        kept = "not stopped; `--exempt-too` stops it and loses every session that it has"
        said.append(f"Without an answer, {silent} is {stopped if exempt_too else kept}.")
    for slot, answer in unread:
        stopped = "it is stopped, and users who are connected to it are cut off"
        kept = f"it is not stopped: {COUNT_BY_HAND}"
        said.append(f"In {slot}, {answer}: {stopped if exempt_too else kept}.")
    return " ".join(said)


def _uncounted_ways(facts: DrainFacts) -> str:
    """Return what an operator can do about an instance whose sessions are unknown."""
    unread = facts.look.silence is not None and facts.look.silence.unread
    return COUNT_BY_HAND if unread else stopped_by_hand(facts.fleet, facts.gateway, facts.slot)


def _silent(facts: DrainFacts) -> str:
    since = f" since {facts.silent_since:%Y-%m-%d %H:%M} UTC" if facts.silent_since else ""
    if facts.look.silence is not None and facts.look.silence.unread:
        return f"{facts.look.silence.unread}{since}, so its sessions are unknown and it may serve users"
    return f"it has not answered{since}, so its sessions are unknown"


def _users(silence: Silence | None) -> str:
    """Return what the kernel shows of its users."""
    if silence is None or silence.deserted is None:
        return "its kernel does not show whether it has users"
    if silence.deserted < DESERTED_FOR:
        return f"its kernel shows users within {DESERTED_FOR.total_seconds() / 60:.0f} minutes"
    return "its kernel shows no user"


def _before_the_deadline(facts: DrainFacts, limits: DrainLimits) -> NextStep:
    if facts.look.sessions == 0:
        reason = f"{facts.look.resumable} sessions whose connection broke may still come back"
        return NextStep(step=Step.WAIT, reason=reason, until=facts.deadline)
    warning_at = facts.deadline - limits.warning
    left = "an unknown number of" if facts.look.sessions is None else str(facts.look.sessions)
    silent = is_silent(facts.look)
    if facts.warned or facts.now < warning_at:
        until = facts.deadline if facts.warned else warning_at
        reason = (
            f"{_silent(facts)}; {_uncounted_ways(facts)}" if silent else f"{left} sessions are waited for"
        )
        return NextStep(step=Step.WAIT, reason=reason, until=until)
    before = timedelta(seconds=round((facts.deadline - facts.now).total_seconds()))
    if silent:
        reason = f"{_silent(facts)}; in {before} the deadline stops it if its kernel shows no user"
        return NextStep(step=Step.WARN, reason=reason)
    may_end = max(0, allowance(facts.found, limits) - facts.ended)
    reason = f"{left} sessions are left {before} before the deadline, which may end {may_end}"
    return NextStep(step=Step.WARN, reason=reason)
