"""A batch: at most fifty gateways of a wave, switched to the release, kept on trial, and kept for good.

Each gateway is a coroutine of its own and fails alone: what goes wrong on one of them is
reported, and the wave decides whose fault it is.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    is_cancelled_exception,
)

from activities.facts import CapacityQuery, FactActivities, LeftOutQuery
from activities.failures import epoch_seen, rollout_seen
from activities.instances import Inspected
from activities.ledger import GatewayResults, LedgerActivities, TestsEntry
from activities.plans import PartQuery, PlanActivities
from policies.drift import astray, by_hand
from policies.exposure import Exposure, exposure, findings_of
from policies.model.change import GatewayResult
from policies.model.fleet import GatewayRef
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS
from policies.model.placement import NodeLook
from policies.model.plan import ReleaseRef
from policies.model.plan_part import Member, PartKey
from policies.model.release_tests import Method, Outcome, ReleaseTests
from policies.model.report import BatchReport, GatewayProgress
from policies.model.value import Digest, Name, Packed, Value
from policies.placement import Trouble, trouble_of
from policies.planning.batches import next_to_start
from policies.planning.capacity import UNKNOWN, Load, load_of
from policies.planning.cohorts import BEGUN, KEPT, LEFT_OUT, PAUSED, SET_ASIDE
from workflows import control, steps
from workflows.children import tell
from workflows.cluster import PreparedSlots, look_at_all
from workflows.compensation import heed_cancellation, to_the_end
from workflows.failures import code_of, sentence_of, stopped
from workflows.gateway import GatewaySteps
from workflows.preflight import ask_for_obstacles

SLOWEST_REPORT = 10
"""How often the time between two reports doubles."""

REPORTS_AT_A_PACE = 100
"""Reports of a batch of a small fleet until each next one takes twice as long."""

CUT_ONCE_SWITCHED = "cut-once-switched"
"""Batches of before begin with all of their gateways in one run, and go on until their history is long."""

NOT_NAMED = (float("-inf"), "")

CAPACITY = ""
"""The capacity in place of a gateway's name."""

RENEWALS_A_LEASE = 3
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where the turns of renewals are counted from."""

WRITTEN_EVERY, WRITTEN_AT_LAST = timedelta(seconds=2), timedelta(minutes=1)
"""Between two entries in the ledger: a gateway on trial is watched once its entry is there.

While the ledger does not answer, the time doubles up to the second.
"""

LASTING = frozenset({"on trial", KEPT, SET_ASIDE, LEFT_OUT})
"""The states that are written to the ledger; until then, and until the batch ends, a gateway is `begun`."""


class OnTrial(Value):
    """A gateway on trial: its slot, when it was started, its host's boot, and when it was last confirmed."""

    slot: str
    started: float
    boot: str = ""
    confirmed: float = 0.0
    unconfirmed: str = ""
    """Why its lease was not confirmed last time, empty when it was."""
    misses: int = 0
    """Confirmations in a row that it did not answer."""

    def by(self, now: float) -> "OnTrial":
        """Return the same by the clock of this run, which may have been set back since."""
        times = {"started": min(self.started, now), "confirmed": min(self.confirmed, now)}
        return self.model_copy(update=times)


class Paused(Value):
    """A trial whose lease lapses again and again: its gateway is on known-good until it begins again."""

    trial: OnTrial
    until: float
    """When it begins again, in seconds since 1970."""
    lapsed: str
    """What its host answered when its lease was to be renewed."""

    def by(self, now: float) -> "Paused":
        """Return the same by the clock of this run, which may have been set back since."""
        until = min(self.until, now + steps.LAST_TRIAL.total_seconds())
        return self.model_copy(update={"trial": self.trial.by(now), "until": until})


class BatchOrder(Value):
    """One part of a plan, how its gateways may switch, and to which wave the batch reports."""

    change: Name
    plan: Digest
    key: PartKey
    release: ReleaseRef
    source: str
    epoch: int
    wave: str
    lease: timedelta
    share: int = 100
    tests: ReleaseTests | None = None
    """What each new instance has to pass before it gets a session; None where the probe is all."""
    phase: float = 1.0
    """When it renews, as a part of the pause between two renewals: batches take turns."""
    switching: int = 1
    switching_per_domain: int = 1
    barrier: bool = False
    """Whether everybody is started and probed before anybody gets a session (blue-green)."""
    detailed: bool = True
    """Whether the fleet is small enough to report every gateway by itself."""
    report_every: timedelta = timedelta(milliseconds=500)
    """How often steps are reported; what needs attention is at once."""
    on_trial: dict[str, OnTrial] = {}
    ready: dict[str, OnTrial] = {}
    aside: dict[str, str] = {}
    left_out: dict[str, str] = {}
    unable: tuple[str, ...] = ()
    """Gateways that could not change, or not go back, when all of the plan were asked."""
    taken_out: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    rebooted: tuple[str, ...] = ()
    lapsed: dict[str, int] = {}
    """Gateways whose lease lapsed while their instance ran and answered, each with how often."""
    paused: dict[str, Paused] = {}
    moved: dict[str, float] = {}
    """Gateways that may have got new sessions, each with when its instance was started."""
    silent_since: dict[str, float] = {}
    """Gateways that wait and are silent, each with since when, in seconds since 1970."""
    untested_since: dict[str, float] = {}
    """Gateways that were to be tested, each with since when."""
    switched: bool = False
    held: bool = False
    begun: bool = False
    """Whether the ledger has that its gateways have begun."""
    recorded: bool = False
    """Whether all have switched and the ledger has them."""
    members: Packed[tuple[Member, ...]] = ()
    """Its gateways: no run is without, however long the ledger is away when it begins."""
    moves: bool = False
    """Whether the wave has that sessions may move here."""
    told: int = 0
    now: datetime | None = None
    """The time of the run before; that of this one may be earlier, where the engine's clock was set back."""

    def by(self, now: datetime) -> "BatchOrder":
        """Return the same by the clock of a run that begins then, which may have been set back since."""
        at = now.timestamp()
        return self.model_copy(
            update={
                "on_trial": {name: trial.by(at) for name, trial in self.on_trial.items()},
                "ready": {name: trial.by(at) for name, trial in self.ready.items()},
                "paused": {name: paused.by(at) for name, paused in self.paused.items()},
                "silent_since": {name: min(since, at) for name, since in self.silent_since.items()},
                "untested_since": {name: min(since, at) for name, since in self.untested_since.items()},
            }
        )


