"""Whether a gateway still answers its users' port, when its metrics do not: a way around Prometheus."""

import asyncio
from contextlib import suppress

from policies.model.fleet import Fleet

WITHIN_SECONDS = 2.0


class PortProbes:
    """Connects to the users' port of a fleet's gateways, found by their metrics label."""

    def __init__(self, fleet: Fleet) -> None:
        self._places = {
            gateway.metrics_target: (str(gateway.addresses[0]), gateway.port) for gateway in fleet.gateways
        }

    async def reaches(self, instance: str) -> bool:
        """Return whether somebody accepts connections there; False for an instance nobody knows."""
        if instance not in self._places:
            return False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(WITHIN_SECONDS):
                _, writer = await asyncio.open_connection(*self._places[instance])
                writer.close()
                return True
        return False
