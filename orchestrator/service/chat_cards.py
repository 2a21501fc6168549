"""Cards: how each change stands in each room of its fleet, posted once and edited from then on."""

import hashlib
from datetime import UTC, datetime, timedelta

from activities.files import FleetFiles
from orchestrator.service.telling import told_of
from orchestrator.store.ledger import Ledger
from policies.access import Action, may
from policies.model.change import ChangeRecord
from policies.model.chat import ChatCard, ChatPlaces, ChatRoom, ShownCard
from policies.model.errors import NotAllowed, Unknown
from policies.model.fleet import Fleet
from policies.model.people import Caller

STILL_TOLD = timedelta(hours=1)
"""How long after its end a change gets a card that had none."""

MOST_CARDS = 50
"""Cards in one answer; the others come in the next."""


class ChatCards:
    """What is to be posted or edited now."""

    def __init__(self, ledger: Ledger, fleets: FleetFiles) -> None:
        self._ledger = ledger
        self._fleets = fleets

    def wanted(self, process: Caller, workspace: str) -> tuple[ChatCard, ...]:
        """Return the cards of a workspace that do not show yet how their changes stand."""
        if not process.machine:
            raise NotAllowed(f"{process.person} is no process of a chat: that takes a token of the role chat")
        fleets = {
            name: one
            for name, one in self._fleets.lately()[0].items()
            if one.chat is not None and one.chat.channels and may(process, Action.CHAT, name)
        }
        newest = self._ledger.newest_changes() if fleets else {}
        open_cards = self._ledger.cards_shown(workspace)
        of_newest = self._ledger.cards_of(
            workspace, [one.name for name, one in newest.items() if name in fleets]
        )
        found: list[ChatCard] = []
        for name, fleet in sorted(fleets.items()):
            changes = {one.name: one for one in (newest.get(name),) if one is not None and _is_told(one)}
            rooms = [room.channel for room in self._rooms(fleet, workspace)]
            for channel, change in open_cards:
                if channel in rooms and change not in changes and change.startswith(f"{name}-"):
                    changes[change] = self._ledger.change(change)
            for record in changes.values():
                wanted = self._card(record)
                for channel in rooms:
                    shown = of_newest.get((channel, record.name)) or open_cards.get((channel, record.name))
                    if shown is None or shown.digest != wanted.digest:
                        found.append(_in_room(wanted, workspace, channel, shown))
            if len(found) >= MOST_CARDS:
                break
        return tuple(found[:MOST_CARDS])

    def shown(self, process: Caller, card: ShownCard) -> None:
        """Note that a card was posted or edited.

        Raises:
            Unknown: There is no such change of a fleet whose process this is.
        """
        record = self._ledger.change(card.change)
        if not may(process, Action.CHAT, record.fleet):
            raise Unknown(f"no change {card.change} in the ledger")
        told = self._card(record)
        over = record.outcome is not None and told.digest == card.digest
        self._ledger.keep_card(card, record.fleet, over=over)

    def places(self, process: Caller, workspace: str, fleet: str, change: str | None) -> ChatPlaces:
        """Return where something of a fleet is told: in the thread of the change's card, where there is one.

        Raises:
            Unknown: There is no such fleet whose process this is.
        """
        known = self._fleets.lately()[0].get(fleet)
        if known is None or not may(process, Action.CHAT, fleet):
            raise Unknown(f"there is no fleet {fleet} whose chat this is")
        cards = self._ledger.cards_of(workspace, [change]) if change is not None else {}
        posted = {channel: card.message for (channel, _), card in cards.items()}
        rooms = {room.channel: posted.get(room.channel) for room in self._rooms(known, workspace)}
        now = datetime.now(UTC)
        called = [
            link.user
            for person in (known.chat.mentions if known.chat is not None else ())
            for link in self._ledger.chat_links(person)
            if link.workspace == workspace and link.expires > now
        ]
        return ChatPlaces(rooms=rooms, mentions=tuple(called))

    @staticmethod
    def _rooms(fleet: Fleet, workspace: str) -> list[ChatRoom]:
        return [room for room in fleet.chat.channels if room.workspace == workspace] if fleet.chat else []

    def _card(self, record: ChangeRecord) -> ChatCard:
        status = told_of(self._ledger, record)
        lines = (
            f"Users: {status.users}",
            f"Why: {status.why}",
            f"Next: {status.next}",
            *((f"Needs you: {status.needs_you}",) if status.needs_you else ()),
        )
        state = status.outcome.value if status.outcome is not None else status.phase.value
        card = ChatCard(
            fleet=record.fleet,
            change=record.name,
            channel="-",
            transaction="-",
            digest="-",
            title=f"{record.name}: {record.kind.value.replace('_', ' ')} {status.version}",
            state=f"{state.replace('_', ' ').upper()}: {status.what}",
            lines=lines,
            offers=status.can_do,
        )
        return card.model_copy(update={"digest": hashlib.sha256(card.model_dump_json().encode()).hexdigest()})


def _is_told(change: ChangeRecord) -> bool:
    return change.outcome is None or (
        change.ended is not None and datetime.now(UTC) - change.ended < STILL_TOLD
    )


def _in_room(card: ChatCard, workspace: str, channel: str, shown: ShownCard | None) -> ChatCard:
    name = hashlib.sha256(f"{workspace} {channel} {card.change}".encode()).hexdigest()[:32]
    update = {
        "channel": channel,
        "transaction": name,
        "message": shown.message if shown is not None else None,
    }
    return card.model_copy(update=update)
