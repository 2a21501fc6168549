"""Which calls of the engine an agent may make, and what is left of each when the relay hands it on.

What is handed on is made anew from the fields that an agent needs, so that nothing a later engine adds to a
message reaches it through a gateway: no other queue or namespace, no sticky queue, no worker version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from temporalio.api.enums.v1 import TaskQueueKind
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetSystemInfoRequest,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    RecordActivityTaskHeartbeatRequest,
    RecordWorkerHeartbeatResponse,
    RespondActivityTaskCanceledRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
    ShutdownWorkerResponse,
)

from orchestrator.enrolment.names import Certified
from orchestrator.relay import contents
from orchestrator.relay.task_tokens import TaskTokens
from policies.model.errors import BadInput, NotAllowed

SERVICE = "/temporal.api.workflowservice.v1.WorkflowService/"
POLL = "PollActivityTaskQueue"
SHUTDOWN = "ShutdownWorker"
MOST_OF_AN_IDENTITY = 200
"""Characters of what an agent calls itself in the engine's history."""

OF_A_TASK: dict[str, type[Message]] = {
    "RespondActivityTaskCompleted": RespondActivityTaskCompletedRequest,
    "RespondActivityTaskFailed": RespondActivityTaskFailedRequest,
    "RespondActivityTaskCanceled": RespondActivityTaskCanceledRequest,
    "RecordActivityTaskHeartbeat": RecordActivityTaskHeartbeatRequest,
}
CARRIED: dict[str, Callable[[Any], Message]] = {
    "result": contents.value,
    "failure": contents.failure,
    "details": contents.value,
    "last_heartbeat_details": contents.value,
}
"""What an agent says of its task, and what makes it anew."""

ANSWERED: dict[str, type[Message]] = {
    SHUTDOWN: ShutdownWorkerResponse,
    "RecordWorkerHeartbeat": RecordWorkerHeartbeatResponse,
}
"""Calls that workers make about themselves; the relay answers them, and the engine hears nothing."""


@dataclass(frozen=True)
class Handed:
    """A call as the engine gets it, or the answer that the relay gives itself."""

    body: bytes = b""
    answer: bytes | None = None


class Calls:
    """The calls of agents in one namespace of the engine."""

    def __init__(self, namespace: str, tokens: TaskTokens) -> None:
        self._namespace = namespace
        self._tokens = tokens
        self._allowed: dict[str, Callable[[Certified, bytes], Handed]] = {
            "GetSystemInfo": self._system_info,
            "DescribeNamespace": self._describe,
            POLL: self._poll,
            **dict.fromkeys(ANSWERED, self._nothing),
        }

    def allowed(self, method: str) -> bool:
        """Return whether agents make this call at all."""
        return method in self._allowed or method in OF_A_TASK

    def outgoing(self, method: str, body: bytes, caller: Certified) -> Handed:
        """Return the call as it is handed on.

        Raises:
            NotAllowed: It is not for this gateway; the sentence says why.
            BadInput: It is no such message.
        """
        if method in ANSWERED:
            return Handed(answer=ANSWERED[method]().SerializeToString())
        try:
            if method in OF_A_TASK:
                return Handed(self._of_its_task(OF_A_TASK[method].FromString(body), caller))
            if method in self._allowed:
                return self._allowed[method](caller, body)
        except DecodeError as error:
            raise BadInput(f"what {caller} sent as {method} is no such message") from error
        raise NotAllowed(f"agents may not call {method}")

    def incoming(self, method: str, body: bytes, caller: Certified) -> bytes:
        """Return the engine's answer as the gateway gets it."""
        if method != POLL:
            return body
        task = PollActivityTaskQueueResponse.FromString(body)
        if not task.task_token:
            return body
        task.task_token = self._tokens.mark(task.task_token, caller.task_queue)
        return task.SerializeToString()

    def _system_info(self, caller: Certified, body: bytes) -> Handed:
        del caller, body
        return Handed(GetSystemInfoRequest().SerializeToString())

    def _nothing(self, caller: Certified, body: bytes) -> Handed:
        raise NotImplementedError  # answered before

    def _describe(self, caller: Certified, body: bytes) -> Handed:
        said = DescribeNamespaceRequest.FromString(body)
        self._refuse_other_namespace(caller, said.namespace)
        return Handed(DescribeNamespaceRequest(namespace=self._namespace).SerializeToString())

    def _poll(self, caller: Certified, body: bytes) -> Handed:
        said = PollActivityTaskQueueRequest.FromString(body)
        self._refuse_other_namespace(caller, said.namespace)
        queue = said.task_queue
        if queue.name != caller.task_queue:
            raise NotAllowed(f"{caller} may not poll {queue.name[:MOST_OF_AN_IDENTITY]!r}")
        usual = (TaskQueueKind.TASK_QUEUE_KIND_UNSPECIFIED, TaskQueueKind.TASK_QUEUE_KIND_NORMAL)
        if queue.kind not in usual or queue.normal_name:
            raise NotAllowed(f"{caller} may not poll a queue of another kind than the usual one")
        if said.worker_version_capabilities.use_versioning or said.deployment_options.deployment_name:
            raise NotAllowed(f"{caller} may not poll as a worker of one version: agents have none")
        wanted = PollActivityTaskQueueRequest(
            namespace=self._namespace,
            poller_group_id=said.poller_group_id,
            task_queue=TaskQueue(name=caller.task_queue, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
            identity=_identity(caller, said.identity),
        )
        return Handed(wanted.SerializeToString())

    def _of_its_task(self, said: Message, caller: Certified) -> bytes:
        token = self._tokens.unmark(said.task_token, caller.task_queue)  # type: ignore[attr-defined]
        if token is None:
            raise NotAllowed(f"{caller} was never given this task")
        handed = type(said)(
            task_token=token,
            namespace=self._namespace,
            identity=_identity(caller, said.identity),  # type: ignore[attr-defined]
        )
        for field, made_anew in CARRIED.items():
            if field in said.DESCRIPTOR.fields_by_name:
                made = made_anew(getattr(said, field))
                if made.ByteSize():
                    getattr(handed, field).CopyFrom(made)
        return handed.SerializeToString()

    def _refuse_other_namespace(self, caller: Certified, namespace: str) -> None:
        if namespace != self._namespace:
            raise NotAllowed(
                f"{caller} may not look into the namespace {namespace[:MOST_OF_AN_IDENTITY]!r}; "
                f"agents have {self._namespace}"
            )


def _identity(caller: Certified, said: str) -> str:
    """Return who did it, as the engine's history has it: the certificate's word first."""
    return f"{caller.task_queue} {said}"[:MOST_OF_AN_IDENTITY]
