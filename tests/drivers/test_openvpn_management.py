"""What a management socket says, and what is done with one that says nothing of use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.control import Asked
from activities.drivers.daemon.openvpn.management import SOCKET, ask

GREETING = b">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n"
SOON = timedelta(milliseconds=300)
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


async def asked(folder: Path, says: Says, *commands: str) -> list[list[str]] | None:
    async with daemon(folder, says):
        found = await ask(Asked(folder, SOCKET), *commands, within=SOON)
        return None if found is None else [list(answer) for answer in found]


async def test_each_command_gets_its_own_answer_of_one_line_or_of_several(tmp_path: Path) -> None:
    answers = {b"pid": b"SUCCESS: pid=7\r\n", b"state": b"1,CONNECTED,SUCCESS\r\nEND\r\n"}
    said = await asked(tmp_path, lambda command: answers[command], "pid", "state", "pid")
    assert said == [["SUCCESS: pid=7"], ["1,CONNECTED,SUCCESS"], ["SUCCESS: pid=7"]]


async def test_what_comes_by_itself_answers_nothing(tmp_path: Path) -> None:
    noise = b">CLIENT:ESTABLISHED,4\r\n>CLIENT:ENV,END\r\nSUCCESS: pid=7\r\n"
    assert await asked(tmp_path, lambda _: noise, "pid") == [["SUCCESS: pid=7"]]


async def test_a_daemon_that_stops_in_the_middle_of_an_answer_has_said_nothing(tmp_path: Path) -> None:
    assert await asked(tmp_path, lambda _: b"HEADER\tCLIENT_LIST\r\n", "status 3") is None


async def test_nobody_there_says_nothing(tmp_path: Path) -> None:
    assert await ask(Asked(tmp_path, SOCKET), "pid", within=SOON) is None
    assert await ask(Asked(tmp_path / "nowhere", SOCKET), "pid", within=SOON) is None


async def test_a_socket_below_a_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    short = tmp_path / "s"
    short.symlink_to(deep)
    async with daemon(short, lambda _: b"SUCCESS: pid=7\r\n"):
        assert await ask(Asked(deep, SOCKET), "pid", within=SOON) is not None


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
