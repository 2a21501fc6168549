"""A change: one thing done to a fleet; its workflow id is the fleet's lock.

Upgrades, going back, the first installation and reloads are kinds of one story: it takes
commands, runs wave after wave, promotes, and makes up for its own failures. It continues as
new between waves, while one waits to begin, and between promoted parts: children that a cut
ends there only look, and are begun again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

from activities.admission import AdmitOrder, ReleaseActivities
from activities.facts import FactActivities, LeftAlone, MissedQuery, Repeat, ReturnQuery
from activities.ledger import BakesQuery, EventEntry, LedgerActivities, OthersEntry
from activities.normality import NormalityActivities, NormalityOrder, unusual
from activities.plans import GatewaysQuery, PartEntry, PlanActivities
from policies.model.change import (
    MOVES_NOBODY,
    NOT_ASKED,
    PENSTOCK,
    PENSTOCK_WATCH,
    RELOADS,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    Outcome,
)
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import ChangeEnded
from policies.model.fleet import Automation, RemovedUsers
from policies.model.offer import Refusal
from policies.model.plan import ReleaseRef
from policies.model.plan_part import PartKey, PlanHeader
from policies.model.report import RestoreReport, TakenOver, WatchReport, WaveReport
from policies.model.status import ChangeStatus
from policies.model.value import Digest, Name, Packed, Value, sentence
from policies.model.verdict import Decision
from policies.model.way_back import Confirmation
from policies.model.windows import WindowAnswer
from policies.placement import with_befallen
from policies.planning.naming import named
from policies.status.story import Left, Story
from policies.status.told import NAMED, Told, listed, not_back
from workflows import control, steps
from workflows.adopt import Adopt, AdoptionOrder, Adoptions
from workflows.bake import Bake, BakeOrder, bake_again, watch_what_stands
from workflows.children import (
    FINISHED_WITHIN,
    PARTS_AT_ONCE,
    first_named,
    guarded,
    left_behind,
    merged,
    sent,
    tell,
    tell_all,
)
from workflows.commands import Receipts, conflict
from workflows.compensation import to_the_end
from workflows.drain import start_drains_of
from workflows.failures import code_of, sentence_of, stopped
from workflows.identities import bake_of, beside, end_bake, withdraw_bake
from workflows.install import Install, Installed, InstallOrder
from workflows.last_look import LastLook, LastLookOrder
from workflows.passed import PassedChange, PassedSoFar, PassedWaves
from workflows.preflight import Preflight, PreflightOrder
from workflows.reload import Reload, ReloadOrder, ReloadResult
from workflows.restore import (
    PARTS_OF_RESTORE,
    SLOWEST_BEGINNING,
    Restore,
    RestoreOrder,
    RestoreResult,
    failed_report,
    left_by_hand,
    left_of_failed,
    restore_of,
    restores_of,
)
from workflows.story_record import StoryRecord
from workflows.survey import Survey, SurveyOrder
from workflows.wave import Wave, WaveOrder, WaveResult
from workflows.wave_window import WaveWindow

CUT_EARLY = "cut-early"
"""Changes of before continue as new only once the engine suggests it, and never while they promote."""

RESTORED_IN_TURNS = "restored-in-turns"
"""Changes of before had all parts go back together, and told each whom a person gave up."""

REASON_OF_EACH = 100
"""Bytes that each gateway of many keeps of why it was given up; the record has the whole reason."""

REASON_ALONE = 250
"""Characters of why a gateway is not back that failed alone: the watch gets those of 500 in one message."""

ANY_PART = ""
"""In place of a part's path: of the few gateways here the parts are not known."""

RESTORES_STILL = timedelta(minutes=1)
"""Between two looks whether a restore that an earlier run of its change began still runs."""

ALONE_WITHIN = timedelta(seconds=30)
"""How long gateways that return by themselves are tried; reconcile tries them again."""

SURVEYED_WITHIN = timedelta(seconds=25)
"""How long they wait for the survey of their fleet; a gateway that has not answered by then is silent."""

ALONE_IN_ALL = timedelta(seconds=50)
"""How long their return may keep the fleet's lock, a ledger or an engine that does not answer included."""

ENDS_WITHIN = timedelta(seconds=1.5)
"""How long each of its last steps may take once it is late or a rollback waits; reconcile repeats them."""

KEPT_FOR = timedelta(seconds=3)
"""How long an operator's order to let a change in is kept; the service waits five seconds for its name."""

REPORTED_WITHIN = 2 * FINISHED_WITHIN
"""How long an installation or adoption that was cut short has to report; a rollback waits for it."""

DURING_PROMOTION = "asked to go back during its promotion"
"""Why an upgrade goes back that was writing its promotion, where nobody else says why."""

T = TypeVar("T")


class Restoring(Value):
    """A restore that goes on while the history of its change is cut."""

    order: RestoreOrder
    left: Left
    asked: Command | None = None
    """Whose rollback it is, None where penstock goes back by itself."""


class Continued(Value):
    """What a change carries over between two waves, two parts that it promotes, or amid its restore."""

    name: str
    header: PlanHeader | None = None
    """Its plan: no run is without, however long the ledger is away when it begins."""
    epoch: int
    unable: tuple[str, ...] = ()
    """Gateways that could not change, or not go back, when all were asked; each is asked in its turn."""
    passed: int
    promoted: int = 0
    """Parts that are promoted."""
    told: Told
    written: int = 0
    """Events of the story that are in the ledger."""
    receipts: dict[str, tuple[str, CommandReceipt]]
    decision: Decision | None = None
    aside: dict[str, str] = {}
    aside_in: Packed[dict[str, tuple[str, ...]]] = {}
    carry: str = ""
    unproven: str = ""
    """Who promoted a wave without proof, against what."""
    restoring: Restoring | None = None
    passed_waves: PassedSoFar = PassedSoFar()
    is_to_be_checked: bool = False
    """Whether another change was let in since the fleet was checked."""


class ChangeRun(Value):
    """A change's order, and where it goes on when its history was cut."""

    order: ChangeOrder
    continued: Continued | None = None


