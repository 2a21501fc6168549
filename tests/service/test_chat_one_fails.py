"""Chat: a card or a notice that fails keeps no other from being shown, and ends nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.chat import process
from orchestrator.chat.asking import ApiRefuses
from orchestrator.chat.port import ChatAway, Post
from orchestrator.chat.process import Conversation
from policies.model.chat import CardNews, ChatAnswer, ChatCard, ChatMessage, ChatPlaces, ShownCard
from policies.model.notice import Delivery, Notice, NoticeLevel
from tests.patience import until

FAILS: list[Exception] = [ChatAway("no room"), ValueError("what nobody thought of")]


def card(number: int) -> ChatCard:
    return ChatCard(
        fleet="edge",
        change=f"edge-{number}",
        channel="!room",
        transaction=f"t{number}",
        digest=f"on-{number}",
        title="",
        state="",
        lines=(),
        news=(CardNews(transaction=f"n{number}", lines=("Done.",)),),
    )


def delivery(number: int) -> Delivery:
    notice = Notice(
        key=f"edge-{number}/held/1",
        fleet=f"edge-{number}",  # a room that took nothing takes nothing more of the same fleet for now
        state="held",
        level=NoticeLevel.INFO,
        headline=str(number),
        at=datetime.now(UTC),
    )
    return Delivery(sink="chat", notice=notice)


def said(number: int) -> ChatMessage:
    return ChatMessage(
        workspace=Room.workspace,
        user=f"@ana-{number}",
        channel="!room",
        message=f"m{number}",
        text="!penstock status edge",
        at=datetime.now(UTC),
    )


class Room:
    """A chat in which the first of everything fails."""

    workspace = "chat.example.org"
    edits = threads = private = True
    silent = None

    def __init__(self, fails: Exception) -> None:
        self.fails = fails
        self.posts: list[str] = []
        self.listened = 0
        self.settled_of: list[str] = []
        self.answered: list[str] = []

    async def listen(self) -> AsyncIterator[ChatMessage]:
        self.listened += 1
        if self.listened == 1:
            raise self.fails
        for number in range(4):
            yield said(number)
        await asyncio.Event().wait()

    def settled(self, said: ChatMessage) -> None:
        self.settled_of.append(said.message)
        if said.message == "m0":
            raise OSError("no space left")

    def keeps_out(self, said: ChatMessage) -> str | None:
        raise AssertionError(said)

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        if said.message == "m1":
            raise self.fails
        self.answered.append(said.message)

    async def show(self, card: ChatCard) -> str:
        if card.change == "edge-1":
            raise self.fails
        return f"${card.change}"

    async def say(self, post: Post) -> None:
        if post.lines[0] == "1":
            raise self.fails
        self.posts.append(f"{post.transaction} {post.thread}")

    async def close(self) -> None:
        return


class Answers:
    """An API that refuses to note the second card."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.had: list[str] = []

    async def message(self, said: ChatMessage) -> ChatAnswer:
        return ChatAnswer(lines=(said.message,))

    async def people(self, workspace: str) -> dict[str, str]:
        del workspace
        return {}

    async def cards(self, workspace: str) -> list[ChatCard]:
        del workspace
        return [card(number) for number in (1, 2, 3)]

    async def shown(self, card: ShownCard) -> None:
        if card.change == "edge-2":
            raise ApiRefuses("not that one")
        self.noted.append(card.change)

    async def places(self, workspace: str, fleet: str, change: str | None) -> ChatPlaces:
        del workspace, fleet, change
        return ChatPlaces(rooms={"!room": None})

    async def notices(self, sink: str) -> list[Delivery]:
        del sink
        return [delivery(number) for number in (1, 2, 3)]

    async def delivered(self, sink: str, keys: list[str]) -> None:
        del sink
        self.had += keys


@pytest.mark.parametrize("fails", FAILS, ids=["away", "unforeseen"])
async def test_each_card_and_notice_is_shown_whatever_becomes_of_another_and_it_goes_on(
    fails: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CARDS_SECONDS", 0.01)
    monkeypatch.setattr(process, "NOTICES_SECONDS", 0.01)
    room, api = Room(fails), Answers()
    talk: Any = Conversation(room, api, "chat")  # type: ignore[arg-type]  # as much of an API as it needs
    running = asyncio.create_task(talk.run())
    try:
        await until(lambda: api.noted.count("edge-3") > 1 and api.had.count("edge-3/held/1") > 1)
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert {*api.noted} == {"edge-3"}
    assert {*api.had} == {"edge-2/held/1", "edge-3/held/1"}
    assert "n3 $edge-3" in room.posts  # in the thread of its card, before it counts as shown


@pytest.mark.parametrize("fails", FAILS, ids=["away", "unforeseen"])
async def test_listening_begins_again_and_each_is_answered_whatever_the_chat_raises(
    fails: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "AGAIN_SECONDS", 0.01)
    room, api = Room(fails), Answers()
    talk: Any = Conversation(room, api)  # type: ignore[arg-type]  # as much of an API as it needs
    running = asyncio.create_task(talk.run())
    try:
        await until(lambda: {*room.settled_of} == {"m0", "m1", "m2", "m3"})
        await until(lambda: {*room.answered} == {"m0", "m2", "m3"})
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert room.listened == 2
