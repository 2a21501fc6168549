"""Path: one gateway is asked what is true of the way that users' packets take through it."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.paths import PathActivities
from policies.model.fleet import GatewayRef
from policies.model.path import PathFacts
from policies.model.value import Sentence, Value
from workflows import steps
from workflows.answers import answer_of
from workflows.failures import sentence_of


class PathOrder(Value):
    """Which gateway is asked."""

    gateway: GatewayRef


class PathAnswer(Value):
    """What the host measured, or why it did not."""

    facts: PathFacts | None = None
    silent: Sentence = ""


@workflow.defn(name="WalkPath")
class WalkPath:
    """Ask one gateway; nothing is changed. An agent of before does not know the step, and that is told."""

    @workflow.run
    async def run(self, order: PathOrder) -> PathAnswer:
        """Return what it said of itself; an answer about another gateway counts as none."""
        try:
            facts = await answer_of(order.gateway, PathActivities.walk_path, steps.WALK)
        except (ActivityError, ApplicationError) as error:
            return PathAnswer(silent=sentence_of(error))
        if facts.gateway != order.gateway.name:
            return PathAnswer(silent=f"its agent answers as {facts.gateway}")
        return PathAnswer(facts=facts)
