"""Install: the first release on gateways that serve nobody yet; afterwards only upgrades change them."""

import asyncio
from enum import Enum

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.plans import PartEntry, PlanActivities
from policies.model.instance import Steering
from policies.model.plan import ReleaseRef
from policies.model.plan_part import Member, PartKey, PlanHeader
from policies.model.value import Name, Value
from workflows import control
from workflows.children import FINISHED_WITHIN, ended_of, first_named, in_parts
from workflows.cluster import PreparedSlots
from workflows.failures import sentence_of, stopped
from workflows.gateway import GatewaySteps


class InstallOrder(Value):
    """Which release the gateways of a plan begin with; with a key only those of that part."""

    change: Name
    header: PlanHeader
    release: ReleaseRef
    source: str
    epoch: int
    key: PartKey | None = None


class Installed(Value):
    """Which gateways serve now and did not before, and how many do not."""

    installed: tuple[str, ...] = ()
    served: int = 0
    """How many gateways served the release before."""
    failures: int = 0
    failed: dict[str, str] = {}
    """Why, of the first of those that do not."""


class _Done(Enum):
    """How a gateway came to serve the release."""

    INSTALLED = "installed by this change"
    SERVED = "served it before"


@workflow.defn(name="Install")
class Install:
    """Every empty gateway at once; one that serves already is left alone, one that fails hinders nobody."""

    @workflow.run
    async def run(self, order: InstallOrder) -> Installed:
        """Return what became of the gateways; what was installed is known-good from now on.

        A gateway that served the release before keeps its known-good, if it has one: an operator may have
        steered it there by hand.
        """
        keys = (order.key,) if order.key else order.header.keys
        if len(keys) == 1:
            return await self._install_part(order, keys[0])
        parts = {f"{key.number:04}": order.model_copy(update={"key": key}) for key in keys}
        found = await in_parts(Install.run, parts)
        return Installed(
            installed=tuple(name for part in found for name in part.installed),
            served=sum(part.served for part in found),
            failures=sum(part.failures for part in found),
            failed=first_named(part.failed for part in found),
        )

    async def _install_part(self, order: InstallOrder, key: PartKey) -> Installed:
        part = await control.read_part(order.header.digest, key)
        failed: dict[str, str] = {}
        slots, ended, keeping = PreparedSlots(), dict[str, _Done](), dict[str, asyncio.Task[Steering]]()

        async def install(member: Member) -> None:
            how = await self._install(order, member, slots, failed, keeping)
            if how is not None:
                ended[member.gateway.name] = how

        try:
            await asyncio.gather(*map(install, part.members))
        except asyncio.CancelledError:  # what serves by now is known-good, whatever stopped the others
            ended |= dict.fromkeys(await ended_of(keeping, FINISHED_WITHIN), _Done.INSTALLED)
            failed.clear()
        installed = tuple(name for name, how in ended.items() if how is _Done.INSTALLED)
        served = tuple(name for name, how in ended.items() if how is _Done.SERVED)
        if names := (*installed, *served):
            entry = PartEntry(
                change=order.change,
                fleet=order.header.fleet,
                plan=order.header.digest,
                key=key,
                only=names,
                served=served,
            )
            await control.record(PlanActivities.promote_part, entry)
        return Installed(installed=installed, served=len(served), failures=len(failed), failed=failed)

    @staticmethod
    async def _install(
        order: InstallOrder,
        member: Member,
        slots: PreparedSlots,
        failed: dict[str, str],
        keeping: "dict[str, asyncio.Task[Steering]]",
    ) -> "_Done | None":
        """Return how the gateway came to serve the release, None when it does not.

        An attempt of this change that was cut short has installed it. The step that gives it users is in
        `keeping`, and is not cut short.
        """
        release = order.release
        on = GatewaySteps(member.gateway, order.change, order.epoch, release.digest)
        try:
            state = await on.observe()
            serving = state.serving
            if serving is not None:
                if (serving.release, serving.executable) != (release.digest, release.executable):
                    return None
                by_this_change = state.steering.generation.startswith(f"{order.change}/")
                return _Done.INSTALLED if by_this_change else _Done.SERVED
            prepared = await on.prepare(slots, release, order.source)
            await on.stage(release, order.source, prepared=prepared)
            started = await on.start(release, prepared=prepared)
            if member.settings is not None:
                await on.configure(member.settings)
            if doubt := await on.doubt_about(started.slot, "probe"):
                raise stopped(f"{member.gateway.name} {doubt}")
            keeping[member.gateway.name] = asyncio.create_task(on.keep(started.slot))
            await asyncio.shield(keeping[member.gateway.name])
        except (ActivityError, ApplicationError) as error:
            failed[member.gateway.name] = sentence_of(error)
            return None
        return _Done.INSTALLED
