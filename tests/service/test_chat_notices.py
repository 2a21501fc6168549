"""Notices in a chat: what wakes somebody waits for no other change, nor for a room that takes nothing."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest

from orchestrator.chat.asking import MOST_NOTICES, Api
from orchestrator.chat.file import ChatFile
from orchestrator.chat.port import ChatAway, Post
from orchestrator.chat.telling import LONGEST_PAUSE, PAGE_WITHIN, Telling
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.model.chat import ChatAnswer, ChatCard, ChatMessage
from policies.model.notice import Notice, NoticeLevel, Occasion
from tests.service.chat_rooms import WORKSPACE, token, with_chat

EDGE, CORE = "!edge:chat.example.org", "!core:chat.example.org"


class Rooms:
    """A chat that keeps what is said, and whose rooms may take nothing."""

    workspace = WORKSPACE
    edits = threads = private = True
    silent = None

    def __init__(self) -> None:
        self.said: list[Post] = []
        self.asked: list[str] = []
        self.closed: set[str] = set()

    async def say(self, post: Post) -> None:
        self.asked.append(post.channel)
        if post.channel in self.closed:
            raise ChatAway(f"{post.channel} takes nothing")
        self.said.append(post)

    async def listen(self) -> AsyncIterator[ChatMessage]:
        for one in tuple[ChatMessage, ...]():
            yield one

    def settled(self, said: ChatMessage) -> None:
        """Keep nothing."""

    def keeps_out(self, said: ChatMessage) -> str | None:
        """Keep nobody out."""

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Answer nothing."""

    async def show(self, card: ChatCard) -> str:
        return card.change

    async def close(self) -> None:
        """Nothing is open."""


class Stage:
    """Two fleets with a room each, their notices, and who tells them."""

    def __init__(self, ledger: Ledger, api: Api) -> None:
        self.ledger, self.rooms, self.now = ledger, Rooms(), 1_000.0
        self.numbers = count()
        self.telling = Telling(self.rooms, api, "chat", lambda: self.now)

    def add(self, fleet: str, change: str | None, level: NoticeLevel, age: timedelta) -> None:
        at = datetime.now(UTC) - age
        key = f"{change or fleet}/{level}/{next(self.numbers)}"
        notice = Notice(key=key, fleet=fleet, change=change, state="held", level=level, headline=key, at=at)
        goes = {"chat": (Occasion.SAID, at)}
        self.ledger.add_notices([Addressed(notice, change or fleet, waits=False, sinks=goes)])

    async def tell(self, *, later: float = 0) -> list[str]:
        """Tell what is due, so many seconds later; return where something was said."""
        self.now += later
        before = len(self.rooms.said)
        await self.telling.tell()
        return [post.channel for post in self.rooms.said[before:]]


@pytest.fixture
async def stage(api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Stage]:
    del api  # it answers for as long as the fixture stands
    with_chat(tmp_path, room=EDGE)
    core = tmp_path / "fleets" / "core.yaml"
    core.write_text(
        core.read_text() + f"chat:\n  channels: [{{workspace: {WORKSPACE}, channel: '{CORE}'}}]\n"
    )
    file = ChatFile.model_validate(
        {
            "apiVersion": "penstock/v1",
            "socket": tmp_path / "penstock.sock",
            "token": tmp_path / "token",
            "state": tmp_path / "chat",
            "slack": {"workspace": WORKSPACE, "bot_token": "bot", "app_token": "app"},
        }
    )
    asking = Api(file, token(ledger))
    yield Stage(ledger, asking)
    await asking.close()


async def test_a_page_waits_for_no_notices_of_changes_whose_card_never_comes(stage: Stage) -> None:
    for number in range(40):
        stage.add("edge", f"edge-{number}", NoticeLevel.INFO, timedelta(seconds=60))
    for _ in range(MOST_NOTICES):
        stage.add("edge", "edge-1", NoticeLevel.NEEDS_YOU, timedelta(seconds=60))
    stage.add("core", "core-1", NoticeLevel.PAGE, PAGE_WITHIN)
    assert await stage.tell() == [CORE]


async def test_much_of_one_change_hides_no_other(stage: Stage) -> None:
    for _ in range(MOST_NOTICES + 5):
        stage.add("edge", "edge-1", NoticeLevel.INFO, timedelta(seconds=60))
    stage.add("core", None, NoticeLevel.INFO, timedelta(0))
    assert await stage.tell() == [CORE]


async def test_a_room_that_takes_nothing_delays_no_other_and_is_asked_ever_more_seldom(stage: Stage) -> None:
    stage.rooms.closed = {EDGE}
    stage.add("edge", None, NoticeLevel.PAGE, timedelta(0))
    stage.add("core", None, NoticeLevel.INFO, timedelta(0))
    assert await stage.tell() == [CORE]
    for _ in range(20):
        stage.add("core", None, NoticeLevel.PAGE, timedelta(0))
        assert await stage.tell(later=1) == [CORE]
    assert 3 <= stage.rooms.asked.count(EDGE) <= 5
    stage.rooms.closed = set()
    assert EDGE in await stage.tell(later=LONGEST_PAUSE)
    assert stage.ledger.outbox("chat", 10) == ()


async def test_a_room_that_is_away_is_not_asked_for_each_of_a_hundred_changes(stage: Stage) -> None:
    stage.rooms.closed = {EDGE}
    for number in range(100):
        stage.add("edge", f"edge-{number}", NoticeLevel.PAGE, timedelta(minutes=5))
    stage.add("core", None, NoticeLevel.INFO, timedelta(0))
    found = [await stage.tell(later=2) for _ in range(5)]
    assert [CORE] in found
    assert stage.rooms.asked.count(EDGE) == 5


async def test_a_page_waits_for_its_own_card_for_seconds_only(stage: Stage) -> None:
    stage.add("edge", "edge-1", NoticeLevel.PAGE, timedelta(0))
    assert await stage.tell() == []
    stage.add("edge", "edge-2", NoticeLevel.PAGE, PAGE_WITHIN)
    stage.add("edge", "edge-3", NoticeLevel.INFO, PAGE_WITHIN)
    assert await stage.tell() == [EDGE]


async def test_what_all_fleets_need_is_told_in_the_rooms_of_every_fleet(stage: Stage) -> None:
    stage.add("installation", None, NoticeLevel.PAGE, timedelta(0))
    assert sorted(await stage.tell()) == sorted([CORE, EDGE])
    assert await stage.tell(later=LONGEST_PAUSE) == []
