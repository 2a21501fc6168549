"""A worker's admissions wait for the ledger and the repository in threads that nothing else uses."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.admission import AT_ONCE, AdmitOrder, ReleaseActivities
from activities.drivers.trust_files import compose_releases
from activities.threads import OwnLoop
from policies.model.plan import ReleaseRef
from tests.fakes.silent import silent_server
from tests.fakes.stage import CHANNEL, PRODUCT, Stage
from tests.patience import PATIENCE, until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def order(release: ReleaseRef, source: str) -> AdmitOrder:
    return AdmitOrder(release=release, source=source, product=PRODUCT, channel=CHANNEL)


@pytest.mark.parametrize("hanging", ["promoted", "fetched"])
async def test_a_ledger_that_hangs_for_an_admission_stops_neither_the_event_loop_nor_heartbeats(
    stage: Stage, tmp_path: Path, hanging: str
) -> None:
    """Every gateway's known-good was read, and each fetch written down, on the worker's event loop."""
    release = (await stage.admit()).reference

    begun, free = threading.Event(), threading.Event()

    def hang(*_: object) -> Any:
        begun.set()
        assert free.wait(PATIENCE), "the event loop does nothing else meanwhile"
        return ()

    releases = compose_releases(
        tmp_path / "worker",
        stage.lab.trust_policy,
        promoted=hang if hanging == "promoted" else tuple,
        fetched=hang if hanging == "fetched" else None,
    )
    beats = list[float]()
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    step = ReleaseActivities(releases).admit_release
    admitting = asyncio.create_task(environment.run(step, order(release, stage.server.url)))
    await until(lambda: begun.is_set() and bool(beats))
    free.set()
    await admitting


async def test_a_silent_repository_takes_no_thread_that_other_steps_use(stage: Stage) -> None:
    """Each admission held one of the few threads in which waves are watched."""
    release = (await stage.admit()).reference
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    try:
        with silent_server() as address:
            stage.change_policy(lambda policy: policy["sources"].update(allow=[address]))
            step = ReleaseActivities(stage.compose()).admit_release
            asked = [
                asyncio.create_task(ActivityEnvironment().run(step, order(release, address)))
                for _ in range(AT_ONCE + 1)
            ]
            await asyncio.sleep(1)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), PATIENCE) == "free"
            for one in asked:
                one.cancel()
            await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), PATIENCE)
    finally:
        loop.set_default_executor(ThreadPoolExecutor())  # later tests have the same loop


def test_a_step_that_was_given_up_before_its_turn_does_nothing() -> None:
    done = list[str]()

    async def work() -> None:
        done.append("work")

    step = OwnLoop(work)
    step.give_up()
    with pytest.raises(asyncio.CancelledError):
        step()
    assert done == []


async def test_a_step_in_a_loop_of_its_own_is_cancelled_from_another_thread() -> None:
    begun, cleaned = threading.Event(), list[str]()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    step = OwnLoop(work)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(step)
        assert begun.wait(PATIENCE)
        step.give_up()
        assert isinstance(running.exception(PATIENCE), asyncio.CancelledError)
    step.give_up()
    assert cleaned == ["up"]
