"""Instances on a gateway's host: stage a release, start it in a free slot, probe it, stop it when empty."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field
from temporalio import activity

from activities.liveness import answering
from policies.model.client_profiles import NO_PROFILES, Profiles, ToldProfiles
from policies.model.drain import Uncounted
from policies.model.instance import MOST_SLOTS, GatewayState, Probe
from policies.model.mirror import Mirror
from policies.model.operation import Operation
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef
from policies.model.release_tests import MOST_MEASUREMENTS, Load, Measurement, Names
from policies.model.settings import MOST_SETTINGS, Setting
from policies.model.value import Count, Message, Name, Sentence

Obstacles = Annotated[tuple[Sentence, ...], Field(max_length=64)]
"""Why a release cannot be put on a gateway, a sentence each; there are none where it can."""


class StageOrder(Message):
    """Put this release on the host, verified, without running it."""

    operation: Operation
    release: ReleaseRef
    source: str
    slot: Name | None = Field(
        default=None,
        exclude_if=lambda slot: slot is None,
        description="lay out its config for this slot, too, which a cluster starts; None where the host does",
    )


class StartOrder(Message):
    """Run this release in a free slot (or leave it running where it already does)."""

    operation: Operation
    release: ReleaseRef
    placed: Placed | None = Field(
        default=None,
        exclude_if=lambda placed: placed is None,
        description="the instance that a cluster has started; None where the host starts it",
    )


class SlotOrder(Message):
    """Do the named step to one slot."""

    operation: Operation
    slot: Name


class StopOrder(SlotOrder):
    """Stop the instance of a slot; one that does not return its sessions only if `uncounted` means it."""

    uncounted: Uncounted = Uncounted.NONE


class InspectOrder(SlotOrder):
    """Make the release tests of the instance in a slot, also of these names and client profiles."""

    names: Names | None = Field(
        default=None,
        exclude_if=lambda names: names is None,
        description="what its clients resolve inside and outside of the tunnel",
    )
    profiles: ToldProfiles = Field(
        default={},
        exclude_if=lambda profiles: not profiles,
        description="how clients are set up that have to get in",
    )


class Staged(Message):
    """What is on the host now, and who signed it."""

    release: ReleaseRef
    signers: tuple[Sentence, ...] = Field(max_length=64)
    changed: bool


class Started(Message):
    """The slot in which the release runs, as read back from the host."""

    slot: Name
    state: GatewayState
    changed: bool


class RestoreOrder(Message):
    """Go back to this release: the operation's epoch fences off whatever was ordered before."""

    operation: Operation
    release: ReleaseRef
    overrules: bool = Field(
        default=False,
        description="an operator ordered it, so that it also moves a gateway that was steered by break-glass",
    )


class Restored(Message):
    """How going back went, as read back from the host.

    `slot` is where the release is alive, None where it does not run any more: then nothing was
    steered, and it must be started first. `back` says that every new session goes there.
    """

    state: GatewayState
    slot: Name | None
    back: bool
    changed: bool


class ReloadOrder(Message):
    """Give what runs the host's present credentials."""

    operation: Operation
    older: bool = Field(default=False, description="also what is older or names less than those in use")
    end_removed: bool = Field(
        default=False,
        exclude_if=lambda end: not end,
        description="also end the sessions of users whom the present list does not name",
    )


class ConfigureOrder(Message):
    """Have whatever runs use these settings, and whatever starts later; none but these."""

    operation: Operation
    settings: tuple[Setting, ...] = Field(max_length=MOST_SETTINGS)


class TakeBackOrder(Message):
    """Put back what the instances had before this reload or change of settings."""

    operation: Operation
    change: Name


class Reloaded(Message):
    """Which instances use what they were to get, and which files of theirs were others before."""

    state: GatewayState
    slots: tuple[Name, ...] = Field(max_length=MOST_SLOTS)
    credentials: tuple[Sentence, ...] = Field(max_length=64)
    ended: Count = Field(default=0, description="sessions of users who were taken out")
    staying: Count | None = Field(
        default=0, description="sessions of such users that go on; null where an instance does not say"
    )


