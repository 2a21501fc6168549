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
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nio import (
    AsyncClientConfig,
    InviteMemberEvent,
    MegolmEvent,
    RoomCreateResponse,
    RoomEncryptionEvent,
    RoomGetStateEventResponse,
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
MOST_LINES = 100
ENCRYPTED = (
    "This room is encrypted, and penstock cannot read it. Use a room without encryption, to which only those "
    "come who look after the fleet."
)
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
        self._told: set[str] = set()
        self._unsettled: dict[str, str] = {}
        """Messages that are being answered, with up to where it had listened before them."""

    @property
    def workspace(self) -> str:
        """The homeserver's name."""
        return self._file.workspace

    async def listen(self) -> AsyncIterator[ChatMessage]:
        """Yield what is said in rooms; where it has listened up to is kept once all before was settled.

        What was said before the first start is nobody's order any more.
        """
        for room in self._file.rooms:
            await self._joined(room)
        while True:
            first = self._since is None
            answer = await self._asked(
                self._client.sync(0 if first else SYNC_MILLISECONDS, since=self._since, full_state=False)
            )
            if not isinstance(answer, SyncResponse):
                raise ChatAway(f"{self.workspace} tells nothing: {_refusal(answer)}")
            for room, invited in answer.rooms.invite.items():
                await self._refuse_invitation(room, invited.invite_state)
            for room, told in answer.rooms.join.items():
                if told.timeline.limited and not first:
                    _log.warning("more was said in %s than can be caught up; say it again", room)
                for event in () if first else told.timeline.events:
                    if isinstance(event, MegolmEvent | RoomEncryptionEvent):
                        await self._tell_encrypted(room)
                    said = self._read(room, event)
                    if said is not None and said.message not in self._unsettled:
                        self._unsettled[said.message] = self._since or answer.next_batch
                        yield said
            self._since = answer.next_batch
            self._keep()

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

    async def _joined(self, room: str) -> None:
        answer = await self._asked(self._client.join(room))
        if getattr(answer, "room_id", None) is None:
            why = _refusal(answer)
            raise ChatAway(f"{self._file.user} cannot join {room}: {why}; invite it there")
        state = await self._asked(self._client.room_get_state_event(room, "m.room.encryption"))
        if isinstance(state, RoomGetStateEventResponse):
            await self._tell_encrypted(room)

    async def _refuse_invitation(self, room: str, state: Sequence[object]) -> None:
        """Leave a room that nobody who set this up has named."""
        if any(isinstance(event, InviteMemberEvent) for event in state) and room not in self._file.rooms:
            _log.warning("an invitation to %s is refused: chat.yaml does not name it under rooms", room)
            await self._asked(self._client.room_leave(room))

    async def _tell_encrypted(self, room: str) -> None:
        if room not in self._told:
            self._told.add(room)
            await self.say(Post(room, [ENCRYPTED], _name("encrypted", room)))

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
        since = next(iter(self._unsettled.values()), self._since)
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
