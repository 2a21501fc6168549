"""Survey: ask every gateway what is true of it now, and write it into the ledger; plans are made of that."""

import asyncio
from functools import partial

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ParentClosePolicy

from activities.facts import FactActivities, FleetQuery, StateRows
from activities.instances import InstanceActivities
from policies.model.fleet import Gateway
from policies.model.instance import GatewayState
from policies.model.value import Name, Value
from workflows import control, steps
from workflows.failures import sentence_of
from workflows.fan_out import side_by_side

PAGES_A_LOOK = 12
"""Pages that reconcile looks at each minute: six hundred gateways, ten steps a second."""


class SurveyOrder(Value):
    """Which fleet is looked at: all of it, the page that begins with a gateway, or a turn of some pages."""

    fleet: Name
    first: int | None = None
    turn: int | None = None
    pages: int = 0


class SurveyResult(Value):
    """How many gateways answered, and why the others are silent."""

    answered: int
    silent: dict[str, str] = {}


@workflow.defn(name="Survey")
class Survey:
    """Look at the whole fleet, in parts side by side; silence is an answer of its own."""

    @workflow.run
    async def run(self, order: SurveyOrder) -> SurveyResult:
        """Return how many answered; what each of them said is in the ledger."""
        asked = FleetQuery(fleet=order.fleet, first=order.first or 0)
        page = await control.ask(FactActivities.read_fleet, asked)
        if order.first is not None or page.total <= len(page.gateways):
            return await self._look(order.fleet, page.gateways)
        firsts = list(range(0, page.total, len(page.gateways)))
        if order.turn is not None and len(firsts) > order.pages:
            begin = order.turn * order.pages
            firsts = [firsts[(begin + place) % len(firsts)] for place in range(order.pages)]
        found = await side_by_side(partial(self._look_at_page, order.fleet, first) for first in firsts)
        return SurveyResult(
            answered=sum(part.answered for part in found),
            silent={name: why for part in found for name, why in sorted(part.silent.items())},
        )

    @staticmethod
    async def _look_at_page(fleet: str, first: int) -> SurveyResult:
        return await workflow.execute_child_workflow(
            Survey.run,
            SurveyOrder(fleet=fleet, first=first),
            id=f"{workflow.info().workflow_id}/{first:05}",
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        )

    @staticmethod
    async def _look(fleet: str, gateways: tuple[Gateway, ...]) -> SurveyResult:
        answers = await asyncio.gather(
            *[
                workflow.execute_activity_method(
                    InstanceActivities.observe_gateway, task_queue=gateway.task_queue, **steps.SURVEY
                )
                for gateway in gateways
            ],
            return_exceptions=True,
        )
        states: dict[str, GatewayState] = {}
        silent: dict[str, str] = {}
        for gateway, answer in zip(gateways, answers, strict=True):
            if isinstance(answer, GatewayState):
                states[gateway.name] = answer
            elif isinstance(answer, ActivityError):
                silent[gateway.name] = sentence_of(answer)
            elif isinstance(answer, BaseException):
                raise answer
        rows = StateRows(fleet=fleet, states=tuple(states.values()), silent=silent)
        await control.ask(FactActivities.record_states, rows)
        return SurveyResult(answered=len(states), silent=silent)
