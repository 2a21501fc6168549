"""The control socket of an instance, in the folder that it sees as RUN."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

CONNECT = timedelta(seconds=2)


class Asked(NamedTuple):
    """Where an instance is asked: a socket in a folder, or a port of this host."""

    folder: Path
    socket: str
    port: int = 0
    """Where there is one, nothing else counts."""


async def connected_to(asked: Asked, limit: int = 2**16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect there; OSError when nobody listens."""
    if asked.port:
        return await asyncio.open_connection("127.0.0.1", asked.port, limit=limit)
    return await connected(asked.folder, asked.socket, limit)


async def refusal_of(asked: Asked) -> str:
    """Return in one line why a question there is not answered; the connection is tried once."""
    where = f"127.0.0.1:{asked.port}" if asked.port else f"{asked.folder}/{asked.socket}"
    try:
        async with asyncio.timeout(CONNECT.total_seconds()):
            _, writer = await connected_to(asked)
    except TimeoutError:
        return f"{where} accepts no connection within {CONNECT.total_seconds():g} s"
    except OSError as error:
        return f"{where}: {os.strerror(error.errno) if error.errno else error}"
    writer.close()
    return f"{where} accepts connections and gives no answer"


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
