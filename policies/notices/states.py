"""States that people are told of: how loud each is, whether it lasts until settled, and which page helps."""

from enum import StrEnum
from typing import NamedTuple

from policies.model.change import ChangeKind, ChangeOrder, Outcome
from policies.model.notice import NoticeLevel


class NoticeState(StrEnum):
    """What waits, or has happened."""

    STARTED = "started"
    WAITING_FOR_WINDOW = "waiting_for_window"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    WAITING_FOR_TESTS = "waiting_for_tests"
    NOT_SWITCHED = "not_switched"
    WAITING_FOR_SECOND_PERSON = "waiting_for_second_person"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    APPROVED = "approved"
    WAVE_PASSED = "wave_passed"
    HELD = "held"
    HARM_TO_DECIDE = "harm_to_decide"
    ONLY_OBSERVED = "only_observed"
    RESUMED = "resumed"
    BLIND = "blind"
    ROLLING_BACK = "rolling_back"
    ROLLBACK_INCOMPLETE = "rollback_incomplete"
    WEDGED = "wedged"
    UNBEGUN = "unbegun"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ENDED_INCOMPLETE = "ended_incomplete"
    REFUSED = "refused"
    ABORTED = "aborted"
    ENDED_HELD = "ended_held"
    QUARANTINED = "quarantined"
    STEERED_BY_HAND = "steered_by_hand"
    RETURNED = "returned"
    DRAIN_HELD = "drain_held"
    DRAINED = "drained"
    HARM_FOUND = "harm_found"
    UNWATCHED = "unwatched"
    NOT_TAKEN_BACK = "not_taken_back"
    ASTRAY = "astray"
    CERTIFICATES_LATE = "certificates_late"
    ROOM_SILENT = "room_silent"
    AUDIT_BROKEN = "audit_broken"
    PART_AWAY = "part_away"
    OVER = "over"
    NOBODY_ACTED = "nobody_acted"
    EARLIER = "earlier"
    TEST = "test"


class Kind(NamedTuple):
    """What is so of every notice of one state."""

    level: NoticeLevel
    waits: bool = False
    """Whether it is so until something settles it."""
    runbook: str | None = None
    """The page of `runbooks/` that fits."""
    of_change: bool = True
    """Whether what waits is over as soon as its change says so no more; if not, something else settles it."""


_INFO, _NEEDS, _PAGE = NoticeLevel.INFO, NoticeLevel.NEEDS_YOU, NoticeLevel.PAGE

