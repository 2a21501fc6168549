"""What a look for notices asks the ledger: only what is new, in bounded steps."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import distinct, exists, func, or_, select, union_all

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading
from policies.model.audit import AuditEntry
from policies.model.change import PENSTOCK, ChangeRecord
from policies.model.drain import DRAIN_OVER
from policies.model.people import Via
from policies.model.status import Event
from policies.model.verdict import HarmTold
from policies.notices.entries import (
    HARM,
    HARM_ACCEPTED,
    NOT_TAKEN_BACK,
    RETURNED,
    TAKEN_BACK,
    harm_after,
)

BY_PEOPLE = (Via.CLI.value, Via.API.value, Via.WEB.value, Via.CHAT.value)


NOT_TAKEN = frozenset({"refused", "failed"})
"""Entries of orders that had no effect, or of which nobody knows one."""


class Heard(NamedTuple):
    """When a change told something last, or ended."""

    change: str
    at: datetime


class NoticeFacts(Book):
    """What happened since the last look."""

    def changes_heard_after(self, after: Heard, most: int) -> tuple[Heard, ...]:
        """Return who told something or ended behind this one, by time and then by name, so many at most.

        A change that told something and ended since is there twice.
        """
        stories, changes = tables.stories, tables.changes
        parts = [
            select(name.label("change"), at.label("at"))
            .where(at >= after.at, or_(at > after.at, name > after.change))
            .order_by(at, name)
            .limit(most)
            .subquery()
            for name, at in ((stories.c.change, stories.c.at), (changes.c.name, changes.c.ended))
        ]
        both = union_all(*(select(part.c.change, part.c.at) for part in parts)).subquery()
        wanted = select(both.c.change, both.c.at).order_by(both.c.at, both.c.change).limit(most)
        with reading(self._engine) as connection:
            return tuple(Heard(name, at) for name, at in connection.execute(wanted))

    def changes_named(self, names: Collection[str]) -> Mapping[str, ChangeRecord]:
        """Return what the history says of these changes, by name; of those that there are."""
        table = tables.changes
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.name.in_(sorted(names))))
            fields = ChangeRecord.model_fields
            return {row.name: ChangeRecord(**{name: getattr(row, name) for name in fields}) for row in rows}

    def verdicts_told(self, change: str, most: int) -> tuple[Event, ...]:
        """Return what was told of a change's newest verdicts, and when, the newest first."""
        table = tables.events
        mine = (table.c.change == change, table.c.sentence.startswith("verdict ", autoescape=True))
        wanted = select(table.c.at, table.c.sentence).where(*mine).order_by(table.c.number.desc())
        with reading(self._engine) as connection:
            return tuple(Event(at=at, sentence=said) for at, said in connection.execute(wanted.limit(most)))

    def entries_of(self, after: int, actions: Collection[str], most: int) -> tuple[AuditEntry, ...]:
        """Return the audit record's entries of these actions after that number, the oldest first."""
        table = tables.audit
        wanted = select(table).where(table.c.seq > after, table.c.action.in_(sorted(actions)))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.seq).limit(most))
            return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in rows)  # noqa: SLF001 - public

    def drains_over(self, fleet: str, change: str, until: int) -> int:
        """Return how many parts of a change had nothing left to drain by the entry of that number."""
        table = tables.audit
        part = table.c.subject.like(f"part %/{change}")  # gateways with a drain of their own are none
        mine = (table.c.fleet == fleet, table.c.action == DRAIN_OVER, part, table.c.seq <= until)
        with reading(self._engine) as connection:
            wanted = select(func.count(distinct(table.c.subject))).where(*mine)
            return int(connection.execute(wanted).scalar_one())

    def people_acted(self, fleet: str, seq: int) -> bool:
        """Return whether a person did something to the fleet after the entry of that number.

        A machine is no person. An order counts only where it was taken: its entry is written before it is
        refused or fails, which has an entry of its own with the order's name at the beginning of its reason.
        """
        table = tables.audit
        wanted = select(table.c.person, table.c.via, table.c.subject, table.c.action, table.c.body).where(
            table.c.fleet == fleet,
            table.c.seq > seq,
            table.c.person != PENSTOCK,
            table.c.person.not_in(select(tables.tokens.c.name)),
            table.c.via.in_(BY_PEOPLE),
        )
        asked, not_taken = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        with reading(self._engine) as connection:
            for person, via, subject, action, body in connection.execute(wanted):
                if action in NOT_TAKEN:
                    order = str(json.loads(body).get("why", "")).partition(": ")[0]
                    not_taken[person, via, subject, order] += 1
                else:
                    asked[person, via, subject, action] += 1
        return any(count > not_taken[order] for order, count in asked.items())

    def harm_told(self, fleet: str) -> dict[str, HarmTold]:
        """Return the harm that was found after promotions, by change, the oldest first."""
        table, found = tables.audit, dict[str, HarmTold]()
        mine = (table.c.fleet == fleet, table.c.action.in_((HARM, HARM_ACCEPTED)))
        with reading(self._engine) as connection:
            for row in connection.execute(select(table).where(*mine).order_by(table.c.seq)):
                change = row.subject.partition("/")[2]
                found[change] = harm_after(found.get(change), row.seq, row.action, json.loads(row.body))
        return found

    def harmed_fleets(self, fleets: Collection[str]) -> tuple[str, ...]:
        """Return those of these fleets in which harm was ever found after a promotion."""
        table = tables.audit
        ever = select(table.c.fleet).where(table.c.fleet.in_(sorted(fleets)), table.c.action == HARM)
        with reading(self._engine) as connection:
            return tuple(sorted(connection.execute(ever.distinct()).scalars()))

    def not_taken_back(self, fleet: str) -> dict[str, str]:
        """Return why gateways that failed alone on a passed release still serve it, by name.

        A gateway whose known-good has moved since is none of them: what looked after it may have ended early.
        """
        table, known = tables.audit, tables.known_good
        told = table.c.action.in_((NOT_TAKEN_BACK, TAKEN_BACK, RETURNED))
        newest = select(func.max(table.c.seq)).where(table.c.fleet == fleet, told).group_by(table.c.subject)
        wanted = select(table).where(table.c.seq.in_(newest), table.c.action == NOT_TAKEN_BACK)
        with reading(self._engine) as connection:
            rows = {row.subject.partition("/")[2]: row for row in connection.execute(wanted)}
            if not rows:
                return {}
            moves = select(known.c.gateway, known.c.since).where(known.c.fleet == fleet, known.c.newest)
            moved = dict(map(tuple, connection.execute(moves.where(known.c.gateway.in_(rows)))))
        return {
            name: str(json.loads(row.body)["sentence"]).removeprefix(f"{name} ")
            for name, row in sorted(rows.items())
            if name not in moved or moved[name] < datetime.fromisoformat(row.at)
        }

    def not_taken_back_everywhere(self, fleets: Collection[str]) -> dict[str, int]:
        """Return how many gateways of each of these fleets wait to be taken back alone, where any does."""
        table = tables.audit
        ever = select(table.c.fleet).where(
            table.c.fleet.in_(sorted(fleets)), table.c.action == NOT_TAKEN_BACK
        )
        with reading(self._engine) as connection:
            found = sorted(connection.execute(ever.distinct()).scalars())
        counts = {fleet: len(self.not_taken_back(fleet)) for fleet in found}
        return {fleet: count for fleet, count in counts.items() if count}

    def gateways_astray(self) -> Mapping[str, tuple[str, ...]]:
        """Return the gateways of fleets without a change under way that take users on another release.

        A change whose workflow is gone may wait for one gateway for days, and is not under way. Gateways
        without a known-good, silent ones and those that are left out are not among them.
        """
        states, known, changes = tables.gateway_states, tables.known_good, tables.changes
        left = tables.quarantine
        out = exists().where(left.c.fleet == states.c.fleet, left.c.gateway == states.c.gateway)
        later = changes.alias()
        lost = exists().where(
            later.c.fleet == changes.c.fleet, later.c.number > changes.c.number, later.c.beside.is_(None)
        )
        busy = exists().where(changes.c.fleet == states.c.fleet, changes.c.outcome.is_(None), ~lost)
        same = (known.c.fleet == states.c.fleet) & (known.c.gateway == states.c.gateway) & known.c.newest
        other = or_(func.length(states.c.takes) == 0, known.c.release.contains(states.c.takes)).is_(False)
        wanted = (
            select(states.c.fleet, states.c.gateway)
            .join(known, same)
            .where(states.c.takes.is_not(None), other, ~busy, ~out)
            .order_by(states.c.fleet, states.c.gateway)
        )
        found: dict[str, list[str]] = {}
        with reading(self._engine) as connection:
            for fleet, gateway in connection.execute(wanted):
                found.setdefault(fleet, []).append(gateway)
        return {fleet: tuple(names) for fleet, names in found.items()}