class BatchResult(Value):
    """Which gateways were kept, and what became of the others."""

    kept: int
    aside: dict[str, str] = {}
    left_out: dict[str, str] = {}
    """Gateways that operators left out before they were started."""


@workflow.defn(name="Batch")
class Batch:
    """Switch, confirm the leases while the wave is watched, and keep what the wave keeps."""

    @workflow.init
    def __init__(self, order: BatchOrder) -> None:
        self._order = order = order.by(workflow.now())
        self._members = {member.gateway.name: member for member in order.members}
        self._on_trial = dict(order.on_trial)
        self._ready = dict(order.ready)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._short: dict[str, str] = {}
        self._idle = False
        self._silent_since = dict(order.silent_since)
        self._silent_too_long: dict[str, str] = {}
        self._aside = dict(order.aside)
        self._left_out = dict(order.left_out)
        self._taken_out = set(order.taken_out)
        """Those of them that were started already: the wave has them restored."""
        self._refused: dict[str, str] = {}
        """Why hosts refuse to switch their gateways, which is tried again."""
        self._ended = list(order.ended)
        self._states: dict[str, str] = {
            **dict.fromkeys(order.on_trial, "on trial"),
            **dict.fromkeys(order.ready, "ready"),
            **dict.fromkeys(order.paused, PAUSED),
            **dict.fromkeys(order.aside, SET_ASIDE),
            **dict.fromkeys(order.left_out, LEFT_OUT),
        }
        self._written: dict[str, tuple[str, float | None]] = {}
        self._rebooted = set(order.rebooted)
        self._lapsed, self._paused = dict(order.lapsed), dict(order.paused)
        self._moved = dict(order.moved)
        self._moves = order.moves
        self._announcing = asyncio.Lock()
        self._returning: dict[str, asyncio.Task[None]] = {}
        self._naming: dict[str, asyncio.Task[None]] = {}
        self._named: dict[str, tuple[float, str]] = {}
        """Gateways that metrics name, each with when its sign was seen and why."""
        self._untested: dict[str, str] = {}
        self._untested_since = dict(order.untested_since)
        # Whose steps wait for a time, or for the ledger, and may be repeated; one is the capacity's.
        self._asleep, self._at_the_ledger = set[str](), set[str]()
        self._slots = PreparedSlots()
        self._share = order.share
        self._released = not order.barrier
        self._held = order.held
        self._ending = ""
        self._switched = order.switched
        self._waits_for_a_cut = self._has_much_behind_it = False
        self._told = order.told
        self._telling = False
        self._untold = 0
        self._unwritten = order.begun
        """Whether rows are to be written; a run that goes on writes them once, whatever has been written."""
        self._writing = False
        self._write_at_once = False
        self._all_recorded = order.recorded
        """Whether all have switched and are in the ledger, by which they are watched."""
        self._urgent = False
        self._over = False
        self._closed = False
        self._at_barrier = False

    @workflow.run
    async def run(self, order: BatchOrder) -> BatchResult:
        """Return when the gateways are kept or given up; a cancellation ends every trial first."""
        try:
            return await self._run(order)
        except asyncio.CancelledError:
            await to_the_end(asyncio.gather(self._end_trials(), self._write_the_end()))
            raise

    async def _run(self, order: BatchOrder) -> BatchResult:
        if not self._members:
            part = await control.read_part(order.plan, order.key)
            self._members = {member.gateway.name: member for member in part.members}
        self._states = dict.fromkeys(self._members, "waiting") | self._states
        if not self._order.begun:
            await control.record(LedgerActivities.record_gateways, self._all_begun())
        reporting = asyncio.create_task(self._report_changes())
        writing = asyncio.create_task(self._keep_written())
        try:
            # Side by side: whoever is on trial already is looked after while the others still switch.
            await asyncio.gather(self._switch(), self._stay_on_trial())
            if self._ending == "keep":
                await self._keep()
            # Waited for, not cancelled: a signal under way swallows a cancellation and the next would follow.
            self._over = True
            await asyncio.gather(reporting, writing)
        finally:
            self._closed = True  # whatever follows a workflow's end fails its task, again and again
            for task in (reporting, writing, *self._returning.values(), *self._naming.values()):
                task.cancel()
        return BatchResult(
            kept=list(self._states.values()).count(KEPT), aside=self._aside, left_out=self._left_out
        )

    # --- what the wave says ---------------------------------------------------------

    @workflow.signal(name="hold")
    def hold(self, held: bool) -> None:
        """Start nobody else while held; what is under way on a gateway is finished."""
        self._held = held
        self._silent_since.clear()  # nobody asks while held

    @workflow.signal(name="share")
    def share(self, share: int) -> None:
        """Send this share of new sessions to the new instances; the first call opens the barrier."""
        self._share, self._released = share, True
        self._urgent = True

    @workflow.signal(name="set_aside")
    def set_aside(self, seen: dict[str, float], why: str) -> None:
        """Go on without these gateways, as far as they are of this batch; what ails their nodes is added.

        `seen` is when that was seen on each, in seconds since 1970. An instance that was started later is
        another one, and goes on.
        """
        for name, at in seen.items():
            self._named[name] = (at, why)
            self._set_aside_if_named(name)

    def _set_aside_if_named(self, name: str) -> None:
        """Set the gateway aside if the trial of the instance for which it was named lasts, or is paused."""
        paused, (at, why) = self._paused.get(name), self._named.get(name, NOT_NAMED)
        trial = paused.trial if paused is not None else self._on_trial.get(name)
        if trial is not None and trial.started <= at:
            self._set_aside(name, why)
            self._naming[name] = asyncio.create_task(self._name_trouble(name, why))

    async def _name_trouble(self, name: str, why: str) -> None:
        """Say with the reason what is wrong with the node: nobody waits for that to set its gateway aside."""
        if trouble := await self._look_at_node(name):
            self._aside[name] = trouble.with_reason(why)
            self._changed()
        self._naming.pop(name, None)

    @workflow.signal(name="end")
    def end(self, how: str) -> None:
        """Keep the release, or stop where everything is because somebody else brings the gateways back."""
        self._ending = how

    # --- switching --------------------------------------------------------------------

    async def _switch(self) -> None:
        """Start as many at once as the limits allow, and the next whenever one is done."""
        if self._switched:
            return  # the last run was cut with nothing left to tell
        pause = steps.NEXT_CAPACITY
        try:
            while (self._waiting or self._under_way) and not self._ending:
                heed_cancellation()
                self._waits_for_a_cut = self._is_cut_after(steps.LONG_HISTORY)
                if await self._start_some():
                    pause = steps.NEXT_CAPACITY
                self._idle = True
                with suppress(TimeoutError):
                    await workflow.wait_condition(self._may_go_on, timeout=pause if self._short else None)
                self._idle = False
                # Who is silent may have been left out meanwhile: nobody waits long for that to be seen.
                pause = steps.NEXT_CAPACITY if self._waits_for_silent else min(2 * pause, steps.LAST_CAPACITY)
                for name in [name for name, switch in self._under_way.items() if switch.done()]:
                    self._under_way.pop(name).result()
        finally:
            for switch in self._under_way.values():
                switch.cancel()
        if self._order.barrier and not self._ending:
            await self._open_the_barrier()
        self._switched = True
        self._has_much_behind_it = self._is_cut_after(steps.SWITCHED_HISTORY)
        self._changed(urgent=True)

    async def _start_some(self) -> bool:
        """Start who may by the limits and by the capacity that is read now; tell why others wait."""
        loads: dict[str, Load | None] = {}
        unplaced: dict[str, str] = {}
        short: dict[str, str] | None = None
        while fresh := [name for name in self._next(short or {}) if name not in loads]:
            found = await asyncio.gather(*[self._look(name) for name in fresh])
            loads |= dict(zip(fresh, found, strict=True))
            unplaced |= await self._look_for_nodes(fresh)
            asked = CapacityQuery(
                plan=self._order.plan,
                gateways=tuple(self._waiting),
                loads={name: load or UNKNOWN for name, load in loads.items()},
            )
            with self._waiting_for_the_ledger(CAPACITY):
                ready = await control.record(FactActivities.find_short_of_capacity, asked)
            self._leave_out(ready.left_out)
            self._give_up_silent()
            short = ready.short
            # Whoever is silent keeps nobody waiting; it is asked again with the next look at the capacity.
            short |= {
                n: f"{n} is silent" for n in self._waiting if n in loads and loads[n] is None
            } | unplaced
        if short is not None and short != self._short:
            self._short = short
            self._changed()
        chosen = self._next(short or {})
        for name in chosen:
            self._states[name] = "staging"
            self._under_way[name] = asyncio.create_task(
                self._or_set_aside(name, self._bring_up(self._members[name]))
            )
        return bool(chosen)

    def _leave_out(self, reasons: dict[str, str]) -> None:
        """Start none of these any more; nothing of them has failed."""
        for name, why in reasons.items():
            self._left_out[name] = why
            self._silent_since.pop(name, None)
            self._enter(name, LEFT_OUT)

    async def _look(self, name: str) -> Load | None:
        """Return what the gateway carries now, None while it is silent.

        One that an operator steered from its known-good by break-glass is left out: plan and order are older,
        or penstock's own.
        """
        member, asked = self._members[name], workflow.now().timestamp()
        try:
            state = await self._steps(member).observe(steps.LOOK)
        except ActivityError as error:
            since = self._silent_since.setdefault(name, asked)
            if asked - since >= steps.SILENT_FOR.total_seconds():
                self._silent_too_long[name] = sentence_of(error)
            return None
        self._silent_since.pop(name, None)
        if state.owner == BREAK_GLASS and member.back is not None and (why := astray(state, member.back)):
            self._leave_out({name: by_hand(self._order.change.rpartition("-")[0], state, why)})
        return load_of(state)

    def _give_up_silent(self) -> None:
        """Have gateways that stay silent fail by themselves, but for those that operators left out."""
        silent, self._silent_too_long = self._silent_too_long, {}
        for name, why in silent.items():
            if name not in self._left_out:
                self._set_aside(name, why)

    async def _look_for_nodes(self, names: list[str]) -> dict[str, str]:
        """Return whom its cluster can give no instance now, and why; no release is at fault for that."""
        placed = [on for name in names if (on := self._steps(self._members[name])).cluster is not None]
        if not placed:
            return {}
        looks = await look_at_all(on.gateway for on in placed)
        why = asyncio.gather(*[self._why_unplaced(on, looks[on.gateway.name]) for on in placed])
        await workflow.wait_condition(lambda: why.done() or bool(self._ending))
        found = await why if why.done() else ()
        return {on.gateway.name: said for on, said in zip(placed, found, strict=False) if said}

    async def _why_unplaced(self, on: GatewaySteps, look: NodeLook | ActivityError) -> str:
        """Return why the gateway waits for its cluster, empty where it need not; who waits in vain fails."""
        if on.cluster is None:
            return ""
        name, cluster = on.gateway.name, on.cluster.at.cluster
        since = self._silent_since.get(cluster, workflow.now().timestamp())
        try:
            if isinstance(look, ActivityError):
                raise look
            why = trouble_of(look, on.cluster.at).unfit
            if not why:
                await on.prepare(self._slots, self._order.release, self._order.source)
        except ActivityError as error:
            why = f"cluster {cluster}: {sentence_of(error)}"
            if code_of(error) != "Refused":
                self._silent_since[cluster] = since
                if workflow.now().timestamp() - since >= steps.SILENT_FOR.total_seconds():
                    self._set_aside(name, why)
                return why
        self._silent_since.pop(cluster, None)
        return why and f"{name}: {why}"

    @property
    def _waits_for_silent(self) -> bool:
        return not self._short.keys().isdisjoint(self._silent_since)

    @property
    def _waiting(self) -> dict[str, GatewayRef]:
        return {
            name: member.gateway for name, member in self._members.items() if self._states[name] == "waiting"
        }

    def _next(self, short: Container[str]) -> tuple[str, ...]:
        """Return who starts now if this is all that is short of capacity; nobody while held."""
        if self._held or self._ending or self._waits_for_a_cut:
            return ()
        return next_to_start(
            self._waiting.values(),
            [self._members[name].gateway for name in self._under_way],
            short,
            at_once=self._order.switching,
            per_domain=self._order.switching_per_domain,
        )

    def _may_go_on(self) -> bool:
        done = any(switch.done() for switch in self._under_way.values())
        over = bool(self._ending) or not (self._waiting or self._under_way)
        return done or over or bool(self._next(self._short))

    async def _or_set_aside(self, name: str, work: Awaitable[None]) -> None:
        """Do the work on the gateway; who fails, fails alone, and whose node takes nothing waits for it."""
        try:
            await work
        except (ActivityError, ApplicationError) as error:
            if self._is_left_to_operator(name, error):
                return
            look = await self._look_at_node(name)
            if look.unfit and self._states[name] in {"staging", "starting"}:
                self._states[name] = "waiting"
                self._changed()
            else:
                self._set_aside(name, look.with_reason(sentence_of(error)))

    async def _look_at_node(self, name: str, state: GatewayState | None = None) -> Trouble:
        """Return what a cluster says is wrong with the gateway's node; its silence clears no node."""
        on = self._steps(self._members[name])
        if on.cluster is None:
            return Trouble()
        try:
            return trouble_of(await on.cluster.look(), on.cluster.at, state)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return Trouble(strange=f"cluster {on.cluster.at.cluster} was not heard: {sentence_of(error)}")

    async def _bring_up(self, member: Member) -> None:
        name, release, on = member.gateway.name, self._order.release, self._steps(member)
        self._enter(name, "staging")
        if name in self._order.unable:
            await self._require_able(member)
        prepared = await on.prepare(self._slots, release, self._order.source)
        await on.stage(release, self._order.source, prepared=prepared)
        self._enter(name, "starting")
        started = await on.start(release, prepared=prepared)
        at = workflow.now().timestamp()
        self._enter(name, "probing")
        probe = await on.probe(started.slot)
        if not probe.passed:
            raise stopped(f"the probe of {name} failed at {probe.stage}, before any user: {probe.reason}")
        if self._order.tests is not None:
            await self._test(on, started.slot, self._order.tests)
        trial = OnTrial(slot=started.slot, started=at, boot=started.state.boot)
        if not self._released:
            self._ready[name] = trial
            self._enter(name, "ready")
            return
        await self._begin_trial(member, trial)

    async def _require_able(self, member: Member) -> None:
        """Return if the gateway can change and go back by now.

        A few may be in the way when a change begins. What was silent or full then may have passed; nobody is
        switched without a way back.
        """
        asked = PartQuery(plan=self._order.plan, key=self._order.key)
        moved = await control.record(PlanActivities.find_moved, asked)
        release, source = self._order.release, self._order.source
        found = await ask_for_obstacles([member], release, source, moved.given_up)
        if obstacles := found[member.gateway.name][0]:
            raise stopped("; ".join(obstacles))

    async def _test(self, on: GatewaySteps, slot: str, tests: ReleaseTests) -> None:
        """Return when the instance has passed its tests, with a load where the fleet names this gateway.

        What others feel comes last, and only to what has passed all before.
        """
        name = on.gateway.name
        self._enter(name, "testing")
        tried = partial(on.inspect, slot, tests)
        await self._until_passed(on, slot, tests, tried, Method.TRIED)
        if (mirror := tests.mirror) is not None:
            self._enter(name, "mirrored")
            mirrored = partial(on.mirror, slot, mirror.mirror)
            await self._until_passed(on, slot, tests, mirrored, Method.MIRRORED)
        load = tests.load
        if load is not None and load.gateway == name and name not in self._rebooted:
            self._enter(name, "loaded")
            await self._until_passed(on, slot, tests, partial(on.load, slot, load.load), Method.LOADED)

    async def _until_passed(
        self,
        on: GatewaySteps,
        slot: str,
        tests: ReleaseTests,
        measure: Callable[[], Awaitable[Inspected]],
        method: Method,
    ) -> None:
        """Return when the tests have passed; while one cannot be made, say so and try again."""
        name, pause = on.gateway.name, steps.NEXT_TEST
        since = self._untested_since.setdefault(name, workflow.now().timestamp())
        try:
            while (found := await self._found(on, slot, tests, measure, method)).outcome is Outcome.UNKNOWN:
                waited = workflow.now().timestamp() - since
                if waited >= tests.patience.total_seconds() or name in self._returning:
                    raise stopped(f"{name} could not be tested before any user: {found.sentence}")
                self._untested[name] = found.sentence
                self._changed(urgent=True)
                self._asleep.add(name)
                await workflow.sleep(pause)
                self._asleep.discard(name)
                pause = min(2 * pause, steps.LAST_CAPACITY)
        finally:
            self._untested.pop(name, None)
            self._asleep.discard(name)
        if found.outcome is Outcome.FAILED:
            raise stopped(f"{name} failed a test before any user: {found.sentence}")

    async def _found(
        self,
        on: GatewaySteps,
        slot: str,
        tests: ReleaseTests,
        measure: Callable[[], Awaitable[Inspected]],
        method: Method,
    ) -> Exposure:
        """Make the tests and write down what they found; nobody is exposed to what is not written down."""
        try:
            inspected = await measure()
        except ActivityError as error:
            if code_of(error) in {"Fenced", "ForeignOrder", "Refused"}:
                raise  # nobody will test it here any more
            return Exposure(outcome=Outcome.UNKNOWN, sentence=sentence_of(error))
        findings = findings_of(tests, inspected.measurements, method)
        found = exposure(findings)
        if found.sentence != self._untested.get(on.gateway.name):
            entry = TestsEntry(
                change=self._order.change,
                gateway=on.gateway,
                slot=slot,
                at=workflow.now(),
                exposure=found,
                findings=findings,
            )
            with self._waiting_for_the_ledger(on.gateway.name):
                await control.record(LedgerActivities.record_tests, entry)
        return found

    async def _begin_trial(self, member: Member, trial: OnTrial, *, again: bool = False) -> None:
        name = member.gateway.name
        on = self._steps(member)
        if not await self._may_move() or self._ending == "stop":
            return
        self._moved[name] = trial.started  # before the answer: one that is lost may have been a switch
        if again:
            await on.try_out(trial.slot, self._order.lease, self._share, again=True)
        elif not await self._is_switched(on, lambda: on.try_out(trial.slot, self._order.lease, self._share)):
            return
        begun = {"confirmed": workflow.now().timestamp(), "unconfirmed": "", "misses": 0}
        self._on_trial[name] = trial.model_copy(update=begun)
        self._ready.pop(name, None)
        if self._lapsed.get(name, 0) > steps.LAPSES_AT_ONCE:
            self._enter(name, "on trial", urgent=False)
        else:
            first = "on trial" not in self._states.values()
            self._enter(name, "on trial", urgent=first or None)
        self._set_aside_if_named(name)  # it may have been named while its lapsed lease was looked into

    async def _may_move(self) -> bool:
        """Report to the wave, before the first trial, that sessions may move; False where it has ended.

        Until this is with the wave no gateway is tried: a missing report never hides users on trial.
        """
        async with self._announcing:
            if not self._moves:
                self._moves = True
                self._moves = await self._tell_wave()
        return self._moves

    async def _is_switched(self, on: GatewaySteps, switch: Callable[[], Awaitable[object]]) -> bool:
        """Return whether the host has switched; False where an operator left the gateway out meanwhile.

        A host that refuses is tried again, and operators see why.

        Raises:
            ActivityError: It has refused for too long, or for good.
        """
        name, since = on.gateway.name, workflow.now()
        try:
            while name not in self._left_out:
                try:
                    await switch()
                except ActivityError as error:
                    late = workflow.now() - since >= steps.SWITCHED_WITHIN
                    if late or is_cancelled_exception(error) or not _may_be_repeated(error):
                        raise
                    self._refused[name] = sentence_of(error)
                    self._changed(urgent=True)
                    await self._take_out_if_left_out(on.gateway)
                else:
                    return True
            return False
        finally:
            if self._refused.pop(name, None):
                self._changed(urgent=True)

    async def _take_out_if_left_out(self, gateway: GatewayRef) -> None:
        """Go on without the gateway if an operator has left it out, although its new instance runs."""
        name = gateway.name
        try:
            asked = LeftOutQuery(fleet=gateway.fleet or "", gateways=(name,))
            out = await control.ask(FactActivities.find_left_out, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return
        if name in out:
            self._take_out(name, out[name])

    def _take_out(self, name: str, why: str) -> None:
        """Go on without a gateway on which something has begun already; nothing of it has failed."""
        self._on_trial.pop(name, None)
        self._paused.pop(name, None)
        self._ready.pop(name, None)
        self._taken_out.add(name)
        self._leave_out({name: why})
        self._changed(urgent=True)

    def _is_left_to_operator(self, name: str, refusal: BaseException) -> bool:
        """Return whether the host answers that an operator steered it; the batch goes on without it then."""
        if rollout_seen(refusal) != BREAK_GLASS:
            return False
        epoch = epoch_seen(refusal)
        at = f" at {datetime.fromtimestamp(epoch / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if epoch else ""
        self._take_out(name, f"an operator steered it by break-glass{at}, and penstock leaves it alone")
        return True

    async def _open_the_barrier(self) -> None:
        """Report that everybody is ready, and begin the trials when the whole group is."""
        self._at_barrier = True
        self._changed(urgent=True)
        self._idle = True
        await workflow.wait_condition(lambda: self._released or bool(self._ending))
        self._idle = False
        if self._released:
            begun = [
                self._or_set_aside(name, self._begin_trial(self._members[name], trial))
                for name, trial in sorted(self._ready.items())
            ]
            await asyncio.gather(*begun)

    # --- on trial ---------------------------------------------------------------------

    async def _stay_on_trial(self) -> None:
        """Confirm every lease three times within its length, until the wave says how it ends."""
        applied, renewed = self._share, datetime.min.replace(tzinfo=UTC)
        while not self._ending:
            heed_cancellation()
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    partial(self._has_news, applied), timeout=self._until_its_turn(renewed)
                )
                if self._share == applied:  # before its turn; at its turn leases are renewed first
                    self._go_on_with_a_short_history()
            if self._ending:
                return
            applied, renewed = self._share, workflow.now()
            await asyncio.gather(*[self._confirm(name) for name in sorted(self._on_trial)])
            now = workflow.now().timestamp()
            self._end_pauses(name for name, one in self._paused.items() if one.until <= now)
            self._go_on_with_a_short_history()

    def _until_its_turn(self, renewed: datetime) -> timedelta:
        """Return the time until this batch renews: all batches of a wave take turns by one clock.

        Clocks of their own would drift into each other. What was renewed just now waits for the turn
        after the next, for which a lease leaves time.
        """
        between, now = self._order.lease / RENEWALS_A_LEASE, workflow.now()
        since_last = (now - EPOCH - between * self._order.phase) % between
        left = between - since_last
        return left if now + left - renewed > between / 2 else left + between

    def _has_news(self, share: int) -> bool:
        return bool(self._ending) or self._share != share or (self._has_much_behind_it and self._may_be_cut())

    async def _confirm(self, name: str) -> None:
        """Renew one lease; a gateway whose instance ended, or that was silent too long, is set aside.

        It is silent after a whole lease of questions that it did not answer: time in which none was asked,
        as while the orchestrator or its engine was away, is no silence of the gateway.
        """
        member, trial = self._members[name], self._on_trial.get(name)
        if trial is None:
            return  # set aside since this was begun
        try:
            await self._steps(member).try_out(trial.slot, self._order.lease, self._share, renew=True)
        except ActivityError as error:
            if code_of(error) in {"InstanceGone", "LeaseLapsed"}:
                if self._on_trial.pop(name, None) is None:
                    return  # set aside while it was being asked
                self._enter(name, "checking")
                reason = sentence_of(error)
                if code_of(error) == "LeaseLapsed" and trial.unconfirmed:
                    reason = f"{reason}: {trial.unconfirmed}"
                self._begin_to_look_into(name, trial, code_of(error), reason)
                return
            if name in self._on_trial and self._is_left_to_operator(name, error):
                return
            await self._count_a_miss(name, trial, error)
        else:
            at = workflow.now().timestamp()
            if name in self._on_trial:
                self._on_trial[name] = trial.model_copy(
                    update={"confirmed": at, "unconfirmed": "", "misses": 0}
                )

    async def _count_a_miss(self, name: str, trial: OnTrial, error: ActivityError) -> None:
        """Count a lease that was not confirmed; a gateway that was silent for a whole lease is set aside."""
        why = sentence_of(error)
        workflow.logger.warning("lease of %s not confirmed: %s", name, why)
        misses = trial.misses + 1
        if name in self._on_trial:
            missed = {"unconfirmed": why, "misses": misses}
            self._on_trial[name] = self._on_trial[name].model_copy(update=missed)
        since = workflow.now().timestamp() - trial.confirmed
        if misses >= RENEWALS_A_LEASE and since > self._order.lease.total_seconds():
            reason = (await self._look_at_node(name)).with_reason(f"silent: {sentence_of(error)}")
            if name in self._on_trial:
                self._set_aside(name, reason)

    def _begin_to_look_into(
        self, name: str, trial: OnTrial, code: str, reason: str, *, is_over: bool = False
    ) -> None:
        """Look into it beside the others, whose leases do not wait until this one has come up again."""
        looking = self._look_into(self._members[name], trial, code, reason, is_over=is_over)
        self._returning[name] = asyncio.create_task(looking)

    def _end_pauses(self, names: Iterable[str]) -> None:
        """Begin these trials again; their gateways count as paused until they are on trial."""
        for name in sorted(names):
            paused = self._paused.pop(name)
            self._begin_to_look_into(name, paused.trial, "LeaseLapsed", paused.lapsed, is_over=True)

    async def _look_into(
        self, member: Member, trial: OnTrial, code: str, reason: str, *, is_over: bool
    ) -> None:
        """Tell a reboot from a crash by the boot id; after a first reboot the gateway tries once more.

        A lease that has lapsed while its instance runs and answers was not confirmed in time, or was flushed
        with the host's tables: no release is at fault. The trial begins again, and its evidence goes on.

        Args:
            member: The gateway.
            trial: Its trial.
            code: Why it is looked into: its instance is gone, or its lease has lapsed.
            reason: The same for operators.
            is_over: Whether its lapses were looked into before, and the pause after them is over.
        """
        name = member.gateway.name
        try:
            state = await self._steps(member).observe()
            rebooted = bool(trial.boot) and state.boot != trial.boot
            if rebooted and name not in self._rebooted:
                self._rebooted.add(name)
                await self._bring_up(member)
                return
            if code == "LeaseLapsed" and not rebooted and self._runs(state, trial):
                await self._begin_trial_again(member, trial, reason, is_over=is_over)
                return
            trouble = await self._look_at_node(name, state)
        except (ActivityError, ApplicationError) as error:
            if not self._is_left_to_operator(name, error):
                self._set_aside(name, f"{reason}; {sentence_of(error)}")
            return
        finally:
            self._returning.pop(name, None)
        if code == "InstanceGone" and not rebooted and not trouble:
            self._ended.append(name)
        self._set_aside(name, trouble.with_reason(f"its host rebooted: {reason}" if rebooted else reason))

    def _runs(self, state: GatewayState, trial: OnTrial) -> bool:
        release = self._order.release
        return state.running(release.digest, release.executable) == trial.slot

    async def _begin_trial_again(self, member: Member, trial: OnTrial, reason: str, *, is_over: bool) -> None:
        """Begin the trial again, after the second lapse of the gateway's lease with a pause before."""
        name = member.gateway.name
        if doubt := await self._steps(member).doubt_about(trial.slot, "probe-again", steps.PROBE):
            raise stopped(f"{name} {doubt}")
        if self._ending == "stop":
            return
        lapses = self._lapsed.get(name, 0) + (0 if is_over else 1)
        pause = timedelta(0) if is_over or self._ending else steps.pause_after_lapses(lapses)
        if pause:
            self._lapsed[name] = lapses
            self._pause_trial(name, trial, reason, pause)
            return
        await self._begin_trial(member, trial, again=True)
        self._lapsed[name] = lapses
        self._changed(urgent=lapses <= steps.LAPSES_AT_ONCE)

    def _pause_trial(self, name: str, trial: OnTrial, reason: str, pause: timedelta) -> None:
        """Leave the gateway on known-good for a while, whose lease has lapsed again and again."""
        until = (workflow.now() + pause).timestamp()
        self._paused[name] = Paused(trial=trial, until=until, lapsed=reason)
        self._enter(name, PAUSED)
        self._set_aside_if_named(name)  # it may have been named while its lapsed lease was looked into

    def _go_on_with_a_short_history(self) -> None:
        """Cut the history where no other coroutine is about to ask the engine for something."""
        if not (self._has_much_behind_it or steps.history_is_long()):
            return
        if not self._may_be_cut():
            if steps.history_is_too_long():  # at the next quiet moment, which is near
                self._has_much_behind_it, self._urgent = True, self._urgent or self._untold > 0
            return
        workflow.continue_as_new(
            self._order.model_copy(
                update={
                    "on_trial": self._on_trial,
                    "ready": self._ready,
                    "aside": self._aside,
                    "left_out": self._left_out,
                    "taken_out": tuple(sorted(self._taken_out)),
                    "ended": tuple(self._ended),
                    "rebooted": tuple(sorted(self._rebooted)),
                    "lapsed": self._lapsed,
                    "paused": self._paused,
                    "moved": self._moved,
                    "silent_since": self._silent_since,
                    "untested_since": self._untested_since,
                    "switched": self._switched,
                    "barrier": not self._released,
                    "share": self._share,
                    "held": self._held,
                    "begun": True,
                    "recorded": self._all_recorded,
                    "members": tuple(self._members.values()),
                    "moves": self._moves,
                    "told": self._told,
                    "now": self._now,
                }
            )
        )

    def _is_cut_after(self, events: int) -> bool:
        return steps.history_is_longer_than(events) and workflow.patched(CUT_ONCE_SWITCHED)

    def _may_be_cut(self) -> bool:
        """Whether nothing is under way that the next run does not repeat.

        For a while a cut waits for the ledger, which may be away for days: what is unwritten then is written
        by the next run, which writes the state of each gateway.
        """
        waits = self._asleep  # whose steps before may all be repeated
        idle, unwritten = self._idle, self._unwritten
        if steps.history_is_too_long():
            waits, unwritten = self._asleep | self._at_the_ledger, False
            idle = idle or CAPACITY in self._at_the_ledger
        quiet = (self._switched or (idle and self._under_way.keys() <= waits)) and not (
            self._ending or self._returning or self._naming or self._telling or self._writing
        )
        return quiet and not (self._untold or unwritten)

    @contextmanager
    def _waiting_for_the_ledger(self, what: str) -> Iterator[None]:
        self._at_the_ledger.add(what)
        try:
            yield
        finally:
            self._at_the_ledger.discard(what)

    # --- the end ----------------------------------------------------------------------

    async def _keep(self) -> None:
        """Confirm every lease once more, so that nothing is kept that has died since, and keep the rest."""
        await asyncio.gather(*[self._confirm(name) for name in sorted(self._on_trial)])
        self._end_pauses([*self._paused])
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: not self._returning, timeout=self._order.lease / RENEWALS_A_LEASE
            )
        for name, returning in sorted(self._returning.items()):
            returning.cancel()
            self._set_aside(name, "its new instance was not up when the wave ended")
        kept = [self._or_set_aside(name, self._keep_gateway(name)) for name in sorted(self._on_trial)]
        await asyncio.gather(*kept)

    async def _keep_gateway(self, name: str) -> None:
        on, trial = self._steps(self._members[name]), self._on_trial.get(name)
        if trial is None:
            return  # set aside since this was begun
        kept = await self._is_switched(on, lambda: on.keep(trial.slot, steps.SWITCH))
        if kept and name in self._on_trial:
            self._enter(name, KEPT)

    async def _end_trials(self) -> None:
        """Send new sessions back where nobody else is left to do it; a newer change does so itself."""
        await asyncio.gather(
            *[self._steps(self._members[name]).end_trial() for name in sorted(self._on_trial)],
            return_exceptions=True,
        )

    # --- telling ----------------------------------------------------------------------

    def _steps(self, member: Member) -> GatewaySteps:
        order = self._order
        return GatewaySteps(member.gateway, order.change, order.epoch, order.release.digest)

    def _enter(self, name: str, state: str, *, urgent: bool | None = None) -> None:
        self._states[name] = state
        if urgent is None:
            urgent = state in LASTING and (self._order.detailed or self._lets_others_begin)
        self._changed(urgent=urgent)
        if state in LASTING or name in self._written:
            self._write_soon(at_once=urgent)

    @property
    def _lets_others_begin(self) -> bool:
        """Whether so few are still on their way that the next batch of the lane begins."""
        return sum(state not in LASTING for state in self._states.values()) == self._order.switching // 2

    def _set_aside(self, name: str, reason: str) -> None:
        """Go on without this gateway; its lease sends new sessions back, and the wave has it restored."""
        self._on_trial.pop(name, None)
        self._paused.pop(name, None)
        self._ready.pop(name, None)
        self._aside[name] = reason
        self._states[name] = SET_ASIDE
        self._changed(urgent=True)
        self._write_soon(at_once=True)

    def _changed(self, *, urgent: bool = False) -> None:
        self._untold += 1
        self._urgent = self._urgent or urgent

    @property
    def _report_after(self) -> timedelta:
        """How long mere progress waits: in a large fleet twice as long after each report."""
        doublings = self._told // REPORTS_AT_A_PACE if self._order.detailed else self._told
        return self._order.report_every * (1 << min(doublings, SLOWEST_REPORT))

    async def _report_changes(self) -> None:
        """Tell the wave what matters at once, and the steps between in as few reports as people need.

        A signal that has arrived at the moment of a cancellation swallows it, and the next would follow.
        """
        while not self._closed and (self._untold or not self._over):
            await workflow.wait_condition(lambda: self._untold > 0 or self._over)
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._urgent or self._over, timeout=self._report_after)
            if self._untold and not self._closed:
                self._telling = True
                await self._tell_wave()
                self._telling = False

    async def _tell_wave(self) -> bool:
        """Report all that is so now; return whether the wave has it."""
        self._untold, self._urgent = 0, False
        self._all_recorded |= self._switched and not (self._unwritten or self._writing)
        self._told += 1
        report = BatchReport(
            at=workflow.now(),
            number=self._told,
            part=self._order.key.number,
            switched=self._all_recorded,
            ready=self._at_barrier,
            moves=self._moves,
            counts=dict(sorted(Counter(self._states.values()).items())),
            aside=self._aside,
            left_out=self._left_out,
            taken_out=tuple(sorted(self._taken_out)),
            refused=dict(sorted(self._refused.items())),
            ended=tuple(self._ended),
            short=tuple(sorted({why for name, why in self._short.items() if name not in self._silent_since})),
            silent=tuple(sorted(self._short.keys() & self._silent_since.keys())),
            untested=dict(sorted(self._untested.items())),
            rebooted=tuple(sorted(self._rebooted)),
            lapsed=tuple(sorted(self._lapsed)),
            paused={name: self._why_paused(name) for name in sorted(self._paused)},
            gateways=self._progress() if self._order.detailed else (),
        )
        return await tell(self._order.wave, "report", report)  # the end of a wave is seen as a cancellation

    def _write_soon(self, *, at_once: bool) -> None:
        self._unwritten = True
        self._write_at_once |= at_once

    async def _keep_written(self) -> None:
        """Record what has come to stay, for the watch and for people, beside the reports to the wave."""
        pause = WRITTEN_EVERY
        while not self._ends():
            await workflow.wait_condition(lambda: self._unwritten or self._over)
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._write_at_once or self._over, timeout=pause)
            if self._ends():
                break
            if await self._write_down():
                pause = WRITTEN_EVERY
                if self._switched and not self._all_recorded:
                    self._changed(urgent=True)
            else:  # tried again: nobody watches a gateway that is not written down
                pause, self._unwritten = min(2 * pause, WRITTEN_AT_LAST), True
        if not self._closed:
            await self._write_the_end()

    def _ends(self) -> bool:
        return self._over or self._closed

    async def _write_down(self) -> bool:
        """Record what is new of gateways that have come to stay; return whether the ledger has it."""
        self._unwritten = self._write_at_once = False
        known = {name for name, state in self._states.items() if state in LASTING or name in self._written}
        return await self._write(known)

    async def _write_the_end(self) -> None:
        """Record each gateway as it is at the end: one that was never tried is not waited for."""
        await self._write(self._states)

    async def _write(self, names: Iterable[str]) -> bool:
        rows = tuple(self._row(name) for name in sorted(names))
        fresh = tuple(row for row in rows if self._written.get(row.gateway) != (row.state, row.started))
        if not fresh:
            return True
        entry = GatewayResults(change=self._order.change, results=fresh)
        self._writing = True
        try:
            written = await control.note(LedgerActivities.record_gateways, entry, "progress")
        finally:
            self._writing = False
        if written:
            self._written |= {row.gateway: (row.state, row.started) for row in fresh}
        return written

    def _all_begun(self) -> GatewayResults:
        """Return, before anything is done on it, that each gateway has begun: nothing is tried unrecorded."""
        rows = (
            GatewayResult(gateway=name, wave=self._order.key.wave, state=BEGUN, at=workflow.now())
            for name in sorted(self._members)
        )
        return GatewayResults(change=self._order.change, results=tuple(rows))

    @property
    def _now(self) -> datetime:
        """Now, and no earlier than in the run before: of two rows of a gateway the later one counts."""
        return max(workflow.now(), self._order.now or workflow.now())

    def _row(self, name: str) -> GatewayResult:
        trial = self._on_trial.get(name)
        return GatewayResult(
            gateway=name,
            wave=self._order.key.wave,
            state=self._states[name],
            sentence=self._aside.get(name) or self._left_out.get(name) or self._why_paused(name),
            slot=trial.slot if trial else None,
            started=trial.started if trial else self._moved.get(name),
            at=self._now,
        )

    def _why_paused(self, name: str) -> str:
        if (paused := self._paused.get(name)) is None:
            return ""
        times = "once" if self._lapsed[name] == 1 else f"{self._lapsed[name]} times"
        return (
            f"its lease has lapsed {times} in this wave while its instance answered ({paused.lapsed}); its "
            f"trial begins again after {datetime.fromtimestamp(paused.until, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )

    def _progress(self) -> tuple[GatewayProgress, ...]:
        release = self._order.release.version
        return tuple(
            GatewayProgress(
                gateway=name,
                wave=self._order.key.wave,
                state=self._states[name],
                release=release if self._states[name] in {"on trial", KEPT} else None,
            )
            for name in self._members
        )


def _may_be_repeated(error: ActivityError) -> bool:
    """Return whether a host that refused may take the same step later."""
    return error.retry_state is not RetryState.NON_RETRYABLE_FAILURE
