"""Viewers without a browser: they load pages, and follow the events of a fleet as htmx does."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

HEARD_WITHIN = 60.0
MOST_TRIES = 20
MOST_SAID = 4000
"""Bytes of a refusal that are shown."""


@dataclass
class Viewer:
    """One stream of a fleet's page."""

    port: int
    path: str
    secret: str
    address: str = "127.0.0.1"
    """Where it calls from."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is let in or refused."""
    tries: int = 0
    heard: int = 0
    bytes_heard: int = 0
    refused: str = ""
    newest: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, Callable[[float], None]] = field(default_factory=dict)
    """What is called with the moment when a region first says a word."""

    async def follow(self) -> None:
        """Take events until cancelled; who is let go comes again in a moment, as a browser does."""
        while self.tries < MOST_TRIES:
            self.tries += 1
            with suppress(ConnectionError):
                await self._follow()
            if self.refused:
                return
            await asyncio.sleep(random.uniform(0.5, 1.5))
        self.refused = f"let go {MOST_TRIES} times"
        self.answered.set()

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(self.address, 0), limit=1 << 22
        )
        asked = (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: penstock={self.secret}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        try:
            writer.write(asked.encode())
            status = await reader.readline()
            if not status:
                return
            if b" 200 " not in status:
                said = await asyncio.wait_for(reader.read(MOST_SAID), HEARD_WITHIN)
                self.refused = f"{status.decode().strip()}: {said.decode(errors='replace')}"
            self.answered.set()
            if self.refused:
                return
            name = ""
            while line := await reader.readline():
                self.bytes_heard += len(line)
                if line.startswith(b"event: "):
                    name = line[7:].decode().strip()
                    self.heard += 1
                elif self.wanted and line.startswith(b"data: "):
                    self._take(name, line.decode())
        finally:
            writer.close()

    def _take(self, name: str, line: str) -> None:
        for word in [word for word in self.wanted if word in line]:
            self.wanted.pop(word)(time.monotonic())
        self.newest[name] = line

    async def until_said(self, word: str) -> float:
        """Return when a region says the word, by the monotonic clock."""
        said = asyncio.get_running_loop().create_future()
        self.wanted[word] = said.set_result
        async with asyncio.timeout(HEARD_WITHIN):
            return float(await said)


class _Files(HTMLParser):
    """Which static files a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        found = said.get("href") if tag == "link" else said.get("src") if tag in {"script", "img"} else None
        if found:
            self.found.add(found)


def files_of(page: str) -> set[str]:
    """Return the addresses of the static files that a page asks for."""
    reading = _Files()
    reading.feed(page)
    return reading.found


@dataclass(frozen=True)
class Loaded:
    """How a page was loaded, some times."""

    milliseconds: list[float]
    size: int
    """Of the page and its static files, uncompressed, in bytes."""


async def load(client: httpx.AsyncClient, path: str, times: int, files: dict[str, int]) -> Loaded:
    """Load a page so many times, whole; its static files once, into `files`."""
    taken, text = [], ""
    for _ in range(times):
        began = time.monotonic()
        answer = await client.get(path)
        taken.append((time.monotonic() - began) * 1000)
        if answer.status_code != httpx.codes.OK:
            said = answer.text.partition('role="alert">')[2].partition("</p>")[0]
            raise SystemExit(f"bench: {path} was answered with {answer.status_code}: {said}")
        text = answer.text
    for name in files_of(text) - files.keys():
        files[name] = len((await client.get(name)).content)
    return Loaded(taken, len(text.encode()) + sum(files[name] for name in files_of(text)))
