"""Whose turn it is: what is due on a spare gateway, and what is in its way."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from policies.drill_turns import next_turn, place_of
from policies.model.fleet import Fleet
from policies.model.spare import SpareDrills
from tests.workflows.world import fleet_of

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SPARE = SpareDrills(spare=("gw-3", "gw-4"))
FLEET = fleet_of("edge").model_copy(update={"drills": SPARE})


def test_what_was_never_rehearsed_is_first_and_then_what_was_longest_ago() -> None:
    days = timedelta(days=1)
    past = {("way-open", "gw-3"): NOW - 9 * days}
    first = next_turn(FLEET, past, NOW, open_until=LATER, under_way=None)
    assert (first.drill, first.gateway) == ("way-open", "gw-4")
    past[("way-open", "gw-4")] = NOW - 8 * days
    second = next_turn(FLEET, past, NOW, open_until=LATER, under_way=None)
    assert second.gateway == "gw-3"


@given(some.integers(0, 20), some.booleans(), some.booleans(), some.booleans())
def test_nothing_begins_before_it_is_due_or_without_a_window_or_beside_a_change(
    days: int, is_open: bool, is_busy: bool, is_declared: bool
) -> None:
    past = {("way-open", name): NOW - timedelta(days=days) for name in SPARE.spare}
    fleet = FLEET if is_declared else fleet_of("edge")
    turn = next_turn(
        fleet, past, NOW, open_until=LATER if is_open else None, under_way="edge-7" if is_busy else None
    )
    assert (turn.gateway is not None) is (days >= 7 and is_open and not is_busy and is_declared)
    assert turn.sentence


def test_a_spare_gateway_is_one_of_the_fleet_and_a_drill_one_that_harms_nobody() -> None:
    content = fleet_of("edge").model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValidationError, match="gw-9 is no gateway of edge"):
        Fleet.model_validate(content | {"drills": {"spare": ["gw-9"]}})
    with pytest.raises(ValidationError, match="way-open"):
        SpareDrills.model_validate({"spare": ["gw-1"], "which": ["crash"]})


def test_a_place_is_a_name_however_long_the_others_are() -> None:
    assert place_of("edge", "gw-9") == "edge.gw-9"
    assert len(place_of("e" * 63, "g" * 63)) == 63
