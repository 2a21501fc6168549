"""Watching a wave: who is compared with whom is looked up for every slice, then the slice is observed."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Protocol

from temporalio import activity

from activities.liveness import in_a_thread
from activities.observation import (
    ObservationActivities,
    ObservationOrder,
    ObservationSlice,
    packed,
    unpacked,
)
from activities.taken_over import TakenBook, taken_over
from policies.history import is_to_be_watched
from policies.judge.sample import sampled
from policies.judge.window import restarted
from policies.model.change import GatewayResult, KnownGoodMove
from policies.model.report import TakenOver
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Action, Decision, GateVerdict
from policies.planning.cohorts import cohorts_of

PAGE = 500

SILENT_WITHIN = timedelta(minutes=30)
"""How long it counts that a gateway was silent when it was asked last; a large fleet is asked in turns."""

NAMED = 3
"""Silent gateways that a decision names."""


class WatchSlice(Value):
    """Watch a wave of a plan for one slice, going on from `state`.

    `complete` says that everybody who is to be watched is on trial; before, only harm is looked
    for. `restart` begins the window's clocks anew and keeps the evidence.
    """

    change: Name
    plan: Digest
    wave: int
    passed: int = 0
    """The last wave that has passed: of wave 0, the gateways up to it are watched beside the next wave."""
    state: str = ""
    carry: str = ""
    """What the wave before left: evidence goes on over the waves."""
    complete: bool = True
    restart: bool = False
    slice: timedelta = timedelta(seconds=60)
    left_to: TakenOver | None = None
    """Of wave 0, the gateways that a later change answers for until they are back, or it ends."""


class WaveBook(TakenBook, Protocol):
    """The part of the ledger that says who belongs to a wave, and what stands there now."""

    def gateways_of(
        self, change: str, state: str | None = None, *, after: str = "", limit: int = PAGE
    ) -> tuple[GatewayResult, ...]:
        """Return how gateways fare in the change, by name."""
        ...

    def moves(self, fleet: str) -> Sequence[KnownGoodMove]:
        """Return the last move of each gateway's known-good."""
        ...

    def silent(self, fleet: str, within: timedelta) -> dict[str, str]:
        """Return which gateways were silent when they were asked last, within that time, and why."""
        ...


