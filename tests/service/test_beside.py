"""What a process does beside its work never ends in silence."""

import asyncio
from datetime import timedelta

import pytest

from orchestrator.processes import beside
from orchestrator.processes.beside import begun_again
from tests.patience import PATIENCE


async def test_what_fails_or_ends_beside_the_work_is_told_and_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(beside, "AGAIN", timedelta(0))
    begun, often = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise BlockingIOError("no processes left")
        if begun == 2:
            return
        often.set()
        await asyncio.Event().wait()

    doing = asyncio.create_task(begun_again("looking after it", work))
    await asyncio.wait_for(often.wait(), PATIENCE)
    assert "looking after it has failed, and is begun again" in caplog.text
    assert "no processes left" in caplog.text
    assert "looking after it has ended, and is begun again" in caplog.text
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
