"""Users of this host who are no person here: all together are one caller, and delay nobody at the socket."""

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab.lab import write_yaml
from orchestrator import crowd
from orchestrator.api import turns
from orchestrator.api.limits import Kind
from orchestrator.processes.api import serving, socket_at
from orchestrator.service.people import PeopleFile, system_name
from orchestrator.service.service import Service
from policies.model.errors import BadInput
from policies.model.people import Caller, Member, People, Role
from tests.patience import PATIENCE, until

ANA, NOBODY = 20_001, 70_000
"""The number of a person's user, and the first of those of nobody."""


@contextmanager
def user(uid: int) -> Iterator[None]:
    """Be another user for the length of the body, which waits for nothing."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


class Connected:
    """A connection of one user of this host."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def as_user(cls, place: Path, uid: int) -> "Connected":
        mine = socket.socket(socket.AF_UNIX)
        mine.setblocking(False)
        with user(uid):
            mine.connect(os.fspath(place))
        return cls(*await asyncio.open_unix_connection(sock=mine))

    async def whoami(self) -> int:
        """Return the status of the answer."""
        self.writer.write(b"GET /v1/whoami HTTP/1.1\r\nHost: p\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            await self.reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        return int(head.split()[1])


async def status(place: Path, uid: int) -> int:
    one = await Connected.as_user(place, uid)
    try:
        return await one.whoami()
    finally:
        one.writer.close()


@pytest.fixture
async def place(service: Service, tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of an API that knows ana."""
    ana = Member(name="ana", system_users=(f"uid:{ANA}",), roles={"edge": frozenset({Role.OPERATOR})})
    write_yaml(tmp_path / "people.yaml", People(api_version="penstock/v1", people=(ana,)))
    await service.read_people()
    with tempfile.TemporaryDirectory(prefix="penstock-users-") as folder:
        found = Path(folder, "penstock.sock")
        await asyncio.to_thread(found.parent.chmod, 0o755)
        async with serving(service, socket_at(found)):
            yield found


async def test_unknown_users_delay_neither_root_nor_a_person_at_the_socket(
    place: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: the look-ups of 64 connections of a user who is nobody stood before that of root."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 3600.0)
    go_on, begun, look_up = threading.Event(), list[int](), service.people.at_the_socket

    def slow(uid: int) -> Caller:
        begun.append(uid)
        if uid >= NOBODY:
            go_on.wait(PATIENCE)
        return look_up(uid)

    monkeypatch.setattr(service.people, "at_the_socket", slow)
    unknown = [asyncio.create_task(status(place, NOBODY + number)) for number in range(20)]
    try:
        await until(lambda: len(begun) == 1)
        assert await status(place, 0) == 200
        assert await status(place, ANA) == 200
        assert sum(uid >= NOBODY for uid in begun) == 1
    finally:
        go_on.set()
    assert {await one for one in unknown} == {403}


@pytest.mark.usefixtures("no_refill")
async def test_unknown_users_ask_as_often_as_one_stranger(place: Path) -> None:
    """R12: a user with subordinate numbers has 65,536 of them, and none took of any bucket."""
    answers = [await status(place, NOBODY + number) for number in range(Kind.STRANGER.size + 2)]
    assert answers == [403] * Kind.STRANGER.size + [429] * 2
    assert await status(place, ANA) == 200
    assert await status(place, 0) == 200


async def test_unknown_users_have_the_places_of_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 5)
    held = [await Connected.as_user(place, NOBODY + number) for number in range(8)]
    async with asyncio.timeout(PATIENCE):
        assert [await one.reader.read() for one in held[:3]] == [b""] * 3
    assert await held[-1].whoami() == 403
    for one in held:
        one.writer.close()


async def test_a_person_who_is_new_in_the_file_is_recognised_and_then_known(
    place: Path, service: Service, tmp_path: Path
) -> None:
    bob = Member(name="bob", system_users=(f"uid:{ANA + 1}",), roles={"edge": frozenset({Role.VIEWER})})
    write_yaml(tmp_path / "people.yaml", People(api_version="penstock/v1", people=(bob,)))
    assert not service.people.is_known(ANA + 1)
    assert await status(place, ANA + 1) == 200
    assert service.people.is_known(ANA + 1)
    await service.read_people()
    assert [service.people.is_known(uid) for uid in (0, ANA, ANA + 1)] == [True, False, True]


def test_users_are_known_by_name_and_number_also_while_the_file_is_wrong(tmp_path: Path) -> None:
    file, name = tmp_path / "people.yaml", system_name(1)
    ana = Member(name="ana", system_users=(name, "nobody-of-that-name", f"uid:{ANA}"), roles={})
    write_yaml(file, People(api_version="penstock/v1", people=(ana,)))
    people = PeopleFile(file)
    assert people.is_known(0)
    assert not people.is_known(1)
    people.read_users()
    file.write_text("typo: 1\n")
    with pytest.raises(BadInput):
        people.read_users()
    assert [people.is_known(uid) for uid in (0, 1, ANA, NOBODY)] == [True, True, True, False]
