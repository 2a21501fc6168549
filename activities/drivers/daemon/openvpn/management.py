"""OpenVPN's management socket: one command, one answer (management-notes.txt of OpenVPN 2.6; 2.7 is alike).

The daemon serves one caller at a time, and the next one waits until that one has hung up: so each question
is a short connection of its own. Lines that begin with `>` come by themselves and answer nothing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from activities.drivers.daemon.control import Asked, connected_to

SOCKET = "management.sock"
"""In the folder that the instance sees as RUN."""
ANSWER = timedelta(seconds=2)
LONGEST = 2**22
"""Bytes of an answer; ten thousand clients are 1.5 MB."""
_ENDS = ("SUCCESS:", "ERROR:")


async def ask(asked: Asked, *commands: str, within: timedelta = ANSWER) -> list[Sequence[str]] | None:
    """Return the lines of each command's answer, None where not all of them come in time.

    An answer of several lines comes without its `END`.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            reader, writer = await connected_to(asked, LONGEST)
            try:
                return [await _answer(reader, writer, command) for command in commands]
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError, ValueError):
        return None


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str) -> list[str]:
    writer.write(f"{command}\n".encode())
    with suppress(ConnectionError):  # what it said before it hung up is there to be read
        await writer.drain()
    said = list[str]()
    while True:
        line = (await reader.readuntil(b"\n")).decode(errors="replace").rstrip("\r\n")
        if line.startswith(">"):
            continue
        if line == "END":
            return said
        said.append(line)
        if line.startswith(_ENDS) and len(said) == 1:
            return said