class WatchActivities:
    """Slices of windows, asked by wave."""

    def __init__(self, book: WaveBook, observation: ObservationActivities) -> None:
        self._book = book
        self._observation = observation

    @activity.defn(name="watch_wave")
    async def watch_wave(self, asked: WatchSlice) -> ObservationSlice:
        """Watch until the slice ends, the decision is anything but to go on, or a hold is over."""
        taken = (await in_a_thread(taken_over, self._book, asked.left_to)).now
        order = await in_a_thread(self._order, asked, taken)
        if order is None:
            return _unwatched(asked, "nothing that the change promoted stands any more", over=True)
        if not order.cohorts.canary:
            if taken:
                return _left(asked)
            promoted = asked.wave == 0 and not asked.passed
            kept = "no gateway that keeps the release is known yet, or each is left out of changes"
            return _unwatched(
                asked, kept if promoted else "no gateway of this wave is known to be on trial yet"
            )
        found = await self._observation.observe_slice(order)
        decision = await asyncio.to_thread(self._named, asked, order, found.decision, taken)
        found = found.model_copy(update={"decision": decision})
        if asked.complete or found.decision.action is not Action.PROMOTE:
            return found
        early = found.decision.model_copy(update={"action": Action.CONTINUE})
        return found.model_copy(update={"decision": early})

    def _named(
        self, asked: WatchSlice, order: ObservationOrder, decision: Decision, taken: Collection[Name]
    ) -> Decision:
        """Return the decision with gateways by name, where the metrics know them by address.

        Gateways that failed before a later change took them over are left to that.
        Where metrics are missing, it names who is silent besides: that is where to look first.
        """
        blind = decision.verdict is GateVerdict.METRICS_UNAVAILABLE
        if not (decision.failed or decision.rebooted or decision.absent or blind):
            return decision
        fleet = self._book.plan(asked.plan).fleet
        names = {gateway.metrics_target: gateway.name for gateway in fleet.gateways}
        failed = (names.get(instance, instance) for instance in decision.failed)
        named = decision.model_copy(
            update={
                "failed": tuple(name for name in failed if name not in taken),
                "rebooted": tuple(names.get(instance, instance) for instance in decision.rebooted),
                "absent": tuple(names.get(instance, instance) for instance in decision.absent),
                "own": {
                    name: why
                    for instance, why in decision.own.items()
                    if (name := names.get(instance, instance)) not in taken
                },
                "since": {names.get(instance, instance): at for instance, at in decision.since.items()},
            }
        )
        if not blind:
            return named
        every = (*order.cohorts.canary, *order.cohorts.control)
        watched = {names[instance] for instance in every if instance in names}
        silent = sorted(watched & self._book.silent(fleet.name, SILENT_WITHIN).keys())
        if not silent:
            return named
        some = ", ".join(silent[:NAMED]) + (f" and {len(silent) - NAMED} more" if len(silent) > NAMED else "")
        why = f"{decision.reason}; {some} {'does' if len(silent) == 1 else 'do'} not answer its agent either"
        return named.model_copy(update={"silent": tuple(silent[:NAMED]), "reason": why})

    def _order(self, asked: WatchSlice, taken: Collection[Name]) -> ObservationOrder | None:
        """Return what is observed, without what is taken; None where a bake has nothing to watch any more."""
        plan = self._book.plan(asked.plan)
        results: list[GatewayResult] = []
        while page := self._book.gateways_of(
            asked.change, after=results[-1].gateway if results else "", limit=PAGE
        ):
            results += page
        groups = {gateway.metrics_target: gateway.group for gateway in plan.fleet.gateways}
        if asked.wave == 0:  # what a later change has promoted since is watched as of that one
            change, moves = self._book.change(asked.change), self._book.moves(plan.fleet.name)
            if not asked.passed and not is_to_be_watched(change, moves):
                return None
            moved = {move.gateway for move in moves if move.number > change.number}
            results = [one for one in results if one.gateway not in moved and one.gateway not in taken]
        left_out = {one.gateway for one in self._book.quarantined(plan.fleet.name)}
        compared = cohorts_of(plan, asked.wave, results, left_out, passed=asked.passed)
        cohorts = sampled(compared, groups, plan.gates.sample, plan.digest)
        gates, window = plan.gates, plan.window
        if asked.wave == 0:
            gates = gates.baking(plan.fleet.limits.kept)
            window = gates.window
        return ObservationOrder(
            rollout=asked.change,
            wave=asked.wave,
            passed=asked.passed,
            gates=gates,
            cohorts=cohorts,
            window=window,
            slice=asked.slice,
            state=_state_of(asked),
            carry=asked.carry,
        )


def _left(asked: WatchSlice) -> ObservationSlice:
    """Return a slice without a gateway of which anything is missing: a later change watches them all."""
    reason = "the fleet's next change answers for every gateway of this one that is not back"
    decision = Decision(action=Action.HOLD, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
    nothing = timedelta(0)
    return ObservationSlice(
        state=_state_of(asked), decision=decision, observed=nothing, wall=nothing, ticks=1
    )


def _unwatched(asked: WatchSlice, reason: str, *, over: bool = False) -> ObservationSlice:
    """Return a slice in which no gateway was watched, and why."""
    decision = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
    nothing = timedelta(0)
    return ObservationSlice(
        state=_state_of(asked), decision=decision, observed=nothing, wall=nothing, ticks=0, over=over
    )


def _state_of(asked: WatchSlice) -> str:
    """Return the state to go on from; one that this version cannot read is left to the observation."""
    if not (asked.restart and asked.state):
        return asked.state
    try:
        return packed(restarted(unpacked(asked.state)))
    except ValueError:
        return asked.state
