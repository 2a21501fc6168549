"""Matrix: rooms of one homeserver, by the client-server API (Matrix 1.7 or later).

The homeserver says who sent an event. A post carries a transaction id of its own, which the homeserver
takes once for each access token: what is repeated after a kill is no second post. `m.mentions` stands in
every post, so that no text that somebody wrote calls anybody (section "User and room mentions").
"""

import asyncio
import hashlib
import html
import json
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nio import (
    AsyncClientConfig,
    MegolmEvent,
    RoomCreateResponse,
    RoomEncryptionEvent,
    RoomGetStateEventResponse,
    RoomMemberEvent,
    RoomMessagesResponse,
    RoomMessageText,
    RoomSendResponse,
    SyncResponse,
)

from orchestrator.chat.file import MatrixFile
from orchestrator.chat.matrix_client import ReadingClient
from orchestrator.chat.port import ChatAway, Post, card_lines, unanswered
from policies.chat.grammar import addressed
from policies.model.chat import LONGEST_SAID, ChatAnswer, ChatCard, ChatMessage

SYNC_MILLISECONDS = 20_000
SEND_SECONDS = 15
ROOM_SECONDS = 30.0
"""How often it tries again to join a room that it is not in."""

AT_ONCE = 100
"""Events of a room in one answer of the homeserver."""

MOST_PAGES = 20
"""How often the homeserver is asked for what one answer did not hold, before the rest is left out."""

PAGE_SECONDS = 1.0
"""How long until it is asked again where it did not answer."""

MOST_BESIDE = 50
"""Tasks beside listening."""

READ = {"types": ["m.room.message", "m.room.encrypted", "m.room.encryption", "m.room.member"]}
TOLD = {"room": {"timeline": {"limit": AT_ONCE, **READ}}}
MOST_LINES = 100
ENCRYPTED = (
    "This room is encrypted, and penstock cannot read it. Use a room without encryption, to which only those "
    "come who look after the fleet."
)
MORE_WAS_SAID = "more was said in %s than can be caught up; say it again"
REFUSAL = re.compile(r"M_[A-Z_]{1,60}")
"""What the protocol's own words for a refusal look like; others are not repeated."""

_log = logging.getLogger(__name__)


