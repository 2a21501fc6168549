"""Changes of a fleet: started, told, taken back, and asked how they stand."""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.drivers.daemon.ocserv.settings import require_settings
from orchestrator.engine.task_timeout import task_within
from orchestrator.service.looks import Looks
from orchestrator.service.updates import ANSWER, SOON, engine_answers, give, refusal_in, silence_of
from orchestrator.store.ledger import Ledger
from policies.adoption import own_daemons
from policies.model.adoption import Examined
from policies.model.change import RELOADS, ChangeKind, ChangeOrder, ChangeResult, Outcome, WayBack
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import BadInput, Conflict, NotAllowed, Refused, Unavailable
from policies.model.fleet import Fleet, Gateway, GatewayRef
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.people import ROOT, Via
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.plan_part import MOST_MEMBERS, PlanHeader
from policies.model.status import ChangeStatus
from policies.model.value import Digest, Value
from policies.model.way_back import Confirmation
from policies.planning.plan import plan as make_plan
from policies.planning.reload import running
from policies.planning.settings import changing
from policies.pools import Network, shared_pools
from policies.rebuilding import ahead
from policies.rollback import confirmation_of, targets_of
from policies.status.told import listed
from workflows.adopt import Examine, ExamineOrder
from workflows.change import Change, ChangeRun
from workflows.failures import sentence_of
from workflows.identities import change_of
from workflows.steps import CONTROL_QUEUE
from workflows.survey import Survey, SurveyOrder

KEY = "key"
"""Under which the engine keeps the key of the request that a change began with."""

KIND = "kind"
"""Under which the engine keeps what kind of change it is."""

EXAMINED_WITHIN = timedelta(minutes=1)
"""How long the answers of fifty gateways may take; one that is silent takes half of it."""

EXAMINED_AT_ONCE = 8
"""Times fifty gateways."""

STUCK_AFTER = 3
"""Tries of one task of a workflow after which no worker can take it: the code that runs does not fit it."""


SURVEYED_WITHIN, SURVEY_OF_A_GATEWAY = timedelta(minutes=2), timedelta(milliseconds=50)
"""How long a survey may take, and how much longer for each gateway of the fleet."""

BEGUN_WITHIN = timedelta(seconds=5)
"""How long a survey waits for a worker; longer than one that lives is busy with something else."""

NEVER_TAKEN = 2
"""Events of a workflow that no worker has begun: it was started, and its first task is scheduled."""

TAKEN_WITHIN = timedelta(seconds=15)
"""How long the next step of a change may wait for a worker before people hear of it."""

LOOK = timedelta(seconds=1)
"""How long the engine may take to say that it lives; a status is shown without its word."""

STOPPED_WITHIN = timedelta(seconds=15)
"""How long a rollback waits for a reload that it has stopped."""

FREE_WITHIN = timedelta(minutes=2)
"""How long a rollback waits for gateways that return alone: they give the lock back in half a minute."""


NAMED = 50
"""Silent gateways that a standing names."""

LOOKED_AT_WITHIN = timedelta(minutes=5)
"""How old a look at a gateway may be to count for what the fleet is on; reconcile looks every minute."""


class Surveyed(Value):
    """What each gateway that answered is like, and why the others are silent."""

    states: dict[str, GatewayState]
    silent: dict[str, str] = {}


class Standing(Value):
    """What a fleet is on and how many of its gateways take users, whatever was or was not done to it."""

    fleet: str
    versions: tuple[str, ...]
    taking: int
    gateways: int
    silent: dict[str, str] = {}
    """Why some of those that do not answer do not."""
    silent_count: int = 0
    """How many there are in all."""
    quarantined: dict[str, str] = {}
    held_drains: dict[str, str] = {}
    """Why drains wait for a person, by gateway and slot."""


@dataclass(frozen=True)
class _WaysBack:
    """What the ledger knows of a fleet's going back: what is known-good, and the last way."""

    known_good: dict[str, ReleaseRef]
    last: WayBack
    previous: dict[str, ReleaseRef]


