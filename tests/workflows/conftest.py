import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from tests.workflows.world import World, fleet_of, working


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A server of the test's own, so that a drain left behind never meets the next test's gateways."""
    server = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, data_converter=pydantic_data_converter
    ) as started:
        yield started


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are polled as often as a test can wait for."""
    monkeypatch.setattr("activities.sessions.POLL", timedelta(milliseconds=20))


@pytest.fixture
async def world(environment: WorkflowEnvironment) -> AsyncIterator[World]:
    fleet = fleet_of(f"edge-{uuid4().hex[:6]}")
    async with working(World.made(environment.client, fleet)) as made:
        yield made
