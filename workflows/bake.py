"""The bake: after a promotion the gates go on for the kept time; a rollback is still one decision away."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.facts import FactActivities, StandsQuery, UndoQuery
from activities.ledger import DueBake, EventEntry, LedgerActivities
from activities.plans import GatewaysQuery, PlanActivities
from policies.harm_asked import HarmAsked
from policies.model.change import ChangeKind, ChangeOrder
from policies.model.fleet import Automation
from policies.model.report import TakenOver, WatchReport
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Basis, Decision
from policies.notices.entries import HARM, TO_DECIDE, UNWATCHED
from policies.planning.naming import named
from policies.votes import basis_of_harm
from workflows import control, steps
from workflows.children import left_behind, tell
from workflows.compensation import heed_cancellation
from workflows.failed_alone import Failed, FailedAlone
from workflows.failures import sentence_of
from workflows.identities import bake_of, change_of
from workflows.watch import BAKE, WatchOrder, watch_of
from workflows.watched import Watched, keep_watching

NEXT_CHANGE = "the fleet's next change answers for it"
NOT_PROMOTED = "nothing that it promoted stands any more"

ENDS_WITHIN = 5
"""Looks, each twice as long after the one before, in which a watch that was told to end has ended."""

SLOWEST_TRY = timedelta(seconds=20)
"""Between two tries to get the fleet's lock, which gateways that return alone leave free for longer."""

REPORTS_WITHIN = timedelta(seconds=70)
"""A return of gateways that failed alone ends before that; one that does not report is tried again."""


class BakeOrder(Value):
    """Which promoted change is watched on, for how long, and whether harm acts by itself."""

    change: Name
    plan: Digest
    fleet: Name
    kept: timedelta
    automation: Automation = Automation.ACT
    source: str | None = None
    carry: str = ""
    """What the windows of the waves left: evidence goes on."""
    beside: bool = False
    """Whether this watches an older promotion, beside the bake of a newer one on other gateways."""
    left_to: TakenOver | None = None
    """Gateways for which a later change answers already."""
    not_back: tuple[Name, ...] = ()
    """Gateways that failed alone and were not back when the watch before this one ended."""
    asked: tuple[Basis, ...] = ()
    """The harm about which operators were asked by the watches before this one."""


class BakeResult(Value):
    """How the bake ended."""

    peaceful: bool
    reason: str


