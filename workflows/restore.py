"""Restore: every gateway of its parts back on its own known-good; safe to run any number of times.

It needs no metrics, chat, repository or second person: only the gateways and the plan. Going
back is one step on a host, fence and steer together; evidence and drain begin for each gateway
when it is back, and one that refuses or is silent delays nobody.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from activities.facts import FactActivities, LeftOutQuery, TriesEntry
from activities.failures import epoch_seen, rollout_seen
from activities.instances import Started
from activities.ledger import EventEntry, LedgerActivities, MovedQuery, ReturnEntry
from activities.plans import PartsQuery, PlanActivities
from activities.snapshots import Evidence
from policies.drift import astray, by_hand, spoken, steered_at, taken_off
from policies.model.change import PENSTOCK, Quarantine
from policies.model.fleet import Limits
from policies.model.instance import GatewayState, InstanceState
from policies.model.operation import BREAK_GLASS
from policies.model.placement import NodeLook
from policies.model.plan import ReleaseRef
from policies.model.plan_part import MOST_MEMBERS, Member, PartKey
from policies.model.report import RestoreReport
from policies.model.value import Digest, Name, Packed, Value
from policies.model.verdict import Decision
from policies.placement import befallen
from policies.planning.naming import counted
from policies.rebuilding import is_newer
from workflows import control, steps
from workflows.children import TURN_LASTS, first_named, left_behind, merged, tell
from workflows.cluster import PreparedSlots, look_at_all
from workflows.compensation import to_the_end
from workflows.drain import Drain, DrainOrder
from workflows.failures import code_of, sentence_of, stopped
from workflows.gateway import GatewaySteps
from workflows.identities import return_of
from workflows.snapshot import Snapshot, SnapshotGatewayOrder
from workflows.survey import entries_of

SLOWEST_ROUND = timedelta(minutes=1)
"""Between two rounds on a gateway that has refused for long; the first rounds follow each other quickly."""

ITS_END_SOON = timedelta(seconds=10)
"""Between two looks whether a part that somebody else has begun is over."""

SLOWEST_BEGINNING = timedelta(minutes=10)
"""Between two beginnings of a part that fails by itself: its plan cannot be read, or somebody ended it."""

HEEDED_WITHIN = timedelta(seconds=1)
"""How long a try waits to hear whether its gateway is in quarantine; heard later, that ends the try."""

ASKED_WHETHER_MOVED = 2
"""Times that it is asked whether sessions had moved to a gateway that is not back: after the first try its
batch may not have recorded yet that it was never tried."""

STARTS_WITHIN = timedelta(seconds=3)
"""Who is back within this had power all the time: nothing starts anew so fast."""

STRAGGLERS = 10
"""One in so many gateways of a part may not have answered yet when the next part begins."""

SILENT = 4
"""One in so many may be silent when nobody is waited for any longer than a moment."""

A_MOMENT = timedelta(seconds=1)
"""In which those who are not silent answer, once most of their part have: a lost site is in every part."""

SHOWN_AFTER = timedelta(seconds=3)
"""When the gateways of a part that are back are reported, although others have not answered yet."""

A_PART, SLOWEST_NEWS = timedelta(milliseconds=250), timedelta(minutes=10)
"""Between two reports of a part of a large fleet: so long for each of its parts, and no longer."""

REPORTS_AT_A_PACE = 5
"""Reports of such a part until the next ones take twice as long."""

PARTS_OF_RESTORE = "parts"
"""In the memo of what begins parts: how many there are."""

REPORTED_TOGETHER = "reported-together"
"""Histories without this mark have a report for each gateway of a part, also of fifty at the same moment."""

GIVEN_UP_BEFORE_A_CUT = "given-up-before-a-cut"
"""Histories without this mark did not tell of those who were given up while the others' last try lasted."""

LEFT = "left to reconcile, which tries again"
"""Why a gateway is gone on without that is not back; what keeps it from that follows."""

STARTS_STILL = "its known-good still starts, and it goes back as soon as that serves"
"""Why a gateway is gone on without that a restore of its own brings back."""

RETURN_ENDED = "return ended"
"""The event by which a restore that no change waits for reports that a gateway does not go back."""

MOST_SNAPSHOTS = 10
"""Gateways of one part whose evidence is frozen; more of the same failure prove nothing more."""


class RestoreOrder(Value):
    """Which parts of a plan go back, why, and who hears of it; the rest survives a history that is cut.

    `only` names the one gateway that is meant, `lock` is held by whoever waits for this: a
    restore without it gives way to whatever newer change fences it. After `within` from its own
    beginning, if it is given, what is not back is left to reconcile, which tries it again. With
    `at_once` no more parts than that begin together, and each says when the next one may.
    """

    change: Name
    plan: Digest
    fleet: Name
    reason: str
    keys: tuple[PartKey, ...]
    epoch: int
    limits: Limits
    parts: int = 1
    """Parts that go back in all; the logins that their drains may force are shared among them."""
    before: int = 0
    """Parts of them whose drains begin before this one's."""
    only: Name | None = None
    lets_go: bool = False
    """Whether who is not back at the first try is left to reconcile: others need the fleet's lock."""
    waits_for_moved: bool = False
    """Whether no gateway is waited for whose sessions neither the change nor what it takes back has moved."""
    lock: bool = False
    overrules: bool = False
    """Whether an operator ordered it, so that it takes along gateways steered by break-glass before that."""
    at_once: int | None = None
    listener: str | None = None
    failed: Digest | None = None
    """The release that is gone back from, by digest, when one release is."""
    decision: Decision | None = None
    """The verdict on it, when a verdict sends the gateways back."""
    source: str | None = None
    """Where a known-good comes from that is not on its host any more."""
    back: tuple[str, ...] = ()
    given_up: dict[str, str] = {}
    given_up_in: Packed[dict[str, dict[str, str]]] = {}
    """Who has been given up already of each part, by its path."""
    unmoved: dict[str, str] = {}
    troubles: dict[str, str] = {}
    epochs: dict[str, int] = {}
    """The epoch of each gateway that had to be told a newer one than `epoch`."""
    first_round_over: bool = False
    """Whether those who went back together are looked after; each of the others is, once it is back."""
    pause: timedelta = steps.NEXT_ROUND
    """Between two rounds on a gateway, as long as it had become."""
    began: datetime | None = None
    """When it was decided to go back."""
    begun: datetime | None = None
    """When this part began, whose turn may have come later."""
    within: timedelta | None = None
    last_back: datetime | None = None
    told: int = 0
    members: Packed[tuple[Member, ...]] = ()
    """Its gateways: no run that goes on waits for the ledger to know them."""
    emptied: dict[str, str] = {}
    """The drains of gateways that could not go back at once, by gateway."""
    beginning: tuple[int, ...] = (0,)
    """Which beginning of the restore this is, and of its part: one that fails by itself is begun again."""


