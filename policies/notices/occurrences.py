"""Occurrences: what is new of a subject becomes notices, and what is not so any more is settled by one."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from policies.model.notice import Notice
from policies.model.value import sentence
from policies.notices.changes import Fact
from policies.notices.states import FINAL, KINDS, NoticeState


class Subject(NamedTuple):
    """What facts are about."""

    name: str
    """The change, or the fleet, or a gateway of it."""
    fleet: str
    change: str | None = None


class Lasting(NamedTuple):
    """A notice of the subject that nothing has settled yet."""

    key: str
    state: str


def key_of(subject: Subject, state: NoticeState, mark: str) -> str:
    """Return the key of one occurrence, the same whoever finds it."""
    return f"{subject.name}/{state.value}{f'/{mark}' if mark else ''}"[:200]


def notices_of(
    subject: Subject,
    facts: Sequence[Fact],
    lasting: Sequence[Lasting],
    counts: Mapping[str, int],
    scope: Collection[NoticeState],
    at: datetime,
) -> tuple[Notice, ...]:
    """Return the notices that follow, the oldest first.

    Args:
        subject: What the facts are about.
        facts: What is so, or has happened.
        lasting: What people were told of the subject that nothing has settled yet.
        counts: How often they were told of each state before.
        scope: Of which states the facts say everything: one that lasts and is missing is over.
        at: When this was found.
    """
    known = {fact.state.value for fact in facts if _is_known(fact, lasting)}
    now = known | {fact.state.value for fact in facts if not fact.reasons}
    over = [one for one in lasting if one.state in scope and one.state not in now]
    found: list[Notice] = []
    for fact in facts:
        kind = KINDS[fact.state]
        if kind.waits and fact.state.value in known:
            continue
        mark = fact.mark or (str(counts.get(fact.state.value, 0) + 1) if kind.waits else "")
        mark = ".".join((mark, *fact.reasons))
        # Each a moment later than the one before it, since sinks are told in the order of time.
        found.append(notice_of(subject, fact, mark, at + timedelta(microseconds=len(found))))
    if not over:
        return tuple(found)
    news = [one for one in found if KINDS[NoticeState(one.state)].waits or not counts.get(one.state)]
    settling = max(news, key=_weight, default=None)
    if settling is None or _weight(settling) == 0:
        went_on = Fact(_goes_on(over), f"{subject.fleet}: {_named(subject)}{_over(over)}")
        mark = over[0].key.removeprefix(f"{subject.name}/")
        settling = notice_of(subject, went_on, mark, at)
        found.append(settling)
    index = found.index(settling)
    found[index] = settling.model_copy(
        update={"resolves": over[0].key, "also_resolves": tuple(one.key for one in over[1:])}
    )
    return tuple(found)


def notice_of(subject: Subject, fact: Fact, mark: str, at: datetime) -> Notice:
    """Return one fact as a notice."""
    kind = KINDS[fact.state]
    return Notice(
        key=key_of(subject, fact.state, mark),
        fleet=subject.fleet,
        change=subject.change,
        gateway=fact.gateway,
        state=fact.state.value,
        level=kind.level,
        headline=sentence(fact.headline),
        sentences=tuple(sentence(one) for one in fact.sentences),
        offers=fact.offers,
        runbook=fact.runbook or kind.runbook,
        at=at,
    )


def _is_known(fact: Fact, lasting: Sequence[Lasting]) -> bool:
    """Return whether people were told of this state and of each of its reasons, and nothing settled it."""
    return any(
        one.state == fact.state and {*fact.reasons} <= {*one.key.rpartition("/")[2].split(".")}
        for one in lasting
    )


def _weight(notice: Notice) -> int:
    """Return how well a new notice says that what was before is over: an end says it best."""
    state = NoticeState(notice.state)
    if state in FINAL:
        return 3
    if state is NoticeState.ROLLING_BACK:
        return 2
    return 1 if KINDS[state].waits else 0


def _goes_on(over: Sequence[Lasting]) -> NoticeState:
    holds = {NoticeState.HELD, NoticeState.HARM_TO_DECIDE}
    return NoticeState.RESUMED if any(one.state in holds for one in over) else NoticeState.OVER


def _named(subject: Subject) -> str:
    return f"{subject.change} " if subject.change else ""


def _over(over: Sequence[Lasting]) -> str:
    states = ", ".join(sorted({one.state.replace("_", " ") for one in over}))
    return f"goes on; this is over: {states}"
