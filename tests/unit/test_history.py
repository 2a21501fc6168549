from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.history import standing, unfinished_change
from policies.model.change import ChangeKind, ChangeRecord, Outcome, UnfinishedChange

AT = datetime(2030, 1, 2, tzinfo=UTC)


def change(
    number: int,
    outcome: Outcome | None = Outcome.PROMOTED,
    kind: ChangeKind = ChangeKind.UPGRADE,
    moved: int = 0,
    taken_back: int = 0,
    cause: str | None = None,
    repeats: str | None = None,
) -> ChangeRecord:
    return ChangeRecord(
        name=f"edge-{number}",
        number=number,
        fleet="edge",
        kind=kind,
        requested_by="ada",
        reason="CVE",
        release="1.3.0",
        cause=cause,
        repeats=repeats,
        began=AT,
        ended=None if outcome is None else AT + timedelta(hours=number),
        outcome=outcome,
        moved=moved,
        taken_back=taken_back,
        taken_back_by=f"edge-{number + 1}" if taken_back else None,
    )


def records_with(outcomes: st.SearchStrategy[Outcome | None]) -> st.SearchStrategy[ChangeRecord]:
    return st.builds(
        change,
        number=st.integers(1, 5),
        outcome=outcomes,
        kind=st.sampled_from(ChangeKind),
        moved=st.integers(0, 3),
        taken_back=st.integers(0, 3),
    )


records = records_with(st.sampled_from([None, *Outcome]))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (change(1, None), "under way"),
        (change(1, moved=3), "promoted"),
        (change(1, moved=3, taken_back=2), "promoted, taken back on 2 of 3 gateways by edge-2"),
        (change(1, moved=3, taken_back=3), "promoted, taken back by edge-2"),
        (change(1, Outcome.ROLLBACK_INCOMPLETE), "rollback incomplete"),
    ],
)
def test_a_change_is_worth_what_is_left_of_it(record: ChangeRecord, said: str) -> None:
    assert standing(record) == said


@given(records)
def test_nothing_that_was_taken_back_is_said_to_be_simply_promoted(record: ChangeRecord) -> None:
    assert not record.taken_back or standing(record) != "promoted"


def test_a_fleet_without_changes_has_nothing_to_complete() -> None:
    assert unfinished_change([]) is None
    assert unfinished_change([change(1, kind=ChangeKind.INSTALL)]) is None


@pytest.mark.parametrize("outcome", [None, Outcome.HELD, Outcome.ROLLBACK_INCOMPLETE])
def test_a_change_that_has_not_ended_well_is_completed_by_the_next_rollback(outcome: Outcome | None) -> None:
    found = unfinished_change([change(2, outcome), change(1, moved=3)])
    assert found == UnfinishedChange(change="edge-2", ended=outcome is not None)


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_a_reload_is_never_what_a_rollback_of_the_release_completes(outcome: Outcome | None) -> None:
    """Newcomer 10: settings and the release are two things to roll back."""
    assert unfinished_change([change(2, outcome, ChangeKind.CONFIGURE), change(1, moved=3)]) is None


def test_an_incomplete_rollback_is_completed_with_the_promotion_that_it_takes_back() -> None:
    back = change(2, Outcome.ROLLBACK_INCOMPLETE, ChangeKind.GO_BACK, moved=1, cause="edge-1")
    found = unfinished_change([back, change(1, moved=3, taken_back=1)])
    assert found is not None
    assert (found.change, found.takes_back) == ("edge-2", "edge-1")


@pytest.mark.parametrize("again", [Outcome.ROLLED_BACK, Outcome.ABORTED])
def test_an_incomplete_rollback_is_completed_once_and_never_hides_what_stands_under_it(
    again: Outcome,
) -> None:
    """A1: a gateway that is dead for days keeps nobody on a bad release."""
    incomplete = change(2, Outcome.ROLLBACK_INCOMPLETE)
    asked_again = change(3, again, ChangeKind.GO_BACK, cause="edge-2")
    assert unfinished_change([incomplete, change(1, moved=3)]) is not None
    assert unfinished_change([asked_again, incomplete, change(1, moved=3)]) is None


@given(st.lists(records), st.lists(records_with(st.just(Outcome.REFUSED))))
def test_what_had_no_effect_is_nothing_to_complete(
    history: list[ChangeRecord], without_effect: list[ChangeRecord]
) -> None:
    assert unfinished_change([*without_effect, *history]) == unfinished_change(history)


@given(st.lists(records))
def test_a_promotion_that_stands_ends_what_was_not_completed_before_it(history: list[ChangeRecord]) -> None:
    assert unfinished_change([change(9, moved=3), *history]) is None


def test_one_rollback_completes_every_incomplete_one_before_it() -> None:
    """Item 1: each incomplete rollback took one `rollback` more before the bad release under it went back."""
    incomplete = [change(3, Outcome.ROLLBACK_INCOMPLETE), change(2, Outcome.ROLLBACK_INCOMPLETE)]
    completed = change(4, Outcome.ROLLED_BACK, ChangeKind.GO_BACK, cause="edge-3")
    assert unfinished_change([completed, *incomplete, change(1, moved=3)]) is None
    lost = change(4, Outcome.ROLLED_BACK)  # its end was written when it was completed
    completed = change(5, Outcome.ROLLED_BACK, ChangeKind.GO_BACK, cause="edge-4")
    assert unfinished_change([completed, lost, *incomplete, change(1, moved=3)]) is None


def test_a_lost_upgrade_that_has_moved_nothing_hides_no_other_change_that_is_to_be_completed() -> None:
    """Item 1: what stands under it, or lies under it without an end, goes back by the same rollback."""
    history = [change(4, None), change(3, Outcome.ROLLBACK_INCOMPLETE), change(2, moved=3)]
    found = unfinished_change(history, lambda record: record.number != 4)
    assert found == UnfinishedChange(change="edge-3", ended=True)
    found = unfinished_change([change(4, None), change(3, moved=3)], lambda _: False)
    assert found == UnfinishedChange(change="edge-4", moved=False)
    lost_rollback = [change(4, None, ChangeKind.GO_BACK, cause="edge-3"), change(3, moved=3)]
    found = unfinished_change(lost_rollback, lambda _: False)
    assert found == UnfinishedChange(change="edge-4", takes_back="edge-3")


def test_history_is_read_no_further_back_than_the_answer_lies() -> None:
    history = iter([change(4, Outcome.ROLLED_BACK), change(3, moved=4, taken_back=1), change(2), change(1)])
    assert unfinished_change(history) is None
    assert [record.name for record in history] == ["edge-2", "edge-1"]
