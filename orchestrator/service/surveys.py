"""Surveys: what is true of a fleet's gateways now, asked of all of them through the engine."""

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil

from temporalio.client import Client, WorkflowFailureError

from orchestrator.engine.task_timeout import task_within
from orchestrator.service.allowance import Allowance
from orchestrator.service.engine_health import was_never_taken
from orchestrator.service.looks import Looks
from orchestrator.service.updates import ANSWER, engine_answers
from orchestrator.store.ledger import Ledger
from policies.model.adoption import Examined
from policies.model.errors import BadInput, Refused, TooMany, Unavailable
from policies.model.fleet import Fleet, Gateway, GatewayRef
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.path import PathWalked
from policies.model.plan_part import MOST_MEMBERS
from policies.model.value import Value
from policies.paths import findings_of
from policies.pools import Network, shared_pools
from policies.status.told import listed
from workflows.adopt import Examine, ExamineOrder
from workflows.path import PathAnswer, PathOrder, WalkPath
from workflows.steps import CONTROL_QUEUE
from workflows.survey import PAGES_A_LOOK, Survey, SurveyOrder

SURVEYED_WITHIN, SURVEY_OF_A_GATEWAY = timedelta(minutes=2), timedelta(milliseconds=50)
"""How long a survey may take, and how much longer for each gateway of the fleet."""

BEGUN_WITHIN = timedelta(seconds=5)
"""How long a survey waits for a worker; longer than one that lives is busy with something else."""

UNHEARD = "no answer of it came into the ledger; have worker and API the same clock and fleet file?"
"""Why a gateway counts as silent that was asked: what nobody can see is never taken for well."""

EXAMINED_WITHIN = timedelta(minutes=1)
"""How long the answers of fifty gateways may take; one that is silent takes half of it."""

WALKED_WITHIN = timedelta(seconds=75)
"""How long the walk through a gateway may take: a tunnel that passes nothing takes longest."""

EXAMINED_AT_ONCE = 8
"""Times fifty gateways."""

SHARED_FOR = timedelta(seconds=30)
"""How long the callers who start no changes share one survey of a fleet, at least."""

SHARED_FOR_A_GATEWAY = timedelta(minutes=1) / (PAGES_A_LOOK * MOST_MEMBERS)
"""The same for each gateway: their questions are recorded in the engine no faster than those of reconcile."""

SHARED_A_MINUTE = 4
"""Surveys of a fleet in a minute for these callers, those that fail included."""

FRESH_A_MINUTE = 20
"""Surveys of a fleet in a minute for a caller who starts changes; then the shared one is the answer."""

WALK_SHARED_FOR = timedelta(seconds=30)
"""How long the callers who start no changes share what was found on the way through one gateway."""

WALKS_A_MINUTE = 6
"""Gateways of a fleet in a minute through which a tunnel is tried for these callers."""


class Surveyed(Value):
    """What each gateway that answered is like, and why the others are silent."""

    states: dict[str, GatewayState]
    silent: dict[str, str] = {}
    as_of: datetime | None = None
    """When the gateways began to be asked; no answer is older."""


