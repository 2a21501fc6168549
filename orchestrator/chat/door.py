"""The door: what a chat sends by itself comes in proven, fresh, small, and only if it has a place to wait.

An adapter says how its chat proves that it sent a request and what is in it (`Sender`); all the rest is the
same for each. Nothing is acknowledged before it waits in the `Inbox`, by whichever way it came: what finds no
place there is refused, so that the chat sends it again. No other module of a chat opens a port.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from aiohttp import web

from orchestrator.chat.port import ChatAway
from orchestrator.crowd import Connections, crowd_of
from policies.model.chat import ChatMessage

HEARD = 200
"""Messages that wait to be handed on; more are refused."""

MOST_BYTES = 256 * 1024
"""Of one request; a button comes with the whole card."""

FRESH_SECONDS = 300.0
"""How far the time in a request may be from this host's, before or after."""

BODY_SECONDS = 10.0
"""How long a request may take to arrive."""

AT_ONCE = 50
"""Connections at the same time; of those whose request is not whole, the oldest makes room for a newcomer."""

_log = logging.getLogger(__name__)


class Full(Exception):
    """As many messages wait as may; who sent this sends it again."""


class Forged(Exception):
    """Nothing proves that the chat sent this."""


class Inbox:
    """Messages that wait to be handed on, in their order; nobody waits to put one in."""

    def __init__(self, most: int = HEARD) -> None:
        self._waiting = asyncio.Queue[ChatMessage](most)

    def put(self, said: ChatMessage) -> None:
        """Have it wait; it may be acknowledged afterwards, and not before.

        Raises:
            Full: It does not.
        """
        try:
            self._waiting.put_nowait(said)
        except asyncio.QueueFull as error:
            raise Full(f"{self._waiting.maxsize} messages wait to be handed on") from error

    async def get(self) -> ChatMessage:
        """Return what has waited longest, as soon as there is something."""
        return await self._waiting.get()


@dataclass(frozen=True)
class Sent:
    """One request."""

    body: bytes
    headers: Mapping[str, str]
    """Whose names are written as they come; large and small letters are the same."""


@dataclass(frozen=True)
class Answer:
    """What a chat is answered whose request was taken."""

    text: str = ""
    content_type: str = "text/plain"


class Sender(Protocol):
    """A chat that sends by itself."""

    def sent_at(self, sent: Sent) -> float:
        """Return when this was sent, in seconds since 1970, as the chat itself has signed it.

        Raises:
            Forged: Nothing proves that the chat sent it.
        """
        ...

    async def take(self, sent: Sent) -> Answer:
        """Put what is said there into the inbox.

        Raises:
            Full: There is no place.
            ValueError: It cannot be read.
        """
        ...


class _Connection(web.RequestHandler):
    """One connection, which is nobody's: behind a proxy it carries the requests of all."""

    known = False

    def __init__(self, server: web.Server, held: Connections) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]
        self._held = held
        self.idle = True
        self.crowd = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")  # None where it has gone already
        self.crowd = crowd_of(str(peer[0])) if peer else ""
        self._held.take(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._held.forget(self)
        super().connection_lost(exc)

    def dismiss(self) -> None:
        self._held.forget(self)
        if self.transport is not None:
            self.transport.abort()


class Door:
    """One address of this host, where requests of one chat come in from a proxy with TLS."""

    def __init__(self, listen: str, path: str, sender: Sender) -> None:
        """Listen at `ADDRESS:PORT`, once it is open, and take what comes to this path."""
        self._listen = listen
        self._path = path
        self._sender = sender
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._held = Connections(AT_ONCE)
        self._told = False
        """Whether the log has said that requests are refused, since the last that was not."""

    async def open(self) -> None:
        """Listen from now on; it may be open already.

        Raises:
            ChatAway: The address cannot be had.
        """
        if self._runner is not None:
            return
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_post(self._path, self._asked)
        runner = web.AppRunner(app)
        await runner.setup()
        host, _, port = self._listen.rpartition(":")
        loop, server = asyncio.get_running_loop(), cast(web.Server, runner.server)  # since `setup`
        try:
            self._server = await loop.create_server(lambda: _Connection(server, self._held), host, int(port))
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise ChatAway(f"nothing can listen at {self._listen}: {type(error).__name__}") from error
        self._runner = runner

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _asked(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                sent = Sent(await request.read(), request.headers)
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413)
        except TimeoutError:
            return web.Response(status=408)
        except Exception:  # noqa: BLE001 - anybody can send what is no request; the log says nothing of each
            return web.Response(status=400)
        connection = cast(_Connection, request.protocol)
        connection.idle = False
        try:
            return await self._answered(sent)
        finally:
            connection.idle = True

    async def _answered(self, sent: Sent) -> web.Response:
        try:
            self._require_genuine(sent)
            answer = await self._sender.take(sent)
        except Forged as forged:
            if not self._told:
                self._told = True
                _log.warning("a request at %s is refused, as all like it: %s", self._listen, forged)
            return web.Response(status=401)
        except Full as full:
            _log.warning("what a chat sent is refused, and comes again: %s", full)
            return web.Response(status=503)
        except Exception as error:  # noqa: BLE001 - whatever a chat sends ends no listening
            _log.warning("what a chat sent cannot be read: %s", type(error).__name__)
            return web.Response(status=400)
        self._told = False
        return web.Response(text=answer.text, content_type=answer.content_type)

    def _require_genuine(self, sent: Sent) -> None:
        """Return if the chat has sent this, a moment ago.

        Raises:
            Forged: It has not.
        """
        away = abs(time.time() - self._sender.sent_at(sent))
        if not away <= FRESH_SECONDS:  # what is no number is not fresh either
            raise Forged(f"it is signed, for a time that is {away:.0f} s from this host's")
