"""A Matrix homeserver that tells what tests say, however hostile, and refuses or hangs where they want it.

The real one is in tests/service/test_chat_matrix.py; this one lets through what that would not.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from aiohttp import web

NAME = "chat.example.org"
BOT = f"@penstock:{NAME}"
ROOM = f"!room:{NAME}"
LISTENED_SECONDS = 0.05
"""How long it has whoever listens wait where there is nothing to tell."""


@dataclass
class Homeserver:
    """What was said to it, and what it tells next."""

    url: str = ""
    events: list[Any] = field(default_factory=list)
    """What it tells, in order; each with whatever a test wants in it."""
    posts: list[dict[str, Any]] = field(default_factory=list)
    """What penstock said: room, transaction and content."""
    rooms_made: int = 0
    hangs_on_rooms: bool = False
    """Whether who has a room made waits for ever."""
    away: bool = False
    """Whether it answers nobody with anything but an error."""
    refuses: str = ""
    """With which words it refuses everybody from now on."""
    leads_to: str = ""
    """To which other address it sends everybody from now on."""
    rooms: dict[int, str] = field(default_factory=dict)
    """In which room an event is, by its place in the list, where that is another one."""
    invitations: list[str] = field(default_factory=list)
    """Rooms to which somebody invites penstock, until it has left them."""
    hangs_on_leaving: bool = False
    """Whether who leaves a room waits for ever, as where the room's own server is a stranger's."""
    banned_from: list[str] = field(default_factory=list)
    """Rooms in which nobody wants penstock any more."""
    send_seconds: float = 0.0
    """How long each post takes, as where the homeserver limits how many an account may make."""
    most_told: int = 10_000
    """How many events it tells at once, the newest; the others have to be asked for."""
    listened: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once somebody has listened: what is told from then on counts.

    A test that waits for the next listener puts another event here; who asked before sets the older one.
    """
    asked_again: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once somebody asks who has been told everything."""

    def say(self, person: str, text: str, **more: Any) -> str:
        """Have somebody say something in the room; return the event."""
        content = {"msgtype": "m.text", "body": text}
        return self.tell({"sender": f"@{person}:{NAME}", "content": content} | more)

    def tell(self, event: Any, room: str = ROOM) -> str:
        """Have it tell an event; what a message needs is added where the test does not say otherwise."""
        if room != ROOM:
            self.rooms[len(self.events)] = room
        known = {
            "type": "m.room.message",
            "event_id": f"${uuid4().hex}",
            "origin_server_ts": int(time.time() * 1000),
        }
        whole = known | event if isinstance(event, dict) else event
        self.events.append(whole)
        return str(whole.get("event_id", "")) if isinstance(whole, dict) else ""

    async def has_told_all(self) -> None:
        """Wait until it has told everything, and is asked for more."""
        self.asked_again.clear()
        await self.asked_again.wait()

    @property
    def texts(self) -> list[str]:
        """What penstock said, as text."""
        return [str(post["content"]["body"]) for post in self.posts]


class _Answers:
    """What each of its addresses answers."""

    def __init__(self, fake: Homeserver) -> None:
        self._fake = fake

    async def sync(self, request: web.Request) -> web.Response:
        fake, since, listened = self._fake, len(self._fake.events), self._fake.listened
        if "since" in request.query:
            since = int(request.query["since"].removeprefix("s"))
            if since == len(fake.events):
                fake.asked_again.set()
                await asyncio.sleep(LISTENED_SECONDS)
        empty: dict[str, list[Any]] = {"events": []}
        joined = {}
        for room in (ROOM, *sorted({*fake.rooms.values()})):
            told = self._told_in(room, since, len(fake.events))
            first = told[-fake.most_told :][0][0] if told else since
            timeline = {
                "events": [event for _, event in told[-fake.most_told :]],
                "limited": len(told) > fake.most_told,
                "prev_batch": f"s{first}",
            }
            joined[room] = {
                "timeline": timeline,
                "state": empty,
                "ephemeral": empty,
                "account_data": empty,
            }
        listened.set()
        answer = {
            "next_batch": f"s{len(fake.events)}",
            "rooms": {"join": joined, "invite": self._invited(), "leave": {}},
            "presence": empty,
            "to_device": empty,
            "device_lists": {"changed": [], "left": []},
            "device_one_time_keys_count": {},
        }
        return web.json_response(answer)

    def _told_in(self, room: str, since: int, until: int) -> list[tuple[int, Any]]:
        numbered = enumerate(self._fake.events[since:until], since)
        return [(number, event) for number, event in numbered if self._fake.rooms.get(number, ROOM) == room]

    async def messages(self, request: web.Request) -> web.Response:
        """Tell what was said between two moments, backwards from the later one."""
        start, end = (int(request.query[name].removeprefix("s")) for name in ("from", "to"))
        told = self._told_in(unquote(request.match_info["room"]), end, start)
        chunk = told[-self._fake.most_told :][::-1]
        more = {"end": f"s{chunk[-1][0]}"} if len(told) > len(chunk) else {}
        return web.json_response({"chunk": [event for _, event in chunk], "start": f"s{start}"} | more)

    def _invited(self) -> dict[str, Any]:
        told = {
            "type": "m.room.member",
            "state_key": BOT,
            "sender": "@mallory:elsewhere.example.net",
            "content": {"membership": "invite"},
        }
        return {room: {"invite_state": {"events": [told]}} for room in self._fake.invitations}

    async def leave(self, request: web.Request) -> web.Response:
        if self._fake.hangs_on_leaving:
            await asyncio.sleep(3600)
        self._fake.invitations.remove(unquote(request.match_info["room"]))
        return web.json_response({})

    async def join(self, request: web.Request) -> web.Response:
        if unquote(request.match_info["room"]) in self._fake.banned_from:
            return web.json_response({"errcode": "M_FORBIDDEN", "error": "banned"}, status=403)
        return web.json_response({"room_id": unquote(request.match_info["room"])})

    async def state(self, _: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "none"}, status=404)

    async def make_room(self, _: web.Request) -> web.Response:
        self._fake.rooms_made += 1
        if self._fake.hangs_on_rooms:
            await asyncio.sleep(3600)
        return web.json_response({"room_id": f"!two{self._fake.rooms_made}:{NAME}"})

    async def send(self, request: web.Request) -> web.Response:
        """Take a post once for each transaction, as the protocol asks."""
        await asyncio.sleep(self._fake.send_seconds)
        posts = self._fake.posts
        named = {"room": unquote(request.match_info["room"]), "transaction": request.match_info["txn"]}
        known = next((post for post in posts if named.items() <= post.items()), None)
        if known is None:
            known = named | {"content": await request.json(), "event": f"$p{len(posts)}"}
            posts.append(known)
        return web.json_response({"event_id": known["event"]})


@asynccontextmanager
async def homeserver() -> AsyncIterator[Homeserver]:
    """Run one on loopback."""
    fake = Homeserver()

    @web.middleware
    async def maybe_away(request: web.Request, handler: Any) -> web.StreamResponse:
        if fake.leads_to:
            raise web.HTTPFound(fake.leads_to)
        if fake.refuses:
            return web.json_response({"errcode": fake.refuses, "error": fake.refuses}, status=403)
        if fake.away:
            return web.json_response({"errcode": "M_UNKNOWN", "error": "away"}, status=502)
        answer: web.StreamResponse = await handler(request)
        return answer

    app, answers = web.Application(middlewares=[maybe_away], client_max_size=2**24), _Answers(fake)
    api = "/_matrix/client/{version:r0|v3}"
    app.router.add_get(f"{api}/sync", answers.sync)
    app.router.add_post(f"{api}/join/{{room}}", answers.join)
    app.router.add_post(f"{api}/createRoom", answers.make_room)
    app.router.add_post(f"{api}/rooms/{{room}}/leave", answers.leave)
    app.router.add_get(f"{api}/rooms/{{room}}/messages", answers.messages)
    app.router.add_put(f"{api}/rooms/{{room}}/send/m.room.message/{{txn}}", answers.send)
    app.router.add_get(f"{api}/rooms/{{room}}/state/{{what:.*}}", answers.state)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()
