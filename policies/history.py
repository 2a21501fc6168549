"""History: what is left of a change today, and what a rollback would take back.

Both follow from what changes did to known-good, never from how they are called or when they were.
"""

from collections.abc import Iterable, Iterator
from itertools import tee

from policies.model.change import MOVES_NOBODY, RELOADS, ChangeKind, ChangeRecord, Outcome, WayBack
from policies.model.errors import Conflict

_UNFINISHED = {None, Outcome.HELD, Outcome.ROLLBACK_INCOMPLETE}


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
            if named not in (record.name, record.cause):
                raise Conflict(f"{named} is not the last reload any more, and what was before it is not kept")
            return record
        if named is None and record.kind is not ChangeKind.RELOAD:
            return record if record.kind is ChangeKind.CONFIGURE else None
    return None


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
