"""Which facts complete a rollback that ended without some gateways."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from policies.incomplete_ends import Answer, completed_end, gateways_of
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeRecord,
    ChangeResult,
    KnownGoodMove,
    Outcome,
)
from tests.unit.fleets import NEW, OLD, state

ENDED = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
LATER = ENDED + timedelta(minutes=5)
RECORD = ChangeRecord(
    name="edge-7",
    number=7,
    fleet="edge",
    kind=ChangeKind.UPGRADE,
    requested_by="ana",
    reason="CVE",
    release=NEW.version,
    outcome=Outcome.ROLLBACK_INCOMPLETE,
    sentence="users call; not back: gw-1: no power",
    began=ENDED - timedelta(hours=1),
    ended=ENDED,
)
RESULT = ChangeResult(
    rollout="edge-7",
    outcome=Outcome.ROLLBACK_INCOMPLETE,
    reason=RECORD.sentence,
    incomplete={"gw-1": "no power"},
)
BACK = Answer(state("gw-1"), LATER)
EVERY = ("gw-1", "gw-2", "gw-3")


def move(name: str, change: str = "edge-1", *, to_new: bool = False) -> KnownGoodMove:
    return KnownGoodMove(
        gateway=name,
        release=NEW if to_new else OLD,
        before=OLD if to_new else None,
        change=change,
        number=int(change.removeprefix("edge-")),
        kind=ChangeKind.UPGRADE if to_new else ChangeKind.INSTALL,
        at=ENDED - timedelta(hours=2),
        returned=False,
    )


def end(
    answers: Mapping[str, Answer],
    *,
    result: ChangeResult = RESULT,
    left_out: Collection[str] = (),
    moves: Collection[KnownGoodMove] = tuple(map(move, EVERY)),
) -> ChangeEnding | None:
    now = LATER + timedelta(minutes=1)
    return completed_end(RECORD, result, gateways_of(result, EVERY), moves, answers, left_out, now)


def test_a_rollback_is_complete_once_each_gateway_that_its_end_names_was_seen_on_its_known_good() -> None:
    found = end({"gw-1": BACK})
    assert found is not None
    assert (found.change, found.outcome) == ("edge-7", Outcome.ROLLED_BACK)
    assert found.sentence == (
        "users call; gw-1 was brought back since: seen on its known-good at 2030-01-02 03:09:00 UTC"
    )


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(state("gw-1"), ENDED),
        Answer(state("gw-1", on=NEW), LATER),
        Answer(state("gw-1", trial="b"), LATER),
        Answer(state("gw-1", serving=None), LATER),
        Answer(state("gw-1"), LATER + timedelta(minutes=20)),
    ],
    ids=["silent", "seen before the end", "on the release", "on trial", "nowhere", "by a clock ahead"],
)
def test_a_rollback_stays_incomplete_while_one_of_its_gateways_was_not_seen_back_since(
    answer: Answer | None,
) -> None:
    assert end({"gw-1": answer} if answer is not None else {}) is None


def test_a_gateway_that_is_left_out_of_changes_is_not_back() -> None:
    assert end({"gw-1": BACK}, left_out={"gw-1"}) is None
    assert end({"gw-1": BACK}, left_out={"gw-2"}) is not None


def test_a_gateway_whose_known_good_is_still_the_release_that_goes_back_is_not_back_on_it() -> None:
    serves = {"gw-1": Answer(state("gw-1", on=NEW), LATER)}
    assert end(serves, moves=[move("gw-1", "edge-7", to_new=True)]) is None
    assert end(serves, moves=[move("gw-1", "edge-9", to_new=True)]) is not None  # promoted again since


def test_an_end_that_names_the_first_of_many_takes_every_gateway_of_the_fleet() -> None:
    many = RESULT.model_copy(update={"more_incomplete": 1})
    assert end({"gw-1": BACK}, result=many) is None
    seen = {name: Answer(state(name), LATER) for name in EVERY}
    assert end(seen, result=many, left_out={"gw-3"}) is None
    found = end(seen, result=many)
    assert found is not None
    assert "gw-1 and 1 more were brought back since: seen on their known-good" in found.sentence
