"""A Matrix room with four people, a real homeserver, penstock's own chat process, API, engine and worker.

`rollback_begun` measures how long it takes from a code that was confirmed there to a rollback that has begun.
"""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from activities.files import load
from deploy.lab.synapse import NAME, Synapse
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service.service import Service
from policies.model.change import Phase
from policies.model.fleet import Fleet
from tests.fakes.control import AT_CAP
from tests.patience import PATIENCE, until
from tests.service.chat_rooms import USERS, link, token, with_chat
from tests.service.conftest import PAGE, installed
from tests.workflows.engine import Engine
from tests.workflows.world import Running, World, working

BOT = f"@penstock:{NAME}"
PEOPLE = ("ana", "ben", "cleo", "mallory")
CODE = re.compile(r"confirm ([0-9a-z]{4})\b")


@dataclass
class MatrixRoom:
    """What people say and see in the room."""

    homeserver: Synapse
    tokens: dict[str, str]
    room: str
    folder: Path
    service: Service
    world: World
    process: asyncio.subprocess.Process | None = None
    told: list[str] = field(default_factory=list)

    async def ask(self, person: str, method: str, path: str, body: Any = None) -> Any:
        """Ask the homeserver in somebody's name."""
        return await asyncio.to_thread(
            self.homeserver.ask, method, f"/_matrix/client/v3{path}", body, self.tokens[person]
        )

    async def say(self, person: str, text: str) -> str:
        """Say something in the room; return the event."""
        path = f"/rooms/{quote(self.room)}/send/m.room.message/{uuid4().hex}"
        said = await self.ask(person, "PUT", path, {"msgtype": "m.text", "body": text})
        event: str = said["event_id"]
        return event

    async def now(self, person: str) -> str:
        """Return the token of this moment, from which somebody sees what comes later."""
        token: str = (await self.ask(person, "GET", "/sync?timeout=0"))["next_batch"]
        return token

    async def invited_since(self, person: str, moment: str) -> str:
        """Wait until somebody is invited to a room after that moment; return the room.

        Invitations of earlier tests, which nobody took, stay on the homeserver.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                seen = await self.ask(person, "GET", f"/sync?timeout=5000&since={quote(moment)}")
                if invited := seen.get("rooms", {}).get("invite", {}):
                    (room,) = invited
                    return str(room)
                moment = seen["next_batch"]

    async def posts(self, room: str | None = None, person: str = "ana") -> list[dict[str, Any]]:
        """Return what penstock posted, the oldest first."""
        path = f"/rooms/{quote(room or self.room)}/messages?dir=b&limit=200"
        chunk = (await self.ask(person, "GET", path))["chunk"]
        of_bot = [one for one in chunk if one["sender"] == BOT and one["type"] == "m.room.message"]
        return of_bot[::-1]

    async def conversation(self) -> str:
        """Return what was said in the room and in its threads, in order, without moments and codes.

        Edits of the card are left out, and what is told in its thread comes after what is said in the room:
        there each is in the order in which it was said, but not to each other.
        """
        path = f"/rooms/{quote(self.room)}/messages?dir=b&limit=500"
        chunk = (await self.ask("ana", "GET", path))["chunk"]
        said, threads = list[str](), list[str]()
        for one in reversed(chunk):
            kind = one.get("content", {}).get("m.relates_to", {}).get("rel_type")
            if one["type"] != "m.room.message" or kind == "m.replace":
                continue
            who = one["sender"].partition(":")[0].removeprefix("@")
            body = one["content"]["body"]
            if kind == "m.thread":
                threads.append(f"{who} (thread): {body}")
            else:
                said.append(f"{who}: {body}")
        return without_moments("\n".join((*said, *threads)))

    async def heard(self, what: Callable[[str], bool], after: int = 0, person: str = "ana") -> str:
        """Wait until penstock has said that in the room, after so many posts; return it."""
        end = time.monotonic() + PATIENCE
        while True:
            posts = [one["content"]["body"] for one in await self.posts(person=person)]
            for body in posts[after:]:
                if what(body):
                    return str(body)
            assert time.monotonic() < end, posts
            await asyncio.sleep(0.05)

    async def asks(self, person: str, text: str) -> str:
        """Say something and return what is answered."""
        before = len(await self.posts())
        await self.say(person, text)
        return await self.heard(lambda body: not body.startswith(("* ", "edge-")) or "status" in text, before)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Have penstock's chat process run, killed at the end."""
        await self.begin()
        try:
            yield
        finally:
            await self.kill()

    async def begin(self) -> None:
        """Start the process."""
        log = (self.folder / "chat.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            "chat",
            "run",
            os.fspath(self.folder / "chat.yaml"),
            stdout=log,
            stderr=log,
        )
        log.close()

    async def kill(self) -> None:
        """Kill it, whatever it does."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()


def without_moments(said: str) -> str:
    """Return the same text with what differs each time named instead."""
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DAY HH:MM UTC", said)
    said = re.sub(r"\d\d:\d\d:\d\d UTC", "HH:MM:SS UTC", said)
    said = re.sub(r"!penstock confirm [0-9a-z]{4}\b", "!penstock confirm CODE", said)
    return re.sub(r"^(Why|Needs you): .*$", r"\1: WHY", said, flags=re.MULTILINE)


@asynccontextmanager
async def matrix_room(folder: Path, server: Engine, homeserver: Synapse) -> AsyncIterator[MatrixRoom]:
    """Lay everything out, with people linked but ana and mallory; the process does not run yet."""
    client = await server.client()
    settings = installed(folder, server.address, client.namespace)
    name = uuid4().hex[:6]
    people = ("penstock", *PEOPLE)
    tokens = {
        one: await asyncio.to_thread(homeserver.person, one)
        if one not in homeserver.known
        else homeserver.known[one]
        for one in people
    }
    homeserver.known.update(tokens)
    body = {"name": f"vpn-ops {name}", "preset": "private_chat", "invite": [BOT]}
    room = MatrixRoom(homeserver, tokens, "", folder, None, None)  # type: ignore[arg-type]
    room.room = (await room.ask("ana", "POST", "/createRoom", body))["room_id"]
    for person in PEOPLE[1:]:
        await room.ask("ana", "POST", f"/rooms/{quote(room.room)}/invite", {"user_id": f"@{person}:{NAME}"})
        await room.ask(person, "POST", f"/join/{quote(room.room)}", {})
    file = settings.fleet / "edge.yaml"
    more = [
        file.read_text()
        .partition("gateways:\n")[2]
        .replace("edge-1", f"edge-{n}")
        .replace("192.0.2.1", f"192.0.2.{n}")
        .replace("10.0.", f"10.{n}.")
        for n in (2, 3)
    ]
    file.write_text(file.read_text() + "".join(more))
    with_chat(folder, "  mentions: [ben]\n", workspace=NAME, room=room.room)
    room.world = World.made(client, load(file, Fleet))
    room.world.judge.says(AT_CAP)
    installation = await compose(settings.model_copy(update={"ledger_url": room.world.book.url}))
    room.service = installation.service
    for person in ("ben", "cleo"):
        link(room.world.book, person, workspace=NAME)
    for secret, said in (("matrix.token", tokens["penstock"]), ("penstock.token", token(room.world.book))):
        (folder / secret).write_text(said)
        (folder / secret).chmod(0o600)
    (folder / "chat.yaml").write_text(
        "apiVersion: penstock/v1\n"
        "socket: penstock.sock\n"
        "token: penstock.token\n"
        "state: chat\n"
        "matrix:\n"
        f"  homeserver: {homeserver.url}\n"
        f"  workspace: {NAME}\n"
        f"  user: '{BOT}'\n"
        "  token: matrix.token\n"
        f"  rooms: ['{room.room}']\n"
        "notices: chat\n"
    )
    async with working(room.world), serving(installation.service, socket_at(folder / "penstock.sock")):
        yield room


async def link_at_the_page(room: MatrixRoom, person: str, place: str) -> str:
    """Open the address that the chat gave, logged in at the page, and say yes; return the page that asked."""
    service, uid = room.service, USERS[person]
    login = await service.page_logins.make_link(service.people.at_the_socket(uid), uid)
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(room.folder / "penstock.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=PAGE) as page:
        await page.post(login.url, headers={"Origin": PAGE})
        asked = await page.get(place)
        found = re.search(r'name="csrf" value="([^"]+)"', asked.text)
        assert found, asked.text
        done = await page.post(place, data={"csrf": found[1]}, headers={"Origin": PAGE})
        assert done.status_code == httpx.codes.SEE_OTHER, done.text
        return asked.text


async def held(room: MatrixRoom) -> Running:
    """Start an upgrade whose first wave waits for a person."""
    change = await room.world.start(("edge-1",), ("edge-2", "edge-3"))

    async def is_held() -> bool:
        status = await room.service.status(room.service.people.at_the_socket(0), "edge")
        return status.change is not None and status.change.phase is Phase.HELD

    await until(is_held)
    return change


async def rollback_begun(room: MatrixRoom, change: Running, person: str) -> float:
    """Have somebody roll back by chat; return the seconds from their confirmation to its beginning.

    It has begun when the change goes back: when every gateway's new sessions are on their way to known-good.
    """
    said = await room.asks(person, "!penstock rollback edge it hurts")
    found = CODE.search(said)
    assert found, said
    began = time.monotonic()
    await room.say(person, f"!penstock confirm {found[1]}")
    async with asyncio.timeout(PATIENCE):
        while True:
            newest = await asyncio.to_thread(room.world.book.last_change, "edge")
            assert newest is not None
            story = await asyncio.to_thread(room.world.book.story, newest.name)
            if story is not None and (story.told.goes_back or newest.outcome is not None):
                return time.monotonic() - began
            await asyncio.sleep(0.01)


def double_actions(room: MatrixRoom) -> int:
    """Return how many orders were carried out more than once, by the record of what changes were told."""
    found = room.world.book
    newest = found.last_change("edge")
    assert newest is not None
    story = found.story(newest.name)
    commands = [] if story is None else [one for one in story.told.commands if "/chat-" in one]
    return len(commands) - len({*commands})