class RestoreResult(Value):
    """How many gateways are back, which were given up, and how long it took until the last one was back.

    Of many gateways the first are named; how many more there are is a number beside them.
    """

    back: int
    given_up: dict[str, str] = {}
    more_given_up: int = 0
    departed: dict[str, str] = {}
    """Gateways that the fleet's file does not have any more and that did not go back at the first try."""
    more_departed: int = 0
    unmoved: dict[str, str] = {}
    """Gateways that did not go back at the first try and whose sessions had not been moved."""
    more_unmoved: int = 0
    took: timedelta
    nodes: dict[str, str] = {}
    """What has happened to nodes meanwhile by no order of ours, of the first gateways by name."""

    @property
    def sentence(self) -> str:
        """Return `1 gateway is back` or `7 gateways are back`."""
        return f"{counted(self.back, 'gateway')} {'is' if self.back == 1 else 'are'} back"


@workflow.defn(name="Restore")
class Restore:
    """Go back on all gateways: parts side by side, and those of a large fleet in turns."""

    @workflow.init
    def __init__(self, order: RestoreOrder) -> None:
        self._order = order
        self._members: dict[str, Member] = {}
        self._targets: dict[str, ReleaseRef] = {}
        self._steps: dict[str, GatewaySteps] = {}
        self._slots = PreparedSlots()
        self._back = list(order.back)
        self._troubles = dict(order.troubles)
        self._given_up = dict(order.given_up)
        self._given_up_in = dict(order.given_up_in)
        self._emptied = dict(order.emptied)
        self._unmoved = dict(order.unmoved)
        self._overruled: set[str] = set()
        """Gateways steered by break-glass that an operator has ordered back, or returned, since."""
        self._by_hand: set[str] = set()
        """Gateways that are left as operators steered them by break-glass, back or not."""
        now = workflow.now()
        self._decided = order.began or now
        """When it was decided to go back, by the clock of then, which may have been set back since."""
        self._began = min(self._decided, now)
        before = order.began if order.first_round_over or order.told else None  # as orders of before have it
        self._begun = min(order.begun or before or now, now)
        self._last_back = min(order.last_back or self._began, now)
        self._told = order.told
        self._has_news = self._reports = self._is_urgent = self._is_over = False
        self._telling: asyncio.Task[None] | None = None
        self._answered: set[str] = set()
        self._tried: set[str] = set()
        self._late: set[str] = set()
        self._states: dict[str, GatewayState] = {}
        self._read_back: dict[str, tuple[GatewayState, datetime]] = {}
        """What gateways that are back serve, and when each was asked, until it is written down."""
        self._nodes: dict[str, str] = {}
        self._consulting: dict[str, asyncio.Task[None]] = {}
        """What the ledger is asked and told of gateways beside their tries."""
        self._counting: asyncio.Task[bool] | None = None
        """What the ledger is told of gateways that reconcile tries from now on."""
        self._starting: set[str] = set()
        """Gateways whose known-good is being started."""
        self._heeding: dict[str, asyncio.Task[None]] = {}
        """Whether operators have quarantined gateways that return alone, asked beside their tries."""
        self._first_round_over = order.first_round_over
        self._pause = order.pause
        self._passed_on: set[str] = set()
        self._lets_go = order.lets_go
        self._returning: set[str] = set()
        """Who came back since the last step that takes gateways in again; the next one takes them all."""
        self._returns = False
        self._left = ""
        """Why this leaves what is not back, empty while it does not."""

    @workflow.run
    async def run(self, order: RestoreOrder) -> RestoreResult:
        """Return when every gateway sends its new sessions to its known-good, or was given up by a person."""
        parts = self._restore_parts if len(order.keys) > 1 else self._restore_part
        result, parent = await to_the_end(parts(order)), workflow.info().parent
        if parent is not None and parent.workflow_id == order.listener:
            # Its change may have continued as new since, and waits for this and not for its child.
            await to_the_end(tell(order.listener, "restored", order.change, result))
        return result

    @workflow.signal(name="give_up")
    def give_up(self, names: dict[str, str]) -> None:
        """Go on without these gateways; each with who gave it up and why."""
        known = names.keys() & (self._members or names)
        self._given_up |= {name: names[name] for name in sorted(known) if name not in self._back}

    @workflow.signal(name="give_up_in")
    def give_up_in(self, parts: dict[str, tuple[str, ...]], why: str) -> None:
        """Begin these parts, whenever that is, without these gateways; no part is told of those of others."""
        for path, names in parts.items():
            self._given_up_in[path] = self._given_up_in.get(path, {}) | dict.fromkeys(names, why)

    @workflow.signal(name="leave_all")
    def leave_all(self, why: str) -> None:
        """Go on without every gateway that is not back: another rollback takes all of them."""
        self._left = why
        self.give_up(dict.fromkeys(self._members, why))

    @workflow.signal(name="let_go")
    def let_go(self) -> None:
        """Go on without each gateway that has been tried and is not back: others need the fleet's lock."""
        self._lets_go = True
        tried = self._members if self._first_round_over else self._tried.intersection(self._troubles)
        for name in sorted(tried):
            self._leave_to_reconcile(name)

    @workflow.signal(name="pass_on")
    def pass_on(self, part: str) -> None:
        """Begin the next part: that one has little left to do."""
        self._passed_on.add(part)

    @workflow.query(name="troubles")
    def troubles(self) -> dict[str, str]:
        """Return what keeps each gateway that is not back yet."""
        return dict(self._troubles)

    async def _restore_parts(self, order: RestoreOrder) -> RestoreResult:
        turns = asyncio.Semaphore(order.at_once or len(order.keys))
        parts = [
            order.model_copy(
                update={"keys": (key,), "parts": len(order.keys), "before": before, "given_up_in": {}}
            )
            for before, key in enumerate(order.keys)
        ]
        ended = await asyncio.gather(*[self._restore_in_turn(part, turns) for part in parts])
        results = [result for result in ended if result is not None]
        left = tuple(part.keys[0] for part, result in zip(parts, ended, strict=True) if result is None)
        results += [await self._left_without_a_turn(left)] if left else []
        return RestoreResult(
            back=sum(result.back for result in results),
            **_named("given_up", results),
            **_named("departed", results),
            **_named("unmoved", results),
            took=max(result.took for result in results),
            nodes=first_named(result.nodes for result in results),
        )

    async def _left_without_a_turn(self, keys: tuple[PartKey, ...]) -> RestoreResult:
        """Return that no gateway of these parts is back: this was left before they went back."""
        given_up = merged(self._given_up_in.get(key.path, {}) for key in keys)
        return await left_as_they_are(
            self._order.plan, keys, given_up, f"{self._left}: its turn had not come"
        )

    async def _restore_in_turn(self, part: RestoreOrder, turns: asyncio.Semaphore) -> RestoreResult | None:
        """Begin once it is this part's turn, which is over before its last gateway is back.

        A part that fails by itself is named, and begun again: its gateways serve what is gone back from.
        Once others need the fleet's lock it is begun again at once, and for the last time.

        Returns:
            How the part went back, None where this was left before it did.
        """
        key, pause, begun = part.keys[0], part.pause, 0
        while not self._left:
            last = begun > 0 and self._lets_go
            try:
                async with turns:
                    if self._left:
                        return None
                    begun += 1
                    child = await self._begin(part, begun)
                    await self._turn_of(part, child)
                result = await child
            except WorkflowAlreadyStartedError:
                await workflow.sleep(ITS_END_SOON)  # by a root that somebody ended
            except ChildWorkflowError as error:
                if part.within is not None:
                    raise  # reconcile tries it again
                self._troubles[key.path] = sentence_of(error)
                workflow.logger.error("part %s does not go back: %s", key.path, sentence_of(error))
                await self._report_failed(key, sentence_of(error), begun)
                if last:
                    given_up = self._given_up_in.get(key.path, {})
                    return await left_of_failed(part.plan, part.keys, given_up, error)
                with suppress(TimeoutError):
                    await workflow.wait_condition(lambda: self._lets_go, timeout=pause)
                pause = min(pause * 2, SLOWEST_BEGINNING)
            else:
                self._troubles.pop(key.path, None)
                return result
        return None

    async def _begin(self, part: RestoreOrder, begun: int) -> ChildWorkflowHandle[Any, RestoreResult]:
        """Start a part without the gateways that have been given up until it runs."""
        path = part.keys[0].path
        given_up = dict(self._given_up_in.get(path, {}))
        self._passed_on.discard(path)
        lets_go = self._lets_go
        child = await workflow.start_child_workflow(
            Restore.run,
            part.model_copy(
                update={
                    "given_up": given_up,
                    "lets_go": lets_go,
                    "beginning": (*part.beginning, begun),
                }
            ),
            id=restore_of(workflow.info().workflow_id, part.keys[0]),
            parent_close_policy=ParentClosePolicy.ABANDON,
        )
        if (meanwhile := self._given_up_in.get(path, {})) != given_up:
            await tell(child.id, "give_up", meanwhile)
        if self._lets_go != lets_go:
            await tell(child.id, "let_go")
        return child

    async def _turn_of(self, part: RestoreOrder, child: ChildWorkflowHandle[Any, RestoreResult]) -> None:
        """Wait until the next part may begin; the clock runs here, since this part may not run at all."""
        if part.at_once is None:
            return
        path = part.keys[0].path
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: path in self._passed_on or child.done(), timeout=TURN_LASTS)

    async def _pass_the_turn_on(self, waiting: Collection[str]) -> None:
        """Tell the root that the next part may begin: those who are silent or refuse keep nobody waiting."""
        root = workflow.info().parent
        if root is None:
            return
        most = len(waiting) - len(waiting) // SILENT
        nearly_all = len(waiting) - len(waiting) // STRAGGLERS
        await workflow.wait_condition(lambda: len(self._answered) >= most)
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: len(self._answered) >= nearly_all, timeout=A_MOMENT)
        await tell(root.workflow_id, "pass_on", self._order.keys[0].path)

    async def _restore_part(self, order: RestoreOrder) -> RestoreResult:
        self._given_up |= self._given_up_in.pop(order.keys[0].path, {})
        members = order.members or (await control.read_part(order.plan, order.keys[0])).members
        for member in members:
            name = member.gateway.name
            if member.back is not None and order.only in {None, name}:
                self._members[name], self._targets[name] = member, member.back
                epoch = order.epochs.get(name, order.epoch)
                self._steps[name] = GatewaySteps(member.gateway, order.change, epoch, member.back.digest)
        if not self._left and self._is_late:  # the lock is not theirs any more
            self._left = "left to reconcile: its time was over before its plan could be read"
        if self._left:
            self.give_up(dict.fromkeys(self._members, self._left))
        self._given_up = {name: why for name, why in self._given_up.items() if name in self._members}
        waiting = [name for name in sorted(self._members) if name not in {*self._back, *self._given_up}]
        self._count_tries(waiting)
        going = [asyncio.create_task(self._go_back(name)) for name in waiting]
        looking = asyncio.create_task(look_at_all(self._steps[name].gateway for name in waiting))
        if not self._first_round_over:
            if order.at_once is not None:
                going.append(asyncio.create_task(self._pass_the_turn_on(waiting)))
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._tried >= {*waiting}, timeout=SHOWN_AFTER)
            if self._back and not self._tried >= {*waiting}:
                await self._report()  # of a part with a silent gateway the others are shown as they return
            await workflow.wait_condition(lambda: self._tried >= {*waiting})
            self._first_round_over, together = True, sorted(self._back)
            if self._troubles:  # no try waits for the ledger's answer
                going.append(asyncio.create_task(self._give_up_quarantined(*sorted(self._troubles))))
            await self._report(urgent=True)
            await self._let_the_others_go_back()
            noting = asyncio.create_task(self._note_what_serves(together))
            await looking  # what is drained from here on is taken from its node by an order of ours
            await self._look_after_what_was_left(together, MOST_SNAPSHOTS, order.before)
            await self._return_to_changes(together)
            await noting
        await asyncio.gather(*going)
        self._is_over = True
        await asyncio.gather(*filter(None, (self._telling, self._counting)))
        await self._note_what_has_befallen(await looking)
        if any(name not in {*self._back, *self._given_up} for name in waiting):
            await self._report_who_was_given_up_meanwhile()
            self._go_on_with_a_short_history()
        departed = {name for name in self._given_up if self._members[name].departed}
        unmoved = {name: why for name, why in self._unmoved.items() if name in self._given_up}
        return RestoreResult(
            back=len(self._back),
            given_up={
                name: why
                for name, why in self._given_up.items()
                if name not in departed and name not in unmoved
            },
            unmoved=unmoved,
            departed={name: self._given_up[name] for name in sorted(departed)},
            took=max(timedelta(0), self._last_back - self._began),
            nodes=first_named([self._nodes]),
        )

    def _count_tries(self, names: Collection[str]) -> None:
        """Begin to count the tries of gateways that return alone, now that they have their turn."""
        if not names or self._first_round_over or self._order.within is None:
            return
        entry = TriesEntry(
            fleet=self._order.fleet,
            change=self._order.change,
            gateways={name: self._members[name].drifted for name in names},
        )
        counting = control.note(FactActivities.record_tries, entry, f"tries of {', '.join([*names][:3])}")
        self._counting = asyncio.create_task(counting)

    async def _note_what_has_befallen(self, found: Mapping[str, NodeLook | ActivityError]) -> None:
        """Note what has happened to nodes; who did not come back at once may have lost its power, and has it.

        A cluster takes a minute to notice that, but the node itself tells by another boot. While it is dark
        its cluster has the boot before, also for a run that begins meanwhile with a short history.
        """
        boots = {name: look.boot for name, look in found.items() if isinstance(look, NodeLook)}
        late = [self._steps[name].gateway for name in sorted(self._late & found.keys())]
        said: dict[str, list[str]] = defaultdict(list)
        for looks, states in ((found, self._states), (await look_at_all(late), {})):
            for name, look in looks.items():
                on = self._steps[name].cluster
                if on is not None and isinstance(look, NodeLook):
                    said[name] += befallen(look, on.at, states.get(name), boots.get(name, ""))
        self._nodes = {name: "; ".join(dict.fromkeys(one)) for name, one in said.items() if one}

    async def _let_the_others_go_back(self) -> None:
        """Leave the engine to the parts of a large fleet that still go back; evidence comes after them.

        It comes part by part where those go back in turns: two thousand snapshots are not begun together.
        """
        before = self._order.parts - 1 + (self._order.before if self._order.at_once is not None else 0)
        left = self._began + before * steps.TURN_OF_A_PART - workflow.now()
        if left <= timedelta(0):
            return
        if self._order.at_once is None:
            await workflow.sleep(left)
            return
        with suppress(TimeoutError):  # who is not back is not tried again before a long history is cut
            await workflow.wait_condition(steps.history_is_long, timeout=left)

    # --- one gateway ------------------------------------------------------------------

    async def _go_back(self, name: str) -> None:
        """Try once, and on until it is back; who refuses tries again while others have their first turn."""
        begun = workflow.now()
        if self._first_round_over:  # it was tried before the history was cut
            await self._heed_quarantine(name)
        back = not self._is_given_up(name) and await self._try_unless_given_up(name)
        self._answered.add(name)
        self._tried.add(name)
        if not back or workflow.now() - begun > STARTS_WITHIN:
            self._late.add(name)
        if not back:
            await self._try_until_back(name)
        elif self._first_round_over:
            await self._returned(name)
        if name in self._by_hand and name in self._given_up:
            await self._record_end(name)

    async def _try_once(self, name: str) -> bool:
        """Bring the gateway back in one round; return True when it is back or a newer change has it.

        Whoever ended this restore's change by force has begun a newer one, whose gateways are left to that.
        """
        try:
            await self._bring_back(name)
        except (ActivityError, ApplicationError) as error:
            if code_of(error) == "Fenced":
                if rollout_seen(error) == BREAK_GLASS:
                    return await self._heed_break_glass(name, epoch_seen(error) or 0)
                if not self._order.lock or is_newer(rollout_seen(error), self._order.change):
                    return self._leave(name, sentence_of(error))
                self._steps[name].epoch = max(steps.epoch_now(), (epoch_seen(error) or 0) + 1)
            if code_of(error) == "BeyondHostLimits" and self._steps[name].epoch > steps.epoch_now():
                # Another gateway, or an earlier clock, named the change's epoch: this host is not to blame.
                self._steps[name].epoch = steps.epoch_now()
                return await self._try_once(name)
            self._troubles[name] = sentence_of(error)
            return False
        return self._is_back(name)

    def _is_back(self, name: str) -> bool:
        self._back.append(name)
        self._last_back = workflow.now()
        self._troubles.pop(name, None)
        self._given_up.pop(name, None)
        return True

    def _leave(self, name: str, why: str) -> bool:
        """Try the gateway no more: a newer change has it, or an operator."""
        self._troubles.pop(name, None)
        self._given_up[name] = why
        return True

    async def _heed_break_glass(self, name: str, epoch: int) -> bool:
        """Leave a gateway as an operator steered it on its host; return whether it is tried no more.

        One that is on the release already is back, by no order. Two are ordered back: one that was steered
        before an operator ordered this, by its host's own clock, and one that an operator has returned since.
        As long as neither is certain, the gateway gets no order.
        """
        on, order = self._steps[name], self._order
        try:
            state = await on.observe(steps.LOOK)
            if state.owner != BREAK_GLASS:
                overruled = True  # a newer order came meanwhile, or the fence was only reset
            elif order.overrules:
                since = workflow.now() - self._decided  # below zero after the engine's clock was set back
                overruled = timedelta(0) <= since < state.observed_at - steered_at(state)
            else:
                overruled = await _is_returned(order.fleet, state)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._troubles[name] = sentence_of(error)
            return False
        if overruled:
            again = name in self._overruled
            self._overruled.add(name)
            on.epoch = max(steps.epoch_now(), epoch + 1)
            if not again:
                return await self._try_once(name)
            self._troubles[name] = f"an operator steered it by break-glass at {spoken(steered_at(state))}"
            return False
        self._by_hand.add(name)
        if astray(state, self._targets[name]) is None:
            return self._is_back(name)
        return self._leave(name, by_hand(order.fleet, state))

    async def _try_until_back(self, name: str) -> None:
        """Try again and again, more and more slowly; a person's word ends it, a long history pauses it.

        No try waits for the ledger: what it answers is taken over when it comes.
        The first pause is kept to the end: the first round alone may have made the history long.
        """
        if self._members[name].departed:
            self._given_up.setdefault(name, self._why_not_back(name))
        pause, told, asks, ends = self._order.pause, "", ASKED_WHETHER_MOVED, self._is_given_up
        while not self._is_given_up(name):
            why = self._why_not_back(name)
            if (asks or why != told) and (name not in self._consulting or self._consulting[name].done()):
                consulting = self._consult_the_ledger(name, asks=asks > 0, tells=why != told)
                self._consulting[name] = asyncio.create_task(consulting)
                told, asks = why, max(asks - 1, 0)
            with suppress(TimeoutError):
                await workflow.wait_condition(partial(ends, name), timeout=pause)
            await self._heed_quarantine(name)
            if self._is_given_up(name):
                break
            if self._is_late:
                self._leave_to_reconcile(name)
                break
            pause, ends = min(pause * 2, SLOWEST_ROUND), self._is_left
            self._pause = max(self._pause, pause)
            if steps.history_is_long():
                return
            before = self._troubles.get(name)
            if await self._try_unless_given_up(name):
                await self._returned(name)
                return
            if self._troubles.get(name) != before:
                await self._report()
        if self._is_given_up(name):
            self._troubles.pop(name, None)
            await self._report(urgent=True)
            await self._has_consulted(name)
            await self._record_end(name)

    async def _consult_the_ledger(self, name: str, *, asks: bool, tells: bool) -> None:
        """Go on without a gateway on which no session had moved; write down what keeps any other."""
        is_asked = asks and self._order.waits_for_moved
        if is_asked and not await self._has_moved(name) and name not in self._back:
            why = self._why_not_back(name)
            self._unmoved.setdefault(name, why)
            self._given_up.setdefault(name, why)
        if tells and name in self._troubles and not self._is_given_up(name):
            await self._set_quarantine(name)
        if self._lets_go:
            self._leave_to_reconcile(name)

    async def _has_consulted(self, name: str) -> None:
        """Wait for what the ledger is still asked or told of a gateway that is not tried any more."""
        if (consulting := self._consulting.pop(name, None)) is not None:
            await consulting

    async def _heed_quarantine(self, name: str) -> None:
        """Give up a gateway that returns alone once an operator has quarantined it.

        A rollback of a change receives that as a command, once its first try is over.
        """
        if self._is_given_up(name) or not (self._order.only or self._order.within is not None):
            return
        if name not in self._heeding or self._heeding[name].done():
            self._heeding[name] = asyncio.create_task(self._give_up_quarantined(name))
        with suppress(TimeoutError):
            await workflow.wait_condition(self._heeding[name].done, timeout=HEEDED_WITHIN)

    async def _give_up_quarantined(self, *names: str) -> None:
        """Give up those that operators have quarantined; where the ledger does not answer, none."""
        asked = LeftOutQuery(fleet=self._order.fleet, gateways=names)
        try:
            left_out = await control.ask(FactActivities.find_left_out, asked)
            self.give_up({name: why for name, why in left_out.items() if not self._is_given_up(name)})
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise

    async def _record_end(self, name: str) -> None:
        """Record that the gateway stays as it is, where no change waits for this and records it."""
        if self._order.listener is not None:
            return
        event = EventEntry(
            action=RETURN_ENDED,
            fleet=self._order.fleet,
            subject=f"{self._order.fleet}/{name}",
            sentence=f"penstock stops returning {name} to its known-good: {self._given_up[name]}",
            key=f"{workflow.info().run_id} {RETURN_ENDED} {name}",
        )
        await control.note(LedgerActivities.record_event, event, RETURN_ENDED)

    def _leave_to_reconcile(self, name: str) -> None:
        if name not in self._back:
            self._given_up.setdefault(name, f"{LEFT}: {self._why_not_back(name)}")

    def _why_not_back(self, name: str) -> str:
        return self._troubles.get(name, "it did not go back")

    async def _has_moved(self, name: str) -> bool:
        """Whether sessions have been moved there; where the ledger does not answer, they may have been."""
        order, to = self._order, self._targets[name]
        asked = MovedQuery(change=order.change, fleet=order.fleet, gateway=name, to=to)
        try:
            return await control.ask(LedgerActivities.has_moved, asked)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return True

    async def _report_who_was_given_up_meanwhile(self) -> None:
        """Tell of those who were given up after their last try before a cut: nobody tries them after it."""
        unsaid = self._given_up.keys() & self._troubles.keys()
        if unsaid and workflow.patched(GIVEN_UP_BEFORE_A_CUT):
            for name in unsaid:
                del self._troubles[name]
            await self._report()

    async def _try_unless_given_up(self, name: str) -> bool:
        """Try once; a person's word ends the attempt, too: a silent gateway's lasts half a minute or more."""
        before = self._troubles.get(name)
        attempt = asyncio.create_task(self._try_once(name))
        try:
            await self._until_tried(name, attempt)
        finally:
            attempt.cancel()
        await workflow.wait([attempt])
        back = not attempt.cancelled() and attempt.result()
        if not back and self._is_given_up(name) and before is not None:
            self._troubles[name] = before  # that its attempt was cancelled is no news of the gateway
        return back

    async def _until_tried(self, name: str, attempt: "asyncio.Task[bool]") -> None:
        """Wait for an attempt, or until its gateway is given up; a start that is slow goes on elsewhere."""

        def is_over() -> bool:
            return attempt.done() or self._is_given_up(name)

        within = self._order.within
        await workflow.wait_condition(lambda: is_over() or (within is not None and name in self._starting))
        if within is not None and not is_over():
            with suppress(TimeoutError):
                await workflow.wait_condition(is_over, timeout=within - (workflow.now() - self._begun))
            if not is_over():
                await self._leave_to_its_start(name)

    async def _leave_to_its_start(self, name: str) -> None:
        """Leave a gateway to a return that nothing waits for, until what takes it over fences that off.

        Its known-good takes longer to start than the fleet's lock is kept for a gateway that drifted.
        """
        order = self._order
        alone = RestoreOrder(
            change=order.change,
            plan=order.plan,
            fleet=order.fleet,
            reason=order.reason,
            keys=order.keys,
            only=name,
            epoch=self._steps[name].epoch,
            overrules=order.overrules,
            failed=order.failed,
            decision=order.decision,
            source=order.source,
            limits=order.limits,
        )
        self._given_up.setdefault(name, STARTS_STILL)
        await left_behind(Restore.run, alone, return_of(name, order.change))

    def _is_given_up(self, name: str) -> bool:
        return name in self._given_up

    def _is_left(self, name: str) -> bool:
        """Whether a person gave it up, or the history is cut, before which every gateway is paused."""
        return self._is_given_up(name) or steps.history_is_long()

    @property
    def _is_late(self) -> bool:
        within = self._order.within
        return within is not None and workflow.now() - self._begun >= within

    async def _returned(self, name: str) -> None:
        if name in self._back:
            together = not self._first_round_over
            await self._report()
            if not together:
                await self._note_what_serves([name])
                await self._look_after_what_was_left([name], 1, before=0)
            await self._has_consulted(name)  # or the quarantine would be written after it has ended
            await self._return_to_changes([name])

    async def _bring_back(self, name: str) -> None:
        on, release = self._steps[name], self._targets[name]
        patience = steps.go_back_within(self._order.at_once or self._order.parts)
        asked = workflow.now()
        overrules = self._order.overrules or name in self._overruled
        restored = await on.restore(release, patience, overrules=overrules)
        self._answered.add(name)
        if on.cluster is not None:
            self._states.setdefault(name, restored.state)
        if restored.back:
            self._read_back[name] = (restored.state, asked)
            return
        if on.cluster is not None:  # it may be silent for minutes, and the others' evidence and drains begin
            self._tried.add(name)
        self._starting.add(name)
        try:
            started = await self._start_known_good(name, restored.state)
            asked = workflow.now()
            steering = await on.keep(started.slot, patience)
        except (ActivityError, ApplicationError) as error:
            if code_of(error) != "Fenced" and not is_cancelled_exception(error):
                await self._empty_meanwhile(name, restored.state)
            raise
        finally:
            self._starting.discard(name)
        self._read_back[name] = (started.state.model_copy(update={"steering": steering}), asked)

    async def _start_known_good(self, name: str, before: GatewayState) -> Started:
        """Start the old release again on a gateway where it no longer runs, and probe it before it serves."""
        on, release = self._steps[name], self._targets[name]
        prepared = await on.prepare(self._slots, release, self._order.source or "")
        if prepared is not None:
            await on.stage(release, self._order.source or "", "fetch", prepared)
        try:
            started = await on.start(release, "restart", prepared)
        except ActivityError as error:
            if code_of(error) != "BadInput" or self._order.source is None:
                raise
            # It is not on the host any more: only now does the way back need the repository.
            await on.stage(release, self._order.source, "fetch", prepared)
            started = await on.start(release, "restart", prepared)
        if doubt := await on.doubt_about(started.slot, "probe-known-good"):
            workflow.logger.error("known-good on %s %s", name, doubt)
            serving = before.serving
            if serving is not None and serving.state is InstanceState.RUNNING:
                raise stopped(f"known-good was started on {name} but {doubt}")
        return started

    # --- what was left behind -----------------------------------------------------------

    async def _empty_meanwhile(self, name: str, state: GatewayState) -> None:
        """Drain what runs beside on a gateway that is not back: the fence has ended the drain before.

        It may have the very slot that the gateway waits for.
        """
        kept = {state.steering.serving, state.steering.trial}
        left = [
            one
            for one in state.instances
            if one.state is InstanceState.RUNNING
            and one.slot not in kept
            and one.release not in {None, self._targets[name].digest}
        ]
        named = f"waits-{name}-{self._steps[name].epoch}"
        if left and self._emptied.get(name) != named:
            self._emptied[name] = named
            await self._start_drain([name], before=0, named=named)

    async def _look_after_what_was_left(self, names: list[str], snapshots: int, before: int) -> None:
        """Freeze evidence, then let the new instances empty; both outlive this workflow.

        A gateway that an operator steered back keeps the instance beside: the operator may need it.
        """
        names = [name for name in names if name not in self._by_hand]
        for name in names[:snapshots]:
            await self._start_snapshot(name)
        for name in names:
            if (waited := self._emptied.pop(name, None)) is not None:
                with suppress(FailureError):  # it has just ended
                    await workflow.get_external_workflow_handle(self._drain_of(waited)).cancel()
        if names:
            # Two restores of one millisecond are of one epoch: the other one's drain will do.
            await self._start_drain(names, before, f"back-{names[0]}-{self._steps[names[0]].epoch}")

    async def _start_snapshot(self, name: str) -> None:
        order = self._order
        snapshot = SnapshotGatewayOrder(
            fleet=order.fleet,
            gateway=self._members[name].gateway,
            operation=self._steps[name].operation("snapshot"),
            evidence=Evidence(reason=order.reason, decision=order.decision),
        )
        await left_behind(Snapshot.run, snapshot, f"snapshot/{name}/{order.change}")

    def _drain_of(self, named: str) -> str:
        return f"drain/{self._order.fleet}/{self._order.change}/{named}"

    async def _start_drain(self, names: list[str], before: int, named: str) -> None:
        order = self._order
        drain = DrainOrder(
            change=order.change,
            fleet=order.fleet,
            plan=order.plan,
            key=order.keys[0],
            names=tuple(names),
            epoch=order.epoch,
            epochs={n: self._steps[n].epoch for n in names if self._steps[n].epoch != order.epoch},
            deadline=order.limits.drain_deadline,
            limits=order.limits.drain,
            rate=order.limits.drain.logins_per_minute / order.parts,
            draining=order.parts * MOST_MEMBERS,
            before=before,
            went_back=True,
            goes_back=names[0] in self._emptied,
            failed=order.failed,
            decision=order.decision,
        )
        await left_behind(Drain.run, drain, self._drain_of(named))

    # --- telling ----------------------------------------------------------------------

    async def _report(self, *, urgent: bool = False) -> None:
        """Tell the change of all that is so now; what changes while one report is on its way has one more."""
        self._is_urgent |= urgent
        if not workflow.patched(REPORTED_TOGETHER):
            await self._tell_all()
            return
        self._has_news = True
        if self._reports:
            return
        self._reports = True
        if self._order.at_once is None or self._is_over:
            await self._tell_news()
        else:
            self._telling = asyncio.create_task(self._tell_news())

    async def _tell_news(self) -> None:
        """Report until nothing is new; in a large fleet at a pace, unless it is urgent or the end."""
        try:
            while self._has_news:
                self._has_news = self._is_urgent = False
                await self._tell_all()
                if self._order.at_once is not None:
                    await self._pause_before_the_next_report()
        finally:
            self._reports = False

    async def _pause_before_the_next_report(self) -> None:
        twice = min(self._told // REPORTS_AT_A_PACE, 10)
        pause = min(self._order.parts * A_PART * 2**twice, SLOWEST_NEWS)
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._is_urgent or self._is_over, timeout=pause)

    async def _tell_all(self) -> None:
        self._told += 1
        report = RestoreReport(
            at=workflow.now(),
            beginning=self._order.beginning,
            number=self._told,
            part=self._order.keys[0],
            change=self._order.change,
            reason=self._order.reason,
            names=tuple(sorted(self._back)),
            missing=dict(sorted(self._troubles.items())),
            given_up=self._given_up,
            tried=self._first_round_over,
        )
        await self._say(report)

    async def _report_failed(self, part: PartKey, why: str, begun: int) -> None:
        await self._say(failed_report(self._order, part, why, begun + 1))

    async def _say(self, report: RestoreReport) -> None:
        if self._order.listener is not None:  # going back never depends on whether it is received
            await tell(self._order.listener, "report_restore", report)

    async def _note_what_serves(self, names: list[str]) -> None:
        """Write down what was read back: it is newer than what these gateways were last found to serve."""
        heard = {name: self._read_back.pop(name) for name in names if name in self._read_back}
        states = tuple(state for state, _ in heard.values())
        asked = {name: at for name, (_, at) in heard.items()}
        for rows in entries_of(self._order.fleet, states, {}, asked) if states else ():
            await control.note(FactActivities.record_states, rows, f"states of {', '.join(names[:3])}")

    async def _set_quarantine(self, name: str) -> None:
        entry = Quarantine(
            fleet=self._order.fleet,
            gateway=name,
            reason=self._troubles[name],
            person=PENSTOCK,
            since=workflow.now(),
        )
        await control.note(LedgerActivities.quarantine_gateway, entry, f"quarantine of {name}")

    async def _return_to_changes(self, names: list[str]) -> None:
        """End the quarantine of those who were left out because they had not come back, now or earlier.

        Who comes back while one step is on its way is in the next one, with those of a step that failed.
        """
        self._returning |= {*names}
        if self._returns:
            return
        self._returns = True
        try:
            while self._returning:
                together, self._returning = sorted(self._returning), set()
                if not await self._take_in(together):
                    self._returning |= {*together}
                    return
        finally:
            self._returns = False

    async def _take_in(self, names: list[str]) -> bool:
        if self._counting is not None:  # or they would be back before they were tried
            await self._counting
        entry = ReturnEntry(
            fleet=self._order.fleet,
            gateways=tuple(names),
            person=PENSTOCK,
            reason="it is back on its known-good",
        )
        what = f"return of {', '.join(entry.gateways[:3])}"
        return await control.note(LedgerActivities.return_gateways, entry, what)

    def _go_on_with_a_short_history(self) -> None:
        workflow.continue_as_new(
            self._order.model_copy(
                update={
                    "back": tuple(self._back),
                    "given_up": self._given_up,
                    "lets_go": self._lets_go,
                    "given_up_in": {},
                    "unmoved": self._unmoved,
                    "emptied": self._emptied,
                    "troubles": self._troubles,
                    "epochs": {
                        name: on.epoch for name, on in self._steps.items() if on.epoch != self._order.epoch
                    },
                    "first_round_over": self._first_round_over,
                    "pause": self._pause,
                    "began": self._decided,
                    "begun": self._begun,
                    "last_back": self._last_back,
                    "told": self._told,
                    "members": tuple(self._members.values()),
                }
            )
        )


