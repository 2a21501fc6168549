"""Who is brought back to its known-good, and when again."""

from datetime import UTC, datetime, timedelta

from policies.drift import waits
from policies.model.change import PENSTOCK, Quarantine

AT = datetime(2030, 1, 1, tzinfo=UTC)


def tried(person: str, hours: int) -> list[int]:
    """Return in which minutes reconcile tries a gateway that has been in quarantine since then."""
    row = Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=person, since=AT)
    minutes = range(hours * 60 + 1)
    return [minute for minute in minutes if not waits(row, AT + timedelta(minutes=minute, seconds=30))]


def test_what_penstock_gave_up_is_tried_less_and_less_often_and_never_given_up_for_good() -> None:
    assert tried(PENSTOCK, 3) == [1, 2, 4, 8, 16, 32, 60, 120, 180]


def test_what_a_person_has_left_out_is_left_alone() -> None:
    assert tried("ana", 24) == []
