"""Quarantine: gateways that are left out of changes by name, until they are returned."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.change import PENSTOCK, Quarantine, Returns
from policies.model.operation import BREAK_GLASS
from policies.model.people import Via
from policies.returns import noted, relapses_too_often, why_left_out

_ASKED = 1_000
"""Gateways that one statement names."""

_HISTORY = {"since", "handed_over"}
"""What the same person's next reason leaves as it is."""


class Quarantines(Book):
    """Which gateways are left out, since when, why and who said so."""

    def set_quarantine(self, quarantine: Quarantine) -> bool:
        """Leave the gateway out from now on; return whether anything is new about that.

        What a person has said stays a person's; what penstock repeats began when it was first said.
        """
        return bool(self.set_quarantines((quarantine,)))

    def set_quarantines(self, quarantines: Iterable[Quarantine]) -> set[str]:
        """Leave these gateways out from now on, all or none; return those of whom anything is new."""
        with writing(self._engine) as connection:
            return {one.gateway for one in quarantines if _set(connection, one)}

    def leave_to_operators(
        self, fleet: str, reasons: Mapping[str, str], seen: Mapping[str, datetime]
    ) -> set[str]:
        """Leave gateways out that operators steered on their hosts; return which of them are left out so now.

        Not those of which the ledger says another thing by now than was seen: an operator has quarantined or
        returned them since.

        Args:
            fleet: Whose gateways.
            reasons: Why each is left out.
            seen: Since when those of them were left out that were, when that was found.
        """
        now, left = datetime.now(UTC), set[str]()
        with writing(self._engine) as connection:
            out = {one.gateway: one for one in _quarantined(connection, fleet, now)}
            for name, why in sorted(reasons.items()):
                known = out.get(name)
                is_left = known is not None and known.person == BREAK_GLASS
                if is_left or (known.since if known is not None else None) == seen.get(name):
                    row = Quarantine(fleet=fleet, gateway=name, reason=why, person=BREAK_GLASS, since=now)
                    _set(connection, row)
                    left.add(name)
        return left

    def clear_quarantine(self, fleet: str, gateway: str, person: str, reason: str) -> bool:
        """Let the gateway take part again; return whether it was left out and now is not.

        Penstock ends only what it has begun, and not of a gateway that does not keep its known-good; what a
        person has said, a person ends.
        """
        return bool(self.clear_quarantines(fleet, (gateway,), person, reason))

    def clear_quarantines(self, fleet: str, gateways: Iterable[str], person: str, reason: str) -> set[str]:
        """Let these gateways take part again, all or none; return those who were left out and now are not.

        Penstock does so with gateways that are back on their known-good, also with those not left out.
        """
        names = list(gateways)
        with writing(self._engine) as connection:
            if person == PENSTOCK:
                _note_back(connection, fleet, names)
            return {one for one in names if _clear(connection, fleet, one, person, reason)}

    def end_quarantine(self, quarantine: Quarantine, reason: str) -> bool:
        """Have penstock let the gateway take part again, unless it is left out for another reason by now.

        So is one that does not keep its known-good.
        """
        with writing(self._engine) as connection:
            fleet, gateway = quarantine.fleet, quarantine.gateway
            _note_back(connection, fleet, [gateway])
            stays = not _is_still(connection, quarantine) or _is_left_out_for_long(connection, fleet, gateway)
            return False if stays else _end(connection, fleet, gateway, PENSTOCK, reason)

    def hand_over(self, fleet: str, reasons: Mapping[str, str], person: str, reason: str) -> None:
        """Have penstock bring these gateways back that are left out, from now on; it returns each by itself.

        Args:
            fleet: Whose gateways.
            reasons: Why each is not back yet.
            person: Who says so, which ends what anybody has said before.
            reason: Why that person says so.
        """
        now = datetime.now(UTC)
        with writing(self._engine) as connection:
            for name, why in reasons.items():
                _clear(connection, fleet, name, person, reason)
                row = Quarantine(fleet=fleet, gateway=name, reason=why, person=PENSTOCK, since=now)
                _set(connection, row.model_copy(update={"handed_over": True}))

    def record_tries(self, fleet: str, gateways: Mapping[str, bool], change: str) -> None:
        """Write down that this change begins to bring back these gateways; a person's are not counted.

        A change counts once, however often it says so. One that does not keep its known-good is left out of
        changes from then on.

        Args:
            fleet: Whose gateways.
            gateways: Each with whether it drifted by no doing of a change.
            change: The name of the change.
        """
        now = datetime.now(UTC)
        with writing(self._engine) as connection:
            out = {one.gateway: one.person for one in _quarantined(connection, fleet, now)}
            before, found = _returns(connection, fleet), list[Returns]()
            for name, drifted in sorted(gateways.items()):
                known = before.get(name)
                is_counted = known is not None and known.change == change
                if out.get(name, PENSTOCK) == PENSTOCK and not is_counted:
                    took_part = drifted and name not in out
                    found.append(noted(known, name, now, change, took_part=took_part))
            _note(connection, fleet, found)
            for one in found:
                if one.gateway not in out and relapses_too_often(one, now):
                    why = why_left_out(fleet, one)
                    row = Quarantine(fleet=fleet, gateway=one.gateway, reason=why, person=PENSTOCK, since=now)
                    _set(connection, row)

    def returns(self, fleet: str) -> dict[str, Returns]:
        """Return how often gateways were brought back in the last hours, of those that were."""
        with reading(self._engine) as connection:
            return _returns(connection, fleet)

    def quarantined(self, fleet: str, at: datetime | None = None) -> tuple[Quarantine, ...]:
        """Return the gateways of the fleet that are left out at that time, now by default, by name."""
        with reading(self._engine) as connection:
            return _quarantined(connection, fleet, at or datetime.now(UTC))


