"""Calls to a cluster's API server: how many begin in a second, which of them first, and who gives up."""

import asyncio
import time
from collections import Counter

import pytest

from activities.drivers.runtime.kubernetes.pace import AT_ONCE, PER_SECOND, UNDER_WAY, Pace
from tests.patience import PATIENCE, until

MOST = 50
"""What a cluster's administrators are promised: calls in any second."""


def test_what_may_begin_in_a_second_and_what_is_under_way_before_it_are_fifty_together() -> None:
    assert PER_SECOND + AT_ONCE + UNDER_WAY <= MOST


async def test_a_crowd_begins_at_its_pace_and_no_faster_after_a_standstill() -> None:
    pace, begun = Pace(200, at_once=5, under_way=4), list[float]()
    may_end = asyncio.Event()

    async def call() -> None:
        async with pace.turn():
            begun.append(time.monotonic())
            await may_end.wait()

    crowd = [asyncio.create_task(call()) for _ in range(60)]
    await until(lambda: len(begun) == 4)
    await asyncio.sleep(0.3)
    assert len(begun) == 4, "no more are under way than may be"
    may_end.set()
    await asyncio.gather(*crowd)
    tenths = Counter(int((at - begun[4]) * 10) for at in begun[4:])
    assert max(tenths.values()) <= 0.1 * 200 + 5 + 4


async def test_what_users_wait_for_begins_before_what_only_clears_away() -> None:
    pace, order = Pace(1000, under_way=1), list[str]()

    async def call(name: str, *, can_wait: bool) -> None:
        async with pace.turn(can_wait=can_wait):
            order.append(name)

    first = [asyncio.create_task(call("clear", can_wait=True)) for _ in range(3)]
    then = [asyncio.create_task(call("place", can_wait=False)) for _ in range(3)]
    await asyncio.gather(*first, *then)
    assert order == ["place"] * 3 + ["clear"] * 3


async def test_what_only_clears_away_is_not_put_off_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.drivers.runtime.kubernetes.pace.LATER", 0.05)
    pace, ended = Pace(1000, under_way=1), asyncio.Event()

    async def clear() -> None:
        async with pace.turn(can_wait=True):
            ended.set()

    async def place() -> None:
        while not ended.is_set():
            async with pace.turn():
                await asyncio.sleep(0.001)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(place())
        group.create_task(clear())


async def test_who_gives_up_leaves_his_place_to_others() -> None:
    pace = Pace(1000, under_way=1)

    async def call(for_seconds: float) -> None:
        async with pace.turn():
            await asyncio.sleep(for_seconds)

    gives_up = [asyncio.create_task(call(3600)) for _ in range(3)]
    await asyncio.sleep(0.05)
    for one in gives_up:
        one.cancel()
    await asyncio.gather(*gives_up, return_exceptions=True)
    async with asyncio.timeout(PATIENCE):
        await call(0.0)


async def test_no_call_begins_while_the_server_wants_a_rest() -> None:
    pace = Pace(1000)
    pace.rest(0.2)
    begun = time.monotonic()
    async with pace.turn():
        assert time.monotonic() - begun >= 0.2
