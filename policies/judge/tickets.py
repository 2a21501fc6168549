"""Tickets that arrive by signed webhook, as complaints do: genuine, fresh, and about their own time."""

import json
from datetime import timedelta

from pydantic import ValidationError

from policies.judge.complaints import FRESH, MOST_BYTES, require_genuine
from policies.model.errors import BadInput
from policies.model.ticket import Ticket

LATE = timedelta(hours=24)
"""How old the state of a ticket may be that is told; an outage of the sender is over by then."""
OLDEST = timedelta(days=30)
"""How long ago a ticket may have been opened that is told of."""


def read_ticket(key: bytes, fleet: str, body: bytes, at: str, signature: str, now: float) -> Ticket:
    """Return the ticket of a webhook call about that fleet.

    Raises:
        NotAllowed: The signature does not fit, or the message is too old or from the future.
        BadInput: Signed, but no ticket, or one of a time far off; the sentence says what is wrong with it.
    """
    require_genuine("ticket", key, fleet, body, at, signature, now)
    try:
        ticket = Ticket.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])) or "it", first["msg"]
        raise BadInput(f"the ticket is none: {where}: {what}"[:500]) from error
    except (ValueError, RecursionError) as error:
        raise BadInput("the ticket must be JSON with id, severity, text, opened and at") from error
    ahead = FRESH.total_seconds()
    if not -ahead <= now - ticket.at <= LATE.total_seconds():
        raise BadInput(f"{ticket.id} is told of a day late, or ahead; at is in seconds since the epoch")
    if not -ahead <= now - ticket.opened <= OLDEST.total_seconds():
        raise BadInput(f"{ticket.id} was opened over 30 days ago, or later than now; opened is in seconds")
    if ticket.closed is not None and ticket.closed > now + ahead:
        raise BadInput(f"{ticket.id} is closed later than now; closed is in seconds since the epoch")
    return ticket


__all__ = ["LATE", "MOST_BYTES", "OLDEST", "read_ticket"]
