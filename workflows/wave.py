"""One wave: its batches switch their gateways, all of them are watched together, and are kept or given up.

What fails on one gateway by itself is set aside and restored alone; only more than the wave's
failure budget, or proven harm, is the release's fault.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError
from temporalio.workflow import ChildWorkflowHandle

from policies.model.change import Phase
from policies.model.command import Command, CommandKind
from policies.model.fleet import Automation
from policies.model.plan import ReleaseRef, Strategy
from policies.model.plan_part import MOST_MEMBERS, PartKey, PlanHeader, WaveHeader
from policies.model.report import EVERYBODY, BatchReport, ByTime, WatchReport, WaveReport
from policies.model.value import Name, Value
from policies.model.verdict import Action, Decision, GateVerdict
from policies.status.awaited import STANDING_STILL, asks_about_harm, rolls_back_by_itself, speaks_against
from policies.status.told import SHOWN, listed
from policies.votes import PERSONS_NEEDED, Votes
from workflows import steps
from workflows.alarm import Alarm
from workflows.batch import Batch, BatchOrder, BatchResult
from workflows.children import first_named, guarded, left_behind, merged, sent, tell
from workflows.compensation import heed_cancellation
from workflows.failures import sentence_of
from workflows.identities import return_of
from workflows.restore import Restore, RestoreOrder
from workflows.watch import Watch, WatchOrder, watch_of

DETAILED = 50
"""Gateways of a plan up to which every one of them is reported by itself."""

BETWEEN_REPORTS, IN_LARGE_FLEETS = timedelta(milliseconds=500), timedelta(seconds=5)
A_PART = timedelta(milliseconds=250)
"""Between two reports of a batch, for each part of its wave: the wave's history is to stay short."""

REPORTS_AT_A_PACE = 50
"""Reports of a wave until each next one takes twice as long: its history has room for days of switching."""

REPORTS_AT_ONCE = 8 * DETAILED
"""Reports of a wave of a small fleet before any of them waits: each gateway goes through about six states."""

MOST_DOUBLINGS = 12
"""How often the time between two reports doubles."""

NAMED = 4
"""Sentences about a want of capacity that a report has room for."""


class WaveOrder(Value):
    """One wave of a plan, the source its release comes from, and the epoch that its steps carry."""

    change: Name
    parent: str
    header: PlanHeader
    wave: int
    release: ReleaseRef
    source: str
    epoch: int
    requesters: tuple[str, ...]
    holds: dict[str, str] = {}
    carry: str = ""
    """What the windows of the waves before left: evidence goes on over the waves."""
    unable: tuple[str, ...] = ()
    """Gateways that could not change, or not go back, when all of the plan were asked."""


class WaveResult(Value):
    """Whether the wave's gateways keep the release, why, and which of them were set aside."""

    passed: bool
    reason: str
    decision: Decision | None = None
    aside: dict[str, str] = {}
    """Why gateways do not run the release, of the first of them by name."""
    without: dict[int, tuple[str, ...]] = {}
    """All of these gateways, by the number of their part."""
    carry: str = ""
    against: bool = False
    """Whether it passed against its verdict, by operators or by time."""
    moved: bool = True
    """Whether sessions may have moved: each batch reports that before its first trial."""


