"""HAProxy's stats socket: one command to a connection (its management guide, 9.3)."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from policies.model.errors import Unavailable

PATIENCE = timedelta(seconds=2)


class HaproxySocket:
    """The stats socket of one process."""

    def __init__(self, path: Path, whose: str) -> None:
        """Take where it is, and the gateway's name."""
        self.path = path
        self._whose = whose

    async def ask(self, command: str, within: timedelta = PATIENCE) -> str:
        """Return what it answers; lines of a payload belong to the command.

        Raises:
            Unavailable: nobody answers there in time.
        """
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await self._asked(command)
        except OSError as error:
            raise Unavailable(
                f"HAProxy on {self._whose} does not answer {command.split(maxsplit=1)[0]!r} at {self.path}: "
                f"{str(error) or 'no answer in time'}"
            ) from error

    async def order(self, command: str) -> str:
        """Have it do something; return what it says of it.

        Every answer ends with an empty line: none at all is HAProxy's for a command that is too long.

        Raises:
            Unavailable: nobody answers there in time, or the answer is a refusal.
        """
        answer = await self.ask(command)
        if not answer:
            raise Unavailable(
                f"HAProxy on {self._whose} closed its socket on {command.splitlines()[0]!r} without an answer"
            )
        said = answer.strip()
        if said and not said.startswith(("New version created", "Success", "Transaction", "Committing")):
            raise Unavailable(f"HAProxy on {self._whose} refuses {command.splitlines()[0]!r}: {said}")
        return said

    async def _asked(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            writer.write(f"{command}\n".encode())
            writer.write_eof()
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def nobody_listens(error: Unavailable) -> bool:
    """Whether no process has the socket: HAProxy has ended, or has not begun yet."""
    return isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)