@dataclass(frozen=True)
class ChangeService:
    """What can be done to changes and asked of them; who may is asked before, by `Service`."""

    client: Client
    ledger: Ledger
    _looks: Looks[Surveyed] = field(default_factory=Looks, init=False, repr=False, compare=False)

    async def survey(self, fleet: Fleet, first: str | None = None) -> Surveyed:
        """Return what is true of every gateway now, or of some from the first on; and why others are silent.

        Whoever asks while the whole fleet is looked at gets what that look finds.

        Raises:
            Unavailable: It could not be looked at in the time that a fleet of its size takes.
        """
        if first is not None:
            return await self._look(fleet, first)
        return await self._looks.at(fleet, partial(self._look, fleet))

    async def _look(self, fleet: Fleet, first: str | None = None) -> Surveyed:
        names = [gateway.name for gateway in fleet.gateways]
        began, within = datetime.now(UTC), SURVEYED_WITHIN + len(fleet.gateways) * SURVEY_OF_A_GATEWAY
        try:
            with engine_answers():
                survey = await self.client.start_workflow(
                    Survey.run,
                    SurveyOrder(fleet=fleet.name, first=None if first is None else names.index(first)),
                    id=f"survey/{fleet.name}/{secrets.token_hex(4)}",
                    task_queue=CONTROL_QUEUE,
                    execution_timeout=within,
                    task_timeout=task_within(fleet),
                    rpc_timeout=ANSWER,
                )
                answer = asyncio.create_task(survey.result())
                await asyncio.wait([answer], timeout=BEGUN_WITHIN.total_seconds())
                if not answer.done() and _was_never_taken(await survey.describe(rpc_timeout=ANSWER)):
                    answer.cancel()
                    await survey.terminate("no worker has begun it", rpc_timeout=ANSWER)
                    nobody = Offer(verb=Verb.DOCTOR)
                    raise Unavailable("no worker takes questions to gateways: is one running?", nobody)
                await answer
        except WorkflowFailureError as error:
            raise Unavailable(f"{fleet.name} was not looked at within {within}: {error.cause}") from error
        since = datetime.now(UTC) - began + timedelta(seconds=1)
        states, silent = await asyncio.to_thread(self.ledger.states, fleet.name, since)
        return Surveyed(states=states, silent=silent)

    async def plan(
        self, fleet: Fleet, release: ReleaseRef, strategy: Strategy, gates: GatePolicy, trust_policy: str
    ) -> Plan:
        """Return the plan of an upgrade; Refused when there is none. Nothing is changed."""
        survey = await self.survey(fleet)
        newest = await asyncio.to_thread(self.ledger.newest_number, fleet.name)
        _refuse_shared(fleet, _own_pools(survey.states))
        known_good = await asyncio.to_thread(self.ledger.known_good, fleet.name)
        left_out = await asyncio.to_thread(self.ledger.quarantined, fleet.name)
        return make_plan(
            fleet,
            survey.states,
            known_good,
            release,
            strategy,
            gates=gates,
            trust_policy=trust_policy,
            quarantined={one.gateway: one.reason for one in left_out},
            ahead=ahead(fleet.name, survey.states, newest),
        )

    async def start(
        self,
        plan: Plan,
        source: str,
        person: str,
        reason: str,
        *,
        even_if_unusual: bool = False,
        key: str | None = None,
    ) -> str | None:
        """Start the upgrade of a plan; return its name, None when it is stored and has no name yet.

        Under one key it is started once, also when the answer to the first request was lost.

        Raises:
            Conflict: Another change is under way.
        """
        digest = await asyncio.to_thread(self.ledger.record_plan, plan, person)
        order = ChangeOrder(
            fleet=plan.fleet.name,
            kind=ChangeKind.UPGRADE,
            plan=digest,
            source=source,
            requested_by=person,
            on_behalf_of=await asyncio.to_thread(self.ledger.makers_of, person),
            reason=reason,
            even_if_unusual=even_if_unusual,
            key=key,
        )
        return await self._begin(order, plan.fleet)

    async def install(
        self,
        fleet: Fleet,
        release: ReleaseRef,
        source: str,
        person: str,
        reason: str = "first installation",
        *,
        key: str | None = None,
    ) -> str | None:
        """Begin to bring up gateways that serve nobody yet, once under one key; return as `start` does.

        Raises:
            Refused: A daemon that was adopted on a gateway gives its users addresses of another gateway.
            Conflict: Another change is under way.
        """
        if name := await self.begun_before(key):
            return name
        await self._refuse_shared_pools(fleet)
        digest = await asyncio.to_thread(self.ledger.record_first, fleet, release)
        order = ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.INSTALL,
            plan=digest,
            source=source,
            requested_by=person,
            reason=reason,
            key=key,
        )
        return await self._begin(order, fleet)

    async def plan_reload(self, fleet: Fleet, *, unserved: bool = False, at_once: bool = False) -> PlanHeader:
        """Return the plan by which what runs gets its hosts' present credentials; it is kept.

        Gateways that do not answer now are asked last; those that are left out of changes are not. With
        `unserved` only those are asked that say that their hosts have others than what runs, with `at_once`
        all follow the first one together.

        Raises:
            Refused: Nothing runs on any gateway, or what runs has what its host has.
        """
        survey, out = await self._surveyed(fleet)
        names = running(survey.states, out, unserved=unserved)
        if not names and unserved:
            raise Refused(f"what runs on {fleet.name} has what lies on its hosts, as far as they answer")
        if not names:
            nothing = f"nothing runs on any gateway of {fleet.name} that answers and takes part in changes"
            raise Refused(nothing, _offer(Verb.SESSIONS, fleet.name))
        everybody = names if unserved else names + _silent(survey, out)
        record = partial(self.ledger.record_reload, fleet, everybody, at_once=at_once)
        digest = await asyncio.to_thread(record)
        return await asyncio.to_thread(self.ledger.plan_header, digest)

    async def plan_settings(self, fleet: Fleet) -> PlanHeader:
        """Return the plan by which gateways get the settings of the fleet's file; it is kept.

        Gateways that do not answer now are asked last; those that are left out of changes are not.

        Raises:
            BadInput: A setting is none that a fleet may have.
            Refused: Every gateway that answers has them already.
        """
        for gateway in fleet.gateways:
            require_settings(fleet.settings_of(gateway))
        survey, out = await self._surveyed(fleet)
        states = {name: state for name, state in survey.states.items() if name not in out}
        found = await asyncio.to_thread(changing, fleet, states)
        if not found.gateways:
            raise Refused(f"there is nothing to do: the gateways of {fleet.name} have these settings already")
        differing = {name: states[name] for name in found.gateways}
        first = running(differing, out)
        names = first + tuple(sorted(set(differing) - set(first))) + _silent(survey, out)
        digest = await asyncio.to_thread(self.ledger.record_settings, fleet, names, found)
        return await asyncio.to_thread(self.ledger.plan_header, digest)

    async def _surveyed(self, fleet: Fleet) -> tuple[Surveyed, frozenset[str]]:
        """Return what is true of the gateways, and which are left out of changes."""
        survey = await self.survey(fleet)
        left_out = await asyncio.to_thread(self.ledger.quarantined, fleet.name)
        return survey, frozenset(one.gateway for one in left_out)

    async def reload(
        self,
        fleet: Fleet,
        plan: PlanHeader,
        person: str,
        reason: str,
        *,
        older: bool = False,
        key: str | None = None,
    ) -> str | None:
        """Begin to give what runs other files by that plan, once under one key; return as `start` does.

        Raises:
            Conflict: Another change is under way.
        """
        order = ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.CONFIGURE if plan.settings else ChangeKind.RELOAD,
            plan=plan.digest,
            requested_by=person,
            reason=reason,
            even_if_older=older,
            key=key,
        )
        return await self._begin(order, fleet)

    async def adopt(
        self,
        fleet: Fleet,
        gateways: Collection[str],
        without: Sequence[str],
        person: str,
        reason: str,
        *,
        key: str | None = None,
    ) -> str | None:
        """Begin to adopt gateways that serve by themselves, once under one key; return as `start` does.

        Raises:
            Refused: What serves a gateway gives its users addresses of another one; nothing was changed.
            Conflict: Another change is under way.
        """
        if name := await self.begun_before(key):
            return name
        await self._refuse_shared_pools(fleet, gateways)
        digest = await asyncio.to_thread(self.ledger.record_adoption, fleet, gateways)
        order = ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.ADOPT,
            plan=digest,
            requested_by=person,
            reason=reason,
            without=tuple(without),
            key=key,
        )
        return await self._begin(order, fleet)

    async def hand_back(
        self, fleet: Fleet, gateways: Collection[str], person: str, reason: str, *, key: str | None = None
    ) -> str | None:
        """Begin to send gateways back to the daemons that were adopted on them; return as `start` does.

        Raises:
            Refused: One of them was never adopted, or all are on their own daemon already.
            NotAllowed: It waits for a second person, and whoever asks may be anybody.
        """
        order = await asyncio.to_thread(self._hand_back_order, fleet, gateways, person, reason, key)
        return await self._begin(order, fleet)

    async def examine(self, fleet: Fleet, gateways: Collection[str]) -> Examined:
        """Return what serves these gateways by themselves, fifty at most; nothing is changed.

        Raises:
            BadInput: More are asked than one answer holds.
            Unavailable: Nobody takes the question to them.
        """
        if len(gateways) > MOST_MEMBERS:
            raise BadInput(f"{len(gateways)} gateways of {fleet.name} at once; name at most {MOST_MEMBERS}")
        asked = tuple(_reference(fleet.gateway(name)) for name in sorted(gateways))
        try:
            with engine_answers():
                return await self.client.execute_workflow(
                    Examine.run,
                    ExamineOrder(gateways=asked),
                    id=f"examine/{fleet.name}/{secrets.token_hex(4)}",
                    task_queue=CONTROL_QUEUE,
                    execution_timeout=EXAMINED_WITHIN,
                    rpc_timeout=ANSWER,
                )
        except WorkflowFailureError as error:
            nobody = Offer(verb=Verb.DOCTOR)
            raise Unavailable(f"{fleet.name} was not examined within {EXAMINED_WITHIN}", nobody) from error

    async def _refuse_shared_pools(self, fleet: Fleet, adopting: Collection[str] = ()) -> None:
        """Refuse what would give addresses of one gateway to users of another, as far as gateways answer."""
        own = _own_pools((await self.survey(fleet)).states)
        names, turn = sorted(adopting), asyncio.Semaphore(EXAMINED_AT_ONCE)

        async def examined(some: Collection[str]) -> Examined:
            async with turn:
                return await self.examine(fleet, some)

        parts = [names[first : first + MOST_MEMBERS] for first in range(0, len(names), MOST_MEMBERS)]
        for answer in await asyncio.gather(*map(examined, parts)):
            own |= {one.gateway: one.pools for one in answer.found if one.pools}
        _refuse_shared(fleet, own)

    async def _begin(self, order: ChangeOrder, fleet: Fleet) -> str | None:
        """Start a change and return its name; None when it is stored and no worker has named it yet.

        It has a key in any case: under a key a change begins once, also when the engine is told to repeat it.
        """
        order = order if order.key else order.model_copy(update={"key": secrets.token_hex(16)})
        if name := await self.begun_before(order.key):
            return name
        try:
            with engine_answers():
                handle = await self.client.start_workflow(
                    Change.run,
                    ChangeRun(order=order),
                    id=change_of(order.fleet),
                    task_queue=CONTROL_QUEUE,
                    task_timeout=task_within(fleet),
                    memo={KEY: order.key, KIND: order.kind.value},
                    rpc_timeout=ANSWER,
                )
        except WorkflowAlreadyStartedError as error:
            if await self._is_of(order) and (name := await self.begun_before(order.key, within=ANSWER)):
                return name
            offers = [_offer(verb, order.fleet) for verb in (Verb.STATUS, Verb.HOLD, Verb.ROLL_BACK)]
            raise Conflict(f"a change of {order.fleet} is under way", *offers) from error
        try:
            async with asyncio.timeout(ANSWER.total_seconds()):
                while True:
                    status = await handle.query(Change.status, rpc_timeout=ANSWER)
                    if status.rollout:
                        return status.rollout
                    await asyncio.sleep(0.05)
        except (TimeoutError, RPCError, WorkflowQueryFailedError):
            return None

    async def _is_of(self, order: ChangeOrder) -> bool:
        """Whether the change under way was begun by an equal request."""
        if order.key is None:
            return False
        try:
            with engine_answers():
                description = await self._change(order.fleet).describe(rpc_timeout=ANSWER)
                return bool((await description.memo()).get(KEY) == order.key)
        except (Unavailable, RPCError):
            return False

    async def begun_before(self, key: str | None, within: timedelta = timedelta(0)) -> str | None:
        """Return the change that the request of that key has begun; one that has just begun is named soon."""
        if key is None:
            return None
        until = time.monotonic() + within.total_seconds()
        while True:
            name = await asyncio.to_thread(self.ledger.change_of_key, key)
            if name is not None or time.monotonic() >= until:
                return name
            await asyncio.sleep(0.1)

    async def status(self, fleet: str) -> ChangeStatus:
        """Return the five sentences of the fleet's newest change.

        Raises:
            BadInput: The engine knows no change of the fleet.
            Unavailable: Nobody answers; the sentence says whether the change itself is stuck.
        """
        try:
            return await self._change(fleet).query(Change.status, rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise BadInput(f"no change of {fleet} is known to the engine") from error
            silence = f"{silence_of(error)}; is a worker running?"
            raise Unavailable(*(await self._why_stuck(fleet) or (silence,))) from error
        except WorkflowQueryFailedError as error:
            silence = f"the worker could not answer ({error.message}); ask again, and see its log"
            raise Unavailable(*(await self._why_stuck(fleet) or (silence,))) from error

    async def concern_about(self, fleet: str) -> tuple[str, tuple[Offer, ...]] | None:
        """Return why an open change may not go on by itself, and what helps; None when it may."""
        try:
            description = await self._change(fleet).describe(rpc_timeout=LOOK)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                gone = "the engine knows nothing of this change any more; a rollback takes every gateway back"
                return gone, (_offer(Verb.ROLL_BACK, fleet),)
            return f"{silence_of(error)}; what is shown is what was last heard", ()
        stuck = _stuck(fleet, description)
        return (stuck[0], (stuck[1],)) if stuck else None

    async def _why_stuck(self, fleet: str) -> tuple[str, Offer] | None:
        """Return that the change's code and history do not fit any more, when the engine says so."""
        try:
            description = await self._change(fleet).describe(rpc_timeout=LOOK)
        except RPCError:
            return None
        return _stuck(fleet, description)

    async def command(self, fleet: str, command: Command) -> CommandReceipt:
        """Give a change a person's command; it is durable even while no worker is up.

        Raises:
            Conflict: The command makes no sense now; the sentence says what does.
        """
        change = self._change(fleet)
        if not command.is_safe:
            command = command.model_copy(update={"run": await self._run_of(fleet)})
        try:
            answer = await give(change, "command", command)
        except WorkflowUpdateFailedError as error:
            raise refusal_in(error) from error
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            return await self._store(fleet, command)
        return answer

    async def _run_of(self, fleet: str) -> str:
        """Return which change of the fleet is under way now, as the engine names it."""
        try:
            with engine_answers():
                found = await self._change(fleet).describe(rpc_timeout=ANSWER)
        except Unavailable as error:
            if isinstance(error.__cause__, RPCError) and error.__cause__.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            raise
        return found.raw_description.workflow_execution_info.first_run_id

    async def _store(self, fleet: str, command: Command) -> CommandReceipt:
        """Leave the command with the engine; Conflict when the change ended while it was being given."""
        try:
            await self._change(fleet).signal(Change.command_fallback, command, rpc_timeout=SOON)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            raise Unavailable(f"{silence_of(error)}; nothing was ordered") from error
        sentence = "No worker answered; the order is stored and is carried out when one is back."
        if stuck := await self._why_stuck(fleet):
            sentence = f"The order is stored. {stuck[0]}"
        return CommandReceipt(id=command.id, accepted=True, sentence=sentence)

    # --- going back ------------------------------------------------------------------

    async def roll_back(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        *,
        via: Via = Via.SYSTEM,
        to: ReleaseRef | None = None,
        source: str | None = None,
        of: str | None = None,
        force: bool = False,
        key: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> CommandReceipt:
        """Send every gateway back, whatever is going on; a receipt that is not accepted had nothing to do.

        While a change is under way it is told to go back. Afterwards, within the kept window, what
        the last change did is undone, or every gateway goes to the release `to`. What the fleet's
        rules ask a second person for waits; known-good by itself does not, and asking for it ends
        a wait. A change of settings that came last is undone by the files that hosts have kept, and so is the
        reload that `of` names. With `force` a change that no worker can go on with is ended first. Single
        gateways that return alone are waited for; `tell` hears of it.

        Raises:
            Conflict: `to` is given while another change is under way.
            Refused: the kept window is over, or `to` was never known-good here.
        """
        if not force:
            if to is not None and await self.is_under_way(fleet.name):
                raise Conflict(
                    f"a change of {fleet.name} is under way: a rollback takes it to known-good at once, "
                    "and another release can be asked for after that",
                    _offer(Verb.ROLL_BACK, fleet.name),
                )
            if receipt := await self.turn_round(fleet.name, person, reason, key=key, tell=tell):
                return receipt
        if force:
            await self._end_by_force(fleet.name, person, via, reason)
        if name := await self.begun_before(key):
            return CommandReceipt(id=name, accepted=True, sentence=f"{name} has begun.")
        order = await asyncio.to_thread(self._back_order, fleet, person, reason, to, of, source, key)
        if isinstance(order, CommandReceipt):
            return order
        name = await self._begin(order, fleet)
        return CommandReceipt(id=name or fleet.name, accepted=True, sentence=_begun(order))

    async def turn_round(
        self,
        fleet: str,
        person: str,
        reason: str,
        *,
        key: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> CommandReceipt | None:
        """Tell the change that is under way to go back; None when there is none. No ledger is asked.

        Raises:
            Conflict: Single gateways return alone, and are not done soon.
            Unavailable: The engine does not answer; nothing was ordered.
        """
        under_way = await self._under_way(fleet)
        if under_way is None:
            return None
        command = Command(
            id=key or f"rollback-{secrets.token_hex(6)}",
            kind=CommandKind.ROLL_BACK,
            person=person,
            reason=reason,
        )
        try:
            receipt = await self.command(fleet, command)
            # A reload stops for whatever is to be taken back, and has nothing itself that could be.
            reloads = (await under_way.memo()).get(KIND) in RELOADS
            return None if reloads and await self._has_stopped(fleet) else receipt
        except Conflict:
            if await self._is_free_soon(fleet, tell):
                return None
            raise

    async def _has_stopped(self, fleet: str) -> bool:
        """Return whether a reload that was told to stop has given up the fleet's lock, soon."""
        until = time.monotonic() + STOPPED_WITHIN.total_seconds()
        while await self.is_under_way(fleet):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _is_free_soon(self, fleet: str, tell: Callable[[str], None]) -> bool:
        """Return whether the fleet's lock is free, having waited for single gateways that return alone."""
        if not (await self.status(fleet)).alone:
            return False
        tell("Single gateways return alone; the rollback begins when they are done, within a minute.")
        until = time.monotonic() + FREE_WITHIN.total_seconds()
        while await self.is_under_way(fleet):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.5)
        return True

    async def _end_by_force(self, fleet: str, person: str, via: Via, reason: str) -> None:
        """End a change that no longer answers; what it touched is taken back by the one that follows."""
        if not await self.is_under_way(fleet):
            return
        stuck = await self._why_stuck(fleet)
        with engine_answers():
            await self._change(fleet).terminate(f"{person}: {reason}", rpc_timeout=ANSWER)
        body = {"reason": reason, "stuck": stuck is not None}
        record = partial(self.ledger.audit, person, via, "change ended by force", fleet, body, fleet=fleet)
        await asyncio.to_thread(record)

    def _back_order(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        to: ReleaseRef | None,
        of: str | None,
        source: str | None,
        key: str | None,
    ) -> ChangeOrder | CommandReceipt:
        """Return how to go back, of files or of releases; a receipt when there is nothing to do."""
        files = self._files_back(fleet, person, reason, of, key) if to is None else None
        return files or self._return_order(fleet, person, reason, to, source, key)

    def _files_back(
        self, fleet: Fleet, person: str, reason: str, of: str | None, key: str | None
    ) -> ChangeOrder | CommandReceipt | None:
        """Return how instances get again what they had before a reload; None where no reload is meant."""
        found = self.ledger.reload_to_take_back(fleet.name, of)
        if found is None or (
            of is None and found.ended and datetime.now(UTC) - found.ended > fleet.limits.kept
        ):
            if of is not None:
                raise Conflict(f"{of} is no reload of {fleet.name} that could be taken back")
            return None
        if found.cause is not None and found.outcome is Outcome.ROLLED_BACK:
            taken = f"Nothing to do: {found.name} took {found.cause} back already."
            return CommandReceipt(id=fleet.name, accepted=False, sentence=taken)
        return ChangeOrder(
            fleet=fleet.name,
            kind=found.kind,
            plan=found.plan,
            requested_by=person,
            reason=f"{person}: {reason}",
            cause=found.cause or found.name,
            key=key,
        )

    def _return_order(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        to: ReleaseRef | None,
        source: str | None,
        key: str | None,
    ) -> ChangeOrder | CommandReceipt:
        """Return what to go back to, from what the ledger knows; a receipt when there is nothing to do."""
        ways = self._ways_back(fleet)
        back, previous = ways.last, ways.previous
        if to is not None:
            targets = targets_of(to, self.ledger.ever_known_good(fleet.name), ways.known_good)
            nothing = f"{fleet.name} is on {to.version} already."
        else:
            targets, nothing = previous, back.sentence
            if targets and back.since and datetime.now(UTC) - back.since > fleet.limits.kept:
                version = next(iter(previous.values())).version
                raise Refused(
                    f"the last promotion of {fleet.name} is older than the kept window of "
                    f"{fleet.limits.kept}; naming the release asks a second person",
                    Offer(verb=Verb.ROLL_BACK, fleet=fleet.name, release=version),
                )
        if not targets:
            return CommandReceipt(id=fleet.name, accepted=False, sentence=f"Nothing to do: {nothing}")
        order = self._going_back(fleet, targets, ways, person, f"{person}: {reason}", key, source=source)
        if to is not None:
            _refuse_root(order.confirm, person)
        return order

    def _hand_back_order(
        self, fleet: Fleet, gateways: Collection[str], person: str, reason: str, key: str | None
    ) -> ChangeOrder:
        """Return how gateways go back to what was adopted on them, from what the ledger knows."""
        own = own_daemons(gateways, self.ledger.ever_known_good(fleet.name))
        ways = self._ways_back(fleet)
        targets = {name: release for name, release in own.items() if ways.known_good.get(name) != release}
        if not targets:
            raise Refused(f"{', '.join(sorted(own))} of {fleet.name}: known-good is their own daemon already")
        order = self._going_back(fleet, targets, ways, person, f"handed back by {person}: {reason}", key)
        _refuse_root(order.confirm, person)
        return order

    def _ways_back(self, fleet: Fleet) -> _WaysBack:
        known_good, last = self.ledger.known_good(fleet.name), self.ledger.way_back(fleet.name)
        previous = self.ledger.targets(fleet.name, last.change, finished=last.finished) if last.change else {}
        return _WaysBack(known_good, last, previous)

    def _going_back(
        self,
        fleet: Fleet,
        targets: dict[str, ReleaseRef],
        ways: _WaysBack,
        person: str,
        reason: str,
        key: str | None,
        *,
        source: str | None = None,
    ) -> ChangeOrder:
        """Return the order by which gateways go back to these, with whoever has to confirm it."""
        plan = self.ledger.record_return(fleet, targets)
        return ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.GO_BACK,
            plan=plan,
            source=source,
            requested_by=person,
            on_behalf_of=self.ledger.makers_of(person),
            reason=reason,
            cause=ways.last.change,
            confirm=self._confirmation(fleet, plan, targets, ways.known_good, ways.previous),
            key=key,
        )

    def _confirmation(
        self,
        fleet: Fleet,
        plan: Digest,
        targets: dict[str, ReleaseRef],
        known_good: dict[str, ReleaseRef],
        previous: dict[str, ReleaseRef],
    ) -> Confirmation | None:
        """Return what a second person has to confirm, None when it begins at once."""
        reason = confirmation_of(fleet, targets, known_good, previous)
        if reason is None:
            return None
        otherwise = {name: previous.get(name, known_good[name]) for name in targets if name in known_good}
        return Confirmation(
            reason=reason,
            within=fleet.rollback.answer_within,
            change=plan,
            known_good=self.ledger.record_return(fleet, otherwise),
            at_deadline=fleet.rollback.at_deadline,
        )

    async def result(self, fleet: str) -> ChangeResult:
        """Return how the fleet's change ended; Conflict while it goes on."""
        if await self.is_under_way(fleet):
            raise Conflict(f"the change of {fleet} still goes on")
        try:
            return await self._change(fleet).result()
        except WorkflowFailureError as error:
            raise Unavailable(f"the change of {fleet} ended without a result: {error.cause}") from error

    async def end_of(self, fleet: str) -> ChangeResult:
        """Wait for the end of the fleet's change and return how it ended."""
        try:
            return await self._change(fleet).result()
        except WorkflowFailureError as error:
            raise Refused(f"the change of {fleet} failed: {sentence_of(error.cause)}") from error

    async def is_under_way(self, fleet: str) -> bool:
        """Return whether somebody has the fleet's lock."""
        return await self._under_way(fleet) is not None

    async def _under_way(self, fleet: str) -> WorkflowExecutionDescription | None:
        """Return what the engine knows of the change that has the fleet's lock."""
        with engine_answers():
            try:
                description = await self._change(fleet).describe(rpc_timeout=SOON)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
        return description if description.status is WorkflowExecutionStatus.RUNNING else None

    def _change(self, fleet: str) -> WorkflowHandle[Any, ChangeResult]:
        return self.client.get_workflow_handle(change_of(fleet), result_type=ChangeResult)


def _own_pools(states: Mapping[str, GatewayState]) -> dict[str, tuple[Network, ...]]:
    """Return what daemons that were adopted give to their users, by gateway."""
    return {name: state.own_pools for name, state in states.items() if state.own_pools}


def _refuse_shared(fleet: Fleet, own: Mapping[str, Sequence[Network]]) -> None:
    """Refuse to go on where a daemon of a gateway's own gives addresses of another gateway to its users."""
    if shared := shared_pools(fleet, own):
        raise Refused(
            f"{listed(shared)}: give each gateway pools of its own, or say `nat: true` in the fleet's file "
            "if every gateway translates its users' addresses"
        )


def _silent(survey: Surveyed, out: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(set(survey.silent) - out))


def standing_of(fleet: Fleet, ledger: Ledger) -> Standing:
    """Return what the fleet is on, by what its gateways said when they were last looked at."""
    taking, silent = ledger.taking(fleet.name, LOOKED_AT_WITHIN)
    versions = ledger.versions(taking)
    if taking.keys() - versions.keys() - {""}:  # what was adopted is no release that was added
        versions |= {one.digest: one.version for one in ledger.known_good(fleet.name).values()}
    return Standing(
        fleet=fleet.name,
        versions=tuple(sorted({versions.get(release, "an unknown release") for release in taking})),
        taking=sum(taking.values()),
        gateways=len(fleet.gateways),
        silent=dict(sorted(silent.items())[:NAMED]),
        silent_count=len(silent),
        held_drains=ledger.held_drains(fleet.name),
        quarantined={one.gateway: one.reason for one in ledger.quarantined(fleet.name)},
    )


def _stuck(fleet: str, description: WorkflowExecutionDescription) -> tuple[str, Offer] | None:
    """Return that no worker can go on with the change, when its task has been tried again and again."""
    pending = description.raw_description.pending_workflow_task
    if description.status is not WorkflowExecutionStatus.RUNNING:
        return None
    if pending.attempt < STUCK_AFTER:
        return _left(fleet, description)
    sentence = (
        f"STUCK: no worker can go on with the change of {fleet} (tried {pending.attempt} times); "
        "a rollback by force ends it and takes every gateway back"
    )
    return sentence, Offer(verb=Verb.ROLL_BACK, fleet=fleet, force=True)


def _left(fleet: str, description: WorkflowExecutionDescription) -> tuple[str, Offer] | None:
    """Return that no worker takes the change's next step, and since when; what is told of it is old then."""
    pending = description.raw_description.pending_workflow_task
    since = pending.original_scheduled_time.ToDatetime(UTC)
    waited = datetime.now(UTC) - since
    if not _has_waited(description) or waited < TAKEN_WITHIN:
        return None
    sentence = (
        f"no worker has taken the next step of {fleet}'s change since {since:%H:%M:%S} UTC, so what is "
        "shown is of before: start one; trials end by their lease, and orders are stored until then"
    )
    return sentence, Offer(verb=Verb.DOCTOR)


def _has_waited(description: WorkflowExecutionDescription) -> bool:
    """Whether a task of the workflow lies there and no worker has begun it."""
    pending = description.raw_description.pending_workflow_task
    return pending.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED


def _was_never_taken(description: WorkflowExecutionDescription) -> bool:
    """Whether no worker has begun even the workflow's first task."""
    return description.raw_description.workflow_execution_info.history_length <= NEVER_TAKEN


def _offer(verb: Verb, fleet: str) -> Offer:
    return Offer(verb=verb, fleet=fleet)


def _begun(order: ChangeOrder) -> str:
    if order.takes_back is not None:
        return (
            f"Rolling back: what runs gets again what it had before {order.takes_back}; no session is "
            "touched. Mend the files that it was given: the next reload or start takes them again."
        )
    if order.confirm is None:
        return "Rolling back: every gateway goes to an earlier known-good."
    nothing = order.confirm.at_deadline == "nothing"
    by_itself = "it is given up" if nothing else "they go back to known-good"
    return (
        f"Waiting for a second person ({order.confirm.reason}) to approve it. "
        f"If nobody answers within {order.confirm.within}, {by_itself}."
    )


def _refuse_root(confirm: Confirmation | None, person: str) -> None:
    """Refuse what waits for a second person when whoever asks might be that person, too."""
    if confirm is not None and person == ROOT:
        raise NotAllowed(
            f"{confirm.reason}: a second person has to approve it, and root may be anybody on this host, "
            "that person too; ask for it in your own name"
        )


def _reference(gateway: Gateway) -> GatewayRef:
    """Return the gateway without its addresses and slots."""
    return GatewayRef(**{field: getattr(gateway, field) for field in GatewayRef.model_fields})
