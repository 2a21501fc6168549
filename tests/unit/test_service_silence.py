"""What the service says when the engine's side cannot answer: a sentence, never a traceback."""

from typing import Any, cast

import pytest
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.service.changes import ChangeService
from orchestrator.store.ledger import Ledger
from policies.model.errors import Unavailable


class BusyEngine:
    """An engine whose worker was too busy to answer a question in time."""

    def get_workflow_handle(self, *_: Any, **__: Any) -> "BusyEngine":
        return self

    async def query(self, *_: Any, **__: Any) -> None:
        raise WorkflowQueryFailedError("[TMPRL1101] workflow didn't yield within 2 second(s)")

    async def describe(self, **_: Any) -> None:
        raise RPCError("busy", RPCStatusCode.DEADLINE_EXCEEDED, b"")


async def test_a_worker_too_busy_to_answer_is_unavailable_and_not_a_crash() -> None:
    service = ChangeService(cast(Client, BusyEngine()), cast(Ledger, None))
    with pytest.raises(Unavailable, match="ask again"):
        await service.status("lab")
