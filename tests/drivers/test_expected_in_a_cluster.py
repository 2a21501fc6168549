"""How long a cluster takes for a thing: nobody looks long before it can be there, or late where it is."""

import itertools
import time

import pytest

from activities.drivers.runtime.kubernetes.expected import LONGEST, LONGEST_FIRST, SOON, Expected


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def came_after(expected: Expected, clock: list[float], seconds: float) -> None:
    """Have a thing come so long after it was begun."""
    begun = clock[0]
    clock[0] += seconds
    expected.came(begun)


def learnt(clock: list[float], seconds: float) -> Expected:
    """Return what has learnt that the thing takes so long: slower ones teach it little each."""
    expected = Expected()
    for _ in range(1000):
        came_after(expected, clock, seconds)
    return expected


def test_the_first_look_is_just_before_the_thing_came_the_last_times(clock: list[float]) -> None:
    looks = learnt(clock, 2.0).looks(90.0)
    assert next(looks) == pytest.approx(SOON * 2.0, rel=0.01)


def test_a_thing_that_took_minutes_is_looked_for_sooner_the_next_time(clock: list[float]) -> None:
    assert next(learnt(clock, 300.0).looks(900.0)) == LONGEST_FIRST


def test_what_was_begun_before_is_looked_for_at_once(clock: list[float]) -> None:
    assert next(learnt(clock, 2.0).looks(90.0, begun_before=True)) == 0.0


def test_a_look_that_others_have_caused_puts_off_none_of_the_own_ones(clock: list[float]) -> None:
    looks = learnt(clock, 2.0).looks(90.0)
    first = next(looks)
    clock[0] += first / 2
    assert next(looks) == pytest.approx(first / 2)


def test_looks_come_rarer_and_the_last_begins_after_the_time_that_is_given(clock: list[float]) -> None:
    begun, at = clock[0], list[float]()
    for pause in Expected().looks(20.0):
        clock[0] += max(pause, 0.1)
        at.append(clock[0] - begun)
    assert at[-1] >= 20.0
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST)
