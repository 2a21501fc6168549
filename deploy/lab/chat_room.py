"""A room of a chat where the lab's fleet is spoken of: a real homeserver, a real chat process, people.

They run outside of the lab's namespaces, beside the API. The program that plays the story lives in the hub's,
so one thread of its own asks the homeserver and the page.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

from activities.drivers.private_files import write_private
from deploy.lab import namespaces
from deploy.lab.lab import CHAT_SINK, FLEET, OPERATOR, Lab, write_yaml
from deploy.lab.processes import Process
from deploy.lab.synapse import NAME, Synapse
from policies.model.chat import ChatRoom, FleetChat
from policies.model.errors import Unavailable
from policies.model.fleet import Fleet
from policies.model.people import EVERY_FLEET, Role

BOT = f"@penstock:{NAME}"
PERSON, COLLEAGUE = "ana", "ben"
"""Operators of every fleet, whose accounts are linked."""
STRANGER = "mallory"
"""Somebody in the room whose account is linked to nobody."""
SYSTEM_USER = 61_000
"""The first of the users by number, whom no host has: by them people.yaml knows who chat accounts are."""
LISTENS_WITHIN = 30.0
ANSWERED_WITHIN = 60.0
LOOK_EVERY = 0.2
POSTS_OF_A_PAGE = 500
MOST_PAGES = 40
NEWEST = 100
"""Posts that are looked through again for one that is awaited: more are not said between two looks."""
CODE = re.compile(r"confirm ([0-9a-z]{4})\b")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Posted:
    """What stands in the room."""

    event: str
    sender: str
    body: str
    at: datetime
    thread: str | None
    """The post in whose thread it is."""
    replaces: str | None
    """The post that it edits."""
    transaction: str | None
    """How penstock named it when it sent it."""


@dataclass
class LabRoom:
    """What people say and see in the room."""

    lab: Lab
    folder: Path
    """With chat.yaml and its secrets; each room of a lab has its own."""
    synapse: Synapse
    thread: ThreadPoolExecutor
    programs: list[Process] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    room: str = ""

    async def outside(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Have that done where the API, the homeserver and browsers are."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)

    async def ask(self, person: str, method: str, path: str, body: Any = None) -> Any:
        """Ask the homeserver in somebody's name."""
        place = f"/_matrix/client/v3{path}"
        return await self.outside(self.synapse.ask, method, place, body, self.tokens[person])

    async def say(self, text: str, person: str = PERSON) -> str:
        """Say something in the room; return the event."""
        path = f"/rooms/{quote(self.room)}/send/m.room.message/{uuid4().hex}"
        said = await self.ask(person, "PUT", path, {"msgtype": "m.text", "body": text})
        return str(said["event_id"])

    async def posts(self) -> list[Posted]:
        """Return everything that was said in the room, the oldest first, as penstock's own account sees it.

        Raises:
            Unavailable: More was said than anybody counts.
        """
        found, before = list[Posted](), ""
        for _ in range(MOST_PAGES):
            posts, before = await self._page(POSTS_OF_A_PAGE, before)
            found = posts + found
            if not before:
                return found
        raise Unavailable(f"more than {MOST_PAGES * POSTS_OF_A_PAGE} events stand in the room")

    async def _page(self, limit: int, before: str = "") -> tuple[list[Posted], str]:
        """Return the newest posts of all, or before that place; and where older ones end, "" without any."""
        path = f"/rooms/{quote(self.room)}/messages?dir=b&limit={limit}"
        page = await self.ask("penstock", "GET", f"{path}&from={quote(before)}" if before else path)
        chunk = page["chunk"]
        posts = [_posted(one) for one in reversed(chunk) if one["type"] == "m.room.message"]
        return posts, page.get("end", "") if chunk else ""

    async def heard(
        self, is_it: Callable[[Posted], bool], seconds: float, every: float = LOOK_EVERY
    ) -> Posted | None:
        """Return the first post that is it; None where there is none in that time."""
        end = asyncio.get_running_loop().time() + seconds
        posts = await self.posts()
        while True:
            found = next((one for one in posts if is_it(one)), None)
            if found is not None or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(every)
            posts, _ = await self._page(NEWEST)

    async def asks(self, text: str, person: str = PERSON) -> tuple[str, Posted]:
        """Say something to penstock; return the event, and what is answered to it.

        Raises:
            Unavailable: Nothing is, in time.
        """
        before = {one.event for one in await self.posts()}
        event = await self.say(f"!penstock {text}", person)

        def answers(post: Posted) -> bool:
            new = post.event not in before and post.sender == BOT
            return new and post.thread is None and post.replaces is None and not _tells_of_a_change(post)

        found = await self.heard(answers, ANSWERED_WITHIN, every=LOOK_EVERY / 4)
        if found is None:
            raise Unavailable(f"the chat does not answer {text!r}")
        return event, found

    async def asks_for_code(self, text: str, person: str = PERSON) -> str:
        """Give an order that has to be confirmed; return the code.

        Raises:
            Unavailable: None is given.
        """
        _, answer = await self.asks(text, person)
        found = CODE.search(answer.body)
        if found is None:
            raise Unavailable(f"the chat gives no code: {answer.body}")
        return found[1]

    def describe(self, **more: Any) -> Fleet:
        """Write the fleet's file as people would: spoken of in this room, and with what else is said."""
        chat = FleetChat(channels=(ChatRoom(workspace=NAME, channel=self.room),))
        fleet = Fleet.model_validate(self.lab.fleet.model_dump() | {"chat": chat.model_dump()} | more)
        write_yaml(self.lab.fleet_file, fleet)
        return fleet


