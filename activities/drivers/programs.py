"""Programs run to their end: what they said, and whether they said it in time."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from policies.model.errors import Unavailable

PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True)
class Completed:
    """How a program ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line of what it complained about, else of what it printed."""
        lines = [*self.out.splitlines(), *self.err.splitlines()]
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
            process = await starting
            process.kill()
            await process.wait()
        raise


async def run(command: Sequence[str], given: str = "", within: timedelta = PATIENCE) -> Completed:
    """Run the program to its end; a program that is late is killed.

    Raises:
        Unavailable: when it cannot be started or did not end in time.
    """
    try:
        process = await start(command, stderr=asyncio.subprocess.PIPE)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started here: {error}") from error
    try:
        async with asyncio.timeout(within.total_seconds()):
            out, err = await process.communicate(given.encode())
    except TimeoutError as error:
        raise Unavailable(
            f"{command[0]} did not end within {within.total_seconds():g} s and was killed"
        ) from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Completed(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
