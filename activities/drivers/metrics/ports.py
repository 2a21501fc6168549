"""Whether a gateway still answers its users' port, when its metrics do not: a way around Prometheus.

A new daemon that is not reached by TCP has a question of its own here.
"""

import asyncio
import os
import struct
from contextlib import suppress
from typing import Protocol

from policies.model.fleet import Gateway

WITHIN_SECONDS = 2.0
_NOBODY, _NO_PAYLOAD, _NEVER, _IKE_SA_INIT, _INITIATOR = bytes(8), 0, 0x30, 34, 0x08
_HARD_RESET_CLIENT_V2 = 7
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

    async def reaches(self, instance: str) -> bool | None:
        """Return whether somebody takes users there, None where that is not known.

        False for an instance nobody knows.
        """
        gateway = await asyncio.to_thread(self._gateways.gateway_at, instance)
        if gateway is None:
            return False
        address, port = str(gateway.addresses[0]), gateway.port
        if gateway.has_own_networks:
            return await _answers(str(gateway.address4), port, _ike_question()) or False
        if await _connects(address, port):
            return True
        return await _answers(address, port, _openvpn_question()) if gateway.daemon == "openvpn" else False


async def _connects(address: str, port: int) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(WITHIN_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            return True
    return False


def _ike_question() -> bytes:
    """Return a header of IKE 3, which there is not: it is answered with that (RFC 7296, 2.5)."""
    size = struct.calcsize(_HEADER)
    return struct.pack(
        _HEADER, os.urandom(8), _NOBODY, _NO_PAYLOAD, _NEVER, _IKE_SA_INIT, _INITIATOR, 0, size
    )


def _openvpn_question() -> bytes:
    """Return a client's first packet: a session's number, no acknowledgement, packet 0.

    A server with `tls-auth` or `tls-crypt` says nothing to it, as it has no signature.
    """
    return struct.pack("!B8sBI", _HARD_RESET_CLIENT_V2 << 3, os.urandom(8), 0, 0)


async def _answers(address: str, port: int, question: bytes) -> bool | None:
    """Return True once anything comes back, False once nobody is said to be there, None for silence."""
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

    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            asking, _ = await loop.create_datagram_endpoint(Asked, remote_addr=(address, port))
            try:
                asking.sendto(question)
                return await answered
            finally:
                asking.close()
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return None
