"""What takes longer than a page may: looked at once for all, shown with its age, never fresher than it is."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.page import stale_while_revalidate
from orchestrator.page.stale_while_revalidate import FRESH_SECONDS, KEPT_SECONDS, StaleWhileRevalidate
from policies.model.errors import Unavailable


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Looks:
    """Looks that wait until they may answer, each with the number of looks so far."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.answered = asyncio.Event()
        self.fails = False

    async def look(self) -> int:
        self.begun += 1
        try:
            await self.may_answer.wait()
            if self.fails:
                raise Unavailable("the ledger does not answer")
            return self.begun
        finally:
            self.answered.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale_while_revalidate, "PATIENCE_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_what_takes_long_is_begun_once_and_shown_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, looks = StaleWhileRevalidate[int](), Looks()
    looks.may_answer.clear()
    for _ in range(3):
        first = await values.find("ana", looks.look)
        assert (first.value, first.at, first.again) == (None, None, True)
    looks.may_answer.set()
    monkeypatch.setattr(stale_while_revalidate, "PATIENCE_SECONDS", 10)
    last = await values.find("ana", looks.look)
    assert (last.value, last.again, looks.begun) == (1, False, 1)
    assert (await values.find("ana", looks.look)).at == last.at


async def test_a_look_that_fails_is_said_and_begun_again_by_whoever_asks_next() -> None:
    values, looks = StaleWhileRevalidate[int](), Looks()
    assert (await values.find("ana", looks.look)).value == 1
    looks.fails = True
    with pytest.raises(Unavailable):
        await values.find("ben", looks.look)
    looks.fails = False
    assert (await values.find("ben", looks.look)).value == 3


@pytest.mark.usefixtures("impatient")
async def test_whoever_waits_for_the_same_look_hears_of_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale_while_revalidate, "PATIENCE_SECONDS", 10)
    values, looks = StaleWhileRevalidate[int](), Looks()
    looks.may_answer.clear()
    looks.fails = True
    both = [asyncio.create_task(values.find("ana", looks.look)) for _ in range(2)]
    await asyncio.sleep(0)
    looks.may_answer.set()
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert [type(one) for one in ended] == [Unavailable, Unavailable]


async def test_a_value_is_looked_at_again_when_it_is_stale_and_forgotten_when_it_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, looks = Clock(), Looks()
    values = StaleWhileRevalidate[int](clock=clock)
    assert (await values.find("ana", looks.look)).value == 1
    clock.now = FRESH_SECONDS
    assert (await values.find("ana", looks.look)).value == 1
    assert looks.begun == 1
    monkeypatch.setattr(stale_while_revalidate, "PATIENCE_SECONDS", 0.01)
    looks.may_answer.clear()
    clock.now = KEPT_SECONDS
    stale = await values.find("ana", looks.look)
    assert (stale.value, stale.again, looks.begun) == (1, True, 2)
    clock.now = KEPT_SECONDS + 1
    old = await values.find("ana", looks.look)
    assert (old.value, old.at, old.again) == (None, None, True)
    looks.may_answer.set()


@pytest.mark.parametrize("step", [timedelta(days=-400), timedelta(days=400)], ids=["back", "forward"])
async def test_a_wall_clock_that_is_set_makes_nothing_fresh_and_nothing_stale(
    monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    clock, looks = Clock(), Looks()
    values = StaleWhileRevalidate[int](clock=clock)
    assert (await values.find("ana", looks.look)).value == 1

    class Set(datetime):
        """The wall clock after somebody has set it."""

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + step

    monkeypatch.setattr(stale_while_revalidate, "datetime", Set)
    assert (await values.find("ana", looks.look)).value == 1
    clock.now = FRESH_SECONDS + 1
    assert (await values.find("ana", looks.look)).value == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_look_that_ended_long_ago_is_not_taken_for_one_of_now(fails: bool) -> None:
    clock, looks = Clock(), Looks()
    values = StaleWhileRevalidate[int](clock=clock)
    looks.may_answer.clear()
    assert (await values.find("ana", looks.look)).again
    looks.fails = fails
    looks.may_answer.set()
    await looks.answered.wait()
    await asyncio.sleep(0)
    clock.now, looks.fails = KEPT_SECONDS + 1, False
    looks.may_answer.clear()
    later = await values.find("ana", looks.look)
    assert (later.value, later.at, later.again, looks.begun) == (None, None, True, 2)
    looks.may_answer.set()
