"""The control socket of an instance, in the folder that it sees as RUN."""

import asyncio
import os
from pathlib import Path


async def connected(
    folder: Path, socket: str, limit: int = 2**16
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect by the folder's descriptor: a socket's own path may have 107 bytes (unix(7)).

    Raises:
        OSError: Nobody listens there.
    """
    there = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{there}/{socket}", limit=limit)
    finally:
        os.close(there)
