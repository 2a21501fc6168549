"""The orchestrator's processes need no capability of the kernel: only agents act on hosts."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

from orchestrator.settings import Settings
from tests.patience import PATIENCE, until
from tests.service.command_line import CommandLine
from tests.service.conftest import installed
from tests.workflows.engine import Engine
from workflows.steps import CONTROL_QUEUE

NONE = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
"""Whatever is started so has no capability and can never get one, also as root."""


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    given = settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    named = {f"PENSTOCK_{name.upper()}": str(value) for name, value in given.items()}
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
    return base | named | {"PENSTOCK_STATE": str(folder), "PENSTOCK_SOCKET": str(folder / "penstock.sock")}


@asynccontextmanager
async def started(verb: str, environment: dict[str, str]) -> AsyncIterator[int]:
    words = [*NONE, sys.executable, "-m", "orchestrator", verb]
    process = await asyncio.create_subprocess_exec(*words, env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


def capabilities(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    said = dict(line.split(":\t") for line in lines if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in said.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to drop")
async def test_worker_and_api_work_without_any_capability(server: Engine, tmp_path: Path) -> None:
    client = await server.client()
    settings = installed(tmp_path, server.address, client.namespace)
    given = environment(settings, tmp_path)

    async def is_polled() -> bool:
        asked = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=CONTROL_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        return bool((await client.workflow_service.describe_task_queue(asked)).pollers)

    async def answers() -> bool:
        return (tmp_path / "penstock.sock").exists()

    async with started("worker", given) as worker, started("api", given) as api:
        await until(is_polled, 60)
        await until(answers, 60)
        for pid in (worker, api):
            assert set(capabilities(pid).values()) == {0}
        said = await CommandLine(given)("whoami")
        assert said.code == 0, said.err
        assert "root" in said.out
