"""Drains that wait for a person: what they said of it last, while their instance still runs."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import func, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading
from orchestrator.store.states import read_state
from policies.model.drain import DrainEvent
from policies.model.instance import InstanceState

MOST = 200
"""Gateways that are looked at: more of them wait for the same reason."""


class _Said(NamedTuple):
    """What a drain said last of one slot."""

    seq: int
    gateway: str
    change: str
    slot: str
    why: str


class HeldDrains(Book):
    """Which drains have said that they go no further, and were told nothing since."""

    def held_drains(self, fleet: str) -> dict[str, str]:
        """Return why each of them waits, by gateway and slot."""
        table, states = tables.audit, tables.gateway_states
        mine = table.c.fleet == fleet
        held = select(table).where(mine, table.c.action == DrainEvent.HELD).order_by(table.c.seq.desc())
        moved = (
            select(table.c.subject, func.max(table.c.seq))
            .where(mine, table.c.action.in_(sorted(set(DrainEvent) - {DrainEvent.HELD})))
            .group_by(table.c.subject)
        )
        with reading(self._engine) as connection:
            said = [_said(row.seq, row.subject, row.body) for row in connection.execute(held.limit(MOST))]
            if not said:
                return {}
            later = {subject: int(seq) for subject, seq in connection.execute(moved)}
            waiting = [one for one in said if one.seq > _told(later, fleet, one)]
            of_these = states.c.gateway.in_({one.gateway for one in waiting})
            rows = connection.execute(select(states).where(states.c.fleet == fleet, of_these))
            found = {row.gateway: row.state for row in rows}
        run = {gateway: _draining(state) for gateway, state in found.items() if state is not None}
        return {
            f"{one.gateway}/{one.slot}": one.why
            for one in reversed(waiting)
            if one.slot in run.get(one.gateway, ())
        }

    def held_drains_everywhere(self) -> dict[str, int]:
        """Return how many drains of each fleet wait for an operator; fleets without any are left out."""
        table = tables.audit
        ever = select(table.c.fleet).where(table.c.action == DrainEvent.HELD, table.c.fleet.is_not(None))
        with reading(self._engine) as connection:
            fleets = sorted(connection.execute(ever.distinct()).scalars())
        counts = {fleet: len(self.held_drains(fleet)) for fleet in fleets}
        return {fleet: count for fleet, count in counts.items() if count}


def _said(seq: int, subject: str, body: str) -> _Said:
    gateway, _, change = subject.partition("/")
    slot, _, why = str(json.loads(body)["sentence"]).removeprefix("slot ").partition(": ")
    return _Said(seq, gateway, change, slot, why)


def _told(later: dict[str, int], fleet: str, one: _Said) -> int:
    """Return when the drain was last told something, or did something, of its gateway or of all of them."""
    subjects: Iterable[str] = (f"{one.gateway}/{one.change}", f"{fleet}/{one.change}")
    return max(later.get(subject, 0) for subject in subjects)


def _draining(state: str) -> frozenset[str]:
    """Return the slots that run beside the one that takes users."""
    said = read_state(state)
    if said is None:
        return frozenset()
    kept = {said.steering.serving, said.steering.trial}
    running = (one.slot for one in said.instances if one.state is InstanceState.RUNNING)
    return frozenset(slot for slot in running if slot not in kept)
