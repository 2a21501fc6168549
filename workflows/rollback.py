"""Rollback: every touched gateway back on its own known-good; safe to run any number of times, at any moment.

It needs no metrics, chat, repository, ledger or second person: only the gateways. Fence
first, steer back second, evidence third, drain last.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from activities.instances import InstanceActivities, SlotOrder, StageOrder, StartOrder
from activities.snapshots import Evidence
from activities.steering import SteeringActivities
from policies.words.fleet import Fleet
from policies.words.instance import GatewayState, InstanceState
from policies.words.operation import Operation
from policies.words.plan import ReleaseRef
from policies.words.report import RestoreReport
from policies.words.verdict import Decision
from policies.words.word import Name, Word
from workflows import steps
from workflows.compensation import to_the_end
from workflows.drain import Drain, DrainGatewayOrder
from workflows.failures import code_of, sentence_of, stopped
from workflows.snapshot import Snapshot, SnapshotGatewayOrder

EVIDENCE_WITHIN = timedelta(seconds=5)
"""How long what was left behind stays untouched, so that evidence of it can be frozen."""


class RollbackOrder(Word):
    """Which gateways go back to what, and why; `guardian` is told of every change."""

    rollout: Name
    fleet: Fleet
    targets: dict[str, ReleaseRef]
    reason: str
    guardian: str | None = None
    failed: str | None = None
    """The release that is gone back from, by digest, when one release is."""
    decision: Decision | None = None
    """The verdict on it, when a verdict sends the gateways back."""
    queries: dict[str, tuple[str, ...]] = {}
    """Which series the gates of that verdict read, for the evidence."""
    source: str | None = None
    """Where a known-good comes from that is not on its host any more."""


class RollbackResult(Word):
    """Who is back, and how long it took until the last one took new sessions again."""

    back: tuple[str, ...]
    reason: str
    took: timedelta
    snapshots: dict[str, str] = {}


@workflow.defn(name="Rollback")
class Rollback:
    """Go back on all gateways at once; one that refuses never delays the others."""

    @workflow.init
    def __init__(self, order: RollbackOrder) -> None:
        self._order = order
        self._back: list[str] = []
        self._troubles: dict[str, str] = {}
        self._epoch = 0
        self._told = 0

    @workflow.run
    async def run(self, order: RollbackOrder) -> RollbackResult:
        """Return when every gateway sends its new sessions to its known-good."""
        return await to_the_end(self._go_back(order))

    async def _go_back(self, order: RollbackOrder) -> RollbackResult:
        began = workflow.now()
        self._epoch = steps.epoch_now()
        await self._tell_guardian()
        await asyncio.gather(*[self._bring_back(name) for name in sorted(order.targets)])
        took = workflow.now() - began
        snapshots = await self._freeze_evidence()
        await self._start_drains()
        return RollbackResult(
            back=tuple(sorted(self._back)), reason=order.reason, took=took, snapshots=snapshots
        )

    @workflow.query(name="troubles")
    def troubles(self) -> dict[str, str]:
        """Return what keeps each gateway that is not back yet."""
        return dict(self._troubles)

    async def _bring_back(self, name: str) -> None:
        """Try until the gateway is back; a newer rollback that fences us is asked for the facts again."""
        while True:
            try:
                await self._bring_back_once(name)
            except (ActivityError, ApplicationError) as error:
                changed = self._troubles.get(name) != (trouble := sentence_of(error))
                self._troubles[name] = trouble
                if changed:
                    await self._tell_guardian()
                await workflow.sleep(steps.NEXT_ROUND)
                self._epoch = max(self._epoch, steps.epoch_now())
            else:
                self._back.append(name)
                self._troubles.pop(name, None)
                await self._tell_guardian()
                return

    async def _bring_back_once(self, name: str) -> None:
        gateway, release = self._order.fleet.gateway(name), self._order.targets[name]
        state = await workflow.execute_activity_method(
            InstanceActivities.fence_gateway,
            self._operation(name, "fence"),
            task_queue=gateway.task_queue,
            **steps.GO_BACK,
        )
        slot = self._slot_of(state, release)
        if slot is None:
            slot = await self._start_known_good(name, release)
        if state.steering.serving == slot:
            await workflow.execute_activity_method(
                SteeringActivities.end_trial,
                self._operation(name, "back"),
                task_queue=gateway.task_queue,
                **steps.GO_BACK,
            )
        else:
            await workflow.execute_activity_method(
                SteeringActivities.make_permanent,
                SlotOrder(operation=self._operation(name, "back"), slot=slot),
                task_queue=gateway.task_queue,
                **steps.GO_BACK,
            )

    @staticmethod
    def _slot_of(state: GatewayState, release: ReleaseRef) -> str | None:
        """The slot where known-good is alive; the serving one if there are several."""
        alive = [
            instance.slot
            for instance in state.instances
            if instance.state is InstanceState.RUNNING
            and instance.release == release.digest
            and instance.executable == release.executable
        ]
        return state.steering.serving if state.steering.serving in alive else next(iter(alive), None)

    async def _start_known_good(self, name: str, release: ReleaseRef) -> str:
        """Bring the old release up again on a gateway where it no longer runs."""
        queue = self._order.fleet.gateway(name).task_queue
        start = StartOrder(operation=self._operation(name, "restart"), release=release)
        try:
            started = await workflow.execute_activity_method(
                InstanceActivities.start_instance, start, task_queue=queue, **steps.CHANGE
            )
        except ActivityError as error:
            if code_of(error) != "BadInput" or self._order.source is None:
                raise
            # It is not on the host any more: only now does the way back need the repository.
            await workflow.execute_activity_method(
                InstanceActivities.stage_release,
                StageOrder(
                    operation=self._operation(name, "fetch"), release=release, source=self._order.source
                ),
                task_queue=queue,
                **steps.CHANGE,
            )
            started = await workflow.execute_activity_method(
                InstanceActivities.start_instance, start, task_queue=queue, **steps.CHANGE
            )
        if doubt := await self._doubt_about(name, started.slot):
            workflow.logger.error("known-good on %s %s", name, doubt)
            if not self._serving_is_lost(started.state):
                raise stopped(f"known-good was started on {name} but {doubt}")
        return started.slot

    async def _doubt_about(self, name: str, slot: str) -> str | None:
        """Return why known-good in this slot may take no logins; no probe at all is a doubt, too."""
        try:
            probe = await workflow.execute_activity_method(
                InstanceActivities.probe_instance,
                SlotOrder(operation=self._operation(name, "probe-known-good"), slot=slot),
                task_queue=self._order.fleet.gateway(name).task_queue,
                **steps.CHANGE,
            )
        except ActivityError as error:
            return f"cannot be probed: {sentence_of(error)}"
        return None if probe.passed else f"fails its probe at {probe.stage}: {probe.reason}"

    @staticmethod
    def _serving_is_lost(state: GatewayState) -> bool:
        """Whether nothing serves at all, so that even a doubtful known-good is better."""
        return state.serving is None or state.serving.state is not InstanceState.RUNNING

    async def _freeze_evidence(self) -> dict[str, str]:
        """Have evidence frozen before anything is emptied; by now no new session is at risk.

        The snapshots outlive this workflow and are waited for a moment only.
        """
        running = {name: await self._start_snapshot(name) for name in sorted(self._order.targets)}
        taken = {name: asyncio.ensure_future(snapshot) for name, snapshot in running.items() if snapshot}
        if taken:
            await workflow.wait(taken.values(), timeout=EVIDENCE_WITHIN.total_seconds())
        return {
            name: snapshot.result()
            for name, snapshot in taken.items()
            if snapshot.done() and snapshot.exception() is None
        }

    async def _start_snapshot(self, name: str) -> ChildWorkflowHandle[Snapshot, str] | None:
        try:
            return await workflow.start_child_workflow(
                Snapshot.run,
                SnapshotGatewayOrder(
                    fleet=self._order.fleet.name,
                    gateway=self._order.fleet.gateway(name),
                    operation=self._operation(name, "snapshot"),
                    evidence=Evidence(
                        reason=self._order.reason, decision=self._order.decision, queries=self._order.queries
                    ),
                ),
                id=f"snapshot/{name}/{self._order.rollout}/{self._epoch}",
                parent_close_policy=ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError:
            return None

    async def _start_drains(self) -> None:
        """Let what was left behind empty by itself; the drains outlive this workflow."""
        for name in sorted(self._order.targets):
            # Two rollbacks of one millisecond are of one epoch: the other one's drain will do.
            with suppress(WorkflowAlreadyStartedError):
                await workflow.start_child_workflow(
                    Drain.run,
                    DrainGatewayOrder(
                        rollout=self._order.rollout,
                        epoch=self._epoch,
                        gateway=self._order.fleet.gateway(name),
                        digest=self._order.targets[name].digest,
                        deadline=self._order.fleet.limits.drain_deadline,
                        limits=self._order.fleet.limits.drain,
                        went_back=True,
                        failed=self._order.failed,
                        decision=self._order.decision,
                    ),
                    id=f"drain/{name}/{self._order.rollout}/{self._epoch}",
                    parent_close_policy=ParentClosePolicy.ABANDON,
                )

    async def _tell_guardian(self) -> None:
        if self._order.guardian is None:
            return
        self._told += 1
        report = RestoreReport(
            at=workflow.now(),
            number=self._told,
            reason=self._order.reason,
            back=tuple(sorted(self._back)),
            missing=tuple(f"{name}: {why}" for name, why in sorted(self._troubles.items())),
        )
        try:
            await workflow.get_external_workflow_handle(self._order.guardian).signal(
                "report_rollback", report
            )
        except Exception as error:  # noqa: BLE001 - the way back never depends on anyone listening
            workflow.logger.warning("nobody hears the rollback's report: %s", error)

    def _operation(self, gateway: str, step: str) -> Operation:
        return Operation(
            rollout=self._order.rollout,
            epoch=self._epoch,
            gateway=gateway,
            step=step,
            digest=self._order.targets[gateway].digest,
        )
