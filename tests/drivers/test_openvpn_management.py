"""What a management socket says, and what is done with one that says nothing of use."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from activities.drivers.daemon.control import Asked
from activities.drivers.daemon.openvpn import daemon as driver
from activities.drivers.daemon.openvpn.config_test import FILE
from activities.drivers.daemon.openvpn.daemon import AT_ONCE, OpenVpn
from activities.drivers.daemon.openvpn.management import SOCKET, ask
from activities.drivers.daemon.port import Environment, Session
from activities.drivers.flows import Flow
from policies.model.fleet import Slot
from tests.unit.fleets import gateway
from tests.unit.test_openvpn_sessions import HEADER, LAST, TITLE, client

GREETING = b">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n"
PATIENCE, SOON = timedelta(seconds=10), timedelta(milliseconds=300)
Says = Callable[[bytes], bytes]


@asynccontextmanager
async def daemon(folder: Path, says: Says, greeting: bytes = GREETING) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            writer.write(says(line.strip()))
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / SOCKET)
    async with server:
        yield


async def asked(
    folder: Path, says: Says, *commands: str, within: timedelta = PATIENCE
) -> list[list[str]] | None:
    async with daemon(folder, says):
        found = await ask(Asked(folder, SOCKET), *commands, within=within)
        return None if found is None else [list(answer) for answer in found]


async def test_each_command_gets_its_own_answer_of_one_line_or_of_several(tmp_path: Path) -> None:
    answers = {b"pid": b"SUCCESS: pid=7\r\n", b"state": b"1,CONNECTED,SUCCESS\r\nEND\r\n"}
    said = await asked(tmp_path, lambda command: answers[command], "pid", "state", "pid")
    assert said == [["SUCCESS: pid=7"], ["1,CONNECTED,SUCCESS"], ["SUCCESS: pid=7"]]


async def test_what_comes_by_itself_answers_nothing(tmp_path: Path) -> None:
    noise = b">CLIENT:ESTABLISHED,4\r\n>CLIENT:ENV,END\r\nSUCCESS: pid=7\r\n"
    assert await asked(tmp_path, lambda _: noise, "pid") == [["SUCCESS: pid=7"]]


async def test_a_daemon_that_stops_in_the_middle_of_an_answer_has_said_nothing(tmp_path: Path) -> None:
    assert await asked(tmp_path, lambda _: b"HEADER\tCLIENT_LIST\r\n", "status 3", within=SOON) is None


async def test_nobody_there_says_nothing(tmp_path: Path) -> None:
    assert await ask(Asked(tmp_path, SOCKET), "pid", within=SOON) is None
    assert await ask(Asked(tmp_path / "nowhere", SOCKET), "pid", within=SOON) is None


async def test_a_socket_below_a_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    short = tmp_path / "s"
    short.symlink_to(deep)
    async with daemon(short, lambda _: b"SUCCESS: pid=7\r\n"):
        assert await ask(Asked(deep, SOCKET), "pid", within=PATIENCE) is not None


async def test_callers_who_come_at_once_are_answered_one_after_the_other(tmp_path: Path) -> None:
    turn = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with turn:  # one caller at a time, as OpenVPN itself
            writer.write(GREETING)
            while await reader.readline():
                await asyncio.sleep(0.02)
                writer.write(b"SUCCESS: pid=7\r\n")
            writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / SOCKET):
        asking: list[Awaitable[object]] = [ask(Asked(tmp_path, SOCKET), "pid") for _ in range(10)]
        assert None not in await asyncio.gather(*asking)


@dataclass
class Place:
    """Where an instance of OpenVPN would be."""

    config: Path
    run: Path
    slot: Slot
    control: str | None = None


def place(folder: Path) -> Environment:
    return cast("Environment", Place(folder, folder, gateway("gw-1").slots[0]))


@pytest.mark.parametrize(
    ("proto", "transport"),
    [("", "udp"), ("proto udp6", "udp"), ("proto tcp-server", "tcp"), ("proto tcp6", "tcp")],
)
async def test_a_session_is_of_its_instances_own_transport(
    tmp_path: Path, proto: str, transport: str
) -> None:
    (tmp_path / FILE).write_text(f"dev vpna\n{proto}\n")
    rows = [*TITLE, HEADER, client("alice", "10.77.0.11:40432", "10.90.0.2"), *LAST, "END"]
    said = "".join(f"{row}\r\n" for row in rows).encode()
    async with daemon(tmp_path, lambda _: said):
        sessions = await OpenVpn().sessions(place(tmp_path))
    assert sessions is not None
    assert [one.transport for one in sessions] == [transport]


async def test_each_flow_is_forgotten_once_its_client_was_told_and_before_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, killed, forgotten, listings = (
        IPv4Address("192.0.2.11"),
        dict[str, float](),
        dict[str, float](),
        list[int](),
    )
    sources = [(IPv4Address("198.51.100.0") + n % 250, 1024 + n) for n in range(6 * AT_ONCE)]

    def says(command: bytes) -> bytes:
        time.sleep(0.003)
        killed[command.decode().split()[1]] = time.monotonic()
        return b"SUCCESS: client-kill command succeeded\r\n"

    async def listed(port: int) -> tuple[Flow, ...]:
        listings.append(port)
        return tuple(Flow(*source, to, 1194) for source in sources)

    def forget(flows: Iterable[Flow]) -> int:
        gone = {str(flow.source_port - 1024): time.monotonic() for flow in flows}
        forgotten.update(gone)
        return len(gone)

    monkeypatch.setattr(driver, "flows_to_port", listed)
    monkeypatch.setattr(driver, "forget", forget)
    sessions = tuple(
        Session(
            id=str(number),
            remote_address=str(source[0]),
            vpn_address="10.90.0.2",
            since=datetime.now(UTC),
            transport="udp",
            source=source,
        )
        for number, source in enumerate(sources)
    )
    async with daemon(tmp_path, says):
        assert await OpenVpn().end(place(tmp_path), sessions) == len(sessions)
    assert listings == [4431]
    waited = [forgotten[number] - killed[number] for number in killed]
    assert len(waited) == len(sessions)
    assert min(waited) > 0.29
    assert max(waited) < 1
