"""Changes of a fleet: started, told, taken back, and asked how they stand."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from temporalio.api.enums.v1 import EventType, PendingWorkflowTaskState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
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
from activities.undecided_harm import require_decided, undecided_harm
from orchestrator.engine.histories import value_given
from orchestrator.engine.task_timeout import task_within
from orchestrator.service.background import PLANS
from orchestrator.service.engine_health import cannot_be_opened, no_worker_begins
from orchestrator.service.surveys import Surveyed, SurveyService, own_pools, refuse_shared
from orchestrator.service.updates import (
    ANSWER,
    SOON,
    before_any_order,
    engine_answers,
    give,
    refusal_in,
    silence_of,
)
from orchestrator.service.ways_back import WaysBack
from orchestrator.store.ledger import Ledger
from orchestrator.words.changes import NOT_IN_FORCE, UNNAMED
from policies.harm_asked import harmed_by
from policies.model.change import RELOADS, ChangeKind, ChangeOrder, ChangeResult, Outcome, Phase
from policies.model.command import Command, CommandKind, CommandReceipt, StoredCommand, StoredOrder
from policies.model.errors import BadInput, Conflict, NotOrdered, Refused, Unavailable
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.plan_part import PlanHeader
from policies.model.status import ChangeStatus
from policies.model.value import Digest, digest_of
from policies.model.way_back import RollbackAsked, RollbackPreview
from policies.model.windows import WindowOverride
from policies.notices.entries import HARM_ACCEPTED
from policies.planning.naming import named
from policies.planning.plan import plan as make_plan
from policies.planning.pools import POOLS, in_the_way
from policies.planning.reload import running
from policies.planning.settings import changing, nothing_to_change, of_joiners, passed_over
from policies.rebuilding import ahead
from workflows.change import Change, ChangeRun
from workflows.failures import sentence_of
from workflows.identities import beside, change_of
from workflows.restore import PARTS_OF_RESTORE, Restore, restore_of
from workflows.steps import CONTROL_QUEUE

_log = logging.getLogger(__name__)

KEY = "key"
"""Under which the engine keeps the key of the request that a change began with."""

STUCK_AFTER = 3
"""Tries of one task of a workflow after which no worker can take it: the code that runs does not fit it."""

HAS_PROBLEMS = "TemporalReportedProblems IS NOT NULL"
"""Finds workflows whose task was tried again and again; an engine that knows no such attribute finds none."""

NEWEST_EVENTS = 100
"""Events of a change that are searched for commands which no worker has taken."""

FALLBACK = "command_fallback"
TASK_TAKEN = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED

MOST_PARTS = 50
"""Parts with problems that are looked through for one of a change that is open."""

TAKEN_WITHIN = timedelta(seconds=15)
"""How long the next step of a change may wait for a worker before people hear of it."""

LOOK = timedelta(seconds=1)
"""How long the engine may take to say that it lives; a status is shown without its word."""

STOPPED_WITHIN = timedelta(seconds=5)
"""How long a rollback waits for the end of a change that has moved nothing."""

T = TypeVar("T")

ENDED_WITHIN = timedelta(seconds=60)
"""How long an order waits for what penstock does by itself; a return of gateways ends within 50 seconds."""

MOST_OFFERED = 3
"""Gateways for which a refusal says how each is left out of changes."""

TOLD_AT_ONCE = 20
"""Parts of a way back that are told together that it ended."""

TOLD_OF_A_GATEWAY = timedelta(milliseconds=10)
"""How much longer an order may take for each gateway that it names: its part of the rollback is told."""


@dataclass(frozen=True)
class LockHolder:
    """The change that has the fleet's lock."""

    name: str | None = None
    """None where no worker has given it one yet."""
    order: ChangeOrder | None = None
    """What it was asked for, of one without a name."""
    unopened: str = ""
    """Why that cannot be opened here, of one without a name."""
    began: datetime | None = None


@dataclass(frozen=True)
class Turned:
    """What came of a rollback that found a change under way, or none.

    Without a `receipt` the fleet's lock is free, and the rollback goes on with what stands.
    """

    receipt: CommandReceipt | None = None
    """Of a change that takes back itself what it has moved."""
    ended: str = ""
    """What has been ended for the rollback, in a sentence."""
    change: str | None = None
    """The name of the change that has been ended."""
    alone: bool = False
    """Whether that was the return of single gateways, which the rollback takes along."""
    beyond: bool = False
    """Whether that was a way back which only waited for gateways, which the rollback takes along."""
    go_on: tuple[tuple[str, ...], ...] = ()
    """The ways back of changes ended by force, each with its parts: they go on until this begins."""


class EngineView(NamedTuple):
    """What the engine knows of the change that has a fleet's lock, and no ledger does."""

    concern: str | None = None
    """Why the change may not go on by itself, None when it may."""
    helps: tuple[Offer, ...] = ()
    """What helps then."""
    stored: tuple[StoredCommand, ...] = ()
    """Commands that no worker has carried out yet, the oldest first."""
    unbegun: StoredOrder | None = None
    """The order of a change that no worker has begun; one that was given a moment ago is none."""
    silent: bool = False
    """Whether it is not known if a worker has begun the change."""


