"""Incomplete ends: a rollback that ended without some gateways is complete once each of them is back."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from policies.drift import astray, spoken
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeRecord,
    ChangeResult,
    KnownGoodMove,
    Outcome,
)
from policies.model.instance import GatewayState
from policies.model.plan import ReleaseRef
from policies.model.value import Name
from policies.planning.naming import named
from policies.rollback import targets_of_unfinished
from policies.status.told import not_back


class Answer(NamedTuple):
    """What a gateway answered last, and when it was asked."""

    state: GatewayState
    at: datetime


def gateways_of(result: ChangeResult, members: Collection[Name]) -> frozenset[Name]:
    """Return the gateways that have to be back before the rollback is complete.

    These are the ones that its end names. An end that names the first of many has every gateway of the fleet
    seen: those that it does not name are among them.
    """
    return frozenset(result.incomplete) | (frozenset(members) if result.more_incomplete else frozenset())


def is_back(answer: Answer | None, known_good: ReleaseRef | None, since: datetime, now: datetime) -> bool:
    """Return whether a gateway reported after that time that it serves its known-good.

    A gateway that has not reported since may serve anything: silence is never evidence that it is back. Nor
    is an answer that is later than now: a clock was ahead when it was written down.

    Args:
        answer: What it answered last, None where that is not known.
        known_good: What it goes back to, None where nothing is known to.
        since: The last time at which it may have left its known-good.
        now: The present time by the ledger's clock.
    """
    if answer is None or known_good is None or not since < answer.at <= now:
        return False
    return astray(answer.state, known_good) is None


def completed_end(
    record: ChangeRecord,
    result: ChangeResult,
    gateways: Collection[Name],
    moves: Collection[KnownGoodMove],
    answers: Mapping[Name, Answer],
    left_out: Collection[Name],
    now: datetime,
) -> ChangeEnding | None:
    """Return the end of a rollback that has every gateway back since its incomplete end, else None.

    A gateway is back once it takes part in changes again and answered, after that end, that it serves its
    known-good, which is what the rollback leads to.

    Args:
        record: A change that ended with its rollback incomplete.
        result: How it ended, as it reported it.
        gateways: Those that have to be back (`gateways_of`).
        moves: The last move of the known-good of each of them.
        answers: What gateways answered last.
        left_out: Gateways that take part in no change now.
        now: The present time by the ledger's clock.
    """
    if record.ended is None or not gateways:
        return None
    takes_back = record.cause if record.kind is ChangeKind.GO_BACK else None
    leads_to = targets_of_unfinished(moves, record.name, takes_back)
    known_good = {move.gateway: move.release for move in moves}
    for name in gateways:
        release = known_good.get(name)
        if name in left_out or not is_back(answers.get(name), release, record.ended, now):
            return None
        if leads_to[name] != release:
            return None
    back = sorted(result.incomplete)
    seen = spoken(max(answers[name].at for name in gateways))
    one = len(back) + result.more_incomplete == 1
    more = f" and {result.more_incomplete} more" if result.more_incomplete else ""
    was = "was brought back since: seen on its" if one else "were brought back since: seen on their"
    without = record.sentence.replace(not_back(result.incomplete, result.more_incomplete), "")
    return ChangeEnding(
        change=record.name,
        outcome=Outcome.ROLLED_BACK,
        sentence=f"{without}; {named(back)}{more} {was} known-good at {seen}",
    )
