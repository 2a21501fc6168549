"""Waves as the page shows them: a few one by one, many folded to those around the present one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.page.render import part
from orchestrator.page.waves import SHOWN, waves


@given(st.integers(0, 60), st.data())
def test_no_gateway_is_lost_in_folding_and_no_state_is_made_up(count: int, data: st.DataObject) -> None:
    sizes = {str(number): data.draw(st.integers(1, 400)) for number in range(1, count + 1)}
    now = data.draw(st.integers(0, count))
    by_wave = {str(number): {"on trial": sizes[str(number)]} for number in range(1, now + 1)}
    rows = waves({"planned": sizes, "by_wave": by_wave, "wave": now})
    assert sum(row.gateways for row in rows) == sum(sizes.values())
    counted: Counter[str] = Counter()
    for row in rows:
        counted.update(row.counts)
    assert counted["on trial"] == sum(sizes[number] for number in by_wave)
    assert len(rows) <= SHOWN


def test_the_present_wave_and_its_neighbours_stand_alone() -> None:
    change = {"planned": {str(n): 10 for n in range(1, 41)}, "by_wave": {}, "wave": 20}
    assert [row.name for row in waves(change)] == ["1 to 18", "19", "20", "21", "22 to 40"]


def test_what_is_done_to_all_at_once_waits_for_no_wave() -> None:
    assert waves({"planned": {"0": 4}, "by_wave": {}, "wave": 0}) == ()


@pytest.mark.parametrize(("phase", "said"), [("ended", "never begun"), ("observing", "waiting")])
def test_a_wave_that_an_ended_change_has_not_begun_waits_for_nothing(phase: str, said: str) -> None:
    change = {"planned": {"1": 1, "2": 3}, "by_wave": {"1": {"kept": 1}}, "wave": 1, "phase": phase}
    shown = part("regions/waves.html", change=change)
    assert [word in shown for word in ("never begun", "waiting")].count(True) == 1
    assert said in shown
