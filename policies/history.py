"""History: what is left of a change today, and what a rollback would take back.

Both follow from what changes did to known-good, never from how they are called or when they were.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from policies.model.change import (
    MOVES_NOBODY,
    NOT_ASKED,
    PENSTOCK,
    RELOADS,
    ChangeEnding,
    ChangeKind,
    ChangeRecord,
    KnownGoodMove,
    LostChange,
    Outcome,
    UnfinishedChange,
)
from policies.model.errors import Conflict
from policies.model.value import Name, Value
from policies.planning.naming import named
from policies.status.told import not_back

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
    """When it is tried again after tries with which not every gateway that was asked got it."""


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


def unfinished_change(
    history: Iterable[ChangeRecord],
    has_moved: Callable[[ChangeRecord], bool] = lambda _: True,
    *,
    ended: Name | None = None,
) -> UnfinishedChange | None:
    """Return the change that the next rollback completes, given the fleet's changes with the newest first.

    That is one that has no end, or whose own rollback is incomplete and has not been asked for again since.
    A rollback that an operator asked for has completed whatever is older than the change that it took back.
    A promotion that stands above it ends the search: what a rollback takes back is read from known-good. What
    penstock brings back by itself it completes by itself. An upgrade without an end that has moved no session
    is returned where there is no other: it ends, and hides nothing that stands under it.

    Args:
        history: The fleet's changes.
        has_moved: Whether an upgrade without an end has moved sessions.
        ended: A change that ends for the rollback, which completes nothing of it.
    """
    asked_again = set[str]()
    idle: UnfinishedChange | None = None
    for record in history:
        by_itself = record.kind is ChangeKind.GO_BACK and record.requested_by == PENSTOCK
        if record.kind in MOVES_NOBODY or by_itself:
            continue
        takes_back = record.cause if record.kind is ChangeKind.GO_BACK else None
        if record.name in asked_again:
            return idle
        is_left = record.outcome in _UNFINISHED and record.name != ended
        if is_left and takes_back not in asked_again:
            lost = record.kind is ChangeKind.UPGRADE and record.outcome is None
            found = UnfinishedChange(
                change=record.name,
                takes_back=takes_back,
                plan=record.plan,
                ended=record.outcome is not None,
                moved=not lost or has_moved(record),
            )
            if found.moved:
                return found
            idle = idle or found
        if takes_back is not None:
            asked_again.add(takes_back)
        if record.outcome is Outcome.PROMOTED and record.taken_back < record.moved:
            return idle
    return idle


def ending_of_lost(
    lost: LostChange, by: Name, *, all_back: bool = True, left: Mapping[Name, str] | None = None
) -> ChangeEnding:
    """Return the end that is true of a change whose workflow does not run any more.

    Args:
        lost: The change, and what it left once its gateways were brought back.
        by: The change that brought them back.
        all_back: Whether it brought all of those back that it was to.
        left: Its gateways that may serve its release still, each with why.
    """
    record, stand = lost.record, len(lost.before)
    outcome = Outcome.ROLLED_BACK
    if record.kind in MOVES_NOBODY:
        outcome = Outcome.HELD
        sentence = "it ended in the middle, and gateways that it had not reached are unchanged"
        if record.cause is None:
            sentence = f"{sentence}; {NOT_ASKED}"
    elif lost.is_complete:
        outcome = Outcome.PROMOTED
        sentence = f"every gateway was promoted to {record.release}; only its end was not written"
    elif stand:
        outcome = Outcome.ROLLBACK_INCOMPLETE
        sentence = f"it ended in the middle; {by} left {named(sorted(lost.before))} on {record.release}"
    elif left:
        outcome = Outcome.ROLLBACK_INCOMPLETE
        sentence = f"it ended in the middle; {by} brought gateways back{not_back(left)}"
    elif not all_back:
        sentence = f"it ended in the middle; {by} brought gateways back, and names those that are not"
    else:
        sentence = f"it ended in the middle; {by} brought its gateways back"
    return ChangeEnding(change=record.name, outcome=outcome, sentence=sentence)


def is_to_be_watched(change: ChangeRecord, moves: Iterable[KnownGoodMove]) -> bool:
    """Return whether a bake watches the change: until that ends, and then while its promotion stands.

    Args:
        change: An upgrade whose promotion has begun.
        moves: The last move of each gateway's known-good.
    """
    if change.ended is None:
        return True
    stands = any(move.change == change.name and not move.returned for move in moves)
    return change.outcome is Outcome.PROMOTED and stands


def left_of_bake(promoted: ChangeRecord, kept: timedelta, at: datetime) -> timedelta | None:
    """Return how long a promotion is still to be watched, None where that time is over.

    One of which half was taken back is not watched: its rollback is incomplete, and the bake would only
    begin it again, on gateways that an operator gave up.

    Args:
        promoted: An upgrade that was promoted and was not taken back wholly.
        kept: How long its fleet watches a promotion.
        at: Now.
    """
    if promoted.ended is None or promoted.is_taken_back:
        return None
    left = promoted.ended + kept - at
    return left if left >= min(SHORTEST_BAKE, kept / 2) else None


def reload_to_take_back(history: Iterable[ChangeRecord], named: str | None = None) -> ChangeRecord | None:
    """Return the reload whose files a rollback puts back, given the fleet's changes with the newest first.

    Without a name that is the last change of settings, whatever releases gateways got or left since: a host
    gives its settings to all that it starts. When it was taken back already, that is what took it back, whose
    cause it is. A reload of credentials is routine and is taken back by its name alone. None when there is no
    such reload.

    Raises:
        Conflict: The one that is named is not the last reload with an effect: hosts keep no others.
    """
    found, wanted = None, named
    for record in history:
        if record.outcome is Outcome.REFUSED or record.kind not in RELOADS:
            continue
        if wanted is not None and wanted not in (record.name, record.cause, record.repeats):
            raise Conflict(f"{named} is not the last reload any more, and what was before it is not kept")
        if wanted is not None or record.kind is ChangeKind.CONFIGURE:
            found = found or record
            if named is None or record.repeats is None:
                return found
            wanted = record.repeats  # no other one may have come between it and its repeat
    return found


class OrderedReloads(Value):
    """The reloads of credentials that operators ordered and that stand, and how penstock repeated them.

    Each gateway reports which reload it answered last: whether it missed one follows from that alone,
    whatever became of other gateways.
    """

    of_all: ChangeRecord | None = None
    """The one that every gateway of the fleet has to answer, or a later one."""
    of_changed: ChangeRecord | None = None
    """A later one, which only the gateways of its plan have to answer: their hosts had other credentials."""
    repeats: tuple[ChangeRecord, ...] = ()
    """Reloads by which penstock asked gateways again since the newest of both, the newest first."""

    @property
    def newest(self) -> ChangeRecord | None:
        """The reload that a gateway has answered once it is asked again: hosts note it by that name."""
        return self.of_changed or self.of_all

    def is_time(self, at: datetime) -> bool:
        """Return whether to ask again: after repeats that reached no gateway less and less often.

        One that comes back and goes again, or fails each time, must not keep the fleet's lock from operators.
        """
        in_vain = _in_vain(self.repeats, {Outcome.PROMOTED, Outcome.HELD})
        if not in_vain:
            return True
        last = in_vain[0].ended or in_vain[0].began
        return at - last >= pause_after(len(in_vain))


def ordered_reloads(
    history: Iterable[ChangeRecord], is_of_changed: Callable[[ChangeRecord], bool]
) -> OrderedReloads:
    """Return the reloads of credentials that gateways may have missed.

    A repeat by penstock ends no search: gateways that were in quarantine, or silent, are asked once they are
    back. A refused reload has changed nothing. Behind one of the whole fleet that was stopped or taken back
    no gateway is asked: it would get files that an operator has stopped.

    Args:
        history: The fleet's reloads of credentials with the newest first.
        is_of_changed: Whether a reload asked only gateways whose hosts had other credentials.
    """
    repeats, of_all, of_changed = list[ChangeRecord](), list[ChangeRecord](), list[ChangeRecord]()
    for record in takewhile(lambda one: one.cause is None, history):
        if record.requested_by == PENSTOCK:
            repeats += [] if of_changed else [record]
        elif record.outcome is not Outcome.REFUSED and is_of_changed(record):
            of_changed.append(record)
        elif record.outcome is not Outcome.REFUSED:
            of_all.append(record)
            break
    return OrderedReloads(
        of_all=next((one for one in of_all if _has_asked_everybody(one)), None),
        of_changed=next((one for one in of_changed[:1] if _has_asked_everybody(one)), None),
        repeats=tuple(repeats),
    )


def _has_asked_everybody(record: ChangeRecord) -> bool:
    """Return whether a reload came to its own end, with every gateway of its plan asked."""
    return record.outcome in {Outcome.PROMOTED, Outcome.HELD} and NOT_ASKED not in record.sentence


def _in_vain(repeats: Sequence[ChangeRecord], reached: Collection[Outcome]) -> list[ChangeRecord]:
    """Return the newest repeats, up to the last one whose outcome says that it has reached a gateway."""
    return [*takewhile(lambda repeat: repeat.outcome not in reached, repeats)]


def unfinished_settings(history: Iterable[ChangeRecord]) -> UnfinishedSettings | None:
    """Return the change of settings that the fleet is on, if some gateways may have missed it; else None.

    Given are the fleet's changes of settings with the newest first. What was refused changed nothing, and
    what was taken back is passed over with all that repeated it. Nobody goes on by itself with one that was
    stopped. However a repeat has ended, gateways that were in quarantine or silent meanwhile are still to be
    asked; while one is under way none is.
    """
    later = list[ChangeRecord]()
    gone: Name | None = None
    for record in history:
        if gone is not None:
            gone = None if record.name == gone else gone
        elif record.repeats is not None and record.outcome is not None:
            pass
        elif record.outcome is Outcome.ROLLED_BACK:
            gone = record.cause
        elif record.outcome is Outcome.HELD and NOT_ASKED not in record.sentence:
            return _unfinished(record, later)
        elif record.outcome is not Outcome.REFUSED:
            return None
        later.append(record)
    return None


def _unfinished(record: ChangeRecord, later: Sequence[ChangeRecord]) -> UnfinishedSettings:
    """Return what to look for in answers, and when the next try is due."""
    repeats = [one for one in later if one.repeats == record.told]
    in_vain = _in_vain(repeats, {Outcome.PROMOTED, Outcome.ROLLED_BACK})
    tries = [one.ended for one in in_vain if one.ended is not None]
    return UnfinishedSettings(
        change=record,
        answered=frozenset({record.told, *(one.told for one in later if one.cause is None)}),
        went_back=frozenset(one.told for one in later if one.cause is not None),
        rests_until=max(tries) + pause_after(len(tries)) if tries else None,
    )
