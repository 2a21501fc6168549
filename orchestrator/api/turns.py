"""Turns: how many requests of callers that nobody knows yet are worked on at a time; the others wait.

A request costs some milliseconds of the event loop, in a dozen pieces. Without turns the pieces of two
hundred requests stand between two pieces of a hold. Callers whom the kernel names at the socket, and those
who have shown who they are a while ago, need no turn. A turn begins when the request is whole, unless its
route reads nothing before it knows who asks, and ends when that is clear.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict, deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.peer import CONNECTION, PeerProtocol
from orchestrator.api.size import MOST_BYTES, is_describing

AT_ONCE = 4
"""Requests of unauthenticated clients that are worked on at a time."""

TURN_SECONDS = 0.25
"""How long a turn lasts at most: what takes longer waits for others, and costs the event loop nothing."""

REMEMBERED = 10_000
REMEMBERED_SECONDS = 600.0
"""How many credentials that were good are remembered, as hashes, and for how long."""

TURN = "turn"
"""Under this name an application finds in a request's state what ends its turn."""

SHOWN = frozenset({b"authorization", b"cookie"})


class Remembered:
    """Credentials that were good lately."""

    def __init__(self) -> None:
        self._seen = OrderedDict[bytes, float]()

    def note(self, credential: bytes) -> None:
        """Remember a credential that has just been good."""
        self._seen[credential] = time.monotonic()
        self._seen.move_to_end(credential)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def knows(self, credential: bytes) -> bool:
        """Return whether it was good lately; that opens nothing, it only needs no turn."""
        seen = self._seen.get(credential)
        return seen is not None and time.monotonic() - seen < REMEMBERED_SECONDS


class Turns:
    """Passes requests on, those of unauthenticated clients a few at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._free = AT_ONCE
        self._waiting = deque[asyncio.Future[None]]()
        self._remembered = Remembered()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, in its turn if it needs one."""
        connection = scope.get("state", {}).get(CONNECTION)
        if scope["type"] != "http" or not isinstance(connection, PeerProtocol):
            await self._app(scope, receive, send)
            return
        shown = _credential(scope)
        known = connection.known or (shown is not None and self._remembered.knows(shown))
        if known:
            await self._app(scope, receive, send)
        else:
            await self._in_turn(scope, receive, send)
        if shown is not None and connection.known:
            self._remembered.note(shown)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = deque[Message]() if is_describing(scope) else await _begun(receive)
        await self._take()
        has_turn = True

        def end() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._give()

        async def receiving() -> Message:
            return held.popleft() if held else await receive()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                end()  # what follows takes as long as the caller likes
            await send(message)

        scope["state"][TURN] = end
        over = asyncio.get_running_loop().call_later(TURN_SECONDS, end)
        try:
            await self._app(scope, receiving, sending)
        finally:
            over.cancel()
            end()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        """Pass the turn on to the request that has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


async def _begun(receive: Receive) -> deque[Message]:
    """Return the request's messages once it is whole, or longer than most: who is slow has no turn."""
    held, heard = deque[Message](), 0
    while True:
        message = await receive()
        held.append(message)
        heard += len(message.get("body", b""))
        if not message.get("more_body", False) or heard > MOST_BYTES:
            return held


def _credential(scope: Scope) -> bytes | None:
    """Return the hash of what the request shows of its caller, None where that is nothing."""
    shown = [value for name, value in scope["headers"] if name in SHOWN]
    return hashlib.sha256(b"\n".join(shown)).digest() if shown else None
