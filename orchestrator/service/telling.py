"""Telling: what one change has to say, from its rows in the ledger."""

from datetime import UTC, datetime

from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK, ChangeOrder, ChangeRecord, ChangeResult, Outcome
from policies.model.plan_part import PlanHeader
from policies.model.signal import Signals
from policies.model.status import ChangeStatus, Event
from policies.model.value import Value
from policies.model.verdict import VerdictRow
from policies.planning.cohorts import LEFT_OUT, SET_ASIDE
from policies.status.story import Story
from policies.status.told import Told

NEWEST = 50
"""Events of a change that its status shows; the others are asked for by page."""


class ChangeView(Value):
    """One change: its line in the history, and what it tells."""

    record: ChangeRecord
    status: ChangeStatus
    signals: Signals | None = Signals()
    """What people said while it went on; None where that is not known now."""
    harm: VerdictRow | None = None
    """The newest decision after its promotion that found harm; None without one."""


def told_of(ledger: Ledger, record: ChangeRecord, at: datetime | None = None) -> ChangeStatus:
    """Return what the change tells, and from its line what it could not tell itself.

    Whoever looks at a moment is also told how long it still waits; what is kept is told without.
    """
    newest = ledger.newest_events(record.name, NEWEST)
    events = {
        "events": tuple(Event(at=event.at, sentence=event.sentence) for event in newest),
        "earlier_events": newest[0].number if newest else 0,
    }
    row = ledger.story(record.name)
    order = row.order if row is not None else order_of(record)
    told = (row.told if row is not None else Told(name=record.name)).model_copy(update=events)
    # The change itself names the first of many.
    if told.more_aside:
        told = told.model_copy(update={"aside": told.aside | aside_of(ledger, record.name)})
    if told.more_not_back:
        told = told.naming(not_back_of(ledger, record.fleet))
    header = ledger.plan_header(order.plan) if order.plan is not None else None
    return status_of(record, order, told, header, at)


def aside_of(ledger: Ledger, change: str) -> dict[str, str]:
    """Return why each gateway of the change was left out, as the ledger has it."""
    found: dict[str, str] = {}
    for state in (SET_ASIDE, LEFT_OUT):
        after = ""
        while page := ledger.gateways_of(change, state, after=after):
            found |= {one.gateway: one.sentence for one in page}
            after = page[-1].gateway
    return found


def not_back_of(ledger: Ledger, fleet: str) -> dict[str, str]:
    """Return what keeps each gateway that rollbacks have left out until it is back."""
    return {one.gateway: one.reason for one in ledger.quarantined(fleet) if one.person == PENSTOCK}


def status_of(
    record: ChangeRecord,
    order: ChangeOrder,
    told: Told,
    header: PlanHeader | None,
    at: datetime | None = None,
) -> ChangeStatus:
    """Return what a change tells that told this, and from its line what it could not tell itself."""
    told = as_ended(record, told)
    story = Story(order, record.began, told)
    story.know(record.name, header)
    return story.status(at)


def as_ended(record: ChangeRecord, told: Told) -> Told:
    """Return what a change told with the end that its line has.

    It may have ended without telling so, and another end may have followed its own: once the gateways that a
    rollback had ended without are back, it is complete.
    """
    own = told.result
    if record.outcome is None or (own is not None and own.outcome is record.outcome):
        return told
    end = ChangeResult(rollout=record.name, outcome=record.outcome, reason=record.sentence)
    if own is not None and own.outcome is Outcome.ROLLBACK_INCOMPLETE:
        end = end.model_copy(
            update={
                "touched": own.touched + len(own.incomplete) + own.more_incomplete,
                "decision": own.decision,
                "steered_back_after": own.steered_back_after,
            }
        )
        told = told.all_back(own.incomplete)
    story = Story(order_of(record), record.began, told)
    story.end(end, record.ended or datetime.now(UTC))
    return story.dump()


def order_of(record: ChangeRecord) -> ChangeOrder:
    """Return what was asked, as far as the line of a change says that never told its story."""
    return ChangeOrder(
        fleet=record.fleet,
        kind=record.kind,
        requested_by=record.requested_by,
        reason=record.reason,
        cause=record.cause,
    )
