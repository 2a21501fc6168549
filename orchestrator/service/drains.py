"""What a caller may ask of drains: which there are, with live counts, and a person's command to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.service.changes import ChangeService
from orchestrator.service.surveys import Surveyed
from orchestrator.service.updates import ANSWER, engine_answers, give, refusal_in
from policies.model.command import CommandReceipt
from policies.model.drain import DrainEnding, DrainExtension, DrainStatus
from policies.model.errors import BadInput, Conflict, Unavailable
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.value import Value


class Drains(Value):
    """What drains."""

    drains: tuple[DrainStatus, ...]
    as_of: datetime | None = None
    """When the gateways began to be asked for the sessions that are left; no count is older."""


@dataclass(frozen=True)
class DrainService:
    """The drains of one installation."""

    client: Client
    service: ChangeService

    async def drains(self, fleet: Fleet, survey: Surveyed | None = None) -> tuple[DrainStatus, ...]:
        """Return the drains that are under way on the fleet's gateways, with live counts.

        The counts are those of the survey where one is given.
        """
        survey = survey if survey is not None else await self.service.surveys.of(fleet)
        found = [_with_live_counts(one, survey.states) for one in await self._statuses(fleet.name)]
        return tuple(status for status in found if status.slots)

    async def slots(self, fleet: str) -> frozenset[tuple[str, str]]:
        """Return the slots that drains of the fleet empty, each as its gateway and its name.

        Raises:
            Unavailable: A drain, or the engine, does not answer.
        """
        found = await self._statuses(fleet)
        return frozenset((slot.gateway, slot.slot) for one in found for slot in one.slots)

    async def _statuses(self, fleet: str) -> list[DrainStatus]:
        found = []
        for handle in await self._running(fleet):
            try:
                status: DrainStatus = await handle.query(
                    "status", result_type=DrainStatus, rpc_timeout=ANSWER
                )
            except (RPCError, WorkflowQueryFailedError) as error:
                raise Unavailable(f"the drain {handle.id} does not answer; is a worker running?") from error
            found.append(status)
        return found

    async def tell(
        self, fleet: Fleet, gateway: str | None, command: DrainExtension | DrainEnding
    ) -> tuple[CommandReceipt, ...]:
        """Give the drains of a gateway, or of all, a person's command.

        One that does not answer has a receipt that is not accepted, beside those that do.

        Raises:
            Conflict: None is under way.
            Unavailable: None of them answers.
        """
        names = {known.name for known in fleet.gateways}
        if gateway is not None and gateway not in names:
            seen = Offer(verb=Verb.SESSIONS, fleet=fleet.name)
            raise BadInput(f"{fleet.name} has no gateway {gateway}", seen)
        command = command.model_copy(update={"gateway": gateway})
        kind = "extend" if isinstance(command, DrainExtension) else "end"
        receipts, refusals, silent = [], [], list[str]()
        for handle in await self._running(fleet.name):
            try:
                receipts.append(await give(handle, kind, command))
            except WorkflowUpdateFailedError as error:
                refusals.append(refusal_in(error))
            except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
                if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                    continue  # it has just ended
                silent.append(f"the drain {handle.id} does not answer; is a worker running?")
        if not receipts and silent:
            raise Unavailable(silent[0])
        if not receipts:
            nothing = f"nothing is draining on {command.where(fleet.name)}"
            raise refusals[0] if refusals else Conflict(nothing, Offer(verb=Verb.DRAINS, fleet=fleet.name))
        not_told = [CommandReceipt(id=command.id, accepted=False, sentence=sentence) for sentence in silent]
        return (*receipts, *not_told)

    async def _running(self, fleet: str) -> list[WorkflowHandle[Any, Any]]:
        """Return the fleet's drains that run, by name."""
        running = self.client.list_workflows(
            "WorkflowType = 'Drain' AND ExecutionStatus = 'Running'", rpc_timeout=ANSWER
        )
        with engine_answers():
            found = {
                one.id: self.client.get_workflow_handle(one.id)
                async for one in running
                if one.id.startswith(f"drain/{fleet}/")
            }
        return [found[name] for name in sorted(found)]


def _with_live_counts(status: DrainStatus, states: Mapping[str, GatewayState]) -> DrainStatus:
    """Return the drain's status with the counts of this moment; unknown where a gateway is silent."""
    live = {(name, one.slot): one.sessions for name, state in states.items() for one in state.instances}
    counts = [(slot, live.get((slot.gateway, slot.slot))) for slot in status.slots]
    slots = tuple(slot.model_copy(update={"sessions": sessions}) for slot, sessions in counts)
    return status.model_copy(update={"slots": slots})
