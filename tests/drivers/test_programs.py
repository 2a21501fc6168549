"""Programs are run to their end, whoever stops waiting for them."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.programs import run
from policies.model.errors import Unavailable
from tests.patience import PATIENCE, until


async def test_a_program_says_how_it_ended_and_what_it_printed() -> None:
    result = await run(["sh", "-c", "cat; echo bad >&2; exit 3"], given="good")
    assert (result.status, result.out, result.err.strip(), result.last_words) == (3, "good", "bad", "bad")


async def test_a_program_that_is_late_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="was killed"):
        await run(["sleep", "60"], within=timedelta(seconds=0.2))
    assert time.monotonic() - began < 5


async def test_a_program_that_is_late_is_killed_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="was killed"):
        await run(["sh", "-c", f"sleep 4; touch {tmp_path}/ran"], within=timedelta(seconds=0.2))
    with pytest.raises(Unavailable, match="was killed"):
        await run(["sh", "-c", "sleep 4 & exit 0"], within=timedelta(seconds=0.2))
    assert time.monotonic() - began < 3.5


async def test_what_a_program_leaves_in_a_session_of_its_own_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="was killed"):
        await run(["sh", "-c", "setsid sleep 4"], within=timedelta(seconds=0.2))
    assert time.monotonic() - began < 3.5


async def test_what_a_program_leaves_behind_that_has_let_go_of_its_pipes_goes_on(tmp_path: Path) -> None:
    left = f"{{ sleep 0.3; touch {tmp_path}/ran; }} > /dev/null 2>&1 &"
    assert (await run(["sh", "-c", left])).status == 0
    await until((tmp_path / "ran").exists)


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(Unavailable, match="no-such-program cannot be started"):
        await run(["no-such-program"])


@pytest.mark.parametrize("turns", range(8))
async def test_whoever_is_cancelled_while_a_program_starts_hangs_nowhere(turns: int, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    waiting = asyncio.create_task(run(["sh", "-c", f"echo $$ > {told}; exec sleep 600"]))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(PATIENCE):
        with suppress(asyncio.CancelledError):
            await waiting

    def is_gone() -> bool:
        pid = told.read_text().strip() if told.exists() else ""
        return not pid or not Path("/proc", pid).exists()

    await asyncio.sleep(0.4)
    await until(is_gone)
