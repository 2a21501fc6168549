"""Bakes: how long a promotion is still to be watched after a change that came between has ended."""

from datetime import UTC, datetime, timedelta

import pytest

from policies.history import left_of_bake
from policies.model.change import ChangeKind, ChangeRecord, Outcome

AT = datetime(2030, 1, 2, tzinfo=UTC)
KEPT = timedelta(hours=24)


@pytest.mark.parametrize(
    ("taken_back", "since", "left"),
    [
        (0, timedelta(hours=2), timedelta(hours=22)),
        (1, timedelta(hours=2), timedelta(hours=22)),
        (2, timedelta(hours=2), None),
        (0, KEPT, None),
        (0, KEPT - timedelta(seconds=30), None),
    ],
)
def test_a_promotion_is_watched_for_the_rest_of_its_time_while_most_of_it_stands(
    taken_back: int, since: timedelta, left: timedelta | None
) -> None:
    """A7."""
    promoted = ChangeRecord(
        name="edge-1",
        number=1,
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ada",
        reason="CVE",
        release="1.3.0",
        began=AT - timedelta(hours=1),
        ended=AT,
        outcome=Outcome.PROMOTED,
        moved=4,
        taken_back=taken_back,
    )
    assert left_of_bake(promoted, KEPT, AT + since) == left