def failed_report(order: RestoreOrder, part: PartKey, why: str, begun: int) -> RestoreReport:
    """Return in a part's place that it does not go back; what its next beginning says itself is newer."""
    return RestoreReport(
        at=workflow.now(),
        beginning=(*order.beginning, begun),
        part=part,
        change=order.change,
        reason=order.reason,
        failed=why,
    )


async def left_of_failed(
    plan: Digest, keys: tuple[PartKey, ...], given_up: Mapping[str, str], error: ChildWorkflowError
) -> RestoreResult:
    """Return that no gateway of parts that fail by themselves is known to be back: reconcile tries them."""
    why = f"{LEFT}: {sentence_of(error)}"
    try:
        return await left_as_they_are(plan, keys, given_up, why)
    except ActivityError as unread:
        if is_cancelled_exception(unread):
            raise
        left = first_named([{f"part {key.path}": why for key in keys}])
        return RestoreResult(back=0, given_up=left, took=timedelta(0))


async def left_as_they_are(
    plan: Digest, keys: tuple[PartKey, ...], given_up: Mapping[str, str], why: str
) -> RestoreResult:
    """Return that no gateway of these parts of the plan is back, each as it was given up or with that why."""
    found = await control.ask(PlanActivities.find_members, PartsQuery(plan=plan, keys=keys))
    return RestoreResult(
        back=0,
        given_up={name: given_up.get(name, why) for name in found.gateways},
        more_given_up=found.more,
        took=timedelta(0),
    )


