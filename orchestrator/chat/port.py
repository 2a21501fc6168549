"""What the process needs of a chat, whichever it is: what is said there, and a way to say something back."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.chat.spelling import spelled
from policies.model.chat import ChatAnswer, ChatCard, ChatMessage


class ChatAway(Exception):
    """The chat does not answer, or refuses; it is tried again.

    It is written to logs: what it says is penstock's own, never a library's or a peer's words, in which a
    token may stand, or an address that is as good as one.
    """


@dataclass(frozen=True)
class Post:
    """Something to be said in a room, as plain text: each adapter makes it harmless in its own way."""

    channel: str
    lines: Sequence[str]
    transaction: str
    """The same post always has the same one, so that a repeat after a kill says nothing twice."""
    thread: str | None = None
    mentions: Sequence[str] = ()
    """Accounts that are called; nothing that somebody wrote calls anybody."""


class Chat(Protocol):
    """One workspace of a chat."""

    @property
    def workspace(self) -> str:
        """What it is called in fleets' files and links."""
        ...

    @property
    def edits(self) -> bool:
        """Whether a post can be replaced; without it a card is posted anew as often as it changes."""
        ...

    @property
    def threads(self) -> bool:
        """Whether something can be said in the thread of a post; without it all is said in the room."""
        ...

    @property
    def private(self) -> bool:
        """Whether one account of a room can be told something alone; without it none is linked there."""
        ...

    @property
    def silent(self) -> Mapping[str, str] | None:
        """Rooms in which nothing is received, each with why; None where that is not known yet."""
        ...

    def listen(self) -> AsyncIterator[ChatMessage]:
        """Yield what is said, for as long as this goes on; what was not handed on comes again after a kill.

        Raises:
            ChatAway: The chat does not answer; whoever listens begins again.
        """
        ...

    def settled(self, said: ChatMessage) -> None:
        """Take note that nothing is left to be done about a message: it need not come again after a kill."""
        ...

    def keeps_out(self, said: ChatMessage) -> str | None:
        """Return why this account is not linked here, None where it may be."""
        ...

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Say the answer where the message was said, or to its sender alone."""
        ...

    async def show(self, card: ChatCard) -> str:
        """Post or edit a card; return where it is."""
        ...

    async def say(self, post: Post) -> None:
        """Say something that nobody has asked for."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


def unanswered(chat: str, error: Exception) -> ChatAway:
    """Return that a chat does not answer, by the kind of what was met alone."""
    return ChatAway(f"{chat} does not answer: {type(error).__name__}")


def card_lines(card: ChatCard) -> list[str]:
    """Return what a card says, as lines."""
    can = [line for offer in card.offers if (line := spelled(offer)) is not None]
    return [card.title, card.state, *card.lines, *([f"You can: {' | '.join(can)}"] if can else [])]