@dataclass(frozen=True)
class SurveyService:
    """Asks gateways; nothing is changed on any."""

    client: Client
    ledger: Ledger
    _looks: Looks[Surveyed] = field(default_factory=Looks, init=False, repr=False, compare=False)
    _shared: Looks[Surveyed] = field(
        default_factory=lambda: Looks(SHARED_FOR, SHARED_FOR_A_GATEWAY),
        init=False,
        repr=False,
        compare=False,
    )
    _walks: Looks[PathWalked] = field(
        default_factory=lambda: Looks(WALK_SHARED_FOR), init=False, repr=False, compare=False
    )
    _allowed: Allowance = field(
        default_factory=partial(Allowance, SHARED_A_MINUTE, 60.0), init=False, repr=False, compare=False
    )
    _fresh_allowed: Allowance = field(
        default_factory=partial(Allowance, FRESH_A_MINUTE, 60.0), init=False, repr=False, compare=False
    )
    _walks_allowed: Allowance = field(
        default_factory=partial(Allowance, WALKS_A_MINUTE, 60.0), init=False, repr=False, compare=False
    )

    async def of(self, fleet: Fleet, first: str | None = None, *, anew: bool = False) -> Surveyed:
        """Return what is true of every gateway now, or of some from the first on; and why others are silent.

        Whoever asks while the whole fleet is looked at gets what that look finds; `anew` begins one whose
        answers are all from after it was asked for.

        Raises:
            Unavailable: It could not be looked at in the time that a fleet of its size takes.
        """
        if first is not None:
            return await self._look(fleet, first)
        looked_at = self._looks.anew if anew else self._looks.at
        return await looked_at(fleet, partial(self._look, fleet))

    async def fresh(self, fleet: Fleet, person: str) -> Surveyed:
        """Return a survey of now for a caller who starts changes; the shared one to a caller who asks often.

        Raises:
            TooMany: The caller asks often, and surveys of the fleet fail.
            Unavailable: It could not be looked at in the time that a fleet of its size takes.
        """
        if self._fresh_allowed.take((fleet.name, person)):
            return await self.shared(fleet)
        return await self.of(fleet)

    async def shared(self, fleet: Fleet) -> Surveyed:
        """Return the survey that all callers who start no changes share; `as_of` says when it began.

        Every survey is recorded in the engine with a step for each gateway. So these callers have a fleet
        asked every 30 s, and never more than 600 gateways a minute, as reconcile does.

        Raises:
            TooMany: The last surveys failed; the next one may begin in a moment.
            Unavailable: It could not be looked at in the time that a fleet of its size takes.
        """

        async def survey() -> Surveyed:
            if wait := self._allowed.take(fleet.name):
                asked = f"the gateways of {fleet.name} were asked {SHARED_A_MINUTE} times in this minute"
                raise TooMany(f"{asked}, without an answer; ask again in {ceil(wait)} s", wait)
            return await self.of(fleet)

        return await self._shared.at(fleet, survey)

    async def _look(self, fleet: Fleet, first: str | None = None) -> Surveyed:
        names = [gateway.name for gateway in fleet.gateways]
        within = SURVEYED_WITHIN + len(fleet.gateways) * SURVEY_OF_A_GATEWAY
        began, clock = datetime.now(UTC), time.monotonic()
        try:
            with engine_answers():
                survey = await self.client.start_workflow(
                    Survey.run,
                    SurveyOrder(fleet=fleet.name, firsts=() if first is None else (names.index(first),)),
                    id=f"survey/{fleet.name}/{secrets.token_hex(4)}",
                    task_queue=CONTROL_QUEUE,
                    execution_timeout=within,
                    task_timeout=task_within(fleet),
                    rpc_timeout=ANSWER,
                )
                answer = asyncio.create_task(survey.result())
                await asyncio.wait([answer], timeout=BEGUN_WITHIN.total_seconds())
                if not answer.done() and was_never_taken(await survey.describe(rpc_timeout=ANSWER)):
                    answer.cancel()
                    await survey.terminate("no worker has begun it", rpc_timeout=ANSWER)
                    nobody = Offer(verb=Verb.DOCTOR)
                    raise Unavailable("no worker takes questions to gateways: is one running?", nobody)
                await answer
        except WorkflowFailureError as error:
            raise Unavailable(f"{fleet.name} was not looked at within {within}: {error.cause}") from error

        def heard() -> tuple[dict[str, GatewayState], dict[str, str]]:
            """Return what the ledger has; a busy process has the question wait before this is run."""
            # A clock that was set back meanwhile must not make what was just written older than the question.
            took = max(datetime.now(UTC) - began, timedelta(seconds=time.monotonic() - clock))
            return self.ledger.states(fleet.name, took + timedelta(seconds=1))

        states, silent = await asyncio.to_thread(heard)
        asked = names if first is None else names[names.index(first) :][:MOST_MEMBERS]
        unheard = {name: UNHEARD for name in asked if name not in states and name not in silent}
        # What has just left the fleet's file may have answered a look of a moment before.
        here = {*names}
        return Surveyed(
            states={name: state for name, state in states.items() if name in here},
            silent={name: why for name, why in silent.items() if name in here} | unheard,
            as_of=began,
        )

    async def participants(self, fleet: Fleet) -> tuple[Surveyed, frozenset[str]]:
        """Return what is true of the gateways, and which are left out of changes."""
        return await self.of(fleet), await self.left_out(fleet)

    async def left_out(self, fleet: Fleet) -> frozenset[str]:
        """Return the gateways that are left out of changes."""
        found = await asyncio.to_thread(self.ledger.quarantined, fleet.name)
        return frozenset(one.gateway for one in found)

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

    async def walk(self, fleet: Fleet, gateway: str) -> PathWalked:
        """Return what keeps users' packets from passing through the gateway; nothing is changed on it.

        Raises:
            BadInput: The fleet has no such gateway.
            Unavailable: Its agent does not answer, or is one of before that does not know the question.
        """
        _require_gateway(fleet, gateway)
        began = datetime.now(UTC)
        order = PathOrder(gateway=_reference(fleet.gateway(gateway)))
        answer: PathAnswer
        try:
            with engine_answers():
                answer = await self.client.execute_workflow(
                    WalkPath.run,
                    order,
                    id=f"path/{fleet.name}/{gateway}/{secrets.token_hex(4)}",
                    task_queue=CONTROL_QUEUE,
                    execution_timeout=WALKED_WITHIN,
                    rpc_timeout=ANSWER,
                )
        except WorkflowFailureError as error:
            nobody = Offer(verb=Verb.DOCTOR)
            raise Unavailable(f"{gateway} was not looked at within {WALKED_WITHIN}", nobody) from error
        if answer.facts is None:
            raise Unavailable(f"{gateway} was not looked at: {answer.silent}", Offer(verb=Verb.DOCTOR))
        findings = findings_of(answer.facts)
        return PathWalked(fleet=fleet.name, gateway=gateway, findings=findings, as_of=began)

    async def walk_shared(self, fleet: Fleet, gateway: str) -> PathWalked:
        """Return the same as all callers who start no changes share it; `as_of` says when it was found.

        Raises:
            BadInput: The fleet has no such gateway.
            TooMany: Tunnels were tried through as many gateways of the fleet as these callers may ask for.
            Unavailable: Its agent does not answer, or is one of before that does not know the question.
        """
        _require_gateway(fleet, gateway)

        async def walk() -> PathWalked:
            if wait := self._walks_allowed.take(fleet.name):
                tried = f"tunnels of {fleet.name} were tried {WALKS_A_MINUTE} times in this minute"
                raise TooMany(f"{tried}; ask again in {ceil(wait)} s", wait)
            return await self.walk(fleet, gateway)

        return await self._walks.at(fleet, walk, gateway)

    async def refuse_shared_pools(self, fleet: Fleet, adopting: Collection[str] = ()) -> None:
        """Refuse what would give addresses of one gateway to users of another, as far as gateways answer."""
        refuse_shared(fleet, await self._own_pools(fleet, (await self.of(fleet)).states, adopting))

    async def pools_beside(self, fleet: Fleet, gateways: Collection[str]) -> tuple[Network, ...]:
        """Return the pools of the fleet's other gateways: of their slots, and of their own daemons.

        Gateways that answer and serve from no slot are asked for a daemon that nobody has adopted yet.
        """
        states = (await self.of(fleet)).states
        others = {one.name: one for one in fleet.gateways if one.name not in gateways}
        asked = [name for name in others if name in states and not states[name].steering.serving]
        own = await self._own_pools(fleet, states, asked)
        slots = [pool for one in others.values() for slot in one.slots for pool in slot.pools]
        return (*slots, *(pool for name in others for pool in own.get(name, ())))

    async def _own_pools(
        self, fleet: Fleet, states: Mapping[str, GatewayState], asked: Collection[str]
    ) -> dict[str, tuple[Network, ...]]:
        """Return the pools of gateways' own daemons: those adopted, and those found on the gateways asked."""
        own, names, turn = own_pools(states), sorted(asked), asyncio.Semaphore(EXAMINED_AT_ONCE)

        async def examined(some: Collection[str]) -> Examined:
            async with turn:
                return await self.examine(fleet, some)

        parts = [names[first : first + MOST_MEMBERS] for first in range(0, len(names), MOST_MEMBERS)]
        for answer in await asyncio.gather(*map(examined, parts)):
            own |= {one.gateway: one.pools for one in answer.found if one.pools}
        return own


def own_pools(states: Mapping[str, GatewayState]) -> dict[str, tuple[Network, ...]]:
    """Return what daemons that were adopted give to their users, by gateway."""
    return {name: state.own_pools for name, state in states.items() if state.own_pools}


def refuse_shared(fleet: Fleet, own: Mapping[str, Sequence[Network]]) -> None:
    """Refuse to go on where a daemon of a gateway's own gives addresses of another gateway to its users."""
    if shared := shared_pools(fleet, own):
        raise Refused(
            f"{listed(shared)}: give each gateway pools of its own, or say `nat: true` in the fleet's file "
            "if every gateway translates its users' addresses"
        )


def _require_gateway(fleet: Fleet, name: str) -> None:
    """Return if the fleet has a gateway of that name; BadInput otherwise."""
    if name not in {one.name for one in fleet.gateways}:
        raise BadInput(f"{fleet.name} has no gateway {name}; penstock sessions {fleet.name} lists them")


def _reference(gateway: Gateway) -> GatewayRef:
    """Return the gateway without its addresses and slots."""
    return GatewayRef(**{field: getattr(gateway, field) for field in GatewayRef.model_fields})
