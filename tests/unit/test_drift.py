"""Who is brought back to its known-good, and when again."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.drift import pages_due, waits
from policies.model.change import PENSTOCK, Quarantine

AT = datetime(2030, 1, 1, tzinfo=UTC)
A_MINUTE, A_DAY, SOME_HOURS = 60, 24 * 60 * 60, 5 * 60 * 60
PAGES, PAGES_OF_A_SCAN, KILLED_AFTER = 200, 12, 120
"""A fleet of 10,000, and the seconds after which the engine ends a reconcile whose steps nobody takes."""

A_ROTATION = ceil(PAGES / PAGES_OF_A_SCAN)

LOOKS = 3
"""Of reconcile two, and one of the change under the fleet's lock."""


def left_out(person: str) -> Quarantine:
    return Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=person, since=AT)


def tries(row: Quarantine, until: int, phase: int = 0, look: int = 0, stopped: range = range(0)) -> list[int]:
    """Return how many seconds after it was left out reconcile tries a gateway that refuses each time.

    Args:
        row: The gateway in quarantine.
        until: Seconds.
        phase: Seconds of a minute at which the schedule of reconcile is due.
        look: Seconds that each look at the fleet lasts, and every reconcile finds the gateway after each.
        stopped: Seconds in which no worker runs; what falls into them is done afterwards.
    """
    found, second = list[int](), phase
    while second < until:
        second = stopped.stop if second in stopped else second
        for number in range(LOOKS):
            second = stopped.stop if second + look in stopped else second + look
            if waits(row, AT + timedelta(seconds=second)):
                break
            if number == LOOKS - 1:
                found.append(second)
                tried = AT + timedelta(seconds=second)
                row = row.model_copy(update={"tries": len(found), "tried": tried, "tried_in": "edge-7"})
        second = phase + ceil((second + 1 - phase) / A_MINUTE) * A_MINUTE
    return found


def test_what_penstock_gave_up_is_tried_less_and_less_often_and_never_given_up_for_good() -> None:
    minutes = [second / A_MINUTE for second in tries(left_out(PENSTOCK), 4 * 60 * A_MINUTE)]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 124, 184]


def test_what_a_person_has_left_out_is_left_alone() -> None:
    assert tries(left_out("ana"), A_DAY) == []


def test_a_step_of_the_change_that_tries_a_gateway_may_be_repeated() -> None:
    row = left_out(PENSTOCK).model_copy(update={"tries": 1, "tried": AT, "tried_in": "edge-7"})
    assert [waits(row, AT, change) for change in ("edge-7", "edge-8", "")] == [False, True, True]


def test_a_gateway_that_was_silent_for_days_is_tried_at_once_and_soon_again() -> None:
    days = 5 * A_DAY
    after = [second - days for second in tries(left_out(PENSTOCK), days + 20 * A_MINUTE, phase=days)]
    assert after == [0, 60, 180, 420, 900]


@given(
    phase=st.integers(0, 59),
    look=st.integers(0, 90),
    begin=st.integers(0, A_DAY),
    length=st.integers(0, 7_200),
)
def test_no_turn_is_missed_whatever_the_phase_the_length_of_a_look_and_a_stopped_worker(
    phase: int, look: int, begin: int, length: int
) -> None:
    promised, stopped = tries(left_out(PENSTOCK), A_DAY), range(begin, begin + length)
    tried = tries(left_out(PENSTOCK), A_DAY, phase, look, stopped)
    # A try begins with the next minute of the schedule, lasts for its looks, and the pause begins after it.
    late = A_MINUTE + LOOKS * look + A_MINUTE
    assert len(promised) == 29
    assert len(tried) >= (A_DAY - length - 64 * A_MINUTE - 7 * late) // (60 * A_MINUTE + late) + 6
    assert len(tried) <= len(promised)
    pauses = [after - before for before, after in pairwise(tried)]
    assert all(pause >= A_MINUTE for pause in pauses)
    assert [pause for pause in pauses if pause > 60 * A_MINUTE + late + length] == []


def scans(
    period: int, phase: int, look: int, stopped: range, set_back: range = range(0)
) -> list[tuple[int, ...]]:
    """Return which pages each scan asks that reaches its end, within some hours.

    Args:
        period: Seconds between two scans, unless one lasts longer.
        phase: Seconds after which the first is due.
        look: Seconds that each lasts.
        stopped: Seconds in which no worker runs.
        set_back: From which second on the clock shows less, and how much less: its length.
    """
    names = [f"gw-{number}" for number in range(PAGES)]
    asked, found, second = dict[str, datetime](), list[tuple[int, ...]](), phase
    while second < SOME_HOURS:
        second = stopped.stop if second in stopped else second
        at = AT + timedelta(seconds=second - (len(set_back) if second >= set_back.start else 0))
        due = pages_due(names, asked, 1, PAGES_OF_A_SCAN, at)
        over = second + look
        over = stopped.stop if over in stopped else over
        if over - second <= KILLED_AFTER:
            asked |= dict.fromkeys((names[page] for page in due), at)
            found.append(due)
        second = phase + ceil((over + 1 - phase) / period) * period
    return found


def longest_turn(found: list[tuple[int, ...]]) -> int:
    """Return after how many scans at most each page was asked again."""
    last, most = dict.fromkeys(range(PAGES), -1), 0
    for scan, due in enumerate(found):
        most = max(most, *(scan - last[page] for page in due))
        last |= dict.fromkeys(due, scan)
    return max(most, len(found) - min(last.values()))


@given(
    period=st.sampled_from([60, 90, 120, 240, 300]),
    phase=st.integers(0, 59),
    look=st.integers(0, KILLED_AFTER),
    begin=st.integers(0, SOME_HOURS),
    length=st.integers(0, 3_600),
)
@settings(max_examples=20)
def test_every_page_has_its_turn_whatever_the_phase_and_period_of_scans_their_length_and_a_stopped_worker(
    period: int, phase: int, look: int, begin: int, length: int
) -> None:
    found = scans(period, phase, look, range(begin, begin + length))
    assert len(found) >= 2 * A_ROTATION
    assert longest_turn(found) <= A_ROTATION


@given(begin=st.integers(0, SOME_HOURS), by=st.integers(0, 7_200))
@settings(max_examples=20)
def test_every_page_has_its_turn_after_a_clock_was_set_back(begin: int, by: int) -> None:
    """What was asked by the old clock counts as new again once the clock has come that far."""
    assert longest_turn(scans(60, 0, 20, range(0), range(begin, begin + by))) <= 3 * A_ROTATION
