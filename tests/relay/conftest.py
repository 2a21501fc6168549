"""A relay of its own process's loop before a real engine, with certificates of a real authority."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.relay.installation import Installation, installed
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures
from tests.workflows.engine import Engine


@pytest.fixture
async def installation(server: Engine, tmp_path: Path) -> AsyncIterator[Installation]:  # noqa: F811
    async with installed(tmp_path, await server.client(), server.address) as made:
        yield made
