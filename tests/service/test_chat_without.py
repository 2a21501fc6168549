"""Chat: what the process does in a chat that cannot edit, has no threads, or tells nobody anything alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.chat.port import Post
from orchestrator.chat.process import Conversation
from policies.model.chat import CardNews, ChatAnswer, ChatCard, ChatMessage, ShownCard
from tests.patience import PATIENCE

LINK = "https://penstock.example.org/chat/link/secret"


class PlainRoom:
    """A chat that can say something in a room, and no more."""

    workspace = "chat.example.org"
    edits = threads = private = False
    silent = None

    def __init__(self) -> None:
        self.said = said("!penstock help")
        self.is_settled = asyncio.Event()
        self.shown: list[ChatCard] = []
        self.posts: list[Post] = []
        self.answers: list[ChatAnswer] = []

    async def listen(self) -> AsyncIterator[ChatMessage]:
        yield self.said
        await asyncio.Event().wait()

    def settled(self, said: ChatMessage) -> None:
        del said
        self.is_settled.set()

    def keeps_out(self, said: ChatMessage) -> str | None:
        del said
        return None

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        del said
        self.answers.append(answer)

    async def show(self, card: ChatCard) -> str:
        assert card.message is None, "nothing can be edited here"
        self.shown.append(card)
        return f"$p{len(self.shown)}"

    async def say(self, post: Post) -> None:
        assert post.thread is None, "there are no threads here"
        self.posts.append(post)

    async def close(self) -> None:
        return


class Answers:
    """An API with one card, and a link for whoever asks."""

    def __init__(self) -> None:
        self.card = ChatCard(
            fleet="edge",
            change="edge-1",
            channel="!room",
            transaction="t1",
            digest="a" * 64,
            title="",
            state="HELD",
            lines=(),
            news=(CardNews(transaction="n1", lines=("Done.",)),),
        )
        self.asked: list[ChatMessage] = []

    async def people(self, workspace: str) -> dict[str, str]:
        del workspace
        return {}

    async def cards(self, workspace: str) -> list[ChatCard]:
        del workspace
        return [self.card]

    async def shown(self, card: ShownCard) -> None:
        self.card = self.card.model_copy(update={"message": card.message})

    async def message(self, said: ChatMessage) -> ChatAnswer:
        self.asked.append(said)
        return ChatAnswer(lines=(LINK,), private=True)


def said(text: str, *, direct: bool = False) -> ChatMessage:
    return ChatMessage(
        workspace=PlainRoom.workspace,
        user="@ana",
        channel="!room",
        message="m1",
        text=text,
        direct=direct,
        at=datetime.now(UTC),
    )


@pytest.fixture
def room() -> PlainRoom:
    return PlainRoom()


def conversation(room: PlainRoom, api: Answers) -> Conversation:
    whole: Any = api  # as much of an API as it needs
    return Conversation(room, whole)


async def answered(room: PlainRoom, api: Answers, message: ChatMessage) -> None:
    """Have the process hear that message, and answer it."""
    room.said = message
    running = asyncio.create_task(conversation(room, api).run())
    try:
        await asyncio.wait_for(room.is_settled.wait(), PATIENCE)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_card_that_cannot_be_edited_is_posted_once_for_each_state(room: PlainRoom) -> None:
    api = Answers()
    talk = conversation(room, api)
    await talk.show_cards()
    await talk.show_cards()  # killed before it was noted
    api.card = api.card.model_copy(update={"digest": "b" * 64, "state": "DONE"})
    await talk.show_cards()
    assert [one.state for one in room.shown] == ["HELD", "HELD", "DONE"]
    first, repeat, changed = (one.transaction for one in room.shown)
    assert first == repeat != changed
    assert [post.lines for post in room.posts] == [("Done.",)] * 3


async def test_where_nobody_is_told_anything_alone_no_link_is_made_and_the_refusal_names_who_asked(
    room: PlainRoom,
) -> None:
    api = Answers()
    await answered(room, api, said("!penstock link"))
    assert api.asked == []
    (answer,) = room.answers
    assert answer.refused == "NotAllowed"
    assert answer.lines == ("@ana: nobody can be told anything alone in this room; say that to me alone.",)


async def test_nothing_private_is_said_in_a_room_whatever_was_asked(room: PlainRoom) -> None:
    await answered(room, Answers(), said("!penstock status edge"))
    (answer,) = room.answers
    assert not answer.private
    assert LINK not in "".join(answer.lines)


async def test_whoever_asks_alone_is_told_alone(room: PlainRoom) -> None:
    await answered(room, Answers(), said("!penstock link", direct=True))
    (answer,) = room.answers
    assert answer.lines == (LINK,)
