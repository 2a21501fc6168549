"""Pins: does what became of the newest change to a release keep the fleet from getting it again by itself?

What penstock or a person took back is not undone by a file that still asks for it. A digest names one
release for ever, so a fix is another one, which nothing pins.
"""

from collections.abc import Mapping

from policies.model.change import PENSTOCK, ChangeKind, ChangeRecord, Outcome
from policies.model.desired import Pin, WishState
from policies.model.rollback_progress import RollbackProgress
from policies.model.value import Digest

_GONE = {
    Outcome.ROLLED_BACK: "rolled back",
    Outcome.ROLLBACK_INCOMPLETE: "rolled back in part",
}
"""An aborted change is not one of these: it has moved no session, so nothing went back from its release."""


def pin_of(newest: ChangeRecord | None, taken_back_by: ChangeRecord | None = None) -> Pin | None:
    """Return what pins the fleet against the release of this change, None when nothing does.

    Args:
        newest: The newest change of the fleet that led to the release and was not refused.
        taken_back_by: The change that took gateways back from the release since, where one did.
    """
    if newest is None or newest.release_digest is None:
        return None
    if newest.kind is ChangeKind.UPGRADE and newest.outcome in _GONE:
        why = newest.sentence or _GONE[newest.outcome]
        return _pin(newest, newest.release_digest, None, newest, why)
    if taken_back_by is None or _is_wanted_still(newest, by_penstock=taken_back_by.requested_by == PENSTOCK):
        return None
    return _pin(
        newest, newest.release_digest, taken_back_by.requested_by, taken_back_by, taken_back_by.reason
    )


def _is_wanted_still(newest: ChangeRecord, *, by_penstock: bool) -> bool:
    """Return whether the release is wanted by whoever led there last, though gateways were taken back."""
    if newest.kind is ChangeKind.GO_BACK:  # whoever goes back to a release wants it, until a person leaves it
        return by_penstock
    if newest.kind is not ChangeKind.UPGRADE or newest.outcome is not Outcome.PROMOTED:
        return True
    # Of single gateways that failed after the promotion the fleet is still on it.
    return not newest.taken_back or (by_penstock and 2 * newest.taken_back < newest.moved)


def rollback_progress(end: ChangeRecord) -> RollbackProgress:
    """Return how far the rollback is that this change carries out."""
    if end.outcome is None:
        return RollbackProgress.UNDER_WAY
    is_incomplete = end.outcome is Outcome.ROLLBACK_INCOMPLETE
    return RollbackProgress.INCOMPLETE if is_incomplete else RollbackProgress.COMPLETE


def _pin(record: ChangeRecord, release: Digest, by: str | None, end: ChangeRecord, why: str) -> Pin:
    return Pin(
        release=release,
        version=record.release,
        change=record.name,
        by=by,
        at=end.ended or end.began,
        rollback=rollback_progress(end),
        why=why,
    )


def wish_state(
    wanted: Digest,
    *,
    on: Mapping[Digest, int],
    under_way: ChangeRecord | None,
    newest: ChangeRecord | None,
    last_move: ChangeRecord | None,
    pin: Pin | None,
) -> WishState:
    """Return how far a fleet is from a release.

    Single gateways that came back from it after its promotion, or were set aside, do not make it wanted
    again: whoever applies the same file twice would send them there for ever.

    Args:
        wanted: The release.
        on: How many gateways have which known-good.
        under_way: The change that goes on, None without one.
        newest: The newest change that led to the release and was not refused.
        last_move: The newest change that gave gateways another known-good.
        pin: What pins the fleet against the release.
    """
    if under_way is not None:
        return WishState.UNDER_WAY if under_way.release_digest == wanted else WishState.BUSY
    if set(on) == {wanted}:
        return WishState.REACHED
    if pin is not None:
        return WishState.PINNED
    if not on:
        return WishState.EMPTY
    return WishState.REACHED if wanted in on and _still_counts(newest, last_move) else WishState.WANTED


def _still_counts(newest: ChangeRecord | None, last_move: ChangeRecord | None) -> bool:
    """Whether the fleet was promoted to the release last, and most of it is still on it."""
    if newest is None or last_move is None or newest.outcome is not Outcome.PROMOTED:
        return False
    is_last = newest.name in (last_move.name, last_move.cause)
    return is_last and 2 * newest.taken_back < newest.moved
