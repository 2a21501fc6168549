"""Programs run to their end: what they said, and whether they said it in time."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from policies.lines import lines_in
from policies.model.errors import Unavailable

PATIENCE = timedelta(seconds=10)
GONE_WITHIN = timedelta(seconds=0.5)
"""How long what was killed is waited for: who made a session of its own may keep the pipes open."""


@dataclass(frozen=True)
class Completed:
    """How a program ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line of what it complained about, else of what it printed."""
        lines = [*lines_in(self.out), *lines_in(self.err)]
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


OF_A_DAEMON: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""The environment of a daemon: nothing of ours, whose TMPDIR may not be there among a release's files."""


async def start(
    command: Sequence[str], *, stderr: int, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start the program in a session of its own, with pipes to it and from it.

    It is started to the end even if its caller is cancelled meanwhile, and killed then: CPython 3.11
    waits for ever for a process whose start was cancelled half way.

    Raises:
        OSError: it cannot be started.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):
            await end(await starting)
        raise


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill what `start` started, with everything in its session, and wait until it is gone.

    CPython 3.11 waits for a process until its pipes are closed, and its children have them, too: whoever
    kills it alone waits for those to end by themselves.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(GONE_WITHIN.total_seconds()):
            await process.wait()


async def run(
    command: Sequence[str],
    given: str = "",
    within: timedelta = PATIENCE,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run the program to its end; a program that is late is killed, with all that it started.

    It has this process's environment unless it is given another one.

    Raises:
        Unavailable: when it cannot be started or did not end in time.
    """
    try:
        process = await start(command, stderr=asyncio.subprocess.PIPE, environment=environment)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started here: {error}") from error
    try:
        async with asyncio.timeout(within.total_seconds()):
            try:
                out, err = await process.communicate(given.encode())
            except BaseException:
                await end(process)
                raise
    except TimeoutError as error:
        raise Unavailable(
            f"{command[0]} did not end within {within.total_seconds():g} s and was killed"
        ) from error
    return Completed(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
