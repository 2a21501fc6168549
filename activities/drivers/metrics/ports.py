"""Whether a gateway still answers its users' port, when its metrics do not: a way around Prometheus."""

import asyncio
import os
import struct
from contextlib import suppress
from typing import Protocol

from policies.model.fleet import Gateway

WITHIN_SECONDS = 2.0
_NOBODY, _NO_PAYLOAD, _NEVER, _IKE_SA_INIT, _INITIATOR = bytes(8), 0, 0x30, 34, 0x08
_HEADER = "!8s8sBBBBII"


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
        """Return whether somebody takes users there; False for an instance nobody knows."""
        gateway = await asyncio.to_thread(self._gateways.gateway_at, instance)
        if gateway is None:
            return False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(WITHIN_SECONDS):
                if gateway.has_own_networks:
                    return await _answers_ike(str(gateway.address4), gateway.port)
                _, writer = await asyncio.open_connection(str(gateway.addresses[0]), gateway.port)
                writer.close()
                return True
        return False


async def _answers_ike(address: str, port: int) -> bool:
    """Return True once anything comes back for a header of IKE 3, which there is not (RFC 7296, 2.5)."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()

    class Asked(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            del data, addr
            if not answered.done():
                answered.set_result(True)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_exception(exc)

    asking, _ = await loop.create_datagram_endpoint(Asked, remote_addr=(address, port))
    try:
        size = struct.calcsize(_HEADER)
        header = (os.urandom(8), _NOBODY, _NO_PAYLOAD, _NEVER, _IKE_SA_INIT, _INITIATOR, 0, size)
        asking.sendto(struct.pack(_HEADER, *header))
        return await answered
    finally:
        asking.close()
