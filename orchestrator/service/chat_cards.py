"""Cards: how each change stands in each room of its fleet, posted once and edited from then on."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from activities.files import FleetFiles
from orchestrator.service.caller_refusals import INSTALLATION
from orchestrator.service.chat_sessions import ChatSessions
from orchestrator.service.telling import as_ended, told_of
from orchestrator.service.ways_back import WaysBack
from orchestrator.store.chat import SilentRoomOf
from orchestrator.store.ledger import Ledger
from orchestrator.words.standing import stored_lines
from policies.access import Action, may, may_there
from policies.chat.endings import Stage, done, known_by, nobody_left, stage_in, stage_of
from policies.chat.sessions import Left
from policies.model.change import ChangeRecord, Outcome
from policies.model.chat import CardNews, ChatCard, ChatPlaces, ChatRoom, ShownCard, SilentRooms
from policies.model.command import StoredCommand
from policies.model.errors import NotAllowed, Refused, Unknown
from policies.model.fleet import Fleet
from policies.model.offer import Offer
from policies.model.people import EVERY_FLEET, Caller
from policies.model.plan_part import PlanHeader
from policies.model.status import ChangeStatus
from policies.status.stored import after_stored

STILL_TOLD = timedelta(hours=1)
"""How long after its end a change gets a card that had none."""

WENT_BACK = frozenset({Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE})
"""Ends after which sessions may be left on the release of the change."""

MOST_CARDS = 50
"""Cards in one answer; the others come in the next."""


Stored = Sequence[StoredCommand]
NOTHING_STORED: Mapping[str, Stored] = MappingProxyType({})


class _Wanted(NamedTuple):
    """A card as it has to be, and what its thread is told from."""

    card: ChatCard
    """Known by its content alone."""
    record: ChangeRecord
    status: ChangeStatus
    header: PlanHeader | None
    left: Left | None
    stage: Stage


class ChatCards:
    """What is to be posted or edited now."""

    def __init__(self, ledger: Ledger, fleets: FleetFiles, sessions: ChatSessions) -> None:
        self._ledger = ledger
        self._fleets = fleets
        self._sessions = sessions

    def under_way(self, process: Caller) -> tuple[str, ...]:
        """Return the fleets of this process whose newest change has no end yet."""
        fleets = self._told_fleets(process)
        newest = self._ledger.newest_changes() if fleets else {}
        return tuple(name for name in fleets if name in newest and newest[name].outcome is None)

    def _told_fleets(self, process: Caller) -> dict[str, Fleet]:
        if not process.machine:
            raise NotAllowed(f"{process.person} is no process of a chat: that takes a token of the role chat")
        return {
            name: one
            for name, one in self._fleets.lately()[0].items()
            if one.chat is not None and one.chat.channels and may(process, Action.CHAT, name)
        }

    def wanted(
        self, process: Caller, workspace: str, stored: Mapping[str, Stored] = NOTHING_STORED
    ) -> tuple[ChatCard, ...]:
        """Return the cards of a workspace that do not show yet how their changes stand.

        Args:
            process: The process of the chat.
            workspace: Where its rooms are.
            stored: The commands of each fleet that the engine has stored for its open change.
        """
        fleets = self._told_fleets(process)
        newest = self._ledger.newest_changes() if fleets else {}
        shown = self._ledger.cards_shown(workspace)
        of_newest = self._ledger.cards_of(
            workspace, [one.name for name, one in newest.items() if name in fleets]
        )
        found: list[ChatCard] = []
        for name, fleet in sorted(fleets.items()):
            changes = {one.name: one for one in (newest.get(name),) if one is not None and _is_told(one)}
            rooms = [room.channel for room in self._rooms(fleet, workspace)]
            open_cards = shown.get(name, {})
            for channel, change in open_cards:
                if channel in rooms and change not in changes:
                    changes[change] = self._ledger.change(change)
            for record in changes.values():
                known = {
                    channel: of_newest.get((channel, record.name)) or open_cards.get((channel, record.name))
                    for channel in rooms
                }
                waiting = stored.get(name, ()) if record.outcome is None else ()
                found += self._different(fleet, record, workspace, known, waiting)
            if len(found) >= MOST_CARDS:
                break
        return tuple(found[:MOST_CARDS])

    def _different(
        self,
        fleet: Fleet,
        record: ChangeRecord,
        workspace: str,
        known: Mapping[str, ShownCard | None],
        stored: Stored,
    ) -> list[ChatCard]:
        """Return the cards of one change that do not show how it stands, by what each room shows now."""
        told = {channel: _told(shown) for channel, shown in known.items()}
        wanted = self._card(fleet, record, stored, waits={*told.values()} != {Stage.OVER})
        found = list[ChatCard]()
        for channel, shown in known.items():
            # What was said to be over stays so: a gateway that is silent since then takes nothing back.
            over = told[channel] is Stage.OVER and record.outcome is not None
            stage = Stage.OVER if over else wanted.stage
            digest = known_by(stage, wanted.card.digest)
            if shown is None or shown.digest != digest:
                news = self._news(fleet, wanted, told[channel])
                card = wanted.card.model_copy(update={"digest": digest})
                found.append(_in_room(card, workspace, channel, shown, news))
        return found

    def shown(self, process: Caller, card: ShownCard) -> None:
        """Note that a card was posted or edited.

        Raises:
            Unknown: There is no such change of a fleet whose process this is.
            Refused: The fleet is not spoken of in that room.
        """
        record = self._ledger.change(card.change)
        fleet = self._fleets.lately()[0].get(record.fleet)
        if fleet is None or not may(process, Action.CHAT, record.fleet):
            raise Unknown(f"no change {card.change} in the ledger")
        if card.channel not in {room.channel for room in self._rooms(fleet, card.workspace)}:
            raise Refused(
                f"{record.fleet} is not spoken of in {card.channel} of {card.workspace}; its file names its "
                "rooms, chat.channels"
            )
        over = record.outcome is not None and stage_in(card.digest) is Stage.OVER
        if over:
            self._sessions.forget(record.name)
        self._ledger.keep_card(card, record.fleet, over=over)

    def note_silent(self, process: Caller, rooms: SilentRooms) -> None:
        """Note in which rooms of its fleets a process receives nothing; in all others it does."""
        own, whys = self._told_fleets(process), {one.channel: one.why for one in rooms.silent}
        found = [
            SilentRoomOf(channel=one.channel, why=whys[one.channel], workspace=rooms.workspace, fleet=name)
            for name, fleet in own.items()
            for one in self._rooms(fleet, rooms.workspace)
            if one.channel in whys
        ]
        others = {*self._fleets.lately()[0]} - {*own}
        self._ledger.keep_silent_rooms(rooms.workspace, found, others)

    def places(self, process: Caller, workspace: str, fleet: str, change: str | None) -> ChatPlaces:
        """Return where something of a fleet is told: in the thread of the change's card, where there is one.

        What is of the installation, such as an engine that is away, is told in the rooms of every fleet.

        Raises:
            Unknown: There is no such fleet whose process this is.
        """
        if fleet == INSTALLATION and may_there(process, Action.CHAT, EVERY_FLEET):
            return self._everywhere(process, workspace)
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

    def _everywhere(self, process: Caller, workspace: str) -> ChatPlaces:
        of_fleets = [
            self.places(process, workspace, name, None)
            for name, fleet in sorted(self._fleets.lately()[0].items())
            if self._rooms(fleet, workspace)
        ]
        rooms = {room: None for places in of_fleets for room in places.rooms}
        called = {user for places in of_fleets for user in places.mentions}
        return ChatPlaces(rooms=rooms, mentions=tuple(sorted(called)))

    @staticmethod
    def _rooms(fleet: Fleet, workspace: str) -> list[ChatRoom]:
        return [room for room in fleet.chat.channels if room.workspace == workspace] if fleet.chat else []

    def _card(self, fleet: Fleet, record: ChangeRecord, stored: Stored, *, waits: bool) -> _Wanted:
        status = told_of(self._ledger, record)
        header = self._sessions.header(record) if waits and record.outcome in WENT_BACK else None
        left = self._sessions.since(fleet, record, header) if header is not None else None
        stage = stage_of(record, left, datetime.now(UTC))
        lines = (
            f"Users: {status.users}",
            f"Why: {status.why}",
            f"Next: {status.next}",
            *((f"Needs you: {status.needs_you}",) if status.needs_you else ()),
            *(f"{label}: {line}" for label, line in stored_lines(_shown(stored))),
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
            offers=self._offers(fleet, record, status, stored),
        )
        content = hashlib.sha256(card.model_dump_json().encode()).hexdigest()
        return _Wanted(card.model_copy(update={"digest": content}), record, status, header, left, stage)

    def _offers(
        self, fleet: Fleet, record: ChangeRecord, status: ChangeStatus, stored: Stored
    ) -> tuple[Offer, ...]:
        """Return what can be done about the change; a rollback that has nothing to do is not offered."""
        if record.outcome is None:
            return after_stored(status.can_do, stored)
        return WaysBack(self._ledger).offered(fleet, status.can_do)

    def _news(self, fleet: Fleet, wanted: _Wanted, told: Stage) -> tuple[tuple[str, ...], ...]:
        """Return what a card's thread has to hear that has told so far."""
        record = wanted.record
        found: list[tuple[str, ...]] = []
        if wanted.stage is not Stage.GOES_ON and told is Stage.GOES_ON:
            row = self._ledger.story(record.name)
            good = sorted({one.version for one in self._ledger.known_good_releases(record.fleet)})
            until = None
            if wanted.header is not None:
                until = (record.ended or datetime.now(UTC)) + wanted.header.limits.drain_deadline
            lately = self._sessions.lately(fleet, wanted.header)
            result = as_ended(record, row.told).result if row is not None else None
            found.append(done(record, wanted.status, result, tuple(good), lately, until))
        if wanted.stage is Stage.OVER and wanted.left is not None and told is not Stage.OVER:
            found.append(nobody_left(wanted.left, wanted.status))
        return tuple(found)


