"""Draining a gateway: what gets no new sessions goes on until its last one has ended, then stops.

No session is ended because something is unknown; what may be ended, when and why is decided in
`policies.drains`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as EngineTimeoutError

from activities.ledger import EventEntry, LedgerActivities
from policies.drains import is_silent, mode_of, next_step, uncounted_ending
from policies.model.command import CommandReceipt
from policies.model.drain import (
    DRAIN_OVER,
    DrainEnding,
    DrainEvent,
    DrainExtension,
    DrainFacts,
    DrainLimits,
    DrainMode,
    DrainStatus,
    Loss,
    NextStep,
    Step,
    Uncounted,
    loss_event,
)
from policies.model.instance import GatewayState, InstanceState, Probe, Steering
from policies.model.operation import BREAK_GLASS
from policies.model.placement import NodeLook
from policies.model.plan import ReleaseRef, Strategy
from policies.model.plan_part import Member, PartKey, PlanHeader
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Decision
from workflows import control, steps
from workflows.children import left_behind
from workflows.cluster import look_at_all
from workflows.commands import Receipts, conflict
from workflows.emptying import COUNTING, UNSEEN, Emptying, kept_until
from workflows.failures import code_of, sentence_of
from workflows.gateway import GatewaySteps
from workflows.turns import Turns

LOOK_AGAIN = timedelta(minutes=10)
"""How long one wait lasts while a drain is held: sessions that end by themselves end the hold."""

TOLD_AT_THE_END = "drain-told-at-its-end"
"""Drains of before end without a word."""

COUNT_AGAIN = 6
"""Looks after which sessions are counted anew that could not be: a minute."""


class DrainOrder(Value):
    """Empty and stop whatever gets no new sessions on the gateways of one part of a plan.

    `names` are those of the part that are meant; all but those `without` when it is empty.
    `epochs` holds the epoch of each gateway that has another than `epoch`. After a rollback
    `went_back` is true;
    `decision` is then the verdict on the release `failed`, if it was a verdict that sent the
    gateways back. `rate` is how many logins a minute this drain may force.
    """

    change: Name
    fleet: Name
    plan: Digest
    key: PartKey
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    epoch: int
    epochs: dict[str, int] = {}
    release: ReleaseRef | None = None
    """What serves, where it is one release and not each gateway's own known-good."""
    after: timedelta = timedelta(0)
    """How long the release before is left alone first, one map change away from serving again."""
    kept_until: datetime | None = None
    deadline: timedelta
    limits: DrainLimits = DrainLimits()
    rate: float = 60.0
    draining: int = 1
    """Gateways of the fleet that drain together: the more, the more seldom the engine hears of each."""
    before: int = 0
    """Parts of the same change that begin to drain before this one."""
    went_back: bool = False
    goes_back: bool = False
    """Whether its gateways are still to go back: what they go back to may be started, and is left alone."""
    failed: Digest | None = None
    decision: Decision | None = None
    emptying: tuple[Emptying, ...] = ()
    seen: tuple[str, ...] = ()
    """Gateways whose slots are in `emptying`; the others have not answered yet."""
    looked: tuple[str, ...] = ()
    """Those of a cluster's gateways whose node was looked at, so that nothing comes to them late any more."""
    receipts: dict[str, tuple[str, CommandReceipt]] = {}
    superseded: dict[str, str] = {}
    next_batch: datetime | None = None
    """When sessions may be ended again, so that users do not all log in at once."""


class DrainResult(Value):
    """Which slots were emptied and stopped, and how sessions ended that did not end by themselves."""

    stopped: tuple[str, ...]
    sessions_ended: int = 0
    lost_crash: int = 0
    lost_reboot: int = 0
    superseded: dict[str, str] = {}
    """Gateways that a newer change took over, each with which; its own drain goes on where this one ended."""


