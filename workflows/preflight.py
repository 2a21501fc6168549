"""Preflight: ask every gateway of a plan whether the release fits and whether it can go back."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.plans import PartQuery, PlanActivities
from policies.model.host_limits import CLOCK_DIFFERENCE
from policies.model.placement import NodeLook
from policies.model.plan import ReleaseRef
from policies.model.plan_part import Member, PartKey, PlanHeader
from policies.model.value import Digest, Value, sentence
from policies.placement import trouble_of
from policies.planning.failure_budget import may_be_unable
from workflows import control, steps
from workflows.children import in_parts, merged
from workflows.cluster import look_at_all
from workflows.failures import sentence_of, stopped
from workflows.gateway import GatewaySteps

NAMED = 10

MOST_AHEAD = CLOCK_DIFFERENCE / 2
"""How far an epoch may be ahead of the engine's clock: that of one host becomes that of all.

The others take what is less than CLOCK_DIFFERENCE ahead of their own clocks; half of it is left for
those that are behind the engine's.
"""


class PreflightOrder(Value):
    """Which plan is asked about; with a key only that part of it."""

    header: PlanHeader
    release: ReleaseRef
    key: PartKey | None = None


class Ready(Value):
    """How many gateways can change, why others cannot, and the newest epoch that the former have seen."""

    able: int
    unable: dict[str, str] = {}
    epoch: int = 0


@workflow.defn(name="Preflight")
class Preflight:
    """Parts side by side; more gateways in the way than the failure budget allows stop the change."""

    @workflow.run
    async def run(self, order: PreflightOrder) -> Ready:
        """Return what was found.

        Raises:
            ApplicationError: More gateways cannot change or cannot go back than may fail, or the
                ledger's known-good is another than the plan's (`Stopped`).
        """
        if order.key is not None:
            return await self._ask_part(order.header.digest, order.key, order.release)
        keys = order.header.keys
        if len(keys) == 1:
            found = [await self._ask_part(order.header.digest, keys[0], order.release)]
        else:
            parts = {key.path: order.model_copy(update={"key": key}) for key in keys}
            found = await in_parts(Preflight.run, parts)
        unable = merged(part.unable for part in found)
        if len(unable) > may_be_unable(order.header.limits, order.header.changing):
            first = [f"{name}: {why}" for name, why in sorted(unable.items())][:NAMED]
            more = f"; and {len(unable) - NAMED} more gateways" if len(unable) > NAMED else ""
            raise stopped("; ".join(first) + more)
        return Ready(
            able=sum(part.able for part in found),
            unable=unable,
            epoch=max((part.epoch for part in found), default=0),
        )

    @staticmethod
    async def _ask_part(plan: Digest, key: PartKey, release: ReleaseRef) -> Ready:
        part = await control.read_part(plan, key)
        moved = await control.record(PlanActivities.find_moved, PartQuery(plan=plan, key=key))
        if moved:
            raise stopped("; ".join(why for _, why in sorted(moved.items())[:NAMED]))
        looks = await look_at_all(member.gateway for member in part.members)
        answers = await asyncio.gather(
            *[_ask(member, release, looks.get(member.gateway.name)) for member in part.members]
        )
        obstacles = {
            member.gateway.name: why for member, (why, _) in zip(part.members, answers, strict=True) if why
        }
        return Ready(
            able=len(part.members) - len(obstacles),
            unable=obstacles,
            epoch=max((epoch for _, epoch in answers), default=0),
        )


async def _ask(member: Member, release: ReleaseRef, look: NodeLook | ActivityError | None) -> tuple[str, int]:
    """Return why the gateway cannot change (empty when it can), and the epoch its host has seen.

    What a cluster says of a node may pass until its turn has come, unless it knows none of that name.
    """
    if isinstance(look, ActivityError):
        return f"its cluster: {sentence_of(look)}", 0
    if look is not None and member.gateway.placement is not None and not look.there:
        return trouble_of(look, member.gateway.placement).unfit, 0
    on = GatewaySteps(member.gateway, "preflight", 0, release.digest)
    try:
        obstacles = await on.preflight(release)
        state = await on.observe()
    except ActivityError as error:
        return sentence_of(error), 0
    ahead = timedelta(seconds=(state.epoch - steps.epoch_now()) // 1000)
    if ahead > MOST_AHEAD:
        ordered = f"its host has seen an epoch that is {ahead} ahead of the engine's clock"
        obstacles = (f"{ordered}: set the clock that is wrong, or break the glass on that host", *obstacles)
    return sentence("; ".join(obstacles)), 0 if obstacles else state.epoch
