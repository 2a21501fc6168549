"""Whether a gateway still answers its users' port, when its metrics do not: a way around Prometheus."""

import asyncio
from contextlib import suppress
from typing import Protocol

from policies.model.fleet import Gateway

WITHIN_SECONDS = 2.0


class Gateways(Protocol):
    """The gateways of this installation."""

    def gateway_at(self, target: str) -> Gateway | None:
        """Return the gateway that Prometheus scrapes there, None for one that nobody has."""
        ...


class PortProbes:
    """Connects to the users' port of gateways, found by their metrics label."""

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways

    async def reaches(self, instance: str) -> bool:
        """Return whether somebody accepts connections there; False for an instance nobody knows."""
        gateway = await asyncio.to_thread(self._gateways.gateway_at, instance)
        if gateway is None:
            return False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(WITHIN_SECONDS):
                _, writer = await asyncio.open_connection(str(gateway.addresses[0]), gateway.port)
                writer.close()
                return True
        return False