@asynccontextmanager
async def chat_room(lab: Lab) -> AsyncIterator[LabRoom]:
    """Keep a room with people in it, and penstock listening there, for the length of the body.

    Raises:
        Unavailable: The homeserver or the chat's process did not come up.
    """
    folder = lab.folder / f"chat-{uuid4().hex[:6]}"
    folder.mkdir(mode=0o700)
    with ThreadPoolExecutor(1, "outside", namespaces.enter, (lab.outside,)) as thread:
        loop = asyncio.get_running_loop()
        synapse = await loop.run_in_executor(thread, Synapse, folder / "synapse")
        room = LabRoom(lab, folder, synapse, thread)
        try:
            await _fill(room)
            yield room
        finally:
            for program in reversed(room.programs):
                program.stop()
            write_yaml(lab.fleet_file, lab.fleet)


async def _fill(room: LabRoom) -> None:
    """Start the homeserver, invite penstock to a room, and have it listen there."""
    lab, folder, synapse = room.lab, room.folder, room.synapse
    homeserver = synapse.process(lab.outside)
    room.programs.append(homeserver)
    homeserver.start()
    await room.outside(synapse.wait_until_up, homeserver)
    others = (COLLEAGUE, STRANGER)
    for name in ("penstock", PERSON, *others):
        room.tokens[name] = await room.outside(synapse.person, name)
    invited = [BOT, *(f"@{name}:{NAME}" for name in others)]
    wanted = {"name": "vpn-ops", "preset": "private_chat", "invite": invited}
    room.room = (await room.ask(PERSON, "POST", "/createRoom", wanted))["room_id"]
    for name in others:
        await room.ask(name, "POST", f"/join/{quote(room.room)}", {})
    room.describe()
    await _known(lab)
    shown, _ = await lab.installation.service.tokens.make(
        OPERATOR, folder.name, {EVERY_FLEET: frozenset({Role.CHAT})}, timedelta(days=1)
    )
    write_private(folder / "penstock.token", shown.encode())
    write_private(folder / "matrix.token", room.tokens["penstock"].encode())
    config = {
        "apiVersion": "penstock/v1",
        "socket": str(lab.folder / "penstock.sock"),
        "token": "penstock.token",
        "state": "state",
        "matrix": {
            "homeserver": synapse.url,
            "workspace": NAME,
            "user": BOT,
            "token": "matrix.token",
            "rooms": [room.room],
        },
        "notices": CHAT_SINK,
    }
    path = write_yaml(folder / "chat.yaml", config)
    listening = lab.beside_the_api("chat", "-m", "orchestrator", "chat", "run", str(path))
    room.programs.append(listening)
    listening.start()
    await _listens(listening, folder / "state" / "matrix.json")


async def _known(lab: Lab) -> None:
    """Have people known by name, whose accounts in the chat are linked."""
    users = {name: SYSTEM_USER + number for number, name in enumerate((PERSON, COLLEAGUE))}
    people = [
        {"name": name, "system_users": [f"uid:{user}"], "roles": {EVERY_FLEET: [Role.OPERATOR.value]}}
        for name, user in users.items()
    ]
    text = write_yaml(lab.people_file.with_suffix(".new"), {"apiVersion": "penstock/v1", "people": people})
    text.chmod(0o600)
    text.replace(lab.people_file)
    ledger = lab.installation.ledger
    for name, user in users.items():
        secret, minute = uuid4().hex, timedelta(minutes=1)
        await asyncio.to_thread(ledger.offer_chat_link, secret, NAME, f"@{name}:{NAME}", name, minute)
        await asyncio.to_thread(ledger.link_chat, secret, name, user, None, timedelta(days=1))


async def _listens(program: Process, kept: Path) -> None:
    """Wait until the process has heard the room once: what is said from then on counts."""
    end = asyncio.get_running_loop().time() + LISTENS_WITHIN
    while not await asyncio.to_thread(kept.exists):
        if program.pid is None or asyncio.get_running_loop().time() > end:
            said = " / ".join(program.last_lines(3)) or "nothing"
            raise Unavailable(f"the chat's process does not listen; it said: {said}")
        await asyncio.sleep(0.1)


def _tells_of_a_change(post: Posted) -> bool:
    """Say whether a post is no answer: a card, or a notice of a change that has no card."""
    return re.match(rf"(?:{FLEET}: )?{FLEET}-\d+\b", post.body) is not None


def _posted(event: dict[str, Any]) -> Posted:
    content = event["content"]
    relation = content.get("m.relates_to", {})
    kind, to = relation.get("rel_type"), relation.get("event_id")
    return Posted(
        event=event["event_id"],
        sender=event["sender"],
        body=str(content.get("body", "")),
        at=datetime.fromtimestamp(event["origin_server_ts"] / 1000, UTC),
        thread=to if kind == "m.thread" else None,
        replaces=to if kind == "m.replace" else None,
        transaction=event.get("unsigned", {}).get("transaction_id"),
    )
