"""Counting by cursor: late, repeated, restarted and newborn counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.judge.counts import Cursor, Series, fall_without_restart, fold_series

HERE = {"instance": "a", "__name__": "logins"}


def one(*samples: tuple[float, float]) -> list[Series]:
    return [Series(HERE, samples)]


KEY = Series(HERE, ()).key


def test_what_grew_since_the_last_look_is_counted_once() -> None:
    cursor: Cursor = {KEY: (1.0, 10.0)}
    cursor, grown = fold_series(cursor, one((1, 10), (2, 13), (3, 15)), {"a": (1, 2, 3)})
    assert grown == {KEY: 5}
    cursor, grown = fold_series(cursor, one((1, 10), (2, 13), (3, 15)), {"a": (1, 2, 3)})
    assert grown == {KEY: 0}


def test_a_restarted_counter_counts_from_zero() -> None:
    _, grown = fold_series({KEY: (1.0, 100.0)}, one((2, 104), (3, 2), (4, 5)), {"a": (2, 3, 4)})
    assert grown == {KEY: 9}


@pytest.mark.parametrize(
    ("before", "samples", "fall"),
    [
        # thanos issue 7623: both servers of a pair, deduplicated
        (None, ((86.6, 78988), (87.413, 78989), (87.488, 78988), (106.6, 78995)), (78989, 78988)),
        ((60, 5015), ((45.5, 5010), (60.5, 5014), (75.5, 5018)), (5015, 5014)),
        ((60, 5015), ((45.5, 5010), (60.5, 5015), (75.5, 5018)), None),
        (None, ((1, 100), (2, 51)), (100, 51)),
        (None, ((1, 100), (2, 50)), None),
        (None, ((1, 1), (2, 0)), None),
        ((1, 100), ((1, 100), (31, 90)), (100, 90)),
        ((1, 100), ((40, 90), (41, 91)), None),
    ],
)
def test_a_fall_that_leaves_more_than_half_is_no_restart_unless_it_took_long(
    before: tuple[float, float] | None,
    samples: tuple[tuple[float, float], ...],
    fall: tuple[float, float] | None,
) -> None:
    assert fall_without_restart(before, samples, 30) == fall


def test_a_series_born_while_its_target_was_watched_counts_from_zero() -> None:
    _, grown = fold_series({}, one((3, 7), (4, 8)), {"a": (1, 2, 3, 4)})
    assert grown == {KEY: 8}


def test_a_series_whose_target_was_never_seen_before_starts_counting_at_its_first_sample() -> None:
    _, grown = fold_series({}, one((3, 7000), (4, 7001)), {"a": (3, 4)})
    assert grown == {KEY: 1}


def test_a_counter_at_zero_is_not_remembered_and_still_counts_from_zero() -> None:
    cursor, grown = fold_series({}, one((1, 0), (2, 0)), {"a": (1, 2)})
    assert (cursor, grown) == ({}, {KEY: 0})
    cursor, grown = fold_series(cursor, one((1, 0), (2, 0), (3, 4)), {"a": (2, 1, 2, 3)})
    assert (cursor, grown) == ({KEY: (3, 4)}, {KEY: 4})
    _, grown = fold_series({}, one((90, 4), (91, 5)), {"a": (2, 90, 91)})
    assert grown == {KEY: 5}


def test_samples_later_than_the_known_scrapes_wait() -> None:
    cursor, grown = fold_series({KEY: (1.0, 1.0)}, one((1, 1), (2, 2), (3, 50)), {"a": (1, 2)})
    assert (grown, cursor[KEY]) == ({KEY: 1}, (2, 2))


def test_a_target_never_reached_counts_nothing() -> None:
    assert fold_series({}, one((1, 5), (2, 9)), {}) == ({}, {})


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=60),
    st.lists(st.integers(1, 7), min_size=1, max_size=30),
    st.integers(8, 20),
    st.sampled_from([0, 1000]),
)
def test_bar_10_the_sum_of_all_folds_is_the_counters_end_minus_its_start(
    steps: list[int], gaps: list[int], lookback: int, first: int
) -> None:
    values = [sum(steps[: n + 1]) + first for n in range(len(steps))]
    samples = [(float(at), float(value)) for at, value in enumerate(values)]
    cursor, total, now, last = {KEY: samples[0]}, 0.0, 0, samples[0][0]
    for gap in [*gaps, len(samples)]:
        now = min(now + gap, len(samples) - 1)
        seen = samples[max(0, now - lookback) : now + 1]
        cursor, grown = fold_series(
            cursor, [Series(HERE, tuple(seen))], {"a": (last, *(at for at, _ in seen))}
        )
        last = seen[-1][0]
        total += grown[KEY]
    assert total == values[-1] - values[0]