def _quarantined(connection: Connection, fleet: str, at: datetime) -> tuple[Quarantine, ...]:
    table = tables.quarantine
    wanted = select(table).where(table.c.fleet == fleet, or_(table.c.until.is_(None), table.c.until > at))
    rows = connection.execute(wanted.order_by(table.c.gateway))
    return tuple(
        Quarantine(**{field: getattr(row, field) for field in Quarantine.model_fields}) for row in rows
    )


def _returns(connection: Connection, fleet: str, gateway: str | None = None) -> dict[str, Returns]:
    """Return what is remembered of the gateways of a fleet, or of one of them."""
    table = tables.returns
    wanted = select(table).where(table.c.fleet == fleet)
    if gateway is not None:
        wanted = wanted.where(table.c.gateway == gateway)
    return {
        row.gateway: Returns(**{field: getattr(row, field) for field in Returns.model_fields})
        for row in connection.execute(wanted)
    }


def _note(connection: Connection, fleet: str, found: Sequence[Returns]) -> None:
    """Remember this of gateways, in place of what was remembered before."""
    table = tables.returns
    for first in range(0, len(found), _ASKED):
        some = found[first : first + _ASKED]
        names = [one.gateway for one in some]
        connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway.in_(names)))
        connection.execute(insert(table), [{"fleet": fleet, **one.model_dump()} for one in some])


def _note_back(connection: Connection, fleet: str, gateways: Sequence[str]) -> None:
    """Remember of gateways that they are back on their known-good."""
    table = tables.returns
    for first in range(0, len(gateways), _ASKED):
        some = gateways[first : first + _ASKED]
        back = update(table).where(table.c.fleet == fleet, table.c.gateway.in_(some))
        connection.execute(back.values(came_back=True))


def _is_left_out_for_long(connection: Connection, fleet: str, gateway: str) -> bool:
    """Return whether the gateway stays left out, since it does not keep its known-good."""
    returns = _returns(connection, fleet, gateway).get(gateway)
    return relapses_too_often(returns, datetime.now(UTC))


def _set(connection: Connection, quarantine: Quarantine) -> bool:
    table = tables.quarantine
    which = (table.c.fleet == quarantine.fleet, table.c.gateway == quarantine.gateway)
    row = connection.execute(select(table).where(*which)).one_or_none()
    if row is not None and (_told_before(row, quarantine) or _stays_as_it_is(connection, row, quarantine)):
        return False
    if quarantine.person == BREAK_GLASS and (row is None or row.person != BREAK_GLASS):
        fleet, gateway = quarantine.fleet, quarantine.gateway
        before = _returns(connection, fleet, gateway).get(gateway)
        now, took_part = datetime.now(UTC), row is None
        _note(connection, fleet, [noted(before, gateway, now, None, took_part=took_part)])
    values = quarantine.model_dump(exclude=_HISTORY if row and row.person == quarantine.person else None)
    change = insert(table) if row is None else update(table).where(*which)
    connection.execute(change.values(values))
    until = quarantine.until.astimezone(UTC).isoformat() if quarantine.until else None
    body = {"reason": quarantine.reason, "until": until}
    subject = f"{quarantine.fleet}/{quarantine.gateway}"
    action = "gateway quarantined"
    append(connection, quarantine.person, "gateway", action, subject, body, fleet=quarantine.fleet)
    return True


def _clear(connection: Connection, fleet: str, gateway: str, person: str, reason: str) -> bool:
    """End a quarantine in that person's name; an operator's word ends all that is remembered, too."""
    if person != PENSTOCK:
        table = tables.returns
        connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway == gateway))
        return _end(connection, fleet, gateway, person, reason)
    if _is_left_out_for_long(connection, fleet, gateway):
        return False
    return _end(connection, fleet, gateway, person, reason, tables.quarantine.c.person == PENSTOCK)


def _end(  # who ends which one, and why
    connection: Connection,
    fleet: str,
    gateway: str,
    person: str,
    reason: str,
    *which: "ColumnElement[bool]",
) -> bool:
    table = tables.quarantine
    ended = delete(table).where(table.c.fleet == fleet, table.c.gateway == gateway, *which)
    if not connection.execute(ended).rowcount:
        return False
    subject, body = f"{fleet}/{gateway}", {"reason": reason}
    append(connection, person, Via.SYSTEM, "gateway returned", subject, body, fleet=fleet)
    return True


def _is_still(connection: Connection, quarantine: Quarantine) -> bool:
    """Return whether the gateway is left out by the same person for the same reason."""
    table = tables.quarantine
    row = select(table.c.person, table.c.reason).where(
        table.c.fleet == quarantine.fleet, table.c.gateway == quarantine.gateway
    )
    return connection.execute(row).one_or_none() == (quarantine.person, quarantine.reason)


def _stays_as_it_is(connection: Connection, row: "Row[Any]", quarantine: Quarantine) -> bool:
    """Return whether the last try says nothing new of a gateway that does not keep its known-good."""
    if not quarantine.person == PENSTOCK == row.person:
        return False
    return _is_left_out_for_long(connection, quarantine.fleet, quarantine.gateway)


def _told_before(row: "Row[Any]", quarantine: Quarantine) -> bool:
    """Whether a repeat says what is known, or speaks against a word that still holds.

    A person's holds against penstock and against what was done on a host, and that against penstock.
    """
    holds = row.until is None or row.until > datetime.now(UTC)
    weight = {PENSTOCK: 0, BREAK_GLASS: 1}
    if holds and weight.get(quarantine.person, 2) < weight.get(row.person, 2):
        return True
    return (row.reason, row.person, row.until) == (quarantine.reason, quarantine.person, quarantine.until)
