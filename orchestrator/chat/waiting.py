"""Waiting: messages and answers that wait in lanes, so that no other account delays an operator's order.

The account decides the lane, and which accounts are linked is known before a message comes. Linked people who
hold or roll back have a lane, what linked people say besides has another, and all other accounts share the
third. Each lane has places and workers of its own. One person has a few of the places, however many accounts
are theirs.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from policies.chat.grammar import is_safe
from policies.model.chat import ChatMessage

LONGEST = 200
"""Places of one lane; what finds none is not answered."""

OF_ONE = 5
"""Places of one person, or of one account that is not linked."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Lane(Generic[T]):
    """What waits for the same workers, in its order."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[tuple[str, T]](LONGEST)
        self._of = Counter[str]()
        self._left_out = set[str]()
        """Of whom the log has said that they say too much, until one of theirs is done."""

    def put(self, whose: str, what: T) -> bool:
        """Have it wait; return whether it does."""
        if self._queue.full() or self._of[whose] >= OF_ONE:
            if whose not in self._left_out and len(self._left_out) < LONGEST:
                self._left_out.add(whose)
                _log.warning("%s says more than is answered; that is left out", whose)
            return False
        self._of[whose] += 1
        self._queue.put_nowait((whose, what))
        return True

    async def get(self) -> tuple[str, T]:
        """Return what has waited longest and whose it is, once there is something; it counts until `done`."""
        return await self._queue.get()

    def done(self, whose: str) -> None:
        """Take note that one of theirs has been worked on."""
        self._of[whose] -= 1
        if not self._of[whose]:
            del self._of[whose]
            self._left_out.discard(whose)


class Answering:
    """Messages of one kind, and apart from them what is to be said to them: a chat may be slow to take it."""

    def __init__(self) -> None:
        self.messages = Lane[ChatMessage]()
        self.posts = Lane[Callable[[], Awaitable[None]]]()


class Waiting:
    """All lanes."""

    def __init__(self) -> None:
        self.safe, self.others, self.strangers = Answering(), Answering(), Answering()
        self.people: Mapping[str, str] = {}
        """The person of each linked account."""

    def put(self, said: ChatMessage) -> bool:
        """Have it wait in its lane; return whether it does."""
        return self.of(said).messages.put(self.people.get(said.user, said.user), said)

    def of(self, said: ChatMessage) -> Answering:
        """Return where a message and its answer wait."""
        if said.user not in self.people:
            return self.strangers
        return self.safe if is_safe(said) else self.others
