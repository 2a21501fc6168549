"""Samples of a window: every tick at first, fewer and fewer later, and never waited for."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.observation import ObservationOrder
from activities.sampling import LedgerSampler
from policies.model.errors import Unavailable
from policies.model.sample import MOST_OF_A_WINDOW, Sample, is_due
from policies.model.verdict import GateReading, GateVerdict
from tests.unit.judged import COHORTS, START, policy


def due(ticks: int, tick: float) -> list[int]:
    """Which ticks of a window are sampled."""
    walls = [0.0, *(number * tick for number in range(ticks))]
    return [number for number, (before, after) in enumerate(pairwise(walls)) if is_due(before, after, tick)]


@given(st.integers(1, MOST_OF_A_WINDOW), st.sampled_from([0.5, 1.0, 5.0, 15.0]))
def test_a_window_of_usual_length_is_sampled_at_every_tick(ticks: int, tick: float) -> None:
    assert due(ticks, tick) == [*range(ticks)]


@given(st.integers(0, 7))
def test_a_window_that_lasts_twice_as_long_has_half_as_many_samples_more(doublings: int) -> None:
    found = due(MOST_OF_A_WINDOW * 2**doublings, 5.0)
    assert len(found) <= MOST_OF_A_WINDOW * (1 + doublings / 2) + doublings + 1
    assert found[:MOST_OF_A_WINDOW] == [*range(MOST_OF_A_WINDOW)][: len(found)]


class Book:
    """A ledger that takes a sample when it is told to, or refuses it."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.kept: list[Sample] = []
        self.refuses = refuses

    def record_samples(self, rollout: str, wave: int, at: datetime, samples: Sequence[Sample]) -> None:
        if self.refuses:
            raise Unavailable("the ledger is away")
        self.kept += samples


def order() -> ObservationOrder:
    gates = policy()
    return ObservationOrder(rollout="edge-1", wave=1, gates=gates, cohorts=COHORTS, window=gates.window)


READINGS = (
    GateReading(gate="logins", verdict=GateVerdict.HEALTHY, reason="x", numbers={"canary_total": 4.0}),
    GateReading(gate="gone", verdict=GateVerdict.HEALTHY, reason="no sign"),
)


async def kept() -> None:
    """Wait until every sample that is under way is kept or lost."""
    mine = asyncio.current_task()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not mine and _is_keeping(task)))


def _is_keeping(task: "asyncio.Task[object]") -> bool:
    return "LedgerSampler" in str(task.get_coro())


async def test_what_has_numbers_is_kept_with_its_moment() -> None:
    book = Book()
    LedgerSampler(book).sample(order(), START + 5.0, READINGS)
    await kept()
    assert [(one.gate, one.wave, one.at.timestamp()) for one in book.kept] == [("logins", 1, START + 5.0)]


async def test_a_ledger_that_takes_no_sample_ends_no_watch(caplog: pytest.LogCaptureFixture) -> None:
    book = Book(refuses=True)
    sampler = LedgerSampler(book)
    with caplog.at_level(logging.WARNING):
        sampler.sample(order(), START + 5.0, READINGS)
        await kept()
    assert "is not kept: the ledger is away" in caplog.text
    book.refuses = False
    sampler.sample(order(), START + 10.0, READINGS)
    await kept()
    assert [one.at.timestamp() for one in book.kept] == [START + 10.0]
