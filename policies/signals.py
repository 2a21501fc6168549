"""Which change a complaint or a ticket falls into, and what its gateway was at that moment."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from policies.judge.complaints import Complaint
from policies.model.change import ChangeRecord, GatewayResult, Outcome
from policies.model.signal import MOST_NAMED, Complaining, Signals, Stand, TicketRow
from policies.model.ticket import Ticket
from policies.planning.cohorts import SET_ASIDE

AFTERWARDS = timedelta(hours=24)
"""How long after its end a change is still what people complain about, unless another one has begun."""
_WENT_BACK = (Outcome.ROLLED_BACK, Outcome.ABORTED)


def span_of(record: ChangeRecord, next_began: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Return from when until when what people say falls into the change."""
    until = now if record.ended is None else min(now, record.ended + AFTERWARDS)
    return record.began, until if next_began is None else min(until, next_began)


def stand_at(record: ChangeRecord, result: GatewayResult | None, at: datetime) -> Stand:
    """Return what the change had made of a gateway at that moment, by what it wrote down of it."""
    if result is None or result.started is None or at.timestamp() < result.started:
        return Stand.UNCHANGED
    if result.state == SET_ASIDE and at >= result.at:
        return Stand.BACK
    went_back = record.outcome in _WENT_BACK and record.ended is not None and at >= record.ended
    return Stand.BACK if went_back else Stand.CHANGED


def stands_of(
    record: ChangeRecord, started: int, aside: int, gateways: int, now: datetime
) -> dict[Stand, int]:
    """Return how many gateways of a fleet stand how now: of those that it started on, some were set aside."""
    went_back = record.outcome in _WENT_BACK and record.ended is not None and now >= record.ended
    changed = 0 if went_back else started - aside
    found = {Stand.CHANGED: changed, Stand.BACK: started - changed, Stand.UNCHANGED: gateways - started}
    return {stand: count for stand, count in found.items() if count > 0}


def signals_of(
    record: ChangeRecord,
    results: Mapping[str, GatewayResult],
    complaints: Iterable[Complaint],
    tickets: Iterable[Ticket],
    *,
    stands: Mapping[Stand, int],
    cut: bool = False,
) -> Signals:
    """Return what people said while the change went on: users and tickets by what their gateway was.

    Args:
        record: The change.
        results: How the gateways fare that are named in what follows; one that it has not come to has none.
        complaints: Those that fall into it; of one user and gateway the first counts.
        tickets: Those that fall into it.
        stands: How many of the fleet's gateways stand how now.
        cut: Whether these are not all complaints.
    """
    first: dict[tuple[str, str], Complaint] = {}
    for one in sorted(complaints, key=lambda one: one.at):
        first.setdefault((one.user, one.gateway), one)
    rows: dict[tuple[str, Stand], list[Complaint]] = {}
    for one in first.values():
        stand = stand_at(record, results.get(one.gateway), datetime.fromtimestamp(one.at, UTC))
        rows.setdefault((one.gateway, stand), []).append(one)
    users = {
        stand: len({one.user for (_, of), found in rows.items() if of is stand for one in found})
        for stand in Stand
    }
    told = sorted(tickets, key=lambda one: (not one.is_open, -one.opened, one.id))
    return Signals(
        complaining=_few(rows, results),
        users={stand: count for stand, count in users.items() if count},
        named=dict(Counter(stand for _, stand in rows)),
        gateways=dict(stands),
        tickets=tuple(_row(record, results, one) for one in told[:MOST_NAMED]),
        open_tickets=sum(one.is_open for one in told),
        all_tickets=len(told),
        cut=cut,
    )


def _few(
    rows: Mapping[tuple[str, Stand], list[Complaint]], results: Mapping[str, GatewayResult]
) -> tuple[Complaining, ...]:
    found = [
        Complaining(
            gateway=gateway,
            stand=stand,
            users=len(complaints),
            since=datetime.fromtimestamp(min(one.at for one in complaints), UTC),
            wave=result.wave if result is not None else 0,
            slot=result.slot if result is not None and stand is Stand.CHANGED else None,
        )
        for (gateway, stand), complaints in rows.items()
        for result in (results.get(gateway),)
    ]
    order = list(Stand)
    return tuple(sorted(found, key=lambda one: (order.index(one.stand), -one.users, one.gateway)))[
        :MOST_NAMED
    ]


def _row(record: ChangeRecord, results: Mapping[str, GatewayResult], ticket: Ticket) -> TicketRow:
    if ticket.gateway is None:
        return TicketRow(ticket=ticket)
    result = results.get(ticket.gateway)
    opened = datetime.fromtimestamp(ticket.opened, UTC)
    return TicketRow(
        ticket=ticket, stand=stand_at(record, result, opened), wave=result.wave if result is not None else 0
    )