@workflow.defn(name="Change")
class Change:
    """From the first check to the last word; whatever ends a wave badly, the touched gateways go back."""

    @workflow.init
    def __init__(self, run: ChangeRun) -> None:
        continued = run.continued
        self._order = run.order
        self._name = continued.name if continued else ""
        self._epoch, self._unable = (continued.epoch, continued.unable) if continued else (0, ())
        self._passed = continued.passed if continued else 0
        self._promoted = continued.promoted if continued else 0
        self._decision = continued.decision if continued else None
        self._aside = dict(continued.aside) if continued else {}
        """Why gateways do not run the release, of the first of them by name."""
        self._aside_in = dict(continued.aside_in) if continued else {}
        """All of these gateways, by the path of their part: no part is told of those of the others."""
        self._carry = continued.carry if continued else ""
        self._unproven = continued.unproven if continued else ""
        restoring = continued.restoring if continued else None
        self._story = Story(
            run.order,
            workflow.now(),
            continued.told if continued else None,
            restoring.left if restoring else None,
        )
        self._record = StoryRecord(lambda: self._order, self._story, continued.written if continued else 0)
        self._receipts = Receipts(continued.receipts if continued else None)
        self._header: PlanHeader | None = continued.header if continued else None
        self._story.know(self._name, self._header)
        self._wave: ChildWorkflowHandle[Wave, WaveResult] | None = None
        self._restoring: tuple[str, ...] = ()
        self._begins_parts: str | None = None
        self._answer: Command | None = None
        self._asked_back = restoring.asked if restoring else None
        self._moving_back: asyncio.Task[None] | None = None
        self._restored: RestoreResult | None = None
        self._began = workflow.now()
        self._harmful: str | None = None
        self._has_begun = self._passed > 0 or restoring is not None
        """Whether an upgrade has begun its first wave: from then on it answers for what it touches."""
        self._window = WaveWindow(self._story, self._obey)
        self._lets_in = False
        """Whether this only waits, before a wave, so that others need not wait for it."""
        self._let_in: str | None = None
        """The key of the change that was let in and has not ended."""
        self._is_over = False
        """Whether all is written down, so that nothing else has a reason to keep the fleet's lock."""
        self._is_to_be_checked = continued.is_to_be_checked if continued else False
        self._keeps_bakes_off = False
        """Whether what was promoted goes back and is not watched any more, until known-good has moved."""
        self._without = ""
        """Which gateways the rollback went on without, as the end of its reason."""
        self._passed_waves = PassedWaves(
            run.order.fleet, self._name, continued.passed_waves if continued else None
        )
        self._telling = asyncio.Lock()
        self._admitting = asyncio.Lock()
        self._untold: list[Command] = []
        self._lets_go = restoring.order.lets_go if restoring else False
        """Whether the way back goes on without who is silent or refuses: others need the fleet's lock."""
        if restoring is not None:  # what arrives in the first task of this run is for them, too
            self._know_restores(restoring.order.keys)

    @workflow.run
    async def run(self, run: ChangeRun) -> ChangeResult:
        """Leave the fleet as the order wants it, or exactly as it was found."""
        recording = asyncio.create_task(self._record.keep())
        if self._order.bakes_on:
            return await self._run_alone(run, recording)
        try:
            result = await self._run(run)
        except (asyncio.CancelledError, FailureError) as error:
            result = await to_the_end(self._make_up_for(error))
        result = await to_the_end(self._close(result))
        self._is_over = True
        await to_the_end(
            workflow.wait_condition(lambda: workflow.all_handlers_finished() and self._window.is_quiet)
        )
        self._record.end()
        await to_the_end(recording)
        await to_the_end(workflow.wait_condition(workflow.all_handlers_finished))
        return result

    async def _run_alone(self, run: ChangeRun, recording: asyncio.Task[None]) -> ChangeResult:
        """Return single gateways within a bound; a rollback of the fleet ends that at once.

        What is cut short here is left to reconcile: nothing that takes longer keeps the fleet's lock.
        """
        until = workflow.now() + ALONE_IN_ALL
        work = asyncio.create_task(self._run(run))
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: work.done() or self._is_stopped, timeout=ALONE_IN_ALL)
        if not work.done():
            why = "left to the rollback of the whole fleet" if self._is_stopped else "left to reconcile"
            why = f"left to {self._asked_back.person}'s rollback" if self._asked_back else why
            # The root first: a part that ends would let the next one begin, without the lock.
            for restore in (*filter(None, (self._begins_parts,)), *self._restoring):
                await tell(restore, "leave_all", why)
            await self._is_soon(work.done, until)
        result = self._alone_result(work)
        closing = asyncio.create_task(self._close(result))
        if not await self._is_soon(closing.done, until):
            self._story.end(result, workflow.now())
        self._is_over = True
        self._record.end()
        await self._is_soon(recording.done, until)
        await self._is_soon(workflow.all_handlers_finished, until)
        await _report_return(self._order, self._not_back_alone(result), tried=True)
        await self._is_soon(workflow.all_handlers_finished, until)
        return result

    def _not_back_alone(self, result: ChangeResult) -> dict[Name, str]:
        """Return why each gateway is not back that no restore has reported as back.

        The result names only the first of many, and may be that of a run that was cut short.
        """
        known = merged(self._story.given_up.values()) | result.incomplete
        missing = {*self._order.alone} - self._story.back
        return {name: sentence(known.get(name, result.reason), REASON_ALONE) for name in sorted(missing)}

    async def _is_soon(self, is_so: Callable[[], bool], until: datetime) -> bool:
        """Wait for it until then, or for a moment where a rollback waits; return whether it is so."""
        left = timedelta(0) if self._is_stopped else until - workflow.now()
        with suppress(TimeoutError):
            await workflow.wait_condition(is_so, timeout=max(ENDS_WITHIN, left))
        return is_so()

    def _alone_result(self, work: asyncio.Task[ChangeResult]) -> ChangeResult:
        """Return how the return of single gateways ended; what it did not finish is tried again."""
        if not work.done():
            cut = "a rollback takes them along" if self._is_stopped else "it took too long"
            return self._result(Outcome.ABORTED, f"{cut}; what is not back is tried again within a minute")
        try:
            return work.result()
        except (asyncio.CancelledError, FailureError) as error:
            return self._result(Outcome.ABORTED, f"{sentence_of(error)}; it is tried again within a minute")

    async def _run(self, run: ChangeRun) -> ChangeResult:  # noqa: PLR0911 - a kind a case
        if run.continued is None:
            if not await self._is_needed():
                return self._not_needed()
            await self._open()
        elif run.continued.restoring is not None:
            return await to_the_end(self._go_on_restoring(run.continued.restoring.order))
        else:
            await self._unless_stopped(self._refuse_a_repeated_run)
        match self._order.kind:
            case ChangeKind.UPGRADE:
                return await self._upgrade()
            case ChangeKind.GO_BACK:
                return await self._return()
            case ChangeKind.INSTALL:
                return await self._install()
            case ChangeKind.ADOPT:
                return await self._adopt()
            case ChangeKind.RELOAD | ChangeKind.CONFIGURE:
                return await self._reload()

    # --- what people say ---------------------------------------------------------------

    @workflow.query(name="status")
    def status(self) -> ChangeStatus:
        """Say what is happening, to how many, why, what comes next and what can be done."""
        return self._story.status()

    @workflow.update(name="command")
    async def command(self, command: Command) -> CommandReceipt:
        """Carry out a person's command once, however often it arrives."""
        return await self._obey(command)

    @command.validator
    def _command_makes_sense(self, command: Command) -> None:
        self._receipts.refuse_other_content(command)
        if self._receipts.of(command) is None and (refusal := self._refusal_of(command)):
            raise conflict(refusal.sentence, *refusal.next)

    def _refusal_of(self, command: Command) -> Refusal | None:
        """Return why the command makes no sense now, or to this change; None when it does."""
        if not command.is_safe and command.run != workflow.info().first_execution_run_id:
            return Refusal(sentence=f"it was said to another change of {self._order.fleet}")
        return self._story.refusal_of(command)

    @workflow.signal(name="command_fallback")
    async def command_fallback(self, command: Command) -> None:
        """Take the same command by the road that is durable while no worker is up.

        Nobody waits for its answer, so a refusal is told and written down. An abort that comes after
        sessions have moved is a rollback: whoever stored it saw that none had.
        """
        if command.kind is CommandKind.ABORT and self._story.sessions_moved:
            command = command.model_copy(update={"kind": CommandKind.ROLL_BACK})
        refusal = None if self._receipts.of(command) else self._refusal_of(command)
        if refusal is None:
            await self._obey(command)
            return
        action = f"{command.kind.replace('_', ' ')} refused"
        self._story.note(f"{command.person}: {action}: {refusal}", workflow.now())
        await self._write_down(action, f"{command.reason}: {refusal}", command.person, command.id)

    @workflow.signal(name="harm")
    async def harm(self, reason: str, promoted: str) -> None:
        """Give way to the bake, which found harm in what that change promoted: that goes back first.

        A change that has touched nothing ends at once, whatever it waits for. An upgrade under way goes back,
        also the promoted one itself as long as it writes its promotion.
        """
        if promoted != self._name:
            self._harmful = reason
            await self._let_go()
        if not self._has_begun or self._asked_back is not None or self._story.goes_back or self._is_over:
            return
        why = f"harm was found in what it promotes: {reason}" if promoted == self._name else _harm(reason)
        await self._obey(Command(id="harm", kind=CommandKind.ROLL_BACK, person=PENSTOCK, reason=why))

    @workflow.signal(name="bakes")
    async def bakes(self) -> None:
        """End a watch that has begun over what goes back: reconcile found it due before known-good moved."""
        if self._keeps_bakes_off:
            await end_bake(self._order.fleet, self._name, self._plan.digest, goes_back=True)

    async def _let_go(self) -> None:
        """Give the fleet's lock up once each gateway that goes back has been tried: others have to go back.

        Who is silent or refuses is left to reconcile.
        """
        self._lets_go = True
        # What begins parts hears first, so that no part begins without.
        await tell_all((*filter(None, (self._begins_parts,)), *self._restoring), "let_go")

    @workflow.update(name="give_way")
    async def give_way(self, person: str, reason: str, is_rollback: bool = False) -> str:
        """Give the fleet's lock up if this only waits for gateways; return that in a sentence.

        So does an upgrade that has not begun its first wave, for a rollback.
        """
        if is_rollback and self._order.kind is ChangeKind.UPGRADE and not self._has_begun:
            command = Command(id="give way", kind=CommandKind.ROLL_BACK, person=person, reason=reason)
            return (await self._obey(command)).sentence
        if not self._only_waits:
            return ""
        sentence = self._story.give_way(person, reason, workflow.now())
        await self._let_go()
        await self._write_down("rollback ended", f"{reason}: {sentence}", person)
        return sentence

    @property
    def _only_waits(self) -> bool:
        """Whether a way back is over but for gateways that are silent or refuse, known-good included."""
        moved = self._moving_back is None or self._moving_back.done()
        return self._story.only_waits and moved and not self._order.bakes_on

    @workflow.signal(name="let_in")
    async def let_in(self, order: ChangeOrder) -> None:
        """Run another change beside this one, which begins its next wave after that has ended.

        It moves no known-good while this one only waits, and ends as soon as this one goes back. Or it takes
        back gateways that failed alone and are not in the plan, whatever this one does. Neither outlasts it.
        """
        if order.alone:
            if why := await self._keeps_out(order):
                await _report_return(order, dict.fromkeys(order.alone, why), tried=False)
                return
        elif (admitted := await self._admitted(order)) is None:
            return
        else:
            order, self._is_to_be_checked = admitted, True
        waits_for_gateways = self._only_waits

        def ends_it() -> bool:
            goes_on = order.alone or not (self._lets_go if waits_for_gateways else self._waits_for_no_guest)
            return self._is_over or not goes_on

        self._story.note(f"lets in meanwhile: {order.reason}", workflow.now())
        try:
            guest = await guarded(
                Change.run,
                ChangeRun(order=order.model_copy(update={"beside": self._name})),
                beside(workflow.info().workflow_id),
            )
            await workflow.wait_condition(lambda: guest.done() or ends_it())
            if not guest.done():
                why = f"{self._name} {'has ended' if self._is_over else 'goes back'}"
                ends = Command(id="let in", kind=CommandKind.ROLL_BACK, person=PENSTOCK, reason=why)
                await tell(guest.id, "command_fallback", ends)
            with suppress(FailureError):
                await guest
        except WorkflowAlreadyStartedError:  # what an earlier change let in has not ended yet
            await _report_return(
                order, dict.fromkeys(order.alone, "another rollback is under way"), tried=False
            )
        finally:
            self._let_in = None

    def _is_open_to(self, order: ChangeOrder) -> bool:
        """Whether the change may run beside this one now, as far as it moves no gateway of this one."""
        if self._let_in is not None or not order.is_let_in:
            return False
        if self._only_waits:
            return not self._lets_go
        return self._lets_in and not self._is_stopped

    async def _admitted(self, order: ChangeOrder) -> ChangeOrder | None:
        """Return the order as it may run beside this change now, without its gateways; None where it may not.

        One after the other is looked at: one that has nothing to do keeps no other out. An operator's order
        is kept for a moment, since a run that has just begun has not come to its wait yet, and an order that
        ended what was let in before may arrive ahead of that end. penstock repeats its own within a minute.
        """
        async with self._admitting:
            if not order.gives_way:
                with suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: self._is_open_to(order) or self._is_over, timeout=KEPT_FOR
                    )
            if not self._is_open_to(order):
                return None
            self._let_in = order.key
            admitted = await self._leaving_mine(order)
            self._let_in = order.key if admitted is not None else None
            return admitted

    async def _leaving_mine(self, order: ChangeOrder) -> ChangeOrder | None:
        """Return the order with a plan that leaves this change's gateways alone, None without any other."""
        if order.kind is ChangeKind.GO_BACK:
            drifted = await self._without_mine(order.drifted)
            return order.model_copy(update={"drifted": drifted}) if drifted else None
        if order.plan is not None:
            return None if await self._reloads_mine(order) else order
        still_moved = self._story.not_back if self._only_waits else ()
        asked = MissedQuery(fleet=order.fleet, kind=order.kind, is_beside=True, still_moved=still_moved)
        try:
            return _repeating(order, await control.ask(FactActivities.plan_missed, asked))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return None  # reconcile repeats it within a minute

    async def _without_mine(self, gateways: tuple[Name, ...]) -> tuple[Name, ...]:
        """Return these gateways without those that this change moves, or answers for."""
        try:
            mine = await self._mine(gateways, up_to=self._passed)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return ()  # reconcile reports them again within a minute
        return tuple(name for name in gateways if name not in mine)

    async def _reloads_mine(self, order: ChangeOrder) -> bool:
        """Whether it reloads gateways that this rollback waits for: their hosts would refuse its steps."""
        if order.plan is None or not self._only_waits:
            return False
        try:
            asked = GatewaysQuery(plan=order.plan, gateways=self._story.not_back)
            return bool(await control.ask(PlanActivities.find_parts, asked))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return True  # reconcile repeats it within a minute

    async def _mine(self, gateways: tuple[Name, ...], up_to: int | None = None) -> Collection[Name]:
        """Return which of these gateways this change moves, in its waves up to that one or in all of them.

        A way back that only waits moves those that are not back.
        """
        if self._only_waits:
            return self._story.still_moves(gateways)
        if up_to == 0:
            return ()
        asked = GatewaysQuery(plan=self._plan.digest, gateways=gateways)
        found = await control.ask(PlanActivities.find_parts, asked)
        return [name for name, part in found.items() if up_to is None or part.wave <= up_to]

    async def _keeps_out(self, order: ChangeOrder) -> str:
        """Return why gateways that failed alone are not taken back beside this change; empty when they are.

        An upgrade that changes them and has touched nothing ends: its plan is not true of them any more.
        """
        knows_its_plan = self._header is not None and bool(self._name)
        if self._let_in is not None or not knows_its_plan or self._is_over or self._order.bakes_on:
            return f"{self._name or 'another change'} has the fleet's lock"
        self._let_in = order.key
        try:
            mine = await self._mine(order.alone)
        except ActivityError as error:
            self._let_in = None
            return sentence_of(error)
        if not mine:
            return ""
        self._let_in = None
        if self._order.kind is ChangeKind.UPGRADE and not self._has_begun:
            self._harmful = order.reason
        return f"{self._name} has the fleet's lock, and changes {named(sorted(mine))}"

    @contextmanager
    def _others_let_in(self) -> Iterator[None]:
        """Leave the fleet's lock open to others for the length of the block, in which no wave runs."""
        self._lets_in = True
        try:
            yield
        finally:
            self._lets_in = False

    async def _others_have_ended(self) -> None:
        """Wait until nothing that was let in goes on, and no order to let something in is looked at."""
        await workflow.wait_condition(
            lambda: (self._let_in is None and not self._admitting.locked()) or self._waits_for_no_guest
        )

    @property
    def _waits_for_no_guest(self) -> bool:
        """Whether gateways go back now, or nothing is done: what was let in ends, whatever it waits for.

        A rollback that was approved, or that falls back at its deadline, goes back as one that needs nobody.
        """
        return self._is_stopped or (self._order.confirm is not None and not self._lets_in)

    async def _obey(self, command: Command) -> CommandReceipt:
        if known := self._receipts.of(command):
            return known
        goes_back = self._story.goes_back
        sentence = self._story.hear(command, workflow.now())
        self._record.hurry()
        goes_back_by_it = command.kind is CommandKind.ROLL_BACK
        receipt = CommandReceipt(
            id=command.id,
            accepted=True,
            sentence=sentence,
            change=self._name or None,
            only_ends=goes_back_by_it and self._story.only_ends,
            only_waits=goes_back_by_it and self._story.only_waits,
            incomplete=goes_back_by_it and self._story.is_incomplete,
        )
        self._receipts.keep(command, receipt)
        match command.kind:
            case CommandKind.APPROVE | CommandKind.REJECT:
                self._answer = command
            case CommandKind.QUARANTINE:
                await self._give_up(command)
            case CommandKind.ROLL_BACK | CommandKind.ABORT:
                # Single gateways that return are left to a rollback of the fleet, although they go back.
                ends = self._order.bakes_on or not goes_back
                self._asked_back = command if ends else self._asked_back
            case CommandKind.PROMOTE:  # the wave counts it for what its person was shown, and nothing newer
                command = command.model_copy(update={"seen": self._story.seen_by(command.person)})
            case CommandKind.HOLD | CommandKind.RESUME:
                pass  # the wave has them
        await self._tell_wave(command)
        await self._write_down(
            command.kind.replace("_", " "), f"{command.reason}: {sentence}", command.person, command.id
        )
        return receipt

    async def _tell_wave(self, command: Command) -> None:
        """Hand a command on, one after the other: signals sent side by side may arrive in any order.

        What is said while a wave is being started is kept until it is there.
        """
        async with self._telling:
            if self._wave is None:
                self._untold.append(command)
            else:
                await sent(partial(self._wave.signal, Wave.command, command))

    async def _give_up(self, command: Command) -> None:
        """Let the restore go on without these gateways: their parts hear, and what begins parts."""
        waited_for, root = self._story.waited_for(command), self._begins_parts
        why = sentence(f"given up by {command.person}: {command.reason}", REASON_OF_EACH)
        why = why.encode()[:REASON_OF_EACH].decode(errors="ignore")  # of a thousand gateways each byte counts
        if root is None:
            everybody = dict.fromkeys(chain.from_iterable(waited_for.values()), why)
            for part in self._restoring:
                await tell(part, "give_up", everybody)
            return
        await tell(root, "give_up_in", {key.path: names for key, names in waited_for.items()}, why)
        # Side by side: of a lost site these are hundreds, and each signal alone takes a step.
        parts = (
            tell(restore_of(root, key), "give_up", dict.fromkeys(gateways, why))
            for key, gateways in waited_for.items()
        )
        await asyncio.gather(*parts)

    # --- what children report -----------------------------------------------------------

    @workflow.signal(name="report")
    def report(self, report: WaveReport) -> None:
        """Take over what a wave of this change says of itself; one of the change before says nothing here."""
        if report.change == self._name:
            self._story.take(report)

    @workflow.signal(name="window")
    async def window(self, change: Name, wave: int, answer: WindowAnswer) -> None:
        """Take over whether the next wave may start, or the one under way is to go on."""
        if change == self._name:
            await self._window.hear(wave, answer, self._plan.on_window_close)

    @workflow.signal(name="report_watch")
    async def report_watch(self, report: WatchReport) -> None:
        """Take over what is seen of the waves that have passed: harm there takes the whole change back.

        The watch of the run before may have reported it just before it ended.
        """
        if report.change != self._name or self._answers_for_no_wave or not self._passed_waves.hear(report):
            return
        harm = self._passed_waves.harm(self._plan.limits.automation)
        if harm is None:
            self._leave_out(self._passed_waves.newly_failed())
            await self._let_operators_decide(self._passed_waves.harm_to_decide())
        else:
            self._decision = harm
            reason = f"harm was found where its waves have passed: {harm.reason}"
            await self._obey(Command(id="harm", kind=CommandKind.ROLL_BACK, person=PENSTOCK, reason=reason))

    async def _let_operators_decide(self, harm: Decision | None) -> None:
        """Begin no further wave, and no promotion, after harm for which only operators take a change back."""
        if harm is None:
            return
        reason = f"harm was found where its waves have passed: {harm.reason}"
        if self._plan.limits.automation is Automation.OBSERVE:
            self._story.show_harm(reason, workflow.now())
            return
        hold = Command(id=str(workflow.uuid4()), kind=CommandKind.HOLD, person=PENSTOCK_WATCH, reason=reason)
        await self._obey(hold)

    @workflow.signal(name="taken_off")
    async def taken_off(self, change: Name, claimed: dict[Name, int]) -> None:
        """Leave out gateways that operators steered off the release on their hosts after their wave.

        The ledger has each with the epoch of its break-glass. A claim that its host denies is remembered, so
        that reconcile does not repeat it in each minute of a wave.
        """
        if change == self._name:
            answers = await self._leave_to_operators(tuple(claimed))
            self._story.take_claims(claimed, answers, workflow.now())

    async def _leave_to_operators(self, gateways: tuple[Name, ...]) -> dict[Name, str]:
        """Return why each gateway that answers is left to operators, empty where it is not."""
        if self._answers_for_no_wave:
            return {}
        answers = await self._passed_waves.leave_to_operators(self._passed_change, gateways)
        known = {*chain.from_iterable(self._aside_in.values())}
        if not self._answers_for_no_wave:
            new = {name: why for name, why in answers.items() if why and name not in known}
            self._leave_out(new, goes_back=False)
        return answers

    @property
    def _answers_for_no_wave(self) -> bool:
        """Whether no wave has passed, or those that have are being promoted, or go back."""
        return not self._passed or self._story.promotes or self._is_stopped or self._story.goes_back

    def _leave_out(self, found: dict[str, str], *, goes_back: bool = True) -> None:
        """Go on without gateways whose waves have passed."""
        self._set_aside(found)
        self._aside_in[ANY_PART] = (*self._aside_in.get(ANY_PART, ()), *found)
        self._story.set_aside(found, workflow.now(), goes_back=goes_back)

    @workflow.signal(name="report_restore")
    def report_restore(self, report: RestoreReport) -> None:
        """Take over what a restore says of itself; parts of an earlier change can outlive it."""
        if report.change == self._name:
            self._story.take_restore(report)

    @workflow.signal(name="restored")
    def restored(self, change: str, result: RestoreResult) -> None:
        """Take over how the restore ended: a run that did not begin it is not told by the engine."""
        if change == self._name:
            self._restored = result

    # --- beginning ------------------------------------------------------------------------

    def _not_needed(self) -> ChangeResult:
        if not self._order.alone:
            return self._result(Outcome.ROLLED_BACK, "every gateway is on its known-good already")
        left = {name: why for names in self._left_by_hand.values() for name, why in names.items()}
        result = self._result(Outcome.ROLLBACK_INCOMPLETE, listed(left))
        return result.model_copy(update={"incomplete": left})

    async def _is_needed(self) -> bool:
        """Look, under the lock, at what is left alone: the change before may have ended since it was found.

        What has nothing to do gets no name and is no change in the ledger.
        """
        if self._order.plan is not None:
            return not self._order.alone or await self._leaves_some_to_take_back()
        if self._order.kind in RELOADS:
            return await self._find_who_missed_it()
        if self._order.kind is not ChangeKind.GO_BACK:
            return True
        await self._survey(SurveyOrder(fleet=self._order.fleet))
        found = await control.ask(FactActivities.find_strays, self._order.fleet)
        if self._order.beside is not None:
            return not {*found.untouched}.isdisjoint(self._order.drifted)
        return bool(found.strays or found.open_changes)

    async def _survey(self, order: SurveyOrder) -> None:
        """Ask gateways what is true of them now; who has not answered in time is silent."""
        # Of this run alone: one that was asked before, and did not end in time, may still be ending.
        child = self._child(f"survey/{workflow.info().run_id}")
        await _for_at_most(SURVEYED_WITHIN, await guarded(Survey.run, order, child))

    async def _leaves_some_to_take_back(self) -> bool:
        """Look which of the gateways that failed alone operators have steered on their hosts meanwhile.

        Their known-good does not move either. False where these are all.
        """
        await self._know_the_plan()
        return any(await asyncio.gather(*map(self._leaves_some_of, self._plan.keys)))

    async def _leaves_some_of(self, key: PartKey) -> bool:
        """Look at one part, beside the others: each may have a silent gateway, and all have one bound."""
        part = await control.read_part(self._plan.digest, key)
        left = await left_by_hand(self._order.fleet, part.members)
        self._set_aside(left)
        self._aside_in[key.path] = tuple(left)
        return len(left) < len(part.members)

    async def _find_who_missed_it(self) -> bool:
        """Plan, under the lock, what repeats the last reload, or settings; False where none missed it."""
        asked = MissedQuery(fleet=self._order.fleet, kind=self._order.kind)
        order = _repeating(self._order, await control.record(FactActivities.plan_missed, asked))
        self._order = order or self._order
        return order is not None

    async def _open(self) -> None:
        """Get the change's own name, which no other ever has."""
        if self._order.key is None:
            raise stopped("it has no key, and whoever asks for a change gives it one")
        await self._know_the_plan()
        release = self._leads_to
        opening = ChangeOpening(
            key=self._order.key,
            run=workflow.info().first_execution_run_id,
            fleet=self._order.fleet,
            kind=self._order.kind,
            requested_by=self._order.requested_by,
            reason=self._order.reason,
            release=release.version if release else self._story.label,
            release_digest=release.digest if release else None,
            plan=self._order.plan,
            cause=self._order.cause,
            repeats=self._order.repeats,
            beside=self._order.beside,
        )
        self._name = await control.record(LedgerActivities.open_change, opening)
        self._epoch = steps.epoch_now()
        self._story.know(self._name, self._header)

    @property
    def _leads_to(self) -> ReleaseRef | None:
        """The release of the plan; None where each gateway goes back from it to what it had before."""
        header = self._header
        if header is None or (self._order.kind is ChangeKind.GO_BACK and header.strategy is not None):
            return None
        return header.release

    async def _know_the_plan(self) -> None:
        if self._order.plan is not None:
            self._header = await control.record(PlanActivities.read_header, self._order.plan)
        self._story.know(self._name, self._header)

    @property
    def _plan(self) -> PlanHeader:
        if self._header is None:
            raise stopped(f"this change of {self._order.fleet} has no plan")
        return self._header

    @property
    def _release(self) -> ReleaseRef:
        if self._plan.release is None:
            raise stopped(f"plan {self._plan.digest} leads to no release")
        return self._plan.release

    # --- upgrade --------------------------------------------------------------------------

    async def _upgrade(self) -> ChangeResult:
        if self._passed == 0 and (ended := await self._begin_upgrade()):
            return ended
        self._watch_passed_waves()
        for wave in self._plan.waves[self._passed :]:
            try:
                if not await self._begins(wave.number):
                    break
            except FailureError as error:
                if self._has_begun or is_cancelled_exception(error):
                    raise
                # Its opening is over, or what was let in has changed what was checked; nothing was touched.
                return self._result(Outcome.REFUSED, f"{code_of(error)}: {sentence_of(error)}")
            result = await self._run_wave(wave.number)
            self._story.end_wave(moved=result.moved)
            self._decision = self._passed_waves.harm(self._plan.limits.automation) or result.decision
            self._set_aside(result.aside)
            self._aside_in |= {
                PartKey(wave=wave.number, number=part).path: names for part, names in result.without.items()
            }
            self._carry = result.carry
            if not result.passed:
                return await self._go_back(result.reason)
            if result.against:
                self._unproven = self._unproven or f"wave {wave.number} was {result.reason}"
            self._passed_waves.take_in(result.decision if result.against else None)
            self._passed = wave.number
            self._go_on_with_a_short_history()
            self._watch_passed_waves()
        return await self._end_upgrade()

    async def _end_upgrade(self) -> ChangeResult:
        """Promote what runs the release, by a look that no hold has followed; or go back, as was asked."""
        if self._story.promotes:  # its history was cut between two parts
            return await self._promote()
        while not await self._is_asked_back():
            held = self._story.last_hold
            await self._unless_stopped(self._leave_out_who_was_taken_off)
            if self._story.last_hold == held and not self._is_stopped:
                return await self._promote() if self._upgraded else self._left_to_operators()
        if not self._has_begun:
            return self._ended_before_it_began()
        return await self._go_back("asked to go back")

    @property
    def _upgraded(self) -> int:
        """How many gateways run the release: those of the plan but the ones that are left to operators."""
        return self._plan.changing - len({*chain.from_iterable(self._aside_in.values())})

    def _left_to_operators(self) -> ChangeResult:
        """Return how an upgrade ends that has nothing to promote, and nothing that it may take back."""
        release = f"{self._release.product} {self._release.version}"
        return self._result(
            Outcome.HELD,
            f"no gateway runs {release}: each of them is left to operators; nothing was promoted",
        )

    async def _begin_upgrade(self) -> ChangeResult | None:
        """Return how the upgrade ends before anything was touched, None when nothing is in its way."""
        try:
            if self._order.asks_window and self._plan.waves:
                await self._is_let(self._plan.waves[0].number)
            self._is_to_be_checked = False
            await self._unless_stopped(self._check)
        except FailureError as error:
            return self._result(Outcome.REFUSED, f"{code_of(error)}: {sentence_of(error)}")
        return self._ended_before_it_began() if self._is_stopped else None

    def _ended_before_it_began(self) -> ChangeResult:
        """Return how an upgrade ends that a person, or harm in what serves, stops before its first wave."""
        if self._asked_back is None and self._harmful is not None:
            return self._result(Outcome.REFUSED, _harm(self._harmful))
        before = self._result(Outcome.ROLLED_BACK, "asked to go back before anything was touched")
        return self._in_the_words_of_whoever_asked(before)

    async def _unless_stopped(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do work that touches no gateway; a rollback, or harm in what serves, ends it at once."""
        await _unless(lambda: self._is_stopped, work)

    async def _require_open(self) -> None:
        """Raise where the ledger has the change as ended; it is asked until it answers."""
        await control.record(LedgerActivities.require_open, self._name)

    async def _refuse_a_repeated_run(self, *, goes_back: bool = False) -> None:
        """Raise where the ledger has the change as ended: somebody had the engine repeat a run after a cut.

        A promotion that it takes back has not ended it, though the ledger may have its end by now.

        A ledger that is away holds nothing up: the fences of the gateways refuse what an ended change orders.
        """
        step = LedgerActivities.require_goes_back if goes_back else LedgerActivities.require_open
        try:
            await control.ask(step, self._name)
        except ActivityError as error:
            if is_cancelled_exception(error) or code_of(error) == ChangeEnded.__name__:
                raise

    async def _begins(self, wave: int) -> bool:
        """Wait until the wave may start, and take its gateways over from the bake; False when it stops."""
        if not await self._may_begin(wave):
            return False
        self._story.begin_to_move(wave)
        # Before anything moves: previews read there whether anything may have, and a watch that begins anew.
        await self._unless_stopped(self._record.write)
        if not self._is_stopped:
            await tell(bake_of(self._order.fleet), "take_over", TakenOver(change=self._name, up_to=wave))
        if self._is_stopped:
            self._story.leave_wave(self._passed)
            return False
        self._has_begun = True
        return True

    async def _may_begin(self, wave: int) -> bool:
        """Wait until the wave may start, after a ledger that was away, too; False when it goes back.

        While it is held the bake watches its gateways, which a wave that begins takes over.
        """
        while await self._is_let(wave):
            await _unless(self._is_halted, self._require_open)
            if self._is_halted():
                continue
            may_start = not self._order.asks_window or self._window.may_start
            if may_start and self._is_to_be_checked and not self._has_begun:
                self._is_to_be_checked = False
                await self._unless_stopped(self._check)
            elif may_start:
                if self._is_to_be_checked:  # hosts of later waves may have seen newer epochs
                    self._is_to_be_checked, self._epoch = False, max(self._epoch, steps.epoch_now())
                return True
        return False

    def _is_halted(self) -> bool:
        """Whether the next wave is not to begin now, by an operator or by harm."""
        return self._is_stopped or bool(self._story.holds)

    async def _is_let(self, wave: int) -> bool:
        """Wait until nobody holds the change and the wave may start; False when it goes back instead."""
        # Of this run alone: what an earlier one had asked may still be ending.
        child = self._child(f"window/{wave:03}/{workflow.info().run_id}")
        await self._window.ask(self._order, self._name, self._plan, wave, child)
        with self._others_let_in():
            while not (stops := await self._is_asked_back()):
                await self._window.wait(self._order, lambda: self._is_halted() or self._is_cut_while_it_waits)
                if self._order.asks_window and not self._window.may_start and self._is_cut_while_it_waits:
                    self._continue_as_new()
                if not self._is_halted():
                    break
            if not stops:
                await self._others_have_ended()
                return True
        await self._window.end()
        return False

    async def _is_asked_back(self) -> bool:
        """Wait until nobody holds the change, and return whether it is to go back instead of on."""
        if self._story.holds and not self._is_stopped:
            self._story.hold(workflow.now())
        await workflow.wait_condition(
            lambda: not self._story.holds or self._is_stopped or self._is_cut_while_it_waits
        )
        if self._story.holds and self._is_cut_while_it_waits:
            self._continue_as_new()
        return self._is_stopped

    @property
    def _is_cut_while_it_waits(self) -> bool:
        """Whether the history is long while no wave runs: a change may wait for weeks for its window."""
        return steps.history_is_long() and not self._is_stopped and self._is_quiet

    async def _check(self) -> None:
        """Ask who signed it, whether the hour is usual, and whether everybody can go back."""
        order = AdmitOrder(
            release=self._release,
            source=self._order.source or "",
            product=self._plan.product,
            channel=self._plan.channel,
            policy=self._plan.trust_policy,
        )
        admitted = await control.ask(ReleaseActivities.admit_release, order, steps.CHANGE)
        self._story.note(f"release admitted: {admitted.reason}", workflow.now())
        await self._ask_whether_the_hour_is_usual()
        ready = await workflow.execute_child_workflow(
            Preflight.run,
            PreflightOrder(header=self._plan, release=self._release, source=self._order.source or ""),
            id=self._child("preflight"),
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        )
        self._epoch, self._unable = max(self._epoch, ready.epoch + 1), ready.names
        self._story.note(f"{ready.able} gateways can take the release and can go back", workflow.now())

    async def _ask_whether_the_hour_is_usual(self) -> None:
        """Start nothing in a fleet that is already unusual, unless told to; the unknown is only said."""
        try:
            order = NormalityOrder(plan=self._plan.digest, at=workflow.now())
            advice = await control.ask(NormalityActivities.ask_whether_normal, order, steps.STUDY)
        except ActivityError as error:
            unknown = f"nobody could say whether this hour is a usual one: {sentence_of(error)}"
            self._story.note(unknown, workflow.now())
            return
        against = unusual(advice)
        if against and not self._order.even_if_unusual:
            raise stopped("; ".join(against))
        for said in against:
            self._story.note(f"started all the same: {said}", workflow.now())
        if unread := dict.fromkeys(one.sentence for one in advice if one.unavailable):
            why = "; ".join(unread)
            self._story.note(f"nobody could say whether this hour is a usual one: {why}", workflow.now())

    async def _run_wave(self, number: int) -> WaveResult:
        self._untold.clear()  # what was said before is in the order
        order = WaveOrder(
            change=self._name,
            parent=workflow.info().workflow_id,
            header=self._plan,
            wave=number,
            release=self._release,
            source=self._order.source or "",
            epoch=self._epoch,
            requesters=self._order.requesters,
            holds=dict(self._story.holds),
            carry=self._carry,
            unable=self._unable,
        )
        self._wave = await guarded(Wave.run, order, self._child(f"wave/{number:03}"))
        if self._order.asks_window:
            await self._window.begin(self._plan.on_window_close)
        try:
            while self._untold:  # said while the wave was being started
                await self._tell_wave(self._untold.pop(0))
            return await self._wave
        finally:
            self._wave = None
            if self._order.asks_window:
                await to_the_end(self._window.end())

    def _watch_passed_waves(self) -> None:
        """Watch what runs the release already, however long the next wave waits."""
        if self._passed and not self._story.promotes:
            child = self._child(f"passed/{self._passed:03}")
            self._passed_waves.begin(self._passed_change, self._passed, self._carry, child)

    @property
    def _passed_change(self) -> PassedChange:
        return PassedChange(self._name, self._plan, self._epoch, self._order.source)

    def _go_on_with_a_short_history(self) -> None:
        """Continue as new where no child is running and no command is half done."""
        is_long = workflow.info().is_continue_as_new_suggested() or self._is_to_be_cut()
        if is_long and self._asked_back is None and self._is_quiet:
            self._continue_as_new()

    @property
    def _is_quiet(self) -> bool:
        """Whether no message is being heard and no notice written: what a cut ends halfway is lost."""
        is_heard = workflow.all_handlers_finished() and self._window.is_quiet
        return is_heard and self._passed_waves.are_noticed

    def _continue_as_new(self, restore: RestoreOrder | None = None) -> None:
        """Go on with a short history; amid a restore, which goes on meanwhile, too."""
        restoring = None
        if restore is not None:
            order = restore.model_copy(update={"lets_go": self._lets_go})
            restoring = Restoring(order=order, left=self._story.left(), asked=self._asked_back)
        self._passed_waves.end()
        workflow.continue_as_new(
            ChangeRun(
                order=self._order,
                continued=Continued(
                    name=self._name,
                    header=self._header,
                    epoch=self._epoch,
                    unable=self._unable,
                    passed=self._passed,
                    promoted=self._promoted,
                    told=self._story.dump(),
                    written=self._record.written,
                    receipts=self._receipts.dump(),
                    decision=self._decision,
                    aside=self._aside,
                    aside_in=self._aside_in,
                    carry=self._carry,
                    unproven=self._unproven,
                    restoring=restoring,
                    passed_waves=self._passed_waves.dump(),
                    is_to_be_checked=self._is_to_be_checked,
                ),
            )
        )

    def _is_to_be_cut(self) -> bool:
        """Whether the history is long: a root of ten thousand gateways has two hundred parts to promote."""
        return steps.history_is_long() and workflow.patched(CUT_EARLY)

    async def _promote(self) -> ChangeResult:
        """Make the release known-good where it runs, and let the old instances empty by themselves."""
        self._story.begin_to_promote(workflow.now())
        while True:
            promoting = asyncio.create_task(self._write_promotion())
            await workflow.wait_condition(
                partial(lambda task: task.done() or self._asked_back is not None, promoting)
            )
            if self._asked_back is not None:
                await _cancelled(promoting)
                return await self._go_back(DURING_PROMOTION)
            if await promoting:
                return self._result(Outcome.PROMOTED, self._unproven or "every wave passed its window")
            self._go_on_with_a_short_history()

    async def _write_promotion(self) -> bool:
        """Promote part after part; False when the history is long before all are."""
        if not self._promoted:
            await self._begin_to_bake()
        self._passed_waves.end()
        for key in self._plan.keys[self._promoted :]:
            await control.record(PlanActivities.promote_part, self._part_entry(key))
            without = self._not_upgraded_in(key)
            await start_drains_of(self._name, self._plan, key, self._epoch, without, before=self._promoted)
            self._promoted += 1
            if self._is_to_be_cut():
                return False
        return True

    async def _leave_out_who_was_taken_off(self) -> None:
        """Ask whoever runs the release on its host: an operator may have steered it back just now.

        Who is silent is promoted: it runs the release since its wave has passed.
        """
        keys = self._plan.keys
        order = LastLookOrder(
            change=self._name,
            fleet=self._order.fleet,
            plan=self._plan.digest,
            release=self._release.digest,
            keys=keys,
            without={key.path: self._not_upgraded_in(key) for key in keys},
        )
        # Of this run alone, as a survey: one of before may still be ending.
        look = self._child(f"last-look/{workflow.info().run_id}")
        found = await (await guarded(LastLook.run, order, look))
        for path, names in found.gateways.items():
            self._aside_in[path] = (*self._aside_in.get(path, ()), *names)
        self._set_aside(found.why)
        more = sum(map(len, found.gateways.values())) - len(found.why)
        self._story.set_aside(found.why, workflow.now(), goes_back=False, more=more)

    async def _begin_to_bake(self) -> None:
        bake = BakeOrder(
            change=self._name,
            plan=self._plan.digest,
            fleet=self._order.fleet,
            kept=self._plan.limits.kept,
            automation=self._plan.limits.automation,
            source=self._order.source,
            carry=self._carry,
        )
        while not await left_behind(Bake.run, bake, bake_of(self._order.fleet)):
            # The watch over older promotions, which the new one begins again; harm that it found comes first.
            await end_bake(self._order.fleet, self._name, self._plan.digest)
            await workflow.sleep(steps.NEXT_ROUND)

    def _part_entry(self, key: PartKey) -> PartEntry:
        return PartEntry(
            change=self._name,
            fleet=self._order.fleet,
            plan=self._plan.digest,
            key=key,
            without=self._not_upgraded_in(key),
        )

    def _set_aside(self, found: dict[str, str]) -> None:
        self._aside = first_named([self._aside | found])

    def _not_upgraded_in(self, key: PartKey) -> tuple[str, ...]:
        """Return which gateways of the part do not run the release, and perhaps a few of others."""
        return (*self._aside_in.get(key.path, ()), *self._aside_in.get(ANY_PART, ()))

    # --- going back -------------------------------------------------------------------------

    async def _go_back(self, reason: str) -> ChangeResult:
        """Return every gateway that this upgrade may have touched to its own known-good."""
        result = self._after_restore(await to_the_end(self._restore_touched(reason)), reason)
        return self._in_the_words_of_whoever_asked(result)

    @property
    def _touched(self) -> tuple[PartKey, ...]:
        """The parts that the way back brings back: of an upgrade those of the waves that have begun."""
        if self._order.kind is ChangeKind.GO_BACK:
            return self._plan.keys
        begun = self._story.begun
        return tuple(key for wave in self._plan.waves if wave.number <= begun for key in wave.keys)

    @property
    def _moves_known_good(self) -> bool:
        """Whether the way back takes known-good back, too, as where an upgrade has begun to promote.

        What drifted goes to its known-good as it is.
        """
        if self._order.kind is ChangeKind.GO_BACK:
            return self._order.beside is None or bool(self._order.alone)
        return self._story.promotes

    async def _restore_touched(self, reason: str) -> RestoreResult:
        """Bring all back; known-good moves at once, or reconcile would undo it under the free lock."""
        await self._end_bake_of_what_goes_back()
        self._passed_waves.end()
        self._story.begin_to_go_back(reason, workflow.now())
        keys = self._touched
        moved = keys if self._moves_known_good else ()
        self._moving_back = asyncio.create_task(self._move_known_good_back(moved))
        back = await self._restore(keys, reason)
        await self._moving_back
        return back

    async def _move_known_good_back(self, keys: tuple[PartKey, ...]) -> None:
        """Write known-good of the parts, a few at once: the engine takes 4 MB of orders in one task.

        From then on the promotions that this leaves are watched again.
        """
        turns = asyncio.Semaphore(PARTS_AT_ONCE)

        async def in_turn(key: PartKey) -> None:
            async with turns:
                await control.record(PlanActivities.take_back_part, self._part_entry(key))

        await asyncio.gather(*[in_turn(key) for key in keys])
        if keys and self._keeps_bakes_off:
            self._keeps_bakes_off = False
            await watch_what_stands(self._order.fleet)

    async def _restore(self, keys: tuple[PartKey, ...], reason: str) -> RestoreResult:
        if not keys:
            return RestoreResult(back=0, took=timedelta(0))
        in_parts = len(keys) > 1 and workflow.patched(RESTORED_IN_TURNS)
        order = RestoreOrder(
            change=self._name,
            plan=self._plan.digest,
            fleet=self._order.fleet,
            reason=reason,
            keys=keys,
            epoch=max(self._epoch + 1, steps.epoch_now()),
            limits=self._plan.limits,
            waits_for_moved=not self._order.bakes_on,  # single gateways are tried for a moment anyway
            lets_go=self._lets_go,
            lock=True,
            overrules=self._is_ordered_back,
            at_once=PARTS_AT_ONCE if in_parts and len(keys) > PARTS_AT_ONCE else None,
            given_up_in=self._story.given_up | self._left_by_hand,
            listener=workflow.info().workflow_id,
            failed=self._release.digest if self._order.kind is ChangeKind.UPGRADE else None,
            decision=self._decision,
            source=self._order.source,
            began=workflow.now(),
            within=min(ALONE_WITHIN, self._time_left) if self._order.bakes_on else None,
        )
        child = await self._begin_to_restore(order)
        try:
            return await self._until_restored(order, child)
        except ChildWorkflowError as error:
            if order.within is not None:
                raise  # reconcile tries it again
            await self._wait_after_failed(order, error, steps.NEXT_ROUND)
        return await self._restored_meanwhile(order)

    @property
    def _left_by_hand(self) -> dict[str, dict[str, str]]:
        """Why gateways that failed alone are left as operators steered them, by the path of their part."""
        if not self._order.alone:
            return {}
        why = "an operator steered it by break-glass"  # of more than are set aside by name
        return {
            path: {name: self._aside.get(name, why) for name in names}
            for path, names in self._aside_in.items()
        }

    @property
    def _is_ordered_back(self) -> bool:
        """Whether an operator ordered this way back: what penstock begins by itself overrules none."""
        asked = self._asked_back
        goes_back = self._order.kind is ChangeKind.GO_BACK
        return (goes_back and self._order.requested_by != PENSTOCK) or (
            asked is not None and asked.person != PENSTOCK
        )

    def _know_restores(self, keys: tuple[PartKey, ...]) -> None:
        """Note which workflows bring these parts back: what operators order is for them."""
        root = self._child("restore")
        self._restoring = restores_of(root, keys)
        self._begins_parts = root if len(keys) > 1 else None
        self._story.expect_back(len(keys))

    async def _begin_to_restore(self, order: RestoreOrder) -> ChildWorkflowHandle[Any, RestoreResult]:
        self._know_restores(order.keys)
        return await workflow.start_child_workflow(
            Restore.run,
            order,
            id=self._child("restore"),
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            memo={PARTS_OF_RESTORE: len(order.keys)},
        )

    async def _until_restored(
        self, order: RestoreOrder, child: ChildWorkflowHandle[Any, RestoreResult]
    ) -> RestoreResult:
        """Return the restore's result; one of many gateways, or of weeks, outlives this run's history."""
        await workflow.wait_condition(lambda: child.done() or self._is_cut_amid_a_restore)
        if not child.done():
            self._continue_as_new(order)
        return await child

    @property
    def _is_cut_amid_a_restore(self) -> bool:
        moved = self._moving_back is None or self._moving_back.done()
        ends = self._restored is not None or self._order.bakes_on
        return steps.history_is_long() and moved and not ends and self._is_quiet

    async def _go_on_restoring(self, order: RestoreOrder) -> ChangeResult:
        """Wait for the restore that an earlier run of this change began, and end as that run would have."""
        await self._refuse_a_repeated_run(goes_back=True)
        back = await self._restored_meanwhile(order)
        if self._order.kind is not ChangeKind.GO_BACK:
            return self._in_the_words_of_whoever_asked(self._after_restore(back, order.reason))
        await self._close_others(self._order.plan, all_back=not back.given_up)
        return self._after_restore(back, back.sentence)

    async def _restored_meanwhile(self, order: RestoreOrder) -> RestoreResult:
        """Return what the restore reports at its end; it is begun anew when it has ended without a report."""
        pause = steps.NEXT_ROUND
        while self._restored is None:
            last = self._lets_go
            given_up = self._story.given_up | self._left_by_hand
            update = {"given_up_in": given_up, "lets_go": self._lets_go}
            order = order.model_copy(update=update | {"beginning": (order.beginning[0] + 1,)})
            try:
                child = await self._begin_to_restore(order)
            except WorkflowAlreadyStartedError:
                with suppress(TimeoutError):
                    await workflow.wait_condition(lambda: self._restored is not None, timeout=RESTORES_STILL)
                if self._is_cut_amid_a_restore:
                    self._continue_as_new(order)
                continue
            try:
                return await self._until_restored(order, child)
            except ChildWorkflowError as error:
                if last:
                    names = merged(given_up.values())
                    return await left_of_failed(order.plan, order.keys, names, error)
                pause = min(pause * 2, SLOWEST_BEGINNING)
                await self._wait_after_failed(order, error, pause)
        return self._restored

    async def _wait_after_failed(
        self, order: RestoreOrder, error: ChildWorkflowError, pause: timedelta
    ) -> None:
        """Report that a restore has ended by itself, and wait: its gateways serve what is gone back from.

        Once others need the fleet's lock it is begun again at once.
        """
        if len(order.keys) == 1:  # the parts of several go on
            self._story.take_restore(failed_report(order, order.keys[0], sentence_of(error), 1))
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._lets_go, timeout=pause)

    @property
    def _time_left(self) -> timedelta:
        return max(timedelta(0), ALONE_IN_ALL - (workflow.now() - self._began))

    def _after_restore(self, back: RestoreResult, reason: str) -> ChangeResult:
        outcome = Outcome.ROLLBACK_INCOMPLETE if back.given_up else Outcome.ROLLED_BACK
        self._without = ""
        if back.departed:
            names = sorted(back.departed)[:NAMED]
            more = len(back.departed) + back.more_departed - len(names)
            departed = f"{', '.join(names)}{f' and {more} more' if more else ''}"
            self._without = f"; {departed} left the fleet's file and did not go back"
        if back.unmoved:
            unmoved = listed(back.unmoved, back.more_unmoved)
            self._without += f"; not waited for, since no session had moved there: {unmoved}"
        missing = not_back(back.given_up, back.more_given_up)
        sentence = f"{reason}{missing}{self._without}"
        return self._result(outcome, with_befallen(sentence, back.nodes)).model_copy(
            update={
                "touched": back.back,
                "incomplete": back.given_up,
                "more_incomplete": back.more_given_up,
                "steered_back_after": back.took,
            }
        )

    async def _make_up_for(self, error: BaseException) -> ChangeResult:
        """Whatever ended the story in the middle: every gateway that may have been touched goes back."""
        reason = sentence_of(error)
        if code_of(error) == ChangeEnded.__name__:  # somebody had the engine repeat it
            return self._result(Outcome.REFUSED, reason)
        waits = self._order.confirm is not None and not self._story.goes_back
        if self._header is None or not self._name or waits or self._order.kind in MOVES_NOBODY:
            begun = self._order.takes_back is not None and bool(self._name)
            return self._result(Outcome.HELD if begun else Outcome.REFUSED, reason)
        if self._order.kind is ChangeKind.GO_BACK:
            return self._after_restore(await self._restore_touched(reason), reason)
        return await self._go_back(reason)

    def _in_the_words_of_whoever_asked(self, result: ChangeResult) -> ChangeResult:
        asked = self._asked_back
        if asked is None or result.outcome is not Outcome.ROLLED_BACK:
            return result
        aborted = asked.kind is CommandKind.ABORT and not self._story.may_have_moved
        outcome = Outcome.ABORTED if aborted else Outcome.ROLLED_BACK
        return result.model_copy(
            update={"outcome": outcome, "reason": f"{asked.person}: {asked.reason}{self._without}"}
        )

    # --- a change that only goes back --------------------------------------------------------

    async def _return(self) -> ChangeResult:
        """Bring gateways back to an earlier release: at once, or after a second person's yes."""
        if self._order.confirm is not None:
            if (given_up := await self._given_up(self._order.confirm)) is not None:
                return self._result(Outcome.REFUSED, given_up)
            if self._header is None:
                await self._know_the_plan()
        planned = self._order.plan
        found = await self._find_what_was_left_alone() if planned is None else LeftAlone(plan=planned)
        later = listed(found.awaited, found.more_awaited)
        ends_some = not found.is_awaited or bool(found.completes)
        if self._header is None or not self._header.waves:
            if ends_some:
                await self._close_others(planned, found.completes)
            if found.is_awaited:
                return self._result(Outcome.ROLLED_BACK, f"gateways are brought back later: {later}")
            return self._result(Outcome.ROLLED_BACK, "every gateway is on its known-good already")
        going = self._restore_touched(self._order.reason)
        back = await (going if self._order.bakes_on else to_the_end(going))
        if ends_some and not (self._order.bakes_on and back.given_up):  # reconcile goes on with them
            await self._close_others(planned, found.completes, all_back=not back.given_up)
        sentence = f"{back.sentence}; others are brought back later: {later}" if later else back.sentence
        return self._after_restore(back, sentence)

    async def _end_bake_of_what_goes_back(self) -> None:
        """End the watch over what goes back; one over other gateways is none of this change's business."""
        if self._order.bakes_on or not self._moves_known_good:
            return
        is_watched = self._order.kind is ChangeKind.UPGRADE or self._order.cause is not None
        if is_watched or await self._may_end_bakes():
            self._keeps_bakes_off = True
            await end_bake(self._order.fleet, self._name, self._plan.digest, goes_back=True)

    async def _may_end_bakes(self) -> bool:
        """Return whether the plan changes what is watched; where the ledger does not answer, it may."""
        query = BakesQuery(fleet=self._order.fleet, plan=self._plan.digest)
        try:
            return await control.ask(LedgerActivities.ends_bakes, query, steps.LOOK)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return True

    async def _given_up(self, confirmation: Confirmation) -> str | None:
        """Wait for a second operator; return why nothing is changed, None where gateways go back."""
        self._story.wait(confirmation, workflow.now())
        asks = partial(
            self._write_down,
            "rollback waits for a person",
            f"{self._order.reason}: {confirmation.reason}; answer within {confirmation.within}",
        )
        await _unless(self._is_answered, asks)
        with suppress(TimeoutError), self._others_let_in():
            await workflow.wait_condition(self._is_answered, timeout=confirmation.within)
        await self._others_have_ended()
        self._story.answered()
        answer, asked = self._answer, self._asked_back
        if asked is not None:  # known-good wins over a yes to another release
            return self._goes_by(confirmation, confirmation.known_good, f"{asked.person}: {asked.reason}")
        if answer is not None:
            plan = self._order.plan if answer.kind is CommandKind.APPROVE else None
            return self._goes_by(confirmation, plan, f"rejected by {answer.person}: {answer.reason}")
        if self._harmful is not None:
            self._story.end_unchanged()
            return _harm(self._harmful)
        nobody = "no second operator answered in time"
        self._story.note(nobody, workflow.now())
        given_up = self._goes_by(confirmation, confirmation.by_itself, nobody)
        await self._write_down("rollback answered: by the deadline", nobody)
        return given_up

    def _goes_by(self, confirmation: Confirmation, plan: Digest | None, why: str) -> str | None:
        """Go by that plan; return why nothing is changed where there is none.

        A rollback that arrives from here on is answered with that, before the first gateway goes back.
        """
        if plan is None:
            self._story.end_unchanged()
            return f"{why}; {confirmation.nothing_is_changed}"
        if plan != self._order.plan:
            self._order, self._header = self._order.model_copy(update={"plan": plan}), None
        self._story.begin_to_go_back(self._order.reason, workflow.now())
        return None

    def _is_answered(self) -> bool:
        """Whether nobody is waited for any more, by an answer or by harm."""
        return self._answer is not None or self._is_stopped

    async def _close_others(
        self, planned: Digest | None, completes: tuple[Name, ...] = (), *, all_back: bool = True
    ) -> None:
        """Close the ledger's entries of changes whose workflow does not run any more.

        With a plan these are the changes that it completes, otherwise those that are named. A return of
        gateways that failed alone completes none, and a change beside this one runs; reconcile closes the
        others.
        """
        if self._order.beside is not None or self._order.alone:
            return
        entry = OthersEntry(
            fleet=self._order.fleet,
            change=self._name,
            plan=planned,
            completes=completes,
            all_back=all_back,
        )
        await control.record(LedgerActivities.close_others, entry)

    async def _find_what_was_left_alone(self) -> LeftAlone:
        """Plan, of what was seen under the lock, what is not on its known-good; nothing newer is undone."""
        found = await control.record(
            FactActivities.plan_return,
            ReturnQuery(
                fleet=self._order.fleet,
                change=self._name,
                locked=self._began,
                beside=self._order.beside,
                drifted=self._order.drifted,
            ),
        )
        if found is None:
            return LeftAlone(plan=None)
        if found.lost:
            await withdraw_bake(self._order.fleet, found.lost)
        self._order = self._order.model_copy(update={"plan": found.plan})
        await self._know_the_plan()
        return found

    # --- the first release ----------------------------------------------------------------

    async def _install(self) -> ChangeResult:
        """Bring up gateways that serve nobody yet; one that fails is named and keeps nobody else from it."""
        order = InstallOrder(
            change=self._name,
            header=self._plan,
            release=self._release,
            source=self._order.source or "",
            epoch=self._epoch,
        )
        child = await guarded(Install.run, order, self._child("install"), reports=True)
        if await self._is_cut_short(child):
            found = await _reported_by(child)
            serve = _serving(len(found.installed), "now") if found else "gateways that were installed serve"
            return self._stopped_midway(
                f"{serve} {self._release.version} and keep it; install again for the others"
            )
        found = await child
        outcome = Outcome.PROMOTED
        sentence = f"First installation: {_serving(len(found.installed), 'now')} {self._release.version}"
        if found.served:
            sentence = f"{sentence}; {_serving(found.served, 'already')} it"
        if found.failed:
            outcome = Outcome.HELD if found.installed else Outcome.REFUSED
            sentence = f"{sentence}; {_failed(found)}"
        return self._result(outcome, sentence).model_copy(
            update={"touched": len(found.installed), "aside": found.failed}
        )

    # --- credentials and settings ------------------------------------------------------------

    async def _reload(self) -> ChangeResult:
        """Give what runs its hosts' present credentials, wave after wave; it ends no bake and no drain."""
        total = ReloadResult()
        for wave in self._plan.waves[self._passed :]:
            await self._unless_stopped(self._require_open)
            if self._is_stopped:
                break
            self._story.begin_wave(wave.number, workflow.now())
            found = await self._reload_wave(wave.number)
            if found is None:
                return self._stopped_reload(f"gateways that were asked by then may use {self._given}")
            self._passed = wave.number
            total = total.and_also(found)
            if found.failures > wave.may_fail or not total.done:
                break
        return self._reloaded(total)

    @property
    def _is_stopped(self) -> bool:
        return self._asked_back is not None or self._harmful is not None

    async def _reload_wave(self, number: int) -> ReloadResult | None:
        """Return what became of the wave; None where it was stopped and does not report that soon."""
        order = ReloadOrder(
            change=self._order.repeats or self._name,
            header=self._plan,
            wave=number,
            epoch=self._epoch,
            older=self._order.even_if_older,
            takes_back=self._order.takes_back,
        )
        child = await guarded(Reload.run, order, self._child(f"reload/{number:03}"), reports=True)
        return await _reported_by(child) if await self._is_cut_short(child) else await child

    async def _is_cut_short(self, child: ChildWorkflowHandle[Any, Any]) -> bool:
        """Wait for the child; return whether a rollback, or harm in what serves, has cancelled it before."""
        await workflow.wait_condition(lambda: child.done() or self._is_stopped)
        return not child.done() and child.cancel()

    def _stopped_midway(self, sentence: str) -> ChangeResult:
        """Return how a change ends that moves no session and was stopped before its end."""
        return self._result(Outcome.ABORTED, f"{self._stopped_by}; {sentence}")

    @property
    def _stopped_by(self) -> str:
        asked = self._asked_back
        return f"{asked.person}: {asked.reason}" if asked else _harm(self._harmful or "")

    def _stopped_reload(self, sentence: str) -> ChangeResult:
        """Return how a reload ends that was stopped before its end.

        One that takes files back has ended for another rollback, unless an operator aborted it: it is held,
        and reconcile goes on with settings. No host reports whose credentials it has: they are ordered again.
        """
        aborted = self._asked_back is not None and self._asked_back.kind is CommandKind.ABORT
        if self._order.takes_back is None or aborted:
            return self._stopped_midway(f"{sentence}; {NOT_ASKED}")
        again = "penstock asks the others again"
        if self._order.kind is ChangeKind.RELOAD:
            again = "order this rollback again for the others"
        return self._result(Outcome.HELD, f"{self._stopped_by}; {sentence}; {again}")

    @property
    def _given(self) -> str:
        if self._order.takes_back is not None:
            return f"what they had before {self._order.takes_back}"
        if self._order.kind is ChangeKind.RELOAD:
            return "their hosts' present credentials"
        repeats = self._order.repeats
        return f"the settings of {repeats}" if repeats is not None else "the settings of the fleet's file"

    def _reloaded(self, found: ReloadResult) -> ChangeResult:
        done, of = found.done, self._plan.changing
        back = self._order.takes_back is not None
        sentence = f"{done} of {of} gateways use {self._given}"
        if not back:
            sentence = f"{sentence}, {found.changed} of them new ones"
        if not back and self._plan.passed_over:
            sentence = f"{sentence}; {self._plan.passed_over}"
        outcome = Outcome.ROLLED_BACK if back else Outcome.PROMOTED
        if done < of:
            outcome = Outcome.HELD if done or found.unsure or back else Outcome.REFUSED
        if found.unsure:
            sentence = f"{sentence}; {found.unsure} of those that failed may use them, too"
        if found.ended:
            sentence = f"{sentence}; {found.ended} sessions of users who were taken out were ended"
        if found.stay:
            ends = self._plan.limits.removed_users is RemovedUsers.END
            where = "on adopted daemons, end them there" if ends else "limits.removed_users is keep"
            sentence = (
                f"{sentence}; {found.staying} sessions of users who were taken out go on ({where}): "
                f"{listed(found.stay)}"
            )
        if found.failures or found.left_out:
            sentence = f"{sentence}; {listed(found.failed)}"
        if done < of and self._is_stopped:
            ended = self._stopped_reload(sentence)
        elif done + found.failures + found.left_out < of:
            ended = self._result(outcome, f"{sentence}; {NOT_ASKED}")
        else:
            ended = self._result(outcome, sentence)
        return ended.model_copy(update={"touched": done, "aside": found.failed})

    async def _adopt(self) -> ChangeResult:
        """Take over what serves gateways by itself; one that refuses is named and keeps nobody from it."""
        order = AdoptionOrder(
            change=self._name, header=self._plan, epoch=self._epoch, without=self._order.without
        )
        child = await guarded(Adopt.run, order, self._child("adopt"), reports=True)
        if await self._is_cut_short(child):
            found = await _reported_by(child)
            adopted = "gateways that were adopted stay so"
            if found is not None:
                stays = "was adopted and stays so" if found.gateways == 1 else "were adopted and stay so"
                adopted = f"{_counted(found.gateways)} {stays}"
            return self._stopped_midway(f"{adopted}; adopt again for the others")
        found = await child
        outcome = Outcome.PROMOTED
        sentence = f"{found.gateways} gateways with {found.sessions} sessions were adopted as they ran"
        if found.failed:
            outcome = Outcome.HELD if found.gateways else Outcome.REFUSED
            sentence = f"{sentence}; {_failed(found)}"
        return self._result(outcome, sentence).model_copy(
            update={"touched": found.gateways, "aside": found.failed}
        )

    # --- the end ----------------------------------------------------------------------------

    def _ending(self, result: ChangeResult) -> ChangeEnding:
        confirm = self._order.confirm
        fell_back = confirm is not None and self._order.plan in {confirm.known_good, confirm.by_itself}
        return ChangeEnding(
            change=result.rollout,
            outcome=result.outcome,
            sentence=result.reason,
            release=self._story.label if fell_back else "",
        )

    async def _close(self, result: ChangeResult) -> ChangeResult:
        """Write down the end; until it is written, a promotion is still taken back when somebody asks.

        A ledger that takes no writes keeps nobody from that.
        """
        is_undone = result.outcome is Outcome.PROMOTED and self._order.kind not in MOVES_NOBODY
        if self._name:
            ending = asyncio.create_task(self._write_the_end(result))
            await workflow.wait_condition(
                lambda: ending.done() or (is_undone and self._asked_back is not None)
            )
            await (ending if ending.done() else _cancelled(ending))
        if is_undone and self._asked_back is not None:
            return await self._close(await self._go_back(DURING_PROMOTION))
        if self._name and result.outcome is not Outcome.PROMOTED and not self._order.bakes_on:
            await bake_again(self._order.fleet)
        self._story.end(result, workflow.now())
        return result

    async def _write_the_end(self, result: ChangeResult) -> None:
        await self._passed_waves.close()
        await self._record.write()  # before the end: a reader of the end finds all that came before
        await control.record(LedgerActivities.close_change, self._ending(result))

    async def _write_down(self, action: str, sentence: str, person: str | None = None, key: str = "") -> None:
        """Write to the audit record; the change goes on without."""
        entry = EventEntry(
            action=action,
            fleet=self._order.fleet,
            subject=f"{self._order.fleet}/{self._name}",
            sentence=sentence,
            key=f"{workflow.info().first_execution_run_id} {action} {key}",
            person=person or self._order.requested_by,
        )
        await control.note(LedgerActivities.record_event, entry, action)

    def _result(self, outcome: Outcome, reason: str) -> ChangeResult:
        return ChangeResult(
            rollout=self._name or self._order.fleet,
            outcome=outcome,
            reason=reason,
            decision=self._decision,
            aside=self._aside,
        )

    def _child(self, name: str) -> str:
        return f"{workflow.info().workflow_id}/{self._name}/{name}"


def _repeating(order: ChangeOrder, found: Repeat | None) -> ChangeOrder | None:
    """Return the order with the plan that repeats what gateways missed, None where none did."""
    if found is None:
        return None
    update = {"plan": found.plan, "cause": found.takes_back, "repeats": found.repeats}
    return order.model_copy(update=update)


async def _report_return(order: ChangeOrder, missing: dict[str, str], *, tried: bool) -> None:
    """Report to the watch over a promotion which of the gateways that failed alone are not back, and why."""
    if order.listener is not None:
        await tell(order.listener, "returned", order.key, missing, tried)


async def _cancelled(work: "asyncio.Future[Any]") -> None:
    """Cancel work and wait until it has ended."""
    work.cancel()
    with suppress(asyncio.CancelledError, FailureError):
        await work


async def _unless(ends: Callable[[], bool], work: Callable[[], Awaitable[object]]) -> None:
    """Do work, which is cancelled as soon as something ends it, and not begun where that is so already."""
    if ends():
        return
    doing = asyncio.ensure_future(work())
    try:
        await workflow.wait_condition(lambda: doing.done() or ends())
        if doing.done():
            await doing
    finally:
        if not doing.done():
            await _cancelled(doing)


async def _for_at_most(length: timedelta, work: "asyncio.Future[Any]") -> None:
    """Wait for work, which is cancelled when it takes longer; what it raises is its own."""
    with suppress(TimeoutError):
        await workflow.wait_condition(work.done, timeout=length)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def _reported_by(child: ChildWorkflowHandle[Any, T]) -> T | None:
    """Return what a cancelled child has done; None where it does not report that soon."""
    with suppress(TimeoutError):
        await workflow.wait_condition(child.done, timeout=REPORTED_WITHIN)
    if not child.done():
        return None
    with suppress(asyncio.CancelledError, FailureError):
        return await child
    return None


def _failed(found: Adoptions | Installed) -> str:
    """Return why gateways failed, of the first of them, and how many others did."""
    named = "; ".join(f"{name}: {why}" for name, why in sorted(found.failed.items()))
    more = found.failures - len(found.failed)
    return f"{named}; and {more} more" if more > 0 else named


def _counted(gateways: int) -> str:
    return "1 gateway" if gateways == 1 else f"{gateways} gateways"


def _serving(gateways: int, when: str) -> str:
    return f"{_counted(gateways)} {when} {'serves' if gateways == 1 else 'serve'}"


def _harm(found: str) -> str:
    """Return why a change gives way to the return of the release that serves."""
    return f"harm was found in the release that serves, which goes back first: {found}"