@dataclass(frozen=True)
class ChangeService:
    """What can be done to changes and asked of them; who may is asked before, by `Service`."""

    client: Client
    ledger: Ledger
    threads: Executor | None = None
    """Where commands and rollbacks ask the ledger; None for the threads that everything else has."""

    async def _ask(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    @cached_property
    def surveys(self) -> SurveyService:
        """What is asked of gateways before anything is changed."""
        return SurveyService(self.client, self.ledger)

    @property
    def _ways_back(self) -> WaysBack:
        return WaysBack(self.ledger)

    async def plan(
        self,
        fleet: Fleet,
        release: ReleaseRef,
        strategy: Strategy,
        gates: GatePolicy,
        trust_policy: str,
        asked_for: Callable[[ReleaseRef], Collection[str]] = lambda _: (),
        *,
        person: str = "",
    ) -> Plan:
        """Return the plan of an upgrade for that person; Refused when there is none. Nothing is changed.

        `asked_for` says which credentials a release asks for; it may block, and is asked after the gateways.
        """
        survey = await self.surveys.of(fleet)

        def made() -> Plan:
            refuse_shared(fleet, own_pools(survey.states))
            return make_plan(
                fleet,
                survey.states,
                self.ledger.known_good(fleet.name),
                release,
                strategy,
                gates=gates,
                trust_policy=trust_policy,
                quarantined={one.gateway: one.reason for one in self.ledger.quarantined(fleet.name)},
                ahead=ahead(fleet.name, survey.states, self.ledger.newest_number(fleet.name)),
                credentials=asked_for(release),
            )

        return await PLANS.run(made, person)

    async def start(
        self,
        plan: Plan,
        source: str,
        person: str,
        reason: str,
        *,
        even_if_unusual: bool = False,
        start_by: datetime | None = None,
        override: WindowOverride | None = None,
        key: str | None = None,
    ) -> str | None:
        """Start the upgrade of a plan; return its name, None when it is stored and has no name yet.

        Under one key it is started once, also when the answer to the first request was lost.

        Raises:
            Conflict: Another change is under way.
            Refused: Harm after a promotion of the fleet waits for an operator's decision.
        """
        if await self.begun_before(key) is None:
            await asyncio.to_thread(require_decided, self.ledger, plan.fleet.name)
        # In nobody's name: who starts upgrades of many fleets at once, or one again, is not refused.
        digest = await PLANS.run(partial(self.ledger.record_plan, plan, person))
        order = ChangeOrder(
            fleet=plan.fleet.name,
            kind=ChangeKind.UPGRADE,
            plan=digest,
            source=source,
            requested_by=person,
            on_behalf_of=await asyncio.to_thread(self.ledger.makers_of, person),
            reason=reason,
            even_if_unusual=even_if_unusual,
            asks_window=True,
            start_by=start_by,
            override=override,
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

        Where the others have the fleet's settings, they get them, too.

        Raises:
            Refused: A daemon that was adopted on a gateway gives its users addresses of another gateway.
            Conflict: Another change is under way.
        """
        await self.surveys.refuse_shared_pools(fleet)
        settings = of_joiners(fleet, (await self.surveys.of(fleet)).states)
        digest = await asyncio.to_thread(self.ledger.record_first, fleet, release, settings)
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
        all together, none first, and nobody waits for who is silent.

        Raises:
            Refused: Nothing runs on any gateway, or what runs has what its host has.
        """
        if at_once and not unserved:
            everybody = await self._taking_part(fleet)
        else:
            everybody = await self._to_be_reloaded(fleet, unserved=unserved)
        record = partial(self.ledger.record_reload, fleet, everybody, at_once=at_once, only_changed=unserved)
        digest = await asyncio.to_thread(record)
        return await asyncio.to_thread(self.ledger.plan_header, digest)

    async def _taking_part(self, fleet: Fleet) -> tuple[str, ...]:
        """Return every gateway that is not left out of changes, without a look: a silent one takes long."""
        left_out = await asyncio.to_thread(self.ledger.quarantined, fleet.name)
        out = {one.gateway for one in left_out}
        return tuple(gateway.name for gateway in fleet.gateways if gateway.name not in out)

    async def _to_be_reloaded(self, fleet: Fleet, *, unserved: bool) -> tuple[str, ...]:
        survey, out = await self.surveys.participants(fleet)
        names = running(survey.states, out, unserved=unserved)
        if not names and unserved:
            raise Refused(f"what runs on {fleet.name} has what lies on its hosts, as far as they answer")
        if not names:
            nothing = f"nothing runs on any gateway of {fleet.name} that answers and takes part in changes"
            raise Refused(nothing, _offer(Verb.SESSIONS, fleet.name))
        return names if unserved else names + _silent(survey, out)

    async def plan_settings(self, fleet: Fleet) -> PlanHeader:
        """Return the plan by which gateways get the settings of the fleet's file; it is kept.

        Gateways that do not answer now are asked last; those in quarantine, and those that an adopted daemon
        serves, are not, and the plan names them.

        Raises:
            BadInput: A setting is none that a fleet may have.
            Refused: Every gateway that answers has them already, or none does; or a pool of what runs is
                another one, and has not only grown, or overlaps that of a daemon that was adopted.
        """
        for gateway in fleet.gateways:
            require_settings(fleet.settings_of(gateway))
        survey, out = await self.surveys.participants(fleet)
        states = {name: state for name, state in survey.states.items() if name not in out}
        if not states:
            nobody = f"no gateway of {fleet.name} answers that takes part in changes"
            raise Refused(nobody, _offer(Verb.SESSIONS, fleet.name))
        known_good = await asyncio.to_thread(self.ledger.known_good, fleet.name)
        without = passed_over(fleet, survey.states, known_good, out)
        silent = tuple(name for name in _silent(survey, out) if name not in without.adopted)
        found = await PLANS.run(partial(changing, fleet, states))
        if not found.gateways:
            raise Refused(f"there is nothing to do: {nothing_to_change(fleet, without, silent)}")
        if POOLS & set(found.keys):
            refuse_shared(fleet, own_pools(survey.states))
        if reasons := in_the_way(fleet, states, found.gateways):
            raise Refused(
                reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} more like that)"
            )
        differing = {name: states[name] for name in found.gateways}
        first = running(differing, out)
        names = first + tuple(sorted(set(differing) - set(first))) + silent
        digest = await asyncio.to_thread(self.ledger.record_settings, fleet, names, found, without)
        return await asyncio.to_thread(self.ledger.plan_header, digest)

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
        await self.surveys.refuse_shared_pools(fleet, gateways)
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
        order = await asyncio.to_thread(self._ways_back.hand_back, fleet, gateways, person, reason, key)
        return await self._begin(order, fleet)

    async def _begin(self, order: ChangeOrder, fleet: Fleet) -> str | None:
        """Start a change and return its name; None when it is stored and no worker has named it yet."""
        name, _ = await self._begin_after(order, fleet)
        return name

    async def _begin_after(
        self, order: ChangeOrder, fleet: Fleet, *, is_rollback: bool = False
    ) -> tuple[str | None, str]:
        """Start a change, after one that only waits has ended for it; return how that ended, too.

        It has a key in any case: under a key a change begins once, also when the engine is told to repeat it.
        """
        order = order if order.key else order.model_copy(update={"key": secrets.token_hex(16)})
        if name := await self.begun_before(order.key):
            return name, ""
        try:
            handle = await self._take_lock(order, fleet, waits_for_returns=not is_rollback)
        except WorkflowAlreadyStartedError as error:
            if await self._is_of(order.fleet, order.key) and (
                name := await self.begun_before(order.key, within=ANSWER)
            ):
                return name, ""
            if order.is_let_in and (name := await self._let_in(order)):
                return name, ""
            ended = await self._give_way(
                order.fleet, order.requested_by, order.reason, is_rollback=is_rollback
            )
            if ended:
                return await self._begin_after(order.model_copy(update={"ended": ended}), fleet)
            if is_rollback:
                raise _goes_forward(order.fleet) from error
            raise await self._refusal(order) from error
        return await self._name_of(handle, order), order.ended

    async def _name_of(self, handle: WorkflowHandle[Change, ChangeResult], order: ChangeOrder) -> str | None:
        """Return the name of a change that has just begun, None where no worker gives it one soon."""
        try:
            async with asyncio.timeout(ANSWER.total_seconds()):
                while True:
                    status = await handle.query(Change.status, rpc_timeout=ANSWER)
                    if status.rollout:
                        labels = {"VPN_CHANGE": status.rollout, "VPN_FLEET": order.fleet}
                        _log.info("%s: %s is begun", status.rollout, order.kind.value, extra=labels)
                        return status.rollout
                    await asyncio.sleep(0.05)
        except (TimeoutError, RPCError, WorkflowQueryFailedError):
            return None

    async def _let_in(self, order: ChangeOrder) -> str | None:
        """Ask the change that has the lock to let this one in; return its name, None where that does not.

        Raises:
            Conflict: What it has let in before has not ended.
        """
        with suppress(Unavailable), engine_answers():
            status = await self.status(order.fleet)
            if status.phase not in {Phase.WAITING, Phase.HELD}:
                return None
            if not await self._lets_nothing_in(order):
                waits = f"{status.rollout} has let another change in, which has not ended"
                raise Conflict(f"{waits}: repeat this in a minute", _offer(Verb.STATUS, order.fleet))
            await self._change(order.fleet).signal("let_in", order, rpc_timeout=ANSWER)
            return await self.begun_before(order.key, within=ANSWER)
        return None

    async def _lets_nothing_in(self, order: ChangeOrder) -> bool:
        """Return whether the change under way has let nothing in that has not ended, having waited for it.

        What penstock does by itself ends for the order, and every reload for one that takes back files.
        """
        guest = self.client.get_workflow_handle(beside(change_of(order.fleet)))
        until, asked = time.monotonic() + ENDED_WITHIN.total_seconds(), None
        while (running := await self._running(guest)) is not None:
            if time.monotonic() > until:
                return False
            if running.run_id != asked:
                its = await self._order_of(running)
                if its is not None and its.ends_for(of_files=order.takes_back is not None):
                    stop = Command(
                        id=f"let in {order.key}",
                        kind=CommandKind.ROLL_BACK,
                        person=order.requested_by,
                        reason=order.reason,
                    )
                    await guest.signal("command_fallback", stop, rpc_timeout=ANSWER)
                asked = running.run_id
            await asyncio.sleep(0.2)
        return True

    async def _take_lock(
        self, order: ChangeOrder, fleet: Fleet, *, waits_for_returns: bool
    ) -> WorkflowHandle[Change, ChangeResult]:
        """Start the change's workflow, which has the fleet's lock from then on.

        Raises:
            WorkflowAlreadyStartedError: Another change has it.
        """
        try:
            return await self._start(order, fleet)
        except WorkflowAlreadyStartedError:
            if await self._is_of(order.fleet, order.key):
                raise
            if not await self._is_soon_free(order.fleet, waits_for_returns=waits_for_returns):
                raise
        return await self._start(order, fleet)

    async def _start(self, order: ChangeOrder, fleet: Fleet) -> WorkflowHandle[Change, ChangeResult]:
        with engine_answers():
            return await self.client.start_workflow(
                Change.run,
                ChangeRun(order=order),
                id=change_of(order.fleet),
                task_queue=CONTROL_QUEUE,
                task_timeout=task_within(fleet),
                memo={KEY: order.key},
                rpc_timeout=ANSWER,
            )

    async def _is_soon_free(self, fleet: str, *, waits_for_returns: bool) -> bool:
        """Return whether the fleet's lock is free, having waited for what penstock does by itself.

        Reconcile looks under the lock whether anything was left alone, and brings single gateways back, which
        a rollback ends and never waits for. A change that an operator has just begun has its name at once.
        """
        until, mine = time.monotonic() + ENDED_WITHIN.total_seconds(), ""
        with suppress(Unavailable, BadInput):
            while (under_way := await self._under_way(fleet)) is not None:
                if time.monotonic() > until:
                    return False
                if under_way.run_id != mine and (await self.status(fleet)).rollout:
                    order = await self._order_of(under_way)
                    if not waits_for_returns or order is None or not order.gives_way:
                        return False
                    mine = under_way.run_id
                await asyncio.sleep(0.2)
            return True
        return False

    async def _refusal(self, refused: ChangeOrder) -> Conflict:
        """Return that a change has the fleet's lock; of gateways that penstock brings back it names them.

        It offers no hold, which keeps the lock.
        """
        fleet = refused.fleet
        under_way = await self._under_way(fleet)
        order = await self._order_of(under_way) if under_way is not None else None
        if order is not None and order.bakes_on:
            back = await self._ask(partial(self._brought_back, fleet))
            named_back = (
                f"brings {named(back)} of {fleet} back" if back else f"brings gateways of {fleet} back"
            )
            sentence = (
                f"penstock {named_back} to known-good, and has the fleet's lock for a minute at most: repeat "
                "this. If a gateway needs that again and again, leave it out of changes"
            )
            return Conflict(sentence, *_leaving_out(fleet, back), _offer(Verb.STATUS, fleet))
        offers = [_offer(verb, fleet) for verb in (Verb.STATUS, Verb.ROLL_BACK)]
        waits = ", which lets this in before its first wave and between waves only" * refused.is_let_in
        return Conflict(f"a change of {fleet} is under way{waits}", *offers)

    def _brought_back(self, fleet: str) -> tuple[str, ...]:
        """Return the gateways of the fleet's newest change."""
        newest = self.ledger.last_change(fleet)
        story = self.ledger.story(newest.name) if newest is not None else None
        plan = story.order.plan if story is not None else None
        return tuple(self.ledger.plan_members(plan)) if plan is not None else ()

    async def _is_of(self, fleet: str, key: str | None) -> bool:
        """Whether the fleet's last change was begun by the request of that key."""
        if key is None:
            return False
        try:
            with engine_answers():
                description = await self._change(fleet).describe(rpc_timeout=ANSWER)
                return bool((await description.memo()).get(KEY) == key)
        except (Unavailable, RPCError, BadInput):
            return False

    async def ended_for(self, change: str | None) -> str | None:
        """Return how a rollback that only waited has ended for a change that has just begun."""
        until = time.monotonic() + LOOK.total_seconds()
        with suppress(Unavailable):
            while change is not None and time.monotonic() < until:
                if (story := await self._ask(partial(self.ledger.story, change))) is not None:
                    return story.order.ended or None
                await asyncio.sleep(0.05)  # it is written once a worker has named the change
        return None

    async def begun_before(self, key: str | None, within: timedelta = timedelta(0)) -> str | None:
        """Return the change that the request of that key has begun; one that has just begun is named soon."""
        if key is None:
            return None
        until = time.monotonic() + within.total_seconds()
        while True:
            name = await self._ask(partial(self.ledger.change_of_key, key))
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

    async def seen_by_engine(
        self, fleet: str, *, is_open: bool = True, with_stored: bool = True
    ) -> EngineView:
        """Return what the engine knows of a change: whether it goes on or begins, and which commands wait.

        The engine describes the change once. The newest events are read only while a step waits for a worker.

        Args:
            fleet: Its name.
            is_open: Whether the ledger knows a change of the fleet without an end.
            with_stored: Whether the stored commands are read.
        """
        try:
            description = await self._change(fleet).describe(rpc_timeout=LOOK)
        except (RPCError, RuntimeError) as error:
            return _unseen(fleet, error, is_open=is_open)
        unbegun, silent = None, False
        try:
            unbegun = await self._unbegun_in(fleet, description)
        except (TimeoutError, Unavailable):
            silent = True
        if unbegun is not None or not is_open:
            concern = no_worker_begins(unbegun) if unbegun is not None else None
            return EngineView(concern, unbegun=unbegun, silent=silent)
        stuck = _stuck(fleet, description) or await self._stuck_part(fleet, description)
        stored = await self._stored_in(description) if with_stored else ()
        if stuck is None:
            concern = next((cannot_be_opened(one) for one in stored if one.kind is None), None)
            return EngineView(concern, stored=stored, silent=silent)
        concern, helps = stuck
        return EngineView(concern, (helps,), stored, silent=silent)

    async def stored(self, fleet: str) -> tuple[StoredCommand, ...]:
        """Return the stored commands alone, for who looks often: nothing is searched for what is stuck."""
        try:
            return await self._stored_in(await self._change(fleet).describe(rpc_timeout=LOOK))
        except RPCError:
            return ()

    async def _stored_in(self, description: WorkflowExecutionDescription) -> tuple[StoredCommand, ...]:
        """Return the commands that the engine has stored for a change and that no worker has taken yet."""
        found = description.raw_description
        if not found.HasField("pending_workflow_task"):
            return ()
        asked = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self.client.namespace,
            execution=found.workflow_execution_info.execution,
            maximum_page_size=NEWEST_EVENTS,
        )
        try:
            answer = await self.client.workflow_service.get_workflow_execution_history_reverse(
                asked, timeout=LOOK
            )
            untaken = takewhile(lambda one: one.event_type != TASK_TAKEN, answer.history.events)
            commands = [one for one in untaken if _is_command(one)]
        except (RPCError, RuntimeError):
            return ()
        return tuple([await _stored_by(one, description) for one in reversed(commands)])

    async def _why_stuck(self, fleet: str) -> tuple[str, Offer] | None:
        """Return that the change's code and history do not fit any more, when the engine says so."""
        try:
            description = await self._change(fleet).describe(rpc_timeout=LOOK)
        except RPCError:
            return None
        return _stuck(fleet, description) or await self._stuck_part(fleet, description)

    async def _stuck_part(
        self, fleet: str, description: WorkflowExecutionDescription
    ) -> tuple[str, Offer] | None:
        """Return that no worker can go on with a part of a running change; one search finds it among all."""
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return None
        root = change_of(fleet)
        query = f"WorkflowId STARTS_WITH '{root}/' AND ExecutionStatus = 'Running' AND {HAS_PROBLEMS}"
        searched = self.client.list_workflows(query, rpc_timeout=LOOK, limit=MOST_PARTS)
        try:
            found = [one.id async for one in searched]
        except RPCError:
            return None
        # What a rollback by force has left behind is no part of the change that runs now.
        names = await self._ask(partial(self.ledger.open_changes, fleet)) if found else ()
        own = tuple(f"{root}/{name}/" for name in names)
        part = next((one for one in found if one.startswith(own)), None)
        return None if part is None else _ends_by_force(fleet, f"{part}, a part of the change of {fleet}")

    async def command(self, fleet: str, command: Command) -> CommandReceipt:
        """Give a change a person's command; it is durable even while no worker is up.

        Raises:
            Conflict: The command makes no sense now; the sentence says what does.
        """
        change = self._change(fleet)
        if not command.is_safe:
            command = command.model_copy(update={"run": await self._run_of(fleet)})
        try:
            within = SOON + len(command.gateways) * TOLD_OF_A_GATEWAY
            answer = await give(change, "command", command, within)
        except WorkflowUpdateFailedError as error:
            raise refusal_in(error) from error
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            return await self._store(fleet, command, error)
        return answer

    async def accept_harm(self, fleet: str, command: Command, via: Via) -> CommandReceipt:
        """Write down that an operator accepts the harm after a promotion that they were shown.

        Upgrades may begin then. Harm that is shown later is reported, and decided, anew.

        Raises:
            Conflict: Other harm waits for a decision after that promotion, or none does.
        """
        promoted = harmed_by(command.hold_of)
        waits = await self._ask(partial(undecided_harm, self.ledger, fleet))
        found = next((one for one in waits if one.change == promoted), None)
        if found is None:
            raise Conflict(f"no harm after {promoted} waits for a decision")
        if found.hold_of != command.hold_of:
            raise Conflict(f"harm has been found since; read it and decide: {found.harm}", *found.next)
        until = int(found.hold_of.rpartition("-")[2])
        body = {"reason": command.reason, "sentence": found.harm, "until": until}
        subject, key = f"{fleet}/{promoted}", digest_of(f"{command.id} {promoted}".encode())
        entry = partial(self.ledger.audit, command.person, via, HARM_ACCEPTED, subject, body, key)
        await self._ask(partial(entry, fleet=fleet))
        said = f"Accepted: harm after {promoted}: {found.harm}. The next upgrade may begin"
        return CommandReceipt(id=command.id, accepted=True, sentence=said, change=promoted)

    async def _run_of(self, fleet: str) -> str:
        """Return which change of the fleet is under way now, as the engine names it."""
        try:
            with engine_answers():
                found = await self._change(fleet).describe(rpc_timeout=ANSWER)
        except Unavailable as error:
            if isinstance(error.__cause__, RPCError) and error.__cause__.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            raise NotOrdered(str(error)) from error
        return found.raw_description.workflow_execution_info.first_run_id

    async def _store(
        self, fleet: str, command: Command, given: WorkflowUpdateRPCTimeoutOrCancelledError | RPCError
    ) -> CommandReceipt:
        """Leave the command with the engine, after it was `given` in vain.

        Raises:
            Conflict: The change has just ended.
            NotOrdered: The engine can be reached neither way.
            Unavailable: The engine does not answer in time. It may have stored the command.
        """
        try:
            await self._change(fleet).signal(Change.command_fallback, command, rpc_timeout=SOON)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise Conflict(f"no change of {fleet} is under way") from error
            if all(_is_out_of_reach(one) for one in (given, error)):
                raise NotOrdered(f"{silence_of(error)}; nothing was ordered") from error
            raise Unavailable(f"{silence_of(error)}; the order may be stored") from error
        then = "It is carried out with the change's next step."
        sentence = f"{NOT_IN_FORCE}, and no worker has answered. {then}"
        if stuck := await self._why_stuck(fleet):
            sentence = f"{NOT_IN_FORCE}. {stuck[0][:1].upper()}{stuck[0][1:]}."
        if command.kind is not CommandKind.ROLL_BACK:
            if command.kind is CommandKind.ABORT:
                sentence += " If the change has moved sessions by then, new ones go back to known-good."
            return CommandReceipt(id=command.id, accepted=True, stored=True, sentence=sentence)
        holder = await self.holder(fleet)
        goes_back = holder.order is not None and holder.order.kind is ChangeKind.GO_BACK
        if holder.unopened:
            sentence += (
                " What that change was ordered to do cannot be opened here, so it is not known what each "
                f"gateway serves then: {holder.unopened}."
            )
        elif not (goes_back or await self._is_known_to_go_back(holder.name)):
            sentence += (
                " If the change has moved no session by then, it only ends and nothing is taken back: once "
                f"`penstock status {fleet}` shows its end, order the rollback again by "
                f"`penstock rollback {fleet} --reason TEXT`."
            )
        return CommandReceipt(
            id=command.id, accepted=True, stored=True, sentence=sentence, change=holder.name
        )

    async def _is_known_to_go_back(self, change: str | None) -> bool:
        """Return whether the change takes back what it has moved, or is a rollback, as far as is known."""

        def goes_back() -> bool:
            story = self.ledger.story(change) if change is not None else None
            if story is None:
                return False
            is_rollback = story.order.kind is ChangeKind.GO_BACK and not story.order.bakes_on
            return story.told.moved or (is_rollback and not story.told.ends_unchanged)

        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LOOK.total_seconds()):
                return await self._ask(goes_back)
        return False

    async def holder(self, fleet: str) -> LockHolder:
        """Return which change has the fleet's lock.

        The ledger's newest change may be one before it. Where the engine does not answer, or keeps no key of
        the change, it counts as the one unless it has ended. Nothing is known where the ledger is silent.
        """
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LOOK.total_seconds()):
                return await self._holder(fleet)
        return LockHolder()

    async def _holder(self, fleet: str) -> LockHolder:
        description = None
        with suppress(Unavailable), engine_answers():
            description = await self._change(fleet).describe(rpc_timeout=LOOK)
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return LockHolder()
        held = await self._held_by(fleet, description) if description is not None else None
        return held or LockHolder(await self._open_in_ledger(fleet))

    async def _open_in_ledger(self, fleet: str) -> str | None:
        """Return the ledger's newest change of the fleet, None where that has ended."""
        newest = await self._ask(partial(self.ledger.last_change, fleet))
        return newest.name if newest is not None and newest.outcome is None else None

    async def _held_by(self, fleet: str, description: WorkflowExecutionDescription) -> LockHolder | None:
        """Return the change of the key that the engine keeps with it; None where it keeps none.

        Where the ledger has no name of it, its order counts. Where key or order cannot be opened here, the
        ledger's newest change is taken for it, unless that has ended.
        """
        try:
            if (key := (await description.memo()).get(KEY)) is None:
                return None
            if name := await self._ask(partial(self.ledger.change_of_key, key)):
                return LockHolder(name)
            return LockHolder(order=await self._opened_order(description), began=description.start_time)
        except BadInput as error:
            if name := await self._open_in_ledger(fleet):
                return LockHolder(name)
            return LockHolder(unopened=str(error), began=description.start_time)

    async def _order_of(self, under_way: WorkflowExecutionDescription) -> ChangeOrder | None:
        """Return what the change was asked for, also without a worker; None where that is not known."""
        with suppress(BadInput):
            return await self._opened_order(under_way)
        return None

    async def _opened_order(self, under_way: WorkflowExecutionDescription) -> ChangeOrder | None:
        """Return the same.

        Raises:
            BadInput: The engine has the order, and it cannot be opened here.
        """
        with suppress(RPCError, RuntimeError):
            change = self.client.get_workflow_handle(under_way.id, run_id=under_way.run_id)
            async for event in change.fetch_history_events(page_size=1, rpc_timeout=LOOK):
                given = event.workflow_execution_started_event_attributes.input
                return (await value_given(under_way, given, ChangeRun)).order
        return None

    async def running(self) -> frozenset[str]:
        """Return the fleets whose lock a change has, by one search; none where the engine is silent."""
        query, found = "WorkflowType = 'Change' AND ExecutionStatus = 'Running'", set[str]()
        with suppress(RPCError, RuntimeError):
            async for one in self.client.list_workflows(query, rpc_timeout=LOOK):
                found.add(one.id.removeprefix(change_of("")))
        return frozenset(found)

    async def _unbegun_in(self, fleet: str, description: WorkflowExecutionDescription) -> StoredOrder | None:
        """Return the order that the engine has stored and that no worker begins; None without one.

        One that was given a moment ago is none: a worker names it soon.

        Raises:
            Unavailable: The ledger or the engine does not answer.
            TimeoutError: Not soon.
        """
        at, is_running = description.start_time, description.status is WorkflowExecutionStatus.RUNNING
        if not is_running or datetime.now(UTC) - at < ANSWER:
            return None
        async with asyncio.timeout(LOOK.total_seconds()):
            holder = await self._held_by(fleet, description)
        if holder is None or holder.name is not None:
            return None
        if (order := holder.order) is not None:
            return StoredOrder(kind=order.kind, person=order.requested_by, reason=order.reason, at=at)
        if holder.unopened:
            return StoredOrder(at=at, unopened=holder.unopened)
        raise Unavailable("the engine does not show what was ordered")

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
        settings: bool = False,
        force: bool = False,
        key: str | None = None,
        before: Turned | None = None,
        shown: Digest | None = None,
    ) -> CommandReceipt:
        """Send every gateway back, whatever is going on; a receipt that is not accepted had nothing to do.

        A change under way that has moved sessions takes them back itself. One that has moved none ends, and
        the rollback goes on with what stands under it: the last promotion within the kept window is taken
        back, or every gateway goes to the release `to`. What the fleet's rules ask a second person for waits;
        known-good by itself does not, and asking for it ends a wait. A rollback of files takes back what
        instances were given by the last change of settings, or by the reload that `of` names, and no
        release. With `force` a change that no worker can go on with is ended first, once it is known what
        is ordered then: where that is refused by name, nothing is ended.

        Args:
            fleet: As its file describes it now.
            person: Who asks.
            reason: Why.
            via: Which way the order came.
            to: An earlier release by name.
            source: Where a release comes from that is not on its host any more.
            of: A reload or change of settings by name.
            settings: Whether the last change of settings is meant.
            force: Whether a change under way is ended first, whatever it does.
            key: Of the request: under one key one rollback begins.
            before: What has been ended for this rollback already.
            shown: The digest of the preview that this rollback has to match, where it ends nothing first.

        Raises:
            Conflict: A change is under way and `to` or files are named, or another rollback was shown.
            NotAllowed: It waits for a second operator, and the caller may be anybody.
            Refused: The kept window is over, or `to` was never known-good here.
        """
        asked = RollbackAsked(
            to=to.version if to is not None else None, settings=settings, of=of, force=force
        )
        ask = partial(self._ways_back.order, fleet, person, reason, asked, to, source, key)
        if force:
            is_repeat = await self._is_of(fleet.name, key)  # which must not end its own rollback
            name = await self.begun_before(key, within=ANSWER if is_repeat else timedelta(0))
            if name or is_repeat:
                return _begun_already(fleet.name, name)
            try:
                with before_any_order():
                    order, sentence = await self._ask(partial(ask, nothing_runs=True, shown=shown))
            except Refused as refused:
                if not (asked.is_plain and await self.is_under_way(fleet.name)):
                    raise
                order, sentence = None, str(refused)
            turned = await self._end_by_force(fleet.name, person, via, reason)
            return await self._begin_what_stands(fleet, order, sentence, turned)
        if await self._is_beside_another(fleet.name, asked, self._gives_way):
            return await self._roll_back_what_stands(fleet, partial(ask, shown=shown), Turned(), key)
        turned = await self.turn_round(fleet.name, person, reason, key=key)
        turned = await self.go_beyond(fleet, turned, person, reason)
        if turned.receipt is not None:
            return turned.receipt
        ended = turned if turned.ended else before or Turned()
        ask = partial(ask, ended=ended.change, shown=None if ended.ended else shown, nothing_runs=True)
        return await self._roll_back_what_stands(fleet, ask, ended, key)

    async def _roll_back_what_stands(
        self,
        fleet: Fleet,
        ask: Callable[..., tuple[ChangeOrder | None, str]],
        ended: Turned,
        key: str | None,
    ) -> CommandReceipt:
        """Begin the rollback that the ledger answers with, once nothing has the fleet's lock."""
        with nullcontext() if ended.ended else before_any_order():
            if name := await self.begun_before(key):
                return _begun_already(fleet.name, name)
        try:
            with nullcontext() if ended.ended else before_any_order():
                order, sentence = await self._ask(partial(ask, everybody=ended.alone, beyond=ended.beyond))
        except (Refused, Conflict) as refused:
            if not ended.ended:
                raise
            order, sentence = None, str(refused)
        return await self._begin_what_stands(fleet, order, sentence, ended)

    async def _begin_what_stands(
        self, fleet: Fleet, order: ChangeOrder | None, sentence: str, ended: Turned
    ) -> CommandReceipt:
        """Begin the rollback after what has ended for it; without an order its sentence says why."""
        if order is None:
            nothing = (
                f"Nothing else is taken back: {sentence}." if ended.ended else f"Nothing to do: {sentence}."
            )
            sentence = " ".join(filter(None, (ended.ended, nothing)))
            return CommandReceipt(
                id=fleet.name, accepted=bool(ended.ended), sentence=sentence, change=ended.change
            )
        name, gave_way = await self._begin_after(order, fleet, is_rollback=True)
        if order.kind is ChangeKind.GO_BACK and order.confirm is None:
            person = order.requested_by
            for way_back in ended.go_on:
                await self._leave(way_back, f"left to the rollback that {person} ordered by force")
        said = " ".join(filter(None, (ended.ended, gave_way, _begun(order, sentence, name))))
        return CommandReceipt(
            id=name or fleet.name, accepted=True, stored=name is None, sentence=said, change=name
        )

    async def rollback_preview(
        self, fleet: Fleet, asked: RollbackAsked, to: ReleaseRef | None
    ) -> RollbackPreview:
        """Return which release each gateway will serve after a rollback asked for now; nothing is done.

        Raises:
            Refused: As `roll_back`.
            Conflict: As `roll_back`.
        """
        under_way = await self.may_be_under_way(fleet.name, asked)
        return await self._ask(partial(self._ways_back.preview, fleet, asked, to, under_way=under_way))

    async def may_be_under_way(self, fleet: str, asked: RollbackAsked) -> bool:
        """Return whether a change that the ledger knows no end of may run, beside which that rollback begins.

        No change is asked, which no worker may answer. Where the engine does not answer, one may.

        Raises:
            Conflict: As `roll_back`.
        """
        with suppress(Unavailable):
            if not asked.force:
                await self._is_beside_another(fleet, asked, self._gave_way)
            return await self.is_under_way(fleet)
        return True

    async def _gives_way(self, fleet: str, asked: RollbackAsked) -> bool:
        """Return whether the change under way ends for that rollback, or lets it in, by its own report."""
        status = await self.status(fleet)
        waits = status.phase in {Phase.WAITING, Phase.HELD}
        unbegun = status.kind is ChangeKind.UPGRADE and not status.wave
        return status.phase is Phase.ROLLING_BACK or unbegun or (waits and asked.of_files)

    async def _gave_way(self, fleet: str, asked: RollbackAsked) -> bool:
        """Return the same by what the change reported last."""
        newest = await self._ask(partial(self.ledger.last_change, fleet))
        if newest is None or newest.outcome is not None:
            return False  # what has the lock has no name yet
        story = await self._ask(partial(self.ledger.story, newest.name))
        if story is None:
            return False
        told = story.told
        waits = told.phase is Phase.HELD or told.window is not None
        unbegun = newest.kind is ChangeKind.UPGRADE and not told.may_have_moved
        return told.goes_back or unbegun or (waits and asked.of_files)

    async def _is_beside_another(
        self, fleet: str, asked: RollbackAsked, gives_way: Callable[[str, RollbackAsked], Awaitable[bool]]
    ) -> bool:
        """Return whether a rollback by name begins though a change is under way, which ends or lets it in.

        `gives_way` says whether that change of the fleet does so.

        Raises:
            Conflict: That change goes forward, and this rollback does not mean it.
        """
        with before_any_order():
            under_way = None if asked.is_plain else await self._under_way(fleet)
        if under_way is None:
            return False
        order = await self._order_of(under_way)
        if order is not None and order.ends_for(of_files=asked.of_files):
            return False
        is_way_back = order is not None and order.kind is ChangeKind.GO_BACK and order.confirm is None
        with suppress(Unavailable, BadInput):
            if is_way_back or await gives_way(fleet, asked):
                return True  # whether it only waits it answers itself, once this one is to begin
        raise _goes_forward(fleet)

    async def turn_round(self, fleet: str, person: str, reason: str, *, key: str | None = None) -> Turned:
        """Order the change that is under way to go back, and return what came of it; no ledger is asked.

        Raises:
            Conflict: The change has just ended.
            NotOrdered: The engine does not answer.
            Unavailable: The engine may have stored the order. Or the change that moved nothing was ordered
                to end and has the lock still, as without a worker; the rollback has to be asked for again.
        """
        with before_any_order():
            under_way = await self._under_way(fleet)
        if under_way is None:
            return Turned()
        order = await self._order_of(under_way)
        command = Command(
            id=key or f"rollback-{secrets.token_hex(6)}",
            kind=CommandKind.ROLL_BACK,
            person=person,
            reason=reason,
        )
        try:
            receipt = await self.command(fleet, command)
        except Conflict:
            if await self._has_ended_well(fleet):
                return Turned()
            raise
        # A stored order would only end a reload, or the return of single gateways: nothing goes back by it.
        if not receipt.only_ends and (order is None or not (order.bakes_on or order.kind in RELOADS)):
            return Turned(receipt)
        if await self._has_stopped(fleet):
            alone = order is None or order.bakes_on  # what is not known is taken along
            return Turned(ended=receipt.sentence, alone=alone, change=receipt.change)
        waits = f"a change of {fleet} was ordered to end and has not yet, so nothing is taken back yet"
        raise Unavailable(
            f"{waits}: repeat the rollback; is a worker running?", _offer(Verb.ROLL_BACK, fleet)
        )

    async def go_beyond(self, fleet: Fleet, turned: Turned, person: str, reason: str) -> Turned:
        """End a way back that only waits for gateways where a rollback takes others back, too.

        The receipt of any other one is the answer; it says what is not taken back. So it is where the ledger
        does not answer.

        Raises:
            Unavailable: The way back has not given up the fleet's lock yet: the rollback has to be repeated.
        """
        receipt = turned.receipt
        if receipt is None or not receipt.only_waits:
            return turned
        try:
            async with asyncio.timeout(ANSWER.total_seconds()):
                more = await self._ask(partial(self._ways_back.beyond, fleet))
        except (TimeoutError, Unavailable):
            return turned
        if not more.targets:
            said = f"{receipt.sentence} Nothing else is taken back: {more.sentence}."
            return Turned(receipt.model_copy(update={"sentence": said}))
        ended = await self._give_way(fleet.name, person, reason)
        if not ended and await self.is_under_way(fleet.name):
            waits = (
                f"{receipt.sentence} It has not given up the fleet's lock yet, so nothing else is taken back"
            )
            raise Unavailable(f"{waits}: repeat the rollback", _offer(Verb.ROLL_BACK, fleet.name))
        return Turned(ended=receipt.sentence, beyond=True, change=receipt.change)

    async def _give_way(self, fleet: str, person: str, reason: str, *, is_rollback: bool = False) -> str:
        """End the change under way if it gives way; return that in a sentence, empty where it does not.

        A way back that only waits for gateways does so for every change, an upgrade that has not begun its
        first wave for rollbacks.

        Raises:
            Unavailable: It has not given up the fleet's lock yet.
        """
        sentence = ""
        with suppress(RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError):
            sentence = await self._change(fleet).execute_update(
                "give_way", args=[person, reason, is_rollback], result_type=str, rpc_timeout=ANSWER
            )
        if sentence and not await self._has_stopped(fleet):
            waits = f"{sentence} It has not given up the fleet's lock yet, so nothing else has begun"
            raise Unavailable(f"{waits}: repeat this", _offer(Verb.STATUS, fleet))
        return sentence

    async def _has_ended_well(self, fleet: str) -> bool:
        """Return whether the change under way has just ended, and took back nothing that it had moved.

        One that has written down its end gives up the fleet's lock in a moment, which is waited for.

        Raises:
            Unavailable: It has not given up the fleet's lock yet.
        """
        if await self.is_under_way(fleet):
            status = await self.status(fleet)
            if status.phase is not Phase.ENDED:
                return False
            if not await self._has_stopped(fleet):
                waits = f"{status.rollout} has ended and has not given up the fleet's lock yet"
                raise Unavailable(f"{waits}: repeat the rollback", _offer(Verb.ROLL_BACK, fleet))
        with suppress(Unavailable, RPCError):
            ended = await self.result(fleet)
            return ended.outcome is Outcome.PROMOTED or not ended.touched
        return False

    async def _has_stopped(self, fleet: str) -> bool:
        """Return whether a change that was ordered to end has given up the fleet's lock, soon."""
        until = time.monotonic() + STOPPED_WITHIN.total_seconds()
        while await self.is_under_way(fleet):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _end_by_force(self, fleet: str, person: str, via: Via, reason: str) -> Turned:
        """End a change that no longer answers; what it touched is taken back by the one that follows.

        Returns:
            What was ended, and the ways back of all changes that have no end, each with its parts. They go on
            until the one that follows has begun to go back: where that is refused, or waits, every gateway
            still has its turn.
        """
        ended, name = "", None
        with before_any_order():
            is_under_way = await self.is_under_way(fleet)
        if is_under_way:
            stuck = await self._why_stuck(fleet)
            name = (await self.holder(fleet)).name
            with engine_answers():
                await self._change(fleet).terminate(f"{person}: {reason}", rpc_timeout=ANSWER)
            body, what = {"reason": reason, "stuck": stuck is not None}, "change ended by force"
            await self._ask(partial(self.ledger.audit, person, via, what, fleet, body, fleet=fleet))
            ended = f"{name or f'The change of {fleet}'} was ended by force."
        names = await self._ask(partial(self.ledger.open_changes, fleet))
        go_on = tuple([await self._ask(partial(self._parts_of, fleet, name)) for name in names])
        return Turned(ended=ended, change=name, go_on=go_on)

    def _parts_of(self, fleet: str, change: str) -> tuple[str, ...]:
        """Return the workflows that may take back what the change has touched, first what begins them."""
        root, story = f"{change_of(fleet)}/{change}/restore", self.ledger.story(change)
        plan = story.order.plan if story is not None else self.ledger.change(change).plan
        keys = self.ledger.plan_header(plan).keys if plan is not None else ()
        return (root, *(restore_of(root, key) for key in keys))

    async def _leave(self, parts: Sequence[str], why: str) -> None:
        """Have a way back end with these parts: no order that a person gives would reach them any more."""
        await self._end_turns(parts[0], why)
        for first in range(0, len(parts), TOLD_AT_ONCE):
            together = parts[first : first + TOLD_AT_ONCE]
            await asyncio.gather(*[self._leave_part(part, why) for part in together])

    async def _leave_part(self, part: str, why: str) -> None:
        try:
            handle = self.client.get_workflow_handle(part)
            await handle.signal(Restore.leave_all, why, rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                # What follows has begun: it fences this part off, which then ends by itself.
                _log.warning("%s was not told that it is %s: %s", part, why, silence_of(error))

    async def _end_turns(self, restore: str, reason: str) -> None:
        """End what begins the parts of a way back; one of a single part looks after its gateways itself."""
        handle = self.client.get_workflow_handle(restore)
        try:
            found = await handle.describe(rpc_timeout=ANSWER)
            if found.close_time is None and await found.memo_value(PARTS_OF_RESTORE, 1, type_hint=int) > 1:
                await handle.terminate(reason, rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                _log.warning("%s was not ended: %s: %s", restore, reason, silence_of(error))
        except BadInput as error:
            _log.warning("%s was not ended: %s: %s", restore, reason, error)

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
        return await self._running(self._change(fleet))

    async def _running(self, change: WorkflowHandle[Any, Any]) -> WorkflowExecutionDescription | None:
        """Return what the engine knows of the change as long as it runs."""
        with engine_answers():
            try:
                description = await change.describe(rpc_timeout=SOON)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
        return description if description.status is WorkflowExecutionStatus.RUNNING else None

    def _change(self, fleet: str) -> WorkflowHandle[Any, ChangeResult]:
        return self.client.get_workflow_handle(change_of(fleet), result_type=ChangeResult)


def _is_out_of_reach(error: BaseException) -> bool:
    return isinstance(error, RPCError) and error.status is RPCStatusCode.UNAVAILABLE


def _unseen(fleet: str, error: RPCError | RuntimeError, *, is_open: bool) -> EngineView:
    """Return what follows where the engine does not describe a change; `is_open` as for `seen_by_engine`."""
    is_gone = isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND
    if not is_open:
        return EngineView(silent=not is_gone)
    if is_gone:
        gone = "the engine knows nothing of this change any more; a rollback takes every gateway back"
        return EngineView(gone, (_offer(Verb.ROLL_BACK, fleet),))
    silence = silence_of(error) if isinstance(error, RPCError) else "the engine cannot be reached"
    return EngineView(f"{silence}; what is shown is what was last heard", silent=True)


def _silent(survey: Surveyed, out: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(set(survey.silent) - out))


async def _stored_by(event: HistoryEvent, change: WorkflowExecutionDescription) -> StoredCommand:
    at = event.event_time.ToDatetime(UTC)
    try:
        command = await value_given(change, event.workflow_execution_signaled_event_attributes.input, Command)
    except BadInput as error:
        return StoredCommand(at=at, unopened=str(error))
    return StoredCommand(kind=command.kind, person=command.person, reason=command.reason, at=at)


def _is_command(event: HistoryEvent) -> bool:
    return event.workflow_execution_signaled_event_attributes.signal_name == FALLBACK


def _stuck(fleet: str, description: WorkflowExecutionDescription) -> tuple[str, Offer] | None:
    """Return that no worker can go on with the change, when its task has been tried again and again."""
    pending = description.raw_description.pending_workflow_task
    if description.status is not WorkflowExecutionStatus.RUNNING:
        return None
    if pending.attempt < STUCK_AFTER:
        return _left(fleet, description)
    return _ends_by_force(fleet, f"the change of {fleet} (tried {pending.attempt} times)")


def _ends_by_force(fleet: str, stuck: str) -> tuple[str, Offer]:
    ends = "a rollback by force ends it and takes every gateway back"
    return f"STUCK: no worker can go on with {stuck}; {ends}", Offer(
        verb=Verb.ROLL_BACK, fleet=fleet, force=True
    )


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


def _offer(verb: Verb, fleet: str) -> Offer:
    return Offer(verb=verb, fleet=fleet)


def _leaving_out(fleet: str, gateways: Collection[str]) -> tuple[Offer, ...]:
    """Return how to leave out the first of these gateways, which an operator may name."""
    first = sorted(gateways)[:MOST_OFFERED]
    return tuple(Offer(verb=Verb.QUARANTINE, fleet=fleet, gateway=name) for name in first)


def _goes_forward(fleet: str) -> Conflict:
    """Return that a rollback by name does not begin beside the change under way."""
    sentence = (
        f"a change of {fleet} is under way: a rollback takes it to known-good at once, "
        "and another release, or settings, can be asked for after that"
    )
    return Conflict(sentence, _offer(Verb.ROLL_BACK, fleet))


def _begun_already(fleet: str, name: str | None) -> CommandReceipt:
    sentence = f"{name} has begun." if name else f"{UNNAMED}."
    return CommandReceipt(
        id=name or fleet, accepted=True, stored=name is None, sentence=sentence, change=name
    )


def _begun(order: ChangeOrder, sentence: str, name: str | None) -> str:
    """Return what a rollback does; one that no worker has named has done nothing yet."""
    lead = "Rolling back" if name else f"{UNNAMED}. Then"
    if order.takes_back is not None:
        return (
            f"{lead}: {sentence}. No session is touched. Mend the files that it was given: the next "
            "reload or start takes them again."
        )
    if order.confirm is None:
        return f"{lead}: {sentence}."
    confirm = order.confirm
    by_itself = f"it is given up, and {confirm.nothing_is_changed}"
    if confirm.by_itself is not None:
        by_itself = f"gateways go back to known-good: {confirm.then}"
    return ("" if name else f"{UNNAMED}. ") + (
        f"Waiting for a second person ({confirm.reason}) to approve it: {sentence}. "
        f"If nobody answers within {confirm.within}, {by_itself}."
    )
