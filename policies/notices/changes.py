"""What a change's story says that people are told of, in the words of its status."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from policies.model.change import PENSTOCK_WATCH, RELOADS, ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.offer import Offer
from policies.model.plan_part import PlanHeader
from policies.model.status import ChangeStatus, Event
from policies.model.value import digest_of
from policies.model.verdict import GateVerdict
from policies.notices.states import OF_OUTCOMES, NoticeState
from policies.status.awaited import Awaited, awaited, proposes_to_go_back
from policies.status.sentences import Sentences
from policies.status.told import Told

BLIND_FOR = timedelta(minutes=2)
"""How long verdicts lack metrics before somebody is woken: a restart of Prometheus takes less."""


class Fact(NamedTuple):
    """Something that is so, or has happened."""

    state: NoticeState
    headline: str
    sentences: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    gateway: str | None = None
    runbook: str | None = None
    """The page that the status names, None where it names none."""
    mark: str = ""
    """What tells it from others of its state that happen to the same change, such as a wave's number."""
    since: datetime | None = None
    """Since when it is so, where that is known."""
    reasons: tuple[str, ...] = ()
    """Short names of why it is so: one more of them is news, though people were told of this state."""


def facts_of(order: ChangeOrder, header: PlanHeader | None, told: Told) -> tuple[Fact, ...]:
    """Return what people are told of the change as it stands; what it waits for is so until it is missing."""
    status = Sentences(order, header, told).status()
    name = f"{order.fleet}: {told.name or 'a change'}"
    found = [_fact(status, NoticeState.STARTED, f"{name} {_begun(order, told)}: {order.reason}")]
    found += [
        _fact(status, NoticeState.WAVE_PASSED, f"{name}: wave {wave} of {status.waves} has passed", str(wave))
        for wave in _passed(order, header, told)
    ]
    if told.result is not None:
        state = OF_OUTCOMES[told.result.outcome]
        found.append(_fact(status, state, f"{name} {_ended(told.result.outcome)}: {told.result.reason}"))
        return tuple(found)
    if told.goes_back:
        found.append(_fact(status, NoticeState.ROLLING_BACK, f"{name} rolls back: {status.why}"))
    if (thing := awaited(told, header)) is not None:
        state, said = _waits(thing, status)
        reasons = _reasons(told, header) if thing is Awaited.HARM else ()
        fact = _fact(status, state, f"{name}: {said}")
        found.append(fact._replace(runbook=status.runbook, reasons=reasons))
    return tuple(found)


def is_blind(told: Told) -> bool:
    """Return whether the newest verdict of the change has no metrics."""
    watched = told.phase in {Phase.OBSERVING, Phase.HELD} and told.result is None
    return watched and told.decision is not None and told.decision.verdict is GateVerdict.METRICS_UNAVAILABLE


def blind_since(verdicts: Sequence[Event]) -> datetime | None:
    """Return since when there have been no metrics, by what was told of verdicts, the newest first."""
    said = f"verdict {GateVerdict.METRICS_UNAVAILABLE.replace('_', ' ')}"
    run = list(takewhile(lambda event: event.sentence.startswith(said), verdicts))
    return run[-1].at if run else None


def blind_fact(order: ChangeOrder, header: PlanHeader | None, told: Told, since: datetime) -> Fact:
    """Return that the verdicts of a change have had no metrics since then."""
    status = Sentences(order, header, told).status()
    said = f"{order.fleet}: {told.name} is judged without metrics since {since:%H:%M:%S} UTC: {status.why}"
    return _fact(status, NoticeState.BLIND, said)._replace(since=since)


def _waits(  # noqa: C901, PLR0911 - a thing a case
    thing: Awaited, status: ChangeStatus
) -> tuple[NoticeState, str]:
    """Return what people are told while the change waits for that, and what is said of it."""
    match thing:
        case Awaited.GATEWAYS:
            return NoticeState.ROLLBACK_INCOMPLETE, f"ROLLBACK INCOMPLETE: {status.why}"
        case Awaited.SECOND_PERSON:
            return NoticeState.WAITING_FOR_SECOND_PERSON, f"{status.what}: {status.why}"
        case Awaited.TESTS:
            return NoticeState.WAITING_FOR_TESTS, status.why
        case Awaited.SWITCH:
            return NoticeState.NOT_SWITCHED, status.why
        case Awaited.HARM:
            said = f"an operator has to decide about harm: {status.needs_you or status.why}"
            return NoticeState.HARM_TO_DECIDE, said
        case Awaited.RESUME | Awaited.DECISION:
            return NoticeState.HELD, f"held: {status.needs_you or status.why}"
        case Awaited.STOP:
            return NoticeState.ONLY_OBSERVED, status.needs_you or status.why
        case Awaited.WINDOW if status.needs_you:
            return NoticeState.ONLY_OBSERVED, status.needs_you
        case Awaited.WINDOW:
            return NoticeState.WAITING_FOR_WINDOW, status.what  # which says why already
        case Awaited.CAPACITY:
            return NoticeState.WAITING_FOR_CAPACITY, status.why


def _reasons(told: Told, header: PlanHeader | None) -> tuple[str, ...]:
    """Return a short name of the harm where waves have passed, and of that of the wave under way."""
    harm = told.holds.get(PENSTOCK_WATCH)
    passed = (digest_of(harm.encode()).removeprefix("sha256:")[:8],) if harm is not None else ()
    return passed + ((f"wave-{told.wave}",) if proposes_to_go_back(told, header) else ())


def _passed(order: ChangeOrder, header: PlanHeader | None, told: Told) -> range:
    """Return the numbers of the waves that have passed."""
    if header is None or order.kind not in {ChangeKind.UPGRADE, ChangeKind.INSTALL, *RELOADS}:
        return range(0)
    if told.outcome is Outcome.PROMOTED:
        return range(1, len(header.waves) + 1)
    return range(1, told.wave)


def _begun(order: ChangeOrder, told: Told) -> str:
    """Return what is true of a change that was accepted: one that waits for its window has begun nothing."""
    before_its_first_wave = told.phase in {Phase.STARTING, Phase.HELD}
    if told.wave or told.moved or told.result is not None or not before_its_first_wave:
        return "has started"
    if told.window is not None:
        return "is accepted, and waits for its window"
    return "is accepted" if order.asks_window else "has started"


def _ended(outcome: Outcome) -> str:
    match outcome:
        case Outcome.PROMOTED:
            return "is promoted"
        case Outcome.ROLLED_BACK:
            return "is rolled back"
        case Outcome.ROLLBACK_INCOMPLETE:
            return "ended with its ROLLBACK INCOMPLETE"
        case Outcome.REFUSED:
            return "is refused"
        case Outcome.ABORTED:
            return "is aborted"
        case Outcome.HELD:
            return "has ended held"


def _fact(status: ChangeStatus, state: NoticeState, headline: str, mark: str = "") -> Fact:
    said = tuple(one for one in (status.users, status.why, status.next) if one)
    return Fact(state=state, headline=headline, sentences=said, offers=status.can_do, mark=mark)
