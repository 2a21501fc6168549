"""Reload: gateways give what runs on them other credentials or settings; no session is touched."""

import asyncio
from collections.abc import Sequence
from functools import reduce

from pydantic import Field
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from activities.facts import FactActivities, LeftOutQuery
from activities.instances import Reloaded
from policies.model.fleet import RemovedUsers
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan_part import Part, PartKey, PlanHeader
from policies.model.settings import Setting, lines_of
from policies.model.value import Name, Value
from workflows import control
from workflows.children import FINISHED_WITHIN, ended_of, first_named, reported_by_parts
from workflows.failures import code_of, sentence_of, stopped
from workflows.gateway import GatewaySteps

NOTHING_GIVEN = frozenset(
    {"BadInput", "BeyondHostLimits", "Fenced", "ForeignOrder", "NotFoundError", "Refused"}
)
"""Answers to a change of settings by which a host has changed nothing, or put back what was there."""


EMPTIED = "an instance that was emptied in mid-reload"
"""Histories from before do not ask again what became of one that does not run any more."""


class ReloadOrder(Value):
    """Which wave of a plan is reloaded; with a key only the gateways of that part."""

    change: Name
    header: PlanHeader
    wave: int
    epoch: int
    older: bool = False
    takes_back: Name | None = Field(default=None, exclude_if=lambda change: change is None)
    key: PartKey | None = None


class ReloadResult(Value):
    """How many gateways use what they were to get, how many had something else before, and who failed."""

    done: int = 0
    changed: int = 0
    ended: int = 0
    """Sessions of users who were taken out."""
    staying: int = 0
    """Sessions of such users that go on."""
    stay: dict[str, str] = {}
    """How many, by gateway, of the first of those where any may."""
    failures: int = 0
    left_out: int = 0
    """Gateways that an operator has quarantined since the plan was made."""
    unsure: int = 0
    """How many of those that failed may have what they were to get all the same."""
    failed: dict[str, str] = {}
    """Why, of the first of those that failed or were left out."""

    def and_also(self, other: "ReloadResult") -> "ReloadResult":
        """Return both as one."""
        return ReloadResult(
            done=self.done + other.done,
            changed=self.changed + other.changed,
            ended=self.ended + other.ended,
            staying=self.staying + other.staying,
            stay=first_named([self.stay, other.stay]),
            failures=self.failures + other.failures,
            left_out=self.left_out + other.left_out,
            unsure=self.unsure + other.unsure,
            failed=first_named([self.failed, other.failed]),
        )