@workflow.defn(name="Drain")
class Drain:
    """Wait for sessions to end by themselves; what may end them is broken tunnels, a deadline or a person."""

    @workflow.init
    def __init__(self, order: DrainOrder) -> None:
        self._order = order
        self._steps: dict[str, GatewaySteps] = {}
        self._members: dict[str, Member] = {}
        self._emptying = {(one.gateway, one.slot): one for one in order.emptying}
        self._receipts = Receipts(order.receipts)
        self._commands = 0
        self._superseded = dict(order.superseded)
        self._complaints: dict[str, str] = {}
        self._seen = set(order.seen)
        self._looked = set(order.looked)
        self._kept_until = order.kept_until or workflow.now() + order.after
        self._began = self._kept_until - order.after
        self._turn = self._began + steps.drain_turn(order.before)
        self._turns = Turns(order.next_batch or workflow.now())
        self._looking: asyncio.Task[dict[str, NodeLook | ActivityError]] | None = None
        self._busy = 0

    @workflow.run
    async def run(self, order: DrainOrder) -> DrainResult:
        """Return when nothing but the serving instance runs on any of the gateways."""
        if (left := self._turn - workflow.now()) > timedelta(0):
            await workflow.sleep(left)
        part = await control.read_part(order.plan, order.key)
        members = [
            member
            for member in part.members
            if member.gateway.name not in order.without
            and (not order.names or member.gateway.name in order.names)
        ]
        for member in members:
            name = member.gateway.name
            epoch = order.epochs.get(name, order.epoch)
            release = order.release or member.back
            if release is not None and name not in self._superseded:
                self._members[name] = member
                self._steps[name] = GatewaySteps(member.gateway, order.change, epoch, release.digest)
        await self._drain_side_by_side()
        await workflow.wait_condition(workflow.all_handlers_finished)
        result = self._result()
        if workflow.patched(TOLD_AT_THE_END):
            await self._tell_the_end(result)
        return result

    async def _drain_side_by_side(self) -> None:
        """Empty all gateways; a history is cut only when none of them can ask for anything after it."""
        draining = [asyncio.create_task(self._drain_gateway(name)) for name in sorted(self._steps)]
        try:
            await workflow.wait_condition(
                lambda: (
                    all(task.done() for task in draining)
                    or any(task.done() and task.exception() for task in draining)
                    or self._may_be_cut()
                )
            )
        finally:
            if self._looking is not None:
                self._looking.cancel()
            for task in draining:
                task.cancel()
            ends = await asyncio.gather(*draining, return_exceptions=True)
        for end in ends:
            if end is not None and not is_cancelled_exception(end):
                raise end
        if any(end is not None for end in ends):
            self._go_on_with_a_short_history()

    async def _drain_gateway(self, name: str) -> None:
        """Empty what gets no new sessions; a fence that an operator only reset does not end that."""
        while True:
            steering = await self._first_look(name) if name not in self._seen else None
            left = [
                one for (gateway, _), one in self._emptying.items() if gateway == name and not one.stopped
            ]
            emptying = [asyncio.create_task(self._empty_and_stop(steering, one)) for one in left]
            late = asyncio.create_task(self._empty_late_ones(name))
            try:
                await asyncio.gather(*emptying, late)
            except ActivityError as error:
                if code_of(error) != "Fenced":
                    raise
                for task in (*emptying, late):
                    task.cancel()
                await asyncio.gather(*emptying, late, return_exceptions=True)
                owner = await self._owner_after(name)
                if owner == "":
                    continue
                for slot in [slot for gateway, slot in self._emptying if gateway == name]:
                    one = self._emptying[name, slot]
                    if one not in left and not one.stopped:  # a newer change is placing it
                        self._emptying.pop((name, slot))
                left = [one for one in left if not one.stopped]
                if not left:
                    return
                self._superseded[name] = sentence_of(error)
                by = "an operator steered it on its host" if owner == BREAK_GLASS else "a newer change has it"
                for one in left:
                    why = f"{by}; {one.step.reason}"
                    await self._tell_of(one, DrainEvent.HANDED_OVER, why, "superseded")
            return

    async def _owner_after(self, name: str) -> str:
        """Return which rollout owns the gateway, empty where an operator has reset the fence for everybody.

        This drain goes on in the epoch of that reset then, since no other would empty the slot.
        """
        while True:
            try:
                state = await self._steps[name].observe(steps.PATIENT)
            except ActivityError as error:
                await self._bear_with(name, error)
                continue
            on = self._steps[name]
            if not state.owner and state.epoch > on.epoch:
                on.epoch = state.epoch
                return ""
            return state.owner or "another order"

    async def _first_look(self, name: str) -> Steering:
        """Note what is to be emptied; of all else, only what serves is kept for as long as that takes."""
        while True:
            try:
                state = await self._steps[name].observe(steps.PATIENT)
            except ActivityError as error:
                await self._bear_with(name, error)
            else:
                self._emptying |= {(name, found.slot): found for found in self._found(name, state)}
                self._seen.add(name)
                return state.steering

    async def _empty_late_ones(self, name: str) -> None:
        """Empty what a cluster's node is told to run besides, once nothing can come to it any more.

        A placement that reaches a node after its gateway has gone back would never be taken from it.
        """
        if self._steps[name].cluster is None or name in self._looked or self._order.goes_back:
            return
        state, told = await self._late_look(name)
        known = {
            slot for (gateway, slot), one in self._emptying.items() if gateway == name and not one.stopped
        }
        late = [one for one in self._found(name, state, told) if one.slot not in known]
        self._looked.add(name)
        if name in self._superseded:
            return
        self._emptying |= {(name, one.slot): one for one in late}
        await asyncio.gather(*[self._empty_and_stop(state.steering, one) for one in late])

    async def _late_look(self, name: str) -> tuple[GatewayState, tuple[str, ...]]:
        """Return what runs on the gateway, and the slots that its node is told to run, sooner or later."""
        while True:
            try:
                told = await self._told_slots(name)
                return await self._steps[name].observe(steps.PATIENT), told
            except ActivityError as error:
                await self._bear_with(name, error)

    async def _told_slots(self, name: str) -> tuple[str, ...]:
        """Return the slots that a cluster's node is told to run; all who ask at a time share one look.

        Raises:
            ActivityError: The cluster says nothing.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_at_nodes())
        look = (await asyncio.shield(self._looking))[name]
        if isinstance(look, ActivityError):
            raise look
        return look.slots

    async def _look_at_nodes(self) -> dict[str, NodeLook | ActivityError]:
        await workflow.sleep(steps.PLACED_LATE)
        return await look_at_all(on.gateway for name, on in self._steps.items() if name not in self._looked)

    async def _bear_with(self, name: str, error: ActivityError) -> None:
        """Say what the gateway did wrong and pause; the drains of the others go on.

        Raises:
            ActivityError: a newer change has the gateway, or this drain was cancelled.
        """
        if code_of(error) == "Fenced" or is_cancelled_exception(error):
            raise error
        sentence = sentence_of(error)
        if self._complaints.get(name) != sentence:
            self._complaints[name] = sentence
            await self._tell(name, "drain waits for its gateway", sentence, sentence)
        await workflow.sleep(COUNT_AGAIN * steps.NEXT_LOOK)

    def _found(self, name: str, state: GatewayState, told: tuple[str, ...] = ()) -> list[Emptying]:
        """Return what is to be emptied, and from when on: the release before is kept for a while.

        A slot that a cluster's node is `told` to run would run again, also where it does not now.
        """
        member, found = self._members[name], []
        unknown = {*told} - {instance.slot for instance in state.instances}
        for instance in (*state.instances, *map(state.instance, sorted(unknown))):
            beside = instance.slot not in {state.steering.serving, state.steering.trial}
            runs = instance.state is InstanceState.RUNNING or instance.slot in told
            is_target = self._order.goes_back and instance.release in {None, self._target(name)}
            if not runs or not beside or is_target:
                continue
            # What an earlier change left behind is no way back; where none is known, anything may be.
            kept = self._before(name) in {None, instance.release}
            now = workflow.now()
            begins = self._kept_until if kept and self._kept_until > now else None
            within = member.drains_within or self._order.deadline
            # Who was silent past the deadline is warned like everybody else.
            warned = now + min(within, self._order.limits.warning)
            found.append(
                Emptying(
                    gateway=name,
                    slot=instance.slot,
                    release=instance.release,
                    found=instance.sessions or 0,
                    begins=begins,
                    deadline=max((begins or self._began) + within, warned),
                    step=kept_until(begins) if begins else COUNTING,
                    forced=self._forced_on(name),
                )
            )
        return found

    def _forced_on(self, name: str) -> DrainEnding | None:
        """Return the order to end everything on the gateway, which means what is found late, too."""
        forced = (one.forced for (gateway, _), one in self._emptying.items() if gateway == name)
        return next((order for order in forced if order is not None and order.slot is None), None)

    def _target(self, name: str) -> Digest | None:
        """Return what serves on the gateway, or is to serve there, by digest."""
        release = self._order.release or self._members[name].back
        return release.digest if release is not None else None

    def _before(self, name: str) -> Digest | None:
        """Return what served on the gateway before this change, by digest."""
        back = self._members[name].back
        return back.digest if back is not None else None

    async def _leave_alone(self, emptying: Emptying) -> None:
        """Keep it as it is for the kept time; a person who ends its sessions does not wait."""
        left = emptying.begins - workflow.now() if emptying.begins else timedelta(0)
        if left > timedelta(0):
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: emptying.forced is not None, timeout=left)

    def _result(self) -> DrainResult:
        slots = [slot for (name, _), slot in self._emptying.items() if name not in self._superseded]
        every = self._emptying.values()
        return DrainResult(
            stopped=tuple(sorted(f"{slot.gateway} {slot.slot}" for slot in slots)),
            sessions_ended=sum(slot.ended for slot in every),
            lost_crash=sum(slot.lost for slot in every if slot.loss is Loss.CRASH),
            lost_reboot=sum(slot.lost for slot in every if slot.loss is Loss.REBOOT),
            superseded=self._superseded,
        )

    # --- what people ask and say -------------------------------------------------

    @workflow.query(name="status")
    def status(self) -> DrainStatus:
        """Return each slot with its last count, what happens next and why."""
        return DrainStatus(
            rollout=self._order.change,
            slots=tuple(
                emptying.status()
                for (name, _), emptying in sorted(self._emptying.items())
                if not emptying.stopped and name not in self._superseded
            ),
        )

    @workflow.update(name="extend")
    async def extend(self, extension: DrainExtension) -> CommandReceipt:
        """Wait longer, from the deadline or, when that is over, from now."""
        if known := self._receipts.of(extension):
            return known
        meant = self._meant(extension)
        for emptying in meant:
            emptying.deadline = max(emptying.deadline, workflow.now()) + extension.by
            emptying.forced = None
        latest = max(emptying.deadline for emptying in meant)
        sentence = f"The deadline is {latest:%Y-%m-%d %H:%M:%S} UTC now; people are warned before it again."
        return await self._obeyed(extension, DrainEvent.EXTENDED, sentence)

    @workflow.update(name="end")
    async def end(self, ending: DrainEnding) -> CommandReceipt:
        """End what is left in batches; exempt sessions only when the order names them."""
        if known := self._receipts.of(ending):
            return known
        meant = self._meant(ending)
        for emptying in meant:
            emptying.forced = ending
        spared = "exempt ones too" if ending.exempt_too else "exempt ones are waited for"
        sentence = f"What is left is ended in batches of {self._order.limits.batch}; {spared}."
        if silent := [one for one in meant if is_silent(one.look or UNSEEN)]:
            slots = [(f"slot {one.slot} of {one.gateway}", one.look or UNSEEN) for one in silent]
            sentence += f" {uncounted_ending(slots, exempt_too=ending.exempt_too)}"
        return await self._obeyed(ending, DrainEvent.ENDED, sentence)

    @extend.validator
    def _extension_makes_sense(self, extension: DrainExtension) -> None:
        self._refuse_nonsense(extension)

    @end.validator
    def _ending_makes_sense(self, ending: DrainEnding) -> None:
        self._refuse_nonsense(ending)

    def _meant(self, command: DrainExtension | DrainEnding) -> list[Emptying]:
        return [
            emptying
            for (name, slot), emptying in sorted(self._emptying.items())
            if not emptying.stopped
            and name not in self._superseded
            and command.gateway in {None, name}
            and command.slot in {None, slot}
        ]

    def _refuse_nonsense(self, command: DrainExtension | DrainEnding) -> None:
        self._receipts.refuse_other_content(command)
        if not self._seen:
            begins = max(self._turn, workflow.now())
            raise conflict(
                f"{self._order.change} has not been looked at yet; try again after {begins:%H:%M:%S} UTC"
            )
        if self._receipts.of(command) is None and not self._meant(command):
            raise conflict(f"nothing drains on {command.where('these gateways')} any more")

    async def _obeyed(
        self, command: DrainExtension | DrainEnding, action: str, sentence: str
    ) -> CommandReceipt:
        receipt = CommandReceipt(id=command.id, accepted=True, sentence=sentence)
        self._receipts.keep(command, receipt)
        self._commands += 1
        subject = command.gateway or self._order.fleet
        if command.slot:
            sentence = f"slot {command.slot}: {sentence}"
        await self._tell(subject, action, f"{command.reason}: {sentence}", command.id, person=command.person)
        return receipt

    # --- emptying ----------------------------------------------------------------

    async def _empty_and_stop(self, steering: Steering | None, emptying: Emptying) -> None:
        """Stop the slot when it is empty; if a session begins before the stop, drain it again."""
        await self._leave_alone(emptying)
        left_behind = emptying.release != self._before(emptying.gateway)
        if (self._order.went_back or left_behind) and steering is not None:
            await self._choose_mode(steering, emptying)
        while True:
            await self._empty(emptying)
            try:
                await self._steps[emptying.gateway].stop(emptying.slot, emptying.step.uncounted)
            except ActivityError as error:
                if code_of(error) != "Refused":
                    await self._bear_with(emptying.gateway, error)
                    continue
                workflow.logger.info("slot %s not stopped yet: %s", emptying.slot, sentence_of(error))
                await workflow.sleep(steps.NEXT_LOOK)
            else:
                emptying.stopped = True
                if emptying.held and workflow.patched(TOLD_AT_THE_END):
                    counted = emptying.step.uncounted is Uncounted.NONE
                    over = "its last session is over" if counted else "it did not answer to its end"
                    await self._tell_of(emptying, DrainEvent.EMPTIED, f"{over}; it is stopped", "emptied")
                return

    async def _empty(self, emptying: Emptying) -> None:
        """Return when the slot was seen empty, or is to be stopped although it does not answer."""
        await self._wait(emptying, timedelta(0), self._commands)
        while True:
            # Counted before the step is chosen: a command heard on the way to the wait must end the wait.
            told, heard = emptying.step, self._commands
            emptying.step = step = next_step(self._facts(emptying), self._order.limits)
            ends = step.step in {Step.STOP, Step.STOP_UNCOUNTED}
            emptying.held = step.step is Step.HOLD or (emptying.held and ends)
            match step.step:
                case Step.STOP:
                    if await self._wait(emptying, timedelta(minutes=1), heard):
                        return
                case Step.STOP_UNCOUNTED:
                    await self._tell_ending(emptying, step)
                    return
                case Step.WARN:
                    deadline = emptying.deadline
                    await self._tell_of(
                        emptying, "drain deadline announced", step.reason, f"warning {deadline}"
                    )
                    emptying.warned_for = deadline
                case Step.WAIT | Step.HOLD:
                    if step.step is Step.HOLD and told != step:
                        await self._tell_of(
                            emptying, DrainEvent.HELD, step.reason, f"{emptying.deadline} {step.reason}"
                        )
                    await self._wait(emptying, self._until_next_look(emptying), heard)
                case Step.END:
                    async with self._turns.turn(partial(self._was_told_since, heard)) as has_come:
                        if has_come:
                            await self._end_batch(emptying)

    @staticmethod
    def _until_next_look(emptying: Emptying) -> timedelta:
        """Return how long sessions are waited for at most; those that are unknown are looked for again."""
        step, known = emptying.step, (emptying.look or UNSEEN).sessions is not None
        if step.step is Step.HOLD:
            return LOOK_AGAIN if known else COUNT_AGAIN * steps.NEXT_LOOK
        left = step.until - workflow.now() if step.until else LOOK_AGAIN
        return left if known else min(left, LOOK_AGAIN)

    def _was_told_since(self, heard: int) -> bool:
        return self._commands > heard

    def _facts(self, emptying: Emptying) -> DrainFacts:
        forced = emptying.forced
        return DrainFacts(
            look=emptying.look or UNSEEN,
            fleet=self._order.fleet,
            gateway=emptying.gateway,
            slot=emptying.slot,
            mode=emptying.mode,
            found=emptying.found,
            ended=emptying.spent,
            now=workflow.now(),
            deadline=emptying.deadline,
            warned=emptying.warned_for == emptying.deadline,
            silent_since=emptying.silent_since,
            forced_by=f"{forced.person}: {forced.reason}" if forced else None,
            exempt_too=forced is not None and forced.exempt_too,
        )

    async def _wait(self, emptying: Emptying, within: timedelta, heard: int) -> bool:
        """Wait for sessions to end and return whether none is left; another command ends the wait."""
        until, before = workflow.now() + within, emptying.look or UNSEEN
        waiting = self._steps[emptying.gateway].start_waiting(
            emptying.slot,
            max(within, timedelta(0)),
            emptying.look,
            self._order.draining,
            connected_only=emptying.step.step is Step.STOP,
        )
        await workflow.wait_condition(lambda: waiting.done() or self._was_told_since(heard))
        if not waiting.done():
            waiting.cancel()
            with suppress(ActivityError):
                await waiting
            return False
        try:
            drained = await self._steps[emptying.gateway].drained(waiting)
        except ActivityError as error:
            emptying.lose_sight()
            if not isinstance(error.cause, EngineTimeoutError):
                await self._bear_with(emptying.gateway, error)
            return False
        emptying.see(drained, workflow.now())
        if drained.lost:
            sentence = f"{drained.lost} sessions ended with their process"
            event = loss_event(drained.loss)
            await self._tell_of(emptying, event, sentence, f"lost {drained.look.boot}")
        has_news = drained.empty or is_silent(drained.look) > is_silent(before)
        if not has_news and workflow.now() < until - steps.NEXT_LOOK:
            await workflow.sleep(steps.NEXT_LOOK)  # an agent that does not wait is not asked at its own pace
        return drained.empty

    async def _end_batch(self, emptying: Emptying) -> None:
        """End one batch, as much as is right now: the turn may have been long in coming."""
        step = next_step(self._facts(emptying), self._order.limits)
        if step.step is not Step.END:
            return
        await self._tell_ending(emptying, step)
        forced = emptying.forced
        look = emptying.look or UNSEEN
        count = batch = (look.sessions or 0) - step.leave
        emptying.spent += batch  # also when nobody can tell what became of it
        try:
            with self._not_to_be_cut():
                ended = await self._steps[emptying.gateway].end_sessions(
                    emptying.slot,
                    step.leave,
                    step.reason,
                    exempt_too=forced is not None and forced.exempt_too,
                )
        except ActivityError as error:
            if code_of(error) == "Fenced" or is_cancelled_exception(error):
                raise
            emptying.lose_sight()
        else:
            count = min(ended.ended, batch)
            emptying.ended += count
            emptying.look_again(ended.look, workflow.now())
        if count or (emptying.look or UNSEEN).sessions != 0:
            paced = timedelta(minutes=count / self._order.rate)
            self._turns.pause(max(self._order.limits.pause, paced))

    async def _tell_ending(self, emptying: Emptying, step: NextStep) -> None:
        ending = f"end {emptying.deadline} {step.reason}"
        if emptying.ending != ending:
            emptying.ending = ending
            await self._tell_of(emptying, DrainEvent.ENDING, step.reason, ending)

    def _may_be_cut(self) -> bool:
        """Whether the history is long and everybody merely waits; most other steps outlive a cancellation."""
        quiet = workflow.all_handlers_finished() and not self._busy
        return quiet and steps.history_is_long()

    @contextmanager
    def _not_to_be_cut(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def _go_on_with_a_short_history(self) -> None:
        workflow.continue_as_new(
            self._order.model_copy(
                update={
                    "kept_until": self._kept_until,
                    "emptying": tuple(emptying for _, emptying in sorted(self._emptying.items())),
                    "seen": tuple(sorted(self._seen)),
                    "looked": tuple(sorted(self._looked)),
                    "receipts": self._receipts.dump(),
                    "superseded": self._superseded,
                    "epochs": {name: on.epoch for name, on in self._steps.items()},
                    "next_batch": self._turns.next_at,
                }
            )
        )

    # --- what failed decides -----------------------------------------------------

    async def _choose_mode(self, steering: Steering, emptying: Emptying) -> None:
        """Probe the instance that was left and the one that serves: broken tunnels are not waited for."""
        serving = steering.trial or steering.serving
        with self._not_to_be_cut():
            left = await self._probe(emptying.gateway, emptying.slot)
            good = await self._probe(emptying.gateway, serving) if serving else None
        judged = self._order.failed is not None and emptying.release == self._order.failed
        emptying.mode, emptying.mode_reason = mode_of(
            self._order.decision if judged else None,
            left,
            good,
            self._order.limits.tunnel_gates,
            self._members[emptying.gateway].target,
        )
        if emptying.mode is not DrainMode.WAIT:
            await self._tell_of(emptying, "tunnels found broken", emptying.mode_reason, "mode")

    async def _probe(self, gateway: str, slot: str) -> Probe | None:
        """Return what a probe found, None when there is none: no proof of anything."""
        try:
            return await self._steps[gateway].probe(slot, f"probe-{slot}", steps.PROBE)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.info("no probe of slot %s: %s", slot, sentence_of(error))
            return None

    # --- telling -----------------------------------------------------------------

    async def _tell_of(self, emptying: Emptying, action: str, sentence: str, key: str) -> None:
        await self._tell(
            emptying.gateway, action, f"slot {emptying.slot}: {sentence}", f"{emptying.slot} {key}"
        )

    async def _tell_the_end(self, result: DrainResult) -> None:
        """Write down that nothing is left of this part, or of the gateways that have a drain of their own."""
        key, count = self._order.key, len(result.stopped)
        subject = self._order.names[0] if self._order.names else f"part {key.wave:03}-{key.number:04}"
        lost = result.lost_crash + result.lost_reboot
        ended = f"{result.sessions_ended} sessions were ended, {lost} lost"
        sentence = f"{count} of its instances are stopped, {ended}" if count else "nothing was left to empty"
        await self._tell(subject, DRAIN_OVER, sentence, "over")

    async def _tell(
        self, subject: str, action: str, sentence: str, key: str, person: str = "penstock"
    ) -> None:
        """Write to the audit record; a drain goes on without."""
        entry = EventEntry(
            action=action,
            fleet=self._order.fleet,
            subject=f"{subject}/{self._order.change}",
            sentence=sentence,
            key=f"{workflow.info().workflow_id} {subject} {action} {key}",
            person=person,
        )
        with self._not_to_be_cut():
            await control.note(LedgerActivities.record_event, entry, action)


async def start_drains_of(
    change: str, plan: PlanHeader, key: PartKey, epoch: int, without: tuple[str, ...], before: int
) -> None:
    """Let a promoted part's old instances empty, so many parts `before` it.

    A gateway that was set aside has a drain of its own. Blue is kept as it is for the kept time, with the
    sessions it has.
    """
    order = DrainOrder(
        change=change,
        fleet=plan.fleet,
        plan=plan.digest,
        key=key,
        without=without,
        epoch=epoch,
        release=plan.release,
        after=plan.limits.kept if plan.strategy is Strategy.BLUE_GREEN else timedelta(0),
        deadline=plan.limits.drain_deadline,
        limits=plan.limits.drain,
        rate=plan.limits.drain.logins_per_minute / len(plan.keys),
        draining=plan.changing,
        before=before,
    )
    await left_behind(Drain.run, order, f"drain/{plan.fleet}/{change}/{key.wave:03}-{key.number:04}")
