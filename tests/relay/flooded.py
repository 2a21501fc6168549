"""A relay under a flood: what other agents notice, and how much memory it takes."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from orchestrator.enrolment.names import RELAY_NAME
from tests.relay.floods import CALL
from tests.relay.installation import Shown

CONNECTIONS = 8
SHOULD_TAKE = 5.0
"""Seconds after which a call of another agent has failed."""


@asynccontextmanager
async def flooding(
    kind: str, address: str, shown: Shown, connections: int = CONNECTIONS
) -> AsyncIterator[None]:
    """Flood for the length of the body."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "shown.pem")
        await asyncio.to_thread(file.write_bytes, shown.certificate + shown.key)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.relay.floods", kind, address, str(file), str(connections)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"flooding\n"
            yield
        finally:
            process.kill()
            await process.wait()


@dataclass
class Noticed:
    """What another agent notices: how many seconds its calls took, and why some failed."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """The slowest one in a hundred, in milliseconds."""
        return statistics.quantiles(self.seconds, n=100)[98] * 1000


async def noticed(address: str, shown: Shown, authority: bytes, calls: int) -> Noticed:
    """Call so many times as an agent, twenty times a second at most."""
    credentials = grpc.ssl_channel_credentials(authority, shown.key, shown.certificate)
    options = [("grpc.ssl_target_name_override", RELAY_NAME), ("grpc.use_local_subchannel_pool", 1)]
    found = Noticed()
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CALL)
        for _ in range(calls):
            began = time.monotonic()
            try:
                await call(b"", timeout=SHOULD_TAKE, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                found.failures.append(f"{error.code().name}: {error.details()}")
            found.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return found


def resident_mb(pid: int) -> int:
    """Return what the process has in memory, with its children: HAProxy is the relay's."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
