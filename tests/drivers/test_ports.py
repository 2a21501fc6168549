"""What a probe of the users' port says of a gateway whose metrics do not answer: sockets of this host."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from activities.drivers.metrics import ports
from activities.drivers.metrics.ports import PortProbes
from policies.model.fleet import Gateway
from tests.unit.fleets import gateway

HOST = "127.0.0.1"
pytestmark = pytest.mark.usefixtures("_short")


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "WITHIN_SECONDS", 0.3)


class OneGateway:
    """An installation with one gateway."""

    def __init__(self, daemon: str, port: int) -> None:
        self.gateway = gateway("gw-1").model_copy(
            update={"daemon": daemon, "port": port, "addresses": (ip_address(HOST),)}
        )

    def gateway_at(self, target: str) -> Gateway | None:
        return self.gateway if target == "gw-1:9500" else None


class Agents:
    """The agent of that gateway, which is silent until it answers."""

    def __init__(self) -> None:
        self.said: dict[str, datetime] = {}

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        oldest = datetime.now(UTC) - within
        return {name: at for name, at in self.said.items() if at >= oldest and not fleet}


@contextmanager
def bound(kind: socket.SocketKind) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((HOST, 0))
        yield one, one.getsockname()[1]


async def reached(port: int, daemon: str = "openvpn") -> bool | None:
    return await PortProbes(OneGateway(daemon, port), Agents()).reaches("gw-1:9500")


async def test_an_openvpn_over_udp_is_reached_where_it_answers_a_clients_first_packet() -> None:
    with bound(socket.SOCK_DGRAM) as (server, port):
        server.setblocking(False)
        asked = asyncio.create_task(reached(port))
        question, client = await asyncio.get_running_loop().sock_recvfrom(server, 1500)
        server.sendto(b"\x40", client)
        assert await asked is True
    assert (len(question), question[0] >> 3, question[9:]) == (14, 7, bytes(5))


async def test_an_openvpn_over_tcp_is_reached_by_that() -> None:
    with bound(socket.SOCK_STREAM) as (server, port):
        server.listen()
        assert await reached(port) is True


async def test_silence_over_udp_is_not_known_and_so_confirms_nothing() -> None:
    with bound(socket.SOCK_DGRAM) as (_, port):
        assert await reached(port) is None


async def test_a_port_that_nobody_has_is_surely_not_reached() -> None:
    with bound(socket.SOCK_DGRAM) as (_, port):
        pass
    assert await reached(port) is False


async def test_an_ocserv_is_reached_by_tcp_only() -> None:
    with bound(socket.SOCK_DGRAM) as (_, port):
        assert await reached(port, "ocserv") is False


async def test_a_silent_port_is_a_dead_daemon_once_the_agent_has_answered_since_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R7: a host without power was a daemon that the release had killed."""
    agents, before = Agents(), datetime.now(UTC)
    agents.said["gw-1"] = before
    probes = PortProbes(OneGateway("ocserv", 443), agents)

    async def silence(*_: object) -> None:
        return None

    monkeypatch.setattr(ports, "_connects", silence)
    fell = before + timedelta(milliseconds=1)
    assert await probes.reaches("gw-1:9500") is None
    assert await probes.is_dead("gw-1:9500", fell) is False
    agents.said["gw-1"] = datetime.now(UTC) + timedelta(seconds=1)
    assert await probes.is_dead("gw-1:9500", fell) is True


async def test_a_silent_openvpn_may_be_well_where_its_agent_answers_and_is_absent_otherwise() -> None:
    agents, fell = Agents(), datetime.now(UTC)
    probes = PortProbes(OneGateway("openvpn", 1194), agents)
    assert await probes.is_dead("gw-1:9500", fell) is False
    agents.said["gw-1"] = fell + timedelta(seconds=1)
    assert await probes.is_dead("gw-1:9500", fell) is None


async def test_a_host_that_refuses_users_is_there_and_its_daemon_is_not() -> None:
    with bound(socket.SOCK_STREAM) as (_, port):
        pass
    assert await PortProbes(OneGateway("ocserv", port), Agents()).reaches("gw-1:9500") is False
