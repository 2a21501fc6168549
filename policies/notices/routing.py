"""Routing: which sinks are told of a notice, and when: quiet hours delay what can wait, and never a page."""

from datetime import UTC, datetime, timedelta

from policies.model.notice import NoticeLevel
from policies.model.notice_rules import NoticeRules, QuietHours
from policies.model.people import EVERY_FLEET

_DAYS = 2
"""Days around a moment on which quiet hours may have begun that it falls into."""


def sinks_for(rules: NoticeRules, fleet: str, level: NoticeLevel) -> tuple[str, ...]:
    """Return the sinks that are told of notices of this level of the fleet, in the order of the file."""
    fits = [
        route for route in rules.routes if level in route.levels and {fleet, EVERY_FLEET} & {*route.fleets}
    ]
    named = {name for route in fits for name in route.sinks}
    return tuple(sink.name for sink in rules.sinks if sink.name in named)


def due_at(rules: NoticeRules, fleet: str, level: NoticeLevel, sink: str, at: datetime) -> datetime:
    """Return when the sink is told of something that is so at that moment: then, or when it is not quiet."""
    if level is NoticeLevel.PAGE:
        return at
    due = at
    for _ in range(1 + len(rules.quiet_hours)):  # the end of one may lie in another
        ends = [
            end
            for quiet in rules.quiet_hours
            if level.value in quiet.levels
            and {fleet, EVERY_FLEET} & {*quiet.fleets}
            and (not quiet.sinks or sink in quiet.sinks)
            and (end := _end(quiet, due)) is not None
        ]
        if not ends:
            break
        due = max(ends)
    return due


def _end(quiet: QuietHours, at: datetime) -> datetime | None:
    """Return when it is not quiet any more, None when it is not quiet at that moment."""
    today = at.astimezone(quiet.tz).date()
    for back in range(_DAYS):
        day = today - timedelta(days=back)
        begin = datetime.combine(day, quiet.begin, quiet.tz).astimezone(UTC)
        last = day if quiet.begin < quiet.to else day + timedelta(days=1)
        end = datetime.combine(last, quiet.to, quiet.tz).astimezone(UTC)
        if begin <= at < end:
            return end
    return None
