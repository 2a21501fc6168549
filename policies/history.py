"""History: what is left of a change today, and what a rollback would take back.

Both follow from what changes did to known-good, never from how they are called or when they were.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import takewhile, tee

from policies.model.change import (
    MOVES_NOBODY,
    NOT_ASKED,
    PENSTOCK,
    RELOADS,
    ChangeKind,
    ChangeRecord,
    Outcome,
    WayBack,
)
from policies.model.errors import Conflict
from policies.model.value import Name, Value

LONGEST_UNTIL_AGAIN = timedelta(hours=1)

SHORTEST_BAKE = timedelta(minutes=1)
"""A shorter rest of a bake is not watched: the first bake began before its promotion was written down."""

_UNFINISHED = {None, Outcome.HELD, Outcome.ROLLBACK_INCOMPLETE}


class UnfinishedSettings(Value):
    """A change of settings that not every gateway has answered, and what to look for in their answers.

    Hosts say which change of settings they answered last, by the name that they were told: one of `answered`
    is this one or a later one. One of `went_back` says only that a later one was taken back there.
    """

    change: ChangeRecord
    answered: frozenset[Name]
    went_back: frozenset[Name] = frozenset()
    rests_until: datetime | None = None
    """When it is tried again after tries with which nobody got it."""


def pause_after(tries: int) -> timedelta:
    """Return how long nobody is asked after so many tries in vain: twice as long each time, up to an hour."""
    return min(LONGEST_UNTIL_AGAIN, timedelta(minutes=1 << min(tries - 1, 6)))


def standing(record: ChangeRecord) -> str:
    """Return how the change ended and what became of it since: what was taken back is never just promoted."""
    if record.outcome is None:
        return "under way"
    ended = record.outcome.replace("_", " ")
    if record.taken_back_by is None or (
        record.outcome is not Outcome.PROMOTED and record.kind not in RELOADS
    ):
        return ended
    if record.taken_back >= record.moved:
        return f"{ended}, taken back by {record.taken_back_by}"
    share = f"{record.taken_back} of {record.moved} gateways"
    return f"{ended}, taken back on {share} by {record.taken_back_by}"


def targets_of_last_change(history: Iterable[ChangeRecord]) -> WayBack:
    """Return which change a rollback takes back now, given the fleet's changes with the newest first.

    That is what the last change with an effect did. When that already went back there is nothing:
    going back twice is the same as once, and never goes forward or one release too far; an abort
    is a person's going back, whether or not it came before the first session. Changes that moved
    nothing (refused, the first install, a reload, strays brought back) are passed over, and so is an
    adoption, and the return of single gateways that failed after a promotion, which the others still
    have; one that has not ended, or not well, is to be taken back as a whole.
    """
    records, ahead = tee(history)
    older: dict[str, ChangeRecord] = {}
    for record in records:
        if record.kind in MOVES_NOBODY:
            continue
        if record.kind is ChangeKind.GO_BACK:
            # An incomplete one is finished by doing what it did: the change before it says what is left.
            went_back = record.outcome is Outcome.ROLLED_BACK and record.moved
            cause = _cause_of(record, older, ahead) if went_back else None
            in_part = cause is not None and 0 < cause.taken_back < cause.moved
            if went_back and not in_part:
                return _nothing(f"{record.name} went back already")
        elif record.outcome in _UNFINISHED:
            how = "has not ended" if record.outcome is None else "has not ended well"
            sentence = f"{record.name} {how}: its gateways return to what they had before it"
            return WayBack(change=record.name, finished=False, since=record.ended, sentence=sentence)
        elif record.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
            aborted = "was aborted; rollback --to VERSION goes to an earlier release"
            how = aborted if record.outcome is Outcome.ABORTED else "went back by itself"
            return _nothing(f"{record.name} {how}")
        elif record.outcome is Outcome.PROMOTED and record.moved:
            if record.taken_back >= record.moved:
                return _nothing(f"{record.name} was taken back by {record.taken_back_by}")
            sentence = f"the gateways that {record.name} changed return to what they had before it"
            return WayBack(change=record.name, since=record.ended, sentence=sentence)
    return _nothing("no change that could be taken back has been promoted")


def left_of_bake(promoted: ChangeRecord, kept: timedelta, at: datetime) -> timedelta | None:
    """Return how long a promotion is still to be watched, None where that time is over.

    Args:
        promoted: An upgrade that was promoted and stands.
        kept: How long its fleet watches a promotion.
        at: Now.
    """
    if promoted.ended is None:
        return None
    left = promoted.ended + kept - at
    return left if left >= min(SHORTEST_BAKE, kept / 2) else None


def reload_to_take_back(history: Iterable[ChangeRecord], named: str | None = None) -> ChangeRecord | None:
    """Return the reload whose files a rollback puts back, given the fleet's changes with the newest first.

    Without a name that is a change of settings, when nothing with an effect came after it; when it was taken
    back already, what took it back, whose cause it is. A reload of credentials is routine and is taken back
    by its name alone. None when there is no such reload.

    Raises:
        Conflict: The one that is named is not the last reload with an effect: hosts keep no others.
    """
    for record in history:
        if record.outcome is Outcome.REFUSED or not (record.kind in RELOADS or record.moved):
            continue
        if named is not None and record.kind in RELOADS:
            if named not in (record.name, record.cause, record.repeats):
                raise Conflict(f"{named} is not the last reload any more, and what was before it is not kept")
            return record
        if named is None and record.kind is not ChangeKind.RELOAD:
            return record if record.kind is ChangeKind.CONFIGURE else None
    return None


class UnfinishedReload(Value):
    """A person's reload that some gateways did not answer, and what was done about it since."""

    record: ChangeRecord
    repeats: tuple[ChangeRecord, ...] = ()
    """Reloads by which penstock asked the others again, the newest first."""

    @property
    def names(self) -> frozenset[str]:
        """Changes of which a gateway may have answered any."""
        return frozenset({self.record.name, *(repeat.name for repeat in self.repeats)})

    def is_time(self, at: datetime) -> bool:
        """Return whether to ask again: after repeats that reached nobody less and less often.

        Who comes back and goes again, or refuses each time, must not keep the fleet's lock from people.
        """
        in_vain = [*takewhile(lambda repeat: repeat.outcome is not Outcome.HELD, self.repeats)]
        if not in_vain:
            return True
        last = in_vain[0].ended or in_vain[0].began
        return at - last >= pause_after(len(in_vain))


