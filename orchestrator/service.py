"""Everything a caller may ask; the only user of the Temporal client."""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.store.ledger import Ledger
from policies.gates import GatePolicy
from policies.known_good import way_back_of
from policies.strategies import plan as make_plan
from policies.words.errors import BadInput, Conflict, Refused, Unavailable
from policies.words.fleet import Fleet
from policies.words.plan import Plan, ReleaseRef, Strategy
from policies.words.rollout import (
    Command,
    CommandKind,
    CommandReceipt,
    RolloutOrder,
    RolloutResult,
    RolloutStatus,
)
from workflows.failures import sentence_of
from workflows.install import Install, InstallOrder
from workflows.rollback import RollbackResult
from workflows.rollout import Rollout
from workflows.steps import CONTROL_QUEUE
from workflows.survey import Survey, SurveyResult
from workflows.way_back import WayBack, WayBackOrder

ANSWER = timedelta(seconds=5)
"""How long a question to the engine may take before another road is taken."""

_WAYS_BACK = ("WayBack", "Rollback")


def change_of(fleet: str) -> str:
    """Return the workflow id that is the fleet's lock: one change at a time."""
    return f"change/{fleet}"


@dataclass(frozen=True)
class Service:
    """The doors' way in: each method is one verb of the command line."""

    client: Client
    ledger: Ledger

    async def survey(self, fleet: Fleet) -> SurveyResult:
        """Return what is true of every gateway now, and why the others are silent."""
        return await self.client.execute_workflow(
            Survey.run,
            fleet,
            id=f"survey/{fleet.name}/{secrets.token_hex(4)}",
            task_queue=CONTROL_QUEUE,
            execution_timeout=timedelta(minutes=1),
        )

    async def plan(
        self, fleet: Fleet, release: ReleaseRef, strategy: Strategy, gates: GatePolicy, trust_policy: str
    ) -> Plan:
        """Return the plan of an upgrade; Refused when there is none. Nothing is changed."""
        survey = await self.survey(fleet)
        known_good = await asyncio.to_thread(self.ledger.known_good, fleet.name)
        return make_plan(
            fleet,
            survey.states,
            known_good,
            release,
            strategy,
            seed=secrets.token_hex(8),
            gates=gates,
            trust_policy=trust_policy,
        )

    async def install(self, fleet: Fleet, release: ReleaseRef, source: str) -> tuple[str, ...]:
        """Bring up gateways that serve nobody yet; return those that were."""
        order = InstallOrder(name=f"{fleet.name}-install", fleet=fleet, release=release, source=source)
        try:
            return await self.client.execute_workflow(
                Install.run, order, id=change_of(fleet.name), task_queue=CONTROL_QUEUE
            )
        except WorkflowFailureError as error:
            raise Refused(f"the fleet could not be installed: {sentence_of(error.cause)}") from error

    async def start(self, plan: Plan, source: str, person: str, reason: str) -> str:
        """Start the rollout of a plan; return its name. Conflict while another change is under way."""
        fleet = plan.fleet.name
        number = len(await asyncio.to_thread(self.ledger.rollouts, fleet)) + 1
        rollout = f"{fleet}-{number}"
        order = RolloutOrder(rollout=rollout, plan=plan, source=source, requested_by=person, reason=reason)
        try:
            await self.client.start_workflow(
                Rollout.run, order, id=change_of(fleet), task_queue=CONTROL_QUEUE
            )
        except WorkflowAlreadyStartedError as error:
            raise Conflict(
                f"a change of {fleet} is under way: see penstock status {fleet}, then hold or roll it back"
            ) from error
        return rollout

    async def status(self, fleet: str) -> RolloutStatus:
        """Return the five sentences of the fleet's newest rollout; Conflict when there never was one."""
        try:
            return await self._change(fleet).query(Rollout.status, rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise BadInput(f"no rollout of {fleet} is known to the engine") from error
            raise Unavailable(
                f"the engine does not answer ({error.message}); is a worker running?"
            ) from error

    async def command(self, fleet: str, command: Command) -> CommandReceipt:
        """Give a rollout a person's order; it is durable even while no worker is up.

        Raises:
            Conflict: The order makes no sense now; the sentence says what does.
        """
        change = self._change(fleet)
        try:
            answer: CommandReceipt = await change.execute_update(
                "command", command, id=command.id, result_type=CommandReceipt, rpc_timeout=ANSWER
            )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            raise Conflict(cause.message if isinstance(cause, ApplicationError) else str(cause)) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            await change.signal(Rollout.command_fallback, command)
            return CommandReceipt(
                id=command.id,
                accepted=True,
                sentence="No worker answered; the order is stored and is carried out when one is back.",
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            raise
        return answer

    async def roll_back(self, fleet: Fleet, person: str, reason: str) -> str:
        """Send every gateway back, whatever is going on; return a sentence that says what happens.

        While a rollout is under way it is told to go back. Afterwards, within the kept window,
        every gateway returns to the known-good it had before its last rollout.
        """
        under_way = await self._under_way(fleet.name)
        if under_way in _WAYS_BACK:
            return f"{fleet.name} is going back already; every gateway is tried until it is back."
        if under_way == "Rollout":
            command = Command(
                id=f"rollback-{secrets.token_hex(6)}",
                kind=CommandKind.ROLL_BACK,
                person=person,
                reason=reason,
            )
            return (await self.command(fleet.name, command)).sentence
        targets = await asyncio.to_thread(self.ledger.previous_known_good, fleet.name)
        if not targets:
            return f"Nothing to do: {fleet.name} has no earlier known-good than the one it runs."
        rollouts = len(await asyncio.to_thread(self.ledger.rollouts, fleet.name))
        order = WayBackOrder(
            name=way_back_of(fleet.name, rollouts), fleet=fleet, targets=targets, reason=f"{person}: {reason}"
        )
        try:
            await self.client.start_workflow(
                WayBack.run, order, id=change_of(fleet.name), task_queue=CONTROL_QUEUE
            )
        except WorkflowAlreadyStartedError as error:
            raise Conflict(
                f"another change of {fleet.name} has just begun: see penstock status, then try again"
            ) from error
        return f"Rolling back {len(targets)} gateways to their earlier known-good."

    async def result(self, fleet: str) -> RolloutResult | RollbackResult:
        """Return how the fleet's change ended; Conflict while it goes on."""
        change = self._change(fleet)
        description = await change.describe()
        if description.status is WorkflowExecutionStatus.RUNNING:
            raise Conflict(f"the change of {fleet} still goes on")
        result_type = RollbackResult if description.workflow_type in _WAYS_BACK else RolloutResult
        handle: WorkflowHandle[object, RolloutResult | RollbackResult] = self.client.get_workflow_handle(
            change_of(fleet), result_type=result_type
        )
        try:
            return await handle.result()
        except WorkflowFailureError as error:
            raise Unavailable(f"the change of {fleet} ended without a result: {error.cause}") from error

    async def _under_way(self, fleet: str) -> str | None:
        """Return which kind of change has the fleet's lock, None when nobody has."""
        try:
            description = await self._change(fleet).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        running = description.status is WorkflowExecutionStatus.RUNNING
        return description.workflow_type if running else None

    def _change(self, fleet: str) -> WorkflowHandle[Rollout, RolloutResult]:
        return self.client.get_workflow_handle_for(Rollout.run, change_of(fleet))
