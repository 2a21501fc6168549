"""The command `penstock` as a process of its own, as people have it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.patience import PATIENCE


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """The command, as a process of its own."""

    environment: dict[str, str]

    async def __call__(self, *arguments: str, **environment: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment | environment,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _ended(process, out, err)

    async def fed(self, typed: str, *arguments: str) -> Ended:
        """Run it, and type this into it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        out, err = await asyncio.wait_for(process.communicate(f"{typed}\n".encode()), PATIENCE)
        return _ended(process, out, err)

    async def watched(self, look: Callable[[str], Awaitable[None]], *arguments: str) -> Ended:
        """Run it, and show each line of its errors to somebody as it comes."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = b""
        async with asyncio.timeout(PATIENCE):
            while line := await process.stderr.readline():
                said += line
                await look(line.decode())
            out = await process.stdout.read()
            await process.wait()
        return _ended(process, out, said)


def _ended(process: asyncio.subprocess.Process, out: bytes, err: bytes) -> Ended:
    assert process.returncode is not None
    assert "Traceback" not in err.decode(), err.decode()
    return Ended(process.returncode, out.decode(), err.decode())