@workflow.defn(name="Wave")
class Wave:
    """Switch, watch from the first trial on, and keep what passed."""

    @workflow.init
    def __init__(self, order: WaveOrder) -> None:
        self._order = order
        self._wave: WaveHeader = order.header.wave(order.wave)
        self._limits = order.header.limits
        self._reports: dict[int, BatchReport] = {}
        self._batches: dict[int, ChildWorkflowHandle[Batch, BatchResult]] = {}
        self._results: dict[int, BatchResult] = {}
        self._ends: list[asyncio.Task[None]] = []
        self._watch: ChildWorkflowHandle[Watch, None] | None = None
        self._watches = 0
        """Watches that were begun: one that is lost is begun again."""
        self._looks = 0
        """Looks that the watch was asked for."""
        self._watch_heard: WatchReport | None = None
        self._silence = Alarm(self._changed)
        """Rings when the watch counts as silent, unless it reports before."""
        self._is_silent = False
        self._is_empty = False
        """Whether no gateway of the wave runs the release, although it does not pass by that."""
        self._harm_of_a_lost_watch: Decision | None = None
        self._fresh_from = 0
        """Decisions from before this look are too old to act on."""
        self._seen_by_hosts: Decision | None = None
        self._complete_since: datetime | None = None
        self._votes = Votes(order.requesters)
        self._voted_at = 0
        """The look that the last vote asked for."""
        self._holds = dict(order.holds)
        self._batches_are_held = False
        self._holding = asyncio.Lock()
        """Whether the batches were told last that no further gateway starts."""
        self._obeyed: set[str] = set()
        self._phase = Phase.SWITCHING
        self._by_time_told: ByTime | None = None
        self._stopped: str | None = None
        self._lost: str | None = None
        self._restoring: set[str] = set()
        self._named: dict[str, float] = {}
        """Gateways that metrics name and batches were told of, each with when its sign was seen."""
        self._aside_told: set[str] = set()
        self._left_out_told: set[str] = set()
        self._share = 0
        self._window = 0
        self._told = 0
        self._changes = 0
        self._untold = True
        self._urgent = False
        self._over = False
        self._closed = False

    @workflow.run
    async def run(self, order: WaveOrder) -> WaveResult:
        """Return whether the gateways keep the release; what goes wrong is the caller's to undo."""
        del order
        telling = asyncio.create_task(self._report_changes())
        lanes = self._lanes()
        switching = max(1, self._limits.switching // len(lanes))
        running = [asyncio.create_task(self._run_lane(lane, switching)) for lane in lanes]
        try:
            result = await self._watch_to_the_end()
            if result.passed:
                result = await self._keep(result)
            if not result.passed:
                await self._signal_batches("end", "stop")
            # Waited for, not cancelled: a signal under way swallows a cancellation and the next would follow.
            self._over = True
            await telling
            not_upgraded = {number: self._not_upgraded(number) for number in sorted(self._reports)}
            return result.model_copy(
                update={
                    "aside": first_named(not_upgraded.values()),
                    "without": {number: tuple(sorted(of)) for number, of in not_upgraded.items() if of},
                    "moved": self._moves,
                }
            )
        finally:
            self._closed = True  # whatever follows a workflow's end fails its task, again and again
            self._silence.stop()
            for task in (telling, *running, *self._ends):
                task.cancel()
            if self._watch is not None:
                self._watch.cancel()

    # --- what people and children say ----------------------------------------------

    # At the wave's end its batches hear of that instead.
    @workflow.signal(name="command", unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def command(self, command: Command) -> None:
        """Take a person's command that the change has accepted, once: the engine can repeat it."""
        if command.id in self._obeyed:
            return
        self._obeyed.add(command.id)
        look = self._looks + 1
        match command.kind:
            case CommandKind.HOLD:
                self._holds[command.person] = command.reason
            case CommandKind.RESUME:
                self._holds.pop(command.hold_of or command.person, None)
            case CommandKind.PROMOTE:
                self._votes.add(command.person, command.seen)
                self._voted_at = look
            case CommandKind.ROLL_BACK | CommandKind.ABORT:
                self._stopped = f"{command.person} said so: {command.reason}"
            case _:
                return
        self._looks = look
        self._changed(urgent=True)
        if command.kind is CommandKind.RESUME and self._watch is not None:
            # What was decided before people held the wave is too old to act on.
            self._fresh_from = look
            self._silence.set(2 * steps.UNREAD_FOR)
        await self._hold_or_let_go()
        await self._signal_watch("look", look)

    @workflow.signal(name="report")
    def report(self, report: BatchReport) -> None:
        """Take over what a batch says of itself."""
        if report.follows(self._reports.get(report.part)):
            known, moved = self._reports.get(report.part), self._moves
            self._reports[report.part] = report
            fresh = bool(report.aside) and (known is None or report.aside != known.aside)
            self._changed(urgent=fresh or self._moves is not moved)

    @workflow.signal(name="report_watch")
    def report_watch(self, report: WatchReport) -> None:
        """Take over a decision of the watch; of a window that is over, only harm still counts."""
        counts = report.window == self._window or report.decision.action is Action.ROLL_BACK
        if not report.follows(self._watch_heard):
            return
        self._silence.set(report.fresh_for)
        if counts:
            before, self._watch_heard = self._decision, report
            self._votes.see(self._decision or report.decision)
            if self._decision != before:
                self._changed(urgent=True)
        self._changes += 1

    # --- switching ------------------------------------------------------------------

    def _lanes(self) -> list[tuple[PartKey, ...]]:
        """Return which batches switch one after the other: as many side by side as may switch at once."""
        keys = self._wave.keys
        if self._wave.one_after_the_other:
            return [keys]
        count = max(1, min(len(keys), self._limits.switching // MOST_MEMBERS))
        return [keys[first::count] for first in range(count)]

    async def _run_lane(self, keys: Sequence[PartKey], switching: int) -> None:
        """Run the lane's batches; the next begins when few of those before still switch.

        In a large fleet a few that hang keep nobody waiting, and go on counting against what may switch at
        once; where fewer may switch than a batch has, the next would never get their places back.
        """
        small = switching < MOST_MEMBERS or self._wave.one_after_the_other
        few = 0 if small else switching // 2
        for index, key in enumerate(keys):
            before = keys[:index]
            await workflow.wait_condition(
                partial(
                    lambda some: not self._starts_no_more and self._switching(some) <= few,
                    before,
                )
            )
            if self._closed:
                return
            order = self._batch_order(key, switching - self._switching(before))
            name = f"{workflow.info().workflow_id}/{key.number:04}"
            batch = await guarded(Batch.run, order, name)
            self._batches[key.number] = batch
            self._ends.append(asyncio.create_task(self._notice_the_end(key.number, batch)))
            if self._batches_are_held is not order.held and not self._closed:  # since it was being started
                await sent(partial(batch.signal, Batch.hold, self._batches_are_held))

    def _batch_order(self, key: PartKey, switching: int) -> BatchOrder:
        order, header = self._order, self._order.header
        detailed = header.changing <= DETAILED
        return BatchOrder(
            change=order.change,
            plan=header.digest,
            key=key,
            release=order.release,
            source=order.source,
            epoch=order.epoch,
            wave=workflow.info().workflow_id,
            lease=self._wave.lease,
            share=self._wave.shares[0],
            phase=key.number / self._wave.parts,
            tests=header.tests,
            switching=switching,
            switching_per_domain=self._limits.switching_per_domain,
            barrier=self._is_blue_green,
            detailed=detailed,
            report_every=BETWEEN_REPORTS if detailed else max(IN_LARGE_FLEETS, self._wave.parts * A_PART),
            held=self._batches_are_held,
            unable=order.unable,
        )

    async def _notice_the_end(self, number: int, batch: ChildWorkflowHandle[Batch, BatchResult]) -> None:
        """Give the wave up when a batch fails: nobody renews the leases of its gateways any more."""
        try:
            self._results[number] = await batch
        except ChildWorkflowError as error:
            self._lost = f"part {number} of wave {self._wave.number} ended: {sentence_of(error)}"
        self._changed()

    def _switching(self, keys: Sequence[PartKey]) -> int:
        """Return how many gateways of these batches are still on their way to the trial."""
        return sum(
            MOST_MEMBERS if report is None else report.switching
            for report in (self._reports.get(key.number) for key in keys)
        )

    # --- watching -------------------------------------------------------------------

    async def _watch_to_the_end(self) -> WaveResult:
        """Return how the window ends; gateways that fail alone are restored meanwhile."""
        while True:
            heed_cancellation()
            seen = self._changes
            self._notice_silence()
            self._notice_that_nobody_is_left()
            if result := self._failure() or self._harm() or self._verdict():
                return result
            await self._look_after_the_wave()
            self._enter(self._phase_now())
            self._untold |= self._by_time != self._by_time_told
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    partial(self._has_changed_since, seen), timeout=self._patience()
                )

    def _notice_silence(self) -> None:
        """Hold the wave while its watch reports nothing: silence is no evidence, of health or of harm."""
        silent = self._silence.rings and not self._finds_harm
        if silent is self._is_silent:
            return
        self._is_silent = silent
        if self._decision is not None:
            self._votes.see(self._decision)
        self._changed(urgent=True)

    def _notice_that_nobody_is_left(self) -> None:
        """Hold a wave of which no gateway runs the release: operators decide what nothing can show."""
        nobody = self._nobody_left and not self._is_left_out
        if nobody is self._is_empty:
            return
        self._is_empty = nobody
        if self._decision is not None:
            self._votes.see(self._decision)
        self._changed(urgent=True)

    def _failure(self) -> WaveResult | None:
        """Return why the wave is given up by a person, by a lost batch, or by more failures than may be."""
        if why := self._stopped or self._lost:
            return self._given_up(why)
        aside = self._aside()
        if len(aside) <= self._wave.may_fail:
            return None
        ended = sorted(name for report in self._reports.values() for name in report.ended)
        name = ended[0] if ended else min(aside)
        why = aside[name]
        if self._wave.may_fail:
            why = (
                f"{len(aside)} of {self._wave.gateways} gateways failed by themselves, "
                f"{self._wave.may_fail} may: {name}: {why}"
            )
        if len(ended) <= self._wave.may_fail:
            return self._given_up(why)
        self._seen_by_hosts, self._untold = has_ended(why), True
        return self._given_up(self._seen_by_hosts.reason)

    def _given_up(self, reason: str) -> WaveResult:
        return WaveResult(passed=False, reason=reason, decision=self._decision)

    def _harm(self) -> WaveResult | None:
        """Return why the wave goes back by itself; for a hard sign it does, however little is automatic."""
        decision = self._decision
        if decision is None or decision.action is not Action.ROLL_BACK:
            return None
        acts = rolls_back_by_itself(decision, self._limits.automation)
        return self._given_up(decision.reason) if acts else None

    def _verdict(self) -> WaveResult | None:
        """Return what lets the wave pass; nobody passes before everybody has switched."""
        if self._holds or not self._all_switched:
            return None
        if self._is_left_out:
            reason = "all of its gateways were left out of changes meanwhile"
            return WaveResult(passed=True, reason=reason, carry=self._order.carry)
        return None if self._shares_left() else self._passed(self._decision)

    @property
    def _nobody_left(self) -> bool:
        """Whether no gateway of the wave runs the release, so that nothing can be seen of it there."""
        return len(self._left_out().keys() | self._aside().keys()) == self._wave.gateways

    @property
    def _is_left_out(self) -> bool:
        """Whether the wave passes without any gateway, since operators left all of them out.

        A first wave does not pass by that: the next would be the first that meets the release. Nor does one
        of which gateways have failed.
        """
        return self._nobody_left and not self._aside() and self._wave.number > 1

    def _passed(self, decision: Decision | None) -> WaveResult | None:
        """Return what lets the wave pass: proof, people, or time where verdicts are only shown."""
        by = self._votes.persons if decision is not None and self._is_voted_for else ()
        if not (by or self._is_watched):
            return None
        if decision is not None and by:
            reason = f"promoted by {' and '.join(by)} against: {decision.reason}"
        elif decision is not None and decision.action is Action.PROMOTE:
            reason = decision.reason
        elif self._patience() != timedelta(0):
            return None
        elif decision is not None and speaks_against(decision):
            reason = f"passed by time, since this fleet only observes, against: {decision.reason}"
        else:
            reason = f"nothing failed for {self._order.header.window_minimum}; verdicts are only shown"
        carry = self._watch_heard.carry if self._watch_heard is not None else self._order.carry
        against = bool(by) or speaks_against(decision)
        return WaveResult(passed=True, reason=reason, decision=decision, carry=carry, against=against)

    @property
    def _is_voted_for(self) -> bool:
        """Whether enough operators voted, and nothing else speaks against the wave since the last vote.

        Each vote has the metrics read at once. A watch that reports nothing is what they voted against then.
        """
        heard = self._watch_heard
        read_since = heard is not None and heard.looks >= self._voted_at
        return self._votes.passed and (read_since or self._is_silent or self._nobody_left)

    def _patience(self) -> timedelta | None:
        """Return how long to wait without any news: where time alone decides the next step.

        No step is taken by time while operators hold the wave, or while it is not watched.
        """
        step = self._by_time
        if step is None or step.at is None or self._holds or not self._is_watched:
            return None
        return max(timedelta(0), step.at - workflow.now())

    @property
    def _by_time(self) -> ByTime | None:
        """Return the step that time alone decides once no operator holds the wave, None without one.

        Where the fleet only observes, time passes every share and the wave, whatever the verdict is.
        Elsewhere it passes a share that the verdict does not speak against. It passes nothing unwatched.
        """
        observes = self._limits.automation is Automation.OBSERVE
        if self._phase is Phase.PROMOTING or self._is_silent or self._is_empty or self._harm():
            return None
        if self._complete_since is None:
            return ByTime(at=None) if observes else None
        left = self._shares_left()
        if not observes and (not left or speaks_against(self._decision)):
            return None
        at = self._complete_since + self._order.header.window_minimum
        return ByTime(at=at, share=left[0] if left else None)

    @property
    def _starts_no_more(self) -> bool:
        """Whether no further gateway starts now: operators hold the wave, or are asked and have not answered.

        Where nobody is on trial, a watch has nothing to read: its silence keeps nobody from starting.
        """
        asks = asks_about_harm(self._decision, self._limits.automation)
        asks |= self._is_silent and self._on_trial > 0
        return bool(self._holds) or (asks and not self._is_voted_for)

    async def _hold_or_let_go(self) -> None:
        """Tell the batches where it is new whether further gateways start.

        One after the other: told side by side, a batch may hear of an end before the hold that it ends.
        """
        async with self._holding:
            if self._starts_no_more is not self._batches_are_held:
                self._batches_are_held = self._starts_no_more
                await self._signal_batches("hold", self._batches_are_held)

    async def _look_after_the_wave(self) -> None:
        """Hold what is to wait, restore what failed alone, begin to watch, and take the next share."""
        await self._hold_or_let_go()
        await self._restore_who_failed_alone()
        await self._give_up_what_the_metrics_name()
        if self._watch is None and (self._on_trial or self._all_switched):
            await self._begin_to_watch()
        if self._is_blue_green and not (self._share or self._holds) and self._everybody_is_ready:
            await self._take_share(self._wave.shares[0])
        elif self._all_switched and self._complete_since is None:
            await self._begin_the_window()
        elif self._may_take_the_next_share():
            await self._take_share(self._shares_left()[0])

    async def _give_up_what_the_metrics_name(self) -> None:
        """Have gateways set aside that show a hard sign of their own, or are absent, each with its reason.

        Their batches know which they have. What was passed on once is not passed on again, unless a gateway
        was started again and its sign was seen anew.
        """
        found, heard = self._decision, self._watch_heard
        if found is None or heard is None:
            return
        out = self._left_out() | self._aside()
        seen = {
            name: found.since.get(name, heard.at.timestamp())
            for name in sorted({*found.failed, *found.absent})
            if name not in out
        }
        fresh = {name: at for name, at in seen.items() if self._named.get(name) != at}
        self._named |= fresh
        for reason in dict.fromkeys(found.reason_of(name) for name in fresh):
            those = {name: at for name, at in fresh.items() if found.reason_of(name) == reason}
            await self._signal_batches("set_aside", those, reason)

    async def _begin_to_watch(self) -> None:
        self._watches += 1
        watch = WatchOrder(
            change=self._order.change,
            plan=self._order.header.digest,
            wave=self._wave.number,
            listener=workflow.info().workflow_id,
            run=workflow.info().run_id,
            beginning=(self._watches,),
            looks=self._looks,
            passes_by_time=self._limits.automation is Automation.OBSERVE,
            carry=self._order.carry,
            decision=self._harm_of_a_lost_watch,
        )
        self._watch = await guarded(Watch.run, watch, watch_of(workflow.info().workflow_id))
        self._silence.set(2 * steps.UNREAD_FOR)
        self._ends.append(asyncio.create_task(self._notice_a_lost_watch(self._watch)))

    async def _notice_a_lost_watch(self, watch: ChildWorkflowHandle[Watch, None]) -> None:
        """Begin again to watch when a watch is lost: that is no fault of the release."""
        try:
            await watch
        except ChildWorkflowError as error:
            if self._closed:
                return
            workflow.logger.warning("the watch over wave %s ended: %s", self._wave.number, sentence_of(error))
            await workflow.sleep(steps.HELD_PACE)
            if self._watch_heard is not None:
                self._harm_of_a_lost_watch = self._watch_heard.decision if self._finds_harm else None
            self._watch = self._watch_heard = self._complete_since = None
            self._window += 1
            self._changed(urgent=True)

    async def _begin_the_window(self) -> None:
        self._complete_since = workflow.now()
        self._share = self._share or self._wave.shares[0]
        await self._signal_watch("complete", self._window)

    def _shares_left(self) -> tuple[int, ...]:
        """Return the shares that still get a window of their own; keeping is the last step to everybody.

        None does where no gateway runs the release: operators decide once, and not once a share.
        """
        if self._is_empty:
            return ()
        return tuple(share for share in self._wave.shares if self._share < share < EVERYBODY)

    def _may_take_the_next_share(self) -> bool:
        """Whether a share before the judged one was watched long enough, or two people want more of it."""
        enough = self._patience() == timedelta(0) or self._is_voted_for
        return self._all_switched and bool(self._shares_left()) and not self._holds and enough

    async def _take_share(self, share: int) -> None:
        """Send more of the new sessions to the new instances, and begin a window of its own for it."""
        self._share = share
        await self._signal_batches("share", share)
        if self._complete_since is not None:
            self._watch_heard = None
            self._window += 1
            self._votes.forget()
            await self._begin_the_window()

    async def _restore_who_failed_alone(self) -> None:
        for name, part in self._newly_aside():
            await self._restore_alone(name, part)

    async def _restore_alone(self, name: str, part: int) -> None:
        """Bring one gateway back by itself; it outlives this wave, and a newer change takes it over."""
        self._restoring.add(name)
        restore = RestoreOrder(
            change=self._order.change,
            plan=self._order.header.digest,
            fleet=self._order.header.fleet,
            reason=(self._left_out() | self._aside()).get(name, "it failed by itself"),
            keys=(PartKey(wave=self._wave.number, number=part),),
            only=name,
            epoch=self._order.epoch + 1,  # what its batch may still send late is refused
            failed=self._order.release.digest,
            source=self._order.source,
            limits=self._limits,
        )
        await left_behind(Restore.run, restore, return_of(name, self._order.change))

    # --- the end --------------------------------------------------------------------

    async def _keep(self, result: WaveResult) -> WaveResult:
        """Have every batch keep its gateways; one that cannot is set aside like any other.

        A host may refuse that for minutes: the others are watched meanwhile, as before.
        """
        self._enter(Phase.PROMOTING)
        # What lets the wave pass may name some for the first time.
        await self._give_up_what_the_metrics_name()
        await self._signal_batches("end", "keep")
        while True:
            heed_cancellation()
            seen = self._changes
            self._notice_silence()
            if ended := self._failure() or self._harm():
                return ended
            await self._restore_who_failed_alone()
            await self._give_up_what_the_metrics_name()
            if self._watch is None and self._on_trial:
                await self._begin_to_watch()
            if len(self._results) == self._wave.parts and not self._has_changed_since(seen):
                return result
            await workflow.wait_condition(partial(self._has_changed_since, seen))

    async def _signal_batches(self, signal: str, *arguments: object) -> None:
        for number, batch in sorted(self._batches.items()):
            if number not in self._results and not self._closed:
                await sent(partial(batch.signal, signal, args=arguments))

    async def _signal_watch(self, signal: str, *arguments: int) -> None:
        if self._watch is not None and not self._closed:
            await sent(partial(self._watch.signal, signal, args=arguments))

    # --- where the wave is ------------------------------------------------------------

    @property
    def _is_blue_green(self) -> bool:
        return self._order.header.strategy is Strategy.BLUE_GREEN

    @property
    def _decision(self) -> Decision | None:
        if self._seen_by_hosts is not None:
            return self._seen_by_hosts
        heard = self._watch_heard
        if self._is_empty and not self._finds_harm:
            return self._empty
        if heard is None and self._harm_of_a_lost_watch is not None:
            return self._harm_of_a_lost_watch
        if self._is_silent and (heard is None or heard.is_fresh):
            return self._unwatched
        return heard.decision if heard is not None else None

    @property
    def _empty(self) -> Decision:
        out = self._left_out() | self._aside()
        return Decision(
            action=Action.HOLD_FOR_HUMAN,
            verdict=GateVerdict.NOT_ENOUGH_DATA,
            reason=f"no gateway of wave {self._wave.number} runs the release, so nothing shows how it does "
            f"there; {listed(out)}. Roll back, or have {PERSONS_NEEDED} operators promote the wave",
        )

    @property
    def _unwatched(self) -> Decision:
        since = f"since {self._watch_heard.at:%Y-%m-%d %H:%M:%S} UTC" if self._watch_heard else "yet"
        return Decision(
            action=Action.HOLD_FOR_HUMAN,
            verdict=GateVerdict.METRICS_UNAVAILABLE,
            reason=f"the watch over wave {self._wave.number} has not reported {since}; nothing is decided "
            "without it. Check the orchestrator: `penstock doctor`",
        )

    @property
    def _is_watched(self) -> bool:
        """Whether there is a decision that is new enough to act on; harm that was found stays so."""
        heard = self._watch_heard
        if heard is None or self._finds_harm:
            return heard is not None
        return not self._is_silent and heard.looks >= self._fresh_from

    @property
    def _finds_harm(self) -> bool:
        return self._watch_heard is not None and self._watch_heard.decision.action is Action.ROLL_BACK

    @property
    def _all_switched(self) -> bool:
        return len(self._reports) == self._wave.parts and all(r.switched for r in self._reports.values())

    @property
    def _everybody_is_ready(self) -> bool:
        return len(self._reports) == self._wave.parts and all(r.ready for r in self._reports.values())

    @property
    def _moves(self) -> bool:
        return any(report.moves for report in self._reports.values())

    @property
    def _on_trial(self) -> int:
        return sum(report.counts.get("on trial", 0) for report in self._reports.values())

    def _aside(self) -> dict[str, str]:
        found = {name: why for report in self._reports.values() for name, why in report.aside.items()}
        return found | {name: why for result in self._results.values() for name, why in result.aside.items()}

    def _left_out(self) -> dict[str, str]:
        """Return whom operators left out before they were started, each with why."""
        found = {name: why for report in self._reports.values() for name, why in report.left_out.items()}
        ended = (result.left_out.items() for result in self._results.values())
        return found | {name: why for of_result in ended for name, why in of_result}

    def _not_upgraded(self, part: int) -> dict[str, str]:
        """Return which gateways of the part do not run the release, each with why."""
        said = (self._reports.get(part), self._results.get(part))
        return merged(found for one in said if one is not None for found in (one.aside, one.left_out))

    def _untested(self) -> dict[str, str]:
        """Return a few of those that wait for a test which cannot be made."""
        found = {name: why for heard in self._reports.values() for name, why in heard.untested.items()}
        return dict(sorted(found.items())[:NAMED])

    def _refused(self) -> dict[str, str]:
        """Return a few of those whose host refuses the switch."""
        found = {name: why for heard in self._reports.values() for name, why in heard.refused.items()}
        return dict(sorted(found.items())[:NAMED])

    def _rebooted(self) -> tuple[str, ...]:
        """Return a few of those whose trial began anew after a reboot."""
        return tuple(sorted(name for heard in self._reports.values() for name in heard.rebooted)[:NAMED])

    def _lapsed(self) -> tuple[str, ...]:
        """Return a few of those whose lease lapsed unconfirmed, and whose trial began again."""
        return tuple(sorted(name for heard in self._reports.values() for name in heard.lapsed)[:NAMED])

    def _paused(self) -> dict[str, str]:
        """Return a few of those that are on known-good until their trial begins again."""
        found = {name: why for heard in self._reports.values() for name, why in heard.paused.items()}
        return dict(sorted(found.items())[:NAMED])

    @staticmethod
    def _untold_of(found: Mapping[str, str], told: set[str]) -> dict[str, str]:
        """Return who is new since the last report, of the first of a wave: all of them are counted anyway."""
        fresh = sorted((name, why) for name, why in found.items() if name not in told)[: SHOWN - len(told)]
        told.update(name for name, _ in fresh)
        return dict(fresh)

    def _newly_aside(self) -> list[tuple[str, int]]:
        return [
            (name, number)
            for number, report in sorted(self._reports.items())
            for name in sorted({*report.aside, *report.taken_out})
            if name not in self._restoring
        ]

    def _phase_now(self) -> Phase:
        waits = self._decision is not None and self._decision.action in STANDING_STILL
        if self._starts_no_more or (waits and self._all_switched and self._by_time is None):
            return Phase.HELD
        return Phase.OBSERVING if self._all_switched else Phase.SWITCHING

    # --- telling --------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._untold = self._urgent = True

    def _has_changed_since(self, seen: int) -> bool:
        return self._changes > seen

    def _changed(self, *, urgent: bool = False) -> None:
        self._changes += 1
        self._untold = True
        self._urgent |= urgent

    async def _report_changes(self) -> None:
        """Tell the change what is new, in as few signals as the news allows; mere progress of many waits.

        A signal that has arrived at the moment of a cancellation swallows it, and the next would follow.
        """
        while not self._closed and (self._untold or not self._over):
            await workflow.wait_condition(lambda: self._untold or self._over)
            if self._untold and not self._closed:
                await self._tell()
            if pause := report_after(self._order.header.changing, self._told):
                with suppress(TimeoutError):
                    await workflow.wait_condition(lambda: self._urgent or self._over, timeout=pause)

    async def _tell(self) -> None:
        self._untold = self._urgent = False
        self._told += 1
        self._by_time_told = self._by_time
        counts: Counter[str] = Counter()
        for heard in self._reports.values():
            counts.update(heard.counts)
        counts["waiting"] += self._wave.gateways - counts.total()
        report = WaveReport(
            at=workflow.now(),
            beginning=(self._wave.number,),
            number=self._told,
            change=self._order.change,
            wave=self._wave.number,
            phase=self._phase,
            share=self._share or self._wave.shares[0],
            counts={state: count for state, count in sorted(counts.items()) if count},
            gateways=tuple(one for _, part in sorted(self._reports.items()) for one in part.gateways),
            aside=self._untold_of(self._aside(), self._aside_told),
            left_out=self._untold_of(self._left_out(), self._left_out_told),
            decision=self._decision,
            by_time=self._by_time_told,
            moves=self._moves,
            switching=not self._all_switched,
            short=tuple(sorted({why for heard in self._reports.values() for why in heard.short})[:NAMED]),
            silent=tuple(sorted(name for heard in self._reports.values() for name in heard.silent)[:NAMED]),
            untested=self._untested(),
            refused=self._refused(),
            rebooted=self._rebooted(),
            lapsed=self._lapsed(),
            paused=self._paused(),
        )
        await tell(self._order.parent, "report", report)


def has_ended(reason: str) -> Decision:
    """Return the decision when hosts say that more new instances ended than may by themselves."""
    return Decision(
        action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason=f"the new instance has ended: {reason}"
    )


def report_after(changing: int, told: int) -> timedelta:
    """Return how long mere progress of a wave waits after so many reports.

    No gateway makes the histories of its wave and its change long without bound, whatever it does.

    Args:
        changing: How many gateways the plan changes.
        told: How many reports the wave has made.
    """
    every, at_once = IN_LARGE_FLEETS, 0
    if changing <= DETAILED:
        every, at_once = BETWEEN_REPORTS, REPORTS_AT_ONCE
    if told < at_once:
        return timedelta(0)
    return every * (1 << min((told - at_once) // REPORTS_AT_A_PACE, MOST_DOUBLINGS))