async def left_by_hand(fleet: Name, members: Sequence[Member], off: Digest | None = None) -> dict[Name, str]:
    """Return which gateways are left to the operators who steered them on their hosts, each with why.

    None of them is a gateway that does not answer, or of which the ledger does not: its host decides.

    Args:
        fleet: The gateways'.
        members: The gateways, as a plan has them.
        off: A release; a gateway that an operator steered to just that is not left.
    """
    answers = await answers_by_hand(fleet, members, off)
    return {name: why for name, why in answers.items() if why}


async def answers_by_hand(
    fleet: Name, members: Sequence[Member], off: Digest | None = None
) -> dict[Name, str]:
    """Return the same of all gateways that answer, with an empty reason for those that are not left."""
    looks = await asyncio.gather(*[_left_by_hand(fleet, member, off) for member in members])
    return {member.gateway.name: why for member, why in zip(members, looks, strict=True) if why is not None}


async def _left_by_hand(fleet: Name, member: Member, off: Digest | None) -> str | None:
    on = GatewaySteps(member.gateway, "look", 0, member.back.digest if member.back else "")
    try:
        state = await on.observe(steps.LOOK)
        is_left = taken_off(state, off) and not await _is_returned(fleet, state)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        return None
    return by_hand(fleet, state) if is_left else ""


async def _is_returned(fleet: Name, state: GatewayState) -> bool:
    """Whether an operator has returned the gateway since it was steered by break-glass."""
    asked = LeftOutQuery(fleet=fleet, gateways=(state.gateway,))
    since = (await control.ask(FactActivities.find_handed_over, asked)).get(state.gateway)
    return since is not None and since > steered_at(state)


def _named(field: str, results: Sequence[RestoreResult]) -> dict[str, Any]:
    """Return the first gateways of a field of all parts by name, and how many more the parts have."""
    more = f"more_{field}"
    first = first_named(getattr(result, field) for result in results)
    count = sum(len(getattr(result, field)) + getattr(result, more) for result in results)
    return {field: first, more: count - len(first)}


def restores_of(root: str, keys: tuple[PartKey, ...]) -> tuple[str, ...]:
    """Return the ids of the workflows that have the gateways of these parts, when the root has this id."""
    return (root,) if len(keys) == 1 else tuple(restore_of(root, key) for key in keys)


def restore_of(root: str, key: PartKey) -> str:
    """Return the id of the workflow that has one of several parts, when the root has this id."""
    return f"{root}/{key.path}"
