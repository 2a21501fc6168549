"""Chats: which account is which person, codes that confirm orders, and where cards were posted."""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.chat.codes import LIVES, TRIES
from policies.model.chat import ChatLinkRow, ShownCard, SilentRoom
from policies.model.errors import NotAllowed
from policies.model.people import Via
from policies.model.value import Value

MOST_OFFERS = 5
"""Addresses for one account that are good at a time; the oldest gives way."""


class ChatLink(ChatLinkRow):
    """A link, with what its person was recognised by at the page."""

    uid: int | None = None
    vouched: str | None = None


class Code(Value):
    """What a code confirms."""

    person: str
    fleet: str
    verb: str
    state: str
    change: str | None
    reason: str
    workspace: str
    channel: str
    expires: datetime
    wrong: int = 0
    used_by: str | None = None


class SilentRoomOf(SilentRoom):
    """A silent room, and the fleet whose room it is."""

    workspace: str
    fleet: str


class Account(Value):
    """A chat account that asks to be linked."""

    workspace: str
    user: str
    name: str
    expires: datetime


class Chats(Book):
    """What is known of chats."""

    def offer_chat_link(self, secret: str, workspace: str, user: str, name: str, lives: timedelta) -> None:
        """Keep an address by which somebody may make this account theirs, once."""
        table, now = tables.chat_link_offers, datetime.now(UTC)
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.expires <= now))
            own = select(table.c.hash).where(table.c.workspace == workspace, table.c.account == user)
            known = connection.execute(own.order_by(table.c.expires.desc(), table.c.hash)).scalars().all()
            connection.execute(delete(table).where(table.c.hash.in_(known[MOST_OFFERS - 1 :])))
            values = {"workspace": workspace, "account": user, "name": name, "expires": now + lives}
            connection.execute(insert(table).values(hash=_hash(secret), **values))

    def offered_chat_link(self, secret: str) -> Account:
        """Return which account the address is about, without using it up.

        Raises:
            NotAllowed: It is none, was used or is too old.
        """
        table = tables.chat_link_offers
        with reading(self._engine) as connection:
            return _offered(connection.execute(select(table).where(table.c.hash == _hash(secret))).first())

    def link_chat(
        self, secret: str, person: str, uid: int | None, vouched: str | None, lives: timedelta
    ) -> ChatLink:
        """Use the address up and make its account this person's; another's link to it ends.

        Raises:
            NotAllowed: It is none, was used or is too old.
        """
        offers, table, now = tables.chat_link_offers, tables.chat_links, datetime.now(UTC)
        with writing(self._engine) as connection:
            wanted = offers.c.hash == _hash(secret)
            found = _offered(connection.execute(select(offers).where(wanted)).first())
            account = (table.c.workspace == found.workspace, table.c.account == found.user)
            connection.execute(delete(offers).where(wanted))
            connection.execute(delete(table).where(*account))
            link = ChatLink(
                workspace=found.workspace,
                user=found.user,
                name=found.name,
                person=person,
                uid=uid,
                vouched=vouched,
                since=now,
                expires=now + lives,
            )
            values = link.model_dump(exclude={"user"}) | {"account": link.user}
            connection.execute(insert(table).values(values))
            body = {"workspace": link.workspace, "expires": link.expires.isoformat()}
            append(connection, person, Via.WEB, "chat account linked", link.user, body)
        return link

    def chat_link(self, workspace: str, user: str) -> ChatLink | None:
        """Return which person the account is, None where it is nobody or was one too long ago."""
        table = tables.chat_links
        with reading(self._engine) as connection:
            wanted = (table.c.workspace == workspace, table.c.account == user)
            row = connection.execute(select(table).where(*wanted)).first()
        found = _link(row) if row is not None else None
        return found if found is not None and found.expires > datetime.now(UTC) else None

    def chat_links(self, person: str | None = None) -> tuple[ChatLink, ...]:
        """Return the links of a person, or all of them, those that have ended too."""
        table = tables.chat_links
        wanted = select(table).order_by(table.c.person, table.c.workspace, table.c.account)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted if person is None else wanted.where(table.c.person == person))
            return tuple(map(_link, rows))

    def unlink_chat(self, workspace: str, user: str, by: str, via: Via, reason: str) -> bool:
        """Ensure that the account is nobody; return whether it was somebody until now."""
        table = tables.chat_links
        with writing(self._engine) as connection:
            wanted = (table.c.workspace == workspace, table.c.account == user)
            known = connection.execute(select(table).where(*wanted)).first()
            if known is None:
                return False
            connection.execute(delete(table).where(*wanted))
            connection.execute(delete(tables.chat_codes).where(tables.chat_codes.c.person == known.person))
            body = {"workspace": workspace, "person": known.person, "reason": reason}
            append(connection, by, via, "chat account unlinked", user, body)
            return True

    def keep_code(self, written: str, code: Code) -> None:
        """Keep a code; whatever the person was to confirm of this fleet before is void."""
        table = tables.chat_codes
        mine = (table.c.person == code.person, table.c.fleet == code.fleet)
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.expires <= datetime.now(UTC) - LIVES))
            connection.execute(delete(table).where(*mine))
            values = code.model_dump() | {"hash": _coded(code, written)}
            connection.execute(insert(table).values(values))

    def use_code(self, person: str, workspace: str, channel: str, written: str, message: str) -> Code | None:
        """Use up the person's code of that room; None where they have none that is good.

        The same message may use it again: whoever was killed before acting goes on. A wrong one counts
        against all codes that the person has there.
        """
        table = tables.chat_codes
        mine = (table.c.person == person, table.c.workspace == workspace, table.c.channel == channel)
        with writing(self._engine) as connection:
            rows = connection.execute(select(table).where(*mine)).all()
            good = [row for row in rows if _is_good(row, written, message)]
            if not good:
                connection.execute(update(table).where(*mine).values(wrong=table.c.wrong + 1))
                return None
            found = good[0]
            one = (table.c.person == person, table.c.fleet == found.fleet)
            connection.execute(update(table).where(*one).values(used_by=message))
        return _code(found)

    def whose_code(self, workspace: str, channel: str, written: str) -> Code | None:
        """Return whose code of that room this is that can still be used, None when it is nobody's."""
        table = tables.chat_codes
        there = (table.c.workspace == workspace, table.c.channel == channel)
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(*there)).all()
        return next((_code(row) for row in rows if _is_good(row, written, "")), None)

    def cards_shown(self, workspace: str) -> dict[str, dict[tuple[str, str], ShownCard]]:
        """Return the cards that may still change, by fleet, and there by room and change."""
        table = tables.chat_cards
        with reading(self._engine) as connection:
            wanted = (table.c.workspace == workspace, table.c.over.is_(False))
            rows = connection.execute(select(table).where(*wanted)).all()
        found = defaultdict[str, dict[tuple[str, str], ShownCard]](dict)
        for row in rows:
            found[row.fleet][row.channel, row.change] = _card(row)
        return found

    def cards_of(self, workspace: str, changes: Sequence[str]) -> dict[tuple[str, str], ShownCard]:
        """Return the cards of these changes, by room and change."""
        table = tables.chat_cards
        with reading(self._engine) as connection:
            wanted = (table.c.workspace == workspace, table.c.change.in_(changes))
            rows = connection.execute(select(table).where(*wanted)).all()
        return {(row.channel, row.change): _card(row) for row in rows}

    def keep_card(self, card: ShownCard, fleet: str, *, over: bool) -> None:
        """Note where a card is, and what it shows now; the message that was noted first stays its place."""
        table = tables.chat_cards
        key = (
            table.c.workspace == card.workspace,
            table.c.channel == card.channel,
            table.c.change == card.change,
        )
        said = {"digest": card.digest, "over": over, "at": datetime.now(UTC)}
        with writing(self._engine) as connection:
            if connection.execute(update(table).where(*key).values(said)).rowcount == 0:
                connection.execute(insert(table).values(card.model_dump() | said | {"fleet": fleet}))

    def silent_rooms(self) -> tuple[SilentRoomOf, ...]:
        """Return the rooms of all fleets in which the process of the chat receives nothing."""
        table = tables.chat_silent_rooms
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).order_by(table.c.fleet, table.c.channel)).all()
        return tuple(SilentRoomOf(**row._mapping) for row in rows)  # noqa: SLF001 - public under this name

    def keep_silent_rooms(
        self, workspace: str, found: Collection[SilentRoomOf], others: Collection[str]
    ) -> None:
        """Keep these as the silent rooms of a workspace, but those of other fleets as they are."""
        table = tables.chat_silent_rooms
        known = [one for one in self.silent_rooms() if one.workspace == workspace and one.fleet not in others]
        if sorted(known, key=repr) == sorted(found, key=repr):
            return
        with writing(self._engine) as connection:
            for one in known:
                key = (table.c.workspace, table.c.channel, table.c.fleet)
                values = (one.workspace, one.channel, one.fleet)
                connection.execute(delete(table).where(*(c == v for c, v in zip(key, values, strict=True))))
            if found:
                connection.execute(insert(table), [one.model_dump() for one in found])


def _is_good(row: "Row[Any]", written: str, message: str) -> bool:
    code = _code(row)
    alike = hmac.compare_digest(row.hash, _coded(code, written))
    unused = code.used_by is None or code.used_by == message
    return alike and unused and code.wrong < TRIES and code.expires > datetime.now(UTC)


def _coded(code: Code, written: str) -> str:
    return _hash(f"{code.person}/{code.fleet}/{code.state}/{written}")


def _code(row: "Row[Any]") -> Code:
    return Code(**{field: getattr(row, field) for field in Code.model_fields})


def _card(row: "Row[Any]") -> ShownCard:
    return ShownCard(**{field: getattr(row, field) for field in ShownCard.model_fields})


def _link(row: "Row[Any]") -> ChatLink:
    known = {field: getattr(row, field) for field in ChatLink.model_fields if field != "user"}
    return ChatLink(**known, user=row.account)


def _offered(row: "Row[Any] | None") -> Account:
    if row is None or row.expires <= datetime.now(UTC):
        raise NotAllowed(
            'this link was used, is older than ten minutes or is none; say "link" in the chat again'
        )
    return Account(workspace=row.workspace, user=row.account, name=row.name, expires=row.expires)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
