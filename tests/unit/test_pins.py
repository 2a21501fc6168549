"""What pins a fleet against a release, and how far it is from one that a file asks for."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model.change import PENSTOCK, ChangeKind, ChangeRecord, Outcome
from policies.model.desired import WishState
from policies.model.rollback_progress import how_left
from policies.model.value import digest_of
from policies.pins import pin_of, wish_state

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
WANTED, OTHER = digest_of(b"wanted"), digest_of(b"other")


def record(number: int = 7, **more: Any) -> ChangeRecord:
    said = {
        "name": f"edge-{number}",
        "number": number,
        "fleet": "edge",
        "kind": ChangeKind.UPGRADE,
        "requested_by": "ana",
        "reason": "patches",
        "release": "1.4.0",
        "release_digest": WANTED,
        "began": AT,
        "ended": AT,
        "outcome": Outcome.PROMOTED,
        "sentence": "logins failed",
        "moved": 10,
    }
    return ChangeRecord.model_validate(said | more)


def taker(person: str = "bert", outcome: Outcome | None = Outcome.ROLLED_BACK) -> ChangeRecord:
    return record(
        8,
        kind=ChangeKind.GO_BACK,
        requested_by=person,
        release_digest=None,
        reason="calls drop",
        cause="edge-7",
        outcome=outcome,
    )


@pytest.mark.parametrize("outcome", [Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE])
def test_whatever_went_back_is_pinned(outcome: Outcome) -> None:
    pin = pin_of(record(outcome=outcome, moved=0))
    assert pin is not None
    assert (pin.release, pin.change, pin.by, pin.why) == (WANTED, "edge-7", None, "logins failed")


@pytest.mark.parametrize("outcome", [None, Outcome.PROMOTED, Outcome.HELD])
def test_what_did_not_go_back_is_not_pinned(outcome: Outcome | None) -> None:
    assert pin_of(record(outcome=outcome)) is None


def test_a_change_that_was_aborted_before_it_moved_a_session_pins_nothing() -> None:
    """newcomer 14: an abort of a change that only waited for its window made `apply` end with 5."""
    assert pin_of(record(outcome=Outcome.ABORTED, moved=0)) is None


def test_a_person_pins_by_taking_back_what_was_promoted() -> None:
    pin = pin_of(record(taken_back=3, taken_back_by="edge-8"), taker())
    assert pin is not None
    assert (pin.by, pin.why) == ("bert", "calls drop")


@pytest.mark.parametrize(
    ("outcome", "went"),
    [
        (Outcome.ROLLED_BACK, "was taken back by bert at noon"),
        (Outcome.ROLLBACK_INCOMPLETE, "was taken back by bert on some gateways only, at noon"),
        (None, "is being taken back by bert since noon"),
    ],
)
def test_a_pin_reports_a_rollback_as_done_only_once_every_gateway_is_back(
    outcome: Outcome | None, went: str
) -> None:
    """A pin line reported that a change went back, above a rollback that waited for gateways."""
    pin = pin_of(record(taken_back=3, taken_back_by="edge-8"), taker(outcome=outcome))
    assert pin is not None
    assert how_left(pin.by, pin.rollback, "noon") == went


def test_a_pin_of_a_change_that_rolled_back_some_gateways_only_reports_that() -> None:
    whole, part = (pin_of(record(outcome=one)) for one in (Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE))
    assert whole is not None
    assert part is not None
    assert how_left(whole.by, whole.rollback, "noon") == "went back at noon"
    assert how_left(part.by, part.rollback, "noon") == "went back on some gateways only, at noon"
    assert how_left(part.by, part.rollback, "") == "went back on some gateways only"


@pytest.mark.parametrize(("taken_back", "pinned"), [(1, False), (4, False), (5, True), (10, True)])
def test_single_gateways_that_penstock_takes_back_after_a_promotion_pin_no_fleet(
    taken_back: int, pinned: bool
) -> None:
    found = pin_of(record(taken_back=taken_back, taken_back_by="edge-8"), taker(PENSTOCK))
    assert (found is not None) is pinned


def test_whoever_left_a_release_after_going_back_to_it_on_purpose_pins_it() -> None:
    went = record(kind=ChangeKind.GO_BACK, outcome=Outcome.ROLLED_BACK)
    pin = pin_of(went, taker())
    assert pin is not None
    assert (pin.change, pin.by, pin.why) == ("edge-7", "bert", "calls drop")
    assert pin_of(went, taker(PENSTOCK)) is None


def test_whoever_goes_back_to_a_release_on_purpose_wants_it() -> None:
    assert pin_of(record(kind=ChangeKind.GO_BACK, outcome=Outcome.ROLLED_BACK)) is None


def state(**more: Any) -> WishState:
    said: dict[str, Any] = {
        "on": {OTHER: 10},
        "under_way": None,
        "newest": None,
        "last_move": None,
        "pin": None,
    }
    return wish_state(WANTED, **(said | more))


def test_a_fleet_is_where_all_its_gateways_are() -> None:
    assert state(on={WANTED: 10}) is WishState.REACHED
    assert state() is WishState.WANTED
    assert state(on={}) is WishState.EMPTY


def test_a_change_that_goes_on_is_never_started_again() -> None:
    assert state(under_way=record(outcome=None)) is WishState.UNDER_WAY
    assert state(under_way=record(outcome=None, release_digest=OTHER)) is WishState.BUSY


def test_gateways_that_came_back_alone_do_not_make_a_promoted_release_wanted_again() -> None:
    promoted = record(taken_back=1, taken_back_by="edge-8")
    mixed = {WANTED: 9, OTHER: 1}
    assert state(on=mixed, newest=promoted, last_move=promoted) is WishState.REACHED
    assert state(on=mixed, newest=promoted, last_move=taker(PENSTOCK)) is WishState.REACHED
    later = record(9, release_digest=OTHER)
    assert state(on=mixed, newest=promoted, last_move=later) is WishState.WANTED


@given(
    st.sampled_from([None, *Outcome]),
    st.integers(0, 10),
    st.sampled_from([PENSTOCK, "bert"]),
    st.integers(0, 10),
)
def test_what_is_pinned_is_never_wanted(
    outcome: Outcome | None, taken_back: int, person: str, still_on: int
) -> None:
    newest = record(outcome=outcome, taken_back=taken_back, taken_back_by="edge-8" if taken_back else None)
    pin = pin_of(newest, taker(person) if taken_back else None)
    on = {digest: count for digest, count in ((WANTED, still_on), (OTHER, 10 - still_on)) if count}
    found = state(on=on, newest=newest, last_move=newest, pin=pin)
    if pin is not None:
        assert found in {WishState.PINNED, WishState.REACHED}
        assert found is WishState.PINNED or set(on) == {WANTED}
