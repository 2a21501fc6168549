"""Steps that work beside the loop: heard of while they last, and their errors in the engine's form."""

import time

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import liveness
from activities.liveness import in_a_thread
from policies.model.errors import Refused
from tests.patience import wait_until


async def test_work_in_a_thread_is_heard_of_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "BEAT_SECONDS", 0.02)
    environment, beats = ActivityEnvironment(), []
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    await environment.run(in_a_thread, wait_until, lambda: len(beats) > 1)


async def test_work_that_is_over_at_once_costs_the_engine_no_beat() -> None:
    environment, beats = ActivityEnvironment(), []
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    assert await environment.run(in_a_thread, len, "four") == 4
    assert beats == []


async def test_a_refusal_of_work_in_a_thread_is_not_tried_again() -> None:
    def refuse() -> None:
        raise Refused("the disk is full")

    with pytest.raises(ApplicationError, match="the disk is full") as refused:
        await ActivityEnvironment().run(in_a_thread, refuse)
    assert (refused.value.type, refused.value.non_retryable) == ("Refused", True)
