"""What charon's socket says, and what is done with one that says nothing of use."""

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from vici.protocol import Message, Packet

from activities.drivers.daemon.strongswan.control import (
    SOCKET,
    ask,
    connections,
    security_associations,
    termination,
)

PATIENCE, SOON = timedelta(seconds=10), timedelta(milliseconds=500)
ANSWERED, CONFIRMED, EVENT = Packet.CMD_RESPONSE, Packet.EVENT_CONFIRM, Packet.EVENT
Says = Callable[[bytes], list[bytes]]


def packet(kind: int, message: dict[str, object] | None = None, event: str = "") -> bytes:
    named = bytes([len(event)]) + event.encode() if event else b""
    body = bytes([kind]) + named + (Message.serialize(message) if message else b"")
    return struct.pack("!I", len(body)) + body


@asynccontextmanager
async def charon(folder: Path, says: Says) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                for one in says(await reader.readexactly(length)):
                    writer.write(one)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_unix_server(serve, folder / SOCKET)
    async with server:
        yield


def lists(request: bytes) -> list[bytes]:
    if request[0] in (Packet.EVENT_REGISTER, Packet.EVENT_UNREGISTER):
        return [packet(CONFIRMED)]
    listed: dict[str, object] = {"people": {"uniqueid": "7", "state": "ESTABLISHED"}}
    return [packet(EVENT, listed, "list-sa"), packet(ANSWERED)]


async def test_a_list_of_events_is_one_answer(tmp_path: Path) -> None:
    async with charon(tmp_path, lists):
        said = await ask(tmp_path, lambda session: tuple(security_associations(session)), PATIENCE)
    assert said is not None
    assert [dict(one) for one in said] == [{"uniqueid": b"7", "state": b"ESTABLISHED"}]


async def test_a_listing_that_ends_in_the_middle_is_no_answer(tmp_path: Path) -> None:
    def breaks_off(request: bytes) -> list[bytes]:
        return [lists(request)[0][:-1] + b"\x03"] if request[0] == Packet.CMD_REQUEST else lists(request)

    async with charon(tmp_path, breaks_off):
        assert await ask(tmp_path, lambda session: tuple(security_associations(session)), PATIENCE) is None


async def test_names_of_connections_are_told(tmp_path: Path) -> None:
    async with charon(tmp_path, lambda _: [packet(ANSWERED, {"conns": ["people", "sites"]})]):
        assert await ask(tmp_path, connections, PATIENCE) == ("people", "sites")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_charon_that_stops_in_the_middle_of_an_answer_has_said_nothing_and_holds_no_thread(
    tmp_path: Path,
) -> None:
    half = packet(ANSWERED, {"conns": ["people"]})[:9]
    before = threading.active_count()
    async with charon(tmp_path, lambda _: [half]):
        asked = [ask(tmp_path, connections, SOON) for _ in range(3)]
        assert await asyncio.gather(*asked) == [None, None, None]
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()  # waits for every thread
    assert threading.active_count() <= before


async def test_nobody_there_says_nothing(tmp_path: Path) -> None:
    assert await ask(tmp_path, connections, PATIENCE) is None
    assert await ask(tmp_path / "nowhere", connections, PATIENCE) is None


async def test_a_socket_below_a_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    short = tmp_path / "s"
    short.symlink_to(deep)
    async with charon(short, lambda _: [packet(ANSWERED, {"conns": ["people"]})]):
        assert await ask(deep, connections, PATIENCE) == ("people",)


async def test_who_could_not_be_told_to_go_is_not_taken_for_told(tmp_path: Path) -> None:
    told = list[str]()
    no: dict[str, object] = {"success": "no", "errmsg": "no matching SAs to terminate found"}
    async with charon(tmp_path, lambda _: [packet(ANSWERED, no)]):
        assert await ask(tmp_path, termination("7", lambda: told.append("7")), PATIENCE) is None
    assert told == []
    async with charon(tmp_path, lambda _: [packet(ANSWERED, {"success": "yes"})]):
        assert await ask(tmp_path, termination("7", lambda: told.append("7")), PATIENCE) is True
    assert told == ["7"]


async def test_words_that_are_no_vici_are_no_answer(tmp_path: Path) -> None:
    async with charon(tmp_path, lambda _: [struct.pack("!I", 3) + b"\x01\x06\xff"]):
        assert await ask(tmp_path, connections, PATIENCE) is None
