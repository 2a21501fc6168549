"""All steps on one gateway, each said once: which activity, for how long, under which identity."""

from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.instances import (
    ConfigureOrder,
    Inspected,
    InspectOrder,
    InstanceActivities,
    LoadOrder,
    MirrorOrder,
    PreflightQuery,
    Reloaded,
    ReloadOrder,
    Restored,
    RestoreOrder,
    SlotOrder,
    Staged,
    StageOrder,
    Started,
    StartOrder,
    StopOrder,
    TakeBackOrder,
)
from activities.placement import Prepared
from activities.sessions import Drained, DrainOrder, Ended, EndOrder, SessionActivities
from activities.steering import SteeringActivities, TrialOrder
from policies.model.drain import Look, Uncounted
from policies.model.fleet import GatewayRef
from policies.model.instance import GatewayState, Probe, Steering
from policies.model.mirror import Mirror
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.release_tests import Load, ReleaseTests
from policies.model.settings import Setting
from policies.model.value import Digest, Name
from workflows import steps
from workflows.answers import GatewayStep, answer_of, bad_answer, read_answer
from workflows.cluster import ClusterSteps, PreparedSlots
from workflows.failures import sentence_of

T = TypeVar("T")


class GatewaySteps:
    """One gateway as a change sees it; `epoch` may be raised when its host has seen a later one."""

    def __init__(self, gateway: GatewayRef, change: Name, epoch: int, digest: Digest) -> None:
        self.gateway = gateway
        self.epoch = epoch
        self.cluster = ClusterSteps.of(gateway)
        self._change = change
        self._digest = digest

    def operation(self, step: str) -> Operation:
        """Return the identity of that step, the same in every repeat of it."""
        return Operation(
            rollout=self._change,
            epoch=self.epoch,
            gateway=self.gateway.name,
            step=step,
            digest=self._digest,
        )

    async def _do(self, step: GatewayStep[T], patience: steps.Options, *order: object) -> T:
        return await answer_of(self.gateway, step, patience, *order)

    # --- looking ------------------------------------------------------------------

    async def observe(self, patience: steps.Options = steps.ASK) -> GatewayState:
        """Return what is true of the gateway now."""
        return await self._do(InstanceActivities.observe_gateway, patience)

    async def preflight(
        self, release: ReleaseRef, source: str = "", *, given_up: bool = False
    ) -> tuple[str, ...]:
        """Return every reason why the release cannot be put there, or there is no way back from it."""
        asked = PreflightQuery(release=release, source=source, given_up=given_up)
        return await self._do(InstanceActivities.preflight_gateway, steps.ASK, asked)

    async def probe(self, slot: str, step: str = "probe", patience: steps.Options = steps.CHANGE) -> Probe:
        """Log in and ping through the slot's own port."""
        return await self._do(
            InstanceActivities.probe_instance, patience, SlotOrder(operation=self.operation(step), slot=slot)
        )

    async def inspect(self, slot: str, tests: ReleaseTests) -> Inspected:
        """Make the release tests of the instance in the slot, which no user has met yet."""
        order = InspectOrder(
            operation=self.operation("inspect"), slot=slot, names=tests.names, profiles=tests.profiles
        )
        return await self._do(InstanceActivities.inspect_instance, steps.INSPECT, order)

    async def mirror(self, slot: str, mirror: Mirror) -> Inspected:
        """Mirror users' last logins to the instance in the slot, beside the one that serves."""
        order = MirrorOrder(operation=self.operation("mirror"), slot=slot, mirror=mirror)
        return await self._do(InstanceActivities.mirror_instance, steps.MIRROR, order)

    async def load(self, slot: str, load: Load) -> Inspected:
        """Load the instance in the slot, and the one that serves beside it, to compare them."""
        order = LoadOrder(operation=self.operation("load"), slot=slot, load=load)
        return await self._do(InstanceActivities.load_instance, steps.LOAD, order)

    async def doubt_about(self, slot: str, step: str, patience: steps.Options = steps.CHANGE) -> str | None:
        """Return why the slot may take no logins, None after a passed probe; no probe is a doubt, too.

        Raises:
            ActivityError: It was cancelled; who asks is to go no further.
        """
        try:
            probe = await self.probe(slot, step, patience)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return f"cannot be probed: {sentence_of(error)}"
        return None if probe.passed else f"fails its probe at {probe.stage}: {probe.reason}"

    # --- forward ------------------------------------------------------------------

    async def prepare(self, slots: PreparedSlots, release: ReleaseRef, source: str) -> Prepared | None:
        """Have the gateway's cluster hold the release in a slot; None where the host starts its instances."""
        return await slots.of(self.cluster, self.operation("prepare"), release, source)

    async def stage(
        self, release: ReleaseRef, source: str, step: str = "stage", prepared: Prepared | None = None
    ) -> Staged:
        """Put the release on the host, verified by the host itself; for a cluster its slot's config, too."""
        slot = prepared.slot if prepared else None
        return await self._do(
            InstanceActivities.stage_release,
            steps.CHANGE,
            StageOrder(operation=self.operation(step), release=release, source=source, slot=slot),
        )

    async def start(
        self, release: ReleaseRef, step: str = "start", prepared: Prepared | None = None
    ) -> Started:
        """Start the release in a free slot: the prepared one where the cluster starts it, taken over here."""
        placed = None
        if self.cluster is not None and prepared is not None:
            placed = await self.cluster.place(self.operation(f"place-{step}"), prepared)
        started = await self._do(
            InstanceActivities.start_instance,
            steps.CHANGE,
            StartOrder(operation=self.operation(step), release=release, placed=placed),
        )
        if placed is not None and started.slot != placed.slot:
            raise bad_answer("start_instance", f"its agent took over slot {started.slot}, not {placed.slot}")
        return started

    async def try_out(
        self, slot: str, lease: timedelta, share: int = 100, *, renew: bool = False, again: bool = False
    ) -> None:
        """Send the share of new sessions to the slot for the lease; only renewals can be late.

        A trial that begins `again` takes no longer than a renewal: a host that refuses it is soon known.
        """
        await self._do(
            SteeringActivities.start_trial,
            steps.confirm_within(lease) if renew or again else steps.SWITCH,
            TrialOrder(operation=self.operation("trial"), slot=slot, lease=lease, share=share, renew=renew),
        )

    async def keep(self, slot: str, patience: steps.Options = steps.STEER) -> Steering:
        """Send new sessions to the slot for good; return what was read back."""
        return await self._do(
            SteeringActivities.make_permanent,
            patience,
            SlotOrder(operation=self.operation("keep"), slot=slot),
        )

    async def reload(self, *, older: bool, end_removed: bool = False) -> Reloaded:
        """Give whatever runs there its host's present credentials; sessions stay."""
        return await self._do(
            InstanceActivities.reload_credentials,
            steps.CHANGE,
            ReloadOrder(operation=self.operation("reload"), older=older, end_removed=end_removed),
        )

    async def configure(self, settings: tuple[Setting, ...]) -> Reloaded:
        """Have whatever runs there use these settings; sessions stay."""
        return await self._do(
            InstanceActivities.configure_gateway,
            steps.CHANGE,
            ConfigureOrder(operation=self.operation("configure"), settings=settings),
        )

    async def take_back(self, change: Name) -> Reloaded:
        """Give whatever runs there what it had before that reload; sessions stay."""
        return await self._do(
            InstanceActivities.take_back_reload,
            steps.CHANGE,
            TakeBackOrder(operation=self.operation("take-back"), change=change),
        )

    # --- back ---------------------------------------------------------------------

    async def restore(
        self, release: ReleaseRef, patience: steps.Options = steps.GO_BACK, *, overrules: bool = False
    ) -> Restored:
        """Fence and steer back in one step; what is not there to go back to is told, not started.

        The host refuses it where an operator steered the gateway by break-glass, unless it `overrules` that.
        """
        order = RestoreOrder(operation=self.operation("back"), release=release, overrules=overrules)
        return await self._do(InstanceActivities.restore_gateway, patience, order)

    async def end_trial(self) -> None:
        """Send new sessions to the permanent slot again."""
        await self._do(SteeringActivities.end_trial, steps.GO_BACK, self.operation("end-trial"))

    # --- emptying -----------------------------------------------------------------

    def start_waiting(
        self, slot: str, within: timedelta, last: Look | None, draining: int, *, connected_only: bool
    ) -> workflow.ActivityHandle[RawValue]:
        """Begin to wait on the host until the slot is empty or the time is over, as one of so many drains."""
        return workflow.start_activity(
            SessionActivities.drain_instance.__name__,
            DrainOrder(
                operation=self.operation(f"drain-{slot}"),
                slot=slot,
                within=within,
                last=last,
                connected_only=connected_only,
            ),
            task_queue=self.gateway.task_queue,
            activity_id=steps.own_id(),
            result_type=RawValue,
            schedule_to_close_timeout=within + timedelta(minutes=1),
            start_to_close_timeout=within + timedelta(seconds=15),
            heartbeat_timeout=steps.drain_heartbeat(draining),
            retry_policy=steps.PATIENT["retry_policy"],
        )

    async def drained(self, waiting: workflow.ActivityHandle[RawValue]) -> Drained:
        """Return how a wait went that `start_waiting` began."""
        return read_answer(self.gateway, SessionActivities.drain_instance, await waiting)

    async def end_sessions(self, slot: str, leave: int, reason: str, *, exempt_too: bool) -> Ended:
        """End sessions of the slot until so many are left."""
        return await self._do(
            SessionActivities.end_sessions,
            steps.END,
            EndOrder(
                operation=self.operation(f"end-{slot}"),
                slot=slot,
                leave=leave,
                exempt_too=exempt_too,
                reason=reason,
            ),
        )

    async def stop(self, slot: str, uncounted: Uncounted = Uncounted.NONE) -> None:
        """Stop the slot's instance when nobody uses it; the host refuses while somebody does.

        Only what the host has found unused is taken from a cluster's node.
        """
        await self._do(
            InstanceActivities.stop_instance,
            steps.PATIENT,
            StopOrder(operation=self.operation(f"stop-{slot}"), slot=slot, uncounted=uncounted),
        )
        if self.cluster is not None:
            await self.cluster.remove(self.operation(f"remove-{slot}"), slot)
