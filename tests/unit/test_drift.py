"""Who is brought back to its known-good, and when again."""

from datetime import UTC, datetime, timedelta
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.drift import pages_due

AT = datetime(2030, 1, 1, tzinfo=UTC)
A_MINUTE, A_DAY, SOME_HOURS = 60, 24 * 60 * 60, 5 * 60 * 60
PAGES, PAGES_OF_A_SCAN, KILLED_AFTER = 200, 12, 120
"""A fleet of 10,000, and the seconds after which the engine ends a reconcile whose steps nobody takes."""

A_ROTATION = ceil(PAGES / PAGES_OF_A_SCAN)


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
