"""Waiting for sessions on a gateway: looked at every second, told to the engine seldom, never forgotten."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sessions import Drained, DrainOrder, SessionActivities, beat_of
from policies.model.drain import Look, Loss
from policies.model.errors import Unavailable
from tests.drivers.gateway_lab import gateway, operation
from tests.fakes.gateway import FakeGateway
from tests.patience import PATIENCE, until
from tests.workflows.world import OLD

HOUR = timedelta(hours=1)


class Counted(FakeGateway):
    """A gateway that counts how often somebody looks at its sessions."""

    looks = 0

    async def look(self, slot: str) -> Look:
        self.looks += 1
        return await super().look(slot)

    async def looked_at(self) -> None:
        """Wait until somebody has looked, from now on, and is done with it."""
        before = self.looks
        await until(lambda: self.looks >= before + 2)


@pytest.fixture
def fake() -> Counted:
    fake = Counted(gateway())
    fake.serve(OLD, "a")
    for person in range(3):
        fake.login(f"192.0.2.{person}")
    fake.serving = "b"
    return fake


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.sessions.POLL", timedelta(milliseconds=20))


def environment(
    patience: timedelta | None = None, details: Any = None
) -> tuple[ActivityEnvironment, list[Any]]:
    environment, beats = ActivityEnvironment(), list[Any]()
    given = [] if details is None else [details]
    environment.info = replace(environment.info, heartbeat_timeout=patience, heartbeat_details=given)
    environment.on_heartbeat = beats.append
    return environment, beats


def order(within: timedelta = HOUR, last: Look | None = None) -> DrainOrder:
    return DrainOrder(operation=operation("drain-a"), slot="a", within=within, last=last)


def test_one_lost_beat_never_makes_an_agent_look_dead() -> None:
    for patience in (timedelta(seconds=10), timedelta(seconds=75), timedelta(minutes=30)):
        assert beat_of(patience) * 2 < patience
    assert beat_of(timedelta(seconds=75)) >= timedelta(seconds=30)
    assert beat_of(None) >= timedelta(seconds=30)


async def test_a_drain_looks_often_and_tells_the_engine_seldom(fake: Counted) -> None:
    patience, began = timedelta(seconds=1), time.monotonic()
    running, beats = environment(patience)
    drain = asyncio.create_task(running.run(SessionActivities(fake).drain_instance, order()))
    await until(lambda: fake.looks >= 15 and bool(beats))
    assert len(beats) <= (time.monotonic() - began) / beat_of(patience).total_seconds() + 1
    drain.cancel()
    await asyncio.wait([drain])


async def test_a_short_wait_tells_the_engine_nothing(fake: Counted) -> None:
    running, beats = environment(timedelta(seconds=75))
    drained = await running.run(SessionActivities(fake).drain_instance, order(timedelta(milliseconds=200)))
    assert (drained.empty, drained.look.sessions, beats) == (False, 3, [])


async def test_a_second_attempt_waits_no_longer_than_the_whole_wait(fake: Counted) -> None:
    running, _ = environment()
    scheduled = running.info.scheduled_time
    running.info = replace(running.info, attempt=2, started_time=scheduled + HOUR)
    async with asyncio.timeout(PATIENCE):
        drained = await running.run(SessionActivities(fake).drain_instance, order(HOUR))
    assert drained.look.sessions == 3


async def test_an_agent_that_is_told_to_end_hands_its_drain_over_at_once(fake: Counted) -> None:
    running, beats = environment(timedelta(seconds=75))
    drain = asyncio.create_task(running.run(SessionActivities(fake).drain_instance, order()))
    await fake.looked_at()
    fake.logout("192.0.2.0")
    await fake.looked_at()
    running.worker_shutdown()
    with pytest.raises(ApplicationError) as handed_over:
        async with asyncio.timeout(2):
            await drain
    assert not handed_over.value.non_retryable
    assert [Drained.model_validate(beat).look.sessions for beat in beats] == [2]
    fake.reboot()
    after, _ = environment(details=beats[0])
    drained = await after.run(SessionActivities(fake).drain_instance, order())
    assert (drained.empty, drained.lost, drained.loss) == (True, 2, Loss.REBOOT)


async def test_what_was_seen_before_an_error_is_known_after_it(fake: Counted) -> None:
    running, beats = environment(timedelta(seconds=75))
    drain = asyncio.create_task(running.run(SessionActivities(fake).drain_instance, order()))
    await fake.looked_at()
    fake.fail("count", Unavailable("gw-1 does not answer"))
    with pytest.raises(ApplicationError, match="does not answer"):
        await drain
    fake.crash("a")
    again, _ = environment(details=beats[-1])
    drained = await again.run(SessionActivities(fake).drain_instance, order())
    assert (drained.lost, drained.loss) == (3, Loss.CRASH)


async def test_an_instance_is_empty_when_it_was_seen_so_twice_by_the_same_agent(fake: Counted) -> None:
    fake.crash("a")
    empty = Drained(empty=False, look=Look(sessions=0, boot=fake.boot)).model_dump(mode="json")
    running, _ = environment(details=empty)
    assert (await running.run(SessionActivities(fake).drain_instance, order())).empty
    assert fake.looks == 2
