"""Signals from people, joined with the change that they fall into; from the ledger alone."""

from datetime import UTC, datetime

from orchestrator.store.ledger import Ledger
from orchestrator.store.signals import MOST_COMPLAINTS
from policies.model.change import ChangeRecord
from policies.model.errors import Unavailable
from policies.model.signal import Signals
from policies.signals import signals_of, span_of, stands_of


def signals_about(ledger: Ledger, record: ChangeRecord, gateways: int) -> Signals | None:
    """Return what people said that falls into this change of a fleet of so many; None where nobody knows.

    A ledger that cannot tell it now keeps nobody from seeing the rest, and nothing unknown reads as silence.
    """
    now = datetime.now(UTC)
    try:
        since, until = span_of(record, ledger.next_began(record.fleet, record.number), now)
        complaints = ledger.complaints_between(record.fleet, since, until)
        tickets = ledger.tickets_between(record.fleet, since, until)
        if not complaints and not tickets:
            return Signals()
        named = {one.gateway for one in complaints}
        named |= {one.gateway for one in tickets if one.gateway is not None}
        results = ledger.results_of(record.name, named)
        started, aside = ledger.started_in(record.name)
    except Unavailable:
        return None
    return signals_of(
        record,
        results,
        complaints,
        tickets,
        stands=stands_of(record, started, aside, gateways, now),
        cut=len(complaints) == MOST_COMPLAINTS,
    )
