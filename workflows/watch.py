"""The watch over a wave: one slice of the metrics after the other; whoever asked hears what changes.

It has no children, so it continues as new in the middle of a hold of any length.
"""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.ledger import LedgerActivities, VerdictEntry
from activities.observation import ObservationSlice
from activities.watching import WatchActivities, WatchSlice
from policies.model.report import TakenOver, WatchReport
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Action, Basis, Decision, GateVerdict
from policies.votes import basis_of
from workflows import control, steps
from workflows.alarm import Alarm
from workflows.children import tell
from workflows.compensation import heed_cancellation
from workflows.failures import sentence_of

SLICE = timedelta(seconds=60)
SLICE_WHILE_SWITCHING = timedelta(seconds=10)
"""While gateways still switch, whoever joins is looked at from the next slice on."""

BAKE = 0
"""The number under which a promoted change is watched on, as if it were a wave."""

REPORTS_AT_ONCE = 200
"""Changes of the decision that are told at once; a decision that flaps for days is told every ten minutes."""
NO_SOONER = timedelta(minutes=10)

REPEATS_AT_A_PACE = 25
"""Reports of one decision until the time between two of them doubles: its listener's history has room."""

SLOWEST_PACE = 6
"""How often that time doubles: of a decision that stands for a day, a report comes every hour."""

WAITS_FOR_OTHERS = frozenset({Action.HOLD, Action.HOLD_FOR_HUMAN, Action.ROLL_BACK})
"""Decisions that are reported again only with another reason, where time passes none of them.

A hold whose reason stays adds nothing to a wave's history; operators vote on the reason that is shown.
"""


class WatchOrder(Value):
    """Which wave of which plan is watched, and who hears of it; the rest survives a history that is cut."""

    change: Name
    plan: Digest
    wave: int
    listener: str
    run: str
    """The run of the listener that begins it."""
    beginning: tuple[int, ...] = ()
    """Which of the watches that this run begins it is."""
    passed: int = 0
    """The last wave that has passed, where waves that have passed are watched beside the next one."""
    passes_by_time: bool = False
    """Whether time passes any decision there, so that none may be old."""
    carry: str = ""
    complete: bool = False
    restart: bool = False
    state: str = ""
    decision: Decision | None = None
    """The last decision; of a watch that begins, the harm that the watch before it found."""
    window: int = 0
    news: tuple[int, Basis, tuple[str, ...], tuple[str, ...]] | None = None
    """The last decision that was told, in short."""
    told: int = 0
    told_at: datetime | None = None
    told_reason: str = ""
    """The reason that was reported last."""
    read_at: datetime | None = None
    """When metrics were last read; None before the first time."""
    repeats: int = 0
    """Reports that said the same as the one before."""
    asked: bool = False
    """Whether its listener waits for a report, be it news or not."""
    looks: int = 0
    """The last look that its listener has asked for."""
    left_to: TakenOver | None = None
    """The gateways that a later change answers for, which are not watched here."""


