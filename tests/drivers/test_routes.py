"""Routes of a host, as they are while users come and go."""

import asyncio
import json

import pytest

from activities.drivers.programs import Completed
from activities.drivers.runtime.host import routes as host_routes
from activities.drivers.runtime.host.routes import routes


async def test_the_route_of_a_tunnel_that_ended_while_routes_were_listed_is_no_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = {"dst": "10.66.0.15", "dev": "if394", "protocol": "kernel", "scope": "link", "table": "main"}
    stays = {"dst": "10.66.1.0/24", "dev": "lo", "scope": "link"}

    async def listed(command: list[str]) -> Completed:
        await asyncio.sleep(0)
        return Completed(status=0, out=json.dumps([left, stays] if "-4" in command else []), err="")

    monkeypatch.setattr(host_routes, "run", listed)
    assert [(str(route.network), route.device) for route in await routes()] == [("10.66.1.0/24", "lo")]
