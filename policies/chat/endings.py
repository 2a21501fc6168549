"""Endings: what is said in a card's thread when its change is over, and when nobody is left on its release.

How far a card has told that is part of what its content is known by, so that each is said once.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from policies.chat.sessions import Left
from policies.model.change import ChangeRecord, ChangeResult, Outcome
from policies.model.status import ChangeStatus
from policies.status.landmarks import is_gateway_back
from policies.status.told import listed

COUNTED_FOR = timedelta(hours=24)
"""How long after its end a change that went back is waited for until nobody is left on its release."""

KEPT = 48
"""Characters that a card's content is known by, beside how far it has told."""


class Stage(StrEnum):
    """How far a card has told of its change."""

    GOES_ON = "on"
    DONE = "done"
    """It has ended; sessions may be left on its release."""
    OVER = "over"
    """There is nothing left to tell."""


def stage_of(record: ChangeRecord, left: Left | None, now: datetime) -> Stage:
    """Return how far there is something to tell; `left` is None where nothing is waited for."""
    if record.outcome is None:
        return Stage.GOES_ON
    ended = record.ended or now
    waits = left is not None and not left.is_none and now - ended < COUNTED_FOR
    return Stage.DONE if waits else Stage.OVER


def known_by(stage: Stage, content: str) -> str:
    """Return what a card is known by that has told so far, with content of this digest."""
    return f"{stage.value}-{content[:KEPT]}"


def stage_in(digest: str) -> Stage:
    """Return how far a card has told that is known by this."""
    said = digest.partition("-")[0]
    return Stage(said) if said in {*Stage} else Stage.GOES_ON


def done(
    record: ChangeRecord,
    status: ChangeStatus,
    result: ChangeResult | None,
    good: tuple[str, ...],
    left: Left | None,
    until: datetime | None,
) -> tuple[str, ...]:
    """Return what is said once when a change has ended.

    Args:
        record: The change.
        status: What it tells.
        result: How it ended, None where it could not tell that itself.
        good: Versions of known-good.
        left: How many sessions are left on its release, as last seen; None where nobody asks.
        until: When a drain ends sessions at the earliest.
    """
    report = f"Report: penstock report {record.name}"
    at = f" {record.ended:%H:%M:%S} UTC" if record.ended is not None else ""
    went_back = record.outcome in {Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE}
    if not went_back or result is None or not result.touched:
        return (f"Done{at}. {status.what}: {status.why}", report)
    every, back = result.touched + len(result.incomplete) + result.more_incomplete, result.touched
    came = [event.at for event in status.events if is_gateway_back(event)]
    read = f", at {max(came):%H:%M:%S} UTC" if came else ""
    gives = "gives" if back == 1 else "give"
    to = " or ".join(good) or "known-good"
    said = f"Done{at}. {back} of {every} gateways {gives} new sessions to {to}"
    lines = [
        f"{said}, read back from their own steering{read}.",
        *((f"Not back: {listed(result.incomplete, result.more_incomplete)}.",) * bool(result.incomplete)),
        f"Snapshots: penstock snapshot list {record.fleet} --change {record.name}",
    ]
    if left is not None and until is not None:
        counted = f" ({left.at:%H:%M:%S} UTC)" if left.at is not None else ""
        end = f"{until:%Y-%m-%d %H:%M} UTC"
        still = f"{left.counted} on {left.version}{counted}, until they end, or {end} at the earliest"
        lines.append(f"{still}; I will say when none is left.")
    return (*lines, report)


def nobody_left(left: Left, status: ChangeStatus) -> tuple[str, ...]:
    """Return what is said once when nothing is waited for any more."""
    if left.is_none:
        seen = f", seen at {left.at:%H:%M:%S} UTC" if left.at is not None else ""
        return (f"No session is left on {left.version}{seen}.",)
    still = f"{left.counted} on {left.version} a day after the end of {status.rollout}"
    return (f"{still}; I wait no longer. See: penstock drains {status.fleet}",)