def unfinished_reload(history: Iterable[ChangeRecord]) -> UnfinishedReload | None:
    """Return the reload of credentials that gateways are still to answer, None without one.

    Given are the fleet's reloads of credentials with the newest first. What penstock asks again by itself
    ends that only when it has reached everybody: who is silent once more is not forgotten for it.
    """
    repeats = list[ChangeRecord]()
    for record in history:
        if record.cause is not None:
            return None
        if record.requested_by != PENSTOCK:
            missed = record.outcome is Outcome.HELD and NOT_ASKED not in record.sentence
            return UnfinishedReload(record=record, repeats=tuple(repeats)) if missed else None
        if record.outcome is Outcome.PROMOTED:
            return None
        repeats.append(record)
    return None


def unfinished_settings(history: Iterable[ChangeRecord]) -> UnfinishedSettings | None:
    """Return the change of settings that the fleet is on, if some gateways may have missed it; else None.

    Given are the fleet's changes of settings with the newest first. What was refused changed nothing, and
    what was taken back is passed over with all that repeated it. Nobody goes on by itself with one that was
    stopped; what only repeats it may have been stopped for the sake of something else.
    """
    later = list[ChangeRecord]()
    gone: Name | None = None
    for record in history:
        if gone is not None:
            gone = None if record.name == gone else gone
        elif record.outcome is Outcome.ROLLED_BACK:
            gone = record.cause
        elif record.outcome is Outcome.HELD and NOT_ASKED not in record.sentence:
            return _unfinished(record, later)
        elif record.outcome is not Outcome.REFUSED and not _was_stopped_again(record):
            return None
        later.append(record)
    return None


def _was_stopped_again(record: ChangeRecord) -> bool:
    return record.outcome is Outcome.ABORTED and record.repeats is not None


def _unfinished(record: ChangeRecord, later: Sequence[ChangeRecord]) -> UnfinishedSettings:
    """Return what to look for in answers, and when the next try is due."""
    tries = [one.ended for one in later if one.repeats == record.told and one.ended is not None]
    return UnfinishedSettings(
        change=record,
        answered=frozenset({record.told, *(one.told for one in later if one.cause is None)}),
        went_back=frozenset(one.told for one in later if one.cause is not None),
        rests_until=max(tries) + pause_after(len(tries)) if tries else None,
    )


def _cause_of(
    record: ChangeRecord, older: dict[str, ChangeRecord], ahead: Iterator[ChangeRecord]
) -> ChangeRecord | None:
    """Return the change that this one follows; reads no further back than it lies."""
    while record.cause is not None and record.cause not in older:
        found = next(ahead, None)
        if found is None:
            break
        older[found.name] = found
    return older.get(record.cause or "")


def _nothing(because: str) -> WayBack:
    return WayBack(change=None, sentence=f"there is nothing to go back to: {because}")
