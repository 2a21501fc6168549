"""Survey: ask every gateway what is true of it now, and write it into the ledger; plans are made of that."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.facts import FactActivities, FleetQuery, StateRows
from activities.host_record import CollectedPage, CollectingActivities, HostRecordActivities
from activities.instances import InstanceActivities
from policies.model.fleet import GatewayRef
from policies.model.instance import GatewayState
from policies.model.value import Name, Value
from workflows import control, steps
from workflows.answers import answer_of
from workflows.children import in_parts
from workflows.failures import sentence_of

PAGES_A_LOOK = 12
"""Pages that reconcile looks at each minute: six hundred gateways, ten steps a second."""

COLLECTING = timedelta(seconds=10)
"""How long a look collects hosts' own records: whoever looks waits, and the next look takes the rest."""

SETTINGS_OF_AN_ENTRY = 100_000
"""Characters of settings in one entry of states, which are most of it: the engine warns from 256 KiB on."""

PAGES_AT_ONCE = 8
"""Pages of hosts' records that are passed on together: each has 130 KiB at most, the engine takes 4 MiB."""


class SurveyOrder(Value):
    """Which fleet is looked at: all of it, the pages that begin at these places, or those that are due."""

    fleet: Name
    firsts: tuple[int, ...] = ()
    pages: int | None = None
    """How many pages, of which the gateways were asked longest ago; all without a number."""


@workflow.defn(name="Survey")
class Survey:
    """Look at the whole fleet, in parts side by side; silence is an answer of its own."""

    @workflow.run
    async def run(self, order: SurveyOrder) -> tuple[int, ...]:
        """Return the pages that were asked; what each gateway said, and who was silent, is in the ledger."""
        first = order.firsts[0] if order.firsts else 0
        asked = FleetQuery(fleet=order.fleet, first=first, pages=order.pages)
        page = await control.ask(FactActivities.read_fleet, asked)
        if len(order.firsts) == 1 or page.total <= len(page.gateways):
            await self._look(order.fleet, page.gateways)
            return (first,)
        firsts = order.firsts or page.firsts
        pages = {f"{one:05}": SurveyOrder(fleet=order.fleet, firsts=(one,)) for one in firsts}
        await in_parts(Survey.run, pages, in_turns=True)
        return firsts

    @staticmethod
    async def _look(fleet: str, gateways: tuple[GatewayRef, ...]) -> None:
        asked = dict.fromkeys((gateway.name for gateway in gateways), workflow.now())
        answers = await asyncio.gather(
            *[answer_of(gateway, InstanceActivities.observe_gateway, steps.SURVEY) for gateway in gateways],
            return_exceptions=True,
        )
        states: dict[str, GatewayState] = {}
        silent: dict[str, str] = {}
        for gateway, answer in zip(gateways, answers, strict=True):
            if isinstance(answer, ActivityError):
                silent[gateway.name] = sentence_of(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                states[gateway.name] = answer
        behind: dict[str, int] = {}
        for rows in entries_of(fleet, tuple(states.values()), silent, asked):
            try:
                behind |= await control.ask(FactActivities.record_states, rows)
            except ActivityError as error:  # what the ledger does not take is not heard; others are
                if is_cancelled_exception(error):
                    raise
                workflow.logger.warning("answers not written to the ledger: %s", sentence_of(error))
        late = [gateway for gateway in gateways if gateway.name in behind]
        if late:
            await _collect_all(fleet, late, behind)


def entries_of(
    fleet: str, states: tuple[GatewayState, ...], silent: dict[str, str], asked: Mapping[str, datetime]
) -> tuple[StateRows, ...]:
    """Return what was heard in as few entries as the engine takes well; who was silent is in the first."""
    entries, size = list[list[GatewayState]]([[]]), 0
    for state in states:
        its = sum(map(len, state.settings))
        if entries[-1] and size + its > SETTINGS_OF_AN_ENTRY:
            entries.append([])
            size = 0
        entries[-1].append(state)
        size += its
    said = [
        StateRows(fleet=fleet, states=tuple(one), asked={its.gateway: asked[its.gateway] for its in one})
        for one in entries
    ]
    nothing = {"silent": silent, "asked": said[0].asked | {name: asked[name] for name in silent}}
    return (said[0].model_copy(update=nothing), *said[1:])


async def _collect_all(fleet: str, late: list[GatewayRef], behind: dict[str, int]) -> None:
    """Take the next lines of these hosts' own records into the ledger; the next look takes what is left."""
    turns = asyncio.Semaphore(PAGES_AT_ONCE)
    collecting = asyncio.gather(
        *[_collect(fleet, gateway, behind[gateway.name], turns) for gateway in late], return_exceptions=True
    )
    try:
        await asyncio.wait_for(collecting, COLLECTING.total_seconds())
    except TimeoutError:
        workflow.logger.warning("the records of some hosts were not collected in time")


async def _collect(fleet: str, gateway: GatewayRef, after: int, turns: asyncio.Semaphore) -> None:
    """Take the next lines of the host's own record into the ledger."""
    try:
        page = await answer_of(gateway, HostRecordActivities.read_host_record, steps.SURVEY, after)
        given = CollectedPage(fleet=fleet, gateway=gateway.name, asked=after, page=page)
        async with turns:
            await control.ask(CollectingActivities.collect_host_record, given)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("the record of %s was not collected: %s", gateway.name, sentence_of(error))
