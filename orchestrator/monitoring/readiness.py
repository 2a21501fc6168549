"""Whether a process can do its work: looked at now and then, and told from memory to whoever asks.

Strangers may ask as often as they like: an answer reads a few words, and asks neither engine nor ledger.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import grpc
from temporalio.service import RPCError

from policies.model.errors import PenstockError

EVERY = timedelta(seconds=5)
WITHIN = timedelta(seconds=3)
"""How long one look may take."""

FORGOTTEN = timedelta(seconds=30)
"""A look that is older says nothing: the process that should look has hung."""

Look = Callable[[], Awaitable[object]]
"""Returns when a part answers, and raises when it does not."""


@dataclass(frozen=True)
class Found:
    """What the last look at a part has found; `fault` is None when it answers."""

    fault: str | None
    at: float


class Readiness:
    """The parts that a process rests on, and what each was like when it was last looked at."""

    def __init__(self, looks: Mapping[str, Look], clock: Callable[[], float] = time.monotonic) -> None:
        """Take a look for each part by its name; none was looked at yet."""
        self._looks = looks
        self._clock = clock
        self._found: dict[str, Found] = {}

    async def look(self) -> None:
        """Look at every part once, at all of them together."""
        await asyncio.gather(*(self._look_at(part, look) for part, look in self._looks.items()))

    async def keep_looking(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY.total_seconds())

    @property
    def faults(self) -> dict[str, str | None]:
        """Return why each part cannot be worked with, None for one that answers."""
        return {part: self._fault(self._found.get(part)) for part in self._looks}

    @property
    def sentence(self) -> str | None:
        """Return what is wrong, without any address; None when the process is ready."""
        wrong = [f"{part}: {fault}" for part, fault in self.faults.items() if fault is not None]
        return "; ".join(wrong) or None

    def _fault(self, found: Found | None) -> str | None:
        if found is None:
            return "was not looked at yet"
        if self._clock() - found.at > FORGOTTEN.total_seconds():
            return f"was not looked at for {self._clock() - found.at:.0f} s"
        return found.fault

    async def _look_at(self, part: str, look: Look) -> None:
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                await look()
        except TimeoutError:
            fault: str | None = f"does not answer within {WITHIN.total_seconds():g} s"
        except (PenstockError, RPCError, grpc.RpcError, OSError, RuntimeError):  # each may name an address
            fault = "does not answer"
        else:
            fault = None
        self._found[part] = Found(fault, self._clock())


def in_a_thread(ask: Callable[[], object], name: str) -> Look:
    """Return a look that asks in a thread of its own, so that one that hangs keeps nobody else waiting.

    While it hangs, later looks end in time and ask nothing.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def look() -> None:
        await asyncio.get_running_loop().run_in_executor(reader, ask)

    return look
