"""Install: the first release on gateways that serve nobody yet; afterwards only rollouts change them."""

import asyncio

from temporalio import workflow

from activities.instances import InstanceActivities, SlotOrder, StageOrder, StartOrder
from activities.ledger import KnownGoodEntry, LedgerActivities
from activities.steering import SteeringActivities
from policies.words.fleet import Fleet, Gateway
from policies.words.operation import Operation
from policies.words.plan import ReleaseRef
from policies.words.word import Name, Word
from workflows import steps
from workflows.failures import stopped


class InstallOrder(Word):
    """Which release the fleet's empty gateways begin with."""

    name: Name
    fleet: Fleet
    release: ReleaseRef
    source: str


@workflow.defn(name="Install")
class Install:
    """Bring every empty gateway up at once; one that serves already is left alone and named."""

    @workflow.run
    async def run(self, order: InstallOrder) -> tuple[str, ...]:
        """Return the gateways that were installed and are known-good now."""
        epoch = steps.epoch_now()
        installed = await asyncio.gather(
            *[self._install(order, gateway, epoch) for gateway in order.fleet.gateways]
        )
        return tuple(name for name in installed if name is not None)

    async def _install(self, order: InstallOrder, gateway: Gateway, epoch: int) -> str | None:
        queue, release = gateway.task_queue, order.release

        def operation(step: str) -> Operation:
            return Operation(
                rollout=order.name, epoch=epoch, gateway=gateway.name, step=step, digest=release.digest
            )

        state = await workflow.execute_activity_method(
            InstanceActivities.observe_gateway, task_queue=queue, **steps.ASK
        )
        if state.steering.serving is not None:
            return None
        await workflow.execute_activity_method(
            InstanceActivities.stage_release,
            StageOrder(operation=operation("stage"), release=release, source=order.source),
            task_queue=queue,
            **steps.CHANGE,
        )
        started = await workflow.execute_activity_method(
            InstanceActivities.start_instance,
            StartOrder(operation=operation("start"), release=release),
            task_queue=queue,
            **steps.CHANGE,
        )
        slot = SlotOrder(operation=operation("probe"), slot=started.slot)
        probe = await workflow.execute_activity_method(
            InstanceActivities.probe_instance, slot, task_queue=queue, **steps.CHANGE
        )
        if not probe.passed:
            raise stopped(f"{gateway.name} does not take a login ({probe.stage}): {probe.reason}")
        keep = SlotOrder(operation=operation("keep"), slot=started.slot)
        await workflow.execute_activity_method(
            SteeringActivities.make_permanent, keep, task_queue=queue, **steps.STEER
        )
        await workflow.execute_activity_method(
            LedgerActivities.record_known_good,
            KnownGoodEntry(fleet=order.fleet.name, gateway=gateway.name, release=release, rollout=order.name),
            task_queue=steps.CONTROL_QUEUE,
            **steps.RECORD,
        )
        return gateway.name
