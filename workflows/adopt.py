"""Adopt: gateways that serve by themselves keep what runs as their first known-good; nobody is moved."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.adoption import AdoptionActivities
from activities.ledger import EventEntry, LedgerActivities
from activities.plans import AdoptedEntry, PlanActivities
from policies.adoption import is_named_as_found
from policies.model.adoption import Adopted, AdoptOrder, Examined, FoundDaemon
from policies.model.fleet import GatewayRef
from policies.model.operation import Operation
from policies.model.plan_part import Member, PartKey, PlanHeader
from policies.model.value import Name, Value
from workflows import control, steps
from workflows.answers import answer_of
from workflows.children import FINISHED_WITHIN, ended_of, first_named, in_parts
from workflows.failures import sentence_of, stopped


class AdoptionOrder(Value):
    """Which gateways are adopted, and which lines may stay behind; with a key only those of that part."""

    change: Name
    header: PlanHeader
    epoch: int
    without: tuple[str, ...] = ()
    key: PartKey | None = None


class Adoptions(Value):
    """How many gateways with how many sessions were adopted, and how many were not."""

    gateways: int = 0
    sessions: int = 0
    failures: int = 0
    failed: dict[str, str] = {}
    """Why, of the first of those that were not."""


@workflow.defn(name="Adopt")
class Adopt:
    """Every gateway at once, since none of them notices; one that refuses hinders nobody."""

    @workflow.run
    async def run(self, order: AdoptionOrder) -> Adoptions:
        """Return what became of the gateways; what runs on those adopted is known-good from now on."""
        keys = (order.key,) if order.key else order.header.keys
        if len(keys) == 1:
            return await self._adopt_part(order, keys[0])
        parts = {f"{key.number:04}": order.model_copy(update={"key": key}) for key in keys}
        found = await in_parts(Adopt.run, parts)
        return Adoptions(
            gateways=sum(part.gateways for part in found),
            sessions=sum(part.sessions for part in found),
            failures=sum(part.failures for part in found),
            failed=first_named(part.failed for part in found),
        )

    async def _adopt_part(self, order: AdoptionOrder, key: PartKey) -> Adoptions:
        part = await control.read_part(order.header.digest, key)
        failed: dict[str, str] = {}
        adopting = {
            member.gateway.name: asyncio.create_task(self._adopt(order, member, failed))
            for member in part.members
        }
        try:
            await asyncio.shield(asyncio.gather(*adopting.values()))
            answers = {name: task.result() for name, task in adopting.items()}
        except asyncio.CancelledError:  # what is adopted by now is known-good, whatever stopped the others
            answers = await ended_of(adopting, FINISHED_WITHIN)
            failed.clear()
        adopted = [answer for answer in answers.values() if answer is not None]
        if adopted:
            entry = AdoptedEntry(
                fleet=order.header.fleet,
                change=order.change,
                releases={answer.gateway: answer.release for answer in adopted},
            )
            await control.record(PlanActivities.record_adopted, entry)
        for answer in adopted:
            await control.record(LedgerActivities.record_event, _evidence(order, answer))
        return Adoptions(
            gateways=len(adopted),
            sessions=sum(answer.sessions for answer in adopted),
            failures=len(failed),
            failed=failed,
        )

    @staticmethod
    async def _adopt(order: AdoptionOrder, member: Member, failed: dict[str, str]) -> Adopted | None:
        """Return what was adopted, also when an earlier attempt was cut short; None when it was refused."""
        gateway = member.gateway
        operation = Operation(
            rollout=order.change,
            epoch=order.epoch,
            gateway=gateway.name,
            step="adopt",
            digest=order.header.digest,
        )
        wanted = AdoptOrder(operation=operation, without=order.without)
        try:
            answer = await answer_of(gateway, AdoptionActivities.adopt_gateway, steps.CHANGE, wanted)
            if answer.gateway != gateway.name:
                raise stopped(f"its agent answers as {answer.gateway}")
            if not is_named_as_found(answer.release):
                said = f"{answer.release.product} {answer.release.version}"
                raise stopped(f"its agent calls what it found {said}, which is no name of what is adopted")
        except (ActivityError, ApplicationError) as error:
            failed[gateway.name] = sentence_of(error)
            return None
        return answer


def _evidence(order: AdoptionOrder, answer: Adopted) -> EventEntry:
    """Say what is known of what was adopted, which is less than of any release."""
    release = answer.release
    unit = f", started by {answer.unit}" if answer.unit else ""
    return EventEntry(
        action="gateway adopted",
        fleet=order.header.fleet,
        subject=f"{order.header.fleet}/{answer.gateway}",
        sentence=(
            f"{release.product} {release.version} with {answer.sessions} sessions, as it ran{unit}, with "
            f"{answer.config}; no signature says what it is: its executable is {release.executable}"
        ),
        key=f"{order.change} adopted {answer.gateway}",
    )


class ExamineOrder(Value):
    """The gateways that are asked what serves them; fifty at most."""

    gateways: tuple[GatewayRef, ...]


@workflow.defn(name="Examine")
class Examine:
    """Ask gateways what serves them, before anything is adopted; nothing is changed."""

    @workflow.run
    async def run(self, order: ExamineOrder) -> Examined:
        """Return what each of them said."""
        silent: dict[str, str] = {}
        answers = await asyncio.gather(*[self._ask(gateway, silent) for gateway in order.gateways])
        return Examined(found=tuple(answer for answer in answers if answer is not None), silent=silent)

    @staticmethod
    async def _ask(gateway: GatewayRef, silent: dict[str, str]) -> FoundDaemon | None:
        try:
            answer = await answer_of(gateway, AdoptionActivities.examine_gateway, steps.ASK)
        except ActivityError as error:
            silent[gateway.name] = sentence_of(error)
            return None
        if answer.gateway != gateway.name:
            silent[gateway.name] = f"its agent answers as {answer.gateway}"
            return None
        return answer
