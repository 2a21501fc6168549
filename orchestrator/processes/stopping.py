"""How a process is told to stop; apart, so that one without the engine's client loads none."""

import asyncio
import signal


def told_to_stop() -> asyncio.Event:
    """Return what is set by SIGTERM and SIGINT from now on."""
    told = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, told.set)
    return told
