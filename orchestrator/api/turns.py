"""Turns: how many requests of callers that nobody knows yet are worked on at a time; the others wait.

A request costs some milliseconds of the event loop, in a dozen pieces. Without turns the pieces of two
hundred requests stand between two pieces of a hold. Root and people at the local socket, and callers who
have shown who they are a while ago, need no turn. A turn begins when the request is whole, unless its
route reads nothing before it knows who asks, and ends when that is clear. Client networks have turns one
after the other, so a network with many requests delays another one by a single turn. A request whose
connection ends while it waits is never worked on.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from contextlib import suppress

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api import problems
from orchestrator.api.peer import CONNECTION, PeerProtocol
from orchestrator.api.size import MOST_BYTES, is_describing
from policies.model.errors import TooMany

AT_ONCE = 4
"""Requests of unauthenticated clients that are worked on at a time."""

TURN_SECONDS = 0.25
"""How long a turn lasts at most: what takes longer waits for others, and costs the event loop nothing."""

MOST_WAITING = 256
"""Requests of unauthenticated clients that wait for a turn; the network with most of them has one refused."""

AFTER_SECONDS = 1.0
"""When a request that was refused may be tried again."""

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
        self._waiting = OrderedDict[str, deque[asyncio.Future[bool]]]()
        """Requests that wait, by client network; the network whose turn is next is the first."""
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
            await self._in_turn(connection, scope, receive, send)
        if shown is not None and connection.known:
            self._remembered.note(shown)

    async def _in_turn(self, connection: PeerProtocol, scope: Scope, receive: Receive, send: Send) -> None:
        held = deque[Message]() if is_describing(scope) else await _begun(receive)
        if not await self._take(connection):  # where its connection has ended, no answer is sent
            await problems.answer(Request(scope), _full())(scope, receive, send)
            return
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

    async def _take(self, connection: PeerProtocol) -> bool:
        """Return once it is the request's turn; False when it is not to be worked on."""
        if connection.transport.is_closing():
            return False
        if self._free:
            self._free -= 1
            return True
        crowd = connection.crowd
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(crowd, deque()).append(turn)
        self._refuse_one()
        connection.turn = turn
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._give()
            raise
        finally:
            connection.turn = None
            self._drop(crowd, turn)

    def _refuse_one(self) -> None:
        """Refuse the newest request of the network with most of them, once too many wait."""
        if sum(map(len, self._waiting.values())) > MOST_WAITING:
            newest = max(reversed(self._waiting.values()), key=len)[-1]
            if not newest.done():
                newest.set_result(False)

    def _give(self) -> None:
        """Pass the turn on to the network whose turn is next: to its request that has waited longest."""
        while self._waiting:
            crowd, theirs = self._waiting.popitem(last=False)
            turn = theirs.popleft()
            if theirs:
                self._waiting[crowd] = theirs
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1

    def _drop(self, crowd: str, turn: asyncio.Future[bool]) -> None:
        """Take a request out of those that wait, if it is among them."""
        theirs = self._waiting.get(crowd, deque())
        with suppress(ValueError):
            theirs.remove(turn)
        if not theirs:
            self._waiting.pop(crowd, None)


def _full() -> TooMany:
    said = f"{MOST_WAITING} requests of unauthenticated clients wait here"
    return TooMany(f"{said}; ask again in {AFTER_SECONDS:.0f} s", AFTER_SECONDS)


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
