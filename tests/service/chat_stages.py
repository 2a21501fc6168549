"""Each kind of chat as the contract plays it: the adapter on a fake of its server, and what people do there.

A kind that is added gets a stage of its own here: `STAGES` names all, and the contract counts them.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from deploy.ports import free_port
from orchestrator.chat.door import MOST_BYTES
from orchestrator.chat.file import AnyChat, ChatFile, MatrixFile, SlackFile, read
from orchestrator.chat.port import Chat
from orchestrator.chat.process import chat_of
from policies.model.chat import ChatAnswer, ChatMessage
from tests.fakes import homeserver as matrix
from tests.fakes import slack
from tests.patience import PATIENCE, until

HIDDEN = "hidden-0123456789-hidden"
"""Stands in addresses and in what servers answer, and is as good as a token."""


@dataclass(frozen=True)
class Seen:
    """One post, as it stands in the chat now."""

    room: str
    text: str
    alone: bool
    """Whether only one account reads it."""
    calls: frozenset[str]
    """Whom it calls, whether penstock meant that or not."""
    transaction: str = ""


@dataclass(frozen=True)
class Request:
    """What comes in by HTTP, and with which answer it is to be met."""

    name: str
    body: bytes
    headers: dict[str, str]


class Stage(Protocol):
    """One kind of chat, with its server."""

    chat: Chat

    @property
    def sends(self) -> bool:
        """Return whether its server sends by itself, and does not wait until it is asked."""
        ...

    @property
    def kind(self) -> type[AnyChat]:
        """Return which kind it is of."""
        ...

    @property
    def room(self) -> str:
        """Return the room where penstock and everybody is."""
        ...

    @property
    def place(self) -> str | None:
        """Return where it takes requests by HTTP, None where it takes none."""
        ...

    def account(self, person: str) -> str:
        """Return the account of somebody, or of penstock itself (`penstock`)."""
        ...

    async def ready(self) -> None:
        """Wait until what is said is heard; somebody listens already."""
        ...

    async def say(self, *said: "Said") -> list[bool]:
        """Have it said; return of each whether the server counts it as taken."""
        ...

    async def garbage(self) -> None:
        """Have the server tell what is no message at all, in every shape."""
        ...

    def seen(self) -> list[Seen]:
        """Return what penstock posted."""
        ...

    def forged(self) -> list[Request]:
        """Return requests that must all be refused, each with an order in it."""
        ...

    def refuse(self, words: str) -> None:
        """Have the server refuse all from now on, with these words."""
        ...

    def lead_to(self, address: str) -> None:
        """Have the server send all to another address from now on."""
        ...


@dataclass(frozen=True)
class Said:
    """Something that is said; the same one again is a repeat."""

    person: str
    text: str
    number: int = 0
    alone: bool = False
    """To penstock alone."""
    by_program: bool = False
    """By a program that has an account."""


class Ears:
    """Whoever listens to a chat: one message when it asks for one."""

    def __init__(self, chat: Chat) -> None:
        self._heard = aiter(chat.listen())
        self._next: asyncio.Task[ChatMessage] = self._begin()

    def _begin(self) -> "asyncio.Task[ChatMessage]":
        async def one() -> ChatMessage:
            return await anext(self._heard)

        return asyncio.create_task(one())

    async def next(self) -> ChatMessage:
        found = await asyncio.wait_for(self._next, PATIENCE)
        self._next = self._begin()
        return found

    async def until(self, text: str) -> list[ChatMessage]:
        """Return all that is heard until somebody says this, without that."""
        found = list[ChatMessage]()
        while not (said := await self.next()).text.endswith(text):
            found.append(said)
        return found

    async def close(self) -> None:
        self._next.cancel()
        await asyncio.wait([self._next])


def _written(folder: Path, secrets: dict[str, str], rest: str) -> ChatFile:
    for name, said in secrets.items():
        (folder / name).write_text(said)
        (folder / name).chmod(0o600)
    path = folder / "chat.yaml"
    path.write_text(f"apiVersion: penstock/v1\nsocket: s\ntoken: t\nstate: state\n{rest}")
    return read(path)


class MatrixStage:
    """Matrix, which is asked and sends nothing by itself."""

    kind = MatrixFile
    sends = False
    room = matrix.ROOM
    place = None

    def __init__(self, fake: matrix.Homeserver, chat: Chat) -> None:
        self.chat = chat
        self._fake = fake

    def account(self, person: str) -> str:
        return f"@{person}:{matrix.NAME}"

    async def ready(self) -> None:
        await until(self._fake.listened.is_set)

    async def say(self, *said: Said) -> list[bool]:
        for one in said:
            room = await self._room_of_two(one.person) if one.alone else matrix.ROOM
            kind = "m.notice" if one.by_program else "m.text"
            text = one.text if one.alone else f"!penstock {one.text}"
            event = {"sender": self.account(one.person), "content": {"msgtype": kind, "body": text}}
            self._fake.tell(event | {"event_id": f"${one.number}{one.person}"}, room)
        return [True for _ in said]

    async def _room_of_two(self, person: str) -> str:
        asked = ChatMessage.model_validate(
            {
                "workspace": matrix.NAME,
                "user": self.account(person),
                "channel": matrix.ROOM,
                "message": uuid4().hex,
                "at": "2026-11-25T00:00:00Z",
            }
        )
        await self.chat.answer(asked, ChatAnswer(lines=("hello",), private=True))
        return next(str(post["room"]) for post in self._fake.posts if post["room"] != matrix.ROOM)

    async def garbage(self) -> None:
        ana = {"sender": self.account("ana")}
        order: dict[str, Any] = {"msgtype": "m.text", "body": "!penstock hold edge"}
        edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$q"}}
        told: list[Any] = [
            [],
            7,
            None,
            "hold edge",
            {},
            {"sender": 7, "content": order},
            ana | {"content": []},
            ana | {"content": {"msgtype": "m.text", "body": 7}},
            ana | {"origin_server_ts": "now", "content": order},
            ana | {"content": order | edit},
        ]
        for event in told:
            self._fake.tell(event)

    def seen(self) -> list[Seen]:
        edits = {}
        for post in self._fake.posts:
            related = post["content"].get("m.relates_to", {})
            if related.get("rel_type") == "m.replace":
                edits[related["event_id"]] = post["content"]["m.new_content"]
        return [
            self._seen(post, edits.get(post["event"], post["content"]))
            for post in self._fake.posts
            if post["content"].get("m.relates_to", {}).get("rel_type") != "m.replace"
        ]

    @staticmethod
    def _seen(post: dict[str, Any], content: dict[str, Any]) -> Seen:
        named = content.get("m.mentions")
        if named is None:  # as clients did before there was such a key: whoever is named is called
            called = {*re.findall(r"@\S+", content["body"])}
        else:
            called = {*named.get("user_ids", ())} | ({"@room"} if named.get("room") else set())
        called |= {*re.findall(r"<(?!br>)[^>]*>", content.get("formatted_body", ""))}  # markup, links with it
        alone = post["room"] != matrix.ROOM
        return Seen(post["room"], content["body"], alone, frozenset(called), post["transaction"])

    def forged(self) -> list[Request]:
        return []

    def refuse(self, words: str) -> None:
        self._fake.refuses = words

    def lead_to(self, address: str) -> None:
        self._fake.leads_to = address


class SlackStage:
    """Slack, which sends by HTTP or through a connection of Socket Mode."""

    kind = SlackFile
    sends = True
    room = slack.CHANNEL

    def __init__(self, fake: slack.Slack, chat: Chat, place: str | None) -> None:
        self.chat = chat
        self.place = place
        self._fake = fake

    def account(self, person: str) -> str:
        return slack.BOT if person == "penstock" else f"U0{person.upper()}"

    async def ready(self) -> None:
        if self.place is None:
            await until(lambda: bool(self._fake.sockets))
            return
        port = int(self.place.split(":")[2].partition("/")[0])
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return

    def payload(self, one: Said) -> slack.Json:
        """Return the event of it, which is the same for a repeat."""
        more: slack.Json = {"ts": f"{int(time.time())}.{one.number:06}"}
        if one.by_program:
            more["bot_id"] = "B0OTHER"
        make = slack.told_alone if one.alone else slack.mentioned
        return slack.event(make(self.account(one.person), one.text, **more))

    async def say(self, *said: Said) -> list[bool]:
        return await self.send([self.payload(one) for one in said])

    async def send(self, payloads: Sequence[slack.Json]) -> list[bool]:
        if self.place is not None:
            signed = [slack.signed(payload) for payload in payloads]
            return [await slack.sent(self.place, *one) == 200 for one in signed]
        names = [await self._fake.envelope(self._kind_of(one), one) for one in payloads]
        for _ in range(2):  # what comes after all of it is acknowledged in any case
            last = await self._fake.envelope("events_api", slack.event({"type": "channel_rename"}))
            await until(lambda: last in self._fake.acknowledged)  # noqa: B023 - it is over before the next
        return [name in self._fake.acknowledged for name in names]

    @staticmethod
    def _kind_of(payload: slack.Json) -> str:
        known = {"event_callback": "events_api", "block_actions": "interactive"}
        return known.get(str(payload.get("type")), "slash_commands")

    async def garbage(self) -> None:
        ana = slack.mentioned("U0ANA", "hold edge")
        events: list[Any] = [
            7,
            [],
            {},
            {"type": "app_mention"},
            ana | {"user": 7},
            ana | {"ts": "now"},
            ana | {"text": []},
            ana | {"channel": None},
            ana | {"type": "message", "channel_type": "im", "subtype": "message_changed"},
        ]
        payloads = [slack.event(event) for event in events]
        payloads += [slack.event(ana, team="T0OTHER"), {"command": "/penstock"}, {"command": "/other"}]
        payloads += [{"type": "block_actions", "actions": []}, {"type": "block_actions", "actions": 7}]
        await self.send(payloads)
        if self.place is None:
            for raw in ("[]", "7", "{", "null", '{"type": "events_api", "envelope_id": 7, "payload": []}'):
                await self._fake.sockets[-1].send_str(raw)
            return
        for raw_body in (b"[]", b"7", b"null", b"{", b"\xff\xfe", b"", b"payload=[]", b"payload=%ff"):
            for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
                await slack.sent(self.place, *slack.signed_body(raw_body, kind))

    def seen(self) -> list[Seen]:
        found = [self._seen(post, alone=post["channel"] == slack.ALONE) for post in self._fake.posts]
        return found + [self._seen(post, alone=True) for post in self._fake.private]

    @staticmethod
    def _seen(post: slack.Json, *, alone: bool) -> Seen:
        markup = [post["text"]]
        for block in post.get("blocks", ()):
            text = block.get("text", {})
            markup += [text["text"]] if text.get("type") == "mrkdwn" else []
        called = {one for said in markup for one in re.findall(r"<[^>]*>", said)}
        if post.get("link_names") or post.get("parse") == "full":
            called |= {*re.findall(r"@\S+", post["text"])}
        known = {one.removeprefix("<@").removesuffix(">") for one in called}
        named = (post.get("metadata") or {}).get("event_payload", {}).get("transaction", "")
        plain = post["text"].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return Seen(post["channel"], plain, alone, frozenset(known), named)

    def forged(self) -> list[Request]:
        if self.place is None:
            return []
        order = slack.event(slack.mentioned("U0ANA", "hold edge"))
        body, headers = slack.signed(order)
        unsigned = {"Content-Type": "application/json"}
        now = headers["X-Slack-Request-Timestamp"]
        other = {"X-Slack-Signature": "v0=\u00e9"}
        return [
            Request("no signature at all", body, unsigned),
            Request("a time without a signature", body, unsigned | {"X-Slack-Request-Timestamp": now}),
            Request("an empty signature", body, headers | {"X-Slack-Signature": ""}),
            Request("a signature in other letters", body, headers | other),
            Request("signed with another secret", *slack.signed(order, secret="somebody else's")),
            Request("another body than was signed", body.replace(b"edge", b"core"), headers),
            Request("another time than was signed", body, headers | {"X-Slack-Request-Timestamp": "1"}),
            Request("signed six minutes ago", *slack.signed(order, at=time.time() - 360)),
            Request("signed in six minutes", *slack.signed(order, at=time.time() + 360)),
            Request("too large", *slack.signed(order | {"more": "x" * MOST_BYTES})),
        ]

    def refuse(self, words: str) -> None:
        self._fake.refuses = words

    def lead_to(self, address: str) -> None:
        self._fake.leads_to = address


@asynccontextmanager
async def matrix_stage(folder: Path, prefix: str = "") -> AsyncIterator[Stage]:
    """Have Matrix, with that before every path of its server's address."""
    async with matrix.homeserver() as fake:
        file = _written(
            folder,
            {"account": f"syt-{HIDDEN}"},
            f"matrix:\n  homeserver: {fake.url}{prefix}\n  workspace: {matrix.NAME}\n"
            f"  user: '{matrix.BOT}'\n  token: account\n  rooms: ['{matrix.ROOM}']\n",
        )
        chat = chat_of(file)
        try:
            yield MatrixStage(fake, chat)
        finally:
            await chat.close()


