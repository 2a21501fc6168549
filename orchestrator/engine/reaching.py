"""An engine that cannot be reached yet answers like one that cannot be reached any more.

A client that connects with its first question raises RuntimeError when it cannot (temporalio 1.35), where
one that has lost its engine raises RPCError; whoever asks need not tell the two apart.
"""

import asyncio
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

CONNECTING_SECONDS = 0.5
"""How long a client that is not connected yet may take longer than one that is."""

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
    within = getattr(asked, "rpc_timeout", None)  # which a first connection would not keep to
    patience = None if within is None else within.total_seconds() + CONNECTING_SECONDS
    try:
        async with asyncio.timeout(patience):
            return await ask(asked)
    except TimeoutError as error:
        silence = f"the engine said nothing within {patience:g} s"
        raise RPCError(silence, RPCStatusCode.DEADLINE_EXCEEDED, b"") from error
    except RuntimeError as error:
        raise RPCError(str(error), RPCStatusCode.UNAVAILABLE, b"") from error
