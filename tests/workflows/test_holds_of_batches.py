"""A hold and its end reach every batch of a wave in the order in which operators gave them."""

from datetime import timedelta
from typing import ClassVar

import pytest
from temporalio import workflow
from temporalio.worker import (
    Interceptor,
    SignalChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import World, fleet_of, in_phase, result_of, say, working


class _SlowToAnswer(WorkflowOutboundInterceptor):
    """An engine that confirms the first hold only when an operator has ended it, and a second later."""

    heard: ClassVar[list[str]] = []

    async def signal_child_workflow(self, input: SignalChildWorkflowInput) -> None:  # noqa: A002
        await super().signal_child_workflow(input)
        if input.signal == "hold" and input.args[0] and not self.heard:
            self.heard.append("hold")
            wave = workflow.instance()
            await workflow.wait_condition(lambda: not wave._holds)
            await workflow.sleep(1)
            self.heard.append("end")


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_SlowToAnswer(outbound))


class _Slowly(Interceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[_Inbound]:  # noqa: A002
        return _Inbound


@pytest.mark.sweep
async def test_a_batch_that_is_told_late_of_a_hold_does_not_stay_held_after_its_end(server: Engine) -> None:
    fleet = fleet_of("edge", size=102, lease=timedelta(minutes=2), switching=100)
    async with working(World.made(await server.client(), fleet), [_Slowly()]) as world:
        names = tuple(world.gateways)
        world.judge.says(UNDECIDED)
        rollout = await world.start(names[:1], names[1:])
        await in_phase(rollout, Phase.OBSERVING)
        for name in names[1:]:
            world.gateways[name].fail("observe", Unavailable("its agent is away"), times=10_000)
        world.judge.says(HEALTHY)
        await in_phase(rollout, Phase.SWITCHING, wave=2)
        await say(rollout, CommandKind.HOLD, "ana")
        await until(lambda: "hold" in _SlowToAnswer.heard)
        await say(rollout, CommandKind.RESUME, "ana")
        await until(lambda: "end" in _SlowToAnswer.heard)
        for name in names[1:]:
            world.gateways[name].recover("observe")
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
