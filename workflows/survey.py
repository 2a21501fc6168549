"""Survey: ask every gateway what is true of it now; the ground on which a plan is made."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.instances import InstanceActivities
from policies.words.fleet import Fleet
from policies.words.instance import GatewayState
from policies.words.word import Word
from workflows import steps
from workflows.failures import sentence_of


class SurveyResult(Word):
    """What each gateway that answered is like, and why the others are silent."""

    states: dict[str, GatewayState]
    silent: dict[str, str] = {}


@workflow.defn(name="Survey")
class Survey:
    """Look at the whole fleet at once; silence is an answer of its own."""

    @workflow.run
    async def run(self, fleet: Fleet) -> SurveyResult:
        """Return every gateway's state, or the reason why there is none."""
        answers = await asyncio.gather(
            *[
                workflow.execute_activity_method(
                    InstanceActivities.observe_gateway,
                    task_queue=gateway.task_queue,
                    **steps.ASK,
                )
                for gateway in fleet.gateways
            ],
            return_exceptions=True,
        )
        states: dict[str, GatewayState] = {}
        silent: dict[str, str] = {}
        for gateway, answer in zip(fleet.gateways, answers, strict=True):
            if isinstance(answer, GatewayState):
                states[gateway.name] = answer
            elif isinstance(answer, ActivityError):
                silent[gateway.name] = sentence_of(answer)
            elif isinstance(answer, BaseException):
                raise answer
        return SurveyResult(states=states, silent=silent)