@asynccontextmanager
async def _slack_stage(folder: Path, prefix: str, way: str, place: str | None) -> AsyncIterator[Stage]:
    async with slack.slack() as fake:
        secrets = {"bot": f"xoxb-{HIDDEN}", "app": slack.APP_TOKEN, "signing": slack.SECRET}
        rest = f"  bot_token: bot\n  api: {fake.url}{prefix}/api/\n  {way}\n"
        chat = chat_of(_written(folder, secrets, f"slack:\n  workspace: {slack.TEAM}\n{rest}"))
        try:
            yield SlackStage(fake, chat, place)
        finally:
            await chat.close()


@asynccontextmanager
async def slack_by_http(folder: Path, prefix: str = "") -> AsyncIterator[Stage]:
    """Have Slack send signed requests."""
    port = free_port()
    way, place = f"signing_secret: signing\n  listen: 127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    async with _slack_stage(folder, prefix, way, f"{place}/slack/events") as stage:
        yield stage


@asynccontextmanager
async def slack_by_socket(folder: Path, prefix: str = "") -> AsyncIterator[Stage]:
    """Have Slack send through a connection."""
    async with _slack_stage(folder, prefix, "app_token: app", None) as stage:
        yield stage


SECRETS = {"matrix": ["account"], "slack by HTTP": ["bot", "signing"], "slack by socket": ["bot", "app"]}
"""Names of files that hold something secret."""

STAGES: dict[str, Callable[..., AbstractAsyncContextManager[Stage]]] = {
    "matrix": matrix_stage,
    "slack by HTTP": slack_by_http,
    "slack by socket": slack_by_socket,
}
