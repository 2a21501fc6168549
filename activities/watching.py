"""Watching a wave: who is compared with whom is looked up for every slice, then the slice is observed."""

import asyncio
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
from policies.judge.sample import sampled
from policies.judge.window import restarted
from policies.model.change import GatewayResult
from policies.model.plan import Plan
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Action, Decision, GateVerdict
from policies.planning.cohorts import cohorts_of

PAGE = 500


class WatchSlice(Value):
    """Watch a wave of a plan for one slice, going on from `state`.

    `complete` says that everybody who is to be watched is on trial; before, only harm is looked
    for. `restart` begins the window's clocks anew and keeps the evidence.
    """

    change: Name
    plan: Digest
    wave: int
    state: str = ""
    carry: str = ""
    """What the wave before left: evidence goes on over the waves."""
    complete: bool = True
    restart: bool = False
    slice: timedelta = timedelta(seconds=60)


class WaveBook(Protocol):
    """The part of the ledger that says who belongs to a wave, and what stands there now."""

    def plan(self, digest: str) -> Plan:
        """Return the whole plan."""
        ...

    def gateways_of(
        self, change: str, state: str | None = None, *, after: str = "", limit: int = PAGE
    ) -> tuple[GatewayResult, ...]:
        """Return how gateways fare in the change, by name."""
        ...


class WatchActivities:
    """Slices of windows, asked by wave."""

    def __init__(self, book: WaveBook, observation: ObservationActivities) -> None:
        self._book = book
        self._observation = observation

    @activity.defn(name="watch_wave")
    async def watch_wave(self, asked: WatchSlice) -> ObservationSlice:
        """Watch until the slice ends, the decision is anything but to go on, or a hold is over."""
        order = await in_a_thread(self._order, asked)
        if not order.cohorts.canary:
            return _nobody_yet(asked)
        found = await self._observation.observe_slice(order)
        found = found.model_copy(
            update={"decision": await asyncio.to_thread(self._named, asked, found.decision)}
        )
        if asked.complete or found.decision.action is not Action.PROMOTE:
            return found
        early = found.decision.model_copy(update={"action": Action.CONTINUE})
        return found.model_copy(update={"decision": early})

    def _named(self, asked: WatchSlice, decision: Decision) -> Decision:
        """Return the decision with gateways by name, where the metrics know them by address."""
        if not decision.failed and not decision.rebooted:
            return decision
        fleet = self._book.plan(asked.plan).fleet
        names = {gateway.metrics_target: gateway.name for gateway in fleet.gateways}
        return decision.model_copy(
            update={
                "failed": tuple(names.get(instance, instance) for instance in decision.failed),
                "rebooted": tuple(names.get(instance, instance) for instance in decision.rebooted),
            }
        )

    def _order(self, asked: WatchSlice) -> ObservationOrder:
        plan = self._book.plan(asked.plan)
        results: list[GatewayResult] = []
        while page := self._book.gateways_of(
            asked.change, after=results[-1].gateway if results else "", limit=PAGE
        ):
            results += page
        groups = {gateway.metrics_target: gateway.group for gateway in plan.fleet.gateways}
        cohorts = sampled(cohorts_of(plan, asked.wave, results), groups, plan.gates.sample, plan.digest)
        gates, window = plan.gates, plan.window
        if asked.wave == 0:
            gates = gates.baking(plan.fleet.limits.kept)
            window = gates.window
        return ObservationOrder(
            rollout=asked.change,
            wave=asked.wave,
            gates=gates,
            cohorts=cohorts,
            window=window,
            slice=asked.slice,
            state=_state_of(asked),
            carry=asked.carry,
        )


def _nobody_yet(asked: WatchSlice) -> ObservationSlice:
    """Return what is said before the first gateway of the wave stands in the ledger as on trial."""
    reason = "no gateway of this wave is known to be on trial yet"
    decision = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
    nothing = timedelta(0)
    return ObservationSlice(
        state=_state_of(asked), decision=decision, observed=nothing, wall=nothing, ticks=0
    )


def _state_of(asked: WatchSlice) -> str:
    """Return the state to go on from; one that this version cannot read is left to the observation."""
    if not (asked.restart and asked.state):
        return asked.state
    try:
        return packed(restarted(unpacked(asked.state)))
    except ValueError:
        return asked.state
