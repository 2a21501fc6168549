"""A watch over the servers of tests: the test that leans on a dead one ends at once and names it.

Without it a client tries a dead server again and again until the test's time is over.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LOOK = 0.2
"""Seconds between two looks at the processes."""

DYING = 1.0
"""Seconds that a process may still count as alive after its connections have broken."""

LAST_WORDS = 5.0
"""Seconds that a test has to let go of what it holds, once its server is dead."""


class ServerDied(AssertionError):
    """A server that a test needed has ended by itself; what the test was about is not known."""


@dataclass(frozen=True)
class Server:
    """A process that tests lean on: a child of this one."""

    name: str
    pid: int

    def end(self) -> str | None:
        """Return how it ended, None while it runs; the process is left to whoever started it."""
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "is gone"
        if ended is None:
            return None
        if ended.si_code == os.CLD_EXITED:
            return f"exited with {ended.si_status}"
        return f"was ended by {signal.Signals(ended.si_status).name}"


_watched: list[Server] = []


def watch(server: Server) -> None:
    """Hold every test from now on to that server's life."""
    _watched.append(server)


def let_go(server: Server) -> None:
    """Look at it no longer: whoever calls is about to end it, or knows that it has ended."""
    if server in _watched:
        _watched.remove(server)


@contextmanager
def watched(server: Server) -> Iterator[None]:
    """Watch the server for as long as the block lasts."""
    watch(server)
    try:
        yield
    finally:
        let_go(server)


def the_dead() -> str | None:
    """Return the sentence that names the first server that has ended by itself, None while all live."""
    for server in _watched:
        if end := server.end():
            return f"the test's server died: {server.name} (process {server.pid}) {end}"
    return None


async def under_watch(test: Coroutine[Any, Any, None]) -> None:
    """Run a test; raise ServerDied as soon as a server it leans on has died, whatever it waits for."""
    running = asyncio.ensure_future(test)
    while not running.done():
        if dead := the_dead():
            running.cancel()
            await asyncio.wait({running}, timeout=LAST_WORDS)
            raise ServerDied(dead)
        await asyncio.wait({running}, timeout=LOOK)
    if broken := running.exception():
        if dead := await _dead_within(DYING):
            raise ServerDied(dead) from broken
        raise broken


async def _dead_within(seconds: float) -> str | None:
    for _ in range(round(seconds / LOOK)):
        if dead := the_dead():
            return dead
        await asyncio.sleep(LOOK)
    return the_dead()
