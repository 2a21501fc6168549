"""One wave: its gateways are switched to the release, watched, and kept or given up."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from activities.instances import (
    InstanceActivities,
    SlotOrder,
    StageOrder,
    StartOrder,
)
from activities.observation import ObservationActivities, ObservationOrder
from activities.steering import SteeringActivities, TrialOrder
from policies.planning.batches import next_batch
from policies.words.fleet import Gateway
from policies.words.operation import Operation
from policies.words.plan import Plan, Progress, Wave
from policies.words.rollout import Command, CommandKind, GatewayProgress, Phase, WaveReport
from policies.words.verdict import Action, Cohorts, Decision, GateVerdict
from policies.words.word import Word
from workflows import steps
from workflows.failures import code_of, sentence_of, stopped

SLICE = timedelta(seconds=60)
PERSONS_TO_PROMOTE_WITHOUT_PROOF = 2


class Watched(Word):
    """What a wave that is being watched carries over when its history is cut short."""

    slots: dict[str, str]
    state: str
    decision: Decision | None
    held_by: str | None
    promoters: tuple[str, ...]
    started: dict[str, float] = {}


class WaveOrder(Word):
    """One wave of a plan, the source its release comes from, and the epoch that its steps carry."""

    rollout: str
    guardian: str
    plan: Plan
    wave: Wave
    source: str
    epoch: int
    watched: Watched | None = None


class WaveResult(Word):
    """Whether the wave's gateways keep the release, and why."""

    passed: bool
    reason: str
    decision: Decision | None = None


