"""Addressing: whom a notice goes to, beside its own sinks those that were told of what it settles."""

from collections.abc import Collection, Mapping
from datetime import datetime

from policies.model.notice import Notice, NoticeLevel, Occasion
from policies.model.notice_rules import NoticeRules
from policies.notices.routing import due_at, sinks_for


def addressed(
    rules: NoticeRules, notice: Notice, told: Collection[str], *, at_once: bool = False
) -> Mapping[str, tuple[Occasion, datetime]]:
    """Return why each sink is told, and when.

    Args:
        rules: Who gets what.
        notice: Of what.
        told: The sinks that were told of what it settles.
        at_once: Whether that was a page, whose end does not wait for the morning.
    """

    def due(sink: str, level: NoticeLevel) -> datetime:
        return due_at(rules, notice.fleet, level, sink, notice.at)

    known = {sink.name for sink in rules.sinks}
    of_level = NoticeLevel.PAGE if at_once else notice.level
    found = {sink: (Occasion.SETTLED, due(sink, of_level)) for sink in sorted(known & {*told})}
    said = {
        sink: (Occasion.SAID, due(sink, notice.level))
        for sink in sinks_for(rules, notice.fleet, notice.level)
    }
    return found | said
