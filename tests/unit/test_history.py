from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.history import standing, targets_of_last_change
from policies.model.change import ChangeKind, ChangeRecord, Outcome

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


def test_a_fleet_without_changes_has_nothing_to_go_back_to() -> None:
    assert targets_of_last_change([]).change is None
    assert targets_of_last_change([change(1, kind=ChangeKind.INSTALL)]).change is None


@pytest.mark.parametrize("outcome", [None, Outcome.HELD, Outcome.ROLLBACK_INCOMPLETE])
def test_a_change_that_has_not_ended_well_is_taken_back_as_a_whole(outcome: Outcome | None) -> None:
    last = targets_of_last_change([change(2, outcome), change(1, moved=3)])
    assert (last.change, last.finished) == ("edge-2", False)


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_a_reload_leaves_the_way_back_as_it_was(outcome: Outcome | None) -> None:
    last = targets_of_last_change([change(2, outcome, ChangeKind.RELOAD), change(1, moved=3)])
    assert (last.change, last.finished) == ("edge-1", True)


def test_an_incomplete_way_back_leaves_to_do_what_it_has_not_done() -> None:
    back = change(2, Outcome.ROLLBACK_INCOMPLETE, ChangeKind.GO_BACK, moved=1)
    last = targets_of_last_change([back, change(1, moved=3, taken_back=1)])
    assert (last.change, last.finished, last.since) == ("edge-1", True, AT + timedelta(hours=1))


@given(st.lists(records), st.lists(records_with(st.just(Outcome.REFUSED))))
def test_what_had_no_effect_changes_nothing_about_the_way_back(
    history: list[ChangeRecord], without_effect: list[ChangeRecord]
) -> None:
    assert targets_of_last_change([*without_effect, *history]) == targets_of_last_change(history)


@given(st.lists(records))
def test_a_way_back_that_moved_gateways_leaves_nothing_to_go_back_to(history: list[ChangeRecord]) -> None:
    back = change(9, Outcome.ROLLED_BACK, ChangeKind.GO_BACK, moved=1)
    assert targets_of_last_change([back, *history]).change is None


@given(st.lists(records))
def test_after_an_abort_there_is_nothing_to_go_back_to(history: list[ChangeRecord]) -> None:
    assert targets_of_last_change([change(9, Outcome.ABORTED), *history]).change is None


def test_the_return_of_one_gateway_leaves_the_others_a_way_back() -> None:
    alone = change(2, Outcome.ROLLED_BACK, ChangeKind.GO_BACK, moved=1, cause="edge-1")
    promoted = change(1, moved=4, taken_back=1)
    assert targets_of_last_change([alone, promoted]).change == "edge-1"
    assert targets_of_last_change([alone, change(1, moved=1, taken_back=1)]).change is None


def test_history_is_read_no_further_back_than_the_answer_lies() -> None:
    alone = change(2, Outcome.ROLLED_BACK, ChangeKind.GO_BACK, moved=1, cause="edge-1")
    history = iter([alone, change(1, moved=4, taken_back=1), change(9), change(8)])
    assert targets_of_last_change(history).change == "edge-1"
    assert [record.name for record in history] == ["edge-9", "edge-8"]


@given(st.lists(records))
def test_only_an_effect_that_stands_is_taken_back(history: list[ChangeRecord]) -> None:
    last = targets_of_last_change(history)
    if last.change is not None and last.finished:
        assert any(r.name == last.change and r.taken_back < r.moved for r in history)
