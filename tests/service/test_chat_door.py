"""The door of a chat: unsigned requests that are slow keep no signed request out."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from deploy.ports import free_port
from orchestrator.chat import door
from orchestrator.chat.door import AT_ONCE, Answer, Door, Sent
from tests.patience import PATIENCE

HALF = {
    "a header": b"POST /slack/events HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    "a body": b"POST /slack/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
    "nothing": b"",
}
"""How far the requests of strangers have come."""


class Chat:
    """A chat whose every request is genuine."""

    def __init__(self) -> None:
        self.taken = 0

    def sent_at(self, sent: Sent) -> float:
        del sent
        return time.time()

    async def take(self, sent: Sent) -> Answer:
        del sent
        self.taken += 1
        return Answer()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    found = free_port()
    opened = Door(f"127.0.0.1:{found}", "/slack/events", Chat())
    await opened.open()
    yield found
    await opened.close()


async def ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(4096):
            pass
    except ConnectionError:
        return


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
async def test_strangers_who_send_slowly_keep_no_request_of_the_chat_out(
    port: int, half: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "BODY_SECONDS", 2 * PATIENCE)  # nobody is let go because of it
    strangers = []
    try:
        for _ in range(2 * AT_ONCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(half)
            await writer.drain()
            strangers.append((reader, writer))
        async with asyncio.timeout(PATIENCE):  # there is room because the oldest have gone
            await asyncio.gather(*(ended(reader) for reader, _ in strangers[:AT_ONCE]))
        async with httpx.AsyncClient() as slack:
            answer = await slack.post(f"http://127.0.0.1:{port}/slack/events", content=b"hold")
        assert answer.status_code == 200, answer.status_code
    finally:
        for _, writer in strangers:
            writer.close()
