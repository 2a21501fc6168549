"""An engine that cannot be reached yet answers like one that cannot be reached any more.

A client that connects with its first question raises RuntimeError when it cannot (temporalio 1.35), where
one that has lost its engine raises RPCError; whoever asks need not tell the two apart.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio.client import (
    DescribeWorkflowInput,
    Interceptor,
    OutboundInterceptor,
    QueryWorkflowInput,
    SignalWorkflowInput,
    StartWorkflowInput,
    StartWorkflowUpdateInput,
    TerminateWorkflowInput,
    WorkflowExecutionDescription,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.service import RPCError, RPCStatusCode

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an input


class Reaching(Interceptor):
    """Turns a failed first connection into the error of a lost one."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - its name
        """Stand in front of every call."""
        return _Reaching(next)


class _Reaching(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        return await _reached(self.next.start_workflow, input)

    async def describe_workflow(self, input: DescribeWorkflowInput) -> WorkflowExecutionDescription:  # noqa: A002
        return await _reached(self.next.describe_workflow, input)

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        return await _reached(self.next.query_workflow, input)

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:  # noqa: A002
        await _reached(self.next.signal_workflow, input)

    async def terminate_workflow(self, input: TerminateWorkflowInput) -> None:  # noqa: A002
        await _reached(self.next.terminate_workflow, input)

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:  # noqa: A002
        return await _reached(self.next.start_workflow_update, input)


async def _reached(ask: Callable[[I], Awaitable[T]], asked: I) -> T:
    try:
        return await ask(asked)
    except RuntimeError as error:
        raise RPCError(str(error), RPCStatusCode.UNAVAILABLE, b"") from error
