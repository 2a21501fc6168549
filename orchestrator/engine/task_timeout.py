"""Promptness: how long the engine waits for a worker that took a workflow's task and fell silent.

Ten seconds by the engine's own default, in which a rollout whose worker was killed stands
still. Every workflow is started with less, whoever starts it; children have what their parent
has. The time must hold the loading of the longest history on a busy machine (a task that takes
longer is begun anew, for ever), so that the workflows of a large fleet have more of it.
"""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import (
    Interceptor as ClientInterceptor,
)
from temporalio.client import (
    OutboundInterceptor,
    StartWorkflowInput,
    WorkflowHandle,
)
from temporalio.worker import (
    Interceptor as WorkerInterceptor,
)
from temporalio.worker import (
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ChildWorkflowHandle

from policies.model.fleet import Fleet
from policies.model.plan_part import MOST_MEMBERS

TASK_WITHIN = timedelta(seconds=4)
"""The most a workflow may take over one task, loading it included; beyond it another worker tries."""

TASK_OF_A_SMALL_FLEET_WITHIN = timedelta(seconds=2)
"""The same in a fleet whose waves are one part each: its histories are a quarter as long."""


def task_within(fleet: Fleet) -> timedelta:
    """Return the time for a task of the fleet's workflows; a small one is no larger than a part of a plan."""
    return TASK_OF_A_SMALL_FLEET_WITHIN if len(fleet.gateways) <= MOST_MEMBERS else TASK_WITHIN


class TaskTimeout(ClientInterceptor, WorkerInterceptor):
    """Gives workflows that clients start `TASK_WITHIN` unless told, and children the time of their parent."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        """Take part in what clients start."""
        return _TimedClient(super().intercept_client(next))

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        """Take part in what workflows start."""
        del input
        return _TimedWorkflows


class _TimedClient(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        input.task_timeout = input.task_timeout or TASK_WITHIN
        return await super().start_workflow(input)


class _TimedWorkflows(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_TimedChildren(outbound))


class _TimedChildren(WorkflowOutboundInterceptor):
    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:  # noqa: A002
        input.task_timeout = input.task_timeout or workflow.info().task_timeout
        return await super().start_child_workflow(input)