@workflow.defn(name="Bake")
class Bake:
    """Watches promoted gateways until the next promotion, or until they go back.

    What an upgrade moves meanwhile is left to that, wave by wave; the others are watched on.
    """

    @workflow.init
    def __init__(self, order: BakeOrder) -> None:
        self._order = order
        self._notices = control.Notices()
        self._watched = Watched(order.fleet, order.change, self._notices, self._is_due)
        self._news = self._is_over = False
        self._older: tuple[str, ...] = ()
        """The watches over older promotions on other gateways."""
        not_back = Failed(waiting=order.not_back, reported=order.not_back)
        self._alone = FailedAlone(order.fleet, order.change, not_back, self._notices)
        self._left_to = order.left_to
        self._returning: str | None = None
        """The key of the change that takes gateways back alone."""
        self._missing: dict[str, str] | None = None
        """Why which of them are not back, once that change has ended."""
        self._ended = False
        self._goes_back = False
        """Whether the change that has ended this goes back."""
        self._next: Digest | None = None
        """The plan of the change that has ended this."""
        self._stands = True
        """Whether anything that the change has promoted, or is promoting, still stands."""
        self._asked = HarmAsked(order.asked)
        self._questions = 0
        """How often this run has asked operators."""

    @workflow.run
    async def run(self, order: BakeOrder) -> BakeResult:
        """Return when the kept time is over, the fleet goes back, or the next promotion is watched.

        The bake begins with the promotion, so it ends, too, where that did not come about.
        """
        here = workflow.info().workflow_id
        if not order.beside:
            await tell(change_of(order.fleet), "bakes")
        asked = WatchOrder(
            change=order.change,
            plan=order.plan,
            wave=BAKE,
            listener=here,
            run=workflow.info().run_id,
            passes_by_time=True,
            complete=True,
            carry=order.carry,
        )
        self._watched.expect()
        watching = asyncio.create_task(self._watch(asked))
        older = asyncio.create_task(self._watch_older_promotions())
        returning = asyncio.create_task(self._alone.keep_trying(self._return_alone, lambda: self._is_over))
        try:
            await self._until_harm_or_peace()
        finally:
            self._is_over = True
            self._watched.end()
            for task in (watching, older, returning):
                task.cancel()
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() and self._notices.are_written)
        if self._is_left or self._harm is not None:
            await self._close_alone()
        if not self._stands:
            await self._end_older(order.change, order.plan)  # reconcile begins them again under this id
            return BakeResult(peaceful=True, reason=NOT_PROMOTED)
        if self._harm is not None:
            return await self._go_back(self._harm)
        if not self._ended:
            return await self._unharmed()
        left = None if self._goes_back else self._harm_that_is_left
        return BakeResult(peaceful=left is None, reason=f"{NEXT_CHANGE}; {left}" if left else NEXT_CHANGE)

    async def _watch(self, asked: WatchOrder) -> None:
        """Watch until this is cancelled, or until nothing that was promoted stands any more."""

        def now() -> WatchOrder:
            return asked.model_copy(update={"left_to": self._left_to})

        await keep_watching(now, watch_of(asked.listener), self._watched, lambda: self._is_over)
        self._stands = self._is_over

    async def _close_alone(self) -> None:
        """Settle the notices of gateways that are not back, but those with which the next watch begins."""
        reported = self._alone.reported
        if self._next == self._order.plan:
            return  # another watch over this promotion goes on, and each notice is its own
        if self._next is None or not reported:
            await self._alone.close(NEXT_CHANGE)
            return
        try:
            asked = GatewaysQuery(plan=self._next, gateways=reported)
            taken = await control.ask(PlanActivities.find_parts, asked)
            due = await control.ask(LedgerActivities.find_due_bakes, self._order.fleet)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return  # the next watch begins with each gateway whose notice stays
        await self._alone.leave(taken, NEXT_CHANGE)
        left = [one.not_back for one in due if one.change == self._order.change]
        await self._alone.leave({*reported}.difference(*left), "reconcile brings it back")

    async def _watch_older_promotions(self) -> None:
        """Watch what was promoted before on other gateways for the rest of its time, as of a ring before."""
        if self._order.beside:
            return
        for due in await control.record(LedgerActivities.find_due_bakes, self._order.fleet):
            child = f"{workflow.info().workflow_id}/{due.change}"
            if due.change == self._order.change:
                # It was an older one beside a newer promotion, of which harm has been found.
                await tell(child, "end", due.change, due.plan)
                continue
            # A wave that has just begun may not be in the ledger yet.
            left_to = due.left_to if self._left_to == self._order.left_to else self._left_to
            rest = due.model_copy(update={"left_to": left_to})
            order = _rest_of(self._order.fleet, rest).model_copy(update={"beside": True})
            self._older = (*self._older, child)
            for attempt in range(ENDS_WITHIN):  # the watch before this one has just told it to end
                if await left_behind(Bake.run, order, child):
                    break
                await workflow.sleep(steps.NEXT_ROUND * 2**attempt)
            if self._left_to not in {left_to, self._order.left_to}:  # it was taken over while that began
                await tell(child, "take_over", self._left_to)

    async def _unharmed(self) -> BakeResult:
        """Return how the kept time ended; what was not watched to its end is not called healthy."""
        reasons = [left] if (left := self._harm_that_is_left) else []
        if self._alone.waiting:
            reasons.append(f"failed, and not back: {named(self._alone.waiting)}")
        if self._watched.blindness is not None:
            blind = f"not judged to the end of {self._order.kept}: {self._watched.blindness}"
            reasons.append(blind)
            if not self._watched.is_blindness_told:
                await self._watched.tell_blindness(UNWATCHED, blind)
        if reasons:
            return BakeResult(peaceful=False, reason="; ".join(reasons))
        return BakeResult(peaceful=True, reason=f"no harm was found within {self._order.kept}")

    async def _until_harm_or_peace(self) -> None:
        """Watch for the kept time; a gateway that fails alone meanwhile returns alone, in a task of its own.

        Harm that is only measured is reported once for each gate until it is over, operators decide about it,
        and the watch goes on.
        """
        until = workflow.now() + self._order.kept
        while not self._is_left and self._harm is None and workflow.now() < until:
            heed_cancellation()
            self._news = False
            await self._watched.notice_blindness()
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._is_left or self._news or self._is_to_propose,
                    timeout=max(timedelta(0), until - workflow.now()),
                )
            if self._is_to_propose and self._found_harm is not None:
                harm = self._found_harm
                self._asked.add(harm)  # it may be over before that is written
                if await self._propose_to_go_back(harm):
                    self._questions += 1
                else:
                    self._asked.drop(harm)

    def _is_due(self) -> None:
        self._news = True

    # --- what others report ------------------------------------------------------------

    @workflow.signal(name="take_over")
    async def take_over(self, taken: TakenOver) -> None:
        """Leave gateways to an upgrade, whose wave begins; the others are watched on."""
        self._left_to = taken
        self._alone.wake()
        await tell(watch_of(workflow.info().workflow_id), "leave_to", taken)
        for older in self._older:
            await tell(older, "take_over", taken)

    @workflow.signal(name="end")
    async def end(
        self, after: str | None = None, plan: Digest | None = None, goes_back: bool = False
    ) -> None:
        """End the bake: that change goes back, or begins a watch of its own; an unnamed one ends nothing.

        Harm that was found outlasts a change that does not go back: it has to give way.
        """
        if after is not None and (goes_back or self._harm is None):
            self._ended, self._goes_back, self._next = True, goes_back, plan
        await self._end_older(after, plan, goes_back=goes_back)

    async def _end_older(self, after: str | None, plan: Digest | None, *, goes_back: bool = False) -> None:
        for older in self._older:
            await tell(older, "end", after, plan, goes_back)

    @workflow.signal(name="withdrawn")
    def withdrawn(self, changes: tuple[str, ...]) -> None:
        """End the bake where it watches one of these changes, which died and were not promoted."""
        if self._order.change in changes:
            self._stands = False
            self._alone.forget()

    @workflow.signal(name="report_watch")
    async def report_watch(self, report: WatchReport) -> None:
        """Take over a decision of the watch; one about gateways that were taken over since is void.

        So is what the watch of an earlier promotion says, which may outlive its bake by a moment.
        """
        if report.change != self._order.change:
            return
        if report.left_to != self._left_to:
            await tell(watch_of(workflow.info().workflow_id), "leave_to", self._left_to)
            return
        if self._watched.hear(report):
            self._asked.see(report.decision, (report.run, report.beginning))
            self._news = True
        self._alone.hear(self._watched.failed)

    @workflow.signal(name="returned")
    def returned(self, key: str, missing: dict[str, str], tried: bool) -> None:
        """Take over how a return of gateways that failed alone has ended, or why it does not begin."""
        if key == self._returning:
            self._missing = missing
            if missing and tried:
                self._alone.rest()

    @property
    def _harm(self) -> Decision | None:
        """The harm for which the fleet goes back by itself: a hard sign does, however little is automatic."""
        return self._watched.harm(self._order.automation)

    @property
    def _is_left(self) -> bool:
        """Whether nothing is left for this bake to do; the last gateways may still be on their way back."""
        return self._ended or (not self._stands and not self._alone.waiting)

    @property
    def _found_harm(self) -> Decision | None:
        return self._watched.found_harm

    @property
    def _harm_that_is_left(self) -> str | None:
        """The harm that was found and after which no operator went back, None without any."""
        harm = self._watched.last_harm
        if harm is None:
            return None
        seen = "is still seen" if self._found_harm is not None else "is not seen any more"
        return f"harm was found that {seen}, and no rollback followed: {harm.reason}"

    @property
    def _is_to_propose(self) -> bool:
        if self._found_harm is None or self._harm is not None:
            return False
        return self._asked.is_news(self._found_harm)

    async def _propose_to_go_back(self, decision: Decision) -> bool:
        """Ask an operator to decide; return whether that is written down."""
        order = self._order
        entry = EventEntry(
            action=HARM,
            fleet=order.fleet,
            subject=f"{order.fleet}/{order.change}",
            sentence=f"{decision.reason}{TO_DECIDE}",
            basis=basis_of_harm(decision),
            key=f"{workflow.info().run_id} harm {self._questions}",
        )
        return await control.note(LedgerActivities.record_event, entry, entry.action)

    async def _return_alone(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Take these gateways to what they had before; return why which of them are not there.

        They are planned anew at each try: an operator may have quarantined one meanwhile, and the promotion
        may still be writing that another has been moved.
        """
        asked = UndoQuery(
            fleet=self._order.fleet, change=self._order.change, gateways=names, left_to=self._left_to
        )
        try:
            found = await control.ask(FactActivities.plan_undo, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return dict.fromkeys(names, sentence_of(error))
        await self._alone.leave(found.taken, NEXT_CHANGE)
        known = {*found.settled, *found.gateways, *found.taken}
        missing = dict.fromkeys({*names} - known, "") | found.left_out
        if found.plan is not None:
            missing |= await self._run_return(found.plan, found.gateways)
        return missing

    async def _run_return(self, plan: Digest, names: tuple[str, ...]) -> Mapping[str, str]:
        """Have a change take gateways back; return why which of them are not, once it has ended.

        A change that has the fleet's lock lets it in where its own plan does not change them.
        """
        key = self._returning = str(workflow.uuid4())
        self._missing = None
        order = self._way_back(plan, f"{named(names)} failed after the promotion", key).model_copy(
            update={"bakes_on": True, "alone": names, "listener": workflow.info().workflow_id}
        )
        begins = await self._begins(order) or await tell(change_of(self._order.fleet), "let_in", order)
        if not begins:
            return dict.fromkeys(names, "a change of the fleet has just ended")
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._missing is not None, timeout=REPORTS_WITHIN)
        if self._missing is None:
            return dict.fromkeys(names, f"its return has not ended within {REPORTS_WITHIN.seconds} s")
        return self._missing

    @staticmethod
    async def _pause(length: timedelta, ends: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            await workflow.wait_condition(ends, timeout=length)

    async def _go_back(self, decision: Decision) -> BakeResult:
        """Start the fleet's next change, with what stands of the promoted plan: its known-good of before."""
        if not await self._start(decision.reason) and self._stands:
            await self._propose_to_go_back(decision)
        return BakeResult(peaceful=False, reason=decision.reason)

    async def _plan_of_what_stands(self) -> Digest | None:
        """Return the plan by which this promotion goes back, without gateways that later changes have moved.

        Where the ledger does not answer, all of them go back.
        """
        bake = self._order
        asked = StandsQuery(fleet=bake.fleet, change=bake.change, plan=bake.plan)
        try:
            plan = await control.ask(FactActivities.plan_what_stands, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning(
                "%s is taken back as it was promoted: %s", bake.change, sentence_of(error)
            )
            return bake.plan
        self._stands = self._stands and plan is not None
        return plan

    async def _start(self, reason: str) -> bool:
        """Start a change that goes back; False when another change has come first."""
        key, pause = str(workflow.uuid4()), steps.NEXT_ROUND
        while not self._ended and self._stands:
            plan = await self._plan_of_what_stands()
            if plan is None:
                return False
            if await self._begins(self._way_back(plan, reason, key)):
                return True
            # The change that was promoted may still be writing its last lines; any other change gives way.
            promoted = self._order.change
            await tell(change_of(self._order.fleet), "harm", f"{promoted}: {reason}", promoted)
            await self._pause(pause, lambda: self._ended or not self._stands)
            pause = min(pause * 2, SLOWEST_TRY)
        return False

    @staticmethod
    async def _begins(order: ChangeOrder) -> bool:
        """Start a change, by name: a change starts the bake, too, and imports go one way."""
        return await left_behind("Change", {"order": order.model_dump(mode="json")}, change_of(order.fleet))

    def _way_back(self, plan: Digest, reason: str, key: str) -> ChangeOrder:
        return ChangeOrder(
            fleet=self._order.fleet,
            kind=ChangeKind.GO_BACK,
            plan=plan,
            source=self._order.source,
            reason=reason,
            cause=self._order.change,
            key=key,
        )


async def watch_what_stands(fleet: str) -> None:
    """Watch on over the promotions that stand, as soon as the watch that was told to end has ended."""
    for attempt in range(ENDS_WITHIN):
        if await bake_again(fleet):
            return
        await workflow.sleep(steps.NEXT_ROUND * 2**attempt)


async def bake_again(fleet: str) -> bool:
    """Watch the promotions that stand for the rest of their time; nothing happens where these are watched.

    A ledger that does not answer now delays it: reconcile does the same every minute.

    Returns:
        Whether that has begun, or nothing is to be watched.
    """
    try:
        due = await control.ask(LedgerActivities.find_due_bakes, fleet)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("the bake of %s does not go on yet: %s", fleet, sentence_of(error))
        return False
    return not due or await left_behind(Bake.run, _rest_of(fleet, due[0]), bake_of(fleet))


def _rest_of(fleet: str, due: DueBake) -> BakeOrder:
    return BakeOrder(
        change=due.change,
        plan=due.plan,
        fleet=fleet,
        kept=due.left,
        automation=due.automation,
        source=due.source,
        left_to=due.left_to,
        not_back=due.not_back,
        asked=due.asked,
    )
