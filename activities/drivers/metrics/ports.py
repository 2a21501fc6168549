"""Whether a gateway still answers its users' port, when its metrics do not: a way around Prometheus.

A new daemon that is not reached by TCP has a question of its own here.
"""

import asyncio
import os
import struct
from datetime import UTC, datetime, timedelta
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


class Agents(Protocol):
    """What agents have answered, in the ledger."""

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when each gateway's agent answered for the last time, of those that did within that time."""
        ...


class PortProbes:
    """Connects to the users' port of gateways, found by their metrics label.

    A host that refuses the connection is there, and its daemon is not. Silence alone says neither: the agent,
    which answers meanwhile or does not, tells a dead daemon from a host that is absent. Since when a port has
    been silent is remembered by the window, which every worker continues.
    """

    def __init__(self, gateways: Gateways, agents: Agents) -> None:
        self._gateways = gateways
        self._agents = agents

    async def reaches(self, instance: str) -> bool | None:
        """Return whether the instance takes users, None where its users' port is silent.

        False for an instance nobody knows.
        """
        gateway = await asyncio.to_thread(self._gateways.gateway_at, instance)
        return False if gateway is None else await _answer_of(gateway)

    async def is_dead(self, instance: str, silent_since: datetime) -> bool | None:
        """Return whether the agent has answered since then, None where silence says nothing of the daemon."""
        gateway = await asyncio.to_thread(self._gateways.gateway_at, instance)
        if gateway is None:
            return None
        within = datetime.now(UTC) - silent_since
        if gateway.name not in await asyncio.to_thread(self._agents.said_at, gateway.fleet or "", within):
            return False
        # An OpenVPN that is well may be silent to a client without its signature.
        return None if gateway.daemon == "openvpn" else True


async def _answer_of(gateway: Gateway) -> bool | None:
    """Return whether the users' port answers, False where its host refuses, None for silence."""
    address, port = str(gateway.addresses[0]), gateway.port
    if gateway.has_own_networks:
        return await _answers(str(gateway.address4), port, _ike_question())
    connected = await _connects(address, port)
    if connected or gateway.daemon != "openvpn":
        return connected
    return await _answers(address, port, _openvpn_question())


async def _connects(address: str, port: int) -> bool | None:
    """Return whether the port takes connections, None for silence."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    except (OSError, TimeoutError):
        return None
    writer.close()
    return True


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
