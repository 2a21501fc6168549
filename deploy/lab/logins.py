"""A steady crowd that logs in at every gateway, never the same person twice, and goes again."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from deploy.lab.credentials import Credentials
from deploy.lab.daemons.port import LogsIn, Outcome
from deploy.lab.topology import Host, Topology

SECOND_TRY = 1.5
"""Seconds until somebody who mistyped tries again."""
_UNDER_WAY = 40
"""Logins under way at one gateway before new ones wait: a slow gateway must not drown this machine."""
_LAST_ONES = 200


@dataclass(frozen=True)
class Login:
    """One login as the person saw it."""

    at: float
    gateway: str
    user: str
    outcome: Outcome
    seconds: float
    mistyped: bool
    reason: str
    address: str = ""
    """From which it came."""


class Load:
    """The crowd: so many logins a second at each gateway, from many source addresses."""

    def __init__(
        self,
        *,
        topology: Topology,
        credentials: Credentials,
        logs_in: LogsIn,
        log: Path,
        addresses: int = 0,
        per_second: float = 2.0,
        mistyped: float = 0.02,
    ) -> None:
        self._gateways = topology.gateways
        self._logs_in = logs_in
        self._people = itertools.cycle(credentials.people)
        self._addresses = itertools.cycle(topology.load_addresses[: addresses or None])
        self._log: TextIO = log.open("a", encoding="utf-8", buffering=1)
        self._interval, self._mistyped = 1 / per_second, mistyped
        self._counts: dict[str, Counter[str]] = {gateway.name: Counter() for gateway in topology.gateways}
        self._seconds: dict[str, list[float]] = {gateway.name: [] for gateway in topology.gateways}
        self._random = random.Random(0)  # noqa: S311 - who mistypes is no secret, and the same each time

    async def run(self, stop: asyncio.Event) -> None:
        """Log in steadily until told to stop; what is under way then is finished."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, gateway in enumerate(self._gateways):
                    offset = number * self._interval / len(self._gateways)
                    group.create_task(self._crowd(gateway, stop, offset))
        finally:
            self._log.close()

    def view(self) -> dict[str, Any]:
        """Return the outcomes per gateway so far, and the median of the last accepted ones' seconds."""
        gateways = {
            name: {**count, "median_seconds": _median(self._seconds[name])}
            for name, count in self._counts.items()
        }
        totals = sum(self._counts.values(), Counter[str]())
        return {"at": time.time(), "totals": dict(totals), "gateways": gateways}

    async def _crowd(self, gateway: Host, stop: asyncio.Event, offset: float) -> None:
        room = asyncio.Semaphore(_UNDER_WAY)
        due = time.monotonic() + offset
        async with asyncio.TaskGroup() as people:
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await room.acquire()
                person = people.create_task(self._person(gateway))
                person.add_done_callback(lambda _: room.release())
                due = max(due + self._interval, time.monotonic() - 1)

    async def _person(self, gateway: Host) -> None:
        user, address = next(self._people), next(self._addresses)
        mistypes = self._random.random() < self._mistyped
        await self._try(gateway, user, address, mistyped=mistypes)
        if mistypes:
            await asyncio.sleep(SECOND_TRY)
            await self._try(gateway, user, address)

    async def _try(self, gateway: Host, user: str, address: str, *, mistyped: bool = False) -> None:
        at, start = time.time(), time.monotonic()
        outcome, reason = await self._logs_in.log_in(gateway, user, address, mistyped=mistyped)
        seconds = round(time.monotonic() - start, 4)
        login = Login(at, gateway.name, user, outcome, seconds, mistyped, reason, address)
        self._log.write(json.dumps(asdict(login)) + "\n")
        self._counts[gateway.name]["mistyped" if mistyped else outcome.value] += 1
        if outcome is Outcome.ACCEPTED:
            self._seconds[gateway.name] = [*self._seconds[gateway.name], seconds][-_LAST_ONES:]


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