@workflow.defn(name="Watch")
class Watch:
    """Fold slices until the listener ends it, and report each decision that is another one."""

    @workflow.init
    def __init__(self, order: WatchOrder) -> None:
        self._order = order
        self._state = order.state
        self._carry = order.carry
        self._complete = order.complete
        self._restart = order.restart
        self._begun = 0
        self._decision = order.decision
        self._window = order.window
        self._news = order.news
        self._told = order.told
        self._told_at = _by_now(order.told_at)
        self._too_old = Alarm()
        """Rings when the last report is too old."""
        self._told_reason = order.told_reason
        self._read_at = _by_now(order.read_at) or workflow.now()
        self._repeats = order.repeats
        self._asked = order.asked
        self._looks_asked_for = order.looks
        self._left_to = order.left_to
        self._slice: workflow.ActivityHandle[ObservationSlice] | None = None
        self._looks = self._looks_before = 0
        self._seen = True

    @workflow.run
    async def run(self, order: WatchOrder) -> None:
        """Watch until this is cancelled, or until nothing is to be watched any more.

        The watch goes on after harm: where operators decide, a hard sign may follow.
        """
        if self._told_at is not None:
            self._too_old.set(self._told_at + self._between_reports - workflow.now())
        while True:
            heed_cancellation()
            begun = self._begun
            if not await self._watch_slice():
                return
            # Not after the pause: what ends it may be followed by a cancellation in the same task.
            heed_cancellation()
            if steps.history_is_long():
                self._go_on_with_a_short_history(order)
            await self._pause(begun)

    @workflow.signal(name="complete")
    def complete(self, window: int = 0) -> None:
        """Begin that window: everybody who is to be watched is on trial now; evidence is kept."""
        self._complete = self._restart = True
        self._window = window
        self._begun += 1

    @workflow.signal(name="look")
    def look(self, number: int = 0) -> None:
        """Look at once, and report what is seen, be it news or not; the report has the look's number."""
        self._asked = True
        self._looks_asked_for = max(self._looks_asked_for, number)
        self._looks += 1

    @workflow.signal(name="leave_to")
    def leave_to(self, taken: TakenOver | None) -> None:
        """Leave gateways to a later change: what a slice under way sees of them counts no more.

        The next slice is reported, since its listener may not have counted the last report.
        """
        if taken != self._left_to:
            self._left_to = taken
            if self._slice is not None:
                self._slice.cancel()
        self.look()

    async def _watch_slice(self) -> bool:
        """Watch a slice; return whether there is anything to watch after it."""
        restart, self._restart, window = self._restart, False, self._window
        self._looks_before = self._looks
        left_to = self._left_to
        self._slice = workflow.start_activity_method(
            WatchActivities.watch_wave,
            WatchSlice(
                change=self._order.change,
                plan=self._order.plan,
                wave=self._order.wave,
                passed=self._order.passed,
                state=self._state,
                carry=self._order.carry,
                complete=self._complete,
                restart=restart,
                slice=SLICE if self._complete else SLICE_WHILE_SWITCHING,
                left_to=left_to,
            ),
            task_queue=steps.CONTROL_QUEUE,
            activity_id=steps.own_id(),
            **steps.WATCH,
        )
        try:
            watched = await self._slice
        except (ActivityError, asyncio.CancelledError) as error:
            self._restart = self._restart or restart
            if is_cancelled_exception(error):
                if left_to != self._left_to:
                    return True  # it is watched anew without the gateways that were taken over
                raise
            self._seen = False
            await self._hear(self._unread_since(sentence_of(error)), window)
            return True
        finally:
            self._slice = None
        if watched.over:
            return False
        if left_to != self._left_to:
            self._restart = self._restart or restart
            return True
        self._state = watched.state
        self._carry = watched.carry
        self._seen = watched.ticks > 0
        if self._seen:
            self._read_at = workflow.now()
            await self._hear(watched.decision, window)
        else:
            await self._hear(self._unread_since(watched.decision.reason) or watched.decision, window)
        return True

    def _unread_since(self, why: str) -> Decision | None:
        """Return the decision when nothing was read for too long, None before; harm that was found stays."""
        if workflow.now() - self._read_at < steps.UNREAD_FOR or self._has_found_harm:
            return None
        return _unread(f"nothing was read since {self._read_at:%Y-%m-%d %H:%M:%S} UTC: {why}")

    @property
    def _has_found_harm(self) -> bool:
        return self._decision is not None and self._decision.action is Action.ROLL_BACK

    async def _hear(self, decision: Decision | None, window: int) -> None:
        """Report the decision where it is news, or where the last report would be too old."""
        if decision is None:
            return
        decision = self._latched(decision)
        self._decision = decision
        news = (window, basis_of(decision), decision.failed, decision.absent)
        if news != self._news and self._may_tell(decision):
            self._news, self._repeats = news, 0
            await self._tell(decision, window)
            await self._write_down(decision)
        elif self._is_to_repeat(decision):
            self._repeats += 1
            await self._tell(decision, window)

    def _latched(self, decision: Decision) -> Decision:
        """Keep harm that was found, also where another version cannot read its evidence and begins anew."""
        if self._decision is None or not self._has_found_harm or decision.action is Action.ROLL_BACK:
            return decision
        return self._decision.model_copy(update=decision.set_aside)

    @property
    def _between_reports(self) -> timedelta:
        doubled: int = 2 ** min(self._repeats // REPEATS_AT_A_PACE, SLOWEST_PACE)
        return steps.UNREAD_FOR / 2 * doubled

    def _fresh_for(self, decision: Decision) -> timedelta | None:
        """Return how long a report counts; one that says that nothing is read does not.

        A slice and the pause after it take two minutes at most; the rest is for a worker that is replaced.
        """
        if workflow.now() - self._read_at >= steps.UNREAD_FOR:
            return timedelta(0)
        return self._between_reports + steps.UNREAD_FOR * 3 / 2 if self._repeats_itself(decision) else None

    def _repeats_itself(self, decision: Decision) -> bool:
        return self._order.passes_by_time or decision.action not in WAITS_FOR_OTHERS

    def _is_to_repeat(self, decision: Decision) -> bool:
        """Whether the last report is too old, or its listener has asked for one before this slice began."""
        if self._asked and self._looks == self._looks_before:
            return True
        return self._too_old.rings and (
            self._repeats_itself(decision) or decision.reason != self._told_reason
        )

    def _may_tell(self, decision: Decision) -> bool:
        harmful = decision.action in {Action.ROLL_BACK, Action.PROMOTE}
        overdue = self._told_at is None or workflow.now() - self._told_at >= NO_SOONER
        return harmful or overdue or self._told < REPORTS_AT_ONCE

    async def _tell(self, decision: Decision, window: int) -> None:
        self._told += 1
        self._told_at = workflow.now()
        self._too_old.set(self._between_reports)
        self._told_reason = decision.reason
        self._asked = self._looks > self._looks_before
        report = WatchReport(
            at=workflow.now(),
            beginning=self._order.beginning,
            number=self._told,
            change=self._order.change,
            run=self._order.run,
            decision=decision,
            fresh_for=self._fresh_for(decision),
            looks=self._looks_asked_for,
            window=window,
            carry=self._carry,
            left_to=self._left_to,
        )
        await tell(self._order.listener, "report_watch", report)  # who is gone ends this by its own end

    async def _write_down(self, decision: Decision) -> None:
        entry = VerdictEntry(
            rollout=self._order.change, wave=self._order.wave, at=workflow.now(), decision=decision
        )
        await control.note(LedgerActivities.record_verdict, entry, "decision")

    async def _pause(self, begun: int) -> None:
        """Pause between two looks while nothing but time, an operator or harm can change the decision.

        The same while the ledger names nobody to look at, since it may be taking no writes, and while nothing
        can be read at all.

        A window that began since that many had ends it.
        """
        goes_on = self._decision is None or self._decision.action in {Action.CONTINUE, Action.EXTEND}
        if goes_on and self._seen:
            return
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._looks > self._looks_before or self._begun > begun, timeout=steps.HELD_PACE
            )

    def _go_on_with_a_short_history(self, order: WatchOrder) -> None:
        workflow.continue_as_new(
            order.model_copy(
                update={
                    "complete": self._complete,
                    "restart": self._restart,
                    "state": self._state,
                    "decision": self._decision,
                    "window": self._window,
                    "news": self._news,
                    "told": self._told,
                    "told_at": self._told_at,
                    "told_reason": self._told_reason,
                    "read_at": self._read_at,
                    "repeats": self._repeats,
                    "asked": self._asked,
                    "looks": self._looks_asked_for,
                    "left_to": self._left_to,
                }
            )
        )


def _by_now(then: datetime | None) -> datetime | None:
    """Return a time of an earlier run as one of this run, whose clock may have been set back since."""
    return None if then is None else min(then, workflow.now())


def _unread(reason: str) -> Decision:
    """Return the decision when metrics are not read, and only a person can mend that.

    That is no verdict on the release: the watch itself fails.
    """
    return Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=reason)


def watch_of(whole: str) -> str:
    """Return the id of the watch over the wave or the bake of that id."""
    return f"{whole}/watch"