def _told(shown: ShownCard | None) -> Stage:
    """Return how far a card has told; one that was never posted has told nothing."""
    return stage_in(shown.digest) if shown is not None else Stage.GOES_ON


def _shown(stored: Stored) -> dict[str, list[dict[str, Any]]]:
    """Return stored commands as the terminal and the page show those of a status."""
    return {"stored": [one.model_dump(mode="json") for one in stored]}


def _is_told(change: ChangeRecord) -> bool:
    return change.outcome is None or (
        change.ended is not None and datetime.now(UTC) - change.ended < STILL_TOLD
    )


def _in_room(
    card: ChatCard,
    workspace: str,
    channel: str,
    shown: ShownCard | None,
    news: tuple[tuple[str, ...], ...],
) -> ChatCard:
    name = hashlib.sha256(f"{workspace} {channel} {card.change}".encode()).hexdigest()[:32]
    since = shown.at if shown is not None else None
    edit = hashlib.sha256(f"{name} {card.digest} {since}".encode()).hexdigest()[:32]
    update = {
        "edit": edit,
        "news": tuple(
            CardNews(transaction=f"{name}-{stage_in(card.digest).value}-{number}", lines=lines)
            for number, lines in enumerate(news)
        ),
        "channel": channel,
        "transaction": name,
        "message": shown.message if shown is not None else None,
    }
    return card.model_copy(update=update)