class LoadOrder(Message):
    """Load the instance in a slot and the one that serves beside it."""

    operation: Operation
    slot: Name
    load: Load


class MirrorOrder(Message):
    """Mirror users' last logins to the instance in a slot."""

    operation: Operation
    slot: Name
    mirror: Mirror


class Inspected(Message):
    """What the release tests of the instance in a slot measured."""

    slot: Name
    measurements: tuple[Measurement, ...] = Field(max_length=MOST_MEASUREMENTS)


class PreflightQuery(Message):
    """Whether the release can be put on the gateway, and whether there is a way back from it."""

    release: ReleaseRef
    source: str = Field(default="", description="where signatures made since may be; empty where nowhere")
    given_up: bool = Field(
        default=False,
        description="somebody has withdrawn what serves: whether it would start again does not matter",
    )


class Runtime(Protocol):
    """How instances exist on one gateway: slots on a host, containers, pods."""

    async def observe(self) -> GatewayState:
        """Return what is true now, read from the host."""
        ...

    async def preflight(
        self, release: ReleaseRef, source: str = "", *, given_up: bool = False
    ) -> tuple[str, ...]:
        """Return one sentence for each reason why this release cannot be put here; empty when it can.

        That what serves would not start again is one, unless that way back was `given_up`: signatures that
        others have made since are fetched from the source.
        """
        ...

    async def stage(
        self, operation: Operation, release: ReleaseRef, source: str, slot: str | None = None
    ) -> Staged:
        """Verify the release and lay its files out; a second call changes nothing.

        With a slot, which a cluster is going to start, also the config that its instance finds there.
        """
        ...

    async def start(self, operation: Operation, release: ReleaseRef, placed: Placed | None = None) -> Started:
        """Run the release in a slot that is neither serving nor draining, after its config test.

        What a cluster has placed runs already, and is taken for what it was proven to be.
        """
        ...

    async def probe(self, slot: str) -> Probe:
        """Log in and ping through the instance's own port."""
        ...

    async def inspect(
        self, operation: Operation, slot: str, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the release tests of an instance that runs; nobody is steered and no session of users ends."""
        ...

    async def mirror(self, operation: Operation, slot: str, mirror: Mirror) -> tuple[Measurement, ...]:
        """Make shadow logins to an instance and to the one that serves, as users logged in to the gateway."""
        ...

    async def load(self, operation: Operation, slot: str, load: Load) -> tuple[Measurement, ...]:
        """Measure a load on an instance that runs and on the one that serves; users of the host feel it."""
        ...

    async def stop(
        self, operation: Operation, slot: str, uncounted: Uncounted = Uncounted.NONE
    ) -> GatewayState:
        """Stop an instance that has no sessions and gets no new ones; Refused otherwise.

        Of one that does not answer, `uncounted` says what the host has to have found instead.
        """
        ...

    async def fence(self, operation: Operation) -> GatewayState:
        """Raise the gateway's epoch to the operation's; older operations are refused from then on."""
        ...

    async def restore(
        self, operation: Operation, release: ReleaseRef, *, overrules: bool = False
    ) -> Restored:
        """Raise the epoch and send new sessions to the release where it is alive; sessions stay.

        A gateway that an operator steered by break-glass is `Fenced` to an order that does not overrule that.
        """
        ...

    async def reload(self, operation: Operation, *, older: bool, end_removed: bool = False) -> Reloaded:
        """Give every running instance the host's present credentials, all or none; sessions stay.

        Those of users who are not in the present list any more do not, if they are to be ended.
        """
        ...

    async def configure(self, operation: Operation, settings: Sequence[Setting]) -> Reloaded:
        """Give every running instance these settings, all or none; sessions stay."""
        ...

    async def take_back(self, operation: Operation, change: Name) -> Reloaded:
        """Give every running instance what it had before that reload, all or none; sessions stay."""
        ...


class InstanceActivities:
    """Steps on one gateway's host; safe to repeat after any crash."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name="observe_gateway")
    async def observe_gateway(self) -> GatewayState:
        """Return what is true of this gateway now."""
        async with answering():
            return await self._runtime.observe()

    @activity.defn(name="preflight_gateway")
    async def preflight_gateway(self, asked: PreflightQuery) -> Obstacles:
        """Return every reason why this release cannot be put here; nothing is changed."""
        async with answering():
            return await self._runtime.preflight(asked.release, asked.source, given_up=asked.given_up)

    @activity.defn(name="stage_release")
    async def stage_release(self, order: StageOrder) -> Staged:
        """Ensure that the release is on the host, verified by the host itself."""
        async with answering():
            return await self._runtime.stage(order.operation, order.release, order.source, order.slot)

    @activity.defn(name="start_instance")
    async def start_instance(self, order: StartOrder) -> Started:
        """Ensure that the release runs in a slot, with the executable the manifest names."""
        async with answering():
            return await self._runtime.start(order.operation, order.release, order.placed)

    @activity.defn(name="probe_instance")
    async def probe_instance(self, order: SlotOrder) -> Probe:
        """Log in and ping through the slot's own port."""
        async with answering():
            return await self._runtime.probe(order.slot)

    @activity.defn(name="inspect_instance")
    async def inspect_instance(self, order: InspectOrder) -> Inspected:
        """Make the release tests through the slot's own port; a repeat makes them again."""
        async with answering():
            measured = await self._runtime.inspect(order.operation, order.slot, order.names, order.profiles)
            return Inspected(slot=order.slot, measurements=measured)

    @activity.defn(name="mirror_instance")
    async def mirror_instance(self, order: MirrorOrder) -> Inspected:
        """Mirror users' last logins to the instance before its first user; a repeat begins again."""
        async with answering():
            measured = await self._runtime.mirror(order.operation, order.slot, order.mirror)
            return Inspected(slot=order.slot, measurements=measured)

    @activity.defn(name="load_instance")
    async def load_instance(self, order: LoadOrder) -> Inspected:
        """Load the instance and the one that serves, in turn; a repeat loads them again."""
        async with answering():
            measured = await self._runtime.load(order.operation, order.slot, order.load)
            return Inspected(slot=order.slot, measurements=measured)

    @activity.defn(name="stop_instance")
    async def stop_instance(self, order: StopOrder) -> GatewayState:
        """Ensure that the slot is stopped; refused while it has sessions, or their number is unknown."""
        async with answering():
            return await self._runtime.stop(order.operation, order.slot, order.uncounted)

    @activity.defn(name="fence_gateway")
    async def fence_gateway(self, operation: Operation) -> GatewayState:
        """Ensure that the gateway refuses operations of earlier epochs."""
        async with answering():
            return await self._runtime.fence(operation)

    @activity.defn(name="restore_gateway")
    async def restore_gateway(self, order: RestoreOrder) -> Restored:
        """Ensure that older orders are refused and new sessions go to the release, if it runs; one step."""
        async with answering():
            return await self._runtime.restore(order.operation, order.release, overrules=order.overrules)

    @activity.defn(name="reload_credentials")
    async def reload_credentials(self, order: ReloadOrder) -> Reloaded:
        """Ensure that whatever runs uses the host's present credentials; a bad one changes nothing."""
        async with answering():
            return await self._runtime.reload(
                order.operation, older=order.older, end_removed=order.end_removed
            )

    @activity.defn(name="configure_gateway")
    async def configure_gateway(self, order: ConfigureOrder) -> Reloaded:
        """Ensure that whatever runs or starts later has these settings; a bad one changes nothing."""
        async with answering():
            return await self._runtime.configure(order.operation, order.settings)

    @activity.defn(name="take_back_reload")
    async def take_back_reload(self, order: TakeBackOrder) -> Reloaded:
        """Ensure that whatever runs has again what it had before that reload, unless a later one came."""
        async with answering():
            return await self._runtime.take_back(order.operation, order.change)
