"""Everything a caller may ask; the only user of the Temporal client."""

import asyncio
import secrets
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.store.ledger import Ledger
from policies.drains import with_live_counts
from policies.gates import GatePolicy
from policies.drift import way_back_of
from policies.planning.plan import plan as make_plan
from policies.rollbacks import confirmation_of, targets_of, within_kept
from policies.words.drain import DrainEnding, DrainExtension, DrainStatus
from policies.words.errors import BadInput, Conflict, Refused, Unavailable
from policies.words.fleet import Fleet
from policies.words.plan import Plan, ReleaseRef, Strategy
from policies.words.change import ChangeOrder, ChangeResult, Phase
from policies.words.command import Command, CommandKind, CommandReceipt
from policies.words.status import ChangeStatus
from policies.words.way_back import Answer, AnswerKind
from workflows.failures import sentence_of
from workflows.identities import change_of
from workflows.install import Install, InstallOrder
from workflows.rollback import RollbackResult
from workflows.rollout import Rollout
from workflows.steps import CONTROL_QUEUE
from workflows.survey import Survey, SurveyResult
from workflows.way_back import WayBack, WayBackOrder

ANSWER = timedelta(seconds=5)
"""How long a question to the engine may take before another road is taken."""

_WAYS_BACK = ("WayBack", "Rollback")


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

    async def start(
        self, plan: Plan, source: str, person: str, reason: str, *, even_if_unusual: bool = False
    ) -> str:
        """Start the rollout of a plan; return its name. Conflict while another change is under way."""
        fleet = plan.fleet.name
        number = len(await asyncio.to_thread(self.ledger.rollouts, fleet)) + 1
        rollout = f"{fleet}-{number}"
        order = ChangeOrder(
            rollout=rollout,
            plan=plan,
            source=source,
            requested_by=person,
            reason=reason,
            even_if_unusual=even_if_unusual,
        )
        try:
            await self.client.start_workflow(
                Rollout.run, order, id=change_of(fleet), task_queue=CONTROL_QUEUE
            )
        except WorkflowAlreadyStartedError as error:
            raise Conflict(
                f"a change of {fleet} is under way: see penstock status {fleet}, then hold or roll it back"
            ) from error
        return rollout

    async def status(self, fleet: str) -> ChangeStatus:
        """Return the five sentences of the fleet's newest rollout; Conflict when there never was one."""
        try:
            return await self._change(fleet).query(Rollout.status, rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise BadInput(f"no rollout of {fleet} is known to the engine") from error
            raise Unavailable(
                f"the engine does not answer ({error.message}); is a worker running?"
            ) from error
        except WorkflowQueryFailedError as error:
            raise Unavailable(
                f"the worker could not answer ({error.message}); ask again, and see its log if that goes on"
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
            await self._store(fleet, command)
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

    async def _store(self, fleet: str, command: Command) -> None:
        """Leave the order with the engine; Conflict when the change ended while it was being given."""
        try:
            await self._change(fleet).signal(Rollout.command_fallback, command)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            raise

    async def roll_back(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        *,
        to: ReleaseRef | None = None,
        source: str | None = None,
    ) -> CommandReceipt:
        """Send every gateway back, whatever is going on; a receipt that is not accepted had nothing to do.

        While a rollout is under way it is told to go back. Afterwards, within the kept window,
        every gateway returns to the known-good it had before its last rollout, or to the
        release `to`. What the fleet's rules ask a second person for waits; known-good by
        itself does not, and asking for it ends a wait.

        Raises:
            Conflict: `to` is given while another change is under way.
            Refused: the kept window is over, or `to` was never known-good here.
        """
        under_way = await self._under_way(fleet.name)
        if under_way is not None and to is not None:
            raise Conflict(
                f"a change of {fleet.name} is under way: penstock rollback {fleet.name} --reason TEXT takes "
                "it to known-good at once; another release can be asked for after that"
            )
        if under_way in _WAYS_BACK:
            return await self._hasten(fleet.name, person, reason)
        if under_way == "Rollout":
            command = Command(
                id=f"rollback-{secrets.token_hex(6)}",
                kind=CommandKind.ROLL_BACK,
                person=person,
                reason=reason,
            )
            return await self.command(fleet.name, command)
        order = await asyncio.to_thread(self._way_back, fleet, person, reason, to, source)
        if not order.targets:
            sentence = (
                f"Nothing to do: {fleet.name} is on {to.version} already."
                if to
                else f"Nothing to do: {fleet.name} has no earlier known-good than the one it runs."
            )
            return CommandReceipt(id=order.name, accepted=False, sentence=sentence)
        try:
            await self.client.start_workflow(
                WayBack.run, order, id=change_of(fleet.name), task_queue=CONTROL_QUEUE
            )
        except WorkflowAlreadyStartedError as error:
            raise Conflict(
                f"another change of {fleet.name} has just begun: see penstock status, then try again"
            ) from error
        return CommandReceipt(id=order.name, accepted=True, sentence=_begun(order))

    def _way_back(
        self, fleet: Fleet, person: str, reason: str, to: ReleaseRef | None, source: str | None
    ) -> WayBackOrder:
        """Return the order of a way back, from what the ledger knows."""
        known_good = self.ledger.known_good(fleet.name)
        previous = self.ledger.previous_known_good(fleet.name)
        if to is not None:
            targets = targets_of(to, self.ledger.ever_known_good(fleet.name), known_good)
        else:
            kept = within_kept(fleet, self.ledger.known_good_since(fleet.name), datetime.now(UTC))
            targets = {name: release for name, release in previous.items() if name in kept}
            if previous and not targets:
                version = next(iter(previous.values())).version
                raise Refused(
                    f"the last promotion of {fleet.name} is older than the kept window of "
                    f"{fleet.limits.kept}: penstock rollback {fleet.name} --to {version} asks a second person"
                )
        return WayBackOrder(
            name=way_back_of(fleet.name, len(self.ledger.rollouts(fleet.name))),
            fleet=fleet,
            targets=targets,
            reason=f"{person}: {reason}",
            requested_by=person,
            source=source,
            confirm=confirmation_of(fleet, targets, known_good, previous) if targets else None,
        )

    async def _hasten(self, fleet: str, person: str, reason: str) -> CommandReceipt:
        """End a wait for a second person by going to known-good; what goes back already just does."""
        status = await self.status(fleet)
        if status.phase is Phase.HELD:
            answer = Answer(
                id=f"known-good-{secrets.token_hex(6)}",
                kind=AnswerKind.KNOWN_GOOD,
                person=person,
                reason=reason,
            )
            await self.answer(fleet, answer)
            return CommandReceipt(id=answer.id, accepted=True, sentence="Going back to known-good at once.")
        sentence = f"{fleet} is going back already; every gateway is tried until it is back."
        return CommandReceipt(id=status.rollout, accepted=True, sentence=sentence)

    async def answer(self, fleet: str, answer: Answer) -> CommandReceipt:
        """Answer a rollback that waits for a second person; Conflict when none does or it does not count."""
        try:
            receipt: CommandReceipt = await self._change(fleet).execute_update(
                "answer", answer, id=answer.id, result_type=CommandReceipt, rpc_timeout=ANSWER
            )
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            raise Conflict(cause.message if isinstance(cause, ApplicationError) else str(cause)) from error
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"nothing waits for an answer in {fleet}") from error
            raise
        return receipt

    # --- drains ------------------------------------------------------------------

    async def drains(self, fleet: Fleet) -> tuple[DrainStatus, ...]:
        """Return the drains that are under way on the fleet's gateways, with live counts."""
        survey, found = await self.survey(fleet), []
        for handle in await self._draining({gateway.name for gateway in fleet.gateways}):
            try:
                status: DrainStatus = await handle.query(
                    "status", result_type=DrainStatus, rpc_timeout=ANSWER
                )
            except (RPCError, WorkflowQueryFailedError) as error:
                raise Unavailable(
                    f"the drain of {handle.id.split('/')[1]} does not answer; is a worker running?"
                ) from error
            found.append(with_live_counts(status, survey.states.get(status.gateway)))
        return tuple(sorted(found, key=lambda status: status.gateway))

    async def tell_drain(
        self, fleet: Fleet, gateway: str | None, order: DrainExtension | DrainEnding
    ) -> tuple[CommandReceipt, ...]:
        """Give the drains of a gateway, or of all, a person's order; Conflict when none is under way."""
        names = {known.name for known in fleet.gateways}
        if gateway is not None and gateway not in names:
            raise BadInput(f"{fleet.name} has no gateway {gateway}; it has {', '.join(sorted(names))}")
        running = await self._draining({gateway} if gateway else names)
        if not running:
            raise Conflict(f"nothing is draining on {gateway or fleet.name}; see penstock drains")
        kind = "extend" if isinstance(order, DrainExtension) else "end"
        receipts = []
        for handle in running:
            try:
                receipt: CommandReceipt = await handle.execute_update(
                    kind, order, id=order.id, result_type=CommandReceipt, rpc_timeout=ANSWER
                )
            except WorkflowUpdateFailedError as error:
                cause = error.cause
                raise Conflict(
                    cause.message if isinstance(cause, ApplicationError) else str(cause)
                ) from error
            receipts.append(receipt)
        return tuple(receipts)

    async def _draining(self, gateways: AbstractSet[str]) -> list[WorkflowHandle[Any, Any]]:
        """Return the running drains of these gateways, the newest of each only: older ones are fenced."""
        newest: dict[str, WorkflowHandle[Any, Any]] = {}
        running = self.client.list_workflows("WorkflowType = 'Drain' AND ExecutionStatus = 'Running'")
        async for found in running:  # the engine lists the newest first
            gateway = found.id.split("/")[1]
            if gateway in gateways and gateway not in newest:
                newest[gateway] = self.client.get_workflow_handle(found.id, run_id=found.run_id)
        return [newest[name] for name in sorted(newest)]

    async def result(self, fleet: str) -> ChangeResult | RollbackResult:
        """Return how the fleet's change ended; Conflict while it goes on."""
        change = self._change(fleet)
        description = await change.describe()
        if description.status is WorkflowExecutionStatus.RUNNING:
            raise Conflict(f"the change of {fleet} still goes on")
        result_type = RollbackResult if description.workflow_type in _WAYS_BACK else ChangeResult
        handle: WorkflowHandle[object, ChangeResult | RollbackResult] = self.client.get_workflow_handle(
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

    def _change(self, fleet: str) -> WorkflowHandle[Rollout, ChangeResult]:
        return self.client.get_workflow_handle_for(Rollout.run, change_of(fleet))


def _begun(order: WayBackOrder) -> str:
    count = len(order.targets or {})
    if order.confirm is None:
        return f"Rolling back {count} gateways to an earlier known-good."
    by_itself = "they go back to known-good" if order.confirm.known_good else "it is given up"
    return (
        f"Waiting for a second person ({order.confirm.reason}): penstock approve {order.fleet.name}. "
        f"If nobody answers within {order.confirm.within}, {by_itself}."
    )