@workflow.defn(name="Reload")
class Reload:
    """All gateways of a wave side by side; one that fails hinders nobody.

    One that is cancelled returns what it has done by then.
    """

    @workflow.run
    async def run(self, order: ReloadOrder) -> ReloadResult:
        """Return what became of the gateways."""
        keys = (order.key,) if order.key else order.header.wave(order.wave).keys
        if len(keys) == 1:
            return await self._reload_part(order, keys[0])
        parts = {f"{key.number:04}": order.model_copy(update={"key": key}) for key in keys}
        found = await reported_by_parts(Reload.run, parts)
        return reduce(ReloadResult.and_also, found, ReloadResult())

    async def _reload_part(self, order: ReloadOrder, key: PartKey) -> ReloadResult:
        part = await control.read_part(order.header.digest, key)
        failed: dict[str, str] = {}
        given = set[str]()
        settings = {member.gateway.name: member.settings for member in part.members}
        left_out = await _left_out(order, part)

        async def one(on: GatewaySteps) -> Reloaded | None:
            try:
                return await self._reload(on, order, settings[on.gateway.name], given)
            except (ActivityError, ApplicationError) as error:
                if is_cancelled_exception(error):
                    raise
                failed[on.gateway.name] = sentence_of(error)
                return None

        asked = {
            member.gateway.name: asyncio.create_task(
                one(GatewaySteps(member.gateway, order.change, order.epoch, order.header.digest))
            )
            for member in part.members
            if member.gateway.name not in left_out
        }
        try:
            await asyncio.gather(*map(asyncio.shield, asked.values()))
        except asyncio.CancelledError:
            ended = await ended_of(asked, FINISHED_WITHIN)
            failed |= dict.fromkeys(asked.keys() - ended, "it had not answered when this was stopped")
        found = [task.result() for task in asked.values() if task.done() and not task.cancelled()]
        done = [one for one in found if one is not None]
        return ReloadResult(
            done=len(done),
            changed=sum(bool(one.credentials) for one in done),
            ended=sum(one.ended for one in done),
            staying=sum(one.staying or 0 for one in done),
            stay=first_named([{one.state.gateway: _staying(one)} for one in done if one.staying != 0]),
            failures=len(failed),
            left_out=len(left_out),
            unsure=len(given & failed.keys()),
            failed=first_named([failed, left_out]),
        )

    @staticmethod
    async def _reload(
        on: GatewaySteps, order: ReloadOrder, settings: tuple[Setting, ...] | None, given: set[str]
    ) -> Reloaded:
        """Return what the host answered; afterwards every instance has passed its probe.

        Its name is added to `given` when it may have other settings from then on, whatever comes after.
        """
        before = await on.observe()
        ran = [one.slot for one in before.instances if one.state is InstanceState.RUNNING]
        on.epoch = max(on.epoch, before.epoch + 1)
        if order.takes_back is not None:
            done = await on.take_back(order.takes_back)
            if settings and not done.slots and done.state.settings == lines_of(settings):
                raise stopped(
                    f"{on.gateway.name} keeps the settings, since its host has nothing from before them: "
                    "correct the fleet's file and start it: penstock config start"
                )
        elif settings is not None:
            given.add(on.gateway.name)
            try:
                done = await on.configure(settings)
            except ActivityError as error:
                if code_of(error) in NOTHING_GIVEN:
                    given.remove(on.gateway.name)
                raise
        else:
            ends = order.header.limits.removed_users is RemovedUsers.END
            done = await on.reload(older=order.older, end_removed=ends)
        _require_noted(done.state, order, settings)
        name, lost = on.gateway.name, _not_running(ran, done) if order.takes_back is None else []
        for slot in lost:
            if not (workflow.patched(EMPTIED) and _was_stopped(slot, done.state)):
                raise stopped(f"slot {slot} of {name} ran before and does not any more; see its log")
        for slot in done.slots:
            doubt = await on.doubt_about(slot, f"probe {slot}")
            if doubt and not (workflow.patched(EMPTIED) and _was_stopped(slot, await on.observe())):
                raise stopped(f"slot {slot} of {name} {doubt}")
        return done


def _require_noted(state: GatewayState, order: ReloadOrder, settings: tuple[Setting, ...] | None) -> None:
    """Raise unless the host has noted what it was given: it would count as missed, and be given again."""
    if order.takes_back is not None:
        noted, what = state.settings_answered != order.takes_back, "what it had before"
    elif settings is not None:
        noted, what = state.settings_answered == order.change, "its settings"
    else:
        noted, what = state.reload_answered == order.change, "its host's present credentials"
    if not noted:
        raise stopped(f"{state.gateway} uses {what}, but its host cannot note that: is its disk full?")


async def _left_out(order: ReloadOrder, part: Part) -> dict[Name, str]:
    """Return which gateways operators have quarantined since; these stay as they are."""
    names = tuple(member.gateway.name for member in part.members)
    asked = LeftOutQuery(fleet=order.header.fleet, gateways=names)
    return await control.ask(FactActivities.find_left_out, asked)


def _staying(done: Reloaded) -> str:
    """Return how many sessions of users who were taken out go on there, as people read it."""
    return "not known" if done.staying is None else f"{done.staying}"


def _not_running(ran: Sequence[str], done: Reloaded) -> list[str]:
    """Return the slots that ran before and do not now; settings leave an adopted daemon alone, which runs."""
    runs = {one.slot for one in done.state.instances if one.state is InstanceState.RUNNING}
    return sorted(set(ran) - set(done.slots) - runs)


def _was_stopped(slot: str, state: GatewayState) -> bool:
    """Whether an instance that gets nobody was stopped by order, as by a drain whose last user left.

    A gateway that does not name the slot any more, as that of a daemon that was adopted, has not said so.
    """
    gets_users = slot in (state.steering.serving, state.steering.trial)
    said = any(one.slot == slot and one.state is InstanceState.STOPPED for one in state.instances)
    return said and not gets_users