@workflow.defn(name="Wave")
class WaveWorkflow:
    """Switch the wave's gateways, confirm their leases, watch the window, and keep what passed."""

    @workflow.init
    def __init__(self, order: WaveOrder) -> None:
        self._order = order
        self._plan = order.plan
        self._progress = {
            name: GatewayProgress(gateway=name, wave=order.wave.number, state="waiting")
            for name in order.wave.gateways
        }
        self._phase = Phase.SWITCHING
        self._slots = dict(order.watched.slots) if order.watched else {}
        self._started = dict(order.watched.started) if order.watched else {}
        for name in self._slots:
            self._progress[name] = self._progress[name].model_copy(
                update={"state": "on trial", "release": order.plan.release.version}
            )
        self._decision = order.watched.decision if order.watched else None
        self._held_by = order.watched.held_by if order.watched else None
        self._promoters = list(order.watched.promoters) if order.watched else []
        self._stopped: str | None = None
        self._commands = 0
        self._told = 0
        self._changed = True

    @workflow.run
    async def run(self, order: WaveOrder) -> WaveResult:
        """Return whether the gateways keep the release; what goes wrong is the caller's to undo."""
        reporting = asyncio.create_task(self._report_changes())
        confirming = asyncio.create_task(self._confirm_leases())
        try:
            if order.watched is None:
                await self._switch_gateways()
            result = await self._watch(order.watched.state if order.watched else "")
            confirming.cancel()
            if result.passed:
                await self._keep_gateways()
            await self._tell_guardian()
            return result
        finally:
            confirming.cancel()
            reporting.cancel()

    @workflow.signal(name="command")
    def command(self, command: Command) -> None:
        """Take a person's order that the guardian has accepted."""
        match command.kind:
            case CommandKind.HOLD:
                self._held_by = f"held by {command.person}: {command.reason}"
            case CommandKind.RESUME:
                self._held_by = None
            case CommandKind.PROMOTE:
                self._promoters = sorted({*self._promoters, command.person})
            case CommandKind.ROLL_BACK | CommandKind.ABORT:
                self._stopped = f"{command.person} said so: {command.reason}"
            case CommandKind.EXTEND:
                self._held_by = None
        self._commands += 1
        self._changed = True

    # --- switching ---------------------------------------------------------------

    async def _switch_gateways(self) -> None:
        """Start as many at once as the limits allow, and the next whenever one is done."""
        switches: dict[str, asyncio.Task[None]] = {}
        try:
            while len(self._slots) < len(self._order.wave.gateways):
                if not self._held_by:
                    for name in next_batch(self._plan, self._switching(switches)):
                        switches[name] = asyncio.create_task(self._switch_gateway(name))
                under_way = [switch for switch in switches.values() if not switch.done()]
                if not under_way and not self._held_by:
                    raise stopped("no further gateway of the wave may start within the fleet's limits")
                await self._until_switched_or_resumed(under_way)
                for switch in switches.values():
                    if switch.done():
                        switch.result()
        finally:
            for switch in switches.values():
                switch.cancel()

    async def _until_switched_or_resumed(self, under_way: list[asyncio.Task[None]]) -> None:
        """Wait for what changes the next step; a failure is heard in the middle of a hold, too."""
        held = bool(self._held_by)
        await workflow.wait_condition(
            lambda: any(switch.done() for switch in under_way) or (held and not self._held_by)
        )

    def _switching(self, switches: dict[str, asyncio.Task[None]]) -> Progress:
        return Progress(
            passed=self._order.wave.number - 1,
            switching=tuple(name for name, switch in switches.items() if not switch.done()),
            draining=tuple(self._slots),
        )

    async def _switch_gateway(self, name: str) -> None:
        release, gateway = self._plan.release, self._plan.fleet.gateway(name)
        self._note(name, "staging")
        await workflow.execute_activity_method(
            InstanceActivities.stage_release,
            StageOrder(operation=self._operation(name, "stage"), release=release, source=self._order.source),
            task_queue=gateway.task_queue,
            **steps.CHANGE,
        )
        self._note(name, "starting")
        started = await workflow.execute_activity_method(
            InstanceActivities.start_instance,
            StartOrder(operation=self._operation(name, "start"), release=release),
            task_queue=gateway.task_queue,
            **steps.CHANGE,
        )
        self._started[name] = workflow.now().timestamp()
        self._note(name, "probing")
        await self._probe(gateway, started.slot)
        await self._confirm(gateway, started.slot)
        self._slots[name] = started.slot
        self._note(name, "on trial", release.version)

    async def _probe(self, gateway: Gateway, slot: str) -> None:
        probe = await workflow.execute_activity_method(
            InstanceActivities.probe_instance,
            SlotOrder(operation=self._operation(gateway.name, "probe"), slot=slot),
            task_queue=gateway.task_queue,
            **steps.CHANGE,
        )
        if not probe.passed:
            self._stopped = (
                f"the probe of {gateway.name} failed at {probe.stage}, before any user: {probe.reason}"
            )
            raise stopped(self._stopped)

    async def _confirm(self, gateway: Gateway, slot: str) -> None:
        lease = self._order.wave.lease
        await workflow.execute_activity_method(
            SteeringActivities.start_trial,
            TrialOrder(
                operation=self._operation(gateway.name, "trial"),
                slot=slot,
                lease=lease,
            ),
            task_queue=gateway.task_queue,
            **steps.confirm_within(lease),
        )

    # --- watching ----------------------------------------------------------------

    async def _confirm_leases(self) -> None:
        """Renew every lease three times within its length, for as long as the wave is watched.

        Where nothing runs any more, no metric may ever have been read: that is harm by itself.
        """
        while True:
            await workflow.sleep(self._order.wave.lease / 3)
            confirmations = [
                self._confirm(self._plan.fleet.gateway(name), slot)
                for name, slot in sorted(self._slots.items())
            ]
            for result in await asyncio.gather(*confirmations, return_exceptions=True):
                if isinstance(result, ActivityError) and code_of(result) == "InstanceGone":
                    self._decision, self._changed = has_ended(sentence_of(result)), True
                    self._stopped = self._decision.reason
                elif isinstance(result, ActivityError):
                    workflow.logger.warning("a lease was not confirmed: %s", sentence_of(result))

    async def _watch(self, state: str) -> WaveResult:
        self._enter(Phase.OBSERVING)
        while True:
            if self._stopped:
                return WaveResult(passed=False, reason=self._stopped, decision=self._decision)
            state = await self._watch_slice(state)
            decision = self._decision
            if decision is None:
                continue
            if decision.action is Action.ROLL_BACK:
                return WaveResult(passed=False, reason=decision.reason, decision=decision)
            if self._promoted_by_people():
                reason = f"promoted by {' and '.join(self._promoters)} against: {decision.reason}"
                return WaveResult(passed=True, reason=reason, decision=decision)
            if decision.action is Action.PROMOTE and not self._held_by:
                return WaveResult(passed=True, reason=decision.reason, decision=decision)
            await self._pause_if_held(decision)
            if workflow.info().is_continue_as_new_suggested():
                self._go_on_with_a_short_history(state)

    def _go_on_with_a_short_history(self, state: str) -> None:
        watched = Watched(
            slots=self._slots,
            started=self._started,
            state=state,
            decision=self._decision,
            held_by=self._held_by,
            promoters=tuple(self._promoters),
        )
        workflow.continue_as_new(self._order.model_copy(update={"watched": watched}))

    async def _watch_slice(self, state: str) -> str:
        """Fold one slice; a command ends the wait for it at once."""
        slice_of_window = workflow.start_activity_method(
            ObservationActivities.observe_slice,
            ObservationOrder(
                rollout=self._order.rollout,
                wave=self._order.wave.number,
                gates=self._plan.gates,
                cohorts=self._cohorts(),
                window=self._plan.window,
                slice=SLICE,
                state=state,
            ),
            task_queue=steps.CONTROL_QUEUE,
            **steps.WATCH,
        )
        # People may overrule a decision, not the lack of one: the first slice is waited for.
        await workflow.wait_condition(
            lambda: (
                slice_of_window.done()
                or bool(self._stopped)
                or (self._decision is not None and self._promoted_by_people())
            )
        )
        if not slice_of_window.done():
            slice_of_window.cancel()
            return state
        try:
            observed = await slice_of_window
        except ActivityError as error:
            if code_of(error) != "BadQuery":
                raise
            self._decision, self._changed = unaskable(sentence_of(error)), True
            return state
        self._decision, self._changed = observed.decision, True
        return observed.state

    async def _pause_if_held(self, decision: Decision) -> None:
        """While held, evidence is kept and harm is still looked for, at a calmer pace."""
        waiting = decision.action in {Action.HOLD, Action.HOLD_FOR_HUMAN, Action.PROMOTE}
        self._enter(Phase.HELD if self._held_by or waiting else Phase.OBSERVING)
        if not waiting:
            return
        for_human = decision.action is Action.HOLD_FOR_HUMAN
        pace = steps.HELD_FOR_HUMAN_PACE if for_human else steps.HELD_PACE
        heard = self._commands
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._commands > heard, timeout=pace)

    def _promoted_by_people(self) -> bool:
        return len(self._promoters) >= PERSONS_TO_PROMOTE_WITHOUT_PROOF

    def _cohorts(self) -> Cohorts:
        """The wave's gateways against all others, each with the digest the plan expects it to run."""
        fleet, plan = self._plan.fleet, self._plan
        done = {
            name for wave in plan.waves if wave.number <= self._order.wave.number for name in wave.gateways
        }
        expected = {
            gateway.metrics_target: (
                plan.release if gateway.name in done else plan.known_good[gateway.name]
            ).executable
            for gateway in fleet.gateways
            if gateway.name in plan.known_good
        }
        canary = tuple(fleet.gateway(name).metrics_target for name in self._order.wave.gateways)
        control = tuple(target for target in expected if target not in canary)
        slots = {fleet.gateway(name).metrics_target: slot for name, slot in self._slots.items()}
        since = {fleet.gateway(name).metrics_target: at for name, at in self._started.items()}
        return Cohorts(canary=canary, control=control, expected=expected, slots=slots, since=since)

    # --- keeping -----------------------------------------------------------------

    async def _keep_gateways(self) -> None:
        self._enter(Phase.PROMOTING)
        await asyncio.gather(*[self._keep(name, slot) for name, slot in sorted(self._slots.items())])

    async def _keep(self, name: str, slot: str) -> None:
        await workflow.execute_activity_method(
            SteeringActivities.make_permanent,
            SlotOrder(operation=self._operation(name, "keep"), slot=slot),
            task_queue=self._plan.fleet.gateway(name).task_queue,
            **steps.STEER,
        )
        self._note(name, "kept", self._plan.release.version)

    # --- telling -----------------------------------------------------------------

    def _operation(self, gateway: str, step: str) -> Operation:
        return Operation(
            rollout=self._order.rollout,
            epoch=self._order.epoch,
            gateway=gateway,
            step=step,
            digest=self._plan.release.digest,
        )

    def _enter(self, phase: Phase) -> None:
        self._changed = self._changed or phase is not self._phase
        self._phase = phase

    def _note(self, gateway: str, state: str, release: str | None = None) -> None:
        self._progress[gateway] = self._progress[gateway].model_copy(
            update={"state": state, "release": release or self._progress[gateway].release}
        )
        self._changed = True

    async def _report_changes(self) -> None:
        """Tell the guardian what changed, in as few signals as the changes allow."""
        while True:
            await workflow.wait_condition(lambda: self._changed)
            await self._tell_guardian()

    async def _tell_guardian(self) -> None:
        self._changed = False
        self._told += 1
        guardian = workflow.get_external_workflow_handle(self._order.guardian)
        with suppress(FailureError):  # a guardian that is gone hears nothing; its driver is told to go back
            await guardian.signal("report", self._report())

    def _report(self) -> WaveReport:
        return WaveReport(
            wave=self._order.wave.number,
            phase=self._phase,
            at=workflow.now(),
            number=self._told,
            gateways=tuple(self._progress.values()),
            decision=self._decision,
            held_by=self._held_by,
        )


def has_ended(reason: str) -> Decision:
    """Return the decision when the host itself says that the new instance has ended."""
    return Decision(
        action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason=f"the new instance has ended: {reason}"
    )


def unaskable(reason: str) -> Decision:
    """Return the decision when the question itself is wrong: that is no verdict on the release."""
    return Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.METRICS_UNAVAILABLE, reason=reason)