KINDS = {
    NoticeState.STARTED: Kind(_INFO),
    NoticeState.WAITING_FOR_WINDOW: Kind(_INFO, waits=True, runbook="window-closing"),
    NoticeState.WAITING_FOR_CAPACITY: Kind(_INFO, waits=True, runbook="held-decide"),
    NoticeState.WAITING_FOR_TESTS: Kind(_NEEDS, waits=True, runbook="held-decide"),
    NoticeState.NOT_SWITCHED: Kind(_NEEDS, waits=True, runbook="gateway-unwell"),
    NoticeState.WAITING_FOR_SECOND_PERSON: Kind(_NEEDS, waits=True, runbook="rollback-waits"),
    NoticeState.WAITING_FOR_APPROVAL: Kind(_NEEDS, runbook="signature-refused"),
    NoticeState.APPROVED: Kind(_INFO),
    NoticeState.WAVE_PASSED: Kind(_INFO),
    NoticeState.HELD: Kind(_NEEDS, waits=True, runbook="held-decide"),
    NoticeState.HARM_TO_DECIDE: Kind(_NEEDS, waits=True, runbook="held-decide"),
    NoticeState.ONLY_OBSERVED: Kind(_PAGE, waits=True, runbook="held-decide"),
    NoticeState.RESUMED: Kind(_INFO),
    NoticeState.BLIND: Kind(_PAGE, waits=True, runbook="metrics-blind"),
    NoticeState.ROLLING_BACK: Kind(_INFO, runbook="canary-rejected"),
    NoticeState.ROLLBACK_INCOMPLETE: Kind(_PAGE, waits=True, runbook="rollback-incomplete"),
    NoticeState.WEDGED: Kind(_PAGE, waits=True, runbook="worker-or-temporal-down", of_change=False),
    NoticeState.UNBEGUN: Kind(_PAGE, waits=True, runbook="worker-or-temporal-down", of_change=False),
    NoticeState.PROMOTED: Kind(_INFO),
    NoticeState.ROLLED_BACK: Kind(_INFO, runbook="canary-rejected"),
    NoticeState.ENDED_INCOMPLETE: Kind(_PAGE, waits=True, runbook="rollback-incomplete"),
    NoticeState.REFUSED: Kind(_INFO),
    NoticeState.ABORTED: Kind(_INFO),
    NoticeState.ENDED_HELD: Kind(_NEEDS, waits=True, runbook="held-decide"),
    NoticeState.QUARANTINED: Kind(_NEEDS, waits=True, runbook="gateway-unwell", of_change=False),
    NoticeState.STEERED_BY_HAND: Kind(_PAGE, waits=True, runbook="wrong-version-running", of_change=False),
    NoticeState.RETURNED: Kind(_INFO),
    NoticeState.DRAIN_HELD: Kind(_NEEDS, waits=True, runbook="drain-past-deadline", of_change=False),
    NoticeState.DRAINED: Kind(_INFO),
    NoticeState.HARM_FOUND: Kind(_NEEDS, waits=True, runbook="held-decide", of_change=False),
    NoticeState.UNWATCHED: Kind(_PAGE, waits=True, runbook="metrics-blind", of_change=False),
    NoticeState.NOT_TAKEN_BACK: Kind(_NEEDS, waits=True, runbook="gateway-unwell", of_change=False),
    NoticeState.ASTRAY: Kind(_PAGE, waits=True, runbook="wrong-version-running", of_change=False),
    NoticeState.CERTIFICATES_LATE: Kind(_NEEDS, waits=True, runbook="certificate-ends", of_change=False),
    NoticeState.ROOM_SILENT: Kind(_NEEDS, waits=True, runbook="chat-down", of_change=False),
    NoticeState.AUDIT_BROKEN: Kind(_PAGE, waits=True, runbook="audit-broken", of_change=False),
    NoticeState.PART_AWAY: Kind(_PAGE, waits=True, runbook="worker-or-temporal-down", of_change=False),
    NoticeState.OVER: Kind(_INFO),
    NoticeState.NOBODY_ACTED: Kind(_PAGE, waits=True, runbook="held-decide", of_change=False),
    NoticeState.EARLIER: Kind(_INFO),
    NoticeState.TEST: Kind(_INFO),
}

OF_OUTCOMES = {
    Outcome.PROMOTED: NoticeState.PROMOTED,
    Outcome.ROLLED_BACK: NoticeState.ROLLED_BACK,
    Outcome.ROLLBACK_INCOMPLETE: NoticeState.ENDED_INCOMPLETE,
    Outcome.REFUSED: NoticeState.REFUSED,
    Outcome.ABORTED: NoticeState.ABORTED,
    Outcome.HELD: NoticeState.ENDED_HELD,
}
"""What people are told of each end of a change; a test knows when an end has none."""

_SETTLING = {ChangeKind.UPGRADE: NoticeState.PROMOTED, ChangeKind.GO_BACK: NoticeState.ROLLED_BACK}


def settling_end(order: ChangeOrder) -> NoticeState | None:
    """Return the end of this change that settles what earlier changes of the fleet have left.

    Only a promoted upgrade and a rollback of the whole fleet have one. None for a change of credentials or
    settings, an installation, an adoption, and the return of single gateways.
    """
    return None if order.bakes_on else _SETTLING.get(order.kind)


NOT_BACK = frozenset({NoticeState.ROLLBACK_INCOMPLETE, NoticeState.ENDED_INCOMPLETE})
"""What is said of a change that did not bring all of its gateways back."""

LEFT = frozenset(
    {
        NoticeState.ENDED_INCOMPLETE,
        NoticeState.ENDED_HELD,
        NoticeState.HARM_FOUND,
        NoticeState.UNWATCHED,
    }
)
"""What a change leaves behind for a later one to settle."""

FINAL = frozenset(OF_OUTCOMES.values())
"""Ends of changes."""

OF_CHANGES = frozenset(state for state, kind in KINDS.items() if kind.waits and kind.of_change)
"""What waits for as long as its change says so, or has been judged without metrics."""
