"""How a process is told to stop, and ends; apart, so that one without the engine's client loads none."""

import asyncio
import os
import signal
import sys
from typing import NoReturn


def told_to_stop() -> asyncio.Event:
    """Return what is set by SIGTERM and SIGINT from now on."""
    told = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, told.set)
    return told


def leave(code: int) -> NoReturn:
    """End the process without the interpreter's own shutdown, which can abort after using the engine.

    sdk-python issue 300; temporal.md section 15 has the counts.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it has gone
            continue
    os._exit(code)