class Matrix:
    """One account of a homeserver."""

    edits = threads = private = True

    def __init__(self, file: MatrixFile, token: str, state: Path) -> None:
        self._file = file
        config = AsyncClientConfig(
            max_limit_exceeded=3, max_timeouts=2, request_timeout=SEND_SECONDS, encryption_enabled=False
        )
        self._client = ReadingClient(file.homeserver, file.user, config=config)
        self._client.access_token = token
        self._client.user_id = file.user
        self._kept = state / "matrix.json"
        known = _read(self._kept)
        self._since: str | None = known.get("since")
        self._direct: dict[str, str] = known.get("direct", {})
        self._silent: dict[str, str] = {}
        self._tried = False
        """Whether each room was tried once."""
        self._told: set[str] = set()
        self._joined: set[str] = set()
        self._looks = 0
        self._unsettled: dict[str, tuple[int, str]] = {}
        """What is not settled: in which look it came, and up to where that had been listened before."""
        self._heard = asyncio.Queue[ChatMessage | Exception]()
        self._beside: set[asyncio.Task[None]] = set()
        """What goes on beside listening: no message waits for it."""

    @property
    def workspace(self) -> str:
        """The homeserver's name."""
        return self._file.workspace

    @property
    def silent(self) -> Mapping[str, str] | None:
        """Return the rooms of chat.yaml that penstock cannot join or read; None before each was tried."""
        return {**self._silent} if self._tried else None

    async def listen(self) -> AsyncIterator[ChatMessage]:
        """Yield what is said in rooms; where it has listened up to is kept once all before was settled.

        What was said before the first start is nobody's order any more.
        """
        tasks = [asyncio.create_task(one) for one in (self._keep_looking(), self._keep_joining())]
        try:
            while not isinstance(found := await self._heard.get(), Exception):
                yield found
            raise found
        finally:
            for task in tasks:
                task.cancel()

    async def _keep_looking(self) -> None:
        try:
            while True:
                await self._look()
        except Exception as error:  # noqa: BLE001 - whoever listens raises it
            self._heard.put_nowait(error)

    async def _look(self) -> None:
        """Ask what was said since the last look; nothing else is waited for, whatever strangers have done."""
        since = self._since
        timeout = SYNC_MILLISECONDS if since is not None else 0
        answer = await self._asked(self._client.sync(timeout, TOLD, since=since, full_state=False))
        if not isinstance(answer, SyncResponse):
            raise ChatAway(f"{self.workspace} tells nothing: {_refusal(answer)}")
        self._joined -= answer.rooms.leave.keys()
        if since is not None:
            self._looks += 1
            before = (self._looks, since)
            for room, told in answer.rooms.join.items():
                if self._hear(room, told.timeline.events, before) or not told.timeline.limited:
                    continue
                if len(self._beside) >= MOST_BESIDE:
                    _log.warning(MORE_WAS_SAID, room)
                    continue
                self._unsettled[_name("gap", room, since)] = before
                self._aside(self._catch_up(room, told.timeline.prev_batch, before))
        self._since = answer.next_batch
        self._keep()

    def _hear(self, room: str, events: Sequence[object], before: tuple[int, str]) -> bool:
        """Hand on what is said in these events; return whether penstock has joined the room in one of them.

        What was said there before is nobody's order.
        """
        own = [number for number, event in enumerate(events) if self._is_own_joining(event)]
        for event in events[own[-1] :] if own else events:
            if isinstance(event, RoomEncryptionEvent):
                self._joined.discard(room)  # whether it is encrypted by now is asked when it is joined
            if isinstance(event, MegolmEvent):
                self._tell_encrypted(room)
            said = self._read(room, event)
            if said is not None and said.message not in self._unsettled:
                self._unsettled[said.message] = before
                self._heard.put_nowait(said)
        return bool(own)

    def _is_own_joining(self, event: object) -> bool:
        if not isinstance(event, RoomMemberEvent) or event.state_key != self._file.user:
            return False
        return bool(event.membership == "join" != event.prev_membership)

    async def _catch_up(self, room: str, start: str, before: tuple[int, str]) -> None:
        """Hear what was said since the last look and was more than its answer holds, the newest first."""
        since, over = before[1], False
        for _ in range(MOST_PAGES):
            try:
                answer = await self._asked(
                    self._client.room_messages(room, start, since, limit=AT_ONCE, message_filter=READ)
                )
            except ChatAway:
                answer = None
            if not isinstance(answer, RoomMessagesResponse):
                await asyncio.sleep(PAGE_SECONDS)
                continue
            over = self._hear(room, answer.chunk[::-1], before) or not answer.chunk or answer.end is None
            if over:
                break
            start = answer.end
        if not over:
            _log.warning(MORE_WAS_SAID, room)
        self._unsettled.pop(_name("gap", room, since), None)
        self._keep()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside listening; what fails there is logged and costs nothing else."""

        async def guarded() -> None:
            try:
                await work
            except ChatAway as away:
                _log.warning("%s", away)
            except Exception:  # noqa: BLE001 - what nobody thought of takes no order with it
                _log.exception("what goes on beside listening has failed")

        task = asyncio.create_task(guarded())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def settled(self, said: ChatMessage) -> None:
        """Take note that the message need not come again after a kill."""
        self._unsettled.pop(said.message, None)
        self._keep()

    def keeps_out(self, said: ChatMessage) -> str | None:
        """Keep accounts of other homeservers from being linked, unless chat.yaml lets them."""
        if self._file.other_homeservers or said.user.partition(":")[2] == self.workspace:
            return None
        return f"only accounts of {self.workspace} are linked here (matrix.other_homeservers in chat.yaml)."

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Say the answer in the message's thread or room; what is private in a room of two."""
        transaction = _name("answer", said.channel, said.message)
        if not answer.private or said.direct:
            await self.say(Post(said.channel, answer.lines, transaction, thread=said.thread))
            return
        room = await self._room_of_two(said.user)
        await self.say(Post(room, answer.lines, transaction))
        told = f"{said.name or said.user}: I have told you alone, in a room of us two."
        await self.say(Post(said.channel, [told], f"{transaction}p", thread=said.thread))

    async def show(self, card: ChatCard) -> str:
        """Post a card, or replace what it shows.

        Raises:
            ChatAway: The room is not listened to yet: whoever answers a card that is seen has to be heard.
        """
        if self._since is None:
            raise ChatAway(f"{self.workspace} is not listened to yet")
        lines = card_lines(card)
        content = _content(lines)
        if card.message is None:
            return await self._sent(card.channel, content, card.transaction)
        edit: dict[str, Any] = {
            **_content(["* " + lines[0], *lines[1:]]),
            "m.new_content": content,
            "m.relates_to": {"rel_type": "m.replace", "event_id": card.message},
        }
        await self._sent(card.channel, edit, card.edit)
        return card.message

    async def say(self, post: Post) -> None:
        """Say something in a room, or in the thread of a card there."""
        content = _content(post.lines, post.mentions)
        if post.thread is not None:
            content["m.relates_to"] = {
                "rel_type": "m.thread",
                "event_id": post.thread,
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": post.thread},
            }
        await self._sent(post.channel, content, post.transaction)

    async def close(self) -> None:
        """Let go of every connection."""
        for task in self._beside:
            task.cancel()
        await self._client.close()

    def _read(self, room: str, event: object) -> ChatMessage | None:
        """Return what was said to penstock; what anybody in a room can write must end no process."""
        try:
            return self._message(room, event)
        except Exception:  # noqa: BLE001 - whatever a stranger's homeserver lets through
            _log.exception("a message in %s cannot be read and is left out", room)
            return None

    def _message(self, room: str, event: object) -> ChatMessage | None:
        """Return what was said to penstock; None for what is for others, is an edit, or is its own."""
        if not isinstance(event, RoomMessageText) or event.sender == self._file.user:
            return None
        related = event.source.get("content", {}).get("m.relates_to")
        relation = related if isinstance(related, dict) else {}
        direct = room in self._direct.values()
        if relation.get("rel_type") == "m.replace" or (addressed(event.body) is None and not direct):
            return None
        known = self._client.rooms.get(room)
        text = event.body if addressed(event.body) is not None else f"!penstock {event.body}"
        return ChatMessage(
            workspace=self.workspace,
            user=event.sender,
            name=((known.user_name(event.sender) if known else None) or event.sender)[:255],
            channel=room,
            direct=direct,
            message=event.event_id,
            thread=relation.get("event_id") if relation.get("rel_type") == "m.thread" else None,
            text=text[:LONGEST_SAID],
            at=datetime.fromtimestamp(event.server_timestamp / 1000, UTC),
        )

    async def _keep_joining(self) -> None:
        """Be in every room of the file; one that penstock cannot join costs no other."""
        while True:
            await asyncio.gather(*(self._join(one) for one in self._file.rooms if one not in self._joined))
            self._tried = True
            await asyncio.sleep(ROOM_SECONDS)

    async def _join(self, room: str) -> None:
        try:
            answer = await self._asked(self._client.join(room))
            state = await self._asked(self._client.room_get_state_event(room, "m.room.encryption"))
        except ChatAway as away:
            self._note_silent(room, str(away))
            return
        if getattr(answer, "room_id", None) is None:
            why = f"{self._file.user} cannot join {room}: {_refusal(answer)}; invite it there"
            self._note_silent(room, why)
            return
        self._joined.add(room)
        if isinstance(state, RoomGetStateEventResponse):
            self._note_silent(room, f"{room} is encrypted, and penstock cannot read it")
            self._tell_encrypted(room)
        else:
            self._silent.pop(room, None)

    def _note_silent(self, room: str, why: str) -> None:
        if self._silent.get(room) != why:
            _log.warning("%s", why)
        self._silent[room] = why

    def _tell_encrypted(self, room: str) -> None:
        if room not in self._told:
            self._told.add(room)
            self._aside(self.say(Post(room, [ENCRYPTED], _name("encrypted", room))))

    async def _room_of_two(self, user: str) -> str:
        """Return the room where penstock and this account are alone, made when it is first needed."""
        if user not in self._direct:
            answer = await self._asked(
                self._client.room_create(
                    is_direct=True, invite=[user], name="penstock", federate=self._file.other_homeservers
                )
            )
            if not isinstance(answer, RoomCreateResponse):
                raise ChatAway(f"no room of two with {user}: {_refusal(answer)}")
            self._direct[user] = answer.room_id
            self._keep()
        return self._direct[user]

    async def _sent(self, room: str, content: Mapping[str, Any], transaction: str) -> str:
        answer = await self._asked(self._client.room_send(room, "m.room.message", dict(content), transaction))
        if not isinstance(answer, RoomSendResponse):
            raise ChatAway(f"nothing can be said in {room}: {_refusal(answer)}")
        return str(answer.event_id)

    async def _asked(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(SYNC_MILLISECONDS / 1000 + SEND_SECONDS):
                return await call
        except Exception as error:
            raise unanswered(self.workspace, error) from error

    def _keep(self) -> None:
        since = min(self._unsettled.values())[1] if self._unsettled else self._since
        draft = self._kept.with_suffix(".new")
        draft.write_text(json.dumps({"since": since, "direct": self._direct}))
        draft.chmod(0o600)
        draft.replace(self._kept)


def _content(lines: Sequence[str], mentions: Sequence[str] = ()) -> dict[str, Any]:
    """Return a post: plain text, and the same escaped for those that show HTML."""
    shown = [*(lines[:MOST_LINES]), *mentions]
    return {
        "msgtype": "m.notice" if not mentions else "m.text",
        "body": "\n".join(shown),
        "format": "org.matrix.custom.html",
        "formatted_body": "<br>".join(html.escape(line) for line in shown),
        "m.mentions": {"user_ids": [*mentions]} if mentions else {},
    }


def _refusal(answer: object) -> str:
    """Return why a homeserver refuses, in the protocol's own words alone."""
    said = str(getattr(answer, "status_code", ""))
    return said if REFUSAL.fullmatch(said) else "for a reason that cannot be read"


def _name(*of: str) -> str:
    return hashlib.sha256("\0".join(of).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found
