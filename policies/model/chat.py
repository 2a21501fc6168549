"""Chat: what a chat's process hands on, what it is answered, and which rooms a fleet speaks in."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from policies.model.offer import Offer
from policies.model.people import PersonName
from policies.model.value import Name, Value

LONGEST_SAID = 2000
"""Characters of a message that are handed on; an order and its reason are shorter."""

Workspace = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
"""What a chat calls the whole of its accounts and rooms."""

Room = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
Account = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
MessageId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class ChatVerb(StrEnum):
    """What may be said in a chat."""

    STATUS = "status"
    WHY = "why"
    HISTORY = "history"
    SESSIONS = "sessions"
    DRAINS = "drains"
    HOLD = "hold"
    RESUME = "resume"
    ROLL_BACK = "rollback"
    ABORT = "abort"
    CONFIRM = "confirm"
    APPROVE = "approve"
    REJECT = "reject"
    LINK = "link"
    HELP = "help"


class ChatRoom(Value):
    """A room of a chat in which a fleet may be spoken of."""

    workspace: Workspace
    """The whole of accounts and rooms, as `workspace` of chat.yaml names it."""
    channel: Room
    """The room's id, as the chat itself shows it; docs/chat.md says where for each."""


class FleetChat(Value):
    """What a fleet allows in chats."""

    channels: tuple[ChatRoom, ...] = Field(default=(), max_length=20)
    """Rooms where its card is shown and orders are taken; everywhere else nothing is said of it."""
    approvals: bool = False
    """Whether plans and rollbacks may be approved and rejected in these rooms, too."""
    mentions: tuple[PersonName, ...] = Field(default=(), max_length=20)
    """Who is mentioned where somebody has to be woken; each has to have linked an account."""


class ChatAction(Value):
    """A button that was pressed: what it orders, and the change that its card showed."""

    verb: ChatVerb
    fleet: Name
    change: Name | None = None
    hold_of: PersonName | None = None


class ChatMessage(Value):
    """One message or button, as the chat's server says who sent it."""

    workspace: Workspace
    user: Account
    """The account's id; its name counts for nothing."""
    name: str = Field(default="", max_length=255)
    """What the account calls itself, which is only ever shown."""
    channel: Room
    direct: bool = False
    """Whether it was said to penstock alone."""
    message: MessageId
    """The same message always has the same one, however often it is delivered."""
    thread: MessageId | None = None
    text: str = Field(default="", max_length=LONGEST_SAID)
    action: ChatAction | None = None
    at: AwareDatetime
    """When it was sent, by the chat's server."""


class ChatAnswer(Value):
    """What is answered, as plain text that nobody has escaped yet."""

    lines: tuple[str, ...]
    private: bool = False
    """Whether it is for whoever asked alone, where that can be done."""
    refused: str | None = None
    """The name of the error, where nothing was done."""
    repeated: bool = False
    """Whether this message came before: nothing was done again, and nobody needs the answer twice."""
    begun: str | None = None
    """What was ordered, where something was."""


class CardNews(Value):
    """Something that is said once in a card's thread."""

    transaction: str
    """The same news always have the same one, so that a repeat after a kill says nothing twice."""
    lines: tuple[str, ...]


class ChatCard(Value):
    """How one change stands in one room: posted once, and edited from then on."""

    fleet: Name
    change: Name
    channel: Room
    transaction: str
    """The same card always has the same one, so that a repeat after a kill posts nothing twice."""
    edit: str = ""
    """What this edit of it is known by: a repeat after a kill has the same, and a later edit another, even
    one that returns to what the card showed before."""
    message: MessageId | None = None
    """Where it was posted, None before."""
    digest: str = Field(min_length=1, max_length=64)
    """What its content is known by."""
    title: str
    state: str
    lines: tuple[str, ...]
    offers: tuple[Offer, ...] = ()
    news: tuple[CardNews, ...] = ()
    """What is said in its thread before it counts as shown."""


class ShownCard(Value):
    """A card that was posted or edited."""

    workspace: Workspace
    channel: Room
    change: Name
    message: MessageId
    digest: str = Field(min_length=1, max_length=64)
    at: AwareDatetime | None = None
    """When that was noted, which the ledger's clock says; nobody else is asked."""


class ChatPlaces(Value):
    """Where something of a fleet is told, and who is called where somebody has to be woken."""

    rooms: dict[str, str | None] = {}
    """By room: the card of the change, in whose thread it is told; None where there is no card."""
    mentions: tuple[str, ...] = ()
    """Accounts."""


class ChatPeople(Value):
    """Which accounts of a workspace are linked."""

    people: dict[str, str] = {}
    """By account: its person."""


class SilentRoom(Value):
    """A room in which the process of a chat receives nothing."""

    channel: Room
    why: str = Field(max_length=1000)


class SilentRooms(Value):
    """The rooms of a workspace in which the process of its chat receives nothing; all others are heard."""

    workspace: Workspace
    silent: Annotated[tuple[SilentRoom, ...], Field(max_length=200, fail_fast=True)]


class ChatLinkRow(Value):
    """A chat account that is a person."""

    workspace: str
    user: str
    name: str
    """What the account called itself when it was linked; anybody may choose it."""
    person: str
    since: datetime
    expires: datetime
