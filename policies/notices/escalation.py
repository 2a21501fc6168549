"""Escalation: what becomes louder because nobody does anything, and which sink is told next."""

from datetime import datetime

from policies.model.notice import Notice, NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.notices.states import KINDS, NoticeState

ENDING = "/nobody_acted"
"""What is added to the key of what nobody acted on."""


def wants_page(rules: NoticeRules, notice: Notice, now: datetime) -> bool:
    """Whether it has needed a person for so long that somebody is to be paged if nobody has acted."""
    overdue = now - notice.at >= rules.escalation.act_within
    return notice.level is NoticeLevel.NEEDS_YOU and overdue


def page_of(rules: NoticeRules, notice: Notice, now: datetime) -> Notice:
    """Return the page for what nobody acted on; made again it is the same."""
    minutes = int(rules.escalation.act_within.total_seconds() // 60)
    kind = KINDS[NoticeState.NOBODY_ACTED]
    return notice.model_copy(
        update={
            "key": f"{notice.key[:180]}{ENDING}",
            "state": NoticeState.NOBODY_ACTED.value,
            "level": kind.level,
            "headline": f"Nobody has acted for {minutes} minutes: {notice.headline}"[:500],
            "runbook": notice.runbook or kind.runbook,
            "resolves": None,
            "also_resolves": (),
            "at": now,
        }
    )


def next_sink(
    rules: NoticeRules, notice: Notice, steps: int, last: datetime | None, now: datetime
) -> str | None:
    """Return which sink is told, too, of a page that nobody acknowledged; None when none is now."""
    if notice.level is not NoticeLevel.PAGE or steps >= len(rules.escalation.next):
        return None
    overdue = now - (last or notice.at) >= rules.escalation.acknowledge_within
    return rules.escalation.next[steps] if overdue else None
