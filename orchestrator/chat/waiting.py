"""Waiting: messages that wait for an answer, in two lanes, so that nobody who talks delays an order.

What stops, goes back or asks how it stands has a lane and workers of its own. Nobody has more than a few
messages waiting: whoever says more is not answered, and keeps nobody else from their answer.
"""

import asyncio
import logging
from collections import Counter

from policies.chat.grammar import OTHERWISE, SAFE, addressed
from policies.model.chat import ChatMessage, ChatVerb

LONGEST = 200
"""Messages that wait in one lane; what comes while so many do is not answered."""

OF_ONE = 5
"""Messages of one account that wait in one lane."""

_log = logging.getLogger(__name__)


def verb_of(said: ChatMessage) -> str:
    """Return the first word of what is said to penstock, parted from the next as `read` parts words."""
    if said.action is not None:
        return said.action.verb
    words = (addressed(said.text) or "").split(maxsplit=1)
    word = words[0].lower() if words else ""
    return OTHERWISE.get(word, word)


def is_urgent(said: ChatMessage) -> bool:
    """Return whether it stops or goes back, or asks how it stands."""
    return verb_of(said) in {*SAFE, ChatVerb.STATUS}


class Lane:
    """Messages of one kind, in their order."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[ChatMessage](LONGEST)
        self._of = Counter[str]()
        self._left_out = set[str]()
        """Of whom the log has said that they say too much, until they are answered."""

    def put(self, said: ChatMessage) -> bool:
        """Have it wait; return whether it does."""
        if self._queue.full() or self._of[said.user] >= OF_ONE:
            if said.user not in self._left_out and len(self._left_out) < LONGEST:
                self._left_out.add(said.user)
                _log.warning("%s says more than is answered; that is left out", said.user)
            return False
        self._of[said.user] += 1
        self._queue.put_nowait(said)
        return True

    async def get(self) -> ChatMessage:
        """Return the message that has waited longest, as soon as there is one; it counts until `done`."""
        return await self._queue.get()

    def done(self, said: ChatMessage) -> None:
        """Take note that it was answered, or will not be."""
        self._of[said.user] -= 1
        if not self._of[said.user]:
            del self._of[said.user]
            self._left_out.discard(said.user)


class Waiting:
    """Both lanes."""

    def __init__(self) -> None:
        self.urgent, self.others = Lane(), Lane()

    def put(self, said: ChatMessage) -> bool:
        """Have it wait in its lane; return whether it does."""
        return (self.urgent if is_urgent(said) else self.others).put(said)
