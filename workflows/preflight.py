"""Preflight: ask every gateway of a plan whether the release fits and whether it can go back."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from itertools import chain

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.plans import PartQuery, PlanActivities
from policies.adoption import is_adopted
from policies.model.host_limits import CLOCK_DIFFERENCE
from policies.model.placement import NodeLook
from policies.model.plan import ReleaseRef
from policies.model.plan_part import Member, PartKey, PlanHeader
from policies.model.value import Name, Value
from policies.placement import trouble_of
from policies.planning.failure_budget import may_be_unable
from policies.planning.naming import named
from workflows import control, steps
from workflows.children import in_parts
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
    source: str = ""
    """Where signatures may be that others have made since of what serves."""
    key: PartKey | None = None


class Ready(Value):
    """How many gateways can change, why others cannot, and the newest epoch that the former have seen."""

    able: int
    unable: dict[str, tuple[Name, ...]] = {}
    """Gateways that cannot by what keeps them: one sentence may be about all of a fleet."""
    epoch: int = 0

    @property
    def names(self) -> tuple[Name, ...]:
        """The gateways that cannot change, by name."""
        return tuple(sorted({*chain.from_iterable(self.unable.values())}))


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
            return await self._ask_part(order, order.key)
        keys = order.header.keys
        if len(keys) == 1:
            found = [await self._ask_part(order, keys[0])]
        else:
            parts = {key.path: order.model_copy(update={"key": key}) for key in keys}
            found = await in_parts(Preflight.run, parts)
        ready = Ready(
            able=sum(part.able for part in found),
            unable=_together(part.unable for part in found),
            epoch=max((part.epoch for part in found), default=0),
        )
        if len(ready.names) > may_be_unable(order.header.limits, order.header.changing):
            raise stopped(_told(ready.unable))
        return ready

    @staticmethod
    async def _ask_part(order: PreflightOrder, key: PartKey) -> Ready:
        plan = order.header.digest
        part = await control.read_part(plan, key)
        moved = await control.record(PlanActivities.find_moved, PartQuery(plan=plan, key=key))
        if moved.gateways:
            raise stopped("; ".join(why for _, why in sorted(moved.gateways.items())[:NAMED]))
        answers = await ask_for_obstacles(part.members, order.release, order.source, moved.given_up)
        unable = _together(dict.fromkeys(whys, (name,)) for name, (whys, _) in answers.items())
        return Ready(
            able=sum(not whys for whys, _ in answers.values()),
            unable=unable,
            epoch=max((epoch for _, epoch in answers.values()), default=0),
        )


async def ask_for_obstacles(
    members: Iterable[Member], release: ReleaseRef, source: str, given_up: Collection[Name]
) -> dict[Name, tuple[tuple[str, ...], int]]:
    """Return why each gateway cannot change or go back, none when it can, and the epoch its host has seen.

    Of those whose known-good was `given_up` nobody is asked whether it would start again.
    """
    asked = tuple(members)
    back = {
        one.gateway.name: one.back
        for one in asked
        if one.back is not None and not is_adopted(one.back) and one.gateway.name not in given_up
    }
    looks = await look_at_all((member.gateway for member in asked), back, source)
    answers = await asyncio.gather(
        *[
            _ask(one, release, source, looks.get(one.gateway.name), given_up=one.gateway.name in given_up)
            for one in asked
        ]
    )
    return {one.gateway.name: answer for one, answer in zip(asked, answers, strict=True)}


async def _ask(
    member: Member, release: ReleaseRef, source: str, look: NodeLook | ActivityError | None, *, given_up: bool
) -> tuple[tuple[str, ...], int]:
    """Ask the gateway's own agent, after its cluster.

    What a cluster says of a node may pass until its turn has come, unless it knows none of that name.
    """
    if isinstance(look, ActivityError):
        return (f"its cluster: {sentence_of(look)}",), 0
    if look is not None and member.gateway.placement is not None and not look.there:
        return (trouble_of(look, member.gateway.placement).unfit,), 0
    on = GatewaySteps(member.gateway, "preflight", 0, release.digest)
    try:
        obstacles = await on.preflight(release, source, given_up=given_up)
        state = await on.observe()
    except ActivityError as error:
        return (sentence_of(error),), 0
    if look is not None and look.no_way_back and look.no_way_back not in obstacles:
        obstacles = (look.no_way_back, *obstacles)
    ahead = timedelta(seconds=(state.epoch - steps.epoch_now()) // 1000)
    if ahead > MOST_AHEAD:
        ordered = f"its host has seen an epoch that is {ahead} ahead of the engine's clock"
        obstacles = (f"{ordered}: set the clock that is wrong, or break the glass on that host", *obstacles)
    return obstacles, 0 if obstacles else state.epoch


def _together(found: Iterable[Mapping[str, tuple[Name, ...]]]) -> dict[str, tuple[Name, ...]]:
    """Return the gateways of all parts by what keeps them."""
    together: dict[str, tuple[Name, ...]] = {}
    for part in found:
        for why, names in part.items():
            together[why] = (*together.get(why, ()), *names)
    return together


def _told(obstacles: Mapping[str, tuple[Name, ...]]) -> str:
    """Return the first obstacles with whose they are, each once, for a sentence."""
    whose = sorted((sorted(names), why) for why, names in obstacles.items())
    first = [f"{named(names)}: {why}" for names, why in whose[:NAMED]]
    left = {name for names, _ in whose[NAMED:] for name in names}
    more = f"; and {len(left)} more gateways" if left else ""
    return "; ".join(first) + more
