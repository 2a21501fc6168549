"""An engine that gives the waves of a change seconds to live, as an operator's default may."""

from datetime import timedelta
from typing import Any

from temporalio.worker import (
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ChildWorkflowHandle

SECONDS = 20


class Impatient(Interceptor):
    """Gives every wave an execution timeout."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> "type[_Inbound]":  # noqa: A002
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Outbound(WorkflowOutboundInterceptor):
    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:  # noqa: A002
        if input.workflow == "Wave":
            input.execution_timeout = timedelta(seconds=SECONDS)
        return await super().start_child_workflow(input)
